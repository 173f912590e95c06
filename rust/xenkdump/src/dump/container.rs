//! What every file format for a machine's memory provides.

use std::fmt;
use std::sync::Arc;

use super::note::Note;
use super::vcpu_context::VcpuContext;
use super::warnings::Warnings;
use crate::addr::{MachineAddr, Mfn, Pfn, Word};
use crate::fault::Fault;
use crate::memory::Page;
use crate::Result;

/// Contiguous machine addresses that the dump holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first address.
    pub start: MachineAddr,
    /// The last address, not the one after it: a run may end at 2^64 - 1.
    pub last: MachineAddr,
}

/// A PT_LOAD segment of an ELF dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `p_paddr`.
    pub start: MachineAddr,
    /// `p_offset`.
    pub offset: u64,
    /// `p_filesz`.
    pub file_size: u64,
    /// `p_memsz`.
    pub memory_size: u64,
}

/// The kind of the guest in a file of a single domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainKind {
    /// Paravirtualized.
    Pv,
    /// HVM or PVH.
    Translated,
}

/// The facts in a container's headers.
#[derive(Debug)]
pub(super) struct Headers {
    /// The format's name, for users.
    pub format: &'static str,
    /// `e_machine` (EM_386 or EM_X86_64) of the kernel that wrote the headers; the hypervisor may
    /// be another.
    pub machine_type: u16,
    /// Word size of the headers.
    pub word: Word,
    /// All notes, in file order.
    pub notes: Vec<Note>,
    /// Defects that do not prevent use.
    pub warnings: Warnings,
}

/// The memory that a dump holds, whatever its format.
///
/// Formats that keep memory as plain bytes implement [`super::in_place::InPlace`] instead. Others leave
/// [`HeldMemory::borrow`] as it is: batches then go through [`HeldMemory::read`], sorted by address, so
/// that each page is decoded once.
pub(super) trait HeldMemory: fmt::Debug + Send + Sync {
    /// The first run that is held at `addr` or after it, cut to start at `addr`. A format whose runs take
    /// time to follow may cut long ones, which then adjoin.
    fn next_run(&self, addr: MachineAddr) -> Option<Run>;

    /// Fills `buf` with the bytes at `addr`. The fault distinguishes memory that was excluded from
    /// the dump or cut off from memory that the dump never had.
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault>;

    /// See [`crate::memory::Memory::borrow`].
    fn borrow(&self, _addr: MachineAddr) -> &[u8] {
        &[]
    }

    /// See [`crate::memory::Memory::borrow_around`].
    fn borrow_around(&self, addr: MachineAddr) -> (MachineAddr, &[u8]) {
        (addr, self.borrow(addr))
    }

    /// See [`crate::memory::Memory::is_intact`].
    fn is_intact(&self) -> bool {
        true
    }

    /// See [`crate::file::Storage::release`].
    fn release(&self) {}

    /// Whether reads decode whole pages. Batches should then be sorted by page.
    fn decodes_pages(&self) -> bool {
        false
    }

    /// See [`crate::memory::Memory::pages_kept`].
    fn pages_kept(&self) -> usize {
        0
    }

    /// See [`crate::memory::Memory::page`].
    fn page(&self, _addr: MachineAddr) -> Option<Arc<Page>> {
        None
    }

    /// How many pages were decoded so far, each as often as it was.
    fn pages_decoded(&self) -> u64 {
        0
    }
}

/// A file, or several, with the memory of a machine or of one domain: what its headers say, and its
/// memory.
///
/// To add a format, implement this trait and [`super::in_place::InPlace`] or [`HeldMemory`] in a file of
/// its own, and add a row to the table of [`super::formats`].
pub(super) trait Container: HeldMemory {
    /// The facts in the headers.
    fn headers(&self) -> &Headers;

    /// The first `size` bytes of a note's descriptor; `None` if they cannot be read any more.
    fn descriptor(&self, note: &Note, size: u64) -> Option<Vec<u8>>;

    /// Size of all files together, in bytes.
    fn file_size(&self) -> u64;

    /// Bytes of machine memory that are held, uncompressed. Bytes in the file that are held under
    /// many addresses count once: limits on work scale with this number.
    fn memory_held(&self) -> u64;

    /// Bytes of memory that the machine had according to the headers, with what was excluded.
    fn memory_size(&self) -> u64;

    /// Defects that were found after the dump was opened.
    fn late_warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Which kinds of pages makedumpfile excluded, the sum of the bits of its option `-d`; `None` if
    /// the file does not record it.
    fn dump_level(&self) -> Option<i32> {
        None
    }

    /// The PT_LOAD segments, in file order. Only ELF dumps have any.
    fn segments(&self) -> &[Segment] {
        &[]
    }

    /// The registers of every vCPU, in order. Only files of a single domain have any outside the
    /// notes.
    fn vcpu_contexts(&self) -> Vec<VcpuContext> {
        Vec::new()
    }

    /// The domain's shared_info page, if the file has it separately (PV domains).
    fn shared_info(&self) -> Option<&[u8]> {
        None
    }

    /// The container's own P2M: ascending by pfn, each pfn once. Empty if pfns and mfns are the same
    /// (HVM, PVH); `None` if there is none.
    fn p2m(&self) -> Option<&[(Pfn, Mfn)]> {
        None
    }

    /// The kind of guest, if the file is of a single domain.
    fn domain_kind(&self) -> Option<DomainKind> {
        None
    }

    /// Whether page tables and cr3 of a PV guest hold pfns in place of mfns, and memory is listed by pfn:
    /// machine and pseudo-physical addresses are the same. libxc normalises page tables so on saving.
    fn is_normalised(&self) -> bool {
        false
    }

    /// Whether frame numbers are those of a translated guest (HVM, PVH): machine and pseudo-physical
    /// addresses are the same.
    fn auto_translated(&self) -> bool {
        false
    }
}
