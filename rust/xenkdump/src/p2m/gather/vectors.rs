//! Lookups of eight pfns at a time, by the instructions of AVX-512.

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
pub(super) fn far<I: Source, O: Sink>(table: &[AtomicU32], pfns: &[I], out: &[O]) -> (usize, u32) {
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
