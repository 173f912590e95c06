//! The compressed names, and the marks at every 256th of them.

use std::ops::Range;

use super::tokens::Tokens;
use crate::addr::{VirtAddr, Word};
use crate::alloc;
use crate::budget::Budget;
use crate::image::region::{align, Region};
use crate::limits::{
    MAX_KALLSYMS_CANDIDATES, MAX_KALLSYMS_NAMES_SIZE, MAX_KALLSYMS_STRINGS_SIZE,
    MAX_KALLSYMS_SYMBOLS,
};
use crate::memory::Memory;

/// Names between two marks.
const BLOCK: usize = 256;
/// A compressed name has a length of 1 or 2 bytes, at least one token, and 512 at most.
const BLOCK_SIZE: Range<u64> = 2 * BLOCK as u64..(BLOCK * MAX_ENTRY) as u64 + 1;
const MAX_ENTRY: usize = 514;
/// Blocks that show where the names are if their number is not known.
const MIN_BLOCKS: usize = 4;
/// Bytes between two arrays at most.
const MAX_PADDING: u64 = 16;
/// An expanded name: `KSYM_NAME_LEN`, which has been 512 since 6.1, and the letter before it.
const MAX_NAME: usize = 513;
/// Bytes of a name and of what belongs to it in other arrays before the tokens, on average, at most.
const MEAN_SIZE: u64 = 40;
/// Names that are expanded to recognise the first one.
const SAMPLE: usize = 64;
/// Letters of symbols that kallsyms has (man nm).
const LETTERS: &[u8] = b"AaBbCcDdGgIiNnPpRrSsTtUuVvWw?-";

/// `kallsyms_names`.
pub(super) struct Names {
    /// Memory that has the compressed names.
    region: Region,
    /// Address of the names.
    pub start: u64,
    /// `kallsyms_num_syms`.
    pub count: usize,
    /// Address of `kallsyms_num_syms`.
    pub count_at: u64,
    /// Where each block starts in the region; `None` if that is not known.
    marks: Vec<Option<u64>>,
}

impl Names {
    /// The names before the tables of tokens.
    pub fn before(
        memory: &dyn Memory<VirtAddr>,
        tokens: &Tokens,
        word: Word,
        budget: &Budget,
    ) -> Option<Self> {
        // In all versions but 6.2 and 6.3 the marks end at the table.
        let near = MAX_PADDING + (MAX_KALLSYMS_SYMBOLS / BLOCK) as u64 * word.bytes() as u64;
        let region = Region::read(memory, tokens.start.saturating_sub(near)..tokens.start);
        for width in [4, 8] {
            for padding in (0..MAX_PADDING).step_by(4) {
                let end = tokens.start.checked_sub(padding)?;
                let Some(marks) = Marks::ending_at(&region, end, width) else {
                    continue;
                };
                if let Some(names) = marks.names(memory, word, budget) {
                    return Some(names);
                }
            }
        }
        // Else seqs_of_names, with 3 bytes for each symbol, is between them.
        let mut candidates = MAX_KALLSYMS_CANDIDATES;
        for symbols in [MAX_KALLSYMS_SYMBOLS / 4, MAX_KALLSYMS_SYMBOLS] {
            let far = near + 3 * symbols as u64;
            let region = Region::read(memory, tokens.start.saturating_sub(far)..tokens.start);
            if let Some(names) =
                Self::before_sequences(memory, &region, word, &mut candidates, budget)
            {
                return Some(names);
            }
        }
        Self::without_marks(memory, tokens, word, budget)
    }

    /// The names before markers, if the sequences after the markers are as many as the names and end
    /// with `region`.
    fn before_sequences(
        memory: &dyn Memory<VirtAddr>,
        region: &Region,
        word: Word,
        candidates: &mut usize,
        budget: &Budget,
    ) -> Option<Self> {
        let end = region.start + region.bytes.len() as u64;
        let mut at = align(region.start, 4);
        while *candidates > 0 {
            // The first marker is 0; a missing page does not read as 0.
            let rest = region.bytes.get(region.offset(at)?..)?;
            at += 4 * rest.chunks_exact(4).position(|mark| *mark == [0; 4])? as u64;
            // Only a run of marks whose names take 3 bytes each up to the tokens.
            // The sequences may look like further marks.
            let mut marks = Marks::starting_at(region, at, 4);
            while !marks.values.is_empty() {
                let sequences = end.saturating_sub(marks.end(4));
                let symbols = (marks.values.len() * BLOCK) as u64;
                let fewest = 3 * symbols.saturating_sub(BLOCK as u64);
                if (fewest..3 * symbols + MAX_PADDING).contains(&sequences) {
                    *candidates = candidates.saturating_sub(1);
                    if let Some(names) = marks.names(memory, word, budget) {
                        return Some(names);
                    }
                }
                marks.values.pop();
            }
            at += 4;
        }
        None
    }

    /// The names before the tables of tokens, if the dump lacks marks between them. The number of
    /// symbols is where names follow that expand to symbols.
    fn without_marks(
        memory: &dyn Memory<VirtAddr>,
        tokens: &Tokens,
        word: Word,
        budget: &Budget,
    ) -> Option<Self> {
        let end = tokens.start;
        let region = Region::read(memory, end.saturating_sub(MAX_KALLSYMS_NAMES_SIZE)..end);
        let near = MAX_PADDING + (MAX_KALLSYMS_SYMBOLS / BLOCK) as u64 * word.bytes() as u64;
        let nearest = region.offset(end.saturating_sub(near))?..region.bytes.len();
        if region.is_whole(nearest) {
            return None;
        }
        let mut expander = Expander::new(tokens);
        let mut count_at = end & !3;
        while count_at >= region.start + 4 {
            count_at -= 4;
            let Some(count) = region.number(count_at, 4) else {
                // What is missing costs nothing, however long it is.
                count_at = region
                    .hole(count_at, 4)
                    .map_or(count_at, |hole| hole.start & !3);
                continue;
            };
            for distance in [word.bytes() as u64, 4] {
                let Some(room) = end.checked_sub(count_at + distance) else {
                    continue;
                };
                if count < BLOCK as u64 || !(2 * count..=MEAN_SIZE * count).contains(&room) {
                    continue;
                }
                budget.spend(SAMPLE as u64).ok()?;
                let start = count_at + distance;
                if expand_to_symbols(&region, &mut expander, start) {
                    let count = usize::try_from(count).ok()?;
                    budget.spend(count as u64).ok()?;
                    let base = start - region.start;
                    let marks = rebuilt_marks(&region, start, end, count)?;
                    let marks = marks.into_iter().map(|mark| Some(mark? + base));
                    return Some(Self {
                        marks: alloc::collect(marks),
                        region,
                        start,
                        count,
                        count_at,
                    });
                }
            }
        }
        None
    }

    /// Bytes of the compressed names and of the tables between them and the tokens.
    pub fn size(&self) -> usize {
        let before = self.region.offset(self.start).unwrap_or(0);
        self.region.bytes.len() - before
    }

    /// Calls `found` with each symbol that can be expanded.
    pub fn expand(&self, tokens: &Tokens, mut found: impl FnMut(Expanded<'_>)) {
        let mut total = 0;
        let mut expander = Expander::new(tokens);
        for (block, &mark) in self.marks.iter().enumerate() {
            let first = block * BLOCK;
            let Some(mark) = mark else { continue };
            let mut at = mark as usize;
            for i in first..self.count.min(first + BLOCK) {
                let Some(range) = entry(&self.region, at) else {
                    break;
                };
                at = range.end;
                let text = expander.expand(&self.region, range);
                total += text.len();
                if total > MAX_KALLSYMS_STRINGS_SIZE {
                    return;
                }
                match text.split_first() {
                    Some((letter, name)) if !name.is_empty() && text.len() <= MAX_NAME => {
                        found(Expanded {
                            number: i,
                            letter: *letter,
                            name,
                        });
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A symbol whose name is expanded.
pub(super) struct Expanded<'a> {
    pub number: usize,
    pub letter: u8,
    pub name: &'a [u8],
}

/// Expands names, one at a time.
///
/// A kernel has some millions of tokens in its names, nearly all of them short. A copy whose size is
/// known at compile time takes a fraction of the time of one whose size is not.
struct Expander<'a> {
    tokens: &'a Tokens,
    /// The text of each token, padded, and its length; `NOT_SHORT` for those that need more care.
    short: [([u8; SHORT], usize); 1 << u8::BITS],
    /// The name, and space for the padding of its last token.
    text: [u8; MAX_NAME + 1 + SHORT],
}

/// Bytes of a token that are copied at once.
const SHORT: usize = 16;
/// The length of a token that is longer, or not in the dump.
const NOT_SHORT: usize = usize::MAX;

impl<'a> Expander<'a> {
    fn new(tokens: &'a Tokens) -> Self {
        let mut short = [([0; SHORT], NOT_SHORT); 1 << u8::BITS];
        for (byte, (text, len)) in (0..=u8::MAX).zip(&mut short) {
            let Some(token) = tokens.get(byte) else {
                continue;
            };
            if let Some(start) = text.get_mut(..token.len()) {
                start.copy_from_slice(token);
                *len = token.len();
            }
        }
        Self {
            tokens,
            short,
            text: [0; MAX_NAME + 1 + SHORT],
        }
    }

    /// The text of a name; nothing if the dump lacks one of its tokens. More than `MAX_NAME` bytes of one
    /// that is longer.
    fn expand(&mut self, region: &Region, range: Range<usize>) -> &[u8] {
        let mut len = 0;
        for byte in region.bytes.get(range).unwrap_or_default() {
            let Some((text, size)) = self.short.get(usize::from(*byte)) else {
                return &[];
            };
            let rest = self.text.get_mut(len..).unwrap_or_default();
            if *size <= SHORT {
                let Some(slot) = rest.first_chunk_mut() else {
                    return &[];
                };
                *slot = *text;
                len += *size;
            } else {
                let Some(token) = self.tokens.get(*byte) else {
                    return &[];
                };
                let size = token.len().min(rest.len());
                for (to, from) in rest.iter_mut().zip(token) {
                    *to = *from;
                }
                len += size;
            }
            if len > MAX_NAME {
                break;
            }
        }
        self.text.get(..len).unwrap_or_default()
    }
}

/// Whether the first names at an address are those of symbols, with the letters that nm shows.
fn expand_to_symbols(region: &Region, expander: &mut Expander<'_>, start: u64) -> bool {
    let Some(mut at) = region.offset(start) else {
        return false;
    };
    let mut known = 0;
    for _ in 0..SAMPLE {
        let Some(range) = entry(region, at) else {
            return false;
        };
        at = range.end;
        let Some((letter, name)) = expander.expand(region, range).split_first() else {
            continue; // a token is missing
        };
        let is_name = |byte: &u8| byte.is_ascii_graphic();
        if !LETTERS.contains(letter) || name.is_empty() || !name.iter().all(is_name) {
            return false;
        }
        known += 1;
    }
    known > SAMPLE / 2
}

/// The marks of the names at `start`, as far as the names, or those marks before `end` that the dump
/// has, lead to them.
fn rebuilt_marks(region: &Region, start: u64, end: u64, count: usize) -> Option<Vec<Option<u64>>> {
    let base = region.offset(start)?;
    let blocks = count.div_ceil(BLOCK);
    let after = |mark: u64| {
        let at = base.checked_add(usize::try_from(mark).ok()?)?;
        let at = (0..BLOCK).try_fold(at, |at, _| Some(entry(region, at)?.end))?;
        Some((at - base) as u64)
    };
    let mut marks = alloc::filled(None, blocks);
    let mut next = Some(0);
    let mut walked = 0;
    for mark in &mut marks {
        *mark = next;
        walked += usize::from(next.is_some());
        next = next.and_then(after);
    }
    let mut found = None;
    for width in [4_u64, 8] {
        for sequences in [0, 3 * count as u64] {
            for padding in (0..2 * MAX_PADDING).step_by(4) {
                let first = end.checked_sub(padding + sequences + width * blocks as u64)? & !3;
                let at = |i: usize| region.number(first + width * i as u64, width as usize);
                let known = alloc::collect((0..blocks).map(at));
                let pairs = known.iter().zip(&marks).take(walked).skip(1);
                let both = pairs.filter_map(|(known, walked)| Some(((*known)?, (*walked)?)));
                let (mut equal, mut all) = (0, 0);
                for (known, walked) in both {
                    equal += usize::from(known == walked);
                    all += 1;
                }
                if all > 0 && equal == all {
                    found = Some(known);
                }
            }
        }
    }
    for (i, known) in found
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .skip(walked)
    {
        *marks.get_mut(i)? = known.filter(|known| *known < end - start);
    }
    for i in walked.max(1)..blocks {
        if marks.get(i)?.is_none() {
            *marks.get_mut(i)? = marks.get(i - 1)?.and_then(after);
        }
    }
    Some(marks)
}

/// The tokens of the name at an offset; `None` if a part of it is missing.
fn entry(region: &Region, at: usize) -> Option<Range<usize>> {
    let (start, len) = match *region.bytes.get(at..)? {
        [0, ..] => return None,
        [low, high, ..] if low & 0x80 != 0 => {
            (at + 2, usize::from(low & 0x7f) | usize::from(high) << 7)
        }
        [len, ..] => (at + 1, usize::from(len)),
        [] => return None,
    };
    let range = start..start + len;
    region.is_whole(at..range.end).then_some(range)
}

/// `kallsyms_markers`.
struct Marks {
    start: u64,
    values: Vec<u64>,
}

impl Marks {
    /// The array of numbers of `width` bytes that ends at an address.
    fn ending_at(region: &Region, end: u64, width: u64) -> Option<Self> {
        let mut values = Vec::new();
        let mut at = end;
        loop {
            at = at.checked_sub(width)?;
            let value = region.number(at, width as usize)?;
            let after = values.last().map(|after: &u64| after.checked_sub(value));
            if after.is_some_and(|step| !step.is_some_and(|step| BLOCK_SIZE.contains(&step))) {
                return None;
            }
            alloc::push(&mut values, value);
            if value == 0 {
                values.reverse();
                return Some(Self { start: at, values });
            }
        }
    }

    /// The longest array of numbers of `width` bytes that may start at an address.
    fn starting_at(region: &Region, start: u64, width: u64) -> Self {
        let mut values = vec![0];
        let mut at = start + width;
        while let Some(value) = region.number(at, width as usize) {
            let step = values.last().and_then(|last| value.checked_sub(*last));
            if !step.is_some_and(|step| BLOCK_SIZE.contains(&step)) {
                break;
            }
            alloc::push(&mut values, value);
            at += width;
        }
        Self { start, values }
    }

    fn end(&self, width: u64) -> u64 {
        self.start + width * self.values.len() as u64
    }

    /// The names that end before the marks and agree with them. The names of each place that is
    /// tried are charged to `budget`.
    fn names(&self, memory: &dyn Memory<VirtAddr>, word: Word, budget: &Budget) -> Option<Names> {
        let Self { start, ref values } = *self;
        let last = *values.last()?;
        if last > MAX_KALLSYMS_NAMES_SIZE {
            return None;
        }
        let counts = (values.len() - 1) * BLOCK + 1..=values.len() * BLOCK;
        let farthest = start.checked_sub(last + BLOCK_SIZE.end + MAX_PADDING)?;
        let region = Region::read(memory, farthest..start);
        let mut at = start.checked_sub(last)? & !3;
        while at > farthest + 8 {
            // kallsyms_num_syms is before the names, aligned as they are.
            for distance in [word.bytes() as u64, 4] {
                let count_at = at - distance;
                let count = match region.number(count_at, 4) {
                    Some(count) => Some(count as usize).filter(|count| counts.contains(count)),
                    // The dump lacks it: several blocks have to show where the names start.
                    None if values.len() < MIN_BLOCKS => None,
                    None => {
                        budget.spend(1).ok()?;
                        let names = last_block(&region, at + last, start);
                        names.map(|names| (values.len() - 1) * BLOCK + names)
                    }
                };
                let Some(count) = count else { continue };
                budget.spend(count as u64).ok()?;
                if agrees(&region, at, start, values, count) {
                    let base = at - farthest;
                    return Some(Names {
                        region,
                        start: at,
                        count,
                        count_at,
                        marks: alloc::collect(values.iter().map(|mark| Some(mark + base))),
                    });
                }
            }
            at -= 4;
        }
        None
    }
}

/// The number of names from the last mark on, which end at `end`.
fn last_block(region: &Region, start: u64, end: u64) -> Option<usize> {
    let (mut at, end) = (region.offset(start)?, region.offset(end)?);
    let mut names = 0;
    while names < BLOCK && at < end {
        match entry(region, at) {
            Some(range) if range.end <= end => at = range.end,
            _ => break,
        }
        names += 1;
    }
    let rest = region.bytes.get(at..end)?;
    let is_padding = rest.len() < MAX_PADDING as usize && rest.iter().all(|byte| *byte == 0);
    (names > 0 && is_padding).then_some(names)
}

/// Whether `count` names from `at` on have these marks and end at `end`. Blocks with missing bytes
/// agree if another one does.
fn agrees(region: &Region, at: u64, end: u64, marks: &[u64], count: usize) -> bool {
    let Some(base) = region.offset(at) else {
        return false;
    };
    let Some(limit) = region.offset(end) else {
        return false;
    };
    let mut agreed = false;
    for (block, mark) in marks.iter().enumerate() {
        let mut at = base + *mark as usize;
        let names = count.saturating_sub(block * BLOCK).min(BLOCK);
        let walked = (0..names).all(|_| match entry(region, at) {
            Some(range) => {
                at = range.end;
                true
            }
            None => false,
        });
        let ends = match marks.get(block + 1) {
            Some(next) => at == base + *next as usize,
            None => at <= limit && limit - at < MAX_PADDING as usize,
        };
        if walked && ends {
            agreed = true;
        } else if walked || region.is_whole(at..(at + MAX_ENTRY).min(limit)) {
            return false;
        }
    }
    agreed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    /// Memory in which each aligned number is that of symbols.
    struct Numbers(u32);

    impl Memory<VirtAddr> for Numbers {
        fn read(&self, at: VirtAddr, out: &mut [u8]) -> Result<(), Fault> {
            for (at, byte) in (at.0..).zip(out) {
                *byte = self.0.to_le_bytes()[at as usize % 4];
            }
            Ok(())
        }
    }

    #[test]
    fn the_names_that_are_compared_are_limited() {
        let marks = Marks {
            start: 0x80_0000,
            values: vec![0],
        };
        let budget = Budget::new("names of kallsyms", 1000);
        assert!(marks.names(&Numbers(200), Word::W64, &budget).is_none());
        assert!(budget.is_exhausted() && budget.spent() <= 1000);
    }
}
