//! The extension module `xenkdump_fast._native`: converts arguments, releases the GIL, maps errors.

use pyo3::prelude::*;

mod dump;
mod errors;

#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::dump::{Dump, Note};
    #[pymodule_export]
    use super::errors::{AbsentError, DumpError, MemoryFault};
}
