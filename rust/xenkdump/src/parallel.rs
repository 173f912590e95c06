//! Splits batches over threads by range.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{Builder, JoinHandle};
use std::{io, mem, process, thread};

use rayon_core::{ThreadPool, ThreadPoolBuilder};

/// The number of threads that this process can use.
pub fn available() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
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
        on_threads(threads, &|| {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
                go_on.store(false, Ordering::Relaxed);
                *unwound.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
        });
        let unwound = unwound.into_inner();
        if let Some(payload) = unwound.unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }
    go_on.into_inner()
}

/// Calls `run` on `threads` threads, including this one; on fewer if the system refuses to start more.
fn on_threads(threads: usize, run: &(impl Fn() + Sync)) {
    let mut kept = match KEPT.try_lock() {
        Ok(kept) => kept,
        Err(TryLockError::Poisoned(kept)) => kept.into_inner(),
        // Another call uses them, and may do so for long.
        Err(TryLockError::WouldBlock) => return on_new_threads(threads, run),
    };
    match with_threads(&mut kept, threads - 1) {
        Some(pool) => pool.in_place_scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| run());
            }
            run();
        }),
        None => on_new_threads(threads, run),
    }
}

/// The same, on threads that are started for it.
fn on_new_threads(threads: usize, run: &(impl Fn() + Sync)) {
    thread::scope(|scope| {
        for _ in 1..threads {
            // If a thread cannot be started, the others do its work.
            if Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
}

/// Threads that wait for the next call. To start and end 16 threads takes 0.5 ms, in which one thread
/// looks up 10^5 pfns.
struct Kept {
    /// The process that has them: a child of `fork` has not.
    process: u32,
    pool: ThreadPool,
    threads: Vec<JoinHandle<()>>,
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// A pool of at least `threads` threads, which are started if necessary. `None` if the system has not as
/// many.
fn with_threads(kept: &mut Option<Kept>, threads: usize) -> Option<&ThreadPool> {
    let enough = |kept: &Kept| kept.process == process::id() && kept.threads.len() >= threads;
    if !kept.as_ref().is_some_and(enough) {
        end(kept);
        *kept = start(threads);
    }
    kept.as_ref().map(|kept| &kept.pool)
}

fn start(count: usize) -> Option<Kept> {
    let mut threads = Vec::new();
    let pool = ThreadPoolBuilder::new()
        .num_threads(count)
        .spawn_handler(|thread| -> io::Result<()> {
            threads.push(Builder::new().spawn(|| thread.run())?);
            Ok(())
        })
        .build()
        .ok()?;
    let process = process::id();
    Some(Kept {
        process,
        pool,
        threads,
    })
}

fn end(kept: &mut Option<Kept>) {
    let Some(Kept {
        process,
        pool,
        threads,
    }) = kept.take()
    else {
        return;
    };
    if process == process::id() {
        drop(pool);
        for thread in threads {
            // They do not unwind.
            let _ = thread.join();
        }
    } else {
        // Not even their locks can be used.
        mem::forget((pool, threads));
    }
}

/// While this exists, no threads wait for work.
pub struct NoThreads(#[cfg_attr(not(test), expect(dead_code))] MutexGuard<'static, Option<Kept>>);

/// Ends the threads that wait for work, as before a `fork`.
pub fn end_threads() -> NoThreads {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    end(&mut kept);
    NoThreads(kept)
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

    #[test]
    fn threads_are_kept_and_calls_beside_each_other_are_whole() {
        let sum = |threads| {
            let sum = AtomicUsize::new(0);
            let work = |(): &mut (), range: Range<usize>| {
                sum.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
                true
            };
            assert!(ranges(10_000, 7, threads, || (), work));
            sum.into_inner()
        };
        // One after the other on more threads and on fewer, then many at once, and within each other.
        for threads in [2, 5, 3] {
            assert_eq!(sum(threads), 49_995_000);
        }
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for threads in 1..20 {
                        assert_eq!(sum(threads), 49_995_000);
                    }
                });
            }
        });
        let nested =
            |(): &mut (), range: Range<usize>| range.into_iter().all(|_| sum(3) == 49_995_000);
        assert!(ranges(64, 1, 4, || (), nested));
    }

    #[test]
    fn a_call_does_not_wait_for_a_fork() {
        for _ in 0..3 {
            assert!(ranges(1_000, 1, 4, || (), |(), _| true));
            let none = end_threads();
            assert!(none.0.is_none());
            assert!(ranges(1_000, 1, 4, || (), |(), _| true));
            drop(none);
        }
    }
}
