//! The frames of a domain, run by run.

use std::sync::Arc;

use super::{Entry, P2m};
use crate::addr::{MachineAddr, Mfn, Pfn};
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
pub struct FrameRuns<M> {
    p2m: Arc<P2m<M>>,
    /// What of the P2M was not read yet.
    next: Pfn,
    end: Pfn,
    /// Entries that were read and not looked at, the last one first, and the first one's pfn.
    entries: Vec<Entry>,
    at: Pfn,
    pending: Option<FrameRun>,
}

impl<M: Memory<MachineAddr>> FrameRuns<M> {
    /// Of the pfns from `first` to before `end`.
    pub fn new(p2m: Arc<P2m<M>>, first: Pfn, end: Pfn) -> Self {
        let end = Pfn(end.0.min(p2m.len()));
        Self {
            p2m,
            next: first,
            end,
            entries: Vec::new(),
            at: first,
            pending: None,
        }
    }

    /// The next entry; `None` at the end.
    fn entry(&mut self) -> Option<(Pfn, Entry)> {
        while self.entries.is_empty() {
            if self.next >= self.end {
                return None;
            }
            let run = self.p2m.run(self.next, self.end);
            self.p2m.entries(run, &mut self.entries);
            self.entries.reverse();
            self.at = self.next;
            self.next = Pfn(self.next.0 + run.count.max(1));
        }
        let pfn = self.at;
        self.at = Pfn(pfn.0 + 1);
        self.entries.pop().map(|entry| (pfn, entry))
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
