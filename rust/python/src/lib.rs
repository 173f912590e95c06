//! The extension module `xenkdump_fast._native`: converts arguments, releases the GIL, maps errors.

#![warn(clippy::disallowed_methods)]

use pyo3::prelude::*;

mod arrays;
mod bare;
mod buffers;
mod bulk;
mod convert;
mod disassembly;
mod dump;
mod errors;
mod export;
mod fork;
mod gate;
mod handle;
mod image;
mod lines;
mod mapping;
mod p2m;
mod paths;
mod read;
mod search;
mod space;
mod struct_arrays;
mod structs;
mod symbols;
mod type_graph;
mod types;
mod unwind;
mod zstd;

#[pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;
    use pyo3::types::PyTuple;
    use xenkdump::status::Status;

    #[pymodule_export]
    use super::bare::PageTables;
    #[pymodule_export]
    use super::disassembly::disassemble;
    #[pymodule_export]
    use super::dump::{split_identity, Note};
    #[pymodule_export]
    use super::errors::{AbsentError, DumpError, MemoryFault};
    #[pymodule_export]
    use super::export::{export, ExportControl};
    #[pymodule_export]
    use super::handle::Dump;
    #[pymodule_export]
    use super::image::{head, Image};
    #[pymodule_export]
    use super::lines::SourceLines;
    #[pymodule_export]
    use super::mapping::{MappedRange, MappedRanges, Mapping};
    #[pymodule_export]
    use super::p2m::{P2MComparison, P2M};
    #[pymodule_export]
    use super::search::SearchResult;
    #[pymodule_export]
    use super::space::AddressSpace;
    #[pymodule_export]
    use super::symbols::{Symbol, SymbolIterator, SymbolTable, Symbols};
    #[pymodule_export]
    use super::type_graph::{Type, TypeGraph, TypeIterator, TypeMember};
    #[pymodule_export]
    use super::types::{Member, Types};
    #[pymodule_export]
    use super::unwind::{Backtrace, Frame, Unwinder};
    #[pymodule_export]
    use super::zstd::{zstd_content_size, zstd_obstacle, ZstdDecoder};

    /// Adds `STATUS`, the meanings of the numbers in `status`, and `VERSION`, that of this package, and
    /// registers the handlers for `os.fork`.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::fork::register(module)?;
        let names = Status::ALL.map(Status::name);
        module.add("STATUS", PyTuple::new(module.py(), names)?)?;
        module.add("VERSION", env!("CARGO_PKG_VERSION"))
    }
}
