//! Files that are compressed by zstd as a whole.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use xenkdump::alloc;
use xenkdump::file::{self, MappedFile};

use crate::errors;
use crate::fork::detach;

/// Why a zstd file cannot be read in place, as the end of a sentence; None if it can. OSError if it
/// cannot be opened.
#[pyfunction]
pub fn zstd_obstacle(py: Python<'_>, path: PathBuf) -> PyResult<Option<String>> {
    let ask = || MappedFile::open(&path).map(|file| file::ZstdFile::obstacle(&file));
    detach(py, ask)?.map_err(errors::from_core)
}

/// The size of the contents of the first frame, if its header, which is in `start`, says it.
#[pyfunction]
pub fn zstd_content_size(start: &[u8]) -> Option<u64> {
    file::zstd_content_size(start)
}

/// Decompresses a zstd file piece by piece.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct ZstdDecoder {
    inner: Mutex<file::ZstdDecoder>,
}

#[pymethods]
impl ZstdDecoder {
    #[new]
    fn new() -> PyResult<Self> {
        let inner = file::ZstdDecoder::new().ok_or_else(|| PyMemoryError::new_err("zstd"))?;
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    /// Decompresses `data` until `size` bytes came of it: how many bytes of it were taken, and what came
    /// of them. ValueError, with zstd's reason, if it is corrupt.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        data: &[u8],
        size: usize,
    ) -> PyResult<(usize, Bound<'py, PyBytes>)> {
        let (taken, out) = detach(py, || {
            let mut out = alloc::filled(0, size);
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let (taken, given) = inner
                .decode(data, &mut out)
                .map_err(PyValueError::new_err)?;
            out.truncate(given);
            Ok::<_, PyErr>((taken, out))
        })??;
        Ok((taken, PyBytes::new(py, &out)))
    }

    fn __repr__(&self) -> &'static str {
        if self.at_end() {
            "<ZstdDecoder, at the end of a frame>"
        } else {
            "<ZstdDecoder, within a frame>"
        }
    }

    /// Whether what was decompressed so far ends with a whole frame.
    #[getter]
    fn at_end(&self) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.is_at_end()
    }
}
