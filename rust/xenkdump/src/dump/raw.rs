//! Raw images of physical memory: the byte at each offset is that at the same address.
//!
//! Nothing in the file says so. It is never assumed, only asked for.

use super::container::{Container, Segment};
use super::memory_image::MemoryImage;
use super::warnings::Warnings;
use crate::addr::{MachineAddr, PAGE_SIZE};
use crate::file::Storage;

/// Takes any file.
pub(super) fn open<S: Storage + 'static>(storage: S) -> Box<dyn Container> {
    let mut warnings = Warnings::default();
    let size = storage.len();
    if !size.is_multiple_of(PAGE_SIZE as u64) {
        warnings.push(format!(
            "the raw image does not end on a page ({size} bytes)"
        ));
    }
    let segments = vec![Segment {
        start: MachineAddr(0),
        offset: 0,
        file_size: size,
        memory_size: size,
    }];
    MemoryImage::open(storage, "raw memory image", segments, warnings)
}
