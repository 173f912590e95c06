//! `SearchResult`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView};

use xenkdump::space::Found;

use crate::fork::detach;

/// The result of `AddressSpace.search`.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct SearchResult {
    inner: Found,
}

impl SearchResult {
    pub fn new(inner: Found) -> Self {
        Self { inner }
    }
}

#[pymethods]
impl SearchResult {
    /// The addresses, ascending.
    #[getter]
    fn addresses<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        list(py, &self.inner.places)
    }

    /// Bytes searched.
    #[getter]
    fn searched(&self) -> u64 {
        self.inner.bytes
    }

    /// The address to continue from if the search stopped early; None if all memory in the range was
    /// searched.
    #[getter]
    fn next(&self) -> Option<u64> {
        self.inner.next
    }

    fn __repr__(&self) -> String {
        let Found {
            places,
            bytes,
            next,
        } = &self.inner;
        let stop = next.map_or_else(String::new, |next| format!(", stopped at {next:#x}"));
        format!(
            "<SearchResult: {} addresses in {bytes} bytes{stop}>",
            places.len()
        )
    }
}

/// Ints that are made before other threads may run: about a millisecond's.
const PIECE: usize = 1 << 15;

/// A list of ints. MemoryError if there is no memory for it, where pyo3's conversion would panic.
/// Only the GIL's owner can make ints, so it is released between pieces of a long list.
pub fn list<'py>(py: Python<'py>, numbers: &[u64]) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(py);
    for (i, piece) in numbers.chunks(PIECE).enumerate() {
        if i > 0 {
            detach(py, || ())?;
            py.check_signals()?;
        }
        let bytes = PyBytes::new_with(py, size_of_val(piece), |buf| {
            for (slot, number) in buf.as_chunks_mut().0.iter_mut().zip(piece) {
                *slot = number.to_ne_bytes();
            }
            Ok(())
        })?;
        let view = PyMemoryView::from(&bytes)?.call_method1("cast", ("Q",))?;
        list.call_method1("extend", (view,))?;
    }
    Ok(list.into_any())
}
