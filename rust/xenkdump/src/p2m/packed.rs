//! Summaries of a P2M, a few bytes for each extent of 2 MiB.
//!
//! The P2M's own pages are scattered over the guest's memory: a random lookup costs a search for the
//! page, a TLB miss, and a word of 8 bytes to decode. Parts with many lookups are summarized. Xen
//! allocates memory by 2 MiB and more if it can, so most extents are described by their first mfn: a
//! guest of 64 GiB takes 128 KiB, which fits in the processor's caches. Extents of scattered frames
//! have a table of 4 bytes for each pfn.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

use super::{Entry, Special};
use crate::addr::{Mfn, Pfn};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::{MAX_SUMMARIZED_PAGES, MAX_SUMMARY_TABLES};
use crate::status::Status;

/// log2 of the pfns of an extent.
const EXTENT_SHIFT: u32 = 9;
/// pfns of an extent: 2 MiB of memory.
pub(super) const EXTENT: usize = 1 << EXTENT_SHIFT;
/// Extents and pfns of a block: 2 GiB of memory.
const EXTENTS: usize = 1 << 10;
pub(super) const BLOCK: u64 = (EXTENT * EXTENTS) as u64;
/// The number of lookups in a block before it is summarized. They cost about as much as the summary.
const WARM: u32 = 1024;

/// Summaries below this are the first mfn of an extent of consecutive frames; from it on, the index of
/// the extent's table.
pub(super) const TABLE: u32 = 1 << 31;
/// Summaries and table entries from here on are not frames; such a summary applies to the whole
/// extent.
pub(super) const SPECIAL: u32 = 0xffff_fff0;
const INVALID: u32 = SPECIAL;
const FOREIGN: u32 = SPECIAL + 1;
const IDENTITY: u32 = SPECIAL + 2;
const OUT_OF_RANGE: u32 = SPECIAL + 3;
const NO_TABLE: u32 = SPECIAL + 4;
const GRANT: u32 = SPECIAL + 5;
const MMIO: u32 = SPECIAL + 6;
const EMULATED: u32 = SPECIAL + 7;
const POPULATE_ON_DEMAND: u32 = SPECIAL + 8;
const PAGED_OUT: u32 = SPECIAL + 9;
const BROKEN: u32 = SPECIAL + 10;
/// To be looked up in the P2M itself: not summarized, or the mfn is too large to pack (on hosts with
/// more than 16 TiB).
pub(super) const LOOK_UP: u32 = u32::MAX;

/// An entry in 4 bytes: the mfn of a frame, or the kind of a special entry.
pub(super) fn pack(entry: Entry) -> u32 {
    match entry {
        Entry::Frame(Mfn(mfn)) => u32::try_from(mfn)
            .ok()
            .filter(|mfn| *mfn < SPECIAL)
            .unwrap_or(LOOK_UP),
        Entry::Special(Special::Invalid) => INVALID,
        Entry::Special(Special::Foreign(_)) => FOREIGN,
        Entry::Special(Special::Identity(_)) => IDENTITY,
        Entry::Special(Special::OutOfRange) => OUT_OF_RANGE,
        Entry::Special(Special::NoTable) => NO_TABLE,
        Entry::Special(Special::Grant(_)) => GRANT,
        Entry::Special(Special::Mmio(_)) => MMIO,
        Entry::Special(Special::Emulated) => EMULATED,
        Entry::Special(Special::PopulateOnDemand) => POPULATE_ON_DEMAND,
        Entry::Special(Special::PagedOut) => PAGED_OUT,
        Entry::Special(Special::Broken(_)) => BROKEN,
    }
}

/// The status of a packed entry that is not a frame; `None` for [`LOOK_UP`].
pub(super) fn status(packed: u32) -> Option<Status> {
    Some(match packed {
        INVALID => Status::Invalid,
        FOREIGN => Status::Foreign,
        IDENTITY => Status::Identity,
        OUT_OF_RANGE => Status::OutOfRange,
        NO_TABLE => Status::NoP2mPage,
        GRANT => Status::Grant,
        MMIO => Status::Mmio,
        EMULATED => Status::Emulated,
        POPULATE_ON_DEMAND => Status::PopulateOnDemand,
        PAGED_OUT => Status::PagedOut,
        BROKEN => Status::Broken,
        _ => return None,
    })
}

/// Index of a pfn in its extent.
#[inline]
pub(super) const fn within(pfn: Pfn) -> u64 {
    pfn.0 % EXTENT as u64
}

/// Whether pfns are in one extent, given the bits in which they differ.
#[inline]
pub(super) const fn one_extent(different: u64) -> bool {
    different < EXTENT as u64
}

pub(super) type Table = [u32; EXTENT];

/// A pfn's entry in its extent's table.
#[inline]
pub(super) fn entry(table: &Table, pfn: Pfn) -> u32 {
    table[pfn.0 as usize % EXTENT]
}

/// Summarizes a block from its packed entries in order.
#[derive(Debug)]
pub(super) struct Summary {
    summaries: Vec<u32>,
    tables: Vec<Table>,
    extent: Table,
    count: usize,
}

impl Summary {
    fn new() -> Self {
        Self {
            summaries: alloc::with_capacity(EXTENTS),
            tables: Vec::new(),
            extent: [LOOK_UP; EXTENT],
            count: 0,
        }
    }

    /// Adds the next entry.
    #[inline]
    pub(super) fn push(&mut self, entry: u32) {
        if let Some(slot) = self.extent.get_mut(self.count) {
            *slot = entry;
        }
        self.count += 1;
        if self.count == EXTENT {
            self.finish_extent();
            self.count = 0;
        }
    }

    fn finish_extent(&mut self) {
        let [first, ..] = self.extent;
        // Without an early exit, so that the loop is vectorized.
        // Bits in which entries differ from consecutive ones, and from the first.
        let (mut consecutive, mut same, mut expected) = (0, 0, first);
        for entry in &self.extent {
            consecutive |= entry ^ expected;
            same |= entry ^ first;
            expected = expected.wrapping_add(1);
        }
        let uniform = (first < TABLE && consecutive == 0) || (first >= SPECIAL && same == 0);
        self.summaries.push(if uniform {
            first
        } else if self.tables.try_reserve(1).is_ok() {
            self.tables.push(self.extent);
            // A block has 1024 extents.
            TABLE + (self.tables.len() - 1) as u32
        } else {
            LOOK_UP
        });
    }
}

/// The summaries of a P2M, built for blocks with many lookups.
#[derive(Debug)]
pub(super) struct Packed {
    /// The summary of each extent; allocated with the first block.
    summaries: OnceLock<Box<[AtomicU32]>>,
    blocks: Box<[Slot]>,
    tables: Budget<'static>,
}

#[derive(Debug, Default)]
struct Slot {
    tables: OnceLock<Vec<Table>>,
    /// Lookups before it was summarized.
    lookups: AtomicU32,
}

impl Packed {
    /// For `pages` pfns.
    pub(super) fn new(pages: u64) -> Self {
        let count = usize::try_from(pages.min(MAX_SUMMARIZED_PAGES).div_ceil(BLOCK)).unwrap_or(0);
        Self {
            summaries: OnceLock::new(),
            blocks: alloc::collect((0..count).map(|_| Slot::default())).into_boxed_slice(),
            tables: Budget::new("P2M summary tables", MAX_SUMMARY_TABLES),
        }
    }

    /// A view of the summaries, including those added later.
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        View {
            summaries: self.summaries.get().map_or(&[], |summaries| summaries),
            blocks: &self.blocks,
        }
    }

    /// Counts a lookup of a pfn that is not summarized. After many, summarizes its block by `entries`,
    /// which must push all entries of the block that starts at the given pfn.
    pub(super) fn count_lookup(&self, pfn: Pfn, entries: impl FnOnce(Pfn, &mut Summary)) {
        let number = pfn.0 / BLOCK;
        let Some(slot) = to_index(number).and_then(|number| self.blocks.get(number)) else {
            return;
        };
        // Inexact if threads race, which only delays the summary.
        let lookups = slot.lookups.load(Ordering::Relaxed).saturating_add(1);
        slot.lookups.store(lookups, Ordering::Relaxed);
        if lookups < WARM || self.tables.remaining() == 0 {
            return;
        }
        slot.tables.get_or_init(|| {
            let mut block = Summary::new();
            entries(Pfn(number * BLOCK), &mut block);
            block.tables.shrink_to_fit();
            // The block that exhausts the budget is kept: it is the last one.
            let _ = self.tables.spend(block.tables.len() as u64);
            let unknown = || AtomicU32::new(LOOK_UP);
            let extents = self.blocks.len() * EXTENTS;
            let all = self.summaries.get_or_init(|| {
                alloc::collect(std::iter::repeat_with(unknown).take(extents)).into_boxed_slice()
            });
            let own = to_index(number * EXTENTS as u64).and_then(|first| all.get(first..));
            // A thread that reads a summary before its table exists uses the P2M itself.
            for (slot, summary) in own.unwrap_or_default().iter().zip(&block.summaries) {
                slot.store(*summary, Ordering::Relaxed);
            }
            block.tables
        });
    }
}

/// Summaries, for lookups.
#[derive(Clone, Copy)]
pub(super) struct View<'p> {
    summaries: &'p [AtomicU32],
    blocks: &'p [Slot],
}

impl View<'_> {
    /// The summary of a pfn's extent; [`LOOK_UP`] if there is none.
    #[inline]
    pub(super) fn summary(&self, pfn: Pfn) -> u32 {
        to_index(pfn.0 >> EXTENT_SHIFT)
            .and_then(|extent| self.summaries.get(extent))
            .map_or(LOOK_UP, |summary| summary.load(Ordering::Relaxed))
    }

    /// The table of a pfn's extent, if its `summary` refers to one.
    #[inline]
    pub(super) fn table(&self, summary: u32, pfn: Pfn) -> Option<&Table> {
        let block = self.blocks.get(to_index(pfn.0 / BLOCK)?)?;
        let tables = block.tables.get()?;
        tables.get(summary.wrapping_sub(TABLE) as usize)
    }
}

#[inline]
fn to_index(number: u64) -> Option<usize> {
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(entries: &[u32]) -> (u32, Vec<u32>) {
        let packed = Packed::new(entries.len() as u64);
        for _ in 0..WARM {
            packed.count_lookup(Pfn(3), |first, block| {
                assert_eq!(first, Pfn(0));
                entries.iter().for_each(|entry| block.push(*entry));
            });
        }
        let view = packed.view();
        let all = (0..entries.len() as u64).map(Pfn).map(|pfn| {
            let summary = view.summary(pfn);
            match summary {
                0..TABLE => summary + within(pfn) as u32,
                TABLE..SPECIAL => entry(view.table(summary, pfn).unwrap(), pfn),
                SPECIAL.. => summary,
            }
        });
        (view.summary(Pfn(0)), all.collect())
    }

    #[test]
    fn a_summary_agrees_with_the_entries() {
        let rising: Vec<_> = (7000..7000 + EXTENT as u32).collect();
        let mut odd = rising.clone();
        odd[300] = INVALID;
        let high: Vec<_> = (TABLE - 4..).take(EXTENT).collect();
        let last: Vec<_> = (TABLE - 1 - EXTENT as u32..).take(EXTENT).collect();
        for (entries, expected) in [
            (rising.clone(), 7000),
            (odd, TABLE),
            (vec![IDENTITY; EXTENT], IDENTITY),
            (vec![LOOK_UP; EXTENT], LOOK_UP),
            // Consecutive frames past the largest mfn of a summary.
            (high, TABLE - 4),
            (last, TABLE - 1 - EXTENT as u32),
        ] {
            let (found, all) = packed(&entries);
            assert_eq!(found, expected);
            assert_eq!(all, entries);
        }
    }
}
