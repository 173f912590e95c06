//! Containers: files that hold the memory of a machine.
//!
//! A container gives notes, and machine memory by [`Memory<MachineAddr>`]. The rooms above see
//! [`Dump`] and never ask what kind of file it was.

mod segments;
mod vmcore;

use std::path::Path;

use crate::addr::{MachineAddr, Word};
use crate::file::MappedFile;
use crate::memory::{Fault, Memory};
use crate::notes::{self, Decoded};
use crate::Result;

pub use segments::{Segment, SegmentMap};

/// A note of the dump, where it lies in the file.
#[derive(Clone, Debug)]
pub struct Note {
    /// Its name, without the closing NUL.
    pub name: Vec<u8>,
    /// `n_type`.
    pub note_type: u32,
    /// `n_namesz`.
    pub name_size: u32,
    /// File offset of its header.
    pub offset: u64,
    /// File offset of its descriptor.
    pub desc_offset: u64,
    /// Size of its descriptor.
    pub desc_size: u64,
}

/// A dump, opened read-only.
#[derive(Debug)]
pub struct Dump {
    file: MappedFile,
    format: &'static str,
    machine_type: u16,
    word: Word,
    segments: SegmentMap,
    notes: Vec<Note>,
    warnings: Vec<String>,
}

impl Dump {
    /// Opens the file at `path`, whatever container it is. Reads headers and notes, no memory.
    pub fn open(path: &Path) -> Result<Self> {
        vmcore::open(MappedFile::open(path)?)
    }

    /// The file.
    pub fn file(&self) -> &MappedFile {
        &self.file
    }

    /// What kind of container it is, in words.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// `e_machine`: EM_386 or EM_X86_64. Of the kernel that wrote the headers, which says nothing of
    /// the hypervisor.
    pub fn machine_type(&self) -> u16 {
        self.machine_type
    }

    /// Word size of the file's headers.
    pub fn word(&self) -> Word {
        self.word
    }

    /// Where the memory lies.
    pub fn segments(&self) -> &SegmentMap {
        &self.segments
    }

    /// All notes, in the order of the file.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The bytes of a note's descriptor.
    pub fn desc(&self, note: &Note) -> &[u8] {
        self.file
            .range(note.desc_offset, note.desc_size)
            .unwrap_or_default()
    }

    /// What a note says.
    pub fn decode(&self, note: &Note) -> Decoded<'_> {
        notes::decode(&note.name, note.note_type, self.desc(note))
    }

    /// What is broken about the file without making it useless.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The bytes at `addr` and all that lie behind them in one piece, borrowed from the file.
    #[inline]
    pub fn borrow(&self, addr: MachineAddr) -> Result<&[u8], Fault> {
        let (offset, len) = self.segments.locate(addr)?;
        self.file
            .range(offset, len)
            .ok_or(Fault::Truncated { addr, offset })
    }
}

impl Memory<MachineAddr> for Dump {
    #[inline]
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        let len = buf.len() as u64;
        let mut rest = buf;
        let mut at = addr;
        while !rest.is_empty() {
            let bytes = self.borrow(at)?;
            let n = rest.len().min(bytes.len());
            let (part, tail) = rest.split_at_mut(n);
            part.copy_from_slice(&bytes[..n]);
            rest = tail;
            if !rest.is_empty() {
                at = MachineAddr(
                    at.0.checked_add(n as u64)
                        .ok_or(Fault::Wraps { addr: addr.0, len })?,
                );
            }
        }
        Ok(())
    }
}
