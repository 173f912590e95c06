//! What a lookup of a page of a P2M finds.

use super::{Entry, Special};
use crate::addr::{MachineAddr, Mfn};

/// A page of a P2M.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// Its frame.
    Page(Mfn),
    /// It is missing, and so are the pages after it.
    Missing {
        /// Number of the next page that may exist.
        until: u64,
    },
    /// There is none: the entries of a part of a large page.
    Large {
        /// The first of them; the frames of the others follow.
        entry: Entry,
        /// Number of the first page after the large one.
        until: u64,
    },
    /// There is none: all entries are this one.
    Empty {
        /// The entry.
        special: Special,
        /// Number of the first page with others.
        until: u64,
    },
}

/// What determines the frames of consecutive P2M pages. Equal values lead to equal pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// A table, from its entry at this address.
    Table(MachineAddr),
    /// They are contiguous from this address.
    Contiguous(MachineAddr),
    /// They are missing: there is no table, or the dump holds none of them.
    Missing,
    /// There are none: all entries are this one.
    Empty(Special),
    /// Not known; never shared with other pages.
    Unknown,
}
