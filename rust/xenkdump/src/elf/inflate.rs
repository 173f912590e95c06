//! Compressed sections (`SHF_COMPRESSED`): zlib and zstd, with limits.

use std::io::Read;

use goblin::container::Ctx;
use goblin::elf::compression_header::{CompressionHeader, ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD};
use scroll::Pread;

use crate::budget::Budget;
use crate::limits::{MAX_SECTION_RATIO, MAX_SECTION_SLACK};

/// Inflates the content of a compressed section and reserves its size in `budget`; `None` where it is
/// corrupt, too large or compressed by an unknown method.
pub(super) fn inflate(section: &[u8], ctx: Ctx, budget: &Budget<'_>) -> Option<Vec<u8>> {
    let header: CompressionHeader = section.pread_with(0, ctx).ok()?;
    let packed = section.get(CompressionHeader::size(ctx)..)?;
    let limit = (packed.len() as u64).saturating_mul(MAX_SECTION_RATIO);
    if header.ch_size > limit.saturating_add(MAX_SECTION_SLACK) {
        return None;
    }
    budget.reserve(header.ch_size).ok()?;
    let size = usize::try_from(header.ch_size).ok()?;
    let mut out = Vec::new();
    out.try_reserve_exact(size).ok()?;
    match header.ch_type {
        ELFCOMPRESS_ZLIB => flate2::read::ZlibDecoder::new(packed)
            .take(header.ch_size)
            .read_to_end(&mut out)
            .ok()?,
        ELFCOMPRESS_ZSTD => ruzstd::decoding::StreamingDecoder::new(packed)
            .ok()?
            .take(header.ch_size)
            .read_to_end(&mut out)
            .ok()?,
        _ => return None,
    };
    (out.len() == size).then_some(out)
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
        let zstd = ruzstd::encoding::compress_to_vec(
            &text[..],
            ruzstd::encoding::CompressionLevel::Fastest,
        );
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
