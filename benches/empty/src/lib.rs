//! A call that does nothing: the minimum cost of a call into an extension module made with pyo3.

use pyo3::prelude::*;

#[pymodule]
mod empty {
    use pyo3::prelude::*;

    /// Does nothing.
    #[pyfunction]
    fn nothing() {}
}
