//! Pseudo-physical to machine frames: the sources of a P2M, its special entries, its resolution.
//!
//! A PV guest's P2M is an array of words, one for each pfn, that lies in pages of the guest's own.
//! The sources ([`Source`]) differ in how those pages are found; what follows is the same for all:
//! the page, the entry in it, and what the entry says ([`Entry`]). Nothing is read but the pages
//! that a question needs.

mod bulk;
mod compare;
mod directory;
mod frames;
mod huge;
mod leaves;
mod open;
mod packed;
mod physical;
mod reverse;
mod runs;
mod table;

pub use compare::{Comparison, Disagreement};
pub use directory::Source;
pub use frames::{FrameRun, FrameRuns};
pub use physical::Physical;
pub use table::{P2m, MAX_PAGES};

use crate::addr::{Mfn, Word};

/// What a P2M entry says when it does not simply name a frame of the domain's own.
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
    /// The pfn lies past the end of the P2M.
    #[error("past the end of the P2M")]
    OutOfRange,
    /// The page of the P2M that would hold the entry cannot be read.
    #[error("the P2M page that holds its entry is not in the dump")]
    NoTable,
}

/// One entry of a P2M, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A frame of the domain.
    Frame(Mfn),
    /// Anything else.
    Special(Special),
}

impl Entry {
    /// What kind of entry it is, in a word or two.
    pub const fn kind(self) -> &'static str {
        match self {
            Entry::Frame(_) => "frame",
            Entry::Special(Special::Invalid) => "invalid",
            Entry::Special(Special::Foreign(_)) => "foreign",
            Entry::Special(Special::Identity(_)) => "identity",
            Entry::Special(Special::OutOfRange) => "out of range",
            Entry::Special(Special::NoTable) => "no table",
        }
    }

    /// The frame it names, whoever's that is.
    pub const fn mfn(self) -> Option<Mfn> {
        match self {
            Entry::Frame(mfn) | Entry::Special(Special::Foreign(mfn) | Special::Identity(mfn)) => {
                Some(mfn)
            }
            Entry::Special(_) => None,
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
