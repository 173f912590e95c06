//! Which pages are not passed through.

use crate::addr::Pfn;
use crate::alloc;
use crate::limits::MAX_BARE_PAGES;

/// log2 of the pfns of a block.
const BLOCK_SHIFT: u32 = 12;
const WORDS: usize = 1 << (BLOCK_SHIFT - u64::BITS.ilog2());

/// 64 pfns: which of them are in the set, and how many lower ones are.
#[derive(Clone, Copy, Debug, Default)]
struct Bits {
    bits: u64,
    below: u32,
}

/// A set of pfns, with the position of each in ascending order. A lookup reads two words.
#[derive(Debug)]
pub(super) struct PageIndex {
    /// For each block one more than its position in `blocks`, or 0 if it is empty.
    directory: Vec<u32>,
    blocks: Vec<[Bits; WORDS]>,
}

impl PageIndex {
    /// The set of the ascending `pages`, and their number: those above [`MAX_BARE_PAGES`] are left out.
    pub fn new<T>(pages: &[(Pfn, T)]) -> (Self, usize) {
        let kept = pages.partition_point(|(pfn, _)| pfn.0 < MAX_BARE_PAGES);
        let pages = pages.get(..kept).unwrap_or_default();
        let end = pages
            .last()
            .map_or(0, |(pfn, _)| (pfn.0 >> BLOCK_SHIFT) + 1);
        // At most `MAX_BARE_PAGES` >> 12.
        let mut directory = alloc::filled(0_u32, end as usize);
        let mut blocks: Vec<[Bits; WORDS]> = Vec::new();
        let mut below = 0_u32;
        for (pfn, _) in pages {
            let Some(number) = directory.get_mut((pfn.0 >> BLOCK_SHIFT) as usize) else {
                break;
            };
            if *number == 0 {
                let empty = Bits { bits: 0, below };
                alloc::push(&mut blocks, [empty; WORDS]);
                *number = blocks.len() as u32;
            }
            let (word, bit) = split(*pfn);
            let Some(block) = blocks.last_mut() else {
                break;
            };
            below += 1;
            block[word].bits |= 1 << bit;
            for later in block.iter_mut().skip(word + 1) {
                later.below = below;
            }
        }
        (Self { directory, blocks }, kept)
    }

    /// The position of a pfn; `None` if it is not in the set.
    #[inline]
    pub fn get(&self, pfn: Pfn) -> Option<usize> {
        let number = usize::try_from(pfn.0 >> BLOCK_SHIFT).ok()?;
        let block = (*self.directory.get(number)? as usize).checked_sub(1)?;
        let (word, bit) = split(pfn);
        let Bits { bits, below } = self.blocks.get(block)?[word];
        let lower = bits & ((1 << bit) - 1);
        (bits >> bit & 1 != 0).then(|| below as usize + lower.count_ones() as usize)
    }
}

/// The word of a pfn in its block, and its bit there.
#[inline]
fn split(pfn: Pfn) -> (usize, u32) {
    let low = pfn.0 as usize % (1 << BLOCK_SHIFT);
    (low / 64, (low % 64) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_ascending() {
        let pfns = [0, 1, 63, 64, 4095, 4096, 70_000, MAX_BARE_PAGES - 1];
        let mut pages: Vec<_> = pfns.iter().map(|pfn| (Pfn(*pfn), ())).collect();
        pages.push((Pfn(MAX_BARE_PAGES), ()));
        let (index, kept) = PageIndex::new(&pages);
        assert_eq!(kept, pfns.len());
        for (position, pfn) in pfns.iter().enumerate() {
            assert_eq!(index.get(Pfn(*pfn)), Some(position), "{pfn:#x}");
        }
        for pfn in [2, 62, 65, 4094, 4097, 8192, MAX_BARE_PAGES, u64::MAX] {
            assert_eq!(index.get(Pfn(pfn)), None, "{pfn:#x}");
        }
        let (empty, _) = PageIndex::new::<()>(&[]);
        assert_eq!(empty.get(Pfn(0)), None);
    }
}
