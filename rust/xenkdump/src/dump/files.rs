//! Opens the files of dumps, and looks through what they may be wrapped in.

use std::path::Path;

use crate::file::{Flattened, MappedFile, RegularFile, Storage};
use crate::Result;

/// A file as dump formats read it.
#[derive(Debug)]
pub(super) enum File {
    Plain(MappedFile),
    /// Written by `makedumpfile -F`.
    Flattened(Flattened),
}

impl File {
    pub fn boxed(self) -> Box<dyn Storage> {
        match self {
            Self::Plain(file) => Box::new(file),
            Self::Flattened(file) => Box::new(file),
        }
    }
}

/// Opens a file. Of a flattened one the headers of all blocks are read.
pub(super) fn open(path: &Path) -> Result<File> {
    let file = MappedFile::open(path)?;
    Ok(if Flattened::matches(&file) {
        File::Flattened(Flattened::open(file)?)
    } else {
        File::Plain(file)
    })
}

/// Whether a file starts as a kdump-compressed dump does. Reads a few bytes only.
pub(super) fn may_be_kdump(path: &Path) -> bool {
    let Ok(file) = RegularFile::open(path) else {
        return false;
    };
    let mut start = [0; 8];
    let first = |start: &mut [u8], at| file.read_at(at, start).is_ok();
    if Flattened::matches(&file) {
        // makedumpfile writes the start of the file first.
        return first(&mut start, Flattened::FIRST_BLOCK) && start == *b"KDUMP   ";
    }
    first(&mut start, 0) && start == *b"KDUMP   "
}
