//! Closing objects while another thread uses them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Whether a dump, or an object made from it, is open.
///
/// After closing, every use raises ValueError, and batches in other threads stop at their next range.
/// The memory itself is released with the last object that holds it.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    dump: Arc<AtomicBool>,
    own: Arc<AtomicBool>,
}

impl Gate {
    /// The gate of an object made from the dump: it also closes with the dump.
    pub fn inner(&self) -> Self {
        Self {
            dump: self.dump.clone(),
            own: Arc::default(),
        }
    }

    /// Closes the dump and everything made from it.
    pub fn close_dump(&self) {
        self.dump.store(true, Ordering::Relaxed);
    }

    /// Closes this object.
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
