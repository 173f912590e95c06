//! The frames of a domain as runs.

use std::collections::HashSet;
use std::sync::Arc;

use super::runs::{At, Stretch};
use super::{Entry, P2m, MFN_END};
use crate::addr::{MachineAddr, Mfn, Pfn};
use crate::alloc;
use crate::budget::Budget;
use crate::memory::Memory;

/// Consecutive frames with consecutive pfns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRun {
    /// The first pfn.
    pub pfn: Pfn,
    /// Its mfn.
    pub mfn: Mfn,
    /// Number of frames.
    pub count: u64,
}

/// The frames of a P2M as runs by ascending pfn, found on demand.
///
/// The work between two runs is bounded by the memory that the dump holds, not by the size that the
/// P2M claims: tables and pages without a frame are visited once.
pub struct FrameRuns<M> {
    p2m: Arc<P2m<M>>,
    /// The pfns that have not been read yet.
    next: Pfn,
    end: Pfn,
    /// Entries that are read but not returned yet, in reverse order, and the pfn of the first.
    entries: Vec<Entry>,
    at: Pfn,
    /// A large page that is read but not returned yet.
    large: Option<FrameRun>,
    pending: Option<FrameRun>,
    /// The stretch that is being read, up to `until` (exclusive), while no frame was found in it.
    stretch: Option<Stretch>,
    until: Pfn,
    /// Stretches and pages without a frame.
    empty: HashSet<Stretch>,
    empty_pages: HashSet<At>,
    table_budget: Budget<'static>,
    page_budget: Budget<'static>,
}

impl<M: Memory<MachineAddr>> FrameRuns<M> {
    /// The frames of the pfns in `first..end`.
    pub fn new(p2m: Arc<P2m<M>>, first: Pfn, end: Pfn) -> Self {
        let end = Pfn(end.0.min(p2m.len()));
        Self {
            table_budget: p2m.budget("P2M tables"),
            page_budget: p2m.budget("P2M pages"),
            p2m,
            next: first,
            end,
            entries: Vec::new(),
            at: first,
            large: None,
            pending: None,
            stretch: None,
            until: first,
            empty: HashSet::new(),
            empty_pages: HashSet::new(),
        }
    }

    /// The next entry of a page with a frame, or the frames of a large page; `None` at the end.
    fn entry(&mut self) -> Option<(Pfn, Entry, u64)> {
        while self.entries.is_empty() {
            if let Some(FrameRun { pfn, mfn, count }) = self.large.take() {
                return Some((pfn, Entry::Frame(mfn), count));
            }
            if self.next >= self.end {
                return None;
            }
            if self.next >= self.until {
                if self
                    .stretch
                    .take()
                    .is_some_and(|s| alloc::insert(&mut self.empty, s))
                {
                    let _ = self.table_budget.spend(1);
                }
                let stretch = self.p2m.stretch(self.next, self.end);
                self.until = Pfn(self.next.0 + stretch.count);
                if stretch.origin.is_err() || self.empty.contains(&stretch) {
                    self.next = self.until;
                    continue;
                }
                self.stretch = stretch.is_shared().then_some(stretch);
            }
            self.read();
        }
        let pfn = self.at;
        self.at = Pfn(pfn.0 + 1);
        self.entries.pop().map(|entry| (pfn, entry, 1))
    }

    /// Reads the contiguous entries at `next`.
    fn read(&mut self) {
        let run = self.p2m.run(self.next, self.end);
        self.at = self.next;
        self.next = Pfn(self.next.0 + run.count.max(1));
        if !self.p2m.may_hold(run) || self.empty_pages.contains(&run.at) {
            return;
        }
        if let At::Large(entry) = run.at {
            if let Entry::Frame(mfn) = entry {
                // Frames past the last possible one are invalid.
                let count = run.count.min(MFN_END.saturating_sub(mfn.0));
                let pfn = run.first;
                self.large = Some(FrameRun { pfn, mfn, count });
                self.stretch = None;
            }
            return;
        }
        self.p2m.entries(run, &mut self.entries);
        if self.entries.iter().any(|e| matches!(e, Entry::Frame(_))) {
            self.entries.reverse();
            self.stretch = None;
            return;
        }
        self.entries.clear();
        let is_page = matches!(run.at, At::Page(_)) && run.count == self.p2m.per_page();
        if is_page && alloc::insert(&mut self.empty_pages, run.at) {
            let _ = self.page_budget.spend(1);
        }
        if self.table_budget.is_exhausted() || self.page_budget.is_exhausted() {
            // More pages than the dump holds: it maps many addresses to the same bytes.
            self.next = self.end;
        }
    }
}

impl<M: Memory<MachineAddr>> Iterator for FrameRuns<M> {
    type Item = FrameRun;

    fn next(&mut self) -> Option<FrameRun> {
        while let Some((pfn, entry, count)) = self.entry() {
            let Entry::Frame(mfn) = entry else {
                if self.pending.is_some() {
                    break;
                }
                continue;
            };
            match &mut self.pending {
                Some(run) if run.pfn.0 + run.count == pfn.0 && run.mfn.0 + run.count == mfn.0 => {
                    run.count += count;
                }
                pending => {
                    let new = FrameRun { pfn, mfn, count };
                    if let Some(done) = pending.replace(new) {
                        return Some(done);
                    }
                }
            }
        }
        self.pending.take()
    }
}
