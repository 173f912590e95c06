//! Pseudo-physical to machine frames: P2M sources, entries, and lookups.
//!
//! A PV guest's P2M is an array of words, one for each pfn, in pages of the guest. The sources
//! ([`Source`]) differ only in how these pages are found; entries are located and decoded ([`Entry`])
//! in the same way. Only pages that a lookup needs are read.

mod bulk;
mod compare;
mod directory;
mod frames;
mod huge;
mod kinds;
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
pub use kinds::{KindRun, KindRuns};
pub use physical::Physical;
pub use table::P2m;

pub use crate::fault::Special;

use crate::addr::{Mfn, Word};

/// One entry of a P2M, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        }
    }

    /// The frame in the entry, whether or not it is the domain's own.
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
