//! A file's bytes, mapped read-only.
//!
//! One of the two places with `unsafe`: mapping a file.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A file mapped read-only from end to end.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io {
            path: path.display().to_string(),
            source,
        };
        let file = std::fs::File::open(path).map_err(io)?;
        let kind = file.metadata().map_err(io)?.file_type();
        if !kind.is_file() {
            return Err(Error::Format {
                path: path.display().to_string(),
                offset: 0,
                expected: "a regular file".into(),
                found: format!("{kind:?}"),
            });
        }
        // SAFETY: the mapping is read-only and private to this struct; nothing in this process
        // writes to the file. That another process may is the subject of `docs/trust.md`.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            map,
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes from `offset` on, `len` of them; `None` where the file is shorter.
    pub fn range(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.map.get(start..end)
    }

    /// An [`Error::Format`] about this file.
    pub fn format_error(
        &self,
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Format {
            path: self.path.display().to_string(),
            offset,
            expected: expected.into(),
            found: found.into(),
        }
    }
}
