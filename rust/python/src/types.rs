//! `Types` and `Member`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use xenkdump::{alloc, types};

use crate::errors;
use crate::fork::detach;
use crate::type_graph::TypeGraph;

/// Layouts of structs, from BTF or DWARF.
#[pyclass(frozen, module = "xenkdump_fast._native")]
#[derive(Clone)]
pub struct Types {
    pub inner: Arc<types::Types>,
}

impl Types {
    pub fn new(inner: types::Types) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }
}

#[pymethods]
impl Types {
    /// The source of the types: "BTF" or "DWARF".
    #[getter]
    fn source(&self) -> &'static str {
        match self.inner.source() {
            types::Source::Btf => "BTF",
            types::Source::Dwarf => "DWARF",
        }
    }

    /// What could not be read so far, and what is unknown but was verified.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }

    /// Size of a pointer in bytes.
    #[getter]
    fn word(&self) -> usize {
        self.inner.word().bytes()
    }

    /// The types one by one.
    #[getter]
    fn graph(&self) -> TypeGraph {
        TypeGraph::new(Arc::clone(&self.inner))
    }

    /// The types of a module, by its BTF, which continues that of its kernel: `self`. AbsentError if
    /// these types are not a kernel's BTF, or if the module's cannot be read to its end, or does not
    /// fit.
    fn split(&self, py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        let types = detach(py, || self.inner.split(alloc::copied(data).into()))?;
        types.map(Self::new).map_err(errors::from_core)
    }

    fn __contains__(&self, py: Python<'_>, r#struct: &str) -> PyResult<bool> {
        detach(py, || self.inner.contains(r#struct))
    }

    /// Size of a type in bytes.
    fn sizeof(&self, py: Python<'_>, r#struct: &str) -> PyResult<u64> {
        detach(py, || self.inner.size_of(r#struct))?.map_err(errors::from_core)
    }

    /// The type of a global variable, as C writes it.
    fn variable(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        detach(py, || self.inner.variable(name))?.map_err(errors::from_core)
    }

    /// A member by its path, "task_struct.se.exec_start".
    fn member(&self, py: Python<'_>, path: &str) -> PyResult<Member> {
        detach(py, || self.inner.member(path))?
            .map(Member::new)
            .map_err(errors::from_core)
    }

    /// All members of a struct or union, including those of anonymous structs and unions.
    fn members<'py>(&self, py: Python<'py>, r#struct: &str) -> PyResult<Bound<'py, PyDict>> {
        let members = detach(py, || self.inner.members(r#struct))?.map_err(errors::from_core)?;
        let dict = PyDict::new(py);
        for (name, member) in members {
            dict.set_item(name, Member::new(member))?;
        }
        Ok(dict)
    }

    /// The offset of a member in bytes.
    fn offset(&self, py: Python<'_>, path: &str) -> PyResult<u64> {
        detach(py, || self.inner.offset(path))?.map_err(errors::from_core)
    }

    /// The enumerators of an enum.
    fn r#enum<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyDict>> {
        let enumerators =
            detach(py, || self.inner.enumerators(name))?.map_err(errors::from_core)?;
        let dict = PyDict::new(py);
        for (name, value) in enumerators {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    /// The value of an enumerator of any enum.
    fn enumerator(&self, py: Python<'_>, name: &str) -> PyResult<i128> {
        detach(py, || self.inner.enumerator(name))?.map_err(errors::from_core)
    }

    fn __repr__(&self) -> String {
        format!("<Types from {}>", self.source())
    }
}

/// One member of a struct or union.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct Member {
    inner: types::Member,
}

impl Member {
    fn new(inner: types::Member) -> Self {
        Self { inner }
    }
}

#[pymethods]
impl Member {
    /// Bytes from the start of the outermost struct.
    #[getter]
    fn offset(&self) -> u64 {
        self.inner.offset
    }

    /// Size in bytes; for a bit-field, the size of the bytes at `offset` that contain it.
    #[getter]
    fn size(&self) -> u64 {
        self.inner.size
    }

    /// Lowest bit of a bit-field within its bytes; None for other members.
    #[getter]
    fn bit_offset(&self) -> Option<u64> {
        self.inner.bits.map(|bits| bits.offset)
    }

    /// Width of a bit-field; None for other members.
    #[getter]
    fn bit_size(&self) -> Option<u64> {
        self.inner.bits.map(|bits| bits.size)
    }

    /// Its type as C writes it.
    #[getter]
    fn type_name(&self) -> &str {
        &self.inner.type_name
    }

    /// "int", "float", "ptr", "struct", "union", "array", "enum", "func" or "void", without typedefs
    /// and qualifiers.
    #[getter]
    fn kind(&self) -> &'static str {
        self.inner.kind.name()
    }

    /// The number of elements of an array, in all dimensions together; None for other members.
    #[getter]
    fn count(&self) -> Option<u64> {
        self.inner.count
    }

    /// Whether it is a signed number, or an array of signed numbers.
    #[getter]
    fn signed(&self) -> bool {
        self.inner.signed
    }

    fn __repr__(&self) -> String {
        let (offset, size) = (self.inner.offset, self.inner.size);
        format!(
            "<Member {} at {offset}, {size} bytes>",
            self.inner.type_name
        )
    }
}
