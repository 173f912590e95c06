//! `Symbols` and `Symbol`.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;

use xenkdump::addr::VirtAddr;
use xenkdump::symbols;

use crate::errors;
use crate::fork::detach;

/// Names and addresses of an image and its modules, both ways.
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

    /// What is known now: a cheap copy, which modules added later are not in.
    pub fn snapshot(&self) -> symbols::Symbols {
        self.read().clone()
    }

    /// The table, once names can be asked for; other threads may run until then.
    fn named(&self, py: Python<'_>) -> RwLockReadGuard<'_, symbols::Symbols> {
        if !self.read().names_are_built() {
            detach(py, || self.read().build_names());
        }
        self.read()
    }

    /// The same, once addresses can be.
    fn built(&self, py: Python<'_>) -> RwLockReadGuard<'_, symbols::Symbols> {
        if !self.read().is_built() {
            detach(py, || self.read().build());
        }
        self.read()
    }

    /// No reader leaves the table half changed, so a poisoned lock is as good as another.
    fn read(&self) -> RwLockReadGuard<'_, symbols::Symbols> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Symbols {
    /// The symbols that a System.map or xen-syms.map lists.
    #[staticmethod]
    fn from_map(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        detach(py, || symbols::Symbols::from_map(&path))
            .map(Self::new)
            .map_err(errors::from_core)
    }

    /// How far the kernel is from where it was linked to be.
    #[getter]
    fn slide(&self) -> i64 {
        self.read().slide()
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        detach(py, || self.read().len())
    }

    fn __contains__(&self, py: Python<'_>, name: &str) -> bool {
        self.named(py).get(name).is_some()
    }

    fn __getitem__(&self, py: Python<'_>, name: &str) -> PyResult<u64> {
        self.get(py, name)
            .ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    /// The address of a symbol; of several, a global one's, then the lowest.
    fn get(&self, py: Python<'_>, name: &str) -> Option<u64> {
        self.named(py).get(name).map(|symbol| symbol.address.0)
    }

    /// All symbols of a name, by address; of thousands, 4096.
    fn all(&self, py: Python<'_>, name: &str) -> Vec<Symbol> {
        let symbols = self.named(py);
        symbols.all(name).into_iter().map(Symbol::new).collect()
    }

    /// The symbol whose size covers an address, else the nearest below.
    fn lookup(&self, address: &Bound<'_, PyAny>) -> PyResult<Option<Symbol>> {
        let symbols = self.built(address.py());
        let found = errors::address(address)?.and_then(|at| symbols.lookup(VirtAddr(at)));
        Ok(found.map(Symbol::new))
    }

    /// The nearest symbol at or below an address, whatever its size: what crash names.
    fn nearest(&self, address: &Bound<'_, PyAny>) -> PyResult<Option<Symbol>> {
        let symbols = self.built(address.py());
        let found = errors::address(address)?.and_then(|at| symbols.nearest(VirtAddr(at)));
        Ok(found.map(Symbol::new))
    }

    /// Adds those symbols of a loaded module that lie from `start` to `end`. `symtab` is an array
    /// of Elf32_Sym or Elf64_Sym with absolute values, as `struct module` keeps it.
    fn add_module(&self, name: &str, start: u64, end: u64, symtab: &[u8], strtab: &[u8]) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.add_module(
            name,
            VirtAddr(start),
            VirtAddr(end),
            symtab.to_vec(),
            strtab.to_vec(),
        );
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
    /// Its size in bytes; 0 where the source does not tell.
    #[pyo3(get)]
    size: u64,
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
