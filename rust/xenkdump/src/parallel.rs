//! Splits batches over threads by range.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope};

/// The number of threads that this process can use.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Calls `work` on all of `0..len`, in ranges of `grain`, on up to `threads` threads, each with its own
/// worker from `make`. Ranges are assigned in ascending order as threads become idle. Stops early if
/// `work` returns false; returns whether none did.
///
/// The calling thread is one of them, and the only one if there is one range or the system has no
/// threads. If one of them unwinds (see [`crate::alloc`]), the others stop and the caller unwinds.
pub fn ranges<W>(
    len: usize,
    grain: usize,
    threads: usize,
    make: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, Range<usize>) -> bool + Sync,
) -> bool {
    let grain = grain.max(1);
    let next = AtomicUsize::new(0);
    let go_on = AtomicBool::new(true);
    let run = || {
        let mut worker = make();
        while go_on.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(start) = number.checked_mul(grain).filter(|start| *start < len) else {
                break;
            };
            if !work(&mut worker, start..len.min(start.saturating_add(grain))) {
                go_on.store(false, Ordering::Relaxed);
            }
        }
    };
    let threads = threads.min(len.div_ceil(grain));
    if threads <= 1 {
        run();
    } else {
        let unwound = Mutex::new(None);
        let run = || {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
                go_on.store(false, Ordering::Relaxed);
                *unwound.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
        };
        std::thread::scope(|scope| fork(scope, threads, &run));
        let unwound = unwound.into_inner();
        if let Some(payload) = unwound.unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }
    go_on.into_inner()
}

/// Calls `run` on `threads` threads, of which this is one. Starting a thread takes as long as some thousand
/// lookups, so each new thread starts half of those that are left.
fn fork<'scope>(scope: &'scope Scope<'scope, '_>, threads: usize, run: &'scope (impl Fn() + Sync)) {
    let mut left = threads;
    while left > 1 {
        let half = left / 2;
        let start = move || fork(scope, half, run);
        // Without these threads the others do their work.
        if Builder::new().spawn_scoped(scope, start).is_err() {
            break;
        }
        left -= half;
    }
    run();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alloc;

    #[test]
    fn every_index_is_done_once() {
        for (len, grain, threads) in [
            (0, 4, 2),
            (1, 4, 2),
            (1000, 7, 1),
            (1000, 7, 5),
            (1000, 7, 16),
        ] {
            let done: Vec<_> = (0..len).map(|_| AtomicUsize::new(0)).collect();
            let whole = ranges(
                len,
                grain,
                threads,
                || (),
                |(), range| {
                    for slot in &done[range] {
                        slot.fetch_add(1, Ordering::Relaxed);
                    }
                    true
                },
            );
            assert!(whole);
            assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn lack_of_memory_stops_all_threads() {
        let seen = AtomicUsize::new(0);
        let found = alloc::catch(|| {
            ranges(
                1 << 40,
                1,
                2,
                || (),
                |(), _| {
                    if seen.fetch_add(1, Ordering::Relaxed) >= 100 {
                        alloc::probe(usize::MAX);
                    }
                    true
                },
            )
        });
        assert!(found.is_err());
    }

    #[test]
    fn a_refusal_stops_all_threads() {
        let seen = AtomicUsize::new(0);
        let whole = ranges(
            1 << 40,
            1,
            2,
            || (),
            |(), _| seen.fetch_add(1, Ordering::Relaxed) < 100,
        );
        assert!(!whole);
    }
}
