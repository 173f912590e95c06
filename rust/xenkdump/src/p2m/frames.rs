//! The frames of a domain, run by run.

use std::collections::HashSet;
use std::sync::Arc;

use super::directory::Way;
use super::runs::{At, Stretch};
use super::{Entry, P2m};
use crate::addr::{MachineAddr, Mfn, Pfn};
use crate::budget::Budget;
use crate::memory::Memory;

/// Frames that follow each other in both numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRun {
    /// The first one's pfn.
    pub pfn: Pfn,
    /// Its mfn.
    pub mfn: Mfn,
    /// How many they are.
    pub count: u64,
}

/// The frames of a P2M as runs, pfns rising. They are found as they are asked for.
///
/// Between two of them lies work bounded by the size of the dump, whatever the P2M claims: tables and
/// pages without a frame are not gone through a second time.
pub struct FrameRuns<M> {
    p2m: Arc<P2m<M>>,
    /// What of the P2M was not read yet.
    next: Pfn,
    end: Pfn,
    /// Entries that were read and not looked at, the last one first, and the first one's pfn.
    entries: Vec<Entry>,
    at: Pfn,
    pending: Option<FrameRun>,
    /// What is being read, to before `until`; kept in `barren` if no frame is found in it.
    stretch: Option<Stretch>,
    until: Pfn,
    barren: HashSet<Stretch>,
    /// Pages of the P2M without a frame.
    barren_pages: HashSet<At>,
    table_budget: Budget<'static>,
    page_budget: Budget<'static>,
}

impl<M: Memory<MachineAddr>> FrameRuns<M> {
    /// Of the pfns from `first` to before `end`.
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
            pending: None,
            stretch: None,
            until: first,
            barren: HashSet::new(),
            barren_pages: HashSet::new(),
        }
    }

    /// The next entry; `None` at the end. Of pages without a frame none is given.
    fn entry(&mut self) -> Option<(Pfn, Entry)> {
        while self.entries.is_empty() {
            if self.next >= self.end {
                return None;
            }
            if self.next >= self.until {
                if self.stretch.take().is_some_and(|s| self.barren.insert(s)) {
                    let _ = self.table_budget.spend(1);
                }
                let stretch = self.p2m.stretch(self.next, self.end);
                self.until = Pfn(self.next.0 + stretch.count);
                if stretch.way.is_err() || self.barren.contains(&stretch) {
                    self.next = self.until;
                    continue;
                }
                self.stretch = (stretch.way != Ok(Way::Own)).then_some(stretch);
            }
            self.read();
        }
        let pfn = self.at;
        self.at = Pfn(pfn.0 + 1);
        self.entries.pop().map(|entry| (pfn, entry))
    }

    /// Reads what lies together at `next`.
    fn read(&mut self) {
        let run = self.p2m.run(self.next, self.end);
        self.at = self.next;
        self.next = Pfn(self.next.0 + run.count.max(1));
        if !self.p2m.may_hold(run) || self.barren_pages.contains(&run.at) {
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
        if is_page && self.barren_pages.insert(run.at) {
            let _ = self.page_budget.spend(1);
        }
        if self.table_budget.is_exhausted() || self.page_budget.is_exhausted() {
            // More than there can be: a few pages of memory have many addresses.
            self.next = self.end;
        }
    }
}

impl<M: Memory<MachineAddr>> Iterator for FrameRuns<M> {
    type Item = FrameRun;

    fn next(&mut self) -> Option<FrameRun> {
        while let Some((pfn, entry)) = self.entry() {
            let Entry::Frame(mfn) = entry else {
                if self.pending.is_some() {
                    break;
                }
                continue;
            };
            match &mut self.pending {
                Some(run) if run.pfn.0 + run.count == pfn.0 && run.mfn.0 + run.count == mfn.0 => {
                    run.count += 1;
                }
                pending => {
                    let new = FrameRun { pfn, mfn, count: 1 };
                    if let Some(done) = pending.replace(new) {
                        return Some(done);
                    }
                }
            }
        }
        self.pending.take()
    }
}
