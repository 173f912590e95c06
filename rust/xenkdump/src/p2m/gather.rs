//! Looks up many pfns in tables of 32-bit entries.
//!
//! Eight at a time, where the processor has AVX-512 and its gathers are fast; else one by one.
//!
//! Other threads may write to both kinds of array during the call: pfns and results are memory of
//! Python, and tables grow while they are in use. So all access is atomic. Rust has no atomic access by
//! vectors; the processor's manual specifies the access of the instructions below. The assembly does what the functions for other processors do: it loads each pfn once,
//! compares that copy with the length of the table, loads the entry, and stores one result.

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

#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::arch::asm;
    use std::cell::Cell;
    use std::sync::atomic::AtomicU32;

    use super::{Sink, Source, EXTENT, EXTENT_SHIFT, KINDS, SPECIAL, TABLE};
    use crate::addr::{Mfn, Pfn};
    use crate::status::Status;

    /// The numbers in a vector.
    const LANES: usize = 8;

    /// Whether the processor has AVX-512, and gathers that are fast. Intel's are slow up to Ice Lake and
    /// Cooper Lake, where microcode mitigates Gather Data Sampling: none of them has both of the last
    /// two.
    #[inline]
    fn is_fast() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vpopcntdq")
            && is_x86_feature_detected!("avx512bf16")
    }

    /// The number of pfns and results that can be processed as whole vectors.
    #[inline]
    fn whole<I: Source, O: Sink>(pfns: &[I], out: &[O]) -> usize {
        const { assert!(size_of::<I>() == 8 && size_of::<O>() == 8) };
        if is_fast() {
            pfns.len().min(out.len()) / LANES * LANES
        } else {
            0
        }
    }

    /// As [`super::flat`], for some of the first pfns: their number, and the largest entry.
    #[inline(always)]
    pub(super) fn flat<I: Source, O: Sink>(
        table: &[AtomicU32],
        start: Pfn,
        pfns: &[I],
        out: &[O],
    ) -> (usize, u32) {
        let count = whole(pfns, out);
        if count == 0 {
            return (0, 0);
        }
        let mut worst = 0_u32;
        // SAFETY: the processor has AVX-512F and VL. `count` is a multiple of LANES and not 0, and at
        // most the length of `pfns` and `out`, whose elements have 8 bytes. Entries are loaded by lanes
        // in `k1` only, whose index is less than the length of the table. Nothing else is accessed. The
        // module has why access is atomic. `out` is not `&mut`, but a Sink permits writing.
        unsafe {
            asm!(
                "vpbroadcastq zmm4, {start}",
                "vpbroadcastq zmm5, {len}",
                // LOOK_UP, of which all bits are set. It is copied, because an instruction that sets all
                // bits would wait for the last result.
                "vpcmpeqd ymm7, ymm7, ymm7",
                "vpxor xmm6, xmm6, xmm6",
                "2:",
                "vmovdqu64 zmm0, [{pfns} + {i} * 8]",
                "vpsubq zmm0, zmm0, zmm4",
                "vpcmpltuq k1, zmm0, zmm5",
                "vmovdqa ymm1, ymm7",
                "vpgatherqd ymm1 {{k1}}, [{table} + zmm0 * 4]",
                "vpmaxud ymm6, ymm6, ymm1",
                "vpmovzxdq zmm2, ymm1",
                "vmovdqu64 [{out} + {i} * 8], zmm2",
                "add {i}, 8",
                "cmp {i}, {count}",
                "jb 2b",
                // The largest of the lanes.
                "vextracti128 xmm0, ymm6, 1",
                "vpmaxud xmm6, xmm6, xmm0",
                "vpshufd xmm0, xmm6, 0x4e",
                "vpmaxud xmm6, xmm6, xmm0",
                "vpshufd xmm0, xmm6, 0xb1",
                "vpmaxud xmm6, xmm6, xmm0",
                "vmovd {worst:e}, xmm6",
                "vzeroupper",
                start = in(reg) start.0,
                len = in(reg) table.len(),
                table = in(reg) table.as_ptr(),
                pfns = in(reg) pfns.as_ptr(),
                out = in(reg) out.as_ptr(),
                count = in(reg) count,
                i = inout(reg) 0_usize => _,
                worst = out(reg) worst,
                out("k1") _,
                // All that vzeroupper changes, not only those that are used.
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
                out("xmm15") _,
                options(nostack),
            );
        }
        (count, worst)
    }

    /// As [`super::summarized`], for some of the first pfns: their number, and the largest entry.
    #[inline(always)]
    pub(super) fn summarized<I: Source, O: Sink>(
        summaries: &[AtomicU32],
        table: &[AtomicU32],
        pfns: &[I],
        out: &[O],
    ) -> (usize, u32) {
        let count = whole(pfns, out);
        // Then each pfn of a summary has a place in the table.
        let is_complete = table.len() / EXTENT >= summaries.len();
        if count == 0 || !is_complete {
            return (0, 0);
        }
        let mut worst = 0_u32;
        // SAFETY: as above. Summaries are loaded by lanes in `k1`, whose extent has one. Entries are
        // loaded by lanes in `k3`, which is a part of `k1`: the others have all bits set in `ymm1`, which
        // is not less than SPECIAL. So their pfn is less than the length of the table.
        unsafe {
            asm!(
                "vpbroadcastq zmm4, {summaries_len}",
                "vpbroadcastd ymm5, {table_mark:e}",
                "vpbroadcastd ymm7, {special:e}",
                "vpcmpeqd ymm8, ymm8, ymm8",
                "vpxor xmm6, xmm6, xmm6",
                "2:",
                "vmovdqu64 zmm0, [{pfns} + {i} * 8]",
                "vpsrlq zmm2, zmm0, {extent_shift}",
                "vpcmpltuq k1, zmm2, zmm4",
                "vmovdqa ymm1, ymm8",
                "vpgatherqd ymm1 {{k1}}, [{summaries} + zmm2 * 4]",
                // The index in the extent.
                "vpmovqd ymm3, zmm0",
                "vpslld ymm3, ymm3, 32 - {extent_shift}",
                "vpsrld ymm3, ymm3, 32 - {extent_shift}",
                // Extents of consecutive frames, and those with a table.
                "vpcmpltud k2, ymm1, ymm5",
                "vpcmpltud k3, ymm1, ymm7",
                "kandnw k3, k2, k3",
                "vpaddd ymm1 {{k2}}, ymm1, ymm3",
                // Without a mask of lanes, which is slower; the other lanes load the first entry.
                "kortestw k3, k3",
                "jz 3f",
                "vmovdqa64 zmm0 {{k3}} {{z}}, zmm0",
                "kxnorw k1, k1, k1",
                "vpgatherqd ymm3 {{k1}}, [{table} + zmm0 * 4]",
                "vmovdqa32 ymm1 {{k3}}, ymm3",
                "3:",
                "vpmaxud ymm6, ymm6, ymm1",
                "vpmovzxdq zmm2, ymm1",
                "vmovdqu64 [{out} + {i} * 8], zmm2",
                "add {i}, 8",
                "cmp {i}, {count}",
                "jb 2b",
                "vextracti128 xmm0, ymm6, 1",
                "vpmaxud xmm6, xmm6, xmm0",
                "vpshufd xmm0, xmm6, 0x4e",
                "vpmaxud xmm6, xmm6, xmm0",
                "vpshufd xmm0, xmm6, 0xb1",
                "vpmaxud xmm6, xmm6, xmm0",
                "vmovd {worst:e}, xmm6",
                "vzeroupper",
                extent_shift = const EXTENT_SHIFT,
                summaries_len = in(reg) summaries.len(),
                table_mark = in(reg) TABLE,
                special = in(reg) SPECIAL,
                summaries = in(reg) summaries.as_ptr(),
                table = in(reg) table.as_ptr(),
                pfns = in(reg) pfns.as_ptr(),
                out = in(reg) out.as_ptr(),
                count = in(reg) count,
                i = inout(reg) 0_usize => _,
                worst = out(reg) worst,
                out("k1") _, out("k2") _, out("k3") _,
                // As in `flat`.
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
                out("xmm15") _,
                options(nostack),
            );
        }
        (count, worst)
    }

    /// How many pfns ahead an entry is prefetched.
    const AHEAD: usize = 64;

    /// As [`super::flat`] from pfn 0, for some of the first pfns. Entries are prefetched: gathers are
    /// slower if most of their lanes miss the caches. To the second-level cache, because that can wait
    /// for more lines at once than the first: 48 instead of 16 on Sapphire Rapids.
    #[inline]
    pub(super) fn far<I: Source, O: Sink>(
        table: &[AtomicU32],
        pfns: &[I],
        out: &[O],
    ) -> (usize, u32) {
        const { assert!(size_of::<I>() == 8 && size_of::<O>() == 8) };
        let count = out.len().min(pfns.len().saturating_sub(AHEAD));
        if count == 0 {
            return (0, 0);
        }
        let mut worst = 0_u32;
        // SAFETY: `count` is not 0, at most the length of `out`, and at least AHEAD less than that of
        // `pfns`; their elements have 8 bytes. Entries are loaded if their index is less than the length
        // of the table. A prefetch of any address is allowed. For the rest see `flat`.
        unsafe {
            asm!(
                "2:",
                "mov {pfn}, [{pfns} + {i} * 8 + {ahead} * 8]",
                "prefetcht1 [{table} + {pfn} * 4]",
                "mov {pfn}, [{pfns} + {i} * 8]",
                // LOOK_UP.
                "mov {entry:e}, -1",
                "cmp {pfn}, {len}",
                "jae 3f",
                "mov {entry:e}, [{table} + {pfn} * 4]",
                "3:",
                "mov [{out} + {i} * 8], {entry}",
                "cmp {worst:e}, {entry:e}",
                "cmovb {worst:e}, {entry:e}",
                "inc {i}",
                "cmp {i}, {count}",
                "jb 2b",
                ahead = const AHEAD,
                len = in(reg) table.len(),
                table = in(reg) table.as_ptr(),
                pfns = in(reg) pfns.as_ptr(),
                out = in(reg) out.as_ptr(),
                count = in(reg) count,
                i = inout(reg) 0_usize => _,
                pfn = out(reg) _,
                entry = out(reg) _,
                worst = inout(reg) worst,
                options(nostack),
            );
        }
        (count, worst)
    }

    /// As [`super::decoded`], for some of the first pfns: their number, and the largest entry.
    #[inline(always)]
    pub(super) fn decoded<I: Source, O: Sink>(
        table: &[AtomicU32],
        start: Pfn,
        (pfns, out): (&[I], &[O]),
        statuses: &mut [Status],
        kinds: &[Status; KINDS],
    ) -> (usize, u32) {
        const { assert!(size_of::<Status>() == 1 && KINDS == 16) };
        let count = whole(pfns, out).min(statuses.len() / LANES * LANES);
        if count == 0 {
            return (0, 0);
        }
        let mut worst = 0_u32;
        // SAFETY: as for `flat` and `decode`.
        unsafe {
            asm!(
                "vpbroadcastq zmm4, {start}",
                "vpbroadcastq zmm5, {len}",
                "vpternlogd zmm7, zmm7, zmm7, 0xff",
                "vpxor xmm6, xmm6, xmm6",
                "vpmovzxbd zmm8, [{kinds}]",
                "vpbroadcastd ymm9, {special:e}",
                "2:",
                "vmovdqu64 zmm0, [{pfns} + {i} * 8]",
                "vpsubq zmm0, zmm0, zmm4",
                "vpcmpltuq k1, zmm0, zmm5",
                "vmovdqa ymm1, ymm7",
                "vpgatherqd ymm1 {{k1}}, [{table} + zmm0 * 4]",
                "vpmaxud ymm6, ymm6, ymm1",
                "vpcmpud k2, ymm1, ymm9, 5",
                "vpmovzxdq zmm2, ymm1",
                "vpermd zmm3 {{k2}} {{z}}, zmm1, zmm8",
                "vmovdqa64 zmm2 {{k2}}, zmm7",
                "vpmovdb xmm3, ymm3",
                "vmovdqu64 [{out} + {i} * 8], zmm2",
                "vmovq [{statuses} + {i}], xmm3",
                "add {i}, 8",
                "cmp {i}, {count}",
                "jb 2b",
                "vextracti128 xmm0, ymm6, 1",
                "vpmaxud xmm6, xmm6, xmm0",
                "vpshufd xmm0, xmm6, 0x4e",
                "vpmaxud xmm6, xmm6, xmm0",
                "vpshufd xmm0, xmm6, 0xb1",
                "vpmaxud xmm6, xmm6, xmm0",
                "vmovd {worst:e}, xmm6",
                "vzeroupper",
                kinds = in(reg) kinds.as_ptr(),
                special = in(reg) SPECIAL,
                start = in(reg) start.0,
                len = in(reg) table.len(),
                table = in(reg) table.as_ptr(),
                pfns = in(reg) pfns.as_ptr(),
                out = in(reg) out.as_ptr(),
                statuses = in(reg) statuses.as_mut_ptr(),
                count = in(reg) count,
                i = inout(reg) 0_usize => _,
                worst = lateout(reg) worst,
                out("k1") _, out("k2") _,
                // As in `flat`.
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
                out("xmm15") _,
                options(nostack),
            );
        }
        (count, worst)
    }

    /// As [`super::decode`], for some of the first entries: their number.
    #[inline(always)]
    pub(super) fn decode<O: Sink>(
        entries: &[Cell<Mfn>],
        out: &[O],
        statuses: &mut [Status],
        kinds: &[Status; KINDS],
    ) -> usize {
        const { assert!(size_of::<Status>() == 1 && size_of::<Cell<Mfn>>() == 8 && KINDS == 16) };
        const { assert!(size_of::<O>() == 8) };
        if !is_fast() {
            return 0;
        }
        let count = entries.len().min(out.len()).min(statuses.len()) / LANES * LANES;
        if count == 0 {
            return 0;
        }
        // SAFETY: the processor has AVX-512F and VL. `count` is a multiple of LANES and not 0, and at
        // most the length of the slices. `entries` and `out` have elements of 8 bytes, which may be
        // written, also if both are the same: eight are loaded, then stored. The bytes that are stored
        // in `statuses` are 0, which is a Status, and those of `kinds`: an index has 4 bits, and there
        // are 16 of them.
        unsafe {
            asm!(
                "vpmovzxbd zmm4, [{kinds}]",
                "vpbroadcastq zmm5, {special}",
                "vpternlogd zmm6, zmm6, zmm6, 0xff",
                "2:",
                "vmovdqu64 zmm0, [{entries} + {i} * 8]",
                "vpcmpuq k1, zmm0, zmm5, 5",
                // By the low bits of each entry; the upper halves are ignored.
                "vpermd zmm1, zmm0, zmm4",
                "vmovdqa64 zmm1 {{k1}} {{z}}, zmm1",
                "vmovdqa64 zmm0 {{k1}}, zmm6",
                "vpmovqb xmm1, zmm1",
                "vmovq [{statuses} + {i}], xmm1",
                "vmovdqu64 [{out} + {i} * 8], zmm0",
                "add {i}, 8",
                "cmp {i}, {count}",
                "jb 2b",
                "vzeroupper",
                kinds = in(reg) kinds.as_ptr(),
                special = in(reg) u64::from(SPECIAL),
                entries = in(reg) entries.as_ptr(),
                out = in(reg) out.as_ptr(),
                statuses = in(reg) statuses.as_mut_ptr(),
                count = in(reg) count,
                i = inout(reg) 0_usize => _,
                out("k1") _,
                // As in `flat`.
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
                out("xmm15") _,
                options(nostack),
            );
        }
        count
    }

    /// As [`super::consecutive`], for some of the first pfns: their number, and the bits.
    #[inline(always)]
    pub(super) fn consecutive<I: Source, O: Sink>(
        distance: u64,
        first: Pfn,
        pfns: &[I],
        out: &[O],
    ) -> (usize, u64) {
        let count = whole(pfns, out);
        if count == 0 {
            return (0, 0);
        }
        let mut different = 0_u64;
        // SAFETY: as for `flat`; there is no table.
        unsafe {
            asm!(
                "vpbroadcastq zmm4, {distance}",
                "vpbroadcastq zmm5, {first}",
                "vpxor xmm6, xmm6, xmm6",
                "2:",
                "vmovdqu64 zmm0, [{pfns} + {i} * 8]",
                "vpaddq zmm1, zmm0, zmm4",
                // different | (pfn ^ first)
                "vpternlogq zmm6, zmm0, zmm5, 0xf6",
                "vmovdqu64 [{out} + {i} * 8], zmm1",
                "add {i}, 8",
                "cmp {i}, {count}",
                "jb 2b",
                "vextracti64x4 ymm0, zmm6, 1",
                "vporq ymm6, ymm6, ymm0",
                "vextracti128 xmm0, ymm6, 1",
                "vpor xmm6, xmm6, xmm0",
                "vpshufd xmm0, xmm6, 0x4e",
                "vpor xmm6, xmm6, xmm0",
                "vmovq {different}, xmm6",
                "vzeroupper",
                distance = in(reg) distance,
                first = in(reg) first.0,
                pfns = in(reg) pfns.as_ptr(),
                out = in(reg) out.as_ptr(),
                count = in(reg) count,
                i = inout(reg) 0_usize => _,
                different = lateout(reg) different,
                // As in `flat`.
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
                out("xmm15") _,
                options(nostack),
            );
        }
        (count, different)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod vectors {
    use std::cell::Cell;
    use std::sync::atomic::AtomicU32;

    use super::{Sink, Source, KINDS};
    use crate::addr::{Mfn, Pfn};
    use crate::status::Status;

    pub(super) fn decoded<I: Source, O: Sink>(
        _: &[AtomicU32],
        _: Pfn,
        _: (&[I], &[O]),
        _: &mut [Status],
        _: &[Status; KINDS],
    ) -> (usize, u32) {
        (0, 0)
    }

    pub(super) fn decode<O: Sink>(
        _: &[Cell<Mfn>],
        _: &[O],
        _: &mut [Status],
        _: &[Status; KINDS],
    ) -> usize {
        0
    }

    pub(super) fn consecutive<I: Source, O: Sink>(
        _: u64,
        _: Pfn,
        _: &[I],
        _: &[O],
    ) -> (usize, u64) {
        (0, 0)
    }

    pub(super) fn flat<I: Source, O: Sink>(
        _: &[AtomicU32],
        _: Pfn,
        _: &[I],
        _: &[O],
    ) -> (usize, u32) {
        (0, 0)
    }

    pub(super) fn far<I: Source, O: Sink>(_: &[AtomicU32], _: &[I], _: &[O]) -> (usize, u32) {
        (0, 0)
    }

    pub(super) fn summarized<I: Source, O: Sink>(
        _: &[AtomicU32],
        _: &[AtomicU32],
        _: &[I],
        _: &[O],
    ) -> (usize, u32) {
        (0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(table: &[u32], index: u64) -> u32 {
        let entry = usize::try_from(index).ok().and_then(|i| table.get(i));
        entry.copied().unwrap_or(LOOK_UP)
    }

    fn atomic(numbers: &[u32]) -> Vec<AtomicU32> {
        numbers.iter().copied().map(AtomicU32::new).collect()
    }

    /// Numbers below 2000, and some that are out of range.
    fn pfns(count: u64) -> Vec<Pfn> {
        let far = [u64::MAX, 1 << 63, 1 << 32, 1 << 61];
        let near = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53;
        let all = (0..count).map(|i| match i % 61 {
            7 => far[i as usize % far.len()],
            _ => near(i).min(1999),
        });
        all.map(Pfn).collect()
    }

    fn compare(pfns: &[Pfn], want: impl Fn(u64) -> u32, run: impl Fn(&[Pfn], &[Cell<Mfn>]) -> u32) {
        for count in [0, 1, 7, 8, 9, 31, 32, 33, 40, 128, pfns.len()] {
            let pfns = &pfns[..count];
            let mut out = vec![Mfn(7); count];
            let worst = run(pfns, Cell::from_mut(out.as_mut_slice()).as_slice_of_cells());
            let wanted: Vec<_> = pfns.iter().map(|pfn| want(pfn.0)).collect();
            assert!(out
                .iter()
                .map(|mfn| mfn.0)
                .eq(wanted.iter().map(|e| u64::from(*e))));
            assert_eq!(worst, wanted.iter().copied().max().unwrap_or(0));
        }
    }

    #[test]
    fn lookups_agree_with_single_ones() {
        let pfns = pfns(1003);
        for len in [0, 1, 511, 1990, 2000] {
            let table: Vec<_> = (0..len).map(|i: u32| i.wrapping_mul(0x9e37_79b9)).collect();
            let shared = atomic(&table);
            compare(
                &pfns,
                |pfn| reference(&table, pfn),
                |pfns, out| flat(&shared, Pfn(0), pfns, out),
            );
            compare(
                &pfns,
                |pfn| reference(&table, pfn),
                |pfns, out| far(&shared, pfns, out),
            );
            let start = 300;
            compare(
                &pfns,
                |pfn| reference(&table, pfn.wrapping_sub(start)),
                |pfns, out| flat(&shared, Pfn(start), pfns, out),
            );
        }
    }

    #[test]
    fn entries_become_mfns_and_statuses() {
        let kinds: [Status; KINDS] = std::array::from_fn(|i| Status::ALL[i + 1]);
        let near = [0, 1, TABLE, SPECIAL - 1, 15, SPECIAL, LOOK_UP, SPECIAL + 7];
        for count in [0, 1, 7, 8, 9, 16, 100] {
            let entries: Vec<_> = (0..count)
                .map(|i: usize| match i % 3 {
                    0 => near[i / 3 % near.len()],
                    1 => SPECIAL + i as u32 % KINDS as u32,
                    _ => (i as u32).wrapping_mul(0x9e37_79b9),
                })
                .collect();
            let want = |entry: &u32| match entry.checked_sub(SPECIAL) {
                Some(kind) => (NONE, kinds[kind as usize]),
                None => (u64::from(*entry), Status::Ok),
            };
            let want: Vec<_> = entries.iter().map(want).collect();
            let cells = |entries: &[u32]| -> Vec<_> {
                let mfns = entries.iter().map(|entry| Cell::new(Mfn((*entry).into())));
                mfns.collect()
            };
            let (from, other) = (cells(&entries), cells(&vec![3; count]));
            let (table, first) = (atomic(&entries), 7_000);
            let pfns: Vec<_> = (first..).map(Pfn).take(count).collect();
            let (mfns, mut statuses) = (cells(&vec![3; count]), vec![Status::Io; count]);
            let worst = decoded(&table, Pfn(first), (&pfns, &mfns), &mut statuses, &kinds);
            assert_eq!(worst, entries.iter().copied().max().unwrap_or(0));
            let found = mfns.iter().map(|mfn| mfn.get().0).zip(statuses);
            assert!(found.eq(want.iter().copied()));
            // Elsewhere, and where they are.
            for out in [&other, &from] {
                let mut statuses = vec![Status::Io; count];
                decode(&from, out, &mut statuses, &kinds);
                let found = out.iter().map(|mfn| mfn.get().0).zip(statuses);
                assert!(found.eq(want.iter().copied()));
            }
        }
    }

    #[test]
    fn consecutive_frames_are_at_a_distance() {
        let first = Pfn(0x5678);
        for count in [0_usize, 1, 7, 8, 9, 20] {
            // The last one: no pfn is different.
            for odd in 0..=count {
                let mut pfns = vec![first; count];
                let mut want = 0;
                if let Some(pfn) = pfns.get_mut(odd) {
                    want = 1 << 63 | 1 << (odd + 9) | 1;
                    pfn.0 ^= want;
                }
                let out: Vec<_> = pfns.iter().map(|_| AtomicU64::new(5)).collect();
                assert_eq!(consecutive(u64::MAX - 2, first, &pfns, &out), want);
                let found = out.into_iter().map(AtomicU64::into_inner);
                assert!(found.eq(pfns.iter().map(|pfn| pfn.0.wrapping_sub(3))));
            }
        }
    }

    #[test]
    fn pfns_that_are_looked_up_next_have_no_result() {
        let table = atomic(&[4; 300]);
        let pfns = vec![Pfn(9); 300];
        for count in [0, 1, 200, 236, 237, 300] {
            let out: Vec<_> = (0..300).map(|_| AtomicU64::new(5)).collect();
            far(&table, &pfns, &out[..count]);
            let found = out.into_iter().map(AtomicU64::into_inner);
            let want = (0..300).map(|i| if i < count { 4 } else { 5 });
            assert!(found.eq(want));
        }
    }

    /// Makes a function that has eight vectors during a lookup and returns them doubled twice: the compiler
    /// keeps them in registers that the lookup does not change.
    #[cfg(target_arch = "x86_64")]
    macro_rules! beside {
        ($name:ident, $table:ident, $pfns:ident, $out:ident, $lookup:expr) => {
            #[target_feature(enable = "avx2")]
            fn $name(
                $table: &[AtomicU32],
                $pfns: &[Pfn],
                vectors: &[[u64; 4]; 8],
            ) -> [[u64; 4]; 8] {
                use std::arch::x86_64::{__m256i, _mm256_add_epi64};
                use std::mem::transmute;
                let mut entries = [Mfn(0); 64];
                let $out = Cell::from_mut(entries.as_mut_slice()).as_slice_of_cells();
                // SAFETY: any bits are numbers.
                let vectors = unsafe { transmute::<[[u64; 4]; 8], [__m256i; 8]>(*vectors) };
                let [a, b, c, d, e, f, g, h] = vectors;
                let twice = |vector| _mm256_add_epi64(vector, vector);
                let (a, b, c, d) = (twice(a), twice(b), twice(c), twice(d));
                let (e, f, g, h) = (twice(e), twice(f), twice(g), twice(h));
                $lookup;
                let (a, b, c, d) = (twice(a), twice(b), twice(c), twice(d));
                let (e, f, g, h) = (twice(e), twice(f), twice(g), twice(h));
                // SAFETY: as above.
                unsafe { transmute::<[__m256i; 8], [[u64; 4]; 8]>([a, b, c, d, e, f, g, h]) }
            }
        };
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn vectors_of_the_caller_are_kept() {
        beside!(by_table, table, pfns, out, {
            vectors::flat(table, Pfn(0), pfns, out)
        });
        beside!(by_summary, table, pfns, out, {
            vectors::summarized(&table[..1], table, pfns, out)
        });
        beside!(with_statuses, table, pfns, out, {
            vectors::decoded(
                table,
                Pfn(0),
                (pfns, out),
                &mut [Status::Ok; 64],
                &[Status::Io; KINDS],
            )
        });
        beside!(in_place, _table, _pfns, out, {
            vectors::decode(out, out, &mut [Status::Ok; 64], &[Status::Io; KINDS])
        });
        beside!(moved, _table, pfns, out, {
            vectors::consecutive(7, Pfn(0), pfns, out)
        });
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        let (table, pfns) = (atomic(&[5; EXTENT]), [Pfn(0); 64]);
        let numbers = |factor| std::array::from_fn(|i| [i as u64 * factor; 4]);
        // SAFETY: the processor has AVX2.
        let found = unsafe {
            [
                by_table(&table, &pfns, &numbers(1)),
                by_summary(&table, &pfns, &numbers(1)),
                with_statuses(&table, &pfns, &numbers(1)),
                in_place(&table, &pfns, &numbers(1)),
                moved(&table, &pfns, &numbers(1)),
            ]
        };
        assert_eq!(found, [numbers(4); 5]);
    }

    #[test]
    fn summaries_agree_with_single_lookups() {
        let pfns = pfns(1003);
        let table: Vec<_> = (0..4 * EXTENT as u32)
            .map(|i| i.wrapping_mul(0x9e37_79b9))
            .collect();
        for summaries in [
            &[][..],
            &[TABLE],
            &[7000, TABLE, 9],
            &[TABLE, 100, SPECIAL + 2, TABLE],
            &[TABLE - 600, LOOK_UP, TABLE, SPECIAL],
        ] {
            let want = |pfn: u64| match reference(summaries, pfn >> EXTENT_SHIFT) {
                first @ 0..TABLE => first + pfn as u32 % EXTENT as u32,
                TABLE => reference(&table, pfn),
                special => special,
            };
            let (summaries, table) = (atomic(summaries), atomic(&table));
            compare(&pfns, want, |pfns, out| {
                summarized(&summaries, &table, pfns, out)
            });
        }
        // Without a table for all of them.
        let short = atomic(&table[..700]);
        let want = |pfn: u64| match pfn {
            0..700 => table[pfn as usize],
            _ => LOOK_UP,
        };
        let summaries = atomic(&[TABLE, TABLE]);
        compare(&pfns, want, |pfns, out| {
            summarized(&summaries, &short, pfns, out)
        });
    }
}
