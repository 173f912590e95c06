//! A part of virtual memory, copied as far as the dump has it.

use std::ops::Range;

use crate::addr::{Address, VirtAddr, PAGE_SIZE};
use crate::alloc;
use crate::elf::Bytes;
use crate::memory::Memory;

/// What takes the place of bytes that cannot be read. Unlike 0 it is no valid kind of BTF, length of
/// a name or offset of a member.
const MISSING: u8 = 0xff;

/// Bytes that are read at once, unless a page of them is missing.
const PIECE: usize = 16 * PAGE_SIZE;

/// A copy of the bytes from `start` on. Those that the dump lacks are `0xff`, and recorded.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    pub start: u64,
    pub bytes: Bytes,
    /// Offsets of missing bytes, ascending and disjoint.
    pub holes: Vec<Range<usize>>,
}

impl Region {
    /// Reads the addresses `range`, which must not be longer than the caller's limit.
    pub fn read(memory: &dyn Memory<VirtAddr>, range: Range<u64>) -> Self {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut bytes = alloc::filled(MISSING, len);
        let mut holes: Vec<Range<usize>> = Vec::new();
        let mut done = 0;
        // The end of the piece that is read by page.
        let mut by_page = 0;
        while done < len {
            let at = VirtAddr(range.start.wrapping_add(done as u64));
            let piece = (PIECE - at.page_offset()).min(len - done);
            if let Some(part) = bytes
                .get_mut(done..done + piece)
                .filter(|_| done >= by_page)
            {
                if memory.read(at, part).is_ok() {
                    done += piece;
                    continue;
                }
                by_page = done + piece;
            }
            let n = (PAGE_SIZE - at.page_offset()).min(len - done);
            let part = bytes.get_mut(done..done + n).unwrap_or_default();
            if memory.read(at, part).is_err() {
                part.fill(MISSING);
                match holes.last_mut() {
                    Some(last) if last.end == done => last.end = done + n,
                    _ => alloc::push(&mut holes, done..done + n),
                }
            }
            done += n;
        }
        Self {
            start: range.start,
            bytes: bytes.into(),
            holes,
        }
    }

    /// The number of missing bytes.
    pub fn missing(&self) -> usize {
        self.holes.iter().map(ExactSizeIterator::len).sum()
    }

    /// Whether no byte of the offsets `range` is missing.
    pub fn is_whole(&self, range: Range<usize>) -> bool {
        let next = self.holes.partition_point(|hole| hole.end <= range.start);
        range.end <= self.bytes.len()
            && self
                .holes
                .get(next)
                .is_none_or(|hole| hole.start >= range.end)
    }

    /// The offset of an address within it.
    pub fn offset(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(self.start)?).ok()?;
        (offset <= self.bytes.len()).then_some(offset)
    }

    /// The addresses of the missing bytes around one of the `size` bytes at an address.
    pub fn hole(&self, address: u64, size: usize) -> Option<Range<u64>> {
        let at = self.offset(address)?;
        let next = self.holes.partition_point(|hole| hole.end <= at);
        let hole = self.holes.get(next)?;
        let found = hole.start < at.checked_add(size)?;
        found.then(|| self.start + hole.start as u64..self.start + hole.end as u64)
    }

    /// The little-endian number of `size` bytes at an address, at most 8; `None` if it is missing.
    pub fn number(&self, address: u64, size: usize) -> Option<u64> {
        let at = self.offset(address)?;
        let range = at..at.checked_add(size)?;
        let bytes = self.bytes.get(range.clone())?;
        if !self.holes.is_empty() && !self.is_whole(range) {
            return None;
        }
        // Tables have 10^5 of them, nearly all of this size.
        if let Ok(bytes) = bytes.try_into() {
            return Some(u64::from(u32::from_le_bytes(bytes)));
        }
        Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }
}

/// `at` rounded up to a multiple of `to`, a power of two.
pub(crate) fn align(at: u64, to: u64) -> u64 {
    at.wrapping_add(to - 1) & !(to - 1)
}
