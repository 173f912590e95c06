//! The frames of `lz4 -l`, in which Linux packs kernels: a magic number, then blocks, each after its size.

use std::io::{self, BufRead, Read};

use super::stream::{corrupt, is_at_end, take, Blocks};
use crate::alloc;

const MAGIC: u32 = 0x184c_2102;
/// Unpacked bytes of a block; only the last one has fewer.
const BLOCK: usize = 8 << 20;
/// Bytes of a block that cannot be compressed (`LZ4_COMPRESSBOUND`).
const MAX_PACKED: u32 = (BLOCK + BLOCK / 255 + 16) as u32;

/// The blocks of all frames.
pub(super) struct Lz4Legacy<R> {
    packed: R,
    input: Vec<u8>,
    /// The block before was not full.
    was_last: bool,
    /// Other bytes may follow the frame.
    is_part: bool,
}

impl<R: BufRead> Lz4Legacy<R> {
    /// Reads the magic number. `is_part` says that other bytes may follow: Linux appends the size of the
    /// kernel, which looks like the size of a block.
    pub fn new(mut packed: R, is_part: bool) -> io::Result<Self> {
        if number(&mut packed)? != MAGIC {
            return Err(corrupt("no magic number"));
        }
        Ok(Self {
            packed,
            input: Vec::new(),
            was_last: false,
            is_part,
        })
    }
}

impl<R: BufRead> Blocks for Lz4Legacy<R> {
    fn next(&mut self, block: &mut Vec<u8>) -> io::Result<()> {
        if is_at_end(&mut self.packed)? {
            return Ok(());
        }
        let size = match number(&mut self.packed)? {
            // Frames may follow each other.
            MAGIC => number(&mut self.packed)?,
            _ if self.was_last && self.is_part => return Ok(()),
            size => size,
        };
        if size == 0 || (self.is_part && is_at_end(&mut self.packed)?) {
            return Ok(());
        }
        if size > MAX_PACKED {
            return Err(corrupt("a block larger than 8 MiB"));
        }
        take(&mut self.packed, size, &mut self.input)?;
        // A byte of a block stands for at most 255.
        let most = BLOCK.min(self.input.len().saturating_mul(255));
        alloc::reserve_exact(block, most);
        block.resize(most, 0);
        let n = lz4_flex::block::decompress_into(&self.input, block)
            .map_err(|_| corrupt("a block cannot be decompressed"))?;
        block.truncate(n);
        self.was_last = n < BLOCK;
        Ok(())
    }
}

fn number(packed: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    packed.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
