//! Looks up many pfns in tables of 32-bit entries.
//!
//! Eight at a time, where the processor has AVX-512 and its gathers are fast; else one by one.
//!
//! Other threads may write to both kinds of array during the call: pfns and results are memory of
//! Python, and tables grow while they are in use. So all access is atomic. Rust has no atomic access by
//! vectors; the processor's manual specifies the access of the instructions in `vectors.rs`. They do what
//! the functions of this file do: load each pfn once, compare that copy with the length of the table, load
//! the entry, and store one result.

#[cfg_attr(not(target_arch = "x86_64"), path = "without_vectors.rs")]
mod vectors;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::addr::{Mfn, Pfn};
use crate::status::{Status, NONE};

/// log2 of the pfns of an extent.
pub(super) const EXTENT_SHIFT: u32 = 9;
/// pfns of an extent: 2 MiB of memory.
pub(super) const EXTENT: usize = 1 << EXTENT_SHIFT;

/// Summaries below this are the first mfn of an extent of consecutive frames. This value marks
/// an extent whose entries are in the table.
pub(super) const TABLE: u32 = 1 << 31;
/// Summaries and table entries from here on are not frames; such a summary applies to the whole
/// extent.
pub(super) const SPECIAL: u32 = 0xffff_fff0;
/// To be looked up in the P2M itself: not summarized, or the mfn is too large to pack (on hosts with
/// more than 16 TiB).
pub(super) const LOOK_UP: u32 = u32::MAX;
/// The number of entries from [`SPECIAL`] on.
pub(super) const KINDS: usize = (LOOK_UP - SPECIAL) as usize + 1;

/// A number in memory, of the layout of u64.
pub(super) trait Source {
    /// Reads it once.
    fn get(&self) -> u64;
}

/// A number in memory that can be replaced, of the layout of u64.
pub(super) trait Sink {
    /// Replaces it.
    fn set(&self, number: u64);
}

impl Source for Pfn {
    #[inline]
    fn get(&self) -> u64 {
        self.0
    }
}

impl Source for AtomicU64 {
    #[inline]
    fn get(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }
}

impl Sink for Cell<Mfn> {
    #[inline]
    fn set(&self, number: u64) {
        Cell::set(self, Mfn(number));
    }
}

impl Sink for AtomicU64 {
    #[inline]
    fn set(&self, number: u64) {
        self.store(number, Ordering::Relaxed);
    }
}

/// Writes the entry of each pfn in `table`, whose first entry is that of pfn `start`, to `out`;
/// [`LOOK_UP`] for pfns that it does not have. Returns the largest entry. The slices must be of equal
/// length.
#[inline]
pub(super) fn flat<I: Source, O: Sink>(
    table: &[AtomicU32],
    start: Pfn,
    pfns: &[I],
    out: &[O],
) -> u32 {
    let (done, worst) = vectors::flat(table, start, pfns, out);
    let (pfns, out) = rest(pfns, out, done);
    worst.max(one_by_one(table, start, pfns, out))
}

/// The same from pfn 0, for a table that is larger than the caches and pfns that are far apart. `pfns`
/// may be longer than `out`: the rest are those that are looked up next, whose entries are prefetched.
#[inline]
pub(super) fn far<I: Source, O: Sink>(table: &[AtomicU32], pfns: &[I], out: &[O]) -> u32 {
    let (done, worst) = vectors::far(table, pfns, out);
    let (pfns, out) = rest(pfns, out, done);
    worst.max(one_by_one(table, Pfn(0), pfns, out))
}

#[inline]
fn one_by_one<I: Source, O: Sink>(table: &[AtomicU32], start: Pfn, pfns: &[I], out: &[O]) -> u32 {
    let mut worst = 0;
    for (pfn, out) in pfns.iter().zip(out) {
        let entry = at(table, pfn.get().wrapping_sub(start.0)).unwrap_or(LOOK_UP);
        worst = worst.max(entry);
        out.set(entry.into());
    }
    worst
}

/// The same by the summaries of extents: first mfns, or entries that are those of all pfns, or
/// [`TABLE`] for extents whose entries are in `table`.
#[inline]
pub(super) fn summarized<I: Source, O: Sink>(
    summaries: &[AtomicU32],
    table: &[AtomicU32],
    pfns: &[I],
    out: &[O],
) -> u32 {
    let (done, mut worst) = vectors::summarized(summaries, table, pfns, out);
    let (pfns, out) = rest(pfns, out, done);
    for (pfn, out) in pfns.iter().zip(out) {
        let pfn = pfn.get();
        let entry = match at(summaries, pfn >> EXTENT_SHIFT).unwrap_or(LOOK_UP) {
            first @ 0..TABLE => first + pfn as u32 % EXTENT as u32,
            TABLE..SPECIAL => at(table, pfn).unwrap_or(LOOK_UP),
            special => special,
        };
        worst = worst.max(entry);
        out.set(entry.into());
    }
    worst
}

/// [`flat`] and [`decode`] in one.
#[inline]
pub(super) fn decoded<I: Source, O: Sink>(
    table: &[AtomicU32],
    start: Pfn,
    (pfns, out): (&[I], &[O]),
    statuses: &mut [Status],
    kinds: &[Status; KINDS],
) -> u32 {
    let (done, mut worst) = vectors::decoded(table, start, (pfns, out), statuses, kinds);
    let (pfns, out) = rest(pfns, out, done);
    let statuses = statuses.get_mut(done..).unwrap_or_default();
    for ((pfn, out), status) in pfns.iter().zip(out).zip(statuses) {
        let entry = at(table, pfn.get().wrapping_sub(start.0)).unwrap_or(LOOK_UP);
        worst = worst.max(entry);
        decode_one(entry.into(), out, status, kinds);
    }
    worst
}

#[inline]
fn decode_one<O: Sink>(entry: u64, out: &O, status: &mut Status, kinds: &[Status; KINDS]) {
    let kind = entry.checked_sub(SPECIAL.into());
    let kind = kind.and_then(|kind| kinds.get(usize::try_from(kind).ok()?));
    *status = kind.copied().unwrap_or_default();
    out.set(if kind.is_some() { NONE } else { entry });
}

/// Writes each pfn, plus a distance, to `out`. Returns the bits in which pfns differ from `first`. The
/// slices must be of equal length.
#[inline]
pub(super) fn consecutive<I: Source, O: Sink>(
    distance: u64,
    first: Pfn,
    pfns: &[I],
    out: &[O],
) -> u64 {
    let (done, mut different) = vectors::consecutive(distance, first, pfns, out);
    let (pfns, out) = rest(pfns, out, done);
    for (pfn, out) in pfns.iter().zip(out) {
        let pfn = pfn.get();
        different |= pfn ^ first.0;
        out.set(pfn.wrapping_add(distance));
    }
    different
}

/// Replaces entries by mfns, or [`NONE`], and writes their statuses: `kinds` has those from [`SPECIAL`] on.
/// The slices must be of equal length. `out` may be `entries`.
#[inline]
pub(super) fn decode<O: Sink>(
    entries: &[Cell<Mfn>],
    out: &[O],
    statuses: &mut [Status],
    kinds: &[Status; KINDS],
) {
    let done = vectors::decode(entries, out, statuses, kinds);
    let (entries, out) = rest(entries, out, done);
    let statuses = statuses.get_mut(done..).unwrap_or_default();
    for ((entry, out), status) in entries.iter().zip(out).zip(statuses) {
        decode_one(entry.get().0, out, status, kinds);
    }
}

/// Copies mfns.
#[inline]
pub(super) fn copy<O: Sink>(mfns: &[Cell<Mfn>], out: &[O]) {
    for (mfn, out) in mfns.iter().zip(out) {
        out.set(mfn.get().0);
    }
}

/// The entry at `index`.
#[inline]
fn at(table: &[AtomicU32], index: u64) -> Option<u32> {
    let entry = table.get(usize::try_from(index).ok()?)?;
    // A summary is written after the table of its extent.
    Some(entry.load(Ordering::Acquire))
}

#[inline]
fn rest<'s, I, O>(pfns: &'s [I], out: &'s [O], done: usize) -> (&'s [I], &'s [O]) {
    (
        pfns.get(done..).unwrap_or_default(),
        out.get(done..).unwrap_or_default(),
    )
}
