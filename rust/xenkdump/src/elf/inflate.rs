//! Compressed sections, with limits: `SHF_COMPRESSED` by zlib and zstd, and `.zdebug_*` by zlib.

use std::io::Read;

use goblin::container::Ctx;
use goblin::elf::compression_header::{CompressionHeader, ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD};
use scroll::Pread;

use crate::alloc;
use crate::budget::Budget;
use crate::limits::{MAX_SECTION_RATIO, MAX_SECTION_SLACK};

/// Inflates the content of a compressed section and reserves its size in `budget`; `None` where it is
/// corrupt, too large or compressed by an unknown method.
pub(super) fn inflate(section: &[u8], ctx: Ctx, budget: &Budget<'_>) -> Option<Vec<u8>> {
    let header: CompressionHeader = section.pread_with(0, ctx).ok()?;
    let packed = section.get(CompressionHeader::size(ctx)..)?;
    match header.ch_type {
        ELFCOMPRESS_ZLIB => unzlib(packed, header.ch_size, budget),
        ELFCOMPRESS_ZSTD => unzstd(packed, header.ch_size, budget),
        _ => None,
    }
}

/// The size that the content of a `.zdebug_*` section claims to have, and its zlib stream; `None` if
/// it is not compressed. GNU tools wrote such sections before `SHF_COMPRESSED` (binutils 2.26).
pub(super) fn zdebug(section: &[u8]) -> Option<(u64, &[u8])> {
    let (size, packed) = section.strip_prefix(b"ZLIB")?.split_first_chunk()?;
    Some((u64::from_be_bytes(*size), packed))
}

/// As [`inflate`], for a `.zdebug_*` section.
pub(super) fn inflate_zdebug(section: &[u8], budget: &Budget<'_>) -> Option<Vec<u8>> {
    let (size, packed) = zdebug(section)?;
    unzlib(packed, size, budget)
}

/// The content of a zlib stream, which claims to have `size` bytes.
fn unzlib(packed: &[u8], size: u64, budget: &Budget<'_>) -> Option<Vec<u8>> {
    let mut out = room(packed, size, budget)?;
    let stream = flate2::read::ZlibDecoder::new(packed);
    stream.take(size).read_to_end(&mut out).ok()?;
    (out.len() as u64 == size).then_some(out)
}

/// The content of zstd frames, which claim to have `size` bytes.
fn unzstd(packed: &[u8], size: u64, budget: &Budget<'_>) -> Option<Vec<u8>> {
    let mut out = room(packed, size, budget)?;
    // Fails for more than fits.
    zstd_safe::decompress(&mut out, packed).ok()?;
    (out.len() as u64 == size).then_some(out)
}

/// An empty buffer for `size` bytes, if they are within the limits.
fn room(packed: &[u8], size: u64, budget: &Budget<'_>) -> Option<Vec<u8>> {
    let limit = (packed.len() as u64).saturating_mul(MAX_SECTION_RATIO);
    if size > limit.saturating_add(MAX_SECTION_SLACK) {
        return None;
    }
    budget.reserve(size).ok()?;
    let mut out = Vec::new();
    alloc::reserve_exact(&mut out, usize::try_from(size).ok()?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use goblin::container::{Container, Endian};
    use std::io::Write;

    fn inflate_section(section: &[u8]) -> Option<Vec<u8>> {
        inflate(section, CTX, &Budget::new("sections", u64::MAX))
    }

    fn section(kind: u32, size: u64, packed: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(size.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(packed);
        bytes
    }

    const CTX: Ctx = Ctx {
        container: Container::Big,
        le: Endian::Little,
    };

    #[test]
    fn inflates_zlib_and_zstd() {
        let text = b"partial units and imported units ".repeat(50);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&text).unwrap();
        let zlib = zlib.finish().unwrap();
        let mut zstd = Vec::with_capacity(zstd_safe::compress_bound(text.len()));
        zstd_safe::compress(&mut zstd, &text, 1).unwrap();
        for (kind, packed) in [(ELFCOMPRESS_ZLIB, zlib), (ELFCOMPRESS_ZSTD, zstd)] {
            let size = text.len() as u64;
            assert_eq!(
                inflate_section(&section(kind, size, &packed)).as_deref(),
                Some(&text[..])
            );
            let short = Budget::new("sections", size - 1);
            assert_eq!(inflate(&section(kind, size, &packed), CTX, &short), None);
            // A wrong size, a truncated stream, an unknown method.
            assert_eq!(inflate_section(&section(kind, size + 1, &packed)), None);
            assert_eq!(
                inflate_section(&section(kind, size, &packed[..packed.len() / 2])),
                None
            );
            assert_eq!(inflate_section(&section(3, size, &packed)), None);
        }
    }

    #[test]
    fn sizes_beyond_the_limit_are_rejected() {
        let zeros = vec![0; 8 << 20];
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(&zeros).unwrap();
        let bomb = zlib.finish().unwrap();
        for size in [zeros.len() as u64, u64::MAX] {
            assert_eq!(
                inflate_section(&section(ELFCOMPRESS_ZLIB, size, &bomb)),
                None
            );
        }
    }
}
