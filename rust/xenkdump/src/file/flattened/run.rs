//! Runs of consecutive blocks, and the parts of them that later blocks do not overwrite.

use crate::alloc;
use std::collections::BinaryHeap;

use super::header::BLOCK_HEADER;

/// Blocks of one size that are consecutive in this file and in the original file, or a part of such blocks.
/// The last block may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The part: offsets in the original file.
    pub start: u64,
    pub end: u64,
    /// Offset of the first block in the original file; `at` is the offset of its contents in this file.
    origin: u64,
    at: u64,
    block_len: u64,
}

impl Run {
    /// A single block.
    pub fn of_block(start: u64, at: u64, len: u64) -> Self {
        Self {
            start,
            end: start + len,
            origin: start,
            at,
            block_len: len,
        }
    }

    /// The distance between the blocks in this file, if there are many.
    pub fn stride(&self) -> Option<u64> {
        let count = (self.end - self.origin) / self.block_len;
        (count >= 256).then_some(self.block_len + BLOCK_HEADER)
    }

    /// Where a byte is in this file, and how many follow it there without a header between them.
    pub fn find(&self, offset: u64) -> (u64, u64) {
        let within = offset - self.origin;
        let rest = self.block_len - within % self.block_len;
        (self.source(within), rest.min(self.end - offset))
    }

    /// Where a byte of the blocks is in this file.
    fn source(&self, within: u64) -> u64 {
        self.at + within + within / self.block_len * BLOCK_HEADER
    }

    /// Adds whole blocks that follow; false if they do not.
    pub fn extend(&mut self, next: &Run) -> bool {
        let len = self.end - self.origin;
        let is_whole = len.is_multiple_of(self.block_len);
        let is_last = next.end - next.start == next.block_len && next.block_len < self.block_len;
        let follows = next.start == self.end && next.at == self.source(len);
        let extends = is_whole && follows && (next.block_len == self.block_len || is_last);
        if extends {
            self.end = next.end;
        }
        extends
    }

    /// Adds a part of the same run that follows; false if it is another one's.
    fn join(&mut self, next: &Run) -> bool {
        let key = |run: &Run| (run.origin, run.at, run.block_len);
        let joins = next.start == self.end && key(self) == key(next);
        if joins {
            self.end = next.end;
        }
        joins
    }
}

/// Sorts runs, which are in the order of the file, and cuts off what later ones overwrite.
pub(super) fn disjoint(mut runs: Vec<Run>) -> Vec<Run> {
    // In place: there may be millions.
    runs.sort_unstable_by_key(|run| (run.start, run.at));
    let overlap = |pair: &[Run]| matches!(pair, [a, b] if a.end > b.start);
    if !runs.windows(2).any(overlap) {
        return runs;
    }
    // A sweep over the starts; the open run that is last in the file wins.
    let mut out: Vec<Run> = alloc::with_capacity(runs.len());
    let mut open = BinaryHeap::new();
    let mut next = 0;
    let mut at = 0;
    while next < runs.len() || !open.is_empty() {
        if open.is_empty() {
            at = runs.get(next).map_or(at, |run| run.start);
        }
        while let Some(run) = runs.get(next).filter(|run| run.start <= at) {
            alloc::push_heap(&mut open, (run.at, next));
            next += 1;
        }
        let top = open.peek().and_then(|(_, number)| runs.get(*number));
        let Some(run) = top.copied().filter(|run| run.end > at) else {
            open.pop();
            continue;
        };
        let until = runs.get(next).map_or(u64::MAX, |run| run.start);
        let piece = Run {
            start: at,
            end: run.end.min(until),
            ..run
        };
        at = piece.end;
        if !out.last_mut().is_some_and(|last| last.join(&piece)) {
            alloc::push(&mut out, piece);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Appends a block as a scan does.
    fn push(runs: &mut Vec<Run>, block: Run) {
        if !runs.last_mut().is_some_and(|last| last.extend(&block)) {
            runs.push(block);
        }
    }

    proptest! {
        /// Later blocks overwrite earlier ones, however they overlap.
        #[test]
        fn the_last_block_wins(
            // Where a block starts: anywhere, or where the last one ends. Few sizes, so that runs form.
            writes in prop::collection::vec((0u64..60, any::<bool>(), 1u64..5), 0..40)
        ) {
            let mut expected = [None; 300];
            let mut runs = vec![];
            let mut at = 1000;
            let mut end = 0;
            for (start, follows, len) in writes {
                let start = if follows { end } else { start };
                end = start + len;
                for i in 0..len {
                    expected[(start + i) as usize] = Some(at + i);
                }
                push(&mut runs, Run::of_block(start, at, len));
                at += len + BLOCK_HEADER;
            }
            let mut found = [None; 300];
            let runs = disjoint(runs);
            prop_assert!(runs.windows(2).all(|pair| pair[0].end <= pair[1].start));
            for run in &runs {
                for offset in run.start..run.end {
                    let (source, len) = run.find(offset);
                    prop_assert!(len >= 1);
                    found[offset as usize] = Some(source);
                    // What follows in this file is what follows in the other.
                    prop_assert_eq!(run.find(offset + len - 1).0, source + len - 1);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn blocks_of_one_size_are_one_run() {
        let mut runs = vec![];
        for i in 0..1000 {
            push(&mut runs, Run::of_block(i * 4096, 4112 + i * 4112, 4096));
        }
        push(
            &mut runs,
            Run::of_block(1000 * 4096, 4112 + 1000 * 4112, 100),
        );
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].stride(), Some(4112));
        // After a shorter one a new run starts.
        push(
            &mut runs,
            Run::of_block(1000 * 4096 + 100, 5112 + 1000 * 4112, 4096),
        );
        assert_eq!(runs.len(), 2);
        // The header of the file is written again at the end.
        runs.push(Run::of_block(0, 10_000_000, 64));
        let runs = disjoint(runs);
        assert_eq!(runs.len(), 3);
        assert_eq!(runs[1].find(64), (4112 + 64, 4032));
        assert_eq!(runs[1].find(4096), (4112 + 4112, 4096));
    }
}
