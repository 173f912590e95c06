//! `TypeGraph`, `Type` and `TypeMember`.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use xenkdump::alloc;
use xenkdump::types::graph::{self, TypeId};
use xenkdump::types::Types;

use crate::errors;
use crate::fork::detach;

/// Types one by one, each with the types that it refers to.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct TypeGraph {
    types: Arc<Types>,
}

impl TypeGraph {
    pub fn new(types: Arc<Types>) -> Self {
        Self { types }
    }

    fn describe(&self, py: Python<'_>, id: TypeId) -> PyResult<Type> {
        Type::new(py, &self.types, id)
    }
}

#[pymethods]
impl TypeGraph {
    /// The number of types that the iterator yields.
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        detach(py, || self.types.listed().size_hint().0)
    }

    /// Iterates over all types of BTF by number, over the named types of DWARF.
    fn __iter__(&self, py: Python<'_>) -> PyResult<TypeIterator> {
        Ok(TypeIterator {
            types: Arc::clone(&self.types),
            ids: Mutex::new(detach(py, || self.types.listed())?),
        })
    }

    /// The type with this number.
    fn __getitem__(&self, py: Python<'_>, number: u64) -> PyResult<Type> {
        let found = detach(py, || self.types.describe(TypeId(number)))?;
        let head = found.map_err(|error| PyKeyError::new_err(error.to_string()))?;
        Ok(Type::of(&self.types, head))
    }

    fn __contains__(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        detach(py, || self.types.number_of(name).is_ok())
    }

    /// The type with this name.
    fn find(&self, py: Python<'_>, name: &str) -> PyResult<Type> {
        let id = detach(py, || self.types.number_of(name))?.map_err(errors::from_core)?;
        self.describe(py, id)
    }

    /// The type of a global variable.
    fn variable(&self, py: Python<'_>, name: &str) -> PyResult<Type> {
        let id = detach(py, || self.types.number_of_variable(name))?.map_err(errors::from_core)?;
        self.describe(py, id)
    }

    /// These types and all that can be reached from them, each once.
    fn reachable(&self, py: Python<'_>, types: Vec<PyRef<'_, Type>>) -> PyResult<TypeIterator> {
        let from = alloc::collect(types.iter().map(|ty| ty.head.id));
        drop(types);
        let found = detach(py, || {
            let found = self.types.reachable(&from)?;
            Ok(graph::Ids::of(found))
        })?;
        Ok(TypeIterator {
            types: Arc::clone(&self.types),
            ids: Mutex::new(found.map_err(errors::from_core)?),
        })
    }

    fn __repr__(&self) -> &'static str {
        "<TypeGraph>"
    }
}

/// An iterator over types, each of which is made when it is asked for.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct TypeIterator {
    types: Arc<Types>,
    ids: Mutex<graph::Ids>,
}

#[pymethods]
impl TypeIterator {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self) -> PyResult<Option<Type>> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(id) = ids.next() else {
            return Ok(None);
        };
        drop(ids);
        let head = errors::catch(|| self.types.describe(id))?.map_err(errors::from_core)?;
        Ok(Some(Type::of(&self.types, head)))
    }

    fn __repr__(&self) -> &'static str {
        "<TypeIterator>"
    }
}

/// One type.
#[pyclass(frozen, eq, hash, module = "xenkdump_fast._native")]
pub struct Type {
    types: Arc<Types>,
    head: graph::Type,
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.types, &other.types) && self.head.id == other.head.id
    }
}

impl Eq for Type {}

impl Hash for Type {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.head.id.hash(state);
    }
}

impl Type {
    fn new(py: Python<'_>, types: &Arc<Types>, id: TypeId) -> PyResult<Self> {
        let head = detach(py, || types.describe(id))?.map_err(errors::from_core)?;
        Ok(Self::of(types, head))
    }

    fn of(types: &Arc<Types>, head: graph::Type) -> Self {
        let types = Arc::clone(types);
        Self { types, head }
    }

    fn other(&self, py: Python<'_>, id: TypeId) -> PyResult<Self> {
        Self::new(py, &self.types, id)
    }
}

#[pymethods]
impl Type {
    /// Its number: the ID of BTF, the offset of the entry in `.debug_info` for DWARF.
    #[getter]
    fn number(&self) -> u64 {
        self.head.id.0
    }

    /// Its kind: "int", "ptr", "struct"...
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::intern(py, self.head.kind.name())
    }

    /// Its name; empty if it has none.
    #[getter]
    fn name(&self) -> &str {
        &self.head.name
    }

    /// "struct", "union" or "enum" for these and for what is declared; else None.
    #[getter]
    fn keyword(&self) -> Option<&'static str> {
        self.head.keyword
    }

    /// Its own size in bytes; None if it has none, or that of another type.
    #[getter]
    fn size(&self) -> Option<u64> {
        self.head.size
    }

    /// Whether it is a signed number, or an enum with signed values.
    #[getter]
    fn signed(&self) -> bool {
        self.head.signed
    }

    /// What the bits of a number mean: "int", "char", "bool", "float" or "complex"; else None.
    #[getter]
    fn encoding(&self) -> Option<&'static str> {
        self.head.encoding.map(graph::Encoding::name)
    }

    /// The number of elements of an array; 0 if its extent is not known. Else None.
    #[getter]
    fn count(&self) -> Option<u64> {
        self.head.count
    }

    /// The number of the type that it refers to; None for `void`, and if its kind has none.
    #[getter]
    fn target_number(&self) -> Option<u64> {
        self.head.target.map(|id| id.0)
    }

    /// The type that it refers to; None for `void`, and if its kind has none.
    #[getter]
    fn target(&self, py: Python<'_>) -> PyResult<Option<Self>> {
        let target = self.head.target;
        target.map(|id| self.other(py, id)).transpose()
    }

    /// The members of a struct or union; empty for other kinds.
    #[getter]
    fn members(&self, py: Python<'_>) -> PyResult<Vec<TypeMember>> {
        let found = detach(py, || self.types.members_of(self.head.id))?;
        let found = found.map_err(errors::from_core)?;
        let members = found.into_iter().map(|member| TypeMember {
            types: Arc::clone(&self.types),
            member,
        });
        errors::catch(|| alloc::collect(members))
    }

    /// The enumerators of an enum with their values; empty for other kinds.
    #[getter]
    fn enumerators(&self, py: Python<'_>) -> PyResult<Vec<(String, i128)>> {
        detach(py, || self.types.enumerators_of(self.head.id))?.map_err(errors::from_core)
    }

    /// Names and types of the parameters of a prototype; a type is None for `void`.
    #[getter]
    fn parameters(&self, py: Python<'_>) -> PyResult<Vec<(String, Option<Self>)>> {
        let found = detach(py, || self.types.parameters_of(self.head.id))?;
        let found = found.map_err(errors::from_core)?.named;
        let mut all = errors::catch(|| alloc::with_capacity(found.len()))?;
        for (name, id) in found {
            all.push((name, id.map(|id| self.other(py, id)).transpose()?));
        }
        Ok(all)
    }

    /// Whether a prototype has `...` after its parameters.
    #[getter]
    fn variadic(&self, py: Python<'_>) -> PyResult<bool> {
        let found = detach(py, || self.types.parameters_of(self.head.id))?;
        Ok(found.map_err(errors::from_core)?.variadic)
    }

    /// Variables of a section with offset and size in bytes; empty for other kinds.
    #[getter]
    fn variables(&self, py: Python<'_>) -> PyResult<Vec<(Self, u64, u64)>> {
        let found = detach(py, || self.types.variables_of(self.head.id))?;
        let found = found.map_err(errors::from_core)?;
        let mut all = errors::catch(|| alloc::with_capacity(found.len()))?;
        for place in found {
            all.push((self.other(py, place.variable)?, place.offset, place.size));
        }
        Ok(all)
    }

    /// Its size in bytes, also of a typedef or an array; None if it has none.
    fn sizeof(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        detach(py, || self.types.size_of_type(self.head.id))?.map_err(errors::from_core)
    }

    /// Without typedefs and qualifiers; None is `void`.
    fn stripped(&self, py: Python<'_>) -> PyResult<Option<Self>> {
        let found = detach(py, || self.types.stripped(self.head.id))?;
        let found = found.map_err(errors::from_core)?;
        found.map(|id| self.other(py, id)).transpose()
    }

    /// The definition of what is only declared, if there is one; other types are returned as they are.
    fn completed(&self, py: Python<'_>) -> PyResult<Self> {
        let same = || self.head.clone();
        if self.head.kind != graph::Kind::Forward {
            return Ok(Self::of(&self.types, same()));
        }
        let name = format!(
            "{} {}",
            self.head.keyword.unwrap_or("struct"),
            self.head.name
        );
        match detach(py, || self.types.number_of(&name))? {
            Ok(id) => self.other(py, id),
            Err(_) => Ok(Self::of(&self.types, same())),
        }
    }

    /// As C writes it.
    fn __str__(&self, py: Python<'_>) -> PyResult<String> {
        detach(py, || self.types.spelling(self.head.id))?.map_err(errors::from_core)
    }

    fn __repr__(&self) -> String {
        let graph::Type { id, kind, name, .. } = &self.head;
        let name = if name.is_empty() {
            "anonymous"
        } else {
            name.as_str()
        };
        format!("<Type {}: {} {name}>", id.0, kind.name())
    }
}

/// A member of a struct or union, which may be anonymous.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct TypeMember {
    types: Arc<Types>,
    member: graph::Member,
}

#[pymethods]
impl TypeMember {
    /// Its name; empty for an anonymous struct or union.
    #[getter]
    fn name(&self) -> &str {
        &self.member.name
    }

    /// Its type.
    #[getter]
    fn r#type(&self, py: Python<'_>) -> PyResult<Type> {
        Type::new(py, &self.types, self.member.ty)
    }

    /// The number of its type.
    #[getter]
    fn type_number(&self) -> u64 {
        self.member.ty.0
    }

    /// Bits from the start of the struct.
    #[getter]
    fn bit_offset(&self) -> u64 {
        self.member.bit_offset
    }

    /// Width of a bit-field in bits; else None.
    #[getter]
    fn bit_size(&self) -> Option<u64> {
        self.member.bit_size
    }

    /// Bytes from the start of the struct; of a bit-field, to the byte with its lowest bit.
    #[getter]
    fn offset(&self) -> u64 {
        self.member.bit_offset / 8
    }

    fn __repr__(&self) -> String {
        let graph::Member {
            name, bit_offset, ..
        } = &self.member;
        format!("<TypeMember {name} at bit {bit_offset}>")
    }
}
