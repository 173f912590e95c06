//! `os.fork` while other threads work without the GIL.
//!
//! A child process has only the thread that forked. In the child, a lock that another thread held
//! would stay locked, and a table that it was building would stay incomplete. So calls without the GIL
//! are counted, and `os.fork` first waits until there are none. Calls with the GIL need no count: the
//! forking thread holds it. Threads that wait for work end before the fork; Python 3.12 and later warn of
//! a fork beside other threads.

use std::cell::RefCell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use xenkdump::alloc;
use xenkdump::parallel::{end_threads, NoThreads};

use crate::errors;

/// Calls in progress without the GIL.
static RUNNING: Mutex<usize> = Mutex::new(0);
static FINISHED: Condvar = Condvar::new();

thread_local! {
    /// Held by a thread that forks, so that no call can start.
    static FORKING: RefCell<Option<(MutexGuard<'static, usize>, NoThreads)>> =
        const { RefCell::new(None) };
}

/// A call in progress.
struct Running;

impl Running {
    fn start() -> Self {
        *running() += 1;
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *running() -= 1;
        FINISHED.notify_all();
    }
}

fn running() -> MutexGuard<'static, usize> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `work` with the GIL released. It must not take the GIL again. MemoryError if the core has no
/// memory for what it makes.
pub fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    py.detach(move || {
        // Take the lock without the GIL: a thread that forks may hold the lock and wait for the GIL,
        // which it released to another fork handler.
        let call = Running::start();
        let result = alloc::catch(work);
        // Must finish before the GIL is taken: the thread that waits for this holds the GIL.
        drop(call);
        result
    })
    .map_err(errors::no_memory)
}

#[pyfunction]
fn before_fork() {
    let idle = FINISHED.wait_while(running(), |running| *running > 0);
    let idle = idle.unwrap_or_else(PoisonError::into_inner);
    FORKING.set(Some((idle, end_threads())));
}

#[pyfunction]
fn after_fork() {
    FORKING.set(None);
}

/// Registers the functions above with `os.register_at_fork`.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let after = wrap_pyfunction!(after_fork, module)?;
    let handlers = PyDict::new(py);
    handlers.set_item("before", wrap_pyfunction!(before_fork, module)?)?;
    handlers.set_item("after_in_parent", &after)?;
    handlers.set_item("after_in_child", &after)?;
    py.import("os")?
        .call_method("register_at_fork", (), Some(&handlers))?;
    Ok(())
}
