//! The pfns of a P2M as runs of one kind of entry.

use std::collections::HashMap;

use super::runs::{At, Run, Stretch};
use super::{Entry, P2m};
use crate::addr::{MachineAddr, Pfn};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::MAX_KIND_RUNS;
use crate::memory::Memory;

/// Consecutive pfns whose entries are of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindRun {
    /// The first pfn.
    pub pfn: Pfn,
    /// Number of pfns.
    pub count: u64,
    /// What [`Entry::kind`] returns for each of them.
    pub kind: &'static str,
}

/// Runs by ascending pfn.
#[derive(Debug, Default)]
pub struct KindRuns {
    /// They follow each other without gaps.
    pub runs: Vec<KindRun>,
    /// Where to go on; `None` if all pfns are in `runs`.
    pub next: Option<Pfn>,
}

impl KindRuns {
    fn push(&mut self, pfn: Pfn, count: u64, kind: &'static str) {
        match self.runs.last_mut() {
            Some(last) if last.kind == kind => last.count += count,
            _ => alloc::push(&mut self.runs, KindRun { pfn, count, kind }),
        }
    }
}

/// Pages and tables whose entries are of one kind.
struct Uniform {
    stretches: HashMap<Stretch, &'static str>,
    pages: HashMap<At, &'static str>,
    /// How many more there can be in the dump.
    budget: Budget<'static>,
}

impl Uniform {
    fn new(max_pages: u64) -> Self {
        Self {
            stretches: HashMap::new(),
            pages: HashMap::new(),
            budget: Budget::new("P2M pages", max_pages.saturating_mul(2)),
        }
    }
}

impl<M: Memory<MachineAddr>> P2m<M> {
    /// The pfns from `first` to before `end` by kind, in at most `limit` runs.
    ///
    /// Pages and tables whose entries are all of one kind are read once, however often they occur; each
    /// other one begins a run. So the work is bounded by the dump and by `limit`, whatever the P2M
    /// claims.
    pub fn kinds(&self, first: Pfn, end: Pfn, limit: usize) -> KindRuns {
        let end = Pfn(end.0.min(self.len()));
        let limit = limit.clamp(1, MAX_KIND_RUNS);
        let mut known = Uniform::new(self.max_pages());
        let mut found = KindRuns::default();
        let mut at = first;
        while at < end && found.runs.len() <= limit && !known.budget.is_exhausted() {
            let stretch = self.stretch(at, end);
            let until = Pfn(at.0 + stretch.count.max(1));
            let uniform = match stretch.origin {
                Err(special) => Some(Entry::Special(special).kind()),
                Ok(_) => known.stretches.get(&stretch).copied(),
            };
            if let Some(kind) = uniform {
                found.push(at, stretch.count.max(1), kind);
                at = until;
                continue;
            }
            let mut inside = KindRuns::default();
            while at < until
                && found.runs.len() + inside.runs.len() <= limit
                && !known.budget.is_exhausted()
            {
                let run = self.run(at, until);
                self.kinds_of(run, &mut known, &mut inside);
                at = Pfn(at.0 + run.count.max(1));
            }
            if let ([run], true) = (&inside.runs[..], at >= until && stretch.is_shared()) {
                alloc::insert_at(&mut known.stretches, stretch, run.kind);
                let _ = known.budget.spend(1);
            }
            for run in inside.runs {
                found.push(run.pfn, run.count, run.kind);
            }
        }
        found.next = Some(at).filter(|next| *next < end);
        // The run after the limit ends the last one that is returned.
        if let Some(cut) = found.runs.get(limit) {
            found.next = Some(cut.pfn);
            found.runs.truncate(limit);
        }
        found
    }

    fn kinds_of(&self, run: Run, known: &mut Uniform, found: &mut KindRuns) {
        if let At::Nowhere(special) = run.at {
            found.push(run.first, run.count.max(1), Entry::Special(special).kind());
            return;
        }
        if let At::Large(entry) = run.at {
            found.push(run.first, run.count.max(1), entry.kind());
            return;
        }
        if let Some(kind) = known.pages.get(&run.at) {
            found.push(run.first, run.count, kind);
            return;
        }
        let mut entries = Vec::new();
        self.entries(run, &mut entries);
        let first = entries.first().map(|entry| entry.kind());
        let uniform = first.filter(|kind| entries.iter().all(|entry| entry.kind() == *kind));
        for (entry, pfn) in entries.iter().zip(run.first.0..) {
            found.push(Pfn(pfn), 1, entry.kind());
        }
        let is_page = matches!(run.at, At::Page(_)) && run.count == self.per_page();
        if let (Some(kind), true) = (uniform, is_page) {
            alloc::insert_at(&mut known.pages, run.at, kind);
            let _ = known.budget.spend(1);
        }
    }
}
