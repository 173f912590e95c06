//! A map from disjoint address ranges to values.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::addr::VirtAddr;

/// Disjoint address ranges, such as those of modules, each with a value.
#[derive(Clone, Debug)]
pub(crate) struct Ranges<T> {
    /// The end and the value of each range, by its start.
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
    /// Adds a range. Ignored if the range is empty or overlaps an earlier one.
    pub fn add(&mut self, range: Range<VirtAddr>, value: T) {
        let last = self.parts.range(..range.end).next_back();
        let overlaps = last.is_some_and(|(_, (end, _))| range.start < *end);
        if !range.is_empty() && !overlaps {
            self.parts.insert(range.start, (range.end, value));
        }
    }

    /// The value of exactly this range.
    pub fn get(&self, range: &Range<VirtAddr>) -> Option<&T> {
        let (end, value) = self.parts.get(&range.start)?;
        (*end == range.end).then_some(value)
    }

    /// The value of the range that contains `address`.
    pub fn find(&self, address: VirtAddr) -> Option<&T> {
        let (_, (end, value)) = self.parts.range(..=address).next_back()?;
        (address < *end).then_some(value)
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
    fn addresses_are_found_in_their_ranges() {
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
    fn ranges_are_found_as_a_whole() {
        let mut table = Ranges::default();
        table.add(VirtAddr(10)..VirtAddr(20), 'a');
        assert_eq!(table.get(&(VirtAddr(10)..VirtAddr(20))), Some(&'a'));
        for (start, end) in [(10, 19), (11, 20), (10, 21), (20, 10)] {
            assert_eq!(table.get(&(VirtAddr(start)..VirtAddr(end))), None);
        }
    }

    #[test]
    fn later_overlapping_ranges_are_ignored() {
        for second in [(5, 11), (19, 25), (12, 15), (0, LAST), (10, 20)] {
            let [low, inside, high] = found(&[(10, 20), second], &[7, 13, 22])[..] else {
                panic!()
            };
            assert_eq!((low, inside, high), (None, Some(0), None), "{second:?}");
        }
    }
}
