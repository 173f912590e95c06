//! Which of many ranges an address is in.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::addr::VirtAddr;

/// Ranges that are apart, as those of modules are, and what is kept of each.
#[derive(Clone, Debug)]
pub(crate) struct Ranges<T> {
    /// By start: end, and what is kept.
    parts: BTreeMap<VirtAddr, (VirtAddr, T)>,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self {
            parts: BTreeMap::new(),
        }
    }
}

impl<T> Ranges<T> {
    /// Adds a range; nothing where it is empty or one that was added before has part of it.
    pub fn add(&mut self, range: Range<VirtAddr>, kept: T) {
        let last = self.parts.range(..range.end).next_back();
        let overlaps = last.is_some_and(|(_, (end, _))| range.start < *end);
        if !range.is_empty() && !overlaps {
            self.parts.insert(range.start, (range.end, kept));
        }
    }

    /// What is kept of the range that `address` is in.
    pub fn find(&self, address: VirtAddr) -> Option<&T> {
        let (_, (end, kept)) = self.parts.range(..=address).next_back()?;
        (address < *end).then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: u64 = u64::MAX;

    fn found(ranges: &[(u64, u64)], addresses: &[u64]) -> Vec<Option<usize>> {
        let mut table = Ranges::default();
        for (number, (start, end)) in ranges.iter().enumerate() {
            table.add(VirtAddr(*start)..VirtAddr(*end), number);
        }
        let find = |at: &u64| table.find(VirtAddr(*at)).copied();
        addresses.iter().map(find).collect()
    }

    #[test]
    fn each_range_has_its_addresses() {
        let ranges = [
            (30, 40),
            (10, 20),
            (20, 30),
            (50, 50),
            (60, 50),
            (LAST - 1, LAST),
        ];
        let addresses = [9, 10, 19, 20, 29, 30, 39, 40, 50, 55, LAST - 1, LAST];
        let (no, a, b, c) = (None, Some(0), Some(1), Some(2));
        assert_eq!(
            found(&ranges, &addresses),
            [no, b, b, c, c, a, a, no, no, no, Some(5), no]
        );
    }

    #[test]
    fn the_first_of_those_that_overlap_wins() {
        for second in [(5, 11), (19, 25), (12, 15), (0, LAST), (10, 20)] {
            let [low, inside, high] = found(&[(10, 20), second], &[7, 13, 22])[..] else {
                panic!()
            };
            assert_eq!((low, inside, high), (None, Some(0), None), "{second:?}");
        }
    }
}
