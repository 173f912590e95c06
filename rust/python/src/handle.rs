//! The struct of `Dump`, apart from its methods: address spaces and P2Ms are made from a dump, and the
//! methods of `Dump` make them.

use std::sync::Arc;

use pyo3::prelude::*;

use xenkdump::dump;

use crate::gate::Gate;

/// The core's dump, as all that is made from it holds it.
pub type CoreDump = Arc<dump::Dump>;

/// A dump file, opened read-only.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct Dump {
    pub inner: CoreDump,
    pub gate: Gate,
}
