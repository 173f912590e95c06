//! Pseudo-physical to machine frames: P2M sources, entries, and lookups.
//!
//! A PV guest's P2M is an array of words, one for each pfn, in pages of the guest. The sources
//! ([`Source`]) differ only in how these pages are found; entries are located and decoded ([`Entry`])
//! in the same way. Only pages that a lookup needs are read.
//!
//! That of a translated guest (HVM, PVH) is Xen's, in page tables ([`Source::Nested`]): the tables of
//! the last level take the place of the P2M's pages, and large pages that of many of them.

mod bulk;
mod compare;
mod directory;
mod frames;
mod gather;
mod held;
mod huge;
mod kinds;
mod leaf;
mod leaves;
mod nested;
mod open;
mod open_nested;
mod packed;
mod physical;
mod pool;
mod reverse;
mod runs;
mod table;

pub use bulk::Batch;
pub use compare::{Comparison, Disagreement};
pub use directory::Source;
pub use frames::{FrameRun, FrameRuns};
pub use held::held;
pub use kinds::{KindRun, KindRuns};
pub use physical::Physical;
pub use table::P2m;

pub use crate::fault::Special;

use crate::addr::{Mfn, Word, PAGE_SHIFT};

/// The end of all mfns: machine addresses have at most 52 bits on x86.
const MFN_END: u64 = 1 << (52 - PAGE_SHIFT);

/// One entry of a P2M, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A frame of the domain.
    Frame(Mfn),
    /// Anything else.
    Special(Special),
}

impl Entry {
    /// Its kind, as shown to users.
    pub const fn kind(self) -> &'static str {
        match self {
            Entry::Frame(_) => "frame",
            Entry::Special(Special::Invalid) => "invalid",
            Entry::Special(Special::Foreign(_)) => "foreign",
            Entry::Special(Special::Identity(_)) => "identity",
            Entry::Special(Special::OutOfRange) => "out of range",
            Entry::Special(Special::NoTable) => "no table",
            Entry::Special(Special::Grant(_)) => "grant",
            Entry::Special(Special::Mmio(_)) => "mmio",
            Entry::Special(Special::Emulated) => "emulated",
            Entry::Special(Special::PopulateOnDemand) => "populate on demand",
            Entry::Special(Special::PagedOut) => "paged out",
            Entry::Special(Special::Broken(_)) => "broken",
        }
    }

    /// The frame in the entry, whether or not it is the domain's own.
    pub const fn mfn(self) -> Option<Mfn> {
        match self {
            Entry::Frame(mfn) => Some(mfn),
            Entry::Special(special) => special.mfn(),
        }
    }

    /// Decodes a word of a P2M page. All ones has both flag bits set, so it is tested first.
    pub const fn decode(raw: u64, word: Word) -> Entry {
        if raw == word.max() {
            return Entry::Special(Special::Invalid);
        }
        let top = word.bytes() * 8 - 1;
        let (foreign, identity) = (1 << top, 1 << (top - 1));
        let mfn = Mfn(raw & !(foreign | identity));
        if raw & foreign != 0 {
            Entry::Special(Special::Foreign(mfn))
        } else if raw & identity != 0 {
            Entry::Special(Special::Identity(mfn))
        } else {
            Entry::Frame(mfn)
        }
    }
}

/// The entry of a frame; invalid if its mfn is impossible.
#[inline]
fn checked(mfn: Mfn) -> Entry {
    if mfn.0 < MFN_END {
        Entry::Frame(mfn)
    } else {
        Entry::Special(Special::Invalid)
    }
}
