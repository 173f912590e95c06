//! Parses ELF files lazily and within the bounds of the file.
//!
//! goblin decodes single headers. Tables are walked here: an eager parser allocates as much as a
//! hostile file claims, and reads tables that are not needed.
//!
//! - [`header`]: the file header, and program and section headers as iterators.
//! - [`notes`]: the notes of a `PT_NOTE` segment or a `SHT_NOTE` section.
//! - [`image`]: the file of a kernel or hypervisor, by section and by link-time address.

mod bytes;
pub mod header;
pub mod image;
mod inflate;
pub mod notes;
#[cfg(test)]
mod tests;

pub use bytes::Bytes;
pub use header::Header;
pub use image::{Image, Section};
pub use notes::{Note, Notes};

use crate::file::RegularFile;
use crate::Error;

/// A defect of a file and its location.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset:#x}: expected {expected}, found {found}")]
pub struct Malformed {
    /// Offset in the file.
    pub offset: u64,
    /// What was expected there.
    pub expected: String,
    /// What was found there.
    pub found: String,
}

impl Malformed {
    /// A defect at `offset`.
    pub fn new(offset: u64, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            offset,
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// The same defect, if the bytes start at offset `base` of the file.
    pub fn at(mut self, base: u64) -> Self {
        self.offset = self.offset.saturating_add(base);
        self
    }

    /// The defect as an error about `file`.
    pub fn of(self, file: &RegularFile) -> Error {
        file.format_error(self.offset, self.expected, self.found)
    }
}
