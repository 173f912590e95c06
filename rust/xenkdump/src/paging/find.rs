//! Search in virtual memory.

use memchr::memmem::Finder;

use super::Virtual;
use crate::addr::MachineAddr;
use crate::addr::{Address, VirtAddr, PAGE_SIZE};
use crate::memory::Memory;

impl<M: Memory<MachineAddr>> Virtual<M> {
    /// Where `needle` starts in what is mapped from `first` to `last`, both included, in rising
    /// order: the first `limit` places in the first `most` bytes.
    ///
    /// What is not mapped or cannot be read is passed over. Nothing is copied where memory can be
    /// lent.
    pub fn find(
        &self,
        needle: &[u8],
        first: VirtAddr,
        last: VirtAddr,
        limit: usize,
        most: u64,
    ) -> Vec<VirtAddr> {
        let mut search = Search::new(needle, limit);
        let mut left = most;
        let mut page = [0; PAGE_SIZE];
        for range in self.mapped(first, last).flatten() {
            if left == 0 || search.is_done() {
                break;
            }
            let mut done = 0;
            while done < range.len && left > 0 && !search.is_done() {
                let (Some(machine), Some(addr)) = (
                    range.machine.checked_add(done),
                    range.addr.checked_add(done),
                ) else {
                    break;
                };
                let wanted = usize::try_from((range.len - done).min(left)).unwrap_or(usize::MAX);
                let lent = self.memory().lend(machine);
                let bytes = if lent.is_empty() {
                    let size = wanted.min(PAGE_SIZE - machine.page_offset());
                    let part = page.get_mut(..size).unwrap_or_default();
                    match self.memory().read(machine, part) {
                        Ok(()) => &*part,
                        Err(_) => {
                            done += size as u64;
                            continue;
                        }
                    }
                } else {
                    lent.get(..wanted).unwrap_or(lent)
                };
                search.take(addr, bytes);
                done += bytes.len() as u64;
                left -= bytes.len() as u64;
            }
        }
        search.found.retain(|at| (first..=last).contains(at));
        search.found
    }
}

/// A search over pieces of memory in rising order.
struct Search<'n> {
    finder: Finder<'n>,
    limit: usize,
    found: Vec<VirtAddr>,
    /// The end of the last piece, too short for the needle, and the address behind it.
    tail: Vec<u8>,
    end: Option<VirtAddr>,
}

impl<'n> Search<'n> {
    fn new(needle: &'n [u8], limit: usize) -> Self {
        Self {
            finder: Finder::new(needle),
            // Nothing is everywhere.
            limit: if needle.is_empty() { 0 } else { limit },
            found: Vec::new(),
            tail: Vec::new(),
            end: None,
        }
    }

    fn is_done(&self) -> bool {
        self.found.len() >= self.limit
    }

    /// Looks through the bytes at `addr`, and where they join the last piece.
    fn take(&mut self, addr: VirtAddr, bytes: &[u8]) {
        let keep = self.finder.needle().len().saturating_sub(1);
        if self.end != Some(addr) {
            self.tail.clear();
        }
        if !self.tail.is_empty() {
            let start = VirtAddr(addr.0.wrapping_sub(self.tail.len() as u64));
            let mut joint = std::mem::take(&mut self.tail);
            joint.extend_from_slice(bytes.get(..keep).unwrap_or(bytes));
            self.matches(start, &joint);
            // The tail goes on where the bytes are fewer than it wants.
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

    fn matches(&mut self, addr: VirtAddr, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.found.len());
        for at in self.finder.find_iter(bytes).take(room) {
            self.found.extend(addr.checked_add(at as u64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However memory is cut into pieces, the same places are found.
        #[test]
        fn pieces_make_no_difference(
            memory in prop::collection::vec(0u8..2, 0..200),
            needle in prop::collection::vec(0u8..2, 1..6),
            cuts in prop::collection::vec(1usize..9, 0..60),
        ) {
            let mut search = Search::new(&needle, usize::MAX);
            let mut at = 0;
            for cut in cuts.into_iter().chain(std::iter::repeat(7)) {
                let end = (at + cut).min(memory.len());
                search.take(VirtAddr(0x1000 + at as u64), &memory[at..end]);
                at = end;
                if at == memory.len() {
                    break;
                }
            }
            // Places may overlap, and a search by pieces may see more of those than one that goes
            // on behind each; all must be real, and none may be missed that overlaps no other.
            let real: Vec<_> = (0..memory.len())
                .filter(|&i| memory[i..].starts_with(&needle))
                .map(|i| VirtAddr(0x1000 + i as u64))
                .collect();
            prop_assert!(search.found.iter().all(|at| real.contains(at)));
            for (i, place) in real.iter().enumerate() {
                let alone = i == 0 || place.0 - real[i - 1].0 >= needle.len() as u64;
                prop_assert!(!alone || search.found.contains(place), "{place} was missed");
            }
        }
    }

    #[test]
    fn a_gap_joins_nothing() {
        let mut search = Search::new(b"abcd", 10);
        search.take(VirtAddr(0x1000), b"xxab");
        search.take(VirtAddr(0x2000), b"cdxx");
        assert_eq!(search.found, []);
        search.take(VirtAddr(0x2004), b"ab");
        search.take(VirtAddr(0x2006), b"c");
        search.take(VirtAddr(0x2007), b"d");
        assert_eq!(search.found, [VirtAddr(0x2004)]);
    }

    #[test]
    fn an_empty_needle_is_nowhere() {
        let mut search = Search::new(b"", 10);
        search.take(VirtAddr(0x1000), b"abc");
        assert!(search.is_done());
        assert_eq!(search.found, []);
    }
}
