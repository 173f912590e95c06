//! The bitmaps: which pages there are, and the number of each among them.

use std::sync::OnceLock;

use crate::alloc;
use crate::file::{ReadError, Storage};

/// Pages of a block, for each of which the pages before it are counted: 8 bytes per 4 MiB of memory.
const BLOCK: u64 = 1024;
/// Bytes of a block.
const BLOCK_BYTES: usize = (BLOCK / 8) as usize;
/// Blocks that are read at once to count them.
const BATCH: usize = 512;
/// Bytes of a bitmap that are counted before their pages of the file are released. Without that, the bitmap
/// of a machine of 1 TiB would be 32 MiB of this process's memory.
const MAX_UNRELEASED_BITMAP: u64 = 1 << 20;
/// Blocks after which a run is cut, although it may go on: a bound on the time to find its end.
const MAX_RUN_BLOCKS: usize = 256;

/// A bitmap in a file; bit *n* is that of page *n*.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bitmap {
    /// Where it is in the file.
    pub offset: u64,
    /// The number of pages that it is about. Its bytes are within the file.
    pub pages: u64,
}

impl Bitmap {
    /// Whether the bit of a page is set.
    pub fn has(self, storage: &impl Storage, pfn: u64) -> Result<bool, ReadError> {
        if pfn >= self.pages {
            return Ok(false);
        }
        let mut byte = [0];
        storage.read_at(self.offset + pfn / 8, &mut byte)?;
        Ok(byte[0] >> (pfn % 8) & 1 == 1)
    }

    /// The number of set bits.
    pub fn count(self, storage: &impl Storage) -> Result<u64, ReadError> {
        let all = Present::new(self, 0, self.pages);
        Ok(all.index(storage)?.last().copied().unwrap_or(0))
    }
}

/// The pages whose data a file has: those in a range whose bit is set. Data is stored by ascending
/// page, so that the place of a page is the number of pages before it.
///
/// Set bits are counted once, on the first use of the memory, and only for each block. The bits
/// themselves remain in the file.
#[derive(Debug)]
pub(super) struct Present {
    bitmap: Bitmap,
    /// The range of pages.
    start: u64,
    end: u64,
    /// Number of pages before each block, from the block of `start` on, then the total; or why the bitmap
    /// could not be read.
    counts: OnceLock<Result<Box<[u64]>, ReadError>>,
}

impl Present {
    pub fn new(bitmap: Bitmap, start: u64, end: u64) -> Self {
        let end = end.min(bitmap.pages);
        Self {
            bitmap,
            start: start.min(end),
            end,
            counts: OnceLock::new(),
        }
    }

    /// The range of pages.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.start..self.end
    }

    /// The number of pages.
    pub fn count(&self, storage: &impl Storage) -> Result<u64, ReadError> {
        Ok(self.index(storage)?.last().copied().unwrap_or(0))
    }

    /// [`Present::count`], if the pages were counted already.
    pub fn counted(&self) -> Option<u64> {
        let counts = self.counts.get()?.as_deref().ok()?;
        Some(counts.last().copied().unwrap_or(0))
    }

    /// How many pages precede `pfn`; `None` if it is not there.
    pub fn rank(&self, storage: &impl Storage, pfn: u64) -> Result<Option<u64>, ReadError> {
        if !self.range().contains(&pfn) {
            return Ok(None);
        }
        let number = self.number(pfn);
        let words = self.block(storage, number)?;
        let bit = pfn % BLOCK;
        let (word, below) = ((bit / 64) as usize, (1 << (bit % 64)) - 1_u64);
        let own = words.get(word).copied().unwrap_or(0);
        if own & (below + 1) == 0 {
            return Ok(None);
        }
        let before = words.iter().take(word).map(|word| word.count_ones());
        let before = before.sum::<u32>() + (own & below).count_ones();
        let counts = self.index(storage)?;
        let blocks = counts.get(number).copied().unwrap_or(0);
        Ok(Some(blocks + u64::from(before)))
    }

    /// The bits of the 64 pages around `pfn`, from a multiple of 64 on; those outside of the range are 0.
    pub fn word(&self, storage: &impl Storage, pfn: u64) -> Result<u64, ReadError> {
        if !self.range().contains(&pfn) {
            return Ok(0);
        }
        let first = pfn - pfn % 64;
        let mut bytes = [0; 8];
        // The bitmap may end within the word.
        let held = (self.bitmap.pages - first).div_ceil(8).min(8) as usize;
        let part = bytes.get_mut(..held).unwrap_or_default();
        storage.read_at(self.bitmap.offset + first / 8, part)?;
        Ok(u64::from_le_bytes(bytes) & self.mask(first))
    }

    /// The first pages at `pfn` or after it that are there: the first and the last of them. Long runs
    /// are cut.
    pub fn run(&self, storage: &impl Storage, pfn: u64) -> Result<Option<(u64, u64)>, ReadError> {
        let mut from = pfn.max(self.start);
        if from >= self.end {
            return Ok(None);
        }
        let counts = self.index(storage)?;
        let first = loop {
            let number = self.number(from);
            if let Some(first) = bit_from(&self.block(storage, number)?, from % BLOCK) {
                break from - from % BLOCK + first;
            }
            // Skip empty blocks.
            let rest = counts.get(number + 1..).unwrap_or_default();
            let empty = rest.partition_point(|count| Some(count) <= rest.first());
            if empty >= rest.len() {
                return Ok(None);
            }
            from = self.first_of(number + empty);
        };
        let mut end = first;
        let number = self.number(first);
        for number in number..number + MAX_RUN_BLOCKS {
            if end >= self.end {
                break;
            }
            let counted = |i| counts.get(i).copied().unwrap_or(0);
            if end.is_multiple_of(BLOCK) && counted(number + 1) - counted(number) == BLOCK {
                end += BLOCK;
                continue;
            }
            let clear = self.block(storage, number)?.map(|word| !word);
            let base = end - end % BLOCK;
            match bit_from(&clear, end % BLOCK) {
                Some(bit) => {
                    end = base + bit;
                    break;
                }
                None => end = base + BLOCK,
            }
        }
        Ok(Some((first, end.min(self.end) - 1)))
    }

    /// The number of the block of a page in the range.
    fn number(&self, pfn: u64) -> usize {
        (pfn / BLOCK - self.start / BLOCK) as usize
    }

    /// The first page of a block.
    fn first_of(&self, number: usize) -> u64 {
        (self.start / BLOCK + number as u64) * BLOCK
    }

    /// The bits of a block, without those outside of the range.
    fn block(
        &self,
        storage: &impl Storage,
        number: usize,
    ) -> Result<[u64; BLOCK_BYTES / 8], ReadError> {
        let first = self.first_of(number);
        let mut bytes = [0; BLOCK_BYTES];
        // The bitmap may end within the block.
        let held = (self.bitmap.pages - first)
            .div_ceil(8)
            .min(BLOCK_BYTES as u64) as usize;
        let part = bytes.get_mut(..held).unwrap_or_default();
        storage.read_at(self.bitmap.offset + first / 8, part)?;
        let mut words = [0; BLOCK_BYTES / 8];
        for (i, (word, bytes)) in words.iter_mut().zip(bytes.chunks_exact(8)).enumerate() {
            let first = first + 64 * i as u64;
            *word = bytes.try_into().map_or(0, u64::from_le_bytes) & self.mask(first);
        }
        Ok(words)
    }

    /// Those bits of the word that starts at page `first` that are in the range.
    #[inline]
    fn mask(&self, first: u64) -> u64 {
        let ones = |count: u64| u64::MAX.checked_shr(64 - count.min(64) as u32).unwrap_or(0);
        let below = |limit: u64| ones(limit.saturating_sub(first));
        below(self.end) & !below(self.start)
    }

    fn index(&self, storage: &impl Storage) -> Result<&[u64], ReadError> {
        let counts = self.counts.get_or_init(|| self.count_blocks(storage));
        counts.as_deref().map_err(|error| *error)
    }

    fn count_blocks(&self, storage: &impl Storage) -> Result<Box<[u64]>, ReadError> {
        if self.start >= self.end {
            return Ok(Box::default());
        }
        let blocks = self.number(self.end - 1) + 1;
        let mut counts = alloc::with_capacity(blocks + 1);
        let mut sum = 0;
        counts.push(0);
        let mut bytes = alloc::filled(0, BATCH * BLOCK_BYTES);
        let mut unreleased = self.bitmap.offset + self.first_of(0) / 8;
        for from in (0..blocks).step_by(BATCH) {
            let first = self.first_of(from);
            let held = (self.bitmap.pages - first)
                .div_ceil(8)
                .min(bytes.len() as u64) as usize;
            bytes.fill(0);
            let part = bytes.get_mut(..held).unwrap_or_default();
            storage.read_at(self.bitmap.offset + first / 8, part)?;
            let batch = bytes.chunks_exact(BLOCK_BYTES).take(blocks - from);
            for (i, block) in batch.enumerate() {
                let first = self.first_of(from + i);
                let words = block.chunks_exact(8).enumerate().map(|(i, word)| {
                    let word = word.try_into().map_or(0, u64::from_le_bytes);
                    let inside = first >= self.start && first + BLOCK <= self.end;
                    let mask = if inside {
                        u64::MAX
                    } else {
                        self.mask(first + 64 * i as u64)
                    };
                    u64::from((word & mask).count_ones())
                });
                sum += words.sum::<u64>();
                counts.push(sum);
            }
            let end = self.bitmap.offset + first / 8 + held as u64;
            if end.saturating_sub(unreleased) >= MAX_UNRELEASED_BITMAP {
                storage.release(unreleased, end - unreleased);
                unreleased = end;
            }
        }
        Ok(counts.into_boxed_slice())
    }
}

/// The first set bit at `from` or after it.
fn bit_from(words: &[u64], from: u64) -> Option<u64> {
    let start = (from / 64) as usize;
    let mut mask = u64::MAX << (from % 64);
    for (i, word) in words.iter().enumerate().skip(start) {
        let bits = word & mask;
        if bits != 0 {
            return Some(64 * i as u64 + u64::from(bits.trailing_zeros()));
        }
        mask = u64::MAX;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::RegularFile;
    use proptest::prelude::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> RegularFile {
        let mut file = tempfile();
        file.1.write_all(bytes).unwrap();
        let opened = RegularFile::open(&file.0).unwrap();
        std::fs::remove_file(file.0).unwrap();
        opened
    }

    fn tempfile() -> (std::path::PathBuf, std::fs::File) {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("xenkdump-bitmap-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = std::fs::File::create(&path).unwrap();
        (path, file)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Runs of set bits, empty and full blocks, and ranges within.
        #[test]
        fn agrees_with_a_count_of_single_bits(
            pieces in prop::collection::vec((any::<bool>(), 1usize..3000), 0..12),
            cut in 0u64..8,
            range in (0u64..9000, 0u64..12000),
        ) {
            let bits: Vec<bool> = pieces
                .into_iter()
                .flat_map(|(bit, len)| std::iter::repeat_n(bit, len))
                .collect();
            let mut bytes = vec![0; bits.len().div_ceil(8)];
            for (i, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
                bytes[i / 8] |= 1 << (i % 8);
            }
            // Bits past the last page are not pages.
            let pages = (bits.len() as u64).saturating_sub(cut);
            let storage = file(&[b"head".as_slice(), &bytes].concat());
            let present = Present::new(Bitmap { offset: 4, pages }, range.0, range.1);
            let held = |pfn: u64| {
                (range.0..range.1.min(pages)).contains(&pfn) && bits[pfn as usize]
            };
            let mut rank = 0;
            for pfn in 0..pages + 2000 {
                let expected = held(pfn).then_some(rank);
                prop_assert_eq!(present.rank(&storage, pfn).unwrap(), expected);
                let word = present.word(&storage, pfn).unwrap();
                prop_assert_eq!(word >> (pfn % 64) & 1 == 1, held(pfn));
                rank += u64::from(held(pfn));
            }
            prop_assert_eq!(present.count(&storage).unwrap(), rank);
            let mut at = 0;
            let mut found = vec![];
            while let Some((first, last)) = present.run(&storage, at).unwrap() {
                prop_assert!(first >= at && last >= first);
                found.extend(first..=last);
                at = last + 1;
            }
            prop_assert_eq!(found, (0..pages).filter(|pfn| held(*pfn)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_long_run_is_cut() {
        let storage = file(&vec![0xff; 1 << 17]);
        let bitmap = Bitmap {
            offset: 0,
            pages: 1 << 20,
        };
        let present = Present::new(bitmap, 0, u64::MAX);
        let longest = MAX_RUN_BLOCKS as u64 * BLOCK;
        assert_eq!(present.run(&storage, 0), Ok(Some((0, longest - 1))));
        assert_eq!(bitmap.count(&storage), Ok(1 << 20));
    }
}
