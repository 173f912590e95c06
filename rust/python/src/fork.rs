//! Forking while other threads work without the GIL.
//!
//! A child process has only the thread that forked. A lock that another thread held, or a table that
//! it was building, would stay so in the child for ever. So work without the GIL is counted, and
//! `os.fork` first waits until there is none: with the GIL no other thread is in this module.

use std::cell::RefCell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Calls in progress without the GIL.
static RUNNING: Mutex<usize> = Mutex::new(0);
static FINISHED: Condvar = Condvar::new();

thread_local! {
    /// Held by a thread that forks, so that no call starts.
    static FORKING: RefCell<Option<MutexGuard<'static, usize>>> = const { RefCell::new(None) };
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

/// Calls `work` with the GIL released. It must not take the GIL again.
pub fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(move || {
        // Without the GIL, which a thread that forks may release to other handlers, but needs again.
        let call = Running::start();
        let result = work();
        // Before the GIL is taken: the thread that waits for this holds it.
        drop(call);
        result
    })
}

#[pyfunction]
fn before_fork() {
    let idle = FINISHED.wait_while(running(), |running| *running > 0);
    FORKING.set(Some(idle.unwrap_or_else(PoisonError::into_inner)));
}

#[pyfunction]
fn after_fork() {
    FORKING.set(None);
}

/// Has `os.fork` call the functions above.
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
