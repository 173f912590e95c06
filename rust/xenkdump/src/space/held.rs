//! The decoded pages that a batch reads from.
//!
//! A batch of small rows that are in few pages is read in any order: each page is looked up once, and held
//! until the batch is done.

use std::sync::Arc;

use super::bulk::{Batch, Rows, CHUNK};
use crate::addr::{Address, MachineAddr, PAGE_SIZE};
use crate::memory::{Memory, Page};
use crate::status::Status;

/// The most pages of a batch that is not worth being sorted by page.
pub const FEW_PAGES: usize = 1024;
/// Longer rows are read without a page being held: copying them takes longer than the look-up.
pub const LONGEST_HELD_ROW: usize = PAGE_SIZE / 2;

/// Pages that are held, before those of another chunk.
const MOST: usize = FEW_PAGES;
/// Of these a quarter is used.
const SLOTS: usize = 4096;
/// Bits of the number that a page has in the set.
const NUMBER_BITS: u32 = 12;
const FREE: u64 = u64::MAX;

/// Numbers pages in the order in which they are met.
#[derive(Debug)]
pub struct PageNumbers {
    /// A hash table: the page, and below it its number.
    slots: Vec<u64>,
    len: usize,
}

impl Default for PageNumbers {
    fn default() -> Self {
        Self {
            slots: vec![FREE; SLOTS],
            len: 0,
        }
    }
}

impl PageNumbers {
    /// How many pages were met.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none was met.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of a page, which is below 2^52; a new one if it was not met before. `None` if there are
    /// too many: at least [`FEW_PAGES`] and a chunk.
    #[inline]
    pub fn of(&mut self, page: u64) -> Option<usize> {
        let mask = SLOTS - 1;
        // Fibonacci hashing: consecutive pages are spread.
        let mut at = (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize;
        loop {
            let slot = self.slots.get_mut(at & mask)?;
            if *slot >> NUMBER_BITS == page && *slot != FREE {
                return Some((*slot & ((1 << NUMBER_BITS) - 1)) as usize);
            }
            if *slot == FREE {
                if self.len >= MOST + CHUNK {
                    return None;
                }
                let number = self.len;
                *slot = page << NUMBER_BITS | number as u64;
                self.len += 1;
                return Some(number);
            }
            at += 1;
        }
    }

    fn clear(&mut self) {
        self.slots.fill(FREE);
        self.len = 0;
    }
}

/// Decoded pages; [`None`] for those that cannot be held.
#[derive(Debug, Default)]
pub(super) struct HeldPages {
    numbers: PageNumbers,
    pages: Vec<Option<Arc<Page>>>,
}

impl<M: Memory<MachineAddr> + Send> Batch<'_, M> {
    /// Reads the rows of a chunk that are within a page which can be held. Returns the number of the others
    /// that have an address, whose indices it writes to `others`.
    pub(super) fn read_held(
        &mut self,
        machine: &[MachineAddr],
        size: usize,
        first: usize,
        rows: &mut impl Rows,
        status: &[Status],
        others: &mut [usize; CHUNK],
    ) -> usize {
        let memory = self.space.memory();
        let held = self.held.get_or_insert_default();
        if held.pages.len() > MOST {
            held.numbers.clear();
            held.pages.clear();
        }
        // Look up all pages, then copy: in a loop that does not wait for the bytes, cache misses overlap.
        let mut numbers = [usize::MAX; CHUNK];
        for ((slot, machine), status) in numbers.iter_mut().zip(machine).zip(status) {
            if *status != Status::Ok || size > PAGE_SIZE - machine.page_offset() {
                continue;
            }
            let Some(number) = held.numbers.of(machine.frame().0) else {
                continue;
            };
            if number == held.pages.len() {
                held.pages.push(memory.page(*machine));
            }
            *slot = number;
        }
        let mut count = 0;
        let found = machine.iter().zip(status).zip(numbers);
        for (i, ((machine, status), number)) in found.enumerate() {
            let page = held.pages.get(number).and_then(Option::as_ref);
            let bytes = page.and_then(|page| page.get(machine.page_offset()..)?.get(..size));
            if let Some(bytes) = bytes {
                rows.put(first + i, 0, bytes);
            } else if *status != Status::Ok {
                rows.clear(first + i);
            } else if let Some(slot) = others.get_mut(count) {
                *slot = i;
                count += 1;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_numbered_in_the_order_in_which_they_are_met() {
        let mut numbers = PageNumbers::default();
        let most = MOST + CHUNK;
        let page = |i: usize| (i as u64).wrapping_mul(0x1234_5678_9abd) % (1 << 52);
        for _ in 0..2 {
            for i in 0..most {
                assert_eq!(numbers.of(page(i)), Some(i));
            }
            assert_eq!(numbers.of((1 << 52) - 1), None);
            assert_eq!(numbers.len(), most);
        }
        numbers.clear();
        assert!(numbers.is_empty());
        assert_eq!(numbers.of((1 << 52) - 1), Some(0));
        assert_eq!(numbers.of((1 << 52) - 1), Some(0));
        assert_eq!(numbers.of(0), Some(1));
    }
}
