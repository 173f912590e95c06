//! A table of 4-byte numbers in a huge page.
//!
//! In small pages each random lookup would cost a TLB miss.

use memmap2::{Advice, Mmap, MmapMut};

/// log2 of the entries of a block.
pub(super) const BLOCK_SHIFT: u32 = 19;
/// The number of entries of a block.
pub(super) const ENTRIES: usize = 1 << BLOCK_SHIFT;
/// Its size, that of a huge page.
const BYTES: usize = ENTRIES * 4;

/// The entries of a block, in the machine's byte order.
pub(super) type Entries = [[u8; 4]; ENTRIES];

/// A huge page of numbers while it is being filled; initially all 0.
pub(super) struct Filling {
    map: MmapMut,
    at: usize,
}

impl Filling {
    /// `None` if the system has no memory.
    pub(super) fn new() -> Option<Self> {
        // Twice the address space, so that it contains an aligned huge page; the rest is never
        // touched.
        let map = MmapMut::map_anon(2 * BYTES).ok()?;
        let at = (map.as_ptr() as usize).wrapping_neg() % BYTES;
        // A hint: without huge pages the block is only slower.
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
