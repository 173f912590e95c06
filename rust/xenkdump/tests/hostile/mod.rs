//! The bodies of the fuzz targets, which parse untrusted bytes. The normal suite runs them on
//! mutations of valid inputs.
//!
//! No input may cause a panic. Work is measured in reads of memory, not in time.

#![allow(dead_code, unused_imports, reason = "each test uses only some of them")]

mod files;
mod kallsyms;
pub mod packed;
mod ram;
mod stacks;
mod symbols;
mod tables;

pub use files::{
    dump, dwarf, elf_of, flattened_of, found_lines, image, kdump, kdump_of, lines, notes,
    packed_image, sections, zstd, zstd_of,
};
pub use kallsyms::{kallsyms, kallsyms_of};
pub use ram::Ram;
pub use stacks::{cfi, orc, stack};
pub use symbols::symtab;
pub use tables::{bare, btf, nested, p2m, split_btf, walk};

/// Consumes bytes from the front of the input; zeros after its end.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// A piece with a 16-bit length prefix.
    pub fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        self.take(len)
    }
}
