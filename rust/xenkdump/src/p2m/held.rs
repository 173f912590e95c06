//! The pfns whose pages the dump holds.

use std::sync::Arc;

use super::{FrameRuns, P2m};
use crate::addr::{MachineAddr, Pfn, PAGE_SHIFT, PAGE_SIZE};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::MAX_HELD_RUNS;
use crate::memory::Memory;

/// The runs of pfns whose whole page is held, ascending: first pfn and count. `None` if there are more than
/// [`MAX_HELD_RUNS`].
pub fn held<M: Memory<MachineAddr>>(p2m: &Arc<P2m<M>>) -> Option<Vec<(Pfn, u64)>> {
    let mem = p2m.memory();
    let budget = Budget::new("runs of pages", MAX_HELD_RUNS);
    // A damaged P2M has any number of runs that the dump does not hold.
    let visits = Budget::new("runs of pfns", MAX_HELD_RUNS);
    let mut runs: Vec<(Pfn, u64)> = Vec::new();
    for run in FrameRuns::new(p2m.clone(), Pfn(0), Pfn(u64::MAX)) {
        visits.spend(1).ok()?;
        let Some(start) = run.mfn.addr() else {
            continue;
        };
        let end = start
            .0
            .saturating_add(run.count.saturating_mul(PAGE_SIZE as u64));
        let mut at = start;
        while at.0 < end {
            let Some((first, last)) = mem.next_held(at).filter(|(first, _)| first.0 < end) else {
                break;
            };
            budget.spend(1).ok()?;
            // Whole pages only. A run may go on in the next one.
            let mut last = last;
            while let Some(next) = last.0.checked_add(1).filter(|next| *next < end) {
                match mem.next_held(MachineAddr(next)) {
                    Some((more, until)) if more.0 == next => {
                        budget.spend(1).ok()?;
                        last = until;
                    }
                    _ => break,
                }
            }
            let from = first.0.div_ceil(PAGE_SIZE as u64);
            let until = last.0.saturating_add(1).min(end) >> PAGE_SHIFT;
            if from < until {
                let pfn = Pfn(run.pfn.0 + (from - run.mfn.0));
                match runs.last_mut() {
                    Some((first, count)) if first.0 + *count == pfn.0 => *count += until - from,
                    _ => alloc::push(&mut runs, (pfn, until - from)),
                }
            }
            let Some(next) = last.0.checked_add(1) else {
                break;
            };
            at = MachineAddr(next);
        }
    }
    Some(runs)
}
