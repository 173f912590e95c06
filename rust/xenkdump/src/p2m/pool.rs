//! A table with 4 bytes for each pfn, of which only the parts in use take memory.

use std::ptr;
use std::slice;
use std::sync::atomic::AtomicU32;

#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::{MmapOptions, MmapRaw};

/// The size of a huge page.
const HUGE: usize = 2 << 20;

/// A table of numbers, initially all 0. It may be written while others read it.
#[derive(Debug)]
pub(super) struct Pool {
    map: MmapRaw,
    /// Offset of the first number: that of a huge page.
    at: usize,
    /// Number of numbers.
    len: usize,
}

impl Pool {
    /// Reserves address space for `len` numbers. `None` if the system has none.
    pub(super) fn new(len: usize) -> Option<Self> {
        // More than needed, so that it can start at a huge page; the rest is never touched.
        let size = len.checked_mul(size_of::<AtomicU32>())?.checked_add(HUGE)?;
        let mut options = MmapOptions::new();
        options.len(size).no_reserve_swap();
        let map = MmapRaw::from(options.map_anon().ok()?);
        let at = (map.as_ptr() as usize).wrapping_neg() % HUGE;
        Some(Self { map, at, len })
    }

    /// All numbers.
    #[inline]
    pub(super) fn numbers(&self) -> &[AtomicU32] {
        let first = self.map.as_mut_ptr().wrapping_add(self.at);
        // SAFETY: the mapping is private, anonymous, readable and writable, it is as long as `self`
        // lives, and its size is `at`, which is at most HUGE, and `len` numbers. `first` is aligned to
        // HUGE. All access is by this function, so it is atomic.
        unsafe { slice::from_raw_parts(ptr::from_ref(&*first.cast::<AtomicU32>()), self.len) }
    }

    /// Asks for huge pages for the numbers from `first` on. In small pages each random lookup would
    /// cost a TLB miss. A hint: without huge pages lookups are only slower.
    pub(super) fn use_huge_pages(&self, first: usize, count: usize) {
        #[cfg(target_os = "linux")]
        if first.checked_add(count).is_some_and(|end| end <= self.len) {
            let bytes = size_of::<AtomicU32>();
            let _ = self
                .map
                .advise_range(Advice::HugePage, self.at + first * bytes, count * bytes);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (first, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn unused_parts_take_no_memory() {
        // 256 GiB of address space.
        let pool = Pool::new(1 << 36).unwrap();
        let numbers = pool.numbers();
        assert_eq!(numbers.len(), 1 << 36);
        assert_eq!(numbers.as_ptr() as usize % HUGE, 0);
        pool.use_huge_pages(1 << 19, 1 << 19);
        pool.use_huge_pages(1 << 36, 1);
        for at in [0, (1 << 19) + 7, (1 << 36) - 1] {
            assert_eq!(numbers[at].load(Ordering::Relaxed), 0);
            numbers[at].store(3, Ordering::Relaxed);
            assert_eq!(pool.numbers()[at].load(Ordering::Relaxed), 3);
        }
        assert!(Pool::new(usize::MAX).is_none());
    }
}
