//! Why memory cannot be read.

use std::fmt;

use crate::addr::{Address, MachineAddr, Mfn, Pfn, PseudoPhysAddr, VirtAddr};

/// A P2M entry that does not name a frame of the domain's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Special {
    /// All ones: the domain has no frame here (ballooned out, or a hole).
    #[error("the P2M entry is invalid (no frame)")]
    Invalid,
    /// The frame belongs to another domain (a grant or foreign mapping).
    #[error("the P2M entry is foreign (mfn {mfn:#x} belongs to another domain)", mfn = .0.0)]
    Foreign(Mfn),
    /// mfn equals pfn: MMIO or a hole of the machine's memory map.
    #[error("the P2M entry is an identity mapping (mfn {mfn:#x}, a hole or MMIO)", mfn = .0.0)]
    Identity(Mfn),
    /// The pfn is past the end of the P2M.
    #[error("past the end of the P2M")]
    OutOfRange,
    /// The P2M page with the entry cannot be read.
    #[error("the P2M page that holds its entry is not in the dump")]
    NoTable,
    /// The frame is mapped by a grant of another domain.
    #[error("the P2M entry is a grant mapping (mfn {mfn:#x} belongs to another domain)", mfn = .0.0)]
    Grant(Mfn),
    /// The frame is a device's.
    #[error("the P2M entry is MMIO (mfn {mfn:#x} is a device's)", mfn = .0.0)]
    Mmio(Mfn),
    /// The device model emulates it.
    #[error("the P2M entry is MMIO that the device model emulates")]
    Emulated,
    /// Memory that was never used: it is allocated on demand.
    #[error("the P2M entry is populate-on-demand (no frame yet)")]
    PopulateOnDemand,
    /// The memory was paged out.
    #[error("the P2M entry is paged out")]
    PagedOut,
    /// The frame failed in hardware.
    #[error("the P2M entry is a broken frame (mfn {mfn:#x})", mfn = .0.0)]
    Broken(Mfn),
}

impl Special {
    /// The frame in the entry.
    pub const fn mfn(self) -> Option<Mfn> {
        match self {
            Special::Foreign(mfn)
            | Special::Identity(mfn)
            | Special::Grant(mfn)
            | Special::Mmio(mfn)
            | Special::Broken(mfn) => Some(mfn),
            Special::Invalid
            | Special::OutOfRange
            | Special::NoTable
            | Special::Emulated
            | Special::PopulateOnDemand
            | Special::PagedOut => None,
        }
    }
}

/// The dump level of makedumpfile: which kinds of pages it excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpLevel(pub Option<i32>);

impl fmt::Display for DumpLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(level) => write!(f, "dump level {level}"),
            // Headers before version 1.
            None => write!(f, "dump level not recorded"),
        }
    }
}

/// Why an address could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No segment of the dump holds it.
    #[error("machine address {0} is in no segment of the dump")]
    NoSegment(MachineAddr),
    /// Excluded by the program that wrote the dump: a segment covers it, but without bytes in the
    /// file (`p_filesz < p_memsz`).
    #[error("machine address {0} was left out of the dump (p_filesz < p_memsz)")]
    Excluded(MachineAddr),
    /// A saved domain has the page, but its contents were not saved: the page is broken, or was allocated
    /// and not written to; or its record is corrupt.
    #[error("machine address {0}: the stream has its page without contents")]
    NoContents(MachineAddr),
    /// Excluded by makedumpfile, whose bitmaps say so.
    #[error("machine address {addr}: page excluded by makedumpfile, {level}")]
    Filtered {
        /// The address.
        addr: MachineAddr,
        /// What was excluded, as the dump's header says.
        level: DumpLevel,
    },
    /// Its page was to be written, but the program that wrote the dump stopped before.
    #[error("machine address {0}: the dump is incomplete, its page was not written")]
    NotWritten(MachineAddr),
    /// It is in a file of a split dump that was not opened.
    #[error("machine address {0} is in a part of the split dump that is not open")]
    MissingPart(MachineAddr),
    /// Its page cannot be decompressed.
    #[error("machine address {addr}: the page at file offset {offset:#x} is corrupt ({reason})")]
    Corrupt {
        /// The address.
        addr: MachineAddr,
        /// Where its page, or the descriptor of its page, is in the file.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file ends before it.
    #[error("machine address {addr} lies at file offset {offset:#x}, past the end of the file")]
    Truncated {
        /// The address.
        addr: MachineAddr,
        /// Where it would be in the file.
        offset: u64,
    },
    /// The operating system could not read the file there.
    #[error(
        "machine address {addr} at file offset {offset:#x}: {}",
        std::io::Error::from_raw_os_error(*errno)
    )]
    Io {
        /// The address.
        addr: MachineAddr,
        /// Where it is in the file.
        offset: u64,
        /// The system's error number.
        errno: i32,
    },
    /// A page-table entry of the walk is not present.
    #[error(
        "virtual address {addr}: not present at level {level} (entry {index} of table {table} is {entry:#x})"
    )]
    NotPresent {
        /// The address.
        addr: VirtAddr,
        /// Level of the table; entries of level 1 map 4 KiB pages.
        level: u8,
        /// Machine address of the table.
        table: MachineAddr,
        /// Index of the entry in it.
        index: u16,
        /// The entry.
        entry: u64,
    },
    /// A page table of the walk cannot be read.
    #[error("virtual address {addr}: the level {level} table at {table} is not in the dump")]
    NoTable {
        /// The address.
        addr: VirtAddr,
        /// Level of the table.
        level: u8,
        /// Its machine address.
        table: MachineAddr,
    },
    /// A page-table entry has reserved bits set.
    #[error(
        "virtual address {addr}: reserved bits at level {level} (entry {index} of table {table} is {entry:#x})"
    )]
    Reserved {
        /// The address.
        addr: VirtAddr,
        /// Level of the table.
        level: u8,
        /// Machine address of the table.
        table: MachineAddr,
        /// Index of the entry in it.
        index: u16,
        /// The entry.
        entry: u64,
    },
    /// Not an address of this paging format (not canonical, or above 4 GiB on 32 bits).
    #[error("virtual address {0} is not canonical")]
    NonCanonical(VirtAddr),
    /// The P2M has no frame of the domain's own for this pfn.
    #[error("pfn {pfn:#x}: {special}", pfn = .pfn.0)]
    P2m {
        /// The pfn.
        pfn: Pfn,
        /// Its entry.
        special: Special,
    },
    /// Address and length do not fit in 64 bits.
    #[error("the range of {len:#x} bytes at {addr:#x} wraps round")]
    Wraps {
        /// Start of the range.
        addr: u64,
        /// Its length.
        len: u64,
    },
    /// This process has no memory for a copy.
    #[error("not enough memory to copy {len:#x} bytes or more from {addr:#x}")]
    NoMemory {
        /// Start of the range.
        addr: u64,
        /// Bytes that were to be copied.
        len: u64,
    },
}

impl Fault {
    /// Kind and number of the address that cannot be read. The kind is empty, because unknown here,
    /// for a range that wraps or does not fit in memory.
    pub fn address(&self) -> (&'static str, u64) {
        fn of<A: Address>(addr: A) -> (&'static str, u64) {
            (A::KIND, addr.raw())
        }
        match *self {
            Fault::NoSegment(addr)
            | Fault::Excluded(addr)
            | Fault::NoContents(addr)
            | Fault::NotWritten(addr)
            | Fault::MissingPart(addr)
            | Fault::Filtered { addr, .. }
            | Fault::Corrupt { addr, .. }
            | Fault::Truncated { addr, .. }
            | Fault::Io { addr, .. } => of(addr),
            Fault::NotPresent { addr, .. }
            | Fault::NoTable { addr, .. }
            | Fault::Reserved { addr, .. }
            | Fault::NonCanonical(addr) => of(addr),
            Fault::P2m { pfn, .. } => of(pfn.addr().unwrap_or(PseudoPhysAddr(u64::MAX))),
            Fault::Wraps { addr, .. } | Fault::NoMemory { addr, .. } => ("", addr),
        }
    }
}
