//! From mfn to pfn.

use std::collections::HashSet;

use super::huge::{Block, Filling, BLOCK_SHIFT, ENTRIES};
use crate::addr::{Mfn, Pfn};
use crate::alloc;
use crate::limits::MAX_REVERSE_BLOCKS;

/// The frames of a P2M.
pub(super) trait Frames {
    /// Number of pfns.
    fn pages(&self) -> u64;
    /// Calls `f` with every frame, by ascending pfn.
    fn for_each_frame(&self, f: impl FnMut(Mfn, Pfn));
}

/// Every frame of a P2M by its mfn.
///
/// Built from the P2M itself, so the two agree. The hypervisor's own table, the M2P, is not used: a
/// guest can write anything to its part of it.
#[derive(Debug)]
pub(super) enum Reverse {
    /// Blocks, indexed by mfn. Elements are the pfn plus 1, or 0 for none.
    Direct(Vec<Option<Block>>),
    /// Sorted by mfn: for frames too sparse or pfns too large for blocks.
    Sorted(Vec<(Mfn, Pfn)>),
}

/// Blocks are used if they take at most this many bytes for each frame, or if there are at most
/// [`MAX_SPARSE_BLOCKS`].
const MAX_BYTES_PER_FRAME: usize = 32;
const MAX_SPARSE_BLOCKS: usize = 16;

impl Reverse {
    pub(super) fn build(source: &impl Frames) -> Self {
        let (mut frames, mut end) = (0, 0);
        let mut blocks = HashSet::new();
        let mut last = None;
        source.for_each_frame(|mfn, _| {
            frames += 1;
            let block = mfn.0 >> BLOCK_SHIFT;
            if last != Some(block) {
                alloc::insert(&mut blocks, block);
                end = end.max(block + 1);
                last = Some(block);
            }
        });
        let dense =
            blocks.len() <= MAX_SPARSE_BLOCKS.max(frames / (ENTRIES * 4 / MAX_BYTES_PER_FRAME));
        if dense && end <= MAX_REVERSE_BLOCKS && source.pages() < u64::from(u32::MAX) {
            if let Some(direct) = Self::direct(source, &blocks, end) {
                return direct;
            }
        }
        let mut pairs = alloc::with_capacity(frames);
        source.for_each_frame(|mfn, pfn| alloc::push(&mut pairs, (mfn, pfn)));
        pairs.sort_unstable();
        pairs.dedup_by_key(|pair| pair.0);
        Self::Sorted(pairs)
    }

    /// `None` if the system has no memory.
    fn direct(source: &impl Frames, blocks: &HashSet<u64>, end: u64) -> Option<Self> {
        // At most `MAX_REVERSE_BLOCKS`.
        let mut filling: Vec<Option<Filling>> = alloc::with_capacity(end as usize);
        for number in 0..end {
            filling.push(match blocks.contains(&number) {
                true => Some(Filling::new()?),
                false => None,
            });
        }
        source.for_each_frame(|mfn, pfn| {
            let block = filling.get_mut(number(mfn)).and_then(Option::as_mut);
            let slot = block.and_then(|block| block.slot(index(mfn)));
            // pfns are ascending: the lowest pfn of a frame is kept.
            if let Some(slot) = slot.filter(|slot| **slot == [0; 4]) {
                *slot = (pfn.0 as u32).wrapping_add(1).to_ne_bytes();
            }
        });
        let mut done = alloc::with_capacity(filling.len());
        for filling in filling {
            done.push(match filling {
                Some(filling) => Some(filling.done()?),
                None => None,
            });
        }
        Some(Self::Direct(done))
    }

    #[inline]
    pub(super) fn get(&self, mfn: Mfn) -> Option<Pfn> {
        match self {
            Reverse::Direct(blocks) => {
                let block = blocks.get(number(mfn))?.as_ref()?;
                let kept = u32::from_ne_bytes(*block.entries()?.get(index(mfn))?);
                kept.checked_sub(1).map(|pfn| Pfn(pfn.into()))
            }
            Reverse::Sorted(pairs) => {
                let i = pairs.binary_search_by_key(&mfn, |pair| pair.0).ok()?;
                pairs.get(i).map(|pair| pair.1)
            }
        }
    }
}

fn number(mfn: Mfn) -> usize {
    usize::try_from(mfn.0 >> BLOCK_SHIFT).unwrap_or(usize::MAX)
}

fn index(mfn: Mfn) -> usize {
    mfn.0 as usize % ENTRIES
}
