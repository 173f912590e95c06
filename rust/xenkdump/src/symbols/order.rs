//! Sorts symbols by address.
//!
//! A kernel has 10^5 symbols. Their addresses are either near each other or near zero, so that the sort
//! key of each half, with rank and number, fits into 64 bits: that takes half the time of 128 bits.

use crate::alloc;

/// A symbol to be sorted.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub address: u64,
    /// Among equal addresses.
    pub rank: u8,
    /// Its position in the source. Among equal ranks, the first is last.
    pub number: u32,
}

/// The numbers of the items by address, then by rank, then in descending order.
pub(super) fn by_address(mut items: Vec<Item>) -> Vec<u32> {
    let is_low = |item: &Item| item.address >> 63 == 0;
    // Not stable, but the numbers are part of the key.
    let mut low = 0;
    for at in 0..items.len() {
        if items.get(at).is_some_and(is_low) {
            items.swap(at, low);
            low += 1;
        }
    }
    let (low, high) = items.split_at(low);
    let mut sorted = alloc::with_capacity(items.len());
    sort(low, &mut sorted);
    sort(high, &mut sorted);
    sorted
}

fn sort(items: &[Item], sorted: &mut Vec<u32>) {
    let addresses = || items.iter().map(|item| item.address);
    let (Some(first), Some(last)) = (addresses().min(), addresses().max()) else {
        return;
    };
    let numbers = items.iter().map(|item| item.number).max().unwrap_or(0);
    let bits = u32::BITS - numbers.leading_zeros();
    let mask = ((1_u64 << bits) - 1) as u32;
    let low = |item: &Item| u64::from(item.rank) << bits | u64::from(!item.number & mask);
    let shift = u8::BITS + bits;
    if (last - first).leading_zeros() >= shift {
        let keys = items
            .iter()
            .map(|item| (item.address - first) << shift | low(item));
        let mut keys = alloc::collect(keys);
        keys.sort_unstable();
        sorted.extend(keys.into_iter().map(|key| !(key as u32) & mask));
    } else {
        let keys = items.iter().map(|item| (item.address, low(item)));
        let mut keys = alloc::collect(keys);
        keys.sort_unstable();
        sorted.extend(keys.into_iter().map(|(_, low)| !(low as u32) & mask));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Addresses of an image, offsets into per-CPU areas and, if `anywhere`, all others. Many are equal.
    fn address(anywhere: bool) -> impl Strategy<Value = u64> {
        prop_oneof![
            (0..64_u64).prop_map(|low| 0xffff_ffff_8100_0000 + low * 0x11_1111),
            0..16_u64,
            any::<u64>().prop_map(move |at| if anywhere { at } else { at % 8 }),
            Just(u64::MAX),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_stable_sort(
            keys in any::<bool>()
                .prop_flat_map(|anywhere| prop::collection::vec((address(anywhere), any::<u8>()), 0..300)),
        ) {
            let mut wanted: Vec<u32> = (0..keys.len() as u32).collect();
            wanted.sort_by_key(|&i| (keys[i as usize], std::cmp::Reverse(i)));
            let items = (0..).zip(&keys).map(|(number, &(address, rank))| Item {
                address,
                rank,
                number,
            });
            prop_assert_eq!(by_address(items.collect()), wanted);
        }
    }

    #[test]
    fn numbers_of_all_widths() {
        for count in [0, 1, 2, 3, 4, 255, 256, 257, 65_537] {
            let items = (0..count).map(|number| Item {
                address: u64::MAX - u64::from(number % 3),
                rank: 0xff,
                number,
            });
            let found = by_address(items.collect());
            let mut wanted: Vec<u32> = (0..count).collect();
            wanted.sort_by_key(|i| (std::cmp::Reverse(i % 3), std::cmp::Reverse(*i)));
            assert_eq!(found, wanted);
        }
    }
}
