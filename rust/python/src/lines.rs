//! `SourceLines`.

use pyo3::prelude::*;

use xenkdump::addr::VirtAddr;
use xenkdump::alloc;
use xenkdump::lines::Lines;

use crate::fork::detach;

/// The source lines of an image's code, from DWARF.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct SourceLines {
    inner: Lines,
    slide: i64,
}

impl SourceLines {
    pub fn new(inner: Lines, slide: i64) -> Self {
        Self { inner, slide }
    }
}

#[pymethods]
impl SourceLines {
    /// Whether parts of the line tables were not read, as they are damaged or exceed limits.
    #[getter]
    fn is_incomplete(&self) -> bool {
        self.inner.is_incomplete()
    }

    /// The file and the line of the code at each address, of the innermost inlined function; None for
    /// one without.
    fn find(&self, py: Python<'_>, addresses: Vec<u64>) -> PyResult<Vec<Option<(String, u64)>>> {
        detach(py, || {
            let down = self.slide.wrapping_neg();
            let linked = addresses
                .iter()
                .map(|at| VirtAddr(at.wrapping_add_signed(down)));
            let found = self.inner.find(&alloc::collect(linked)).into_iter();
            alloc::collect(found.map(|line| line.map(|line| (line.file.to_string(), line.line))))
        })
    }

    fn __repr__(&self) -> String {
        format!("<SourceLines: slide {:#x}>", self.slide)
    }
}
