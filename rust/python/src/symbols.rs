//! `Symbols` and `Symbol`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use xenkdump::addr::VirtAddr;
use xenkdump::alloc;
use xenkdump::symbols;

use crate::arrays;
use crate::buffers::Column;
use crate::errors;
use crate::fork::detach;

/// Symbols of an image and its modules, by name and by address.
#[pyclass(frozen, mapping, module = "xenkdump_fast._native")]
pub struct Symbols {
    inner: RwLock<symbols::Symbols>,
}

impl Symbols {
    pub fn new(inner: symbols::Symbols) -> Self {
        Self {
            inner: RwLock::new(inner),
        }
    }

    /// A cheap copy of the current symbols. Modules added later are not in it.
    pub fn snapshot(&self) -> symbols::Symbols {
        self.read().clone()
    }

    /// The table with its index of names. The index is built without the GIL.
    fn named(&self, py: Python<'_>) -> PyResult<RwLockReadGuard<'_, symbols::Symbols>> {
        if !self.read().names_are_built() {
            detach(py, || self.read().build_names())?;
        }
        Ok(self.read())
    }

    /// The table with its index of addresses. The index is built without the GIL.
    fn built(&self, py: Python<'_>) -> PyResult<RwLockReadGuard<'_, symbols::Symbols>> {
        if !self.read().is_built() {
            detach(py, || self.read().build())?;
        }
        Ok(self.read())
    }

    /// The table. Poisoning is ignored: a panic cannot leave the table in an invalid state.
    fn read(&self) -> RwLockReadGuard<'_, symbols::Symbols> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Symbols {
    /// The symbols of a System.map or xen-syms.map.
    #[staticmethod]
    fn from_map(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        detach(py, || symbols::Symbols::from_map(&path))?
            .map(Self::new)
            .map_err(errors::from_core)
    }

    /// The offset of the kernel from its link-time address.
    #[getter]
    fn slide(&self) -> i64 {
        self.read().slide()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        detach(py, || self.read().len())
    }

    /// Iterates over the symbols that are known now: by address, then those of each module.
    fn __iter__(&self) -> SymbolIterator {
        SymbolIterator {
            symbols: self.snapshot(),
            cursor: Mutex::default(),
        }
    }

    /// All symbols as columns, in the order of the iterator.
    fn table(&self, py: Python<'_>) -> PyResult<SymbolTable> {
        let symbols = self.snapshot();
        let rows = detach(py, || {
            let mut cursor = symbols::Cursor::default();
            alloc::collect(std::iter::from_fn(|| symbols.next(&mut cursor)))
        })?;
        SymbolTable::new(py, &rows)
    }

    fn __contains__(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        Ok(self.get(py, name)?.is_some())
    }

    fn __getitem__(&self, py: Python<'_>, name: &str) -> PyResult<u64> {
        self.get(py, name)?
            .ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    /// The address of a symbol. If several have the name, a global one is preferred, then the lowest.
    fn get(&self, py: Python<'_>, name: &str) -> PyResult<Option<u64>> {
        let symbols = self.named(py)?;
        // Many symbols of one name are looked up in a table that is built for them.
        errors::catch(|| symbols.get(name).map(|symbol| symbol.address.0))
    }

    /// All symbols with a name, by address; at most 4096.
    fn all(&self, py: Python<'_>, name: &str) -> PyResult<Vec<Symbol>> {
        let symbols = self.named(py)?;
        let found = errors::catch(|| symbols.all(name))?;
        Ok(found.into_iter().map(Symbol::new).collect())
    }

    /// The symbol whose size covers an address, else the nearest one below.
    fn lookup(&self, address: &Bound<'_, PyAny>) -> PyResult<Option<Symbol>> {
        let symbols = self.built(address.py())?;
        let found = errors::address(address)?.and_then(|at| symbols.lookup(VirtAddr(at)));
        Ok(found.map(Symbol::new))
    }

    /// The nearest symbol at or below an address, regardless of its size, as in crash.
    fn nearest(&self, address: &Bound<'_, PyAny>) -> PyResult<Option<Symbol>> {
        let symbols = self.built(address.py())?;
        let found = errors::address(address)?.and_then(|at| symbols.nearest(VirtAddr(at)));
        Ok(found.map(Symbol::new))
    }

    /// Adds the symbols of a loaded module between `start` and `end`. `symtab` is an array of
    /// Elf32_Sym or Elf64_Sym with absolute values, as in `struct module`.
    fn add_module(
        &self,
        name: &str,
        start: u64,
        end: u64,
        symtab: &[u8],
        strtab: &[u8],
    ) -> PyResult<()> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        errors::catch(|| {
            let (symtab, strtab) = (alloc::copied(symtab), alloc::copied(strtab));
            inner.add_module(name, VirtAddr(start), VirtAddr(end), symtab, strtab);
        })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (len, slide) = (self.__len__(py)?, self.slide());
        Ok(format!("<Symbols: {len} symbols, slide {slide:#x}>"))
    }
}

/// An iterator over symbols. Modules that are added meanwhile are not included.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct SymbolIterator {
    symbols: symbols::Symbols,
    cursor: Mutex<symbols::Cursor>,
}

#[pymethods]
impl SymbolIterator {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Symbol>> {
        let next = || {
            let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
            self.symbols.next(&mut cursor).map(Symbol::new)
        };
        // The first step may sort the table.
        if self.symbols.is_sorted() {
            Ok(next())
        } else {
            detach(py, next)
        }
    }

    fn __repr__(&self) -> &'static str {
        "<SymbolIterator>"
    }
}

/// The size of a string of Python without its text, with its slot in a list.
const STRING: usize = 64;

/// Symbols as columns.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct SymbolTable {
    /// Their names.
    #[pyo3(get)]
    names: Py<PyList>,
    /// Their addresses, with the slide applied.
    #[pyo3(get)]
    addresses: Py<PyAny>,
    /// Their sizes in bytes; 0 if unknown.
    #[pyo3(get)]
    sizes: Py<PyAny>,
    /// What they name: "func", "object" or "notype".
    #[pyo3(get)]
    kinds: Py<PyList>,
    /// Their bindings: "global", "weak" or "local".
    #[pyo3(get)]
    bindings: Py<PyList>,
    /// The modules that define them; None for the kernel or hypervisor itself.
    #[pyo3(get)]
    modules: Py<PyList>,
}

impl SymbolTable {
    fn new(py: Python<'_>, rows: &[symbols::Symbol<'_>]) -> PyResult<Self> {
        let text = rows.iter().map(|symbol| symbol.name.len()).sum::<usize>();
        errors::probe(1, rows.len().saturating_mul(STRING).saturating_add(text))?;
        let column = |value: fn(&symbols::Symbol<'_>) -> u64| -> PyResult<Py<PyAny>> {
            let array = arrays::empty(py, rows.len(), "uint64")?;
            let cells = Column::<u64>::writable(&array, "column", rows.len())?;
            let values = errors::catch(|| alloc::collect(rows.iter().map(value)))?;
            cells.store(0, &values, |value| value);
            Ok(array.unbind())
        };
        // Equal strings are one object.
        let strings = |value: fn(&symbols::Symbol<'_>) -> &'static str| -> PyResult<Py<PyList>> {
            let all = rows
                .iter()
                .map(|symbol| PyString::intern(py, value(symbol)));
            Ok(PyList::new(py, all)?.unbind())
        };
        let mut module: Option<(&str, Bound<'_, PyString>)> = None;
        let modules = rows.iter().map(|symbol| {
            let name = symbol.module?;
            if module.as_ref().is_none_or(|(last, _)| *last != name) {
                module = Some((name, PyString::new(py, name)));
            }
            module.as_ref().map(|(_, string)| string.clone())
        });
        let modules = alloc::collect(modules);
        Ok(Self {
            names: PyList::new(py, rows.iter().map(|symbol| symbol.name))?.unbind(),
            addresses: column(|symbol| symbol.address.0)?,
            sizes: column(|symbol| symbol.size)?,
            kinds: strings(|symbol| symbol.kind.name())?,
            bindings: strings(|symbol| symbol.binding.name())?,
            modules: PyList::new(py, modules)?.unbind(),
        })
    }
}

#[pymethods]
impl SymbolTable {
    fn __len__(&self, py: Python<'_>) -> usize {
        self.names.bind(py).len()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<SymbolTable: {} symbols>", self.__len__(py))
    }
}

/// One symbol.
#[pyclass(frozen, eq, hash, module = "xenkdump_fast._native")]
#[derive(PartialEq, Eq, Hash)]
pub struct Symbol {
    /// Its name.
    #[pyo3(get)]
    name: String,
    /// Its address, with the slide applied.
    #[pyo3(get)]
    address: u64,
    /// Its size in bytes; 0 if unknown.
    #[pyo3(get)]
    size: u64,
    /// What it names: "func", "object" or "notype".
    #[pyo3(get)]
    kind: &'static str,
    /// Its binding: "global", "weak" or "local".
    #[pyo3(get)]
    binding: &'static str,
    /// The letter that nm shows for it: its section's, upper case if it is global; "?" if unknown.
    #[pyo3(get)]
    letter: char,
    /// The module that defines it; None for the kernel or hypervisor itself.
    #[pyo3(get)]
    module: Option<String>,
}

impl Symbol {
    pub fn new(symbol: symbols::Symbol<'_>) -> Self {
        Self {
            name: symbol.name.to_owned(),
            address: symbol.address.0,
            size: symbol.size,
            kind: symbol.kind.name(),
            binding: symbol.binding.name(),
            letter: symbol.letter,
            module: symbol.module.map(str::to_owned),
        }
    }
}

#[pymethods]
impl Symbol {
    fn __repr__(&self) -> String {
        let module = self.module.as_ref();
        let module = module.map_or_else(String::new, |module| format!(" [{module}]"));
        format!("<Symbol {}{module} {:#x}>", self.name, self.address)
    }
}
