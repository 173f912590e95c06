//! Dumps: files that hold the memory of a machine.
//!
//! [`Dump`] provides notes, and machine memory as [`Memory<MachineAddr>`]. Nothing above it depends
//! on the file's format, which is a [`container::Container`] chosen by [`formats`].

mod container;
mod elf;
mod files;
mod formats;
mod guest;
mod in_place;
mod kdump;
mod lime;
mod memory_image;
mod note;
mod page_cache;
mod raw;
mod run_map;
mod save;
#[cfg(test)]
mod tests;
mod vcpu_context;
mod warnings;
mod xl_core;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::addr::{MachineAddr, Mfn, Pfn, Word, PAGE_SIZE};
use crate::fault::Fault;
use crate::limits::MAX_UNRELEASED_READS;
use crate::memory::{Memory, Page};
use crate::notes::{self, Decoded, DEVICE_DUMP_NAME};
use crate::Result;

use container::Container;

pub use container::{DomainKind, Run, Segment};
pub use note::Note;
pub use vcpu_context::{VcpuContext, CONTEXT_SIZE_32, CONTEXT_SIZE_64};

/// A dump, opened read-only.
#[derive(Debug)]
pub struct Dump {
    path: PathBuf,
    container: Box<dyn Container>,
    format: String,
    warnings: Vec<String>,
    /// See [`Dump::encryption_mask`]: a host has a note for each CPU, and page tables for each.
    encryption_mask: OnceLock<u64>,
    /// Scattered reads since the last release.
    unreleased: AtomicUsize,
}

/// How a dump is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Take the file for a raw image of physical memory.
    pub is_raw: bool,
    /// Bytes of decompressed pages or frames that are kept, if the dump is compressed.
    pub cache_size: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            is_raw: false,
            cache_size: 64 << 20,
        }
    }
}

impl Dump {
    /// Opens the file at `path`, whatever its format. Reads headers, but no memory.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(&[path.to_owned()], &Options::default())
    }

    /// Opens the files of a dump: one, or the parts of a split dump in any order. Of one part, the
    /// others are looked for in its folder.
    pub fn open_with(paths: &[PathBuf], options: &Options) -> Result<Self> {
        let opened = formats::open(paths, options)?;
        let headers = opened.container.headers();
        let own = headers.warnings.as_slice().iter().cloned();
        Ok(Self {
            path: paths.first().cloned().unwrap_or_default(),
            format: [
                if opened.is_zstd {
                    "zstd-compressed "
                } else {
                    ""
                },
                if opened.is_flattened {
                    "flattened "
                } else {
                    ""
                },
                headers.format,
            ]
            .concat(),
            warnings: opened.warnings.into_iter().chain(own).collect(),
            container: opened.container,
            encryption_mask: OnceLock::new(),
            unreleased: AtomicUsize::new(0),
        })
    }

    /// What the parts of the split dump have in common that the file at `path` is a part of; `None` if it
    /// is none, or cannot be read. Only headers are read, and no file that is wrapped in another format.
    pub fn split_identity(path: &Path) -> Option<Vec<u8>> {
        kdump::split_identity(path)
    }

    /// A translated guest of this host, whose memory of `size` bytes is `memory`: its machine addresses
    /// are the guest's physical ones. It has no notes.
    pub fn guest<M: Memory<MachineAddr> + Send + 'static>(&self, memory: M, size: u64) -> Self {
        Self {
            container: Box::new(guest::Guest::new(self, memory, size)),
            path: self.path.clone(),
            format: self.format.clone(),
            warnings: Vec::new(),
            encryption_mask: OnceLock::new(),
            unreleased: AtomicUsize::new(0),
        }
    }

    /// The path of the file, or of the first one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file in bytes.
    pub fn file_size(&self) -> u64 {
        self.container.file_size()
    }

    /// The format's name.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// `e_machine` (EM_386 or EM_X86_64) of the kernel that wrote the headers; the hypervisor may
    /// be another.
    pub fn machine_type(&self) -> u16 {
        self.container.headers().machine_type
    }

    /// Word size of the headers.
    pub fn word(&self) -> Word {
        self.container.headers().word
    }

    /// All notes, in file order.
    pub fn notes(&self) -> &[Note] {
        &self.container.headers().notes
    }

    /// The descriptor of a note; empty if it cannot be read any more. Device dumps are not cached.
    pub fn desc<'n>(&self, note: &'n Note) -> Cow<'n, [u8]> {
        if note.is_device_dump() {
            Cow::Owned(self.read_desc(note, note.desc_size))
        } else {
            Cow::Borrowed(self.cached_desc(note))
        }
    }

    fn cached_desc<'n>(&self, note: &'n Note) -> &'n [u8] {
        note.desc
            .get_or_init(|| self.read_desc(note, note.desc_size))
    }

    fn read_desc(&self, note: &Note, size: u64) -> Vec<u8> {
        self.container.descriptor(note, size).unwrap_or_default()
    }

    /// Decodes a note. Only the name of a device dump is read.
    pub fn decode<'n>(&self, note: &'n Note) -> Decoded<'n> {
        if note.is_device_dump() {
            let size = note.desc_size.min(DEVICE_DUMP_NAME as u64);
            Decoded::DeviceDump(notes::device_dump_name(&self.read_desc(note, size)))
        } else {
            notes::decode(&note.name, note.note_type, self.cached_desc(note))
        }
    }

    /// The bit of page-table entries that marks encrypted memory (AMD SME), as the kernel's VMCOREINFO
    /// gives it; 0 if there is none.
    pub fn encryption_mask(&self) -> u64 {
        *self.encryption_mask.get_or_init(|| {
            let mut masks = self
                .notes()
                .iter()
                .filter_map(|note| match self.decode(note) {
                    Decoded::VmcoreInfo(text) => notes::sme_mask(text),
                    _ => None,
                });
            masks.next().unwrap_or(0)
        })
    }

    /// Defects of the file that do not prevent its use, as far as they are known: some are found when
    /// memory is read.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        warnings.extend(self.container.late_warnings());
        warnings
    }

    /// Bytes of machine memory that the dump holds: what limits on work scale with. Bytes in the file
    /// that are held under many addresses count once.
    pub fn memory_held(&self) -> u64 {
        self.container.memory_held()
    }

    /// Gives back memory that only caches bytes of the file: later reads read them again.
    pub fn release(&self) {
        self.container.release();
    }

    /// Counts reads that are scattered over memory, as of many structs, and releases after some of them:
    /// what a walk of a million tasks has read would count as memory of this process.
    pub fn count_reads(&self, count: usize) {
        let before = self.unreleased.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) >= MAX_UNRELEASED_READS {
            self.unreleased.store(0, Ordering::Relaxed);
            self.release();
        }
    }

    /// Bytes of memory that the machine had according to the headers, with what was excluded.
    pub fn memory_size(&self) -> u64 {
        self.container.memory_size()
    }

    /// The runs of machine memory that the dump holds, ascending, as far as they are at `addr` or
    /// after it. The first is cut to start at `addr`.
    pub fn runs(&self, addr: MachineAddr) -> impl Iterator<Item = Run> + '_ {
        let next = |from| self.container.next_run(from);
        std::iter::successors(next(addr), move |run| {
            run.last.0.checked_add(1).map(MachineAddr).and_then(next)
        })
    }

    /// Whether reads decode whole pages. Batches should then be sorted by page.
    pub fn decodes_pages(&self) -> bool {
        self.container.decodes_pages()
    }

    /// How many pages were decoded so far, each as often as it was. 0 for formats with plain bytes.
    pub fn pages_decoded(&self) -> u64 {
        self.container.pages_decoded()
    }

    /// Which kinds of pages makedumpfile excluded, as its option `-d`; `None` if the file does not record
    /// it. The number is as in the file, and may be any.
    pub fn dump_level(&self) -> Option<i32> {
        self.container.dump_level()
    }

    /// The PT_LOAD segments, in file order. Only ELF dumps have any.
    pub fn segments(&self) -> &[Segment] {
        self.container.segments()
    }

    /// The registers of every vCPU, in order. Only files of a single domain have any outside the
    /// notes.
    pub fn vcpu_contexts(&self) -> Vec<VcpuContext> {
        self.container.vcpu_contexts()
    }

    /// The domain's shared_info page, if the file has it separately (xl dump-core, PV).
    pub fn shared_info(&self) -> Option<&[u8]> {
        self.container.shared_info()
    }

    /// The container's own P2M: ascending by pfn, each pfn once. Empty if pfns and mfns are the same
    /// (HVM, PVH); `None` if there is none (vmcores).
    pub fn container_p2m(&self) -> Option<&[(Pfn, Mfn)]> {
        self.container.p2m()
    }

    /// The kind of guest, if the file is of a single domain.
    pub fn domain_kind(&self) -> Option<DomainKind> {
        self.container.domain_kind()
    }

    /// Whether page tables and cr3 of a PV guest hold pfns in place of mfns: machine and pseudo-physical
    /// addresses are the same (save files).
    pub fn is_normalised(&self) -> bool {
        self.container.is_normalised()
    }

    /// Whether frame numbers are those of a translated guest (HVM, PVH): machine and pseudo-physical
    /// addresses are the same.
    pub fn auto_translated(&self) -> bool {
        self.container.auto_translated()
    }
}

impl Memory<MachineAddr> for Dump {
    #[inline]
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        self.container.read(addr, buf)
    }

    #[inline]
    fn borrow(&self, addr: MachineAddr) -> &[u8] {
        self.container.borrow(addr)
    }

    #[inline]
    fn borrow_around(&self, addr: MachineAddr) -> (MachineAddr, &[u8]) {
        self.container.borrow_around(addr)
    }

    #[inline]
    fn is_intact(&self) -> bool {
        self.container.is_intact()
    }

    fn pages_kept(&self) -> usize {
        self.container.pages_kept()
    }

    fn page(&self, addr: MachineAddr) -> Option<Arc<Page>> {
        self.container.page(addr)
    }

    fn next_held(&self, addr: MachineAddr) -> Option<(MachineAddr, MachineAddr)> {
        let run = self.container.next_run(addr)?;
        Some((run.start, run.last))
    }

    fn pages_held(&self) -> u64 {
        self.memory_held().div_ceil(PAGE_SIZE as u64)
    }
}
