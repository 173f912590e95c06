//! The struct `Dump`. It is separate from its methods because address spaces and P2Ms depend on it,
//! and the methods depend on them.

use std::sync::Arc;

use pyo3::prelude::*;

use xenkdump::dump;

use crate::gate::Gate;

/// The core's dump, shared by all objects made from it.
pub type CoreDump = Arc<dump::Dump>;

/// A dump file, opened read-only.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct Dump {
    pub inner: CoreDump,
    pub gate: Gate,
}
