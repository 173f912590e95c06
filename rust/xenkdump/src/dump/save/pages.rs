//! Which bytes of a stream are the last copy of each page.

use super::super::run_map::{push_joined, top_layer, Backing, Piece, RunMap};
use crate::addr::{PseudoPhysAddr, PAGE_SHIFT, PAGE_SIZE};
use crate::alloc;
use crate::budget::{Budget, Exhausted};
use crate::limits::MAX_SAVED_RUNS;

const SIZE: u64 = PAGE_SIZE as u64;
/// pfns have this many bits.
pub(super) const PFN_BITS: u32 = 52;
/// Pieces that are collected before those that later ones replace are removed.
const FIRST_COMPACTION: usize = 1 << 20;

/// What a stream says about a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Its bytes are at this offset.
    At(u64),
    /// The guest has the page, but the stream has no bytes of it.
    Empty,
    /// The guest has no such page any more.
    Gone,
}

/// Pages in the order of the stream: a live save sends a page again after each write to it, and the last
/// copy is the valid one.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Up to the last checkpoint.
    committed: Layers,
    /// Since then.
    pending: Layers,
}

impl Pages {
    pub fn push(&mut self, pfn: u64, content: Content, file_len: u64) -> Result<(), Exhausted> {
        let pfn = pfn & ((1 << PFN_BITS) - 1);
        let start = pfn << PAGE_SHIFT;
        let backing = match content {
            Content::At(offset) if offset.saturating_add(SIZE) <= file_len => Backing::File(offset),
            // A truncated page is treated as missing as a whole.
            Content::At(offset) => Backing::PastEnd(offset),
            Content::Empty => Backing::Empty,
            Content::Gone => Backing::Gone,
        };
        self.pending.push(Piece {
            start,
            last: start | (SIZE - 1),
            backing,
        })
    }

    /// What was sent so far belongs together.
    pub fn commit(&mut self) -> Result<(), Exhausted> {
        for piece in std::mem::take(&mut self.pending).pieces {
            self.committed.push(piece)?;
        }
        Ok(())
    }

    /// Drops what was sent after the last checkpoint.
    pub fn roll_back(&mut self) {
        self.pending = Layers::default();
    }

    /// The map of all pages. Those below `end` that the stream does not mention are taken for lost with
    /// the rest of a file that ends at `lost`.
    pub fn into_map(self, lost: Option<(PseudoPhysAddr, u64)>) -> RunMap {
        let mut pieces = Vec::new();
        if let Some((end, len)) = lost {
            if let Some(last) = end.0.checked_sub(1) {
                alloc::push(
                    &mut pieces,
                    Piece {
                        start: 0,
                        last,
                        backing: Backing::PastEnd(len),
                    },
                );
            }
        }
        alloc::extend(&mut pieces, &self.committed.pieces);
        drop(self.committed);
        alloc::extend(&mut pieces, &self.pending.pieces);
        drop(self.pending);
        RunMap::of_layers(&pieces)
    }
}

/// Pieces of which later ones replace earlier ones.
#[derive(Debug)]
struct Layers {
    pieces: Vec<Piece>,
    /// How many there may be before they are resolved.
    limit: usize,
}

impl Default for Layers {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            limit: FIRST_COMPACTION,
        }
    }
}

impl Layers {
    fn push(&mut self, piece: Piece) -> Result<(), Exhausted> {
        push_joined(&mut self.pieces, &piece, piece.start, piece.last);
        if self.pieces.len() >= self.limit {
            self.pieces = top_layer(&self.pieces);
            let budget = Budget::new("runs of saved pages", MAX_SAVED_RUNS as u64);
            budget.spend(self.pieces.len() as u64)?;
            self.limit = (self.pieces.len() * 2).max(FIRST_COMPACTION);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::MachineAddr;

    #[test]
    fn replaced_copies_take_no_memory() {
        let mut pages = Pages::default();
        let len = 1 << 40;
        for copy in 0..FIRST_COMPACTION as u64 + 7 {
            // Not contiguous in the file: each is a piece.
            let offset = (copy * 3) << PAGE_SHIFT;
            pages.push(copy % 2, Content::At(offset), len).unwrap();
        }
        assert!(pages.pending.pieces.len() < 16);
        let map = pages.into_map(None);
        assert_eq!(map.memory_size(), 2 * SIZE);
        assert_eq!(map.distinct_bytes(), 2 * SIZE);
    }

    #[test]
    fn what_follows_a_checkpoint_can_be_dropped() {
        let mut pages = Pages::default();
        pages.push(1, Content::At(0), 1 << 20).unwrap();
        pages.commit().unwrap();
        pages.push(1, Content::Gone, 1 << 20).unwrap();
        pages.push(2, Content::At(SIZE), 1 << 20).unwrap();
        pages.roll_back();
        let run = pages.into_map(None).next_run(MachineAddr(0)).unwrap();
        assert_eq!((run.start.0, run.last.0), (SIZE, 2 * SIZE - 1));
    }

    #[test]
    fn a_page_that_the_end_of_the_file_cuts_is_lost() {
        let mut pages = Pages::default();
        pages.push(1, Content::At(0), SIZE - 1).unwrap();
        let map = pages.into_map(Some((PseudoPhysAddr(4 * SIZE), SIZE - 1)));
        assert!(map.next_run(MachineAddr(0)).is_none());
        assert_eq!(map.truncated_bytes(), 4 * SIZE);
    }
}
