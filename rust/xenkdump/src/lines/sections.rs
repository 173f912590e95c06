//! The sections with line tables and their strings.

use crate::elf::{Bytes, Image};

/// Missing sections of strings are empty.
pub(super) struct Sections {
    pub lines: Bytes,
    pub strings: Bytes,
    pub line_strings: Bytes,
    /// The size of an address in programs before version 5.
    pub word: u8,
}

impl Sections {
    /// `None` if there are no line tables.
    pub fn new(image: &Image) -> Option<Self> {
        let section = |name| image.section(name)?.bytes();
        let optional = |name| section(name).unwrap_or_else(|| Vec::new().into());
        Some(Self {
            lines: section(".debug_line").filter(|lines| !lines.is_empty())?,
            strings: optional(".debug_str"),
            line_strings: optional(".debug_line_str"),
            word: image.word().bytes() as u8,
        })
    }
}
