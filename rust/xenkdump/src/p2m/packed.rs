//! A P2M in a few bytes an extent, for those that are asked much.
//!
//! The P2M's own pages lie wherever the guest had room: a question at random pays for finding the
//! page, for a TLB entry of its own, and for a word of 8 bytes that the decoder then looks at. Of
//! parts that are asked often a summary is made. Xen hands out memory by 2 MiB and more where it
//! can, so of most extents the first mfn tells all: a guest of 64 GiB is summed up in 128 KiB, which
//! the processor's own caches hold. Extents of single frames keep a table of 4 bytes a pfn.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

use super::{Entry, Special};
use crate::addr::{Mfn, Pfn};
use crate::budget::Budget;
use crate::limits::{MAX_SUMMARIZED_PAGES, MAX_SUMMARY_TABLES};
use crate::status::Status;

/// log2 of the pfns of an extent.
const EXTENT_SHIFT: u32 = 9;
/// How many pfns an extent has: 2 MiB of memory.
pub(super) const EXTENT: usize = 1 << EXTENT_SHIFT;
/// How many extents a block has, and how many pfns: 2 GiB of memory.
const EXTENTS: usize = 1 << 10;
pub(super) const BLOCK: u64 = (EXTENT * EXTENTS) as u64;
/// Questions that a block answers from the P2M's own pages before it is summed up, which costs
/// about as much as they did.
const WARM: u32 = 1024;

/// Summaries below this are the first of an extent's frames, which follow each other; from it on,
/// the number of the extent's table.
pub(super) const TABLE: u32 = 1 << 31;
/// Summaries and entries of a table from here on are not frames, and a summary speaks for all of its
/// extent.
pub(super) const SPECIAL: u32 = 0xffff_fff0;
const INVALID: u32 = SPECIAL;
const FOREIGN: u32 = SPECIAL + 1;
const IDENTITY: u32 = SPECIAL + 2;
const OUT_OF_RANGE: u32 = SPECIAL + 3;
const NO_TABLE: u32 = SPECIAL + 4;
/// Ask the P2M itself: nothing is known here, or the mfn is too large to pack (of a machine with
/// more than 16 TiB).
pub(super) const ASK: u32 = u32::MAX;

/// An entry in 4 bytes: a frame by its mfn, and what else there is without one.
pub(super) fn pack(entry: Entry) -> u32 {
    match entry {
        Entry::Frame(Mfn(mfn)) => u32::try_from(mfn)
            .ok()
            .filter(|mfn| *mfn < SPECIAL)
            .unwrap_or(ASK),
        Entry::Special(Special::Invalid) => INVALID,
        Entry::Special(Special::Foreign(_)) => FOREIGN,
        Entry::Special(Special::Identity(_)) => IDENTITY,
        Entry::Special(Special::OutOfRange) => OUT_OF_RANGE,
        Entry::Special(Special::NoTable) => NO_TABLE,
    }
}

/// What a packed entry that is no frame says; `None` for [`ASK`].
pub(super) fn status(packed: u32) -> Option<Status> {
    Some(match packed {
        INVALID => Status::Invalid,
        FOREIGN => Status::Foreign,
        IDENTITY => Status::Identity,
        OUT_OF_RANGE => Status::OutOfRange,
        NO_TABLE => Status::NoP2mPage,
        _ => return None,
    })
}

/// A pfn's place in its extent.
#[inline]
pub(super) const fn within(pfn: Pfn) -> u64 {
    pfn.0 % EXTENT as u64
}

/// Whether two pfns, or any that were laid over each other by exclusive or, are of one extent.
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

/// Sums up a block: takes its entries, packed and in order.
#[derive(Debug)]
pub(super) struct Summing {
    summaries: Vec<u32>,
    tables: Vec<Table>,
    extent: Table,
    count: usize,
}

impl Summing {
    fn new() -> Self {
        Self {
            summaries: Vec::with_capacity(EXTENTS),
            tables: Vec::new(),
            extent: [ASK; EXTENT],
            count: 0,
        }
    }

    /// Takes the next entry.
    #[inline]
    pub(super) fn push(&mut self, entry: u32) {
        if let Some(slot) = self.extent.get_mut(self.count) {
            *slot = entry;
        }
        self.count += 1;
        if self.count == EXTENT {
            self.sum_up();
            self.count = 0;
        }
    }

    fn sum_up(&mut self) {
        let [first, ..] = self.extent;
        // Over all of them, without a way out: as vectors.
        let (mut row, mut same, mut expected) = (0, 0, first);
        for entry in &self.extent {
            row |= entry ^ expected;
            same |= entry ^ first;
            expected = expected.wrapping_add(1);
        }
        let alike = (first < TABLE && row == 0) || (first >= SPECIAL && same == 0);
        self.summaries.push(if alike {
            first
        } else if self.tables.try_reserve(1).is_ok() {
            self.tables.push(self.extent);
            // A block has few extents.
            TABLE + (self.tables.len() - 1) as u32
        } else {
            ASK
        });
    }
}

/// The summaries of a P2M, made block by block as these get warm.
#[derive(Debug)]
pub(super) struct Packed {
    /// Of each extent; made with the first block.
    summaries: OnceLock<Box<[AtomicU32]>>,
    blocks: Box<[Slot]>,
    tables: Budget<'static>,
}

#[derive(Debug, Default)]
struct Slot {
    tables: OnceLock<Vec<Table>>,
    /// How many questions went past it.
    asked: AtomicU32,
}

impl Packed {
    /// For `pages` pfns.
    pub(super) fn new(pages: u64) -> Self {
        let count = usize::try_from(pages.min(MAX_SUMMARIZED_PAGES).div_ceil(BLOCK)).unwrap_or(0);
        Self {
            summaries: OnceLock::new(),
            blocks: (0..count).map(|_| Slot::default()).collect(),
            tables: Budget::new("P2M summary tables", MAX_SUMMARY_TABLES),
        }
    }

    /// What is known of the extents by now, and of those that get warm later.
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        View {
            summaries: self.summaries.get().map_or(&[], |summaries| summaries),
            blocks: &self.blocks,
        }
    }

    /// Counts a question about a pfn of which nothing is known, and sums up its block by `entries`,
    /// which is to push all entries of the block that begins with the pfn it is called with, once
    /// questions are many.
    pub(super) fn ask(&self, pfn: Pfn, entries: impl FnOnce(Pfn, &mut Summing)) {
        let number = pfn.0 / BLOCK;
        let Some(slot) = place(number).and_then(|number| self.blocks.get(number)) else {
            return;
        };
        // Not exact where threads meet, and need not be.
        let asked = slot.asked.load(Ordering::Relaxed).saturating_add(1);
        slot.asked.store(asked, Ordering::Relaxed);
        if asked < WARM || self.tables.remaining() == 0 {
            return;
        }
        slot.tables.get_or_init(|| {
            let mut block = Summing::new();
            entries(Pfn(number * BLOCK), &mut block);
            block.tables.shrink_to_fit();
            // The block that exhausts the budget is kept: it is the last one.
            let _ = self.tables.spend(block.tables.len() as u64);
            let unknown = || AtomicU32::new(ASK);
            let extents = self.blocks.len() * EXTENTS;
            let all = self
                .summaries
                .get_or_init(|| std::iter::repeat_with(unknown).take(extents).collect());
            let own = place(number * EXTENTS as u64).and_then(|first| all.get(first..));
            // Whoever sees a summary before its table asks the P2M itself.
            for (slot, summary) in own.unwrap_or_default().iter().zip(&block.summaries) {
                slot.store(*summary, Ordering::Relaxed);
            }
            block.tables
        });
    }
}

/// Summaries, to look up many pfns in.
#[derive(Clone, Copy)]
pub(super) struct View<'p> {
    summaries: &'p [AtomicU32],
    blocks: &'p [Slot],
}

impl View<'_> {
    /// The summary of a pfn's extent; [`ASK`] where there is none.
    #[inline]
    pub(super) fn summary(&self, pfn: Pfn) -> u32 {
        place(pfn.0 >> EXTENT_SHIFT)
            .and_then(|extent| self.summaries.get(extent))
            .map_or(ASK, |summary| summary.load(Ordering::Relaxed))
    }

    /// The table of a pfn's extent, if its summary, this one, names one.
    #[inline]
    pub(super) fn table(&self, summary: u32, pfn: Pfn) -> Option<&Table> {
        let block = self.blocks.get(place(pfn.0 / BLOCK)?)?;
        let tables = block.tables.get()?;
        tables.get(summary.wrapping_sub(TABLE) as usize)
    }
}

#[inline]
fn place(number: u64) -> Option<usize> {
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(entries: &[u32]) -> (u32, Vec<u32>) {
        let packed = Packed::new(entries.len() as u64);
        for _ in 0..WARM {
            packed.ask(Pfn(3), |first, block| {
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
    fn a_summary_says_what_the_entries_say() {
        let rising: Vec<_> = (7000..7000 + EXTENT as u32).collect();
        let mut odd = rising.clone();
        odd[300] = INVALID;
        let high: Vec<_> = (TABLE - 4..).take(EXTENT).collect();
        let last: Vec<_> = (TABLE - 1 - EXTENT as u32..).take(EXTENT).collect();
        for (entries, expected) in [
            (rising.clone(), 7000),
            (odd, TABLE),
            (vec![IDENTITY; EXTENT], IDENTITY),
            (vec![ASK; EXTENT], ASK),
            // Frames that follow each other past the largest that a summary can name.
            (high, TABLE - 4),
            (last, TABLE - 1 - EXTENT as u32),
        ] {
            let (found, all) = packed(&entries);
            assert_eq!(found, expected);
            assert_eq!(all, entries);
        }
    }
}
