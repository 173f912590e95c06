//! LiME images: ranges of memory, each after a header with its first and its last physical address.
//!
//! The format "lime" of the LiME module, which other tools write too (AVML, before it compresses). Its
//! format "padded" has no headers: that is a [`super::raw`] image.

use super::container::Segment;
use super::memory_image::MemoryImage;
use super::warnings::Warnings;
use crate::addr::{MachineAddr, PAGE_SIZE};
use crate::alloc;
use crate::dump::container::Container;
use crate::file::Storage;
use crate::limits::MAX_PROGRAM_HEADERS;
use crate::Result;

const MAGIC: u32 = 0x4c69_4d45;
/// magic and version, u32; first and last address, u64; 8 bytes reserved.
const HEADER: u64 = 32;

/// Whether the file starts as a LiME image does.
pub(super) fn matches(storage: &impl Storage) -> bool {
    let mut magic = [0; 4];
    storage.read_at(0, &mut magic).is_ok() && u32::from_le_bytes(magic) == MAGIC
}

/// Reads all headers.
pub(super) fn open<S: Storage + 'static>(storage: S) -> Result<Box<dyn Container>> {
    let mut warnings = Warnings::default();
    let mut segments = Vec::new();
    let mut at = 0;
    while storage.held(at, HEADER) == HEADER {
        let mut header = [0; HEADER as usize];
        let read = storage.read_at(at, &mut header);
        read.map_err(|error| storage.file().read_error(at, error))?;
        let number = |from: usize| {
            let bytes = header.get(from..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let (magic, version) = (number(0) as u32, (number(0) >> 32) as u32);
        let (first, last) = (number(8), number(16));
        if magic != MAGIC || version != 1 || last < first {
            if at == 0 {
                let found = format!("version {version}, {first:#x} to {last:#x}");
                return Err(storage
                    .file()
                    .format_error(0, "a LiME header of version 1", found));
            }
            warnings.push(format!(
                "the LiME header at offset {at:#x} is corrupt: what follows it is lost"
            ));
            break;
        }
        if segments.len() >= MAX_PROGRAM_HEADERS {
            warnings.push(format!(
                "of the ranges the first {MAX_PROGRAM_HEADERS} are read"
            ));
            break;
        }
        let size = (last - first).saturating_add(1);
        let segment = Segment {
            start: MachineAddr(first),
            offset: at + HEADER,
            file_size: size,
            memory_size: size,
        };
        alloc::push(&mut segments, segment);
        at = (at + HEADER).saturating_add(size);
    }
    let rest = storage.len().saturating_sub(at);
    if rest > 0 && rest < HEADER && segments.len() < MAX_PROGRAM_HEADERS {
        warnings.push(format!(
            "the {rest} bytes at offset {at:#x} are less than a LiME header: what they began is lost"
        ));
    }
    let unaligned = |segment: &Segment| !segment.start.0.is_multiple_of(PAGE_SIZE as u64);
    if segments.iter().any(unaligned) {
        warnings.push("ranges of the LiME image do not start on a page");
    }
    if let Some(at) = overlap(&segments) {
        warnings.push(format!(
            "ranges of the LiME image overlap, first at {at}: of several, the first in the file is used"
        ));
    }
    Ok(MemoryImage::open(storage, "LiME image", segments, warnings))
}

/// The lowest address that two ranges have.
fn overlap(segments: &[Segment]) -> Option<MachineAddr> {
    let ends = |segment: &Segment| {
        let start = segment.start.0;
        (start, start.saturating_add(segment.memory_size - 1))
    };
    let mut ranges = alloc::collect(segments.iter().map(ends));
    ranges.sort_unstable();
    let mut known = None;
    for (start, last) in ranges {
        if known.is_some_and(|known| start <= known) {
            return Some(MachineAddr(start));
        }
        known = known.max(Some(last));
    }
    None
}
