//! A table of numbers of 4 bytes in a huge page of its own.
//!
//! A question at random to a table in small pages pays for a TLB entry of its own.

use memmap2::{Advice, Mmap, MmapMut};

/// log2 of the entries of a block.
pub(super) const BLOCK_SHIFT: u32 = 19;
/// How many entries a block has.
pub(super) const ENTRIES: usize = 1 << BLOCK_SHIFT;
/// Its size, that of a huge page.
const BYTES: usize = ENTRIES * 4;

/// The entries of a block, in the machine's byte order.
pub(super) type Entries = [[u8; 4]; ENTRIES];

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
