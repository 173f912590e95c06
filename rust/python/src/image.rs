//! `Image`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use xenkdump::addr::VirtAddr;
use xenkdump::{elf, symbols, types};

use crate::errors;
use crate::fork::detach;
use crate::symbols::Symbols;
use crate::types::Types;

/// The ELF file of a kernel or hypervisor: vmlinux, xen-syms.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct Image {
    pub inner: Arc<elf::Image>,
    /// Without a slide; shared by the symbols of all slides.
    symbols: OnceLock<symbols::Symbols>,
}

#[pymethods]
impl Image {
    /// Opens the file at `path`: OSError if it cannot be opened, DumpError if it is not an ELF file.
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let inner = detach(py, || elf::Image::open(&path)).map_err(errors::from_core)?;
        Ok(Self {
            inner: Arc::new(inner),
            symbols: OnceLock::new(),
        })
    }

    /// The file's path.
    #[getter]
    fn path(&self) -> String {
        self.inner.file().path().display().to_string()
    }

    /// The build id in hexadecimal; None if there is none.
    #[getter]
    fn build_id(&self) -> Option<String> {
        let bytes = self.inner.build_id()?;
        Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// `e_machine` of its ELF header: 3 is EM_386, 62 is EM_X86_64.
    #[getter]
    fn machine_type(&self) -> u16 {
        self.inner.machine()
    }

    /// Its word size in bytes.
    #[getter]
    fn word(&self) -> usize {
        self.inner.word().bytes()
    }

    /// Every section: name, link-time address, offset in the file, size in memory.
    fn sections(&self) -> Vec<(String, u64, u64, u64)> {
        self.inner
            .sections()
            .map(|s| (s.name().to_owned(), s.address().0, s.offset(), s.size()))
            .collect()
    }

    /// The bytes of a section, inflated if it is compressed; AbsentError if the file does not have
    /// them.
    fn section<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyBytes>> {
        let data = detach(py, || self.inner.data(name));
        Ok(PyBytes::new(py, data.map_err(errors::from_core)?))
    }

    /// `size` bytes at a link-time address; AbsentError if the file does not have them.
    fn read<'py>(&self, address: &Bound<'py, PyAny>, size: u64) -> PyResult<Bound<'py, PyBytes>> {
        let at = errors::address(address)?.ok_or_else(|| errors::outside(address, "virtual"))?;
        let bytes = self.inner.read(VirtAddr(at), size);
        Ok(PyBytes::new(
            address.py(),
            &bytes.map_err(errors::from_core)?,
        ))
    }

    /// The symbols of the kernel when loaded `slide` bytes above its link-time address; AbsentError if
    /// there is no symbol table.
    #[pyo3(signature = (slide=0))]
    fn symbols(&self, slide: i64) -> PyResult<Symbols> {
        let symbols = match self.symbols.get() {
            Some(symbols) => symbols,
            None => {
                let symbols = symbols::Symbols::of_image(&self.inner).map_err(errors::from_core)?;
                self.symbols.get_or_init(|| symbols)
            }
        };
        Ok(Symbols::new(symbols.with_slide(slide)))
    }

    /// The types from BTF, else from DWARF; AbsentError if there is neither. `cache` is the directory
    /// for DWARF indices, by default in the user's cache directory.
    #[pyo3(signature = (cache=None))]
    fn types(&self, py: Python<'_>, cache: Option<PathBuf>) -> PyResult<Types> {
        let types = detach(py, || match cache {
            Some(folder) => types::Types::of_image(&self.inner, Some(&folder)),
            None => types::Types::of_image(&self.inner, types::user_cache().as_deref()),
        });
        types.map(Types::new).map_err(errors::from_core)
    }

    /// The types of BTF data that the file does not have: the kernel's memory between __start_BTF and
    /// __stop_BTF. AbsentError if they cannot be read to their end.
    fn types_from_btf(&self, py: Python<'_>, data: Vec<u8>) -> PyResult<Types> {
        let word = self.inner.word();
        let types = detach(py, || types::Types::from_btf(data.into(), word));
        types.map(Types::new).map_err(|malformed| {
            errors::from_core(xenkdump::Error::Absent(format!(
                "{}: the BTF in memory is not used: offset {:#x}: expected {}, found {}",
                self.path(),
                malformed.offset,
                malformed.expected,
                malformed.found
            )))
        })
    }

    fn __repr__(&self) -> String {
        let id = self.build_id().unwrap_or_else(|| "no build id".into());
        format!("<Image {:?}: {id}>", self.path())
    }
}
