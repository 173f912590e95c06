//! The extension module `xenkdump_fast._native`: converts arguments, releases the GIL, maps errors.

use pyo3::prelude::*;

mod dump;
mod errors;
mod image;
mod p2m;
mod space;
mod symbols;
mod types;
mod unwind;

#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::dump::{Dump, Note};
    #[pymodule_export]
    use super::errors::{AbsentError, DumpError, MemoryFault};
    #[pymodule_export]
    use super::image::Image;
    #[pymodule_export]
    use super::p2m::{P2MComparison, P2M};
    #[pymodule_export]
    use super::space::{AddressSpace, Mapping};
    #[pymodule_export]
    use super::symbols::{Symbol, Symbols};
    #[pymodule_export]
    use super::types::{Member, Types};
    #[pymodule_export]
    use super::unwind::{Backtrace, Frame, Unwinder};
}
