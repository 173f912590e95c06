//! Sorts symbols by address.
//!
//! A kernel has 10^5 symbols. Their addresses are either near each other or near zero, so that the sort
//! key of each half, with rank and number, fits into 64 bits. Many of them are sorted by digits, which
//! takes a quarter of the time of comparing them.

use std::ops::Range;

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

/// The largest digit, in bits: its counters fit into the first-level cache.
const DIGIT: u32 = 11;
/// Fewer keys than this are compared.
const MIN_BY_DIGITS: usize = 1 << DIGIT;

/// What the items of one half have in common.
#[derive(Clone, Copy)]
struct Half {
    first: u64,
    last: u64,
    /// All bits of ranks.
    ranks: u8,
    len: usize,
}

/// The numbers of the items by address, then by rank, then in descending order. `items` are in ascending
/// order of their numbers.
pub(super) fn by_address(
    items: impl DoubleEndedIterator<Item = Item> + ExactSizeIterator + Clone,
) -> Vec<u32> {
    let Some(largest) = items.clone().next_back() else {
        return Vec::new();
    };
    let numbers = width(largest.number.into());
    let mut halves = [Half {
        first: u64::MAX,
        last: 0,
        ranks: 0,
        len: 0,
    }; 2];
    for item in items.clone() {
        let half = &mut halves[(item.address >> 63) as usize];
        half.first = half.first.min(item.address);
        half.last = half.last.max(item.address);
        half.ranks |= item.rank;
        half.len += 1;
    }
    let mut sorted = alloc::with_capacity(items.len());
    for (number, half) in (0..).zip(halves) {
        let items = items.clone().rev();
        let items = items.filter(move |item| item.address >> 63 == number);
        if half.len > 0 {
            sort(items, half, numbers, &mut sorted);
        }
    }
    sorted
}

/// The bits of `value` up to the highest that is set.
fn width(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// Sorts the items of one half. Their numbers descend and have `numbers` bits.
fn sort(items: impl Iterator<Item = Item>, half: Half, numbers: u32, sorted: &mut Vec<u32>) {
    let mask = ((1_u64 << numbers) - 1) as u32;
    let low = |item: Item| u64::from(item.rank) << numbers | u64::from(!item.number & mask);
    let shift = width(half.ranks.into()) + numbers;
    let bits = width(half.last - half.first) + shift;
    if bits <= u64::BITS {
        let mut keys = alloc::with_capacity(half.len);
        keys.extend(items.map(|item| (item.address - half.first) << shift | low(item)));
        let keys = by_digits(keys, numbers..bits);
        sorted.extend(keys.into_iter().map(|key| !(key as u32) & mask));
    } else {
        let mut keys = alloc::with_capacity(half.len);
        keys.extend(items.map(|item| (item.address, low(item))));
        keys.sort_unstable();
        sorted.extend(keys.into_iter().map(|(_, low)| !(low as u32) & mask));
    }
}

/// Sorts keys by `bits`. The bits below are in ascending order already.
fn by_digits(mut keys: Vec<u64>, bits: Range<u32>) -> Vec<u64> {
    if keys.len() < MIN_BY_DIGITS {
        keys.sort_unstable();
        return keys;
    }
    let rounds = bits.len().div_ceil(DIGIT as usize);
    let mut other = alloc::filled(0, keys.len());
    for round in 0..rounds as u32 {
        let digit = |key: u64| (key >> (bits.start + round * DIGIT)) as usize % MIN_BY_DIGITS;
        // The number of keys with each digit, then where the next one goes.
        let mut places = [0; MIN_BY_DIGITS];
        for &key in &keys {
            places[digit(key)] += 1;
        }
        let mut start = 0;
        for place in &mut places {
            start += std::mem::replace(place, start);
        }
        for &key in &keys {
            let place = &mut places[digit(key)];
            if let Some(slot) = other.get_mut(*place) {
                *slot = key;
            }
            *place += 1;
        }
        std::mem::swap(&mut keys, &mut other);
    }
    keys
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
            let items: Vec<_> = items.collect();
            prop_assert_eq!(by_address(items.iter().copied()), wanted);
        }
    }

    /// More than are compared, with addresses of up to so many bits.
    #[test]
    fn many_are_sorted_by_digits() {
        for bits in [1, 10, 11, 12, 26, 39, 40, 63] {
            let items: Vec<_> = (0..3 * MIN_BY_DIGITS as u32)
                .map(|number| {
                    let random = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    Item {
                        address: (random & 1) << 63 | (random >> 1 & ((1 << bits) - 1)),
                        rank: (random >> 40) as u8,
                        number,
                    }
                })
                .collect();
            let mut wanted: Vec<u32> = (0..items.len() as u32).collect();
            wanted.sort_by_key(|&i| {
                let item = &items[i as usize];
                (item.address, item.rank, std::cmp::Reverse(i))
            });
            assert_eq!(by_address(items.iter().copied()), wanted, "{bits}");
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
            let items: Vec<_> = items.collect();
            let found = by_address(items.iter().copied());
            let mut wanted: Vec<u32> = (0..count).collect();
            wanted.sort_by_key(|i| (std::cmp::Reverse(i % 3), std::cmp::Reverse(*i)));
            assert_eq!(found, wanted);
        }
    }
}
