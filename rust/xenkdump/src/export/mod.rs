//! Writes memory to files that other tools open: ELF, kdump-compressed, LiME and raw.
//!
//! Several threads read memory in chunks and write them by position, so that memory use does not depend on
//! the size of the dump. Pages of zeros are left out: as holes of the file, or by means of the format.

mod elf;
mod job;
mod kdump;
mod lime;
mod output;
mod pages;
mod pipeline;
mod raw;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{Error, Result};
use job::Failure;

pub use elf::{Elf, Mapping};
pub use job::{Control, Export, Report};
pub use kdump::{Compression, Kdump};
pub use pages::PageRun;

/// What is written, apart from the memory.
#[derive(Clone, Debug)]
pub enum Format {
    /// An ELF core file.
    Elf(Elf),
    /// A kdump-compressed file, as makedumpfile writes it.
    Kdump(Kdump),
    /// A LiME image.
    Lime,
    /// An image in which the offset is the address.
    Raw,
}

/// Writes a new file that only its owner can read: memory holds secrets.
pub fn write(
    export: &Export<'_>,
    format: &Format,
    path: &Path,
    control: &Control,
) -> Result<Report> {
    for runs in [export.pages, export.all_pages] {
        pages::check(runs)?;
    }
    write_new(export, format, path, control).map_err(|failure| match failure {
        Failure::Io(source) => Error::Io {
            path: path.display().to_string(),
            source,
        },
        Failure::Limit(text) => Error::Absent(text),
    })
}

fn write_new(
    export: &Export<'_>,
    format: &Format,
    path: &Path,
    control: &Control,
) -> Result<Report, Failure> {
    let mut options = File::options();
    let file = &options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    match format {
        Format::Elf(elf) => elf::write(export, elf, file, control),
        Format::Kdump(kdump) => kdump::write(export, kdump, file, control),
        Format::Lime => lime::write(export, file, control),
        Format::Raw => raw::write(export, file, control),
    }
}
