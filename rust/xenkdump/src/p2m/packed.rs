//! Summaries of a P2M, a few bytes for each extent of 2 MiB.
//!
//! The P2M's own pages are scattered over the guest's memory: a random lookup costs a search for the
//! page, a TLB miss, and a word of 8 bytes to decode. Parts with many lookups are summarized. Xen
//! allocates memory by 2 MiB and more if it can, so most extents are described by their first mfn: a
//! guest of 64 GiB takes 128 KiB, which fits in the processor's caches. Extents of scattered frames
//! have 4 bytes for each pfn, in a table of the whole P2M of which only these parts take memory. If
//! most extents are such, or if the table is small, it has all entries, and lookups need no summary.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::OnceLock;

use super::gather::{self, Sink, Source, EXTENT, EXTENT_SHIFT, KINDS, LOOK_UP, SPECIAL, TABLE};
use super::pool::Pool;
use super::{Entry, Special};
use crate::addr::{Mfn, Pfn};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::{MAX_SUMMARIZED_PAGES, MAX_SUMMARY_TABLES};
use crate::status::Status;

/// Extents and pfns of a block: 2 GiB of memory.
const EXTENTS: usize = 1 << 10;
pub(super) const BLOCK: u64 = (EXTENT * EXTENTS) as u64;
/// The number of lookups in a block before it is summarized. They cost about as much as the summary.
const WARM: u32 = 1024;
/// Extents of a P2M whose table of all entries fits in the processor's second-level cache: 1 GiB of
/// memory, 1 MiB of entries.
const SMALL: usize = 512;
/// The number of pfns that are looked for in one extent.
const GROUP: usize = 128;
/// pfns are taken to be in sequence if the last one is less than this after the first.
const NEAR: u64 = 4096;

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
pub(super) const fn status(packed: u32) -> Option<Status> {
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

/// The statuses of the packed entries from [`SPECIAL`] on; that of [`LOOK_UP`] is unspecified.
pub(super) const STATUSES: [Status; KINDS] = {
    let mut statuses = [Status::Ok; KINDS];
    let mut kind = 0;
    while kind < KINDS {
        if let Some(status) = status(SPECIAL + kind as u32) {
            statuses[kind] = status;
        }
        kind += 1;
    }
    statuses
};

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

/// The packed entries of a block in order, while it is summarized.
#[derive(Debug)]
pub(super) struct Summary(Vec<u32>);

impl Summary {
    /// Adds the next entry.
    #[inline]
    pub(super) fn push(&mut self, entry: u32) {
        // Allocated for a whole block.
        if self.0.len() < EXTENT * EXTENTS {
            self.0.push(entry);
        }
    }
}

/// The first mfn of an extent of consecutive frames, or the special entry of all its pfns.
fn uniform(extent: &[u32; EXTENT]) -> Option<u32> {
    let [first, ..] = *extent;
    // Without an early exit, so that the loop is vectorized.
    // Bits in which entries differ from consecutive ones, and from the first.
    let (mut consecutive, mut same, mut expected) = (0, 0, first);
    for entry in extent {
        consecutive |= entry ^ expected;
        same |= entry ^ first;
        expected = expected.wrapping_add(1);
    }
    let uniform = (first < TABLE && consecutive == 0) || (first >= SPECIAL && same == 0);
    uniform.then_some(first)
}

/// The summaries of a P2M, built for blocks with many lookups.
#[derive(Debug)]
pub(super) struct Packed {
    /// Number of extents.
    extents: usize,
    /// Allocated with the first block.
    index: OnceLock<Index>,
    blocks: Box<[Slot]>,
    tables: Budget<'static>,
    /// Blocks whose entries are all in the table, and extents that are not uniform.
    whole_blocks: AtomicUsize,
    scattered: AtomicUsize,
    /// Whether lookups need only the table.
    is_flat: AtomicBool,
}

#[derive(Debug)]
struct Index {
    /// The summary of each extent.
    summaries: Box<[AtomicU32]>,
    /// The entries of all extents that have a table. `None` if the system has no memory.
    table: Option<Pool>,
}

#[derive(Debug, Default)]
struct Slot {
    summarized: OnceLock<()>,
    /// Lookups before it was summarized.
    lookups: AtomicU32,
}

impl Packed {
    /// For `pages` pfns.
    pub(super) fn new(pages: u64) -> Self {
        let pages = pages.min(MAX_SUMMARIZED_PAGES);
        let count = to_index(pages.div_ceil(BLOCK)).unwrap_or(0);
        Self {
            extents: to_index(pages.div_ceil(EXTENT as u64)).unwrap_or(0),
            index: OnceLock::new(),
            blocks: alloc::collect((0..count).map(|_| Slot::default())).into_boxed_slice(),
            tables: Budget::new("P2M summary tables", MAX_SUMMARY_TABLES),
            whole_blocks: AtomicUsize::new(0),
            scattered: AtomicUsize::new(0),
            is_flat: AtomicBool::new(false),
        }
    }

    /// A view of the summaries, including those added later.
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        let index = self.index.get();
        let table = index.and_then(|index| index.table.as_ref());
        View {
            summaries: index.map_or(&[], |index| &index.summaries),
            table: table.map_or(&[], Pool::numbers),
            is_flat: self.is_flat.load(Ordering::Acquire),
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
        slot.summarized.get_or_init(|| {
            let mut block = Summary(alloc::with_capacity(EXTENT * EXTENTS));
            entries(Pfn(number * BLOCK), &mut block);
            self.publish(number as usize * EXTENTS, &block.0);
        });
    }

    /// Sets the summaries of a block from its entries. `first` is the number of its first extent.
    fn publish(&self, first: usize, entries: &[u32]) {
        let index = self.index.get_or_init(|| {
            let unknown = || AtomicU32::new(LOOK_UP);
            let summaries = std::iter::repeat_with(unknown).take(self.extents);
            Index {
                summaries: alloc::collect(summaries).into_boxed_slice(),
                table: Pool::new(self.extents * EXTENT),
            }
        });
        let summaries = index.summaries.get(first..).unwrap_or_default();
        let extents = entries.as_chunks().0;
        let count = extents.len().min(summaries.len());
        let found = extents.iter().take(count);
        let scattered = found.filter(|extent| uniform(extent).is_none()).count();
        let pool = index.table.as_ref();
        let is_small = self.extents <= SMALL;
        // Then little more memory is taken by the entries of all extents, in huge pages.
        let is_whole = is_small || scattered >= count.div_ceil(4);
        // Without huge pages a table may be alone in its page, which has space for two.
        let cost = if is_whole { count } else { 2 * scattered };
        // The block that exhausts the budget is kept: it is the last one.
        let _ = self.tables.spend(cost as u64);
        if let Some(pool) = pool.filter(|_| is_whole) {
            pool.use_huge_pages(first * EXTENT, count * EXTENT);
        }
        let table = pool.map_or(&[][..], Pool::numbers);
        let rest = table.get(first * EXTENT..).unwrap_or_default();
        let mut slots = rest.as_chunks::<EXTENT>().0.iter();
        for (extent, summary) in extents.iter().zip(summaries) {
            let (uniform, slot) = (uniform(extent), slots.next());
            if let Some(slot) = slot.filter(|_| is_whole || uniform.is_none()) {
                for (slot, entry) in slot.iter().zip(extent) {
                    slot.store(*entry, Ordering::Relaxed);
                }
            }
            let has_table = slot.is_some();
            let value = uniform.unwrap_or(if has_table { TABLE } else { LOOK_UP });
            // After the table, for threads that read it.
            summary.store(value, Ordering::Release);
        }
        if !is_whole || pool.is_none() {
            return;
        }
        let scattered = scattered + self.scattered.fetch_add(scattered, Ordering::AcqRel);
        let whole = 1 + self.whole_blocks.fetch_add(1, Ordering::AcqRel);
        // Summaries save a cache miss for each pfn of a uniform extent, and cost one lookup more.
        if whole == self.blocks.len() && (is_small || scattered >= self.extents / 4 * 3) {
            self.is_flat.store(true, Ordering::Release);
        }
    }
}

/// Summaries, for lookups.
#[derive(Clone, Copy)]
pub(super) struct View<'p> {
    summaries: &'p [AtomicU32],
    table: &'p [AtomicU32],
    is_flat: bool,
}

impl View<'_> {
    /// Writes the packed entry of each pfn to `out`, and returns the largest entry. `pfns` must not be
    /// shorter than `out`, and may be longer: the rest are those that are looked up next.
    #[inline]
    pub(super) fn resolve<I: Source, O: Sink>(self, pfns: &[I], out: &[O]) -> u32 {
        let (all, pfns) = (pfns, pfns.get(..out.len()).unwrap_or_default());
        let (Some(first), Some(last)) = (pfns.first(), pfns.last()) else {
            return 0;
        };
        let first = first.get();
        let is_near = last.get().wrapping_sub(first) < NEAR;
        // Those of a sequence are mostly in extents of consecutive frames, for which no entry is read.
        if self.is_flat && !(is_near && self.summary(Pfn(first)) < TABLE) {
            return if is_near || self.table.len() <= SMALL * EXTENT {
                gather::flat(self.table, Pfn(0), pfns, out)
            } else {
                gather::far(self.table, all, out)
            };
        }
        let groups = pfns.chunks(GROUP).zip(out.chunks(GROUP));
        groups.fold(0, |worst, (pfns, out)| {
            worst.max(self.by_summary(pfns, out))
        })
    }

    /// [`View::resolve`] with mfns, or [`NONE`](crate::status::NONE), and statuses in place of packed
    /// entries. Those whose entry is [`LOOK_UP`] are unspecified.
    #[inline]
    pub(super) fn decoded<I: Source, O: Sink>(
        self,
        pfns: &[I],
        out: &[O],
        statuses: &mut [Status],
    ) -> u32 {
        let group = pfns.get(..out.len()).unwrap_or_default();
        if self.is_flat && self.table.len() <= SMALL * EXTENT {
            return gather::decoded(self.table, Pfn(0), (group, out), statuses, &STATUSES);
        }
        let mut rest = pfns;
        let groups = out.chunks(GROUP).zip(statuses.chunks_mut(GROUP));
        groups.fold(0, |worst, (out, statuses)| {
            let pfns = rest;
            rest = rest.get(out.len()..).unwrap_or_default();
            worst.max(self.decoded_group(pfns, out, statuses))
        })
    }

    /// [`View::decoded`] of a few pfns.
    #[inline]
    fn decoded_group<I: Source, O: Sink>(
        self,
        pfns: &[I],
        out: &[O],
        statuses: &mut [Status],
    ) -> u32 {
        let group = pfns.get(..out.len()).unwrap_or_default();
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return 0;
        };
        let first = Pfn(first.get());
        let is_scattered = (TABLE..SPECIAL).contains(&self.summary(first));
        if one_extent(first.0 ^ last.get()) && is_scattered {
            let (start, table) = self.extent(first);
            let worst = gather::decoded(table, start, (group, out), statuses, &STATUSES);
            if worst != LOOK_UP {
                return worst;
            }
        }
        let mut entries = [Mfn(0); GROUP];
        let entries = Cell::from_mut(entries.as_mut_slice()).as_slice_of_cells();
        let entries = entries.get(..out.len()).unwrap_or_default();
        let worst = self.resolve(pfns, entries);
        gather::decode(entries, out, statuses, &STATUSES);
        worst
    }

    /// The first pfn of a pfn's extent, and its entries in the table.
    #[inline]
    fn extent(&self, pfn: Pfn) -> (Pfn, &[AtomicU32]) {
        let start = pfn.0 - within(pfn);
        let table = to_index(start).and_then(|start| self.table.get(start..));
        let table = table.and_then(|table| table.get(..EXTENT));
        (Pfn(start), table.unwrap_or_default())
    }

    /// [`View::resolve`] of a few pfns by the summaries of their extents.
    #[inline]
    fn by_summary<I: Source, O: Sink>(self, pfns: &[I], out: &[O]) -> u32 {
        let (Some(first), Some(last)) = (pfns.first(), pfns.last()) else {
            return 0;
        };
        // Check the last pfn first: it rejects most scattered groups.
        let first = Pfn(first.get());
        if one_extent(first.0 ^ last.get()) {
            let summary = self.summary(first);
            if summary < TABLE {
                if consecutive(Mfn(summary.into()), first, pfns, out) {
                    return 0;
                }
            } else if summary < SPECIAL {
                let (start, table) = self.extent(first);
                let worst = gather::flat(table, start, pfns, out);
                if worst != LOOK_UP {
                    return worst;
                }
            }
        }
        gather::summarized(self.summaries, self.table, pfns, out)
    }

    /// The summary of a pfn's extent; [`LOOK_UP`] if there is none.
    #[inline]
    fn summary(self, pfn: Pfn) -> u32 {
        to_index(pfn.0 >> EXTENT_SHIFT)
            .and_then(|extent| self.summaries.get(extent))
            .map_or(LOOK_UP, |summary| summary.load(Ordering::Acquire))
    }
}

/// Resolves pfns in an extent of consecutive frames from `mfn` on. False if one is elsewhere, and `out`
/// is unspecified. `pfn` is any pfn of the extent.
#[inline]
fn consecutive<I: Source, O: Sink>(mfn: Mfn, pfn: Pfn, pfns: &[I], out: &[O]) -> bool {
    let distance = mfn.0.wrapping_add(within(pfn)).wrapping_sub(pfn.0);
    let different = gather::consecutive(distance, pfn, pfns, out);
    one_extent(different)
}

#[inline]
fn to_index(number: u64) -> Option<usize> {
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::NONE;

    fn summarize(packed: &Packed, entries: &[u32]) {
        for _ in 0..WARM {
            packed.count_lookup(Pfn(3), |first, block| {
                assert_eq!(first, Pfn(0));
                entries.iter().for_each(|entry| block.push(*entry));
            });
        }
    }

    fn packed(entries: &[u32]) -> (u32, Vec<u32>) {
        let packed = Packed::new(entries.len() as u64);
        summarize(&packed, entries);
        let view = packed.view();
        let pfns: Vec<_> = (0..entries.len() as u64).map(Pfn).collect();
        assert!(view.is_flat, "the table is small");
        let by_flat = all(view, &pfns);
        let is_flat = false;
        assert_eq!(by_flat, all(View { is_flat, ..view }, &pfns));
        (view.summary(Pfn(0)), by_flat)
    }

    fn all(view: View<'_>, pfns: &[Pfn]) -> Vec<u32> {
        let mut out = vec![Mfn(0); pfns.len()];
        let cells = Cell::from_mut(out.as_mut_slice()).as_slice_of_cells();
        let worst = view.resolve(pfns, cells);
        let out: Vec<_> = out.iter().map(|mfn| mfn.0 as u32).collect();
        assert!(worst < SPECIAL || out.contains(&worst));
        assert_eq!(worst >= SPECIAL, out.iter().any(|entry| *entry >= SPECIAL));
        compare_decoded(view, pfns, &out);
        out
    }

    /// Also of fewer than all pfns, of which the rest are looked up next.
    fn compare_decoded(view: View<'_>, pfns: &[Pfn], entries: &[u32]) {
        for count in [pfns.len(), pfns.len() / 2, 300, 9, 1, 0] {
            let (mut out, mut statuses) = (vec![Mfn(7); count], vec![Status::Io; count]);
            let cells = Cell::from_mut(out.as_mut_slice()).as_slice_of_cells();
            let worst = view.decoded(pfns, cells, &mut statuses);
            assert_eq!(
                worst >= SPECIAL,
                entries[..count].iter().any(|e| *e >= SPECIAL)
            );
            for ((entry, mfn), found) in entries.iter().zip(out).zip(statuses) {
                match status(*entry) {
                    _ if *entry == LOOK_UP => assert_eq!(worst, LOOK_UP),
                    None => assert_eq!((mfn, found), (Mfn((*entry).into()), Status::Ok)),
                    Some(status) => assert_eq!((mfn, found), (Mfn(NONE), status)),
                }
            }
        }
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
