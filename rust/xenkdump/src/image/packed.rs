//! Image files: ELF files, compressed ELF files, and bootable kernels.
//!
//! A `vmlinuz` (bzImage) of x86 contains boot code, then the stripped and compressed `vmlinux`. Since boot
//! protocol 2.08 (Linux 2.6.26, 87253d1b4f6b) the header has its offset. In an older one, and in a Xen kernel,
//! which is compressed as a whole, it is found by the magic number of a compression, as in Linux's
//! scripts/extract-vmlinux. An EFI executable may have a bzImage in its section `.linux`.

use std::path::Path;

use crate::elf::Header;
use crate::file::{unpack, Compression, Extent, RegularFile, Size, Storage, Unpacked};
use crate::limits::{
    MAX_EFI_SECTIONS, MAX_IMAGE_UNPACKED_RATIO, MAX_PAYLOAD_CANDIDATES, MAX_UNPACKED_IMAGE,
    MAX_UNPACKED_SLACK,
};
use crate::Result;

/// `e_machine` of x86 (EM_386) and x86_64 (EM_X86_64).
const MACHINES: [u16; 2] = [3, 62];
/// Bytes from the start of a bzImage that have the header of the boot protocol.
const SETUP: usize = 0x250;
/// Documentation/arch/x86/boot.rst: offsets in the header.
const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: u64 = 512;
/// No magic number of a compression is longer.
const MAX_MAGIC: usize = 16;
/// Bytes of the header of an ELF file.
const HEADER: usize = 64;
const ET_CORE: u16 = 4;
/// The version that has the payload's offset and length.
const WITH_PAYLOAD: u16 = 0x0208;
/// Bytes that are searched for magic numbers at once.
const PIECE: u64 = 1 << 20;

/// Opens an image. A compressed one, or a kernel inside a `vmlinuz`, is unpacked into memory.
pub(super) fn open(path: &Path) -> Result<Box<dyn Storage>> {
    let file = RegularFile::open(path)?;
    let start = start(&file, 0);
    if let Some(base) = boot_header(&file, &start) {
        let bytes = kernel(&file, base)?;
        return Ok(Box::new(Unpacked::new(file, bytes)));
    }
    match Compression::of(&start) {
        None => Ok(Box::new(file)),
        Some(compression) => {
            let bytes = unpack_at(&file, compression, (0, file.len()), Extent::File)?;
            Ok(Box::new(Unpacked::new(file, bytes)))
        }
    }
}

/// The most bytes that [`head`] is good for.
pub const MAX_HEAD: usize = 1 << 16;

/// The first bytes of a file, at most `len`; unpacked if the file is compressed.
pub fn head(path: &Path, len: usize) -> Result<Vec<u8>> {
    let file = RegularFile::open(path)?;
    let held = file.held(0, len.max(MAX_MAGIC) as u64);
    let bytes = file.copy(0, held);
    let mut bytes = bytes.map_err(|error| file.read_error(0, error))?;
    let compression = Compression::of(&bytes);
    bytes.truncate(len);
    let Some(compression) = compression else {
        return Ok(bytes);
    };
    let part = (0, file.len());
    // A short file of another format may start like an lzma stream.
    Ok(unpack(&file, compression, part, Extent::File, Size::Head(len)).unwrap_or(bytes))
}

/// The offset of the bzImage in a file that starts so; `None` if it has none.
fn boot_header(file: &RegularFile, start: &[u8]) -> Option<u64> {
    if is_boot_header(start) {
        return Some(0);
    }
    let base = linux_section(file, start)?;
    is_boot_header(&self::start(file, base)).then_some(base)
}

fn is_boot_header(start: &[u8]) -> bool {
    start.get(0x1fe..0x200) == Some(b"\x55\xaa") && start.get(MAGIC..VERSION) == Some(b"HdrS")
}

/// The offset of the section `.linux` of an EFI executable, as systemd's `ukify` makes it.
fn linux_section(file: &RegularFile, start: &[u8]) -> Option<u64> {
    if !start.starts_with(b"MZ") {
        return None;
    }
    let header = u64::from(number(start, 0x3c)?);
    let pe = file.copy(header, 24).ok()?;
    if !pe.starts_with(b"PE\0\0") {
        return None;
    }
    let (count, optional) = (half(&pe, 6)?, u64::from(half(&pe, 20)?));
    for i in 0..u64::from(count.min(MAX_EFI_SECTIONS)) {
        let section = file.copy(header + 24 + optional + i * 40, 40).ok()?;
        if section.starts_with(b".linux\0\0") {
            return number(&section, 20).map(u64::from);
        }
    }
    None
}

/// The kernel in the bzImage at offset `base` of a file.
fn kernel(file: &RegularFile, base: u64) -> Result<Vec<u8>> {
    let setup = start(file, base);
    let sectors = match setup.get(SETUP_SECTS).copied() {
        // For old boot loaders.
        None | Some(0) => 4,
        Some(count) => u64::from(count),
    };
    let code = base + (sectors + 1) * SECTOR;
    let payload = number(&setup, PAYLOAD_OFFSET).zip(number(&setup, PAYLOAD_LENGTH));
    let has_payload = half(&setup, VERSION).is_some_and(|version| version >= WITH_PAYLOAD);
    match payload.filter(|(_, length)| has_payload && *length > 0) {
        Some((offset, length)) => payload_at(file, code + u64::from(offset), u64::from(length)),
        None => search(file, code),
    }
}

/// The kernel in the payload that the boot protocol describes.
fn payload_at(file: &RegularFile, start: u64, length: u64) -> Result<Vec<u8>> {
    if file.held(start, length) < length {
        let expected = format!("a compressed kernel of {length} bytes, as the boot header says");
        let found = format!("{} bytes: the file is cut", file.held(start, length));
        return Err(file.format_error(start, expected, found));
    }
    let magic = file
        .copy(start, length.min(MAX_MAGIC as u64))
        .unwrap_or_default();
    let Some(compression) = Compression::of(&magic) else {
        let expected = "a kernel compressed by gzip, bzip2, lzma, xz, lzo, lz4 or zstd";
        return Err(file.format_error(start, expected, crate::elf::header::hex(&magic)));
    };
    let bytes = unpack_at(file, compression, (start, start + length), Extent::Stream)?;
    // The size of the kernel modulo 2^32 follows every stream. For gzip it is the end of the stream itself.
    let size = u64::from(last_number(file, start + length));
    if bytes.len() as u64 & 0xffff_ffff != size {
        let expected = format!(
            "a kernel of {size} bytes, as the {} stream's end says",
            compression.name()
        );
        return Err(file.format_error(start, expected, format!("{} bytes", bytes.len())));
    }
    Ok(bytes)
}

/// The kernel in a bzImage whose header does not say where: the first stream that starts as an ELF file.
fn search(file: &RegularFile, code: u64) -> Result<Vec<u8>> {
    let mut failure = None;
    let mut candidates = MAX_PAYLOAD_CANDIDATES;
    let mut at = code;
    while at < file.len() {
        // A magic number may cross the end of the piece.
        let piece = file.copy(at, file.held(at, PIECE + MAX_MAGIC as u64));
        let piece = piece.map_err(|error| file.read_error(at, error))?;
        for offset in 0..piece.len().min(PIECE as usize) {
            let rest = piece.get(offset..).unwrap_or_default();
            let Some(compression) = Compression::of(rest) else {
                continue;
            };
            if candidates == 0 {
                break;
            }
            candidates -= 1;
            let part = (at + offset as u64, file.len());
            // Only the first bytes of the other candidates are unpacked.
            match check_at(file, compression, part, Extent::Stream) {
                Ok(()) => return unpack_all(file, compression, part, Extent::Stream),
                Err(error) if failure.is_none() => failure = Some(error),
                Err(_) => {}
            }
        }
        at += PIECE;
    }
    Err(failure.unwrap_or_else(|| {
        let expected = "a compressed kernel (boot protocol before 2.08)";
        file.format_error(code, expected, "no magic number of a compression")
    }))
}

/// Unpacks an ELF file for x86 from a part of a file. Nothing more is unpacked if its first bytes show that
/// it is not one.
fn unpack_at(
    file: &RegularFile,
    compression: Compression,
    part: (u64, u64),
    extent: Extent,
) -> Result<Vec<u8>> {
    check_at(file, compression, part, extent)?;
    unpack_all(file, compression, part, extent)
}

/// Fails unless the first unpacked bytes are the header of an x86 kernel image.
fn check_at(
    file: &RegularFile,
    compression: Compression,
    part: (u64, u64),
    extent: Extent,
) -> Result<()> {
    let first = unpack(file, compression, part, extent, Size::Head(HEADER))?;
    check(file, compression, part.0, &first)
}

fn unpack_all(
    file: &RegularFile,
    compression: Compression,
    (start, end): (u64, u64),
    extent: Extent,
) -> Result<Vec<u8>> {
    let part = (start, end);
    let packed = end.saturating_sub(start);
    let limit = packed.saturating_mul(MAX_IMAGE_UNPACKED_RATIO);
    let most = limit
        .saturating_add(MAX_UNPACKED_SLACK)
        .min(MAX_UNPACKED_IMAGE);
    let has_size = extent == Extent::Stream || compression == Compression::Gzip;
    let expected = if has_size { last_number(file, end) } else { 0 };
    let size = Size::All {
        most,
        expected: expected.into(),
    };
    unpack(file, compression, part, extent, size)
}

/// Fails if what was unpacked does not start like the image of an x86 kernel.
fn check(file: &RegularFile, compression: Compression, start: u64, bytes: &[u8]) -> Result<()> {
    let name = compression.name();
    let header = Header::parse(bytes).map_err(|malformed| {
        let expected = format!("{} compressed by {name}", malformed.expected);
        file.format_error(start, expected, malformed.found)
    })?;
    let found = match (header.kind, header.machine) {
        (ET_CORE, _) => "a core file".to_owned(),
        (_, machine) if MACHINES.contains(&machine) => return Ok(()),
        (_, machine) => format!("one for machine {machine}"),
    };
    let expected = format!("the ELF file of a kernel for x86, compressed by {name}");
    Err(file.format_error(start, expected, found))
}

/// The first bytes from an offset on, as far as they are in the file.
fn start(file: &RegularFile, at: u64) -> Vec<u8> {
    file.copy(at, file.held(at, SETUP as u64))
        .unwrap_or_default()
}

/// The number before an offset.
fn last_number(file: &RegularFile, end: u64) -> u32 {
    let mut bytes = [0; 4];
    match end.checked_sub(4).map(|at| file.read_at(at, &mut bytes)) {
        Some(Ok(())) => u32::from_le_bytes(bytes),
        _ => 0,
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}
