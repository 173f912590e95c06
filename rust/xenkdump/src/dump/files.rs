//! Opens the files of dumps, and looks through what they may be wrapped in.

use std::path::Path;

use crate::file::{
    is_flattened, Flattened, MappedFile, RegularFile, Storage, ZstdFile, FIRST_BLOCK,
};
use crate::Result;

/// A file as dump formats read it.
#[derive(Debug)]
pub(super) enum File {
    Plain(MappedFile),
    /// Written by `makedumpfile -F`.
    Flattened(Flattened<MappedFile>),
    /// Compressed as a whole, and whatever is in it.
    Zstd(Box<dyn Storage>),
}

impl File {
    pub fn boxed(self) -> Box<dyn Storage> {
        match self {
            Self::Plain(file) => Box::new(file),
            Self::Flattened(file) => Box::new(file),
            Self::Zstd(file) => file,
        }
    }
}

/// A file, what it is wrapped in, and what is wrong with that.
#[derive(Debug)]
pub(super) struct Opened {
    pub file: File,
    pub is_flattened: bool,
    pub is_zstd: bool,
    pub warnings: Vec<String>,
}

/// Opens a file. Of a flattened one the headers of all blocks are read. Of one that is compressed as a
/// whole and can be read in place, about `cache_size` bytes are kept.
pub(super) fn open(path: &Path, cache_size: usize) -> Result<Opened> {
    let file = MappedFile::open(path)?;
    if ZstdFile::matches(&file) {
        return match ZstdFile::open(file, cache_size) {
            Ok(file) => open_zstd(file),
            // A raw image may start with any bytes. Other formats do not match.
            Err(file) => Ok(Opened::plain(file)),
        };
    }
    if !is_flattened(&file) {
        return Ok(Opened::plain(file));
    }
    let file = Flattened::open(file)?;
    Ok(Opened {
        is_flattened: true,
        is_zstd: false,
        warnings: file.warnings().to_vec(),
        file: File::Flattened(file),
    })
}

fn open_zstd(file: ZstdFile) -> Result<Opened> {
    let is_flattened = is_flattened(&file);
    let (file, warnings): (Box<dyn Storage>, _) = if is_flattened {
        let file = Flattened::open(file)?;
        let warnings = file.warnings().to_vec();
        (Box::new(file), warnings)
    } else {
        (Box::new(file), Vec::new())
    };
    Ok(Opened {
        file: File::Zstd(file),
        is_flattened,
        is_zstd: true,
        warnings,
    })
}

impl Opened {
    fn plain(file: MappedFile) -> Self {
        Self {
            file: File::Plain(file),
            is_flattened: false,
            is_zstd: false,
            warnings: Vec::new(),
        }
    }
}

/// Whether a file starts as a kdump-compressed dump does. Reads a few bytes only.
pub(super) fn may_be_kdump(path: &Path) -> bool {
    let Ok(file) = RegularFile::open(path) else {
        return false;
    };
    let mut start = [0; 8];
    let first = |start: &mut [u8], at| file.read_at(at, start).is_ok();
    if is_flattened(&file) {
        // makedumpfile writes the start of the file first.
        return first(&mut start, FIRST_BLOCK) && start == *b"KDUMP   ";
    }
    first(&mut start, 0) && start == *b"KDUMP   "
}
