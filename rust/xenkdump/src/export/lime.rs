//! LiME images: each range of memory after a header with its first and its last address.

use std::fs::File;

use super::job::{Control, Export, Failure, Report};
use super::output::{self, Fields};
use super::pages;
use super::raw;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE};

const MAGIC: u32 = 0x4c69_4d45;
const VERSION: u32 = 1;
const HEADER: u64 = 32;

/// Writes a LiME image.
pub(super) fn write(
    export: &Export<'_>,
    file: &File,
    control: &Control,
) -> Result<Report, Failure> {
    let size = export.pages.len() as u64 * HEADER;
    let bytes = pages::total(export.pages).checked_mul(PAGE_SIZE as u64);
    let Some(size) = bytes.and_then(|bytes| bytes.checked_add(size)) else {
        let text = "LiME image: more than 2^64 bytes";
        return Err(Failure::Limit(text.to_owned()));
    };
    output::resize(file, size)?;
    let mut at = 0;
    for run in export.pages {
        let mut header = Fields::default();
        let (first, size) = (run.first << PAGE_SHIFT, run.count << PAGE_SHIFT);
        header.u32(MAGIC).u32(VERSION);
        header.u64(first).u64(first + (size - 1)).u64(0);
        output::write(file, at, &header.0)?;
        at += HEADER + size;
    }
    let (mut report, _) = raw::plain(export, file, control, |place| {
        (place.run + 1) * HEADER + (place.position << PAGE_SHIFT)
    })?;
    report.lost_as_zeros = report.lost;
    Ok(report)
}
