//! `SearchResult`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView};

use xenkdump::space::Found;

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

/// A list of ints. MemoryError if there is no memory for it, where pyo3's conversion would panic.
pub fn list<'py>(py: Python<'py>, numbers: &[u64]) -> PyResult<Bound<'py, PyAny>> {
    if numbers.is_empty() {
        return Ok(PyList::empty(py).into_any());
    }
    let bytes = PyBytes::new_with(py, size_of_val(numbers), |buf| {
        for (slot, number) in buf.as_chunks_mut().0.iter_mut().zip(numbers) {
            *slot = number.to_ne_bytes();
        }
        Ok(())
    })?;
    let view = PyMemoryView::from(&bytes)?.call_method1("cast", ("Q",))?;
    view.call_method0("tolist")
}
