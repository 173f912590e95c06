//! The extension module `xenkdump_fast._native`: converts arguments, releases the GIL, maps errors.

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _native {}
