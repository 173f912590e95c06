//! A cache of results by function, and the budget for computing them.

use std::collections::HashMap;

use crate::addr::{Address, VirtAddr};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::{MAX_CACHED_CODE, MAX_UNWIND_WORK};

/// The budget for the code of one stack, in instructions that are followed. Other operations are
/// charged at equivalent cost.
pub(in crate::unwind) fn stack_budget() -> Budget<'static> {
    Budget::new("the code of a stack", MAX_UNWIND_WORK)
}

/// The cost of a symbol lookup.
pub(in crate::unwind) const LOOKUP_COST: u64 = 4;

/// The cost of reading a page.
pub(in crate::unwind) const PAGE_COST: u64 = 64;

/// Results of one kind, by the start of their function.
#[derive(Debug)]
pub(in crate::unwind) struct FunctionCache<T> {
    results: HashMap<u64, T>,
    size: usize,
}

impl<T> Default for FunctionCache<T> {
    fn default() -> Self {
        Self {
            results: HashMap::new(),
            size: 0,
        }
    }
}

impl<T> FunctionCache<T> {
    /// The result for the function at `start`. If it is not cached, `compute` returns it with its
    /// size, or `None` if it cannot be computed.
    pub fn get_or(
        &mut self,
        start: VirtAddr,
        compute: impl FnOnce() -> Option<(T, usize)>,
    ) -> Option<&T> {
        if !self.results.contains_key(&start.raw()) {
            let (result, size) = compute()?;
            if self.size + size > MAX_CACHED_CODE {
                *self = Self::default();
            }
            self.size += size;
            alloc::insert_at(&mut self.results, start.raw(), result);
        }
        self.results.get(&start.raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_computed_once_and_the_cache_is_bounded() {
        let mut cache = FunctionCache::default();
        let size = MAX_CACHED_CODE / 4;
        for start in 0..9 {
            for (computed, expected) in [(start, start), (100, start)] {
                let result = cache.get_or(VirtAddr(start), || Some((computed, size)));
                assert_eq!(result, Some(&expected));
            }
            assert!(cache.size <= MAX_CACHED_CODE);
            assert_eq!(cache.results.len(), cache.size / size);
        }
        assert_eq!(cache.get_or(VirtAddr(9), || None), None);
        assert_eq!(cache.get_or(VirtAddr(8), || None), Some(&8));
    }
}
