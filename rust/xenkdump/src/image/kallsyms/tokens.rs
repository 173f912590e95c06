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
    /// `None` for a token that is not in the dump.
    strings: Vec<Option<Range<usize>>>,
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
        let mut indices = (0..MAX_PADDING)
            .filter_map(|padding| end.checked_add(padding))
            .filter(|at| at % 2 == 0);
        let by_index = indices.clone().find_map(|index| {
            let zero = region.number(index.checked_add(2 * ZERO as u64)?, 2)?;
            Self::new(&region, digit.0.checked_sub(zero)?, index)
        });
        // Without the index, its place is known by its alignment.
        by_index.or_else(|| {
            let index = indices.find(|at| at % 4 == 0)?;
            let missing = index..index.checked_add(2 * COUNT as u64)?;
            let range = region.offset(missing.start)?..region.offset(missing.end)?;
            let is_lost = region
                .holes
                .iter()
                .any(|hole| hole.start < range.end && range.start < hole.end);
            if !is_lost {
                return None;
            }
            Self::without_index(&region, digit.0, end, missing.end)
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

    /// The tables at these addresses, if each string that is in the dump is where the index says.
    fn new(region: &Region, start: u64, index: u64) -> Option<Self> {
        let entry = |i: usize| region.number(index.checked_add(2 * i as u64)?, 2);
        let len = usize::try_from(index.checked_sub(start)?).ok()?;
        let base = region.offset(start);
        let mut strings = alloc::with_capacity(COUNT);
        let mut bytes = alloc::filled(0, len);
        let mut known = 0;
        for i in 0..COUNT {
            let first = usize::try_from(entry(i)?).ok()?;
            let last = match i + 1 {
                COUNT => None,
                next => Some(usize::try_from(entry(next)?).ok()?),
            };
            if i == 0 && first != 0 || last.is_some_and(|last| last <= first) || first >= len {
                return None;
            }
            let at = base.and_then(|base| base.checked_add(first));
            let text = at.and_then(|at| {
                // The last one ends with its NUL, before the padding.
                let size = match last {
                    Some(last) => last - first,
                    None => region.bytes.get(at..)?.iter().position(|byte| *byte == 0)? + 1,
                };
                let range = at..at.checked_add(size)?;
                region.is_whole(range.clone()).then_some(range)
            });
            let Some(range) = text else {
                strings.push(None);
                continue;
            };
            let (nul, string) = region.bytes.get(range)?.split_last()?;
            if *nul != 0 || string.contains(&0) {
                return None;
            }
            let place = first..first.checked_add(string.len())?;
            bytes.get_mut(place.clone())?.copy_from_slice(string);
            strings.push(Some(place));
            known += 1;
        }
        // Digits show that it is the table.
        let is_zero = strings
            .get(ZERO)?
            .clone()
            .is_some_and(|place| bytes.get(place) == Some(b"0"));
        (is_zero && known > COUNT / 2).then(|| Self {
            start,
            end: index + 2 * COUNT as u64,
            bytes,
            strings,
        })
    }

    /// The table between token `0` and `end`, by its strings alone. Those before the first one may
    /// look like a part of it.
    fn without_index(region: &Region, digit: u64, end: u64, index_end: u64) -> Option<Self> {
        let at = region.offset(digit)?;
        let before = region.bytes.get(..at)?;
        let mut nul = before.iter().rposition(|byte| *byte == 0)?;
        for _ in 0..ZERO {
            nul = before.get(..nul)?.iter().rposition(|byte| *byte == 0)?;
        }
        let base = nul + 1;
        let last = region.offset(end)?;
        let start = region.start.checked_add(base as u64)?;
        if start % 4 != 0 || !region.is_whole(base..last) {
            return None;
        }
        let bytes = alloc::copied(region.bytes.get(base..last)?);
        let mut strings = alloc::with_capacity(COUNT);
        let mut at = 0;
        for _ in 0..COUNT {
            let len = bytes.get(at..)?.iter().position(|byte| *byte == 0)?;
            strings.push(Some(at..at + len));
            at += len + 1;
        }
        *strings.first_mut()? = None;
        Some(Self {
            start,
            end: index_end,
            bytes,
            strings,
        })
    }

    /// What a byte stands for; `None` if that is not in the dump.
    pub fn get(&self, byte: u8) -> Option<&[u8]> {
        let range = self.strings.get(usize::from(byte))?.clone()?;
        self.bytes.get(range)
    }
}
