//! Searches memory for bytes.

use std::collections::TryReserveError;

use memchr::memmem::Finder;

use super::Space;
use crate::addr::{Address, MachineAddr, PAGE_SIZE};
use crate::budget::Budget;
use crate::memory::Memory;
use crate::p2m::Physical;

/// The minimum charge for a piece of memory, in bytes: a dump may have millions of tiny segments.
const MIN_COST: u64 = 64;

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Addresses, ascending.
    pub places: Vec<u64>,
    /// Bytes of memory searched. Pieces of less than 64 bytes count as 64 bytes; unreadable page
    /// tables and mappings without memory count as a page each. Holes in machine memory are not
    /// counted.
    pub bytes: u64,
    /// The address to continue from if the search stopped early; `None` if all memory in the range was
    /// searched.
    pub next: Option<u64>,
}

impl<M: Memory<MachineAddr> + Send> Space<M> {
    /// Addresses of `needle` between `first` and `last`, both included, ascending: the first `limit`
    /// ones in the first `max_bytes` bytes that are held. `None` for a domain's pseudo-physical
    /// memory, whose frames are not in order. Fails if there is no memory for the result.
    ///
    /// Unreadable memory is skipped. Nothing is copied where memory can be borrowed.
    pub fn find(
        &self,
        needle: &[u8],
        first: u64,
        last: u64,
        limit: usize,
        max_bytes: u64,
    ) -> Option<Result<Found, TryReserveError>> {
        let mut search = Search::new(needle, limit, max_bytes);
        match self {
            Space::Physical(Physical::P2m(_)) => return None,
            // It would match everywhere.
            _ if needle.is_empty() || last < first => {}
            Space::Machine(mem) | Space::Physical(Physical::Bare(mem)) => {
                search.range(mem, first, MachineAddr(first), last - first);
            }
            Space::Virtual(space) => {
                let ranges = space.mapped(Address::new(first), Address::new(last));
                for range in ranges {
                    let before = search.budget.spent();
                    match range {
                        Ok(range) => {
                            let more = range.len.saturating_sub(1);
                            search.range(space.memory(), range.addr.0, range.machine, more);
                        }
                        Err(fault) if search.is_done() => search.stop(fault.address().1),
                        Err(_) => {}
                    }
                    if search.next.is_some() {
                        break;
                    }
                    if search.budget.spent() == before {
                        // A few page tables can refer to many absent tables and pages.
                        let _ = search.budget.spend(PAGE_SIZE as u64);
                    }
                }
            }
        }
        Some(search.finish(first, last))
    }
}

/// A search that its caller continues piece by piece.
pub struct Pieces<'n> {
    needle: &'n [u8],
    /// The addresses still to be searched, both included.
    range: (u64, u64),
    limit: usize,
    /// Bytes that may still be searched, and of one piece.
    most: (u64, u64),
    /// What the pieces so far have.
    pub found: Found,
}

impl<'n> Pieces<'n> {
    /// A search as `Space::find`, with at most `most.0` bytes in pieces of at most `most.1`.
    pub fn new(needle: &'n [u8], range: (u64, u64), limit: usize, most: (u64, u64)) -> Self {
        Self {
            needle,
            range,
            limit,
            most,
            found: Found::default(),
        }
    }

    /// Searches the next piece of `space`, and returns whether another one follows. `None`, and
    /// errors, as of `Space::find`.
    pub fn advance<M: Memory<MachineAddr> + Send>(
        &mut self,
        space: &Space<M>,
    ) -> Option<Result<bool, TryReserveError>> {
        let ((first, last), (remaining, piece)) = (self.range, self.most);
        let all = &mut self.found;
        let wanted = self.limit.saturating_sub(all.places.len());
        let found = match space.find(self.needle, first, last, wanted, remaining.min(piece))? {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        if let Err(error) = all.places.try_reserve(found.places.len()) {
            return Some(Err(error));
        }
        let is_full = found.places.len() >= wanted;
        all.places.extend(found.places);
        all.bytes = all.bytes.saturating_add(found.bytes);
        all.next = found.next;
        self.most.0 = remaining.saturating_sub(found.bytes);
        Some(Ok(match found.next {
            // A needle may be longer than a piece.
            Some(next) if next > first && !is_full && self.most.0 > 0 => {
                self.range.0 = next;
                true
            }
            _ => false,
        }))
    }
}

/// A search over pieces of memory in ascending order.
struct Search<'n> {
    finder: Finder<'n>,
    limit: usize,
    /// Bytes that may be searched.
    budget: Budget<'static>,
    found: Vec<u64>,
    /// The failed allocation for the results, if any.
    no_memory: Option<TryReserveError>,
    /// The end of the last piece, shorter than the needle, and the address after it.
    tail: Vec<u8>,
    end: Option<u64>,
    /// The first address that was not searched, once the search stopped.
    next: Option<u64>,
}

impl<'n> Search<'n> {
    fn new(needle: &'n [u8], limit: usize, max_bytes: u64) -> Self {
        Self {
            finder: Finder::new(needle),
            limit,
            budget: Budget::new("search", max_bytes),
            found: Vec::new(),
            no_memory: None,
            tail: Vec::new(),
            end: None,
            next: None,
        }
    }

    fn is_done(&self) -> bool {
        self.found.len() >= self.limit || self.budget.remaining() == 0 || self.no_memory.is_some()
    }

    /// Stops the search at `addr`.
    fn stop(&mut self, addr: u64) {
        self.next.get_or_insert(addr);
    }

    fn finish(mut self, first: u64, last: u64) -> Result<Found, TryReserveError> {
        if let Some(error) = self.no_memory {
            return Err(error);
        }
        self.found.retain(|at| (first..=last).contains(at));
        let next = match (self.next, self.found.last()) {
            // There may be more matches after the last one in the memory that was searched.
            (_, Some(place)) if self.found.len() >= self.limit => {
                place.checked_add(1).filter(|next| *next <= last)
            }
            (None, _) => None,
            // A match may straddle the address.
            (Some(next), _) => {
                let keep = self.finder.needle().len().saturating_sub(1);
                Some(next.saturating_sub(keep as u64).max(first))
            }
        };
        Ok(Found {
            places: self.found,
            bytes: self.budget.spent(),
            next,
        })
    }

    /// Searches the `more + 1` bytes at `machine`, to which `addr` is mapped.
    fn range(
        &mut self,
        mem: &impl Memory<MachineAddr>,
        addr: u64,
        machine: MachineAddr,
        more: u64,
    ) {
        let mut page = [0; PAGE_SIZE];
        // Offset of the next byte.
        let mut next = Some(0);
        while let Some(done) = next.filter(|done| *done <= more) {
            let Some((start, last)) = machine.checked_add(done).and_then(|at| mem.next_held(at))
            else {
                return;
            };
            let done = start.0 - machine.0;
            let (Some(addr), true) = (addr.checked_add(done), done <= more) else {
                return;
            };
            if self.is_done() {
                self.stop(addr);
                return;
            }
            let held = (last.0 - start.0).min(more - done).saturating_add(1);
            let wanted = usize::try_from(held.min(self.budget.remaining())).unwrap_or(usize::MAX);
            let size = self.borrowed(mem, addr, start, wanted).unwrap_or_else(|| {
                let size = wanted.min(PAGE_SIZE - start.page_offset());
                let part = page.get_mut(..size).unwrap_or_default();
                let readable = readable_prefix(mem, start, part);
                self.take(addr, part.get(..readable).unwrap_or_default());
                size
            }) as u64;
            next = done.checked_add(size);
            let _ = self.budget.spend(size.max(MIN_COST));
        }
    }

    /// Searches up to `wanted` bytes that can be borrowed; returns their number.
    fn borrowed(
        &mut self,
        mem: &impl Memory<MachineAddr>,
        addr: u64,
        machine: MachineAddr,
        wanted: usize,
    ) -> Option<usize> {
        let bytes = mem.borrow(machine);
        let bytes = bytes.get(..wanted).unwrap_or(bytes);
        if bytes.is_empty() {
            return None;
        }
        let (count, tail, end) = (self.found.len(), self.tail.clone(), self.end);
        self.take(addr, bytes);
        if !mem.is_intact() {
            self.found.truncate(count);
            (self.tail, self.end) = (tail, end);
            return None;
        }
        Some(bytes.len())
    }

    /// Searches the bytes at `addr`, and across the boundary to the previous piece if it is adjacent.
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
            // Short pieces are appended to the tail.
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
        let wanted = self.limit.saturating_sub(self.found.len());
        let places = self.finder.find_iter(bytes).take(wanted);
        for at in places.filter_map(|at| addr.checked_add(at as u64)) {
            if let Err(error) = self.found.try_reserve(1) {
                self.no_memory = Some(error);
                return;
            }
            self.found.push(at);
        }
    }
}

/// Reads bytes into `part` up to the first unreadable one; returns their number. Held memory is
/// unreadable where the file was truncated since it was opened, or has an I/O error.
fn readable_prefix(mem: &impl Memory<MachineAddr>, at: MachineAddr, part: &mut [u8]) -> usize {
    if mem.read(at, part).is_ok() {
        return part.len();
    }
    let (mut readable, mut failed) = (0, part.len());
    while failed - readable > 1 {
        let middle = readable.midpoint(failed);
        let prefix = part.get_mut(..middle).unwrap_or_default();
        if mem.read(at, prefix).is_ok() {
            readable = middle;
        } else {
            failed = middle;
        }
    }
    // A failed read leaves its buffer unspecified.
    let prefix = part.get_mut(..readable).unwrap_or_default();
    match mem.read(at, prefix) {
        Ok(()) => readable,
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Fault, Frames};
    use crate::paging::{Virtual, X86_64};
    use crate::space::Tables;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Results do not depend on how memory is split into pieces.
        #[test]
        fn results_do_not_depend_on_pieces(
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
    fn matches_do_not_cross_gaps() {
        let mut search = Search::new(b"abcd", 10, 100);
        search.take(0x1000, b"xxab");
        search.take(0x2000, b"cdxx");
        assert_eq!(search.found, []);
        search.take(0x2004, b"ab");
        search.take(0x2006, b"c");
        search.take(0x2007, b"d");
        assert_eq!(search.found, [0x2004]);
    }

    fn find<M: Memory<MachineAddr> + Send>(
        space: &Space<M>,
        needle: &[u8],
        (first, last): (u64, u64),
        limit: usize,
        max_bytes: u64,
    ) -> Found {
        let found = space.find(needle, first, last, limit, max_bytes);
        found.unwrap().unwrap()
    }

    fn in_pieces(
        space: &Space<Frames>,
        needle: &[u8],
        limit: usize,
        most: (u64, u64),
    ) -> (Found, usize) {
        let mut search = Pieces::new(needle, (0, u64::MAX), limit, most);
        let mut between = 0;
        while search.advance(space).unwrap().unwrap() {
            between += 1;
        }
        (search.found, between)
    }

    #[test]
    fn pieces_find_what_the_whole_finds() {
        let mut frames = Frames::default();
        for at in [0x1000, 0x1ffe, 0x2ffd, 0x5000, 0x7ffc] {
            frames.write(MachineAddr(at), b"abcd");
        }
        let space = Space::Machine(frames);
        let all = (0, u64::MAX);
        for limit in 0..7 {
            for most in [64, 0x1000, 0x2800, 1 << 20] {
                let whole = find(&space, b"abcd", all, limit, most);
                let (pieces, between) = in_pieces(&space, b"abcd", limit, (most, 0x1000));
                // Bytes at the end of a piece are searched twice.
                let known = pieces.places.len().min(whole.places.len());
                assert_eq!(pieces.places[..known], whole.places[..known]);
                assert!(pieces.bytes <= most && pieces.bytes >= whole.bytes.min(most));
                assert!(most <= 0x1000 || limit < 2 || between > 0);
                if most == 1 << 20 {
                    assert_eq!((pieces.places, pieces.next), (whole.places, whole.next));
                }
            }
        }
        // A needle that no piece can hold.
        let long = [b'a'; 0x3000];
        let (pieces, _) = in_pieces(&space, &long, 9, (1 << 20, 0x1000));
        assert_eq!(pieces.places, []);
    }

    #[test]
    fn an_empty_needle_has_no_matches() {
        let mut frames = Frames::default();
        frames.write(MachineAddr(0x1000), b"abc");
        let space = Space::Machine(frames);
        assert_eq!(find(&space, b"", (0, u64::MAX), 9, 100), Found::default());
    }

    #[test]
    fn holes_are_not_charged() {
        let mut frames = Frames::default();
        frames.write(MachineAddr(0x1ffe), b"abcd");
        frames.write(MachineAddr(0x5000), b"abcd");
        frames.write(MachineAddr(u64::MAX - 3), b"abcd");
        let space = Space::Machine(frames);
        let find = |range, limit, max_bytes| {
            let found = find(&space, b"abcd", range, limit, max_bytes);
            assert!(found.bytes <= max_bytes);
            (found.places, found.bytes, found.next)
        };
        let (all, last) = ((0, u64::MAX), u64::MAX - 3);
        assert_eq!(
            find(all, 9, 1 << 20),
            (vec![0x1ffe, 0x5000, last], 0x4000, None)
        );
        assert_eq!(find((last, u64::MAX), 9, 0x1000), (vec![last], 64, None));
        // Stopped by the limit on matches, and by the limit on bytes.
        assert_eq!(find(all, 1, 1 << 20), (vec![0x1ffe], 0x2000, Some(0x1fff)));
        assert_eq!(
            find(all, 9, 0x2800),
            (vec![0x1ffe, 0x5000], 0x2800, Some(0x57fd))
        );
        assert_eq!(find(all, 0, 1), (vec![], 0, Some(0xffd)));
        assert_eq!(find((0x2000, 0x5003), 10, 1 << 20).0, [0x5000]);
        assert_eq!(find((9, 3), 10, 1 << 20), (vec![], 0, None));
    }

    /// Memory that holds single bytes.
    #[derive(Clone, Debug)]
    struct Sparse(BTreeMap<u64, u8>);

    impl Memory<MachineAddr> for Sparse {
        fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
            for (i, byte) in buf.iter_mut().enumerate() {
                let at = addr.0 + i as u64;
                *byte = *self.0.get(&at).ok_or(Fault::NoSegment(MachineAddr(at)))?;
            }
            Ok(())
        }

        fn next_held(&self, addr: MachineAddr) -> Option<(MachineAddr, MachineAddr)> {
            let (&start, _) = self.0.range(addr.0..).next()?;
            let held = self.0.range(start..).zip(start..);
            let run = held.take_while(|((at, _), expected)| **at == *expected);
            Some((MachineAddr(start), MachineAddr(run.last()?.1)))
        }
    }

    /// The same, but a page cannot be read past its first missing byte.
    struct Truncated(Sparse);

    impl Memory<MachineAddr> for Truncated {
        fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
            self.0.read(addr, buf)
        }
    }

    proptest! {
        /// For any held parts of pages, and any interruption of the search.
        #[test]
        fn all_readable_matches_are_found(
            pieces in prop::collection::vec((0u64..0x5000, 1u64..0x1800), 0..8),
            places in prop::collection::vec(0u64..0x5000, 0..40),
            max_bytes in 64u64..0x8000,
        ) {
            let mut bytes = BTreeMap::new();
            for (start, len) in pieces {
                bytes.extend((start..start + len).map(|at| (at, 0)));
            }
            for place in places {
                for (at, value) in (place..).zip(*b"abcd") {
                    bytes.entry(at).and_modify(|byte| *byte = value);
                }
            }
            let mem = Sparse(bytes);
            let readable = (0..0x8000).filter(|at| {
                mem.read_bytes(MachineAddr(*at)).is_ok_and(|found: [u8; 4]| &found == b"abcd")
            });
            let readable: Vec<u64> = readable.collect();
            let space = Space::Machine(mem.clone());
            let (mut found, mut next) = (Vec::new(), Some(0));
            while let Some(first) = next {
                let part = find(&space, b"abcd", (first, u64::MAX), 3, max_bytes);
                prop_assert!(part.bytes <= max_bytes);
                prop_assert!(part.next.is_none_or(|next| next > first || first == 0));
                found.extend(part.places);
                next = part.next;
            }
            prop_assert_eq!(&found, &readable);
            // Bytes from the start of a page on up to a hole.
            let aligned = Space::Machine(Truncated(mem));
            let found = find(&aligned, b"abcd", (0, 0x7fff), 9999, 1 << 20).places;
            prop_assert!(found.iter().all(|at| readable.contains(at)));
        }
    }

    #[test]
    fn a_truncated_page_is_searched_up_to_its_end() {
        let bytes = (0x1000..0x1804).zip(b"abcd".iter().copied().cycle());
        let space = Space::Machine(Truncated(Sparse(bytes.collect())));
        let found = find(&space, b"abcd", (0, 0x3000), 9999, 1 << 20);
        assert_eq!(
            found.places,
            (0x1000..0x1804).step_by(4).collect::<Vec<_>>()
        );
    }

    /// For each table that is present, 63 are absent.
    #[test]
    fn absent_tables_are_charged() {
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
        let space = Space::Virtual(Virtual::new(
            Tables::Machine(mem),
            &X86_64,
            MachineAddr(0x1000),
        ));
        let limit = 1 << 20;
        let found = find(&space, b"abcd", (0, u64::MAX), 100, limit);
        // As many pages as the limit allows, of which one in 64 is present.
        assert_eq!((found.places.len(), found.bytes), (4, limit));
        assert!(found.next.is_some());
    }
}
