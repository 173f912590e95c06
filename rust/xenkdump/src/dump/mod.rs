//! Containers: files that hold the memory of a machine.
//!
//! A container gives notes, and machine memory by [`Memory<MachineAddr>`]. The rooms above see
//! [`Dump`] and never ask what kind of file it was.

mod dumpcore;
mod note_list;
mod segments;
mod vmcore;
mod warnings;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::addr::{MachineAddr, Mfn, Pfn, Word, PAGE_SIZE};
use crate::file::{MappedFile, ReadError};
use crate::memory::{Fault, Memory};
use crate::notes::{self, Decoded, DEVICE_DUMP_NAME, NT_VMCOREDD};
use crate::Result;

use warnings::Warnings;

pub use dumpcore::{VcpuContext, CONTEXT_SIZE_32, CONTEXT_SIZE_64};
pub use segments::{Segment, SegmentMap};

/// A note of the dump, where it lies in the file.
#[derive(Clone, Debug)]
pub struct Note {
    /// Its name, without the closing NUL; cut after 256 bytes.
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
    /// Its descriptor, once it was asked for.
    desc: Arc<OnceLock<Vec<u8>>>,
}

impl Note {
    /// Whether it is NT_VMCOREDD: any number of MiB that no command needs.
    fn is_device_dump(&self) -> bool {
        self.name == b"LINUX" && self.note_type == NT_VMCOREDD
    }
}

/// A dump, opened read-only.
#[derive(Debug)]
pub struct Dump {
    file: MappedFile,
    format: &'static str,
    machine_type: u16,
    word: Word,
    /// Known from the start for a vmcore; an xl dump-core file's is made of an entry a page, so only
    /// at the first read.
    segments: OnceLock<SegmentMap>,
    core: Option<Box<dumpcore::DumpCore>>,
    notes: Vec<Note>,
    warnings: Warnings,
}

impl Dump {
    /// Opens the file at `path`, whatever container it is. Reads headers and notes, no memory.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let header = vmcore::header(&file)?;
        match dumpcore::sections(&file, &header) {
            Some(sections) => dumpcore::open(file, &header, sections),
            None => vmcore::open(file, &header),
        }
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
    #[inline]
    pub fn segments(&self) -> &SegmentMap {
        self.segments.get_or_init(|| self.page_map())
    }

    #[cold]
    fn page_map(&self) -> SegmentMap {
        match &self.core {
            Some(core) => core.page_map(&self.file),
            None => SegmentMap::default(),
        }
    }

    /// All notes, in the order of the file.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The bytes of a note's descriptor; none where they cannot be read (any more).
    pub fn desc<'n>(&self, note: &'n Note) -> Cow<'n, [u8]> {
        if note.is_device_dump() {
            Cow::Owned(self.copy_desc(note, note.desc_size))
        } else {
            Cow::Borrowed(self.cached_desc(note))
        }
    }

    fn cached_desc<'n>(&self, note: &'n Note) -> &'n [u8] {
        note.desc
            .get_or_init(|| self.copy_desc(note, note.desc_size))
    }

    fn copy_desc(&self, note: &Note, size: u64) -> Vec<u8> {
        self.file.copy(note.desc_offset, size).unwrap_or_default()
    }

    /// What a note says. Of a device dump only the name is read.
    pub fn decode<'n>(&self, note: &'n Note) -> Decoded<'n> {
        if note.is_device_dump() {
            let size = note.desc_size.min(DEVICE_DUMP_NAME as u64);
            Decoded::DeviceDump(notes::device_dump_name(&self.copy_desc(note, size)))
        } else {
            notes::decode(&note.name, note.note_type, self.cached_desc(note))
        }
    }

    /// What is broken about the file without making it useless.
    pub fn warnings(&self) -> &[String] {
        self.warnings.as_slice()
    }

    /// The registers of every vCPU, in the order of their numbers. Only an xl dump-core file has
    /// them apart from its notes.
    pub fn vcpu_contexts(&self) -> Vec<VcpuContext> {
        self.core
            .as_ref()
            .map(|core| core.vcpu_contexts(&self.file))
            .unwrap_or_default()
    }

    /// The domain's shared_info page, where the container keeps it apart (xl dump-core, PV).
    pub fn shared_info(&self) -> Option<&[u8]> {
        self.core.as_ref()?.shared_info(&self.file)
    }

    /// The P2M that the container itself holds: pairs ascending by pfn, no pfn twice. Empty where
    /// pfn and mfn are the same (HVM, PVH); `None` where the container has no P2M (vmcores).
    pub fn container_p2m(&self) -> Option<&[(Pfn, Mfn)]> {
        Some(self.core.as_ref()?.p2m(&self.file))
    }

    /// Whether the file's frames are a translated guest's own (HVM, PVH), so that machine and
    /// pseudo-physical addresses have the same numbers.
    pub fn auto_translated(&self) -> bool {
        self.core
            .as_ref()
            .is_some_and(|core| core.auto_translated())
    }
}

impl Memory<MachineAddr> for Dump {
    #[inline]
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        let len = buf.len() as u64;
        let mut rest = buf;
        let mut at = addr;
        while !rest.is_empty() {
            let (offset, together) = self.segments().locate(at)?;
            // What lies in the file fits in memory's address range.
            let n = rest.len().min(together as usize);
            let (part, tail) = rest.split_at_mut(n);
            self.file
                .read_at(offset, part)
                .map_err(|error| fault(at, offset, error))?;
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

    #[inline]
    fn lend(&self, addr: MachineAddr) -> &[u8] {
        match self.segments().locate(addr) {
            Ok((offset, len)) => self.file.lend(offset, len),
            Err(_) => &[],
        }
    }

    #[inline]
    fn lend_around(&self, addr: MachineAddr) -> (MachineAddr, &[u8]) {
        match self.segments().locate_around(addr) {
            Some((start, offset, len)) => (start, self.file.lend(offset, len)),
            None => (addr, &[]),
        }
    }

    #[inline]
    fn lent_soundly(&self) -> bool {
        self.file.is_whole()
    }

    fn next_held(&self, addr: MachineAddr, end: MachineAddr) -> Option<MachineAddr> {
        self.segments().next_held(addr, end)
    }

    fn pages(&self) -> u64 {
        self.file.len().div_ceil(PAGE_SIZE as u64)
    }
}

/// A failed read at `addr`, which lies at `offset` of the file.
#[cold]
fn fault(addr: MachineAddr, offset: u64, error: ReadError) -> Fault {
    match error {
        ReadError::PastEnd => Fault::Truncated { addr, offset },
        ReadError::Os(errno) => Fault::Io {
            addr,
            offset,
            errno,
        },
    }
}
