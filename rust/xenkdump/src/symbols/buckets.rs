//! Symbols by address, sorted only near the addresses that are looked up.
//!
//! A command looks up some tens of addresses. To sort all symbols of a kernel takes several times as long
//! as to divide them into buckets of adjacent addresses and to sort the few buckets that are searched.

use std::sync::OnceLock;

use crate::alloc;

use super::order::{self, Item};

/// The most buckets, in bits.
const MAX_BITS: u32 = 11;
/// Symbols for each bucket on average, in bits.
const PER_BUCKET: u32 = 5;
/// The end of a chain.
const END: u32 = u32::MAX;

/// Symbols in buckets, each a range of addresses. Ascending.
pub(super) struct Buckets {
    /// The lowest address.
    first: u64,
    /// The bits of an address within a bucket.
    shift: u32,
    buckets: Vec<Bucket>,
    /// The next lower number in the same bucket, by number.
    next: Vec<u32>,
}

struct Bucket {
    /// The highest number in it.
    head: u32,
    /// Its numbers in the order of [`order::by_address`].
    sorted: OnceLock<Vec<u32>>,
}

impl Buckets {
    /// `addresses` are those of the symbols by number; `None` for one that is not searched.
    pub fn new(addresses: impl ExactSizeIterator<Item = Option<u64>> + Clone) -> Self {
        let (mut first, mut last) = (u64::MAX, 0);
        for address in addresses.clone().flatten() {
            first = first.min(address);
            last = last.max(address);
        }
        let len = addresses.len();
        let bits = usize::BITS - (len >> PER_BUCKET).leading_zeros();
        let bits = bits.clamp(1, MAX_BITS);
        let width = u64::BITS - last.saturating_sub(first).leading_zeros();
        let shift = width.saturating_sub(bits);
        let mut this = Self {
            first,
            shift,
            buckets: Vec::new(),
            next: alloc::filled(END, len),
        };
        let count = this.index(last).map_or(0, |last| last + 1);
        let buckets = (0..count).map(|_| Bucket {
            head: END,
            sorted: OnceLock::new(),
        });
        this.buckets = alloc::collect(buckets);
        for ((number, address), next) in (0..).zip(addresses).zip(&mut this.next) {
            let Some(address) = address else { continue };
            let index = ((address - first) >> shift) as usize;
            if let Some(bucket) = this.buckets.get_mut(index) {
                *next = std::mem::replace(&mut bucket.head, number);
            }
        }
        this
    }

    /// The bucket of an address, which may be behind the last one. `None` below the first one.
    fn index(&self, address: u64) -> Option<usize> {
        let distance = address.checked_sub(self.first)?;
        Some(usize::try_from(distance >> self.shift).unwrap_or(usize::MAX))
    }

    /// The numbers of the symbols from `from` to `to`, in descending order. `item` has the symbol of a
    /// number.
    pub fn down<'a>(
        &'a self,
        from: u64,
        to: u64,
        item: impl Fn(u32) -> Item + Copy + 'a,
    ) -> impl Iterator<Item = u32> + 'a {
        let end = self.index(to).map_or(0, |to| to.saturating_add(1));
        let end = end.min(self.buckets.len());
        let start = self.index(from).unwrap_or(0).min(end);
        let buckets = self.buckets.get(start..end).unwrap_or_default();
        buckets.iter().rev().flat_map(move |bucket| {
            let sorted = self.sorted(bucket, item);
            let above = sorted.partition_point(|number| item(*number).address <= to);
            let below = sorted.partition_point(|number| item(*number).address < from);
            let found = sorted.get(below..above).unwrap_or_default();
            found.iter().rev().copied()
        })
    }

    fn sorted<'a>(&self, bucket: &'a Bucket, item: impl Fn(u32) -> Item + Copy) -> &'a [u32] {
        bucket.sorted.get_or_init(|| {
            let link = |number: u32| (number != END).then_some(number);
            let all = std::iter::successors(link(bucket.head), |number| {
                self.next.get(*number as usize).copied().and_then(link)
            });
            let mut numbers = alloc::collect(all);
            numbers.reverse();
            order::by_address(numbers.iter().map(|number| item(*number)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *seed >> 33
    }

    /// Numbers of the searched items from `from` to `to`, by sorting all.
    fn by_sorting(items: &[Item], hidden: &[bool], from: u64, to: u64) -> Vec<u32> {
        let order = order::by_address(items.iter().copied());
        let wanted = order.into_iter().rev().filter(|number| {
            let address = items[*number as usize].address;
            !hidden[*number as usize] && from <= address && address <= to
        });
        wanted.collect()
    }

    #[test]
    fn buckets_agree_with_sorting_all() {
        let mut seed = 1;
        for count in [0, 1, 2, 31, 32, 33, 500, 5000] {
            for (base, spread) in [
                (0, 1),
                (0, 64),
                (0xffff_ffff_8100_0000, 1 << 24),
                (u64::MAX - 4, 5),
                (0, 1 << 31),
            ] {
                let mut items = Vec::new();
                let mut hidden = Vec::new();
                for number in 0..count {
                    // A few are far away from the others.
                    let far = random(&mut seed).is_multiple_of(50) && spread > 64;
                    let address = base + random(&mut seed) % spread;
                    items.push(Item {
                        address: if far {
                            random(&mut seed) << 33
                        } else {
                            address
                        },
                        rank: (random(&mut seed) % 3) as u8,
                        number,
                    });
                    hidden.push(random(&mut seed).is_multiple_of(7));
                }
                let addresses = items.iter().zip(&hidden);
                let addresses = addresses.map(|(item, hidden)| (!hidden).then_some(item.address));
                let buckets = Buckets::new(addresses);
                let at = |number: u32| items[number as usize];
                let mut bounds = vec![0, 1, base, base + spread / 2, u64::MAX];
                bounds.extend(items.iter().take(5).map(|item| item.address));
                for from in &bounds {
                    for to in &bounds {
                        let found: Vec<u32> = buckets.down(*from, *to, &at).collect();
                        let wanted = by_sorting(&items, &hidden, *from, *to);
                        assert_eq!(
                            found, wanted,
                            "{count} {base:#x} {spread} {from:#x} {to:#x}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn only_what_is_searched_is_sorted() {
        let items: Vec<_> = (0..10_000)
            .map(|number| Item {
                address: u64::from(number) * 16,
                rank: 0,
                number,
            })
            .collect();
        let buckets = Buckets::new(items.iter().map(|item| Some(item.address)));
        let at = |number: u32| items[number as usize];
        assert_eq!(buckets.down(0, 80_008, &at).next(), Some(5000));
        let sorted = buckets
            .buckets
            .iter()
            .filter_map(|bucket| bucket.sorted.get());
        assert!(sorted.map(Vec::len).sum::<usize>() < 100);
    }
}
