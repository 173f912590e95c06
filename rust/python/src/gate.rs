//! What Python may close while another thread still uses it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Whether a dump, or one thing made from it, is open.
///
/// Closing makes every later use a ValueError, and stops a batch that runs in another thread at its
/// next range. The memory itself is given back with the last object that holds it.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    dump: Arc<AtomicBool>,
    own: Arc<AtomicBool>,
}

impl Gate {
    /// A gate of its own that closes with the dump's too.
    pub fn inner(&self) -> Self {
        Self {
            dump: self.dump.clone(),
            own: Arc::default(),
        }
    }

    /// Closes the dump and all that was made from it.
    pub fn close_dump(&self) {
        self.dump.store(true, Ordering::Relaxed);
    }

    /// Closes this one.
    pub fn close(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    /// Whether it is open.
    #[inline]
    pub fn is_open(&self) -> bool {
        !self.dump.load(Ordering::Relaxed) && !self.own.load(Ordering::Relaxed)
    }

    /// A ValueError if it is closed, as for a closed file.
    #[inline]
    pub fn check(&self) -> PyResult<()> {
        if self.is_open() {
            Ok(())
        } else {
            Err(closed())
        }
    }
}

#[cold]
fn closed() -> PyErr {
    PyValueError::new_err("the dump or address space is closed")
}
