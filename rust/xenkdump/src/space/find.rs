//! Searches memory for bytes.

use memchr::memmem::Finder;

use super::Space;
use crate::addr::{Address, MachineAddr, PAGE_SIZE};
use crate::budget::Budget;
use crate::memory::Memory;
use crate::p2m::Physical;

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Addresses, ascending.
    pub places: Vec<u64>,
    /// Bytes of memory searched, plus a page for each unreadable page table.
    pub bytes: u64,
}

impl<M: Memory<MachineAddr> + Send> Space<M> {
    /// Addresses of `needle` between `first` and `last`, both included, ascending: the first `limit`
    /// ones in the first `max_bytes` bytes that are mapped. `None` for a domain's pseudo-physical
    /// memory, whose frames are not in order.
    ///
    /// Unreadable memory is skipped. Nothing is copied where memory can be borrowed.
    pub fn find(
        &self,
        needle: &[u8],
        first: u64,
        last: u64,
        limit: usize,
        max_bytes: u64,
    ) -> Option<Found> {
        let mut search = Search::new(needle, limit, max_bytes);
        match self {
            Space::Machine(mem) | Space::Physical(Physical::Bare(mem)) => {
                let len = last
                    .checked_sub(first)
                    .map_or(0, |len| len.saturating_add(1));
                search.range(mem, first, MachineAddr(first), len);
            }
            Space::Physical(_) => return None,
            Space::Virtual(space) => {
                let ranges = space.mapped(Address::new(first), Address::new(last));
                for range in ranges {
                    if search.is_done() {
                        break;
                    }
                    match range {
                        Ok(range) => {
                            search.range(space.memory(), range.addr.0, range.machine, range.len);
                        }
                        // A few tables can refer to any number of absent ones.
                        Err(_) => {
                            let _ = search.budget.spend(PAGE_SIZE as u64);
                        }
                    }
                }
            }
        }
        search.found.retain(|at| (first..=last).contains(at));
        Some(Found {
            places: search.found,
            bytes: search.budget.spent(),
        })
    }
}

/// A search over pieces of memory in ascending order.
struct Search<'n> {
    finder: Finder<'n>,
    limit: usize,
    /// Bytes that may be searched.
    budget: Budget<'static>,
    found: Vec<u64>,
    /// The end of the last piece, shorter than the needle, and the address after it.
    tail: Vec<u8>,
    end: Option<u64>,
}

impl<'n> Search<'n> {
    fn new(needle: &'n [u8], limit: usize, max_bytes: u64) -> Self {
        Self {
            finder: Finder::new(needle),
            // An empty needle would match everywhere.
            limit: if needle.is_empty() { 0 } else { limit },
            budget: Budget::new("search", max_bytes),
            found: Vec::new(),
            tail: Vec::new(),
            end: None,
        }
    }

    fn is_done(&self) -> bool {
        self.found.len() >= self.limit || self.budget.remaining() == 0
    }

    /// Searches the `len` bytes at `machine`, to which `addr` is mapped.
    fn range(&mut self, mem: &impl Memory<MachineAddr>, addr: u64, machine: MachineAddr, len: u64) {
        let mut page = [0; PAGE_SIZE];
        let mut done = 0;
        while done < len && !self.is_done() {
            let (Some(machine), Some(addr)) = (machine.checked_add(done), addr.checked_add(done))
            else {
                return;
            };
            let wanted =
                usize::try_from((len - done).min(self.budget.remaining())).unwrap_or(usize::MAX);
            let borrowed = mem.borrow(machine);
            let mut size = wanted.min(PAGE_SIZE - machine.page_offset());
            if borrowed.is_empty() {
                let part = page.get_mut(..size).unwrap_or_default();
                if mem.read(machine, part).is_ok() {
                    self.take(addr, part);
                }
            } else {
                let bytes = borrowed.get(..wanted).unwrap_or(borrowed);
                self.take(addr, bytes);
                size = bytes.len();
            }
            done = done.saturating_add(size as u64);
            let _ = self.budget.spend(size as u64);
        }
    }

    /// Searches the bytes at `addr`, and across the boundary to the last piece if they adjoin.
    fn take(&mut self, addr: u64, bytes: &[u8]) {
        let keep = self.finder.needle().len().saturating_sub(1);
        if self.end != Some(addr) {
            self.tail.clear();
        }
        if !self.tail.is_empty() {
            let start = addr.wrapping_sub(self.tail.len() as u64);
            let mut joint = std::mem::take(&mut self.tail);
            joint.extend_from_slice(bytes.get(..keep).unwrap_or(bytes));
            self.matches(start, &joint);
            // Short pieces are appended to it.
            self.tail = joint;
        }
        self.matches(addr, bytes);
        if bytes.len() >= keep {
            self.tail.clear();
            self.tail
                .extend_from_slice(bytes.get(bytes.len() - keep..).unwrap_or_default());
        } else {
            if self.tail.is_empty() {
                self.tail.extend_from_slice(bytes);
            }
            let surplus = self.tail.len().saturating_sub(keep);
            self.tail.drain(..surplus);
        }
        self.end = addr.checked_add(bytes.len() as u64);
    }

    fn matches(&mut self, addr: u64, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.found.len());
        for at in self.finder.find_iter(bytes).take(room) {
            self.found.extend(addr.checked_add(at as u64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Frames;
    use crate::paging::{Virtual, X86_64};
    use proptest::prelude::*;

    proptest! {
        /// The pieces into which memory is cut make no difference.
        #[test]
        fn pieces_make_no_difference(
            memory in prop::collection::vec(0u8..2, 0..200),
            needle in prop::collection::vec(0u8..2, 1..6),
            cuts in prop::collection::vec(1usize..9, 0..60),
        ) {
            let mut search = Search::new(&needle, usize::MAX, u64::MAX);
            let mut at = 0;
            for cut in cuts.into_iter().chain(std::iter::repeat(7)) {
                let end = (at + cut).min(memory.len());
                search.take(0x1000 + at as u64, &memory[at..end]);
                at = end;
                if at == memory.len() {
                    break;
                }
            }
            // A search by pieces may find more overlapping matches than one over the whole. All
            // matches must be real, and none may be missed that overlaps no other.
            let real: Vec<_> = (0..memory.len())
                .filter(|&i| memory[i..].starts_with(&needle))
                .map(|i| 0x1000 + i as u64)
                .collect();
            prop_assert!(search.found.iter().all(|at| real.contains(at)));
            for (i, place) in real.iter().enumerate() {
                let alone = i == 0 || place - real[i - 1] >= needle.len() as u64;
                prop_assert!(!alone || search.found.contains(place), "{place:#x} was missed");
            }
        }
    }

    #[test]
    fn a_gap_joins_nothing() {
        let mut search = Search::new(b"abcd", 10, 100);
        search.take(0x1000, b"xxab");
        search.take(0x2000, b"cdxx");
        assert_eq!(search.found, []);
        search.take(0x2004, b"ab");
        search.take(0x2006, b"c");
        search.take(0x2007, b"d");
        assert_eq!(search.found, [0x2004]);
    }

    #[test]
    fn an_empty_needle_is_nowhere() {
        let mut search = Search::new(b"", 10, 100);
        search.take(0x1000, b"abc");
        assert!(search.is_done());
        assert_eq!(search.found, []);
    }

    #[test]
    fn unreadable_machine_memory_is_skipped() {
        let mut frames = Frames::default();
        frames.write(MachineAddr(0x1ffe), b"abcd");
        frames.write(MachineAddr(0x5000), b"abcd");
        let space = Space::Machine(frames);
        let find = |first, last, limit, max_bytes| {
            let found = space.find(b"abcd", first, last, limit, max_bytes).unwrap();
            assert!(found.bytes <= max_bytes);
            found
        };
        let all = find(0, 0xffff, 10, 1 << 20);
        assert_eq!((all.places, all.bytes), (vec![0x1ffe, 0x5000], 0x10000));
        assert_eq!(find(0, 0xffff, 1, 1 << 20).places, [0x1ffe]);
        let part = find(0, 0xffff, 10, 0x3000);
        assert_eq!((part.places, part.bytes), (vec![0x1ffe], 0x3000));
        assert_eq!(find(0x2000, 0x5003, 10, 1 << 20).places, [0x5000]);
        assert_eq!(find(9, 3, 10, 1 << 20), Found::default());
    }

    /// One page of memory for 63 absent tables.
    #[test]
    fn tables_that_are_absent_count_as_memory() {
        let mut mem = Frames::default();
        let page = |i: u64| (i << 12) | 3;
        for i in 0..512 {
            mem.write(MachineAddr(0x1000 + i * 8), &page(2).to_le_bytes());
            mem.write(MachineAddr(0x2000 + i * 8), &page(3).to_le_bytes());
            let entry = if i % 64 == 0 { page(4) } else { page(0xdead) };
            mem.write(MachineAddr(0x3000 + i * 8), &entry.to_le_bytes());
        }
        mem.write(MachineAddr(0x4000), &page(5).to_le_bytes());
        mem.write(MachineAddr(0x5000), b"abcd");
        let space = Space::Virtual(Virtual::new(mem, &X86_64, MachineAddr(0x1000)));
        let limit = 1 << 20;
        let found = space.find(b"abcd", 0, u64::MAX, 100, limit).unwrap();
        // As many pages as the limit allows, one of 64 of them memory.
        assert_eq!((found.places.len(), found.bytes), (4, limit));
    }
}
