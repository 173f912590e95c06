//! The pieces of an ELF file, parsed one by one and bounded by the file.
//!
//! goblin decodes single headers; the tables are walked here, because an eager parse allocates what
//! a hostile file asks for and reads tables that nobody wants.
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

/// What is wrong with some bytes, and where they are in the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset:#x}: expected {expected}, found {found}")]
pub struct Malformed {
    /// Where the fault lies, in bytes from the start of the file.
    pub offset: u64,
    /// What should stand there.
    pub expected: String,
    /// What does.
    pub found: String,
}

impl Malformed {
    /// A fault at `offset`.
    pub fn new(offset: u64, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            offset,
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// The same, where the bytes start at `base` of the file.
    pub fn at(mut self, base: u64) -> Self {
        self.offset = self.offset.saturating_add(base);
        self
    }

    /// The same as an error about `file`.
    pub fn of(self, file: &RegularFile) -> Error {
        file.format_error(self.offset, self.expected, self.found)
    }
}
