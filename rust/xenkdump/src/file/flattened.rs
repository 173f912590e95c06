//! Files in the flattened format of `makedumpfile -F`, read as what `makedumpfile -R` makes of them.
//!
//! A program that writes to a pipe cannot seek. So it writes blocks, each after a header with the
//! offset and the size that it has in the file that is meant. Later blocks overwrite earlier ones.

use super::{MappedFile, ReadError, RegularFile, Storage};
use crate::alloc;
use crate::limits::{MAX_FLATTENED_BLOCKS, MAX_FLATTENED_GAPS};
use crate::Result;

const SIGNATURE: &[u8; 16] = b"makedumpfile\0\0\0\0";
/// Size of the header of the file: signature, type, version, and zeros.
const FILE_HEADER: u64 = 4096;
/// Size of the header of a block: offset and size, both int64, most significant byte first.
const BLOCK_HEADER: u64 = 16;

/// A part of a block.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Offset in the file that is meant.
    start: u64,
    /// Offset in this file.
    at: u64,
    len: u64,
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// A flattened file.
#[derive(Debug)]
pub struct Flattened {
    file: MappedFile,
    /// Ascending by start, without overlaps.
    blocks: Box<[Block]>,
    warnings: Vec<String>,
    /// The end of the file was read: what is in no block is zeros. Otherwise it may have been lost.
    is_whole: bool,
}

impl Flattened {
    /// Offset of the contents of the first block.
    pub(crate) const FIRST_BLOCK: u64 = FILE_HEADER + BLOCK_HEADER;

    /// Whether a file has this format.
    pub fn matches(storage: &impl Storage) -> bool {
        let mut start = [0; 16];
        storage.read_at(0, &mut start).is_ok() && start == *SIGNATURE
    }

    /// Reads the headers of all blocks.
    pub fn open(file: MappedFile) -> Result<Self> {
        let mut header = [0; 32];
        let read = file.read_at(0, &mut header);
        read.map_err(|error| file.read_error(0, error))?;
        let (kind, version) = (int64(&header, 16), int64(&header, 24));
        if (kind, version) != (1, 1) {
            let found = format!("type {kind}, version {version}");
            return Err(file.format_error(16, "a flattened file of type 1, version 1", found));
        }
        let mut blocks = Vec::new();
        let mut warnings = Vec::new();
        let mut at = FILE_HEADER;
        let is_whole = loop {
            let mut header = [0; BLOCK_HEADER as usize];
            // Not from the mapping: that would read the pages around each header too, and count as this
            // process's memory.
            match file.peek(at, &mut header) {
                Ok(()) => {}
                Err(ReadError::PastEnd) => {
                    warnings.push(format!(
                        "the flattened file is cut: it has no end mark ({} bytes)",
                        file.len()
                    ));
                    break false;
                }
                Err(error) => return Err(file.read_error(at, error)),
            }
            let (start, len) = (int64(&header, 0), int64(&header, 8));
            if start == -1 {
                break true;
            }
            let data = at.saturating_add(BLOCK_HEADER);
            let end = u64::try_from(start).ok().zip(u64::try_from(len).ok());
            // makedumpfile writes no empty block. A hole in the file would be millions of them.
            let Some((start, len)) = end.filter(|(_, len)| *len > 0) else {
                warnings.push(format!(
                    "the block header at offset {at:#x} of the flattened file is corrupt (offset \
                     {start}, size {len}): what follows it is lost"
                ));
                break false;
            };
            if blocks.len() >= MAX_FLATTENED_BLOCKS {
                warnings.push(format!(
                    "of the blocks of the flattened file the first {} are read",
                    blocks.len()
                ));
                break false;
            }
            let held = file.held(data, len);
            if held > 0 {
                // Both are below 2^63: the sum cannot wrap.
                let block = Block {
                    start,
                    at: data,
                    len: held,
                };
                alloc::push(&mut blocks, block);
            }
            at = data.saturating_add(len);
        };
        if file.has_shrunk() {
            return Err(file.read_error(at, ReadError::PastEnd));
        }
        let mut blocks = disjoint(blocks);
        // Gaps are bytes that cost nothing. makedumpfile leaves them only between its headers.
        let most = file.len().saturating_add(MAX_FLATTENED_GAPS);
        let (mut gaps, mut end) = (0_u64, 0);
        let excess = blocks.iter().position(|block| {
            gaps = gaps.saturating_add(block.start - end);
            end = block.end();
            gaps > most
        });
        if let Some(count) = excess {
            blocks.truncate(count);
            warnings.push(format!(
                "the blocks of the flattened file are far apart: what follows {count} of them is lost"
            ));
        }
        Ok(Self {
            blocks: blocks.into_boxed_slice(),
            file,
            warnings,
            is_whole,
        })
    }

    /// What is wrong with the file.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The index of the first block that ends after `offset`.
    fn find(&self, offset: u64) -> usize {
        self.blocks.partition_point(|block| block.end() <= offset)
    }
}

fn int64(bytes: &[u8], at: usize) -> i64 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// Sorts blocks, which are in the order of the file, and cuts off what later ones overwrite.
fn disjoint(mut blocks: Vec<Block>) -> Vec<Block> {
    // In place: there may be millions.
    blocks.sort_unstable_by_key(|block| (block.start, block.at));
    let overlap = |pair: &[Block]| matches!(pair, [a, b] if a.end() > b.start);
    if !blocks.windows(2).any(overlap) {
        return blocks;
    }
    // A sweep over the starts; the open block that is last in the file wins.
    let mut out: Vec<Block> = alloc::with_capacity(blocks.len());
    let mut open = std::collections::BinaryHeap::new();
    let mut next = 0;
    let mut at = 0;
    while next < blocks.len() || !open.is_empty() {
        if open.is_empty() {
            at = blocks.get(next).map_or(at, |block| block.start);
        }
        while let Some(block) = blocks.get(next).filter(|block| block.start <= at) {
            alloc::push_heap(&mut open, (block.at, next));
            next += 1;
        }
        let top = open.peek().and_then(|(_, number)| blocks.get(*number));
        let Some(block) = top.copied().filter(|block| block.end() > at) else {
            open.pop();
            continue;
        };
        let until = blocks.get(next).map_or(u64::MAX, |block| block.start);
        let end = block.end().min(until);
        let source = block.at + (at - block.start);
        match out.last_mut() {
            Some(last) if last.end() == at && last.at + last.len == source => {
                last.len += end - at;
            }
            _ => {
                let len = end - at;
                let (start, at) = (at, source);
                alloc::push(&mut out, Block { start, at, len });
            }
        }
        at = end;
    }
    out
}

impl Storage for Flattened {
    fn file(&self) -> &RegularFile {
        &self.file
    }

    fn len(&self) -> u64 {
        self.blocks.last().map_or(0, Block::end)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if self.held(offset, buf.len() as u64) < buf.len() as u64 {
            return Err(ReadError::PastEnd);
        }
        let mut rest = buf;
        let mut at = offset;
        let mut blocks = self
            .blocks
            .get(self.find(offset)..)
            .unwrap_or_default()
            .iter();
        while !rest.is_empty() {
            let block = blocks.next().ok_or(ReadError::PastEnd)?;
            let gap = block.start.saturating_sub(at).min(rest.len() as u64);
            if gap > 0 {
                if !self.is_whole {
                    return Err(ReadError::PastEnd);
                }
                let (zeros, tail) = rest.split_at_mut(gap as usize);
                zeros.fill(0);
                rest = tail;
                at += gap;
            }
            let len = block.end().saturating_sub(at).min(rest.len() as u64);
            let (part, tail) = rest.split_at_mut(len as usize);
            if !part.is_empty() {
                self.file.read_at(block.at + (at - block.start), part)?;
            }
            rest = tail;
            at += len;
        }
        Ok(())
    }

    fn borrow(&self, offset: u64, len: u64) -> &[u8] {
        let block = self.blocks.get(self.find(offset));
        let Some(block) = block.filter(|block| block.start <= offset) else {
            return &[];
        };
        let len = len.min(block.end() - offset);
        self.file.borrow(block.at + (offset - block.start), len)
    }

    fn is_intact(&self) -> bool {
        self.file.is_intact()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Later blocks overwrite earlier ones, however they overlap.
        #[test]
        fn the_last_block_wins(writes in prop::collection::vec((0u64..60, 1u64..20), 0..20)) {
            let mut expected = [None; 80];
            let mut blocks = vec![];
            let mut at = 1000;
            for (start, len) in writes {
                for i in 0..len {
                    expected[(start + i) as usize] = Some(at + i);
                }
                blocks.push(Block { start, at, len });
                at += len + BLOCK_HEADER;
            }
            let mut found = [None; 80];
            let blocks = disjoint(blocks);
            prop_assert!(blocks.windows(2).all(|pair| pair[0].end() <= pair[1].start));
            for block in &blocks {
                for i in 0..block.len {
                    found[(block.start + i) as usize] = Some(block.at + i);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
