//! A P2M in 4 bytes a pfn, for those that are asked much.
//!
//! The P2M's own pages lie wherever the guest had room: a question at random pays for finding the
//! page, for a TLB entry of its own, and for a word of 8 bytes that the decoder then looks at. Of
//! parts of a P2M that are asked often a copy is made, decoded, in blocks of a huge page each.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::OnceLock;

use memmap2::{Advice, Mmap, MmapMut};

use super::{Entry, Special};
use crate::addr::Mfn;
use crate::status::Status;

/// log2 of the entries of a block.
pub(super) const BLOCK_SHIFT: u32 = 19;
/// How many entries a block has.
pub(super) const ENTRIES: usize = 1 << BLOCK_SHIFT;
/// Its size, that of a huge page.
const BYTES: usize = ENTRIES * 4;
/// Questions that a block answers from the P2M's own pages before it is filled.
const WARM: u32 = (ENTRIES / 64) as u32;
/// Blocks that a P2M may fill: copies for 1 TiB of guest, in 1 GiB. A hostile P2M may claim more
/// pages than the dump has bytes.
const MOST: usize = 512;

/// The entries of a block, in the machine's byte order.
pub(super) type Entries = [[u8; 4]; ENTRIES];

/// Packed entries from here on are not frames.
pub(super) const SPECIAL: u32 = 0xffff_fff0;
const INVALID: u32 = SPECIAL;
const FOREIGN: u32 = SPECIAL + 1;
const IDENTITY: u32 = SPECIAL + 2;
const OUT_OF_RANGE: u32 = SPECIAL + 3;
const NO_TABLE: u32 = SPECIAL + 4;
/// Ask the P2M itself: nothing is known here, or the mfn is too large to pack (of a machine with
/// more than 16 TiB).
pub(super) const ASK: u32 = u32::MAX;

/// An entry in 4 bytes: a frame by its mfn, and what else there is without one.
pub(super) fn pack(entry: Entry) -> u32 {
    match entry {
        Entry::Frame(Mfn(mfn)) => u32::try_from(mfn)
            .ok()
            .filter(|mfn| *mfn < SPECIAL)
            .unwrap_or(ASK),
        Entry::Special(Special::Invalid) => INVALID,
        Entry::Special(Special::Foreign(_)) => FOREIGN,
        Entry::Special(Special::Identity(_)) => IDENTITY,
        Entry::Special(Special::OutOfRange) => OUT_OF_RANGE,
        Entry::Special(Special::NoTable) => NO_TABLE,
    }
}

/// What a packed entry that is no frame says; `None` for [`ASK`].
pub(super) fn status(packed: u32) -> Option<Status> {
    Some(match packed {
        INVALID => Status::Invalid,
        FOREIGN => Status::Foreign,
        IDENTITY => Status::Identity,
        OUT_OF_RANGE => Status::OutOfRange,
        NO_TABLE => Status::NoP2mPage,
        _ => return None,
    })
}

/// A huge page of numbers that is being filled; all 0 at first.
pub(super) struct Filling {
    map: MmapMut,
    at: usize,
}

impl Filling {
    /// `None` where the system gives no memory.
    pub(super) fn new() -> Option<Self> {
        // Twice as much address space as needed, that an aligned huge page lies in it; what lies
        // round it is never touched.
        let map = MmapMut::map_anon(2 * BYTES).ok()?;
        let at = (map.as_ptr() as usize).wrapping_neg() % BYTES;
        // An offer: without huge pages the block is as good, only slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(Advice::HugePage, at, BYTES);
        Some(Self { map, at })
    }

    fn entries(&mut self) -> Option<&mut Entries> {
        let bytes: &mut [u8; BYTES] = self.map.get_mut(self.at..)?.first_chunk_mut()?;
        bytes.as_chunks_mut().0.first_chunk_mut()
    }

    /// The number at `index`.
    #[inline]
    pub(super) fn slot(&mut self, index: usize) -> Option<&mut [u8; 4]> {
        self.entries()?.get_mut(index)
    }

    /// The numbers from `index` on.
    pub(super) fn from(&mut self, index: usize) -> std::slice::IterMut<'_, [u8; 4]> {
        let rest = self.entries().and_then(|entries| entries.get_mut(index..));
        rest.unwrap_or_default().iter_mut()
    }

    pub(super) fn done(self) -> Option<Block> {
        let map = self.map.make_read_only().ok()?;
        Some(Block { map, at: self.at })
    }
}

/// A huge page of numbers.
#[derive(Debug)]
pub(super) struct Block {
    map: Mmap,
    at: usize,
}

impl Block {
    #[inline]
    pub(super) fn entries(&self) -> Option<&Entries> {
        let bytes = self.map.get(self.at..)?.first_chunk::<BYTES>()?;
        bytes.as_chunks().0.first_chunk()
    }
}

/// The blocks of a P2M, filled as they get warm.
#[derive(Debug)]
pub(super) struct Blocks {
    slots: Box<[Slot]>,
    filled: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slot {
    /// How many questions went past it.
    asked: AtomicU32,
    /// `None` within: there was no memory for it.
    block: OnceLock<Option<Block>>,
}

impl Blocks {
    /// For `pages` pfns. The caller bounds it.
    pub(super) fn new(pages: u64) -> Self {
        let count = usize::try_from(pages.div_ceil(ENTRIES as u64)).unwrap_or(0);
        Self {
            slots: (0..count).map(|_| Slot::default()).collect(),
            filled: AtomicUsize::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The entries of a block that is filled.
    #[inline]
    pub(super) fn get(&self, number: usize) -> Option<&Entries> {
        self.slots.get(number)?.block.get()?.as_ref()?.entries()
    }

    /// Counts a question that went past the block; fills it by `fill` once they are many.
    pub(super) fn ask(&self, number: usize, fill: impl FnOnce(&mut Filling)) -> Option<&Entries> {
        let slot = self.slots.get(number)?;
        // Not exact where threads meet, and need not be.
        let asked = slot.asked.load(Ordering::Relaxed).saturating_add(1);
        slot.asked.store(asked, Ordering::Relaxed);
        if asked < WARM || self.filled.load(Ordering::Relaxed) >= MOST {
            return None;
        }
        let make = || {
            self.filled.fetch_add(1, Ordering::Relaxed);
            let mut filling = Filling::new()?;
            fill(&mut filling);
            filling.done()
        };
        slot.block.get_or_init(make).as_ref()?.entries()
    }
}
