//! Which bytes of a file hold which machine addresses.
//!
//! For formats that keep memory as plain bytes. Segments may be unsorted and overlap (kexec-tools
//! lists the low 640 KiB twice on some machines), so they are first cut into disjoint runs; a lookup
//! is then a binary search.

use std::collections::BinaryHeap;

use super::container::{Run, Segment};
use crate::addr::{MachineAddr, Mfn, PAGE_SIZE};
use crate::alloc;
use crate::fault::Fault;
use crate::file::{ReadError, Storage};
use crate::limits::MAX_RUN_BUCKETS;

/// A run of machine addresses whose bytes are contiguous in the file.
#[derive(Clone, Copy, Debug)]
struct Held {
    start: u64,
    /// The last address, not the one after it: a run may end at 2^64 - 1.
    last: u64,
    /// File offset of `start`.
    offset: u64,
}

/// A run of machine addresses that the file covers, but without bytes of it.
#[derive(Clone, Copy, Debug)]
struct Absent {
    start: u64,
    last: u64,
    why: Why,
}

/// Why the file has no bytes.
#[derive(Clone, Copy, Debug)]
enum Why {
    Excluded,
    Empty,
    /// The file was truncated before this offset.
    Truncated(u64),
}

/// The machine addresses that a file holds, as disjoint runs in ascending order.
#[derive(Debug, Default)]
pub(super) struct RunMap {
    held: Vec<Held>,
    absent: Vec<Absent>,
    index: Index,
}

impl RunMap {
    /// Cuts `segments` into runs for a file of `file_len` bytes. Where segments overlap, the first
    /// one in the file that has bytes wins. O(n log n) however they overlap.
    pub fn of_segments(segments: &[Segment], file_len: u64) -> Self {
        Self::of(disjoint(&pieces_of(segments, file_len)))
    }

    /// A map of single pages: frame number and file offset of each, in any order. Of several pages
    /// with one frame number the first in the file wins.
    pub fn of_pages(mut pages: Vec<(Mfn, u64)>, file_len: u64) -> Self {
        const SIZE: u64 = PAGE_SIZE as u64;
        pages.sort_unstable();
        pages.dedup_by_key(|(mfn, _)| *mfn);
        let mut pieces = Vec::new();
        for (mfn, offset) in pages {
            let Some(start) = mfn.addr() else { continue };
            let page = Piece {
                start: start.0,
                last: start.0.saturating_add(SIZE - 1),
                backing: match offset.checked_add(SIZE) {
                    Some(end) if end <= file_len => Backing::File(offset),
                    // A truncated page is treated as missing as a whole.
                    _ => Backing::PastEnd(offset),
                },
            };
            push_joined(&mut pieces, &page, page.start, page.last);
        }
        Self::of(pieces)
    }

    /// A map of `pieces` of which later ones replace earlier ones.
    pub fn of_layers(pieces: &[Piece]) -> Self {
        Self::of(top_layer(pieces))
    }

    fn of(pieces: Vec<Piece>) -> Self {
        let (mut held, mut absent) = (Vec::new(), Vec::new());
        for Piece {
            start,
            last,
            backing,
        } in pieces
        {
            let why = match backing {
                Backing::File(offset) => {
                    let run = Held {
                        start,
                        last,
                        offset,
                    };
                    alloc::push(&mut held, run);
                    continue;
                }
                Backing::PastEnd(offset) => Why::Truncated(offset),
                Backing::Excluded => Why::Excluded,
                Backing::Empty => Why::Empty,
                Backing::Gone => continue,
            };
            alloc::push(&mut absent, Absent { start, last, why });
        }
        held.shrink_to_fit();
        absent.shrink_to_fit();
        Self {
            index: Index::of(&held),
            held,
            absent,
        }
    }

    /// Bytes of the file that hold memory. Bytes that are held under many addresses count once.
    pub fn distinct_bytes(&self) -> u64 {
        // Within the file, so no sum can wrap.
        let ends = |run: &Held| (run.offset, run.offset + size(run.start, run.last));
        let mut ranges = alloc::collect(self.held.iter().map(ends));
        ranges.sort_unstable();
        let (mut sum, mut counted) = (0, 0);
        for (start, end) in ranges {
            sum += end.saturating_sub(start.max(counted));
            counted = counted.max(end);
        }
        sum
    }

    /// Bytes of memory that there was, in the file or not.
    pub fn memory_size(&self) -> u64 {
        let held = self.held.iter().map(|run| size(run.start, run.last));
        let absent = self.absent.iter().map(|run| size(run.start, run.last));
        held.chain(absent).fold(0, u64::saturating_add)
    }

    /// Bytes of memory that segments claim and the truncated file no longer has.
    pub fn truncated_bytes(&self) -> u64 {
        let truncated = self.absent.iter();
        let truncated = truncated.filter(|run| matches!(run.why, Why::Truncated(_)));
        truncated
            .map(|run| size(run.start, run.last))
            .fold(0, u64::saturating_add)
    }

    /// The first run at `addr` or after it, cut to start at `addr`.
    pub fn next_run(&self, addr: MachineAddr) -> Option<Run> {
        let after = self.index.after(&self.held, addr.0);
        let rest = self.held.get(after.saturating_sub(1)..)?;
        let run = rest.iter().find(|run| run.last >= addr.0)?;
        Some(Run {
            start: MachineAddr(run.start.max(addr.0)),
            last: MachineAddr(run.last),
        })
    }

    /// Fills `buf` with the bytes at `addr`.
    // In each container a part of its `read`: a call costs as much as the look-up.
    #[inline(always)]
    pub fn read<S: Storage>(
        &self,
        storage: &S,
        addr: MachineAddr,
        buf: &mut [u8],
    ) -> Result<(), Fault> {
        match self.run(addr) {
            Some(run) if (buf.len() as u64).wrapping_sub(1) <= run.last - addr.0 => {
                let offset = run.offset_of(addr);
                storage
                    .read_at(offset, buf)
                    .map_err(|error| fault(addr, offset, error))
            }
            _ => self.read_runs(storage, addr, buf),
        }
    }

    /// Reads from several runs.
    #[cold]
    #[inline(never)]
    fn read_runs<S: Storage>(
        &self,
        storage: &S,
        addr: MachineAddr,
        buf: &mut [u8],
    ) -> Result<(), Fault> {
        let len = buf.len() as u64;
        let mut rest = buf;
        let mut at = addr;
        while !rest.is_empty() {
            let run = self.run(at).ok_or_else(|| self.absence(at))?;
            let offset = run.offset_of(at);
            // Bytes in the file fit in the address space.
            let n = rest.len().min(size(at.0, run.last) as usize);
            let (part, tail) = rest.split_at_mut(n);
            storage
                .read_at(offset, part)
                .map_err(|error| fault(at, offset, error))?;
            rest = tail;
            if !rest.is_empty() {
                at = MachineAddr(
                    at.0.checked_add(n as u64)
                        .ok_or(Fault::Wraps { addr: addr.0, len })?,
                );
            }
        }
        Ok(())
    }

    /// The bytes at `addr` up to the end of the run, as far as they can be borrowed.
    #[inline]
    pub fn borrow<'s, S: Storage>(&self, storage: &'s S, addr: MachineAddr) -> &'s [u8] {
        self.run(addr).map_or(&[], |run| {
            storage.borrow(run.offset_of(addr), size(addr.0, run.last))
        })
    }

    /// The run that holds `addr`, as far as it can be borrowed, and the address of its first byte.
    #[inline]
    pub fn borrow_around<'s, S: Storage>(
        &self,
        storage: &'s S,
        addr: MachineAddr,
    ) -> (MachineAddr, &'s [u8]) {
        self.run(addr).map_or((addr, &[]), |run| {
            let bytes = storage.borrow(run.offset, size(run.start, run.last));
            if bytes.len() as u64 > addr.0 - run.start {
                return (MachineAddr(run.start), bytes);
            }
            // A storage that is in pieces.
            let offset = run.offset_of(addr);
            (addr, storage.borrow(offset, size(addr.0, run.last)))
        })
    }

    #[inline(always)]
    fn run(&self, addr: MachineAddr) -> Option<&Held> {
        let after = self.index.after(&self.held, addr.0);
        let run = self.held.get(after.checked_sub(1)?)?;
        (addr.0 <= run.last).then_some(run)
    }

    /// Why the file does not hold `addr`.
    fn absence(&self, addr: MachineAddr) -> Fault {
        let after = self.absent.partition_point(|run| run.start <= addr.0);
        let run = after.checked_sub(1).and_then(|i| self.absent.get(i));
        match run.filter(|run| addr.0 <= run.last) {
            None => Fault::NoSegment(addr),
            Some(&Absent { start, why, .. }) => match why {
                Why::Excluded => Fault::Excluded(addr),
                Why::Empty => Fault::NoContents(addr),
                Why::Truncated(offset) => Fault::Truncated {
                    addr,
                    offset: offset.saturating_add(addr.0 - start),
                },
            },
        }
    }
}

impl Held {
    /// File offset of an address in the run; within the file, so the sum cannot wrap.
    #[inline]
    fn offset_of(&self, addr: MachineAddr) -> u64 {
        self.offset + (addr.0 - self.start)
    }
}

/// Number of addresses from `start` to `last`.
#[inline]
fn size(start: u64, last: u64) -> u64 {
    (last - start).saturating_add(1)
}

/// The fault for a failed read at `addr`, which is at `offset` of the file.
#[cold]
pub(super) fn fault(addr: MachineAddr, offset: u64, error: ReadError) -> Fault {
    match error {
        ReadError::PastEnd => Fault::Truncated { addr, offset },
        ReadError::Os(errno) => Fault::Io {
            addr,
            offset,
            errno,
        },
        ReadError::Corrupt { offset, reason } => Fault::Corrupt {
            addr,
            offset,
            reason,
        },
    }
}

/// Buckets of equal address ranges. With them a search compares one or two runs.
#[derive(Debug, Default)]
struct Index {
    /// The first address of the first bucket.
    first: u64,
    /// log2 of the addresses of a bucket.
    shift: u32,
    /// Number of runs that start before each bucket; one element more than there are buckets.
    before: Box<[usize]>,
}

impl Index {
    fn of(runs: &[Held]) -> Self {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return Self::default();
        };
        let (first, span) = (first.start, last.start - first.start);
        let wanted = runs.len().saturating_mul(16).min(MAX_RUN_BUCKETS) as u64;
        let mut shift = 12;
        while span >> shift >= wanted {
            shift += 1;
        }
        let mut before = Vec::new();
        let mut count = 0;
        for bucket in 0..=(span >> shift) {
            let start = first + (bucket << shift);
            while runs.get(count).is_some_and(|run| run.start < start) {
                count += 1;
            }
            alloc::push(&mut before, count);
        }
        alloc::push(&mut before, runs.len());
        Self {
            first,
            shift,
            before: before.into_boxed_slice(),
        }
    }

    /// How many runs start at `addr` or before it.
    #[inline(always)]
    fn after(&self, runs: &[Held], addr: u64) -> usize {
        let Some(into) = addr.checked_sub(self.first) else {
            return 0;
        };
        let bucket = usize::try_from(into >> self.shift).unwrap_or(usize::MAX);
        let Some([from, to]) = self.before.get(bucket..).and_then(<[_]>::first_chunk) else {
            // Past the start of the last run.
            return runs.len();
        };
        let starts = |run: &Held| run.start <= addr;
        match to - from {
            0 => *from,
            1 => from + usize::from(runs.get(*from).is_some_and(starts)),
            _ => Self::among(runs, *from, *to, addr),
        }
    }

    /// The same for a bucket of several runs.
    #[inline(never)]
    fn among(runs: &[Held], from: usize, to: usize, addr: u64) -> usize {
        let own = runs.get(from..to).unwrap_or_default();
        from + own.partition_point(|run| run.start <= addr)
    }
}

/// Where the bytes of a piece are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backing {
    /// In the file, at this offset.
    File(u64),
    /// At this offset, had the file not been truncated.
    PastEnd(u64),
    /// Nowhere: `p_filesz` < `p_memsz`.
    Excluded,
    /// Nowhere: a page that is listed without its contents.
    Empty,
    /// Nowhere: there is no memory any more.
    Gone,
}

/// Addresses with one backing, before and after overlaps are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub start: u64,
    /// The last address, not the one after it.
    pub last: u64,
    pub backing: Backing,
}

/// Cuts each segment into what the file holds, what was truncated, and what was excluded. In order of
/// preference: pieces with bytes first, in file order.
fn pieces_of(segments: &[Segment], file_len: u64) -> Vec<Piece> {
    let mut with_bytes = Vec::new();
    let mut without = Vec::new();
    for segment in segments {
        let size = segment.memory_size.max(segment.file_size);
        let in_file = file_len
            .saturating_sub(segment.offset)
            .min(segment.file_size);
        let parts = [
            (0, in_file, Backing::File(segment.offset)),
            (
                in_file,
                segment.file_size,
                Backing::PastEnd(segment.offset.saturating_add(in_file)),
            ),
            (segment.file_size, size, Backing::Excluded),
        ];
        for (from, to, backing) in parts {
            if from >= to {
                continue;
            }
            let Some(start) = segment.start.0.checked_add(from) else {
                continue;
            };
            let piece = Piece {
                start,
                last: start.saturating_add(to - from - 1),
                backing,
            };
            if matches!(backing, Backing::File(_)) {
                alloc::push(&mut with_bytes, piece);
            } else {
                alloc::push(&mut without, piece);
            }
        }
    }
    alloc::extend(&mut with_bytes, &without);
    with_bytes
}

/// Resolves overlaps: the first of the pieces with an address wins.
fn disjoint(pieces: &[Piece]) -> Vec<Piece> {
    sweep(pieces, |index| pieces.len() - index)
}

/// Resolves overlaps: the last of the pieces with an address wins.
pub(super) fn top_layer(pieces: &[Piece]) -> Vec<Piece> {
    sweep(pieces, |index| index)
}

/// Resolves overlaps by a sweep over the ends of the pieces: between two ends, the open one of the
/// highest rank wins.
fn sweep(pieces: &[Piece], rank: impl Fn(usize) -> usize) -> Vec<Piece> {
    // (address, whether it opens, index); a piece closes at the address after its last, and one
    // that ends at 2^64 - 1 never does.
    let mut ends: Vec<(u64, bool, usize)> = alloc::with_capacity(pieces.len() * 2);
    for (i, piece) in pieces.iter().enumerate() {
        ends.push((piece.start, true, i));
        if let Some(close) = piece.last.checked_add(1) {
            ends.push((close, false, i));
        }
    }
    ends.sort_unstable();

    let mut result: Vec<Piece> = alloc::with_capacity(pieces.len());
    // The one of the highest rank is on top. Closed pieces stay until they get there.
    let mut open = BinaryHeap::new();
    let mut i = 0;
    while let Some(&(start, _, _)) = ends.get(i) {
        while let Some(&(at, opens, piece)) = ends.get(i) {
            if at != start {
                break;
            }
            if opens {
                alloc::push_heap(&mut open, (rank(piece), piece));
            }
            i += 1;
        }
        let last = ends.get(i).map_or(u64::MAX, |&(next, _, _)| next - 1);
        while let Some(piece) = open.peek().and_then(|top| pieces.get(top.1)) {
            if piece.last >= start {
                push_joined(&mut result, piece, start, last);
                break;
            }
            open.pop();
        }
    }
    result
}

/// Appends the part of `piece` from `start` to `last`, or extends the last piece if both the addresses
/// and the file offsets continue.
pub(super) fn push_joined(pieces: &mut Vec<Piece>, piece: &Piece, start: u64, last: u64) {
    let into = start - piece.start;
    let backing = match piece.backing {
        Backing::File(offset) => Backing::File(offset.saturating_add(into)),
        Backing::PastEnd(offset) => Backing::PastEnd(offset.saturating_add(into)),
        other @ (Backing::Excluded | Backing::Empty | Backing::Gone) => other,
    };
    if let Some(previous) = pieces.last_mut() {
        let length = previous.last - previous.start;
        let adjoins = previous.last.checked_add(1) == Some(start);
        let continues = match (previous.backing, backing) {
            (Backing::File(a), Backing::File(b)) | (Backing::PastEnd(a), Backing::PastEnd(b)) => {
                a.checked_add(length).and_then(|end| end.checked_add(1)) == Some(b)
            }
            (Backing::Excluded, Backing::Excluded)
            | (Backing::Empty, Backing::Empty)
            | (Backing::Gone, Backing::Gone) => true,
            _ => false,
        };
        if adjoins && continues {
            previous.last = last;
            return;
        }
    }
    let piece = Piece {
        start,
        last,
        backing,
    };
    alloc::push(pieces, piece);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    impl RunMap {
        /// File offset of `addr` and the number of contiguous bytes there.
        fn locate(&self, addr: MachineAddr) -> Result<(u64, u64), Fault> {
            let run = self.run(addr).ok_or_else(|| self.absence(addr))?;
            Ok((run.offset_of(addr), size(addr.0, run.last)))
        }
    }

    fn segment(start: u64, offset: u64, file_size: u64, memory_size: u64) -> Segment {
        Segment {
            start: MachineAddr(start),
            offset,
            file_size,
            memory_size,
        }
    }

    #[test]
    fn unsorted_segments_are_found_and_adjacent_ones_joined() {
        let map = RunMap::of_segments(
            &[
                segment(0x3000, 0x500, 0x1000, 0x1000),
                segment(0x1000, 0x1500, 0x1000, 0x1000),
                segment(0x2000, 0x2500, 0x1000, 0x1000),
            ],
            0x10000,
        );
        assert_eq!(map.locate(MachineAddr(0x1004)), Ok((0x1504, 0x1ffc)));
        assert_eq!(map.locate(MachineAddr(0x3fff)), Ok((0x14ff, 1)));
        assert_eq!(
            map.locate(MachineAddr(0x4000)),
            Err(Fault::NoSegment(MachineAddr(0x4000)))
        );
    }

    #[test]
    fn later_layers_replace_earlier_ones() {
        let piece = |start, last, backing| Piece {
            start,
            last,
            backing,
        };
        let map = RunMap::of_layers(&[
            piece(0, 0x5fff, Backing::File(0x100)),
            piece(0x1000, 0x1fff, Backing::File(0x9000)),
            piece(0x2000, 0x2fff, Backing::Gone),
            piece(0x3000, 0x3fff, Backing::Empty),
            piece(0x4000, 0x4fff, Backing::PastEnd(0xa000)),
            piece(0x2000, 0x27ff, Backing::File(0xb000)),
        ]);
        assert_eq!(map.locate(MachineAddr(0xfff)), Ok((0x10ff, 1)));
        assert_eq!(map.locate(MachineAddr(0x1000)), Ok((0x9000, 0x1000)));
        assert_eq!(map.locate(MachineAddr(0x2000)), Ok((0xb000, 0x800)));
        let faults = [0x2800, 0x3000, 0x4001].map(|at| map.locate(MachineAddr(at)).unwrap_err());
        let [gone, excluded, lost] = [0x2800, 0x3000, 0x4001].map(MachineAddr);
        assert_eq!(
            faults,
            [
                Fault::NoSegment(gone),
                Fault::NoContents(excluded),
                Fault::Truncated {
                    addr: lost,
                    offset: 0xa001
                }
            ]
        );
        assert_eq!(map.locate(MachineAddr(0x5000)), Ok((0x5100, 0x1000)));
        assert_eq!(map.memory_size(), 0x5800);
    }

    #[test]
    fn excluded_and_truncated_memory_are_distinguished() {
        let map = RunMap::of_segments(&[segment(0x1000, 0x100, 0x800, 0x1000)], 0x500);
        assert_eq!(map.locate(MachineAddr(0x13ff)), Ok((0x4ff, 1)));
        assert_eq!(
            map.locate(MachineAddr(0x1400)),
            Err(Fault::Truncated {
                addr: MachineAddr(0x1400),
                offset: 0x500
            })
        );
        assert_eq!(
            map.locate(MachineAddr(0x1800)),
            Err(Fault::Excluded(MachineAddr(0x1800)))
        );
        assert_eq!(map.truncated_bytes(), 0x400);
        assert_eq!(map.distinct_bytes(), 0x400);
        let next = |addr| {
            let run = map.next_run(MachineAddr(addr))?;
            Some((run.start.0, run.last.0))
        };
        assert_eq!(next(0), Some((0x1000, 0x13ff)));
        assert_eq!(next(0x13ff), Some((0x13ff, 0x13ff)));
        assert_eq!(next(0x1400), None);
    }

    #[test]
    fn bytes_win_over_none_and_the_first_segment_over_the_second() {
        let map = RunMap::of_segments(
            &[
                segment(0x1000, 0x0, 0x0, 0x3000),
                segment(0x1000, 0x100, 0x1000, 0x1000),
                segment(0x1800, 0x4000, 0x1000, 0x1000),
            ],
            0x10000,
        );
        assert_eq!(map.locate(MachineAddr(0x1900)), Ok((0xa00, 0x700)));
        assert_eq!(map.locate(MachineAddr(0x2000)), Ok((0x4800, 0x800)));
        assert_eq!(
            map.locate(MachineAddr(0x2800)),
            Err(Fault::Excluded(MachineAddr(0x2800)))
        );
    }

    #[test]
    fn single_pages_are_joined_and_the_first_of_two_wins() {
        let pages = vec![
            (Mfn(9), 0x1000),
            (Mfn(5), 0x2000),
            (Mfn(6), 0x3000),
            (Mfn(5), 0x4000),
            (Mfn(7), 0x5000),
            (Mfn(u64::MAX), 0x6000),
        ];
        let map = RunMap::of_pages(pages, 0x5800);
        assert_eq!(map.locate(MachineAddr(0x5004)), Ok((0x2004, 0x1ffc)));
        assert_eq!(map.locate(MachineAddr(0x9fff)), Ok((0x1fff, 1)));
        assert_eq!(
            map.locate(MachineAddr(0x7000)),
            Err(Fault::Truncated {
                addr: MachineAddr(0x7000),
                offset: 0x5000
            })
        );
        assert_eq!(
            map.locate(MachineAddr(0x8000)),
            Err(Fault::NoSegment(MachineAddr(0x8000)))
        );
    }

    #[test]
    fn bytes_that_are_held_twice_count_once() {
        let map = RunMap::of_segments(
            &[
                segment(0x1000, 0x100, 0x1000, 0x1000),
                segment(0x5000, 0x100, 0x1000, 0x1000),
                segment(0x9000, 0x900, 0x1000, 0x1000),
                segment(0xd000, 0x3000, 0x1000, 0x1000),
            ],
            0x3800,
        );
        assert_eq!(map.distinct_bytes(), 0x1800 + 0x800);
    }

    #[test]
    fn a_segment_may_reach_the_last_address() {
        let map = RunMap::of_segments(&[segment(u64::MAX - 0xf, 0, u64::MAX, u64::MAX)], 0x100);
        assert_eq!(map.locate(MachineAddr(u64::MAX)), Ok((0xf, 1)));
    }

    proptest! {
        /// Wherever in the address space the runs are, near each other or far apart.
        #[test]
        fn the_index_leads_to_the_run(
            starts in prop::collection::btree_set((0u64..1 << 16, 0u32..48), 1..60),
        ) {
            let starts: BTreeSet<u64> = starts.iter().map(|(n, shift)| n << shift).collect();
            let runs: Vec<_> = starts
                .iter()
                .map(|start| Held { start: *start, last: *start, offset: 0 })
                .collect();
            let index = Index::of(&runs);
            let near = starts.iter().flat_map(|start| [start.saturating_sub(1), *start, start + 1]);
            for addr in near.chain([0, u64::MAX]) {
                let expected = runs.iter().filter(|run| run.start <= addr).count();
                prop_assert_eq!(index.after(&runs, addr), expected);
            }
        }

        /// Against a linear scan: for each byte, the first segment that has it.
        #[test]
        fn agrees_with_a_linear_scan(
            raw in prop::collection::vec((0u64..64, 0u64..64, 0u64..32, 0u64..32), 0..12),
            file_len in 0u64..80,
        ) {
            let segments: Vec<_> = raw.iter().map(|&(s, o, f, m)| segment(s, o, f, m.max(f))).collect();
            let map = RunMap::of_segments(&segments, file_len);
            let mut used = BTreeSet::new();
            for addr in 0u64..128 {
                let expected = segments.iter().find_map(|s| {
                    let into = addr.checked_sub(s.start.0)?;
                    (into < s.file_size && s.offset + into < file_len).then_some(s.offset + into)
                });
                let found = map.locate(MachineAddr(addr)).ok().map(|(offset, _)| offset);
                prop_assert_eq!(found, expected);
                used.extend(found);
                if let Ok((offset, run)) = map.locate(MachineAddr(addr)) {
                    prop_assert!(run > 0 && offset + run <= file_len);
                }
            }
            prop_assert_eq!(map.distinct_bytes(), used.len() as u64);
        }
    }
}
