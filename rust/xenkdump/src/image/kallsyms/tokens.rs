//! The strings that bytes of a compressed name stand for.

use std::ops::Range;

use crate::addr::VirtAddr;
use crate::alloc;
use crate::image::region::Region;
use crate::limits::MAX_KALLSYMS_TOKENS_SIZE;
use crate::memory::Memory;

const COUNT: usize = 256;
/// The token that the search is for.
const ZERO: usize = b'0' as usize;
/// The index is aligned as the arrays are: to 4 or 8 bytes.
const MAX_PADDING: u64 = 8;

/// `kallsyms_token_table` and `kallsyms_token_index`.
pub(super) struct Tokens {
    /// Address of the table.
    pub start: u64,
    /// Address after the index.
    pub end: u64,
    bytes: Vec<u8>,
    strings: Vec<Range<usize>>,
}

impl Tokens {
    /// The tables whose token `0` is at `digit`.
    pub fn around(memory: &dyn Memory<VirtAddr>, digit: VirtAddr) -> Option<Self> {
        let last = digit.0.checked_add(2 * MAX_KALLSYMS_TOKENS_SIZE)?;
        let first = digit.0.saturating_sub(MAX_KALLSYMS_TOKENS_SIZE);
        let region = Region::read(memory, first..last);
        // The end of the table by its strings, and its start by the index that follows.
        let mut at = region.offset(digit.0)?;
        for _ in ZERO..COUNT {
            at += region.bytes.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
        }
        let end = region.start.checked_add(at as u64)?;
        (0..MAX_PADDING).find_map(|padding| {
            let index = end.checked_add(padding).filter(|at| at % 2 == 0)?;
            let zero = region.number(index.checked_add(2 * ZERO as u64)?, 2)?;
            Self::new(&region, digit.0.checked_sub(zero)?, index)
        })
    }

    /// The tables at the address of the first.
    pub fn at(memory: &dyn Memory<VirtAddr>, start: VirtAddr) -> Option<Self> {
        let last = start.0.checked_add(2 * MAX_KALLSYMS_TOKENS_SIZE)?;
        let region = Region::read(memory, start.0..last);
        let mut at = 0;
        for _ in 0..COUNT {
            at += region.bytes.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
        }
        let end = start.0.checked_add(at as u64)?;
        (0..MAX_PADDING).find_map(|padding| {
            let index = end.checked_add(padding).filter(|at| at % 2 == 0)?;
            Self::new(&region, start.0, index)
        })
    }

    /// The tables at these addresses, if each string starts where the index says.
    fn new(region: &Region, start: u64, index: u64) -> Option<Self> {
        let base = region.offset(start)?;
        let bytes = region.bytes.get(base..region.offset(index)?)?;
        let mut strings = alloc::with_capacity(COUNT);
        let mut at = 0;
        for i in 0..COUNT as u64 {
            if region.number(index.checked_add(2 * i)?, 2)? != at as u64 {
                return None;
            }
            let len = bytes.get(at..)?.iter().position(|byte| *byte == 0)?;
            strings.push(at..at + len);
            at += len + 1;
        }
        let whole = base..base.checked_add(bytes.len())?;
        region.is_whole(whole).then(|| Self {
            start,
            end: index + 2 * COUNT as u64,
            bytes: alloc::copied(bytes),
            strings,
        })
    }

    /// What a byte stands for.
    pub fn get(&self, byte: u8) -> &[u8] {
        let range = self.strings.get(usize::from(byte)).cloned();
        range
            .and_then(|range| self.bytes.get(range))
            .unwrap_or_default()
    }
}
