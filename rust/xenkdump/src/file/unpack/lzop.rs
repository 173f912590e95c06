//! The format of lzop: LZO1X blocks, in which Linux packs kernels (lib/decompress_unlzo.c).

use std::io::{self, BufRead, Read};

use super::stream::{corrupt, take, Blocks};
use crate::alloc;

const MAGIC: &[u8; 9] = b"\x89LZO\0\r\n\x1a\n";
/// The version since which the header has the level and the upper half of the time.
const NEWER: u16 = 0x0940;
/// Flags: checksums of the unpacked and of the packed data of a block; fields of the header.
const ADLER32_UNPACKED: u32 = 1;
const ADLER32_PACKED: u32 = 2;
const EXTRA_FIELD: u32 = 0x40;
const CRC32_UNPACKED: u32 = 0x100;
const CRC32_PACKED: u32 = 0x200;
const FILTER: u32 = 0x800;
/// Unpacked bytes of a block: lzop writes 256 KiB.
const MAX_BLOCK: u32 = 8 << 20;

/// The blocks of the first file.
pub(super) struct Lzop<R> {
    packed: R,
    flags: u32,
    input: Vec<u8>,
}

impl<R: BufRead> Lzop<R> {
    /// Reads the header.
    pub fn new(mut packed: R) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        packed.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(corrupt("no magic number"));
        }
        let version = half(&mut packed)?;
        // The version of the library, and the one needed; method and level.
        let is_newer = version >= NEWER;
        let before_flags = if is_newer { 2 + 2 + 1 + 1 } else { 2 + 1 };
        skip(&mut packed, before_flags)?;
        let flags = number(&mut packed)?;
        if flags & FILTER != 0 {
            return Err(corrupt("a filter"));
        }
        skip(&mut packed, if is_newer { 12 } else { 8 })?;
        let mut name = [0];
        packed.read_exact(&mut name)?;
        skip(&mut packed, u64::from(name[0]) + 4)?;
        if flags & EXTRA_FIELD != 0 {
            let size = number(&mut packed)?;
            skip(&mut packed, u64::from(size) + 4)?;
        }
        Ok(Self {
            packed,
            flags,
            input: Vec::new(),
        })
    }
}

impl<R: BufRead> Blocks for Lzop<R> {
    fn next(&mut self, block: &mut Vec<u8>) -> io::Result<()> {
        let size = number(&mut self.packed)?;
        if size == 0 {
            return Ok(());
        }
        let packed_size = number(&mut self.packed)?;
        if size > MAX_BLOCK || packed_size > size {
            return Err(corrupt("the size of a block"));
        }
        let of = |flag: u32| u64::from(self.flags & flag != 0) * 4;
        let checksum = match self.flags & ADLER32_UNPACKED {
            0 => None,
            _ => Some(number(&mut self.packed)?),
        };
        let mut others = of(CRC32_UNPACKED);
        if packed_size < size {
            others += of(ADLER32_PACKED) + of(CRC32_PACKED);
        }
        skip(&mut self.packed, others)?;
        take(&mut self.packed, packed_size, &mut self.input)?;
        if packed_size == size {
            std::mem::swap(&mut self.input, block);
        } else {
            alloc::reserve_exact(block, size as usize);
            block.resize(size as usize, 0);
            match lzokay::decompress::decompress(&self.input, block) {
                Ok(n) if n == size as usize => {}
                _ => return Err(corrupt("a block cannot be decompressed")),
            }
        }
        if checksum.is_some_and(|checksum| checksum != adler32(block)) {
            return Err(corrupt("the checksum of a block"));
        }
        Ok(())
    }
}

/// Adler-32 (RFC 1950).
fn adler32(bytes: &[u8]) -> u32 {
    // The sums of as many bytes fit into 32 bits.
    const PIECE: usize = 5552;
    const BASE: u32 = 65521;
    let (mut low, mut high) = (1, 0);
    for piece in bytes.chunks(PIECE) {
        for byte in piece {
            low += u32::from(*byte);
            high += low;
        }
        low %= BASE;
        high %= BASE;
    }
    high << 16 | low
}

fn skip(packed: &mut impl Read, len: u64) -> io::Result<()> {
    if io::copy(&mut packed.take(len), &mut io::sink())? == len {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn half(packed: &mut impl Read) -> io::Result<u16> {
    let mut bytes = [0; 2];
    packed.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn number(packed: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    packed.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::adler32;

    #[test]
    fn checksums() {
        assert_eq!(adler32(b""), 1);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(adler32(&[0xff; 100_000]), 0x149a_302c);
    }
}
