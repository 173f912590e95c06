//! The least that a lookup of many pfns can do: no checks, no statuses, a table made in advance.
//!
//! `benches/floors.py` calls these functions with numpy's arrays. Each processes a list in batches, all
//! of which write to the same results, as the calls that are compared with it do.

/// The entries of a table that is larger than a second-level cache, and has to be prefetched: the same
/// limit as that of the package's own tables.
const LARGE: usize = 1 << 18;
/// Lookups between a prefetch and its load.
const AHEAD: usize = 64;

/// Looks up `count` pfns in a table of `entries` numbers of 32 bits, and writes numbers of 64 bits.
///
/// # Safety
///
/// Each of the pfns must be less than `entries`, and `out` have space for `batch` numbers.
#[no_mangle]
pub unsafe extern "C" fn gather(
    table: *const u32,
    entries: usize,
    pfns: *const u64,
    count: usize,
    batch: usize,
    out: *mut u64,
) {
    // SAFETY: the caller's promise.
    let (table, pfns, out) = unsafe {
        (
            std::slice::from_raw_parts(table, entries),
            std::slice::from_raw_parts(pfns, count),
            std::slice::from_raw_parts_mut(out, batch),
        )
    };
    for first in (0..count).step_by(batch) {
        let rest = &pfns[first..];
        let len = batch.min(rest.len());
        // SAFETY: the pfns are less than the length of the table.
        unsafe { lookups(table, rest, &mut out[..len]) };
    }
}

/// # Safety
///
/// The pfns must be less than the length of the table, and there must be one for each result.
#[cfg(target_arch = "x86_64")]
unsafe fn lookups(table: &[u32], pfns: &[u64], out: &mut [u64]) {
    // SAFETY: the caller's promise, and the processor has the instructions.
    unsafe {
        if table.len() > LARGE {
            prefetched(table, pfns, out);
        } else if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            vectors(table, pfns, out);
        } else {
            one_by_one(table, pfns, out);
        }
    }
}

/// # Safety
///
/// As for [`lookups`].
#[cfg(not(target_arch = "x86_64"))]
unsafe fn lookups(table: &[u32], pfns: &[u64], out: &mut [u64]) {
    // SAFETY: the caller's promise.
    unsafe { one_by_one(table, pfns, out) };
}

unsafe fn one_by_one(table: &[u32], pfns: &[u64], out: &mut [u64]) {
    for (pfn, out) in pfns.iter().zip(out) {
        // SAFETY: the caller's promise.
        *out = unsafe { *table.get_unchecked(*pfn as usize) }.into();
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn prefetched(table: &[u32], pfns: &[u64], out: &mut [u64]) {
    use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T1};
    let whole = out.len().min(pfns.len().saturating_sub(AHEAD));
    for i in 0..whole {
        // SAFETY: `i + AHEAD` is less than the number of pfns; a prefetch accesses no memory. The rest is
        // the caller's promise.
        unsafe {
            let next = *pfns.get_unchecked(i + AHEAD) as usize;
            _mm_prefetch(table.as_ptr().wrapping_add(next).cast(), _MM_HINT_T1);
            let pfn = *pfns.get_unchecked(i) as usize;
            *out.get_unchecked_mut(i) = (*table.get_unchecked(pfn)).into();
        }
    }
    // SAFETY: the caller's promise.
    unsafe { one_by_one(table, &pfns[whole..], &mut out[whole..]) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn vectors(table: &[u32], pfns: &[u64], out: &mut [u64]) {
    use std::arch::x86_64::{
        _mm512_cvtepu32_epi64, _mm512_i64gather_epi32, _mm512_loadu_epi64, _mm512_storeu_epi64,
    };
    let whole = out.len() / 8 * 8;
    for i in (0..whole).step_by(8) {
        // SAFETY: there are eight pfns and results from `i` on. The rest is the caller's promise.
        unsafe {
            let pfns = _mm512_loadu_epi64(pfns.as_ptr().add(i).cast());
            let entries = _mm512_i64gather_epi32::<4>(pfns, table.as_ptr().cast());
            _mm512_storeu_epi64(out.as_mut_ptr().add(i).cast(), _mm512_cvtepu32_epi64(entries));
        }
    }
    // SAFETY: the caller's promise.
    unsafe { one_by_one(table, &pfns[whole..], &mut out[whole..]) };
}

/// Copies `count` pfns to the results of each batch.
///
/// # Safety
///
/// `out` must have space for `batch` numbers.
#[no_mangle]
pub unsafe extern "C" fn copy(pfns: *const u64, count: usize, batch: usize, out: *mut u64) {
    for first in (0..count).step_by(batch) {
        let len = batch.min(count - first);
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(pfns.add(first), out, len) };
    }
}
