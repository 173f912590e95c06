//! The decoded pages that a batch reads from.
//!
//! A batch of small rows that are in few pages is read in any order: each page is looked up once, and held
//! until the batch is done.

use std::sync::Arc;

use crate::addr::{Address, MachineAddr, PAGE_SIZE};
use crate::memory::{Memory, Page};
use crate::status::Status;

/// A batch in at most this number of pages is not sorted by page.
pub const FEW_PAGES: usize = 1024;
/// Longer rows are read without a page being held: copying them takes longer than the look-up.
pub const LONGEST_HELD_ROW: usize = PAGE_SIZE / 2;

/// The pages that are held at most: a chunk of rows adds some.
const MOST: usize = FEW_PAGES + 256;
/// Of these a third is used at most.
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

    /// The index of a page (its number is below 2^52); a new index for a new page. `None` above
    /// [`FEW_PAGES`] and the pages of a chunk of rows.
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
                if self.len >= MOST {
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

impl HeldPages {
    /// Looks up the page of each row of `size` bytes that is within one, and has a status of success:
    /// `numbers` gets what [`HeldPages::bytes`] takes. Numbers of an earlier call are not valid any more.
    pub fn look_up(
        &mut self,
        memory: &impl Memory<MachineAddr>,
        machine: &[MachineAddr],
        status: &[Status],
        size: usize,
        numbers: &mut [usize],
    ) {
        if self.pages.len() > FEW_PAGES {
            self.numbers.clear();
            self.pages.clear();
        }
        numbers.fill(usize::MAX);
        for ((slot, machine), status) in numbers.iter_mut().zip(machine).zip(status) {
            if *status != Status::Ok || size > PAGE_SIZE - machine.page_offset() {
                continue;
            }
            let Some(number) = self.numbers.of(machine.frame().0) else {
                continue;
            };
            if number == self.pages.len() {
                self.pages.push(memory.page(*machine));
            }
            *slot = number;
        }
    }

    /// The bytes of a row, if its page is held.
    #[inline]
    pub fn bytes(&self, number: usize, machine: MachineAddr, size: usize) -> Option<&[u8]> {
        let page = self.pages.get(number)?.as_ref()?;
        page.get(machine.page_offset()..)?.get(..size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_numbered_in_the_order_in_which_they_are_met() {
        let mut numbers = PageNumbers::default();
        let page = |i: usize| (i as u64).wrapping_mul(0x1234_5678_9abd) % (1 << 52);
        for _ in 0..2 {
            for i in 0..MOST {
                assert_eq!(numbers.of(page(i)), Some(i));
            }
            assert_eq!(numbers.of((1 << 52) - 1), None);
            assert_eq!(numbers.len(), MOST);
        }
        numbers.clear();
        assert!(numbers.is_empty());
        assert_eq!(numbers.of((1 << 52) - 1), Some(0));
        assert_eq!(numbers.of((1 << 52) - 1), Some(0));
        assert_eq!(numbers.of(0), Some(1));
    }
}
