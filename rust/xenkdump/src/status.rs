//! The status of one element of a batch.

use crate::fault::{Fault, Special};

/// The result of an element that has none.
pub const NONE: u64 = u64::MAX;

/// The status of one element of a batch: a [`Fault`] or a [`Special`] without its details, which a
/// call for the single element yields.
///
/// The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Status {
    /// Success.
    #[default]
    Ok = 0,
    /// The P2M has no frame there.
    Invalid = 1,
    /// The frame belongs to another domain.
    Foreign = 2,
    /// A hole or MMIO.
    Identity = 3,
    /// Past the end of the P2M.
    OutOfRange = 4,
    /// The P2M page that holds the entry is not in the dump.
    NoP2mPage = 5,
    /// A page-table entry of the walk is not present.
    NotPresent = 6,
    /// A page table of the walk is not in the dump.
    NoPageTable = 7,
    /// A page-table entry has reserved bits set.
    Reserved = 8,
    /// Not an address of the paging format.
    NonCanonical = 9,
    /// No segment of the dump holds the memory.
    NoSegment = 10,
    /// The memory was excluded from the dump.
    Excluded = 11,
    /// The dump was truncated before the memory, or its writer stopped before.
    Truncated = 12,
    /// The operating system could not read the file.
    Io = 13,
    /// The range wraps round the end of the address space.
    Wraps = 14,
    /// No pfn has this frame.
    NoPfn = 15,
    /// The page cannot be decompressed.
    Corrupt = 16,
    /// The memory is in a part of a split dump that is not open.
    MissingPart = 17,
    /// The frame is mapped by a grant of another domain.
    Grant = 18,
    /// The frame is a device's.
    Mmio = 19,
    /// The device model emulates it.
    Emulated = 20,
    /// No frame yet: it is allocated on demand.
    PopulateOnDemand = 21,
    /// The memory was paged out.
    PagedOut = 22,
    /// The frame failed in hardware.
    Broken = 23,
}

impl Status {
    /// All statuses, by number.
    pub const ALL: [Status; 24] = [
        Status::Ok,
        Status::Invalid,
        Status::Foreign,
        Status::Identity,
        Status::OutOfRange,
        Status::NoP2mPage,
        Status::NotPresent,
        Status::NoPageTable,
        Status::Reserved,
        Status::NonCanonical,
        Status::NoSegment,
        Status::Excluded,
        Status::Truncated,
        Status::Io,
        Status::Wraps,
        Status::NoPfn,
        Status::Corrupt,
        Status::MissingPart,
        Status::Grant,
        Status::Mmio,
        Status::Emulated,
        Status::PopulateOnDemand,
        Status::PagedOut,
        Status::Broken,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Invalid => "invalid",
            Status::Foreign => "foreign",
            Status::Identity => "identity",
            Status::OutOfRange => "out of range",
            Status::NoP2mPage => "no P2M page",
            Status::NotPresent => "not present",
            Status::NoPageTable => "no page table",
            Status::Reserved => "reserved bits",
            Status::NonCanonical => "not canonical",
            Status::NoSegment => "no segment",
            Status::Excluded => "excluded",
            Status::Truncated => "truncated",
            Status::Io => "read error",
            Status::Wraps => "wraps",
            Status::NoPfn => "no pfn",
            Status::Corrupt => "corrupt page",
            Status::MissingPart => "missing part",
            Status::Grant => "grant",
            Status::Mmio => "mmio",
            Status::Emulated => "emulated",
            Status::PopulateOnDemand => "populate on demand",
            Status::PagedOut => "paged out",
            Status::Broken => "broken",
        }
    }
}

impl From<Special> for Status {
    fn from(special: Special) -> Self {
        match special {
            Special::Invalid => Status::Invalid,
            Special::Foreign(_) => Status::Foreign,
            Special::Identity(_) => Status::Identity,
            Special::OutOfRange => Status::OutOfRange,
            Special::NoTable => Status::NoP2mPage,
            Special::Grant(_) => Status::Grant,
            Special::Mmio(_) => Status::Mmio,
            Special::Emulated => Status::Emulated,
            Special::PopulateOnDemand => Status::PopulateOnDemand,
            Special::PagedOut => Status::PagedOut,
            Special::Broken(_) => Status::Broken,
        }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NoSegment(_) => Status::NoSegment,
            Fault::Excluded(_) | Fault::NoContents(_) | Fault::Filtered { .. } => Status::Excluded,
            Fault::Truncated { .. } | Fault::NotWritten(_) => Status::Truncated,
            Fault::MissingPart(_) => Status::MissingPart,
            Fault::Corrupt { .. } => Status::Corrupt,
            // Batches copy into memory of the caller.
            Fault::Io { .. } | Fault::NoMemory { .. } => Status::Io,
            Fault::NotPresent { .. } => Status::NotPresent,
            Fault::NoTable { .. } => Status::NoPageTable,
            Fault::Reserved { .. } => Status::Reserved,
            Fault::NonCanonical(_) => Status::NonCanonical,
            Fault::P2m { special, .. } => special.into(),
            Fault::Wraps { .. } => Status::Wraps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions() {
        for (number, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, number);
        }
    }
}
