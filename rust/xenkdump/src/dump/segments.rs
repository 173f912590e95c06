//! Which bytes of the file hold which machine addresses.
//!
//! Segments may come unsorted and overlap (kexec-tools lists the low 640 KiB twice on some
//! machines), so they are first cut into disjoint pieces; a lookup is then a binary search.

use std::collections::BTreeSet;

use crate::addr::{MachineAddr, Mfn, PAGE_SIZE};
use crate::memory::Fault;

/// A PT_LOAD as the file states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `p_paddr`.
    pub start: MachineAddr,
    /// `p_offset`.
    pub offset: u64,
    /// `p_filesz`.
    pub file_size: u64,
    /// `p_memsz`.
    pub memory_size: u64,
}

/// Where the bytes of a run of machine addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backing {
    /// In the file, from this offset on.
    File(u64),
    /// Where the file should have gone on to, had it not been cut: from this offset on.
    PastEnd(u64),
    /// Nowhere: `p_filesz` < `p_memsz`.
    Excluded,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u64,
    /// The last address, not the one after it: a piece may end at 2^64 - 1.
    last: u64,
    backing: Backing,
}

/// The segments of a dump, cut into disjoint pieces in the order of their addresses.
#[derive(Debug, Default)]
pub struct SegmentMap {
    segments: Vec<Segment>,
    pieces: Vec<Piece>,
    index: Index,
}

impl SegmentMap {
    /// Cuts `segments` into pieces for a file of `file_len` bytes. Where segments overlap, the
    /// first one in the file that has bytes wins. O(n log n) however they overlap.
    pub fn new(segments: Vec<Segment>, file_len: u64) -> Self {
        let ranges = ranges_of(&segments, file_len);
        Self::of(segments, disjoint(&ranges))
    }

    /// A map of single pages: frame number and file offset of each, in any order. Where a frame comes
    /// twice, the one that stands first in the file wins.
    pub fn from_pages(mut pages: Vec<(Mfn, u64)>, file_len: u64) -> Self {
        const SIZE: u64 = PAGE_SIZE as u64;
        pages.sort_unstable();
        pages.dedup_by_key(|(mfn, _)| *mfn);
        let mut pieces = Vec::new();
        for (mfn, offset) in pages {
            let Some(start) = mfn.addr() else { continue };
            let range = Range {
                start: start.0,
                last: start.0.saturating_add(SIZE - 1),
                backing: match offset.checked_add(SIZE) {
                    Some(end) if end <= file_len => Backing::File(offset),
                    // The part of the page that a cut file may still hold is not worth a piece.
                    _ => Backing::PastEnd(offset),
                },
            };
            push_joined(&mut pieces, &range, range.start, range.last);
        }
        pieces.shrink_to_fit();
        Self::of(Vec::new(), pieces)
    }

    fn of(segments: Vec<Segment>, pieces: Vec<Piece>) -> Self {
        Self {
            index: Index::of(&pieces),
            segments,
            pieces,
        }
    }

    /// The segments as the file states them, in the file's order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// How many bytes of memory the segments claim that the cut file no longer has.
    pub fn truncated_bytes(&self) -> u64 {
        self.pieces
            .iter()
            .filter(|piece| matches!(piece.backing, Backing::PastEnd(_)))
            .fold(0, |sum, piece| {
                sum.saturating_add((piece.last - piece.start).saturating_add(1))
            })
    }

    /// The runs of addresses that have bytes in the file, ascending: first and last address.
    pub fn present(&self) -> impl Iterator<Item = (MachineAddr, MachineAddr)> + '_ {
        self.pieces
            .iter()
            .filter(|piece| matches!(piece.backing, Backing::File(_)))
            .map(|piece| (MachineAddr(piece.start), MachineAddr(piece.last)))
    }

    /// The file offset of `addr`, and how many bytes from there on lie together.
    #[inline]
    pub fn locate(&self, addr: MachineAddr) -> Result<(u64, u64), Fault> {
        let piece = self.piece(addr).ok_or(Fault::NoSegment(addr))?;
        let into = addr.0 - piece.start;
        match piece.backing {
            // Offset and length lie within the file, so neither sum can wrap.
            Backing::File(offset) => Ok((offset + into, (piece.last - addr.0).saturating_add(1))),
            Backing::PastEnd(offset) => Err(Fault::Truncated {
                addr,
                offset: offset.saturating_add(into),
            }),
            Backing::Excluded => Err(Fault::Excluded(addr)),
        }
    }

    /// The piece of the file that holds `addr`: the address of its first byte, its file offset and
    /// its length.
    #[inline]
    pub fn locate_around(&self, addr: MachineAddr) -> Option<(MachineAddr, u64, u64)> {
        let piece = self.piece(addr)?;
        match piece.backing {
            Backing::File(offset) => {
                let len = (piece.last - piece.start).saturating_add(1);
                Some((MachineAddr(piece.start), offset, len))
            }
            Backing::PastEnd(_) | Backing::Excluded => None,
        }
    }

    /// The first address from `addr` to before `end` that has a byte in the file; where many pieces
    /// without bytes lie before it, that of one of them.
    pub fn next_held(&self, addr: MachineAddr, end: MachineAddr) -> Option<MachineAddr> {
        let after = self.index.after(&self.pieces, addr.0);
        let rest = self.pieces.get(after.saturating_sub(1)..)?;
        rest.iter()
            .take_while(|piece| piece.start < end.0)
            .filter(|piece| piece.last >= addr.0)
            .enumerate()
            .find(|(i, piece)| *i == EMPTY || matches!(piece.backing, Backing::File(_)))
            .map(|(_, piece)| MachineAddr(piece.start.max(addr.0)))
    }

    #[inline]
    fn piece(&self, addr: MachineAddr) -> Option<&Piece> {
        let after = self.index.after(&self.pieces, addr.0);
        let piece = self.pieces.get(after.checked_sub(1)?)?;
        (addr.0 <= piece.last).then_some(piece)
    }
}

/// So many pieces without bytes are passed over at a time.
const EMPTY: usize = 64;

/// Where in the list of pieces those of an address are: a bucket for each stretch of as many
/// addresses, so that a search has a piece or two to look at.
#[derive(Debug, Default)]
struct Index {
    first: u64,
    /// log2 of the addresses of a bucket.
    shift: u32,
    /// How many pieces start before each bucket; one more than there are buckets.
    before: Box<[usize]>,
}

/// Buckets, at most: of 512 KiB together.
const BUCKETS: usize = 1 << 16;

impl Index {
    fn of(pieces: &[Piece]) -> Self {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            return Self::default();
        };
        let (first, span) = (first.start, last.start - first.start);
        let wanted = pieces.len().saturating_mul(16).min(BUCKETS) as u64;
        let mut shift = 12;
        while span >> shift >= wanted {
            shift += 1;
        }
        let mut before = Vec::new();
        let mut count = 0;
        for bucket in 0..=(span >> shift) {
            let start = first + (bucket << shift);
            while pieces.get(count).is_some_and(|piece| piece.start < start) {
                count += 1;
            }
            before.push(count);
        }
        before.push(pieces.len());
        Self {
            first,
            shift,
            before: before.into_boxed_slice(),
        }
    }

    /// How many pieces start at `addr` or before it.
    #[inline]
    fn after(&self, pieces: &[Piece], addr: u64) -> usize {
        let Some(into) = addr.checked_sub(self.first) else {
            return 0;
        };
        let bucket = usize::try_from(into >> self.shift).unwrap_or(usize::MAX);
        let Some([from, to]) = self.before.get(bucket..).and_then(<[_]>::first_chunk) else {
            // Past the start of the last one.
            return pieces.len();
        };
        let own = pieces.get(*from..*to).unwrap_or_default();
        match own {
            [] => *from,
            [piece] => from + usize::from(piece.start <= addr),
            _ => from + own.partition_point(|piece| piece.start <= addr),
        }
    }
}

/// One run of one segment, before overlaps are resolved.
struct Range {
    start: u64,
    last: u64,
    backing: Backing,
}

/// Cuts each segment into what the file holds, what was cut off, and what was left out. The order
/// is that of preference: bytes first, in the order of the file.
fn ranges_of(segments: &[Segment], file_len: u64) -> Vec<Range> {
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
            let range = Range {
                start,
                last: start.saturating_add(to - from - 1),
                backing,
            };
            if matches!(backing, Backing::File(_)) {
                with_bytes.push(range);
            } else {
                without.push(range);
            }
        }
    }
    with_bytes.append(&mut without);
    with_bytes
}

/// Sweeps over the ranges' ends; between two ends, the first of the ranges that are open wins.
fn disjoint(ranges: &[Range]) -> Vec<Piece> {
    // (address, is it an opening, range); a range closes at the address after its last, and one
    // that ends at 2^64 - 1 never does.
    let mut ends: Vec<(u64, bool, usize)> = Vec::with_capacity(ranges.len() * 2);
    for (i, range) in ranges.iter().enumerate() {
        ends.push((range.start, true, i));
        if let Some(close) = range.last.checked_add(1) {
            ends.push((close, false, i));
        }
    }
    ends.sort_unstable();

    let mut pieces: Vec<Piece> = Vec::with_capacity(ranges.len());
    let mut open = BTreeSet::new();
    let mut i = 0;
    while let Some(&(start, _, _)) = ends.get(i) {
        while let Some(&(at, opens, range)) = ends.get(i) {
            if at != start {
                break;
            }
            if opens {
                open.insert(range);
            } else {
                open.remove(&range);
            }
            i += 1;
        }
        let last = ends.get(i).map_or(u64::MAX, |&(next, _, _)| next - 1);
        if let Some(range) = open.first().and_then(|&first| ranges.get(first)) {
            push_joined(&mut pieces, range, start, last);
        }
    }
    pieces
}

/// Appends a piece, or lengthens the last one where both the addresses and the file go on.
fn push_joined(pieces: &mut Vec<Piece>, range: &Range, start: u64, last: u64) {
    let into = start - range.start;
    let backing = match range.backing {
        Backing::File(offset) => Backing::File(offset.saturating_add(into)),
        Backing::PastEnd(offset) => Backing::PastEnd(offset.saturating_add(into)),
        Backing::Excluded => Backing::Excluded,
    };
    if let Some(previous) = pieces.last_mut() {
        let length = previous.last - previous.start;
        let adjoins = previous.last.checked_add(1) == Some(start);
        let goes_on = match (previous.backing, backing) {
            (Backing::File(a), Backing::File(b)) | (Backing::PastEnd(a), Backing::PastEnd(b)) => {
                a.checked_add(length).and_then(|end| end.checked_add(1)) == Some(b)
            }
            (Backing::Excluded, Backing::Excluded) => true,
            _ => false,
        };
        if adjoins && goes_on {
            previous.last = last;
            return;
        }
    }
    pieces.push(Piece {
        start,
        last,
        backing,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        let map = SegmentMap::new(
            vec![
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
    fn what_is_left_out_or_cut_off_is_told_apart() {
        let map = SegmentMap::new(vec![segment(0x1000, 0x100, 0x800, 0x1000)], 0x500);
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
        let next = |addr, end| {
            map.next_held(MachineAddr(addr), MachineAddr(end))
                .map(|at| at.0)
        };
        assert_eq!(next(0, 0x1001), Some(0x1000));
        assert_eq!(next(0, 0x1000), None);
        assert_eq!(next(0x13ff, 0x2000), Some(0x13ff));
        assert_eq!(next(0x1400, u64::MAX), None);
    }

    #[test]
    fn bytes_win_over_none_and_the_first_segment_over_the_second() {
        let map = SegmentMap::new(
            vec![
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
        let map = SegmentMap::from_pages(pages, 0x5800);
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
    fn a_segment_may_reach_the_last_address() {
        let map = SegmentMap::new(vec![segment(u64::MAX - 0xf, 0, u64::MAX, u64::MAX)], 0x100);
        assert_eq!(map.locate(MachineAddr(u64::MAX)), Ok((0xf, 1)));
    }

    proptest! {
        /// Wherever in the address space the pieces lie, near each other or far apart.
        #[test]
        fn the_index_leads_to_the_piece(
            starts in prop::collection::btree_set((0u64..1 << 16, 0u32..48), 1..60),
        ) {
            let starts: BTreeSet<u64> = starts.iter().map(|(n, shift)| n << shift).collect();
            let pieces: Vec<_> = starts
                .iter()
                .map(|start| Piece { start: *start, last: *start, backing: Backing::Excluded })
                .collect();
            let index = Index::of(&pieces);
            let near = starts.iter().flat_map(|start| [start.saturating_sub(1), *start, start + 1]);
            for addr in near.chain([0, u64::MAX]) {
                let expected = pieces.iter().filter(|piece| piece.start <= addr).count();
                prop_assert_eq!(index.after(&pieces, addr), expected);
            }
        }

        /// Against the plainest reading: for each byte, the first segment with that byte.
        #[test]
        fn agrees_with_a_linear_scan(
            raw in prop::collection::vec((0u64..64, 0u64..64, 0u64..32, 0u64..32), 0..12),
            file_len in 0u64..80,
        ) {
            let segments: Vec<_> = raw.iter().map(|&(s, o, f, m)| segment(s, o, f, m.max(f))).collect();
            let map = SegmentMap::new(segments.clone(), file_len);
            for addr in 0u64..128 {
                let expected = segments.iter().find_map(|s| {
                    let into = addr.checked_sub(s.start.0)?;
                    (into < s.file_size && s.offset + into < file_len).then_some(s.offset + into)
                });
                let found = map.locate(MachineAddr(addr)).ok().map(|(offset, _)| offset);
                prop_assert_eq!(found, expected);
                if let Ok((offset, run)) = map.locate(MachineAddr(addr)) {
                    prop_assert!(run > 0 && offset + run <= file_len);
                }
            }
        }
    }
}
