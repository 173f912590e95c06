//! A cache of decompressed pages, shared by threads.
//!
//! It is set-associative: the number of a page selects a set of [`WAYS`] pages, and each set has a lock
//! of its own. So threads rarely meet, a look-up needs no hash table, and memory is bounded by the
//! number of sets.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::addr::{Pfn, PAGE_SIZE};
use crate::memory::Page;

/// Pages of a set.
const WAYS: usize = 8;

/// Decompressed pages by number, within a budget of memory.
#[derive(Debug)]
pub(super) struct PageCache {
    count: usize,
    /// Allocated with the first page.
    sets: OnceLock<Box<[Mutex<Set>]>>,
}

/// How likely a page is to be read again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A part of it was read: other parts may follow.
    Part,
    /// All of it was read, perhaps by a scan of all memory. It is the first to go.
    Whole,
}

#[derive(Debug, Default)]
struct Set {
    slots: [Slot; WAYS],
    /// The slot that is considered next when one is needed.
    hand: usize,
}

impl Set {
    /// A page, which counts as used.
    fn find(&mut self, pfn: Pfn) -> Option<&Arc<Page>> {
        let mut slots = self.slots.iter_mut();
        let slot = slots.find(|slot| slot.pfn == pfn && slot.page.is_some())?;
        slot.used = true;
        slot.page.as_ref()
    }
}

#[derive(Debug, Default)]
struct Slot {
    pfn: Pfn,
    page: Option<Arc<Page>>,
    /// It was used since the hand passed it.
    used: bool,
}

impl PageCache {
    /// For up to `budget` bytes of a dump that holds `pages` pages. At least one set is kept.
    pub fn new(budget: usize, pages: u64) -> Self {
        let pages = usize::try_from(pages).unwrap_or(usize::MAX);
        let wanted = (budget / PAGE_SIZE).min(pages.saturating_mul(2));
        Self {
            count: (wanted / WAYS).max(1),
            sets: OnceLock::new(),
        }
    }

    fn sets(&self) -> &[Mutex<Set>] {
        self.sets.get_or_init(|| {
            let mut sets = Vec::new();
            // Without memory for them, nothing is cached.
            if sets.try_reserve_exact(self.count).is_ok() {
                sets.resize_with(self.count, Mutex::default);
            }
            sets.into_boxed_slice()
        })
    }

    fn set(sets: &[Mutex<Set>], pfn: Pfn) -> Option<&Mutex<Set>> {
        // Fibonacci hashing: consecutive pages go to different sets.
        let hash = pfn.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        sets.get(((hash * sets.len() as u64) >> 32) as usize)
    }

    /// How many pages it keeps.
    pub fn capacity(&self) -> usize {
        self.count * WAYS
    }

    /// The locked set of a page; `None` before the first page is kept: then there is no lock to take.
    fn locked(&self, pfn: Pfn) -> Option<MutexGuard<'_, Set>> {
        let set = Self::set(self.sets.get()?, pfn)?;
        Some(set.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fills `buf` with the bytes from `at` on of a page, if it is here.
    pub fn get(&self, pfn: Pfn, at: usize, buf: &mut [u8]) -> bool {
        let Some(mut set) = self.locked(pfn) else {
            return false;
        };
        let bytes = set
            .find(pfn)
            .and_then(|page| page.get(at..)?.get(..buf.len()));
        if let Some(bytes) = bytes {
            buf.copy_from_slice(bytes);
        }
        bytes.is_some()
    }

    /// A page, if it is here. Its memory is not freed before it is dropped.
    pub fn hold(&self, pfn: Pfn) -> Option<Arc<Page>> {
        self.locked(pfn)?.find(pfn).cloned()
    }

    /// Keeps a page. Another one may have to go.
    pub fn put(&self, pfn: Pfn, page: Arc<Page>, usage: Use) {
        let Some(set) = Self::set(self.sets(), pfn) else {
            return;
        };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let set = &mut *set;
        let known = |slot: &Slot| slot.page.is_some() && slot.pfn == pfn;
        if set.slots.iter().any(known) {
            // Another thread was faster.
            return;
        }
        // Second chance: passes pages that were used, once.
        for _ in 0..=WAYS {
            let hand = set.hand % WAYS;
            set.hand = hand + 1;
            let Some(slot) = set.slots.get_mut(hand) else {
                return;
            };
            if slot.page.is_some() && std::mem::take(&mut slot.used) {
                continue;
            }
            *slot = Slot {
                pfn,
                page: Some(page),
                used: usage == Use::Part,
            };
            if usage == Use::Whole {
                // The next page takes this slot, so that a scan replaces one page of a set only.
                set.hand = hand;
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(cache: &PageCache, pfn: u64) -> bool {
        let mut byte = [0];
        let found = cache.get(Pfn(pfn), 7, &mut byte);
        assert!(!found || byte[0] == pfn as u8);
        found
    }

    fn put(cache: &PageCache, pfn: u64, usage: Use) {
        cache.put(Pfn(pfn), Arc::new([pfn as u8; PAGE_SIZE]), usage);
    }

    #[test]
    fn keeps_no_more_than_its_budget() {
        let cache = PageCache::new(64 * PAGE_SIZE, u64::MAX);
        for pfn in 0..1000 {
            put(&cache, pfn, Use::Part);
            assert!(has(&cache, pfn));
        }
        let kept = (0..1000).filter(|pfn| has(&cache, *pfn)).count();
        assert!(kept <= 64 && kept > 32, "{kept}");
        assert!(!cache.get(Pfn(999), PAGE_SIZE - 1, &mut [0; 2]));
    }

    #[test]
    fn a_scan_leaves_most_of_what_is_used() {
        let cache = PageCache::new(WAYS * PAGE_SIZE, u64::MAX);
        for pfn in 0..7 {
            put(&cache, pfn, Use::Part);
        }
        for pfn in 100..200 {
            put(&cache, pfn, Use::Whole);
            assert!((0..7).all(|pfn| has(&cache, pfn)));
        }
    }

    #[test]
    fn a_page_that_is_held_stays_when_it_is_replaced() {
        let cache = PageCache::new(WAYS * PAGE_SIZE, u64::MAX);
        assert!(cache.hold(Pfn(3)).is_none());
        put(&cache, 3, Use::Part);
        let held = cache.hold(Pfn(3)).unwrap();
        for pfn in 100..200 {
            put(&cache, pfn, Use::Part);
        }
        assert!(cache.hold(Pfn(3)).is_none());
        assert_eq!(*held, [3; PAGE_SIZE]);
        assert_eq!(cache.capacity(), WAYS);
    }

    #[test]
    fn the_smallest_cache_has_one_set() {
        let cache = PageCache::new(0, 0);
        assert!(!has(&cache, 0));
        put(&cache, 0, Use::Part);
        assert!(has(&cache, 0));
    }
}
