//! A call that does nothing: what any extension module made with pyo3 has to pay.

use pyo3::prelude::*;

#[pymodule]
mod empty {
    use pyo3::prelude::*;

    /// Nothing.
    #[pyfunction]
    fn nothing() {}
}
