//! A domain's P2M.

use std::sync::OnceLock;

use super::directory::Directory;
use super::leaf::Leaf;
use super::leaves::Leaves;
use super::packed::Packed;
use super::reverse::Reverse;
use super::{checked, nested, Entry, Source, Special};
use crate::addr::{MachineAddr, Mfn, Pfn, Word, PAGE_SIZE};
use crate::memory::Memory;
use crate::paging::NestedFormat;
use crate::status::{Status, NONE};

/// A domain's pfn to mfn table, read in place in machine memory.
///
/// Can be shared between threads; they share a cache of where its pages are.
#[derive(Debug)]
pub struct P2m<M> {
    pub(super) mem: M,
    pub(super) source: Source,
    pub(super) word: Word,
    pub(super) coding: Coding,
    pub(super) pages: u64,
    pub(super) entries: Entries,
    /// Number of entries before pfn 0 in the first page: an array need not be page-aligned.
    pub(super) bias: u64,
    pub(super) packed: Packed,
    pub(super) reverse: OnceLock<Reverse>,
}

/// How an entry is encoded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Coding {
    /// As a word of the guest.
    Word(Word),
    /// As an entry of a page table.
    Nested(&'static NestedFormat),
}

impl Coding {
    /// Decodes an entry; one with an impossible mfn is invalid.
    #[inline]
    pub(super) fn decode(self, raw: u64) -> Entry {
        match self {
            Coding::Word(word) => decode(raw, word),
            Coding::Nested(format) => nested::decode(format, raw),
        }
    }
}

/// The location of the entries.
#[derive(Debug)]
pub(super) enum Entries {
    /// In pages of the guest, or in tables of Xen.
    Pages {
        directory: Directory,
        leaves: Leaves,
    },
    /// In a list of the entries with a frame, by ascending pfn.
    Pairs(Box<[(Pfn, Mfn)]>),
}

impl<M: Memory<MachineAddr>> P2m<M> {
    /// How it was found.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The guest's word size, which is the size of an entry.
    pub fn word(&self) -> Word {
        self.word
    }

    /// Number of pfns.
    pub fn len(&self) -> u64 {
        self.pages
    }

    /// Whether it has no pfns.
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// The machine memory that holds it.
    pub fn memory(&self) -> &M {
        &self.mem
    }

    /// The entry of `pfn`. An entry with an invalid mfn (above 52 address bits) is
    /// [`Special::Invalid`].
    pub fn resolve(&self, pfn: Pfn) -> Entry {
        if pfn.0 >= self.pages {
            return Entry::Special(Special::OutOfRange);
        }
        let (directory, leaves) = match &self.entries {
            Entries::Pages { directory, leaves } => (directory, leaves),
            Entries::Pairs(pairs) => {
                let found = pairs
                    .binary_search_by_key(&pfn, |(pfn, _)| *pfn)
                    .ok()
                    .and_then(|i| pairs.get(i));
                return found.map_or(Entry::Special(Special::Invalid), |(_, mfn)| checked(*mfn));
            }
        };
        let index = pfn.0 + self.bias;
        let (number, slot) = (index / self.per_page(), index % self.per_page());
        let missing = Entry::Special(Special::NoTable);
        let leaf = match leaves.get(number, || directory.leaf(&self.mem, number)) {
            Leaf::Page(mfn) => mfn.addr(),
            Leaf::Missing { .. } => None,
            Leaf::Large { entry, .. } => return nested::advance(entry, slot),
            Leaf::Empty { special, .. } => return Entry::Special(special),
        };
        let Some(leaf) = leaf else {
            return missing;
        };
        let at = leaf.0 + slot * self.word.bytes() as u64;
        match self.mem.read_word(MachineAddr(at), self.word) {
            Ok(raw) => self.coding.decode(raw),
            Err(_) => missing,
        }
    }

    /// The lowest pfn that the P2M maps to `mfn`. The first call reads the whole P2M.
    pub fn reverse(&self, mfn: Mfn) -> Option<Pfn> {
        self.reverse.get_or_init(|| Reverse::build(self)).get(mfn)
    }

    /// Builds the table for [`P2m::reverse`], which its first call does otherwise.
    pub fn prepare_reverse(&self) {
        self.reverse.get_or_init(|| Reverse::build(self));
    }

    /// [`P2m::reverse`] of many mfns; [`NONE`] for those without a pfn.
    pub fn reverse_many(&self, mfns: &[Mfn], out: &mut [Pfn], status: &mut [Status]) {
        let reverse = self.reverse.get_or_init(|| Reverse::build(self));
        for ((mfn, out), status) in mfns.iter().zip(out).zip(status) {
            (*out, *status) = match reverse.get(*mfn) {
                Some(pfn) => (pfn, Status::Ok),
                None => (Pfn(NONE), Status::NoPfn),
            };
        }
    }

    /// The page with the entry of `pfn`, if it can be borrowed.
    pub(super) fn leaf_view(&self, pfn: Pfn) -> Option<LeafView<'_>> {
        let Entries::Pages { directory, leaves } = &self.entries else {
            return None;
        };
        if pfn.0 >= self.pages {
            return None;
        }
        let index = pfn.0 + self.bias;
        let number = index / self.per_page();
        let Leaf::Page(leaf) = leaves.get(number, || directory.leaf(&self.mem, number)) else {
            return None;
        };
        Some(LeafView {
            bytes: self.mem.borrow(leaf.addr()?).first_chunk()?,
            word: self.word,
            coding: self.coding,
            // Wraps, here and in `holds`, for the first page of an array that is not page-aligned.
            start: (number * self.per_page()).wrapping_sub(self.bias),
            pages: self.pages,
        })
    }

    pub(super) fn per_page(&self) -> u64 {
        (PAGE_SIZE / self.word.bytes()) as u64
    }
}

/// A page of a P2M.
#[derive(Clone, Copy)]
pub(super) struct LeafView<'p> {
    bytes: &'p [u8; PAGE_SIZE],
    word: Word,
    coding: Coding,
    /// pfn of its first entry.
    start: u64,
    /// End of the P2M.
    pages: u64,
}

impl LeafView<'_> {
    /// Whether it has the entry of `pfn`.
    #[inline]
    pub(super) fn holds(&self, pfn: Pfn) -> bool {
        let slot = pfn.0.wrapping_sub(self.start);
        slot < (PAGE_SIZE / self.word.bytes()) as u64 && pfn.0 < self.pages
    }

    /// The entry of a pfn in the page.
    #[inline]
    pub(super) fn entry(&self, pfn: Pfn) -> Entry {
        let slot = pfn.0.wrapping_sub(self.start) as usize;
        let at = slot.wrapping_mul(self.word.bytes());
        self.bytes
            .get(at..)
            .and_then(|bytes| self.word.get(bytes))
            .map_or(Entry::Special(Special::NoTable), |raw| {
                self.coding.decode(raw)
            })
    }
}

/// Decodes an entry. An entry with an mfn out of range is invalid.
#[inline]
pub(super) fn decode(raw: u64, word: Word) -> Entry {
    match Entry::decode(raw, word) {
        Entry::Frame(mfn) => checked(mfn),
        entry => entry,
    }
}
