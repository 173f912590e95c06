//! numpy arrays of results.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A new numpy array. numpy is imported only when it is needed.
pub fn empty<'py>(
    py: Python<'py>,
    shape: impl IntoPyObject<'py>,
    dtype: impl IntoPyObject<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = PyDict::new(py);
    options.set_item("dtype", dtype)?;
    let numpy = py.import("numpy")?;
    numpy.call_method("empty", (shape,), Some(&options))
}

/// The error for an array that another thread changed during the call.
pub fn changed() -> PyErr {
    PyValueError::new_err("the array was changed by another thread during the call")
}
