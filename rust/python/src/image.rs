//! `Image`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use xenkdump::addr::{VirtAddr, Word};
use xenkdump::alloc;
use xenkdump::image::{self, MemoryImage, Place};
use xenkdump::lines::Lines;
use xenkdump::{symbols, types};

use crate::errors;
use crate::fork::detach;
use crate::lines::SourceLines;
use crate::space::AddressSpace;
use crate::symbols::Symbols;
use crate::types::Types;

/// The image of a kernel or hypervisor: a file (vmlinux, vmlinuz, xen-syms), or a kernel's own memory.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct Image {
    pub inner: image::Image,
    /// Without a slide; shared by the symbols of all slides.
    symbols: OnceLock<symbols::Symbols>,
    /// The types of an image in memory, shared by all domains that run it. For a file, `set_debug` may replace
    /// them.
    types: OnceLock<Types>,
}

impl Image {
    fn of(inner: image::Image) -> Self {
        Self {
            inner,
            symbols: OnceLock::new(),
            types: OnceLock::new(),
        }
    }
}

/// The size of a listed section in Python and here.
const LISTED_SECTION: usize = 768;

#[pymethods]
impl Image {
    /// Opens the file at `path`: an ELF file, a compressed one, or the kernel in a vmlinuz. OSError if it
    /// cannot be opened or unpacked, DumpError if it is none of them or corrupt.
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let inner = detach(py, || image::Image::open(&path))?.map_err(errors::from_core)?;
        Ok(Self::of(inner))
    }

    /// The image of the Linux kernel that runs in `memory`, by the symbols (kallsyms), types and unwind
    /// tables in it. `word` is its word size, `name` what messages call it, `ranges` where its image
    /// may be: first and last address. `token_table` is the address of `kallsyms_token_table`, if it
    /// is known. AbsentError if its symbols are not found.
    #[staticmethod]
    #[pyo3(signature = (memory, word, name, ranges, token_table=None))]
    fn in_memory(
        py: Python<'_>,
        memory: &AddressSpace,
        word: usize,
        name: &str,
        ranges: Vec<(u64, u64)>,
        token_table: Option<u64>,
    ) -> PyResult<Self> {
        let word = match word {
            4 => Word::W32,
            8 => Word::W64,
            _ => return Err(PyValueError::new_err("word: 4 or 8 bytes")),
        };
        let place = Place {
            ranges: ranges
                .into_iter()
                .map(|(first, last)| (VirtAddr(first), VirtAddr(last)))
                .collect(),
            token_table: token_table.map(VirtAddr),
        };
        let space = memory.as_virtual()?;
        let found = detach(py, || MemoryImage::find(space, name, word, &place))?;
        let inner = image::Image::Memory(Arc::new(found.map_err(errors::from_core)?));
        Ok(Self::of(inner))
    }

    /// The kernel that the System.map at `path` is of: symbols alone. OSError if it cannot be opened,
    /// DumpError if it is not a map.
    #[staticmethod]
    fn from_map(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let map = detach(py, || MemoryImage::of_map(&path))?.map_err(errors::from_core)?;
        Ok(Self::of(image::Image::Memory(Arc::new(map))))
    }

    /// An image of a map, with the types and unwind tables in the `memory` of the kernel, which KASLR
    /// moved by `slide` bytes. A file is returned as it is.
    fn with_memory(&self, memory: &AddressSpace, slide: i64) -> PyResult<Self> {
        Ok(Self::of(match &self.inner {
            image::Image::File(file) => image::Image::File(Arc::clone(file)),
            image::Image::Memory(map) => {
                let space = memory.as_virtual()?;
                image::Image::Memory(Arc::new(map.with_memory(space, slide)))
            }
        }))
    }

    /// Takes symbols and sections that this file lacks from `debug`, a file of the same build. Only the
    /// first one is used, and only what was not read before.
    fn set_debug(&self, debug: &Self) {
        if let (image::Image::File(file), image::Image::File(debug)) = (&self.inner, &debug.inner) {
            file.set_debug(Arc::clone(debug));
        }
    }

    /// The path of the file that was given to `set_debug`; None without one.
    #[getter]
    fn debug_path(&self) -> Option<String> {
        match &self.inner {
            image::Image::File(file) => {
                let debug = file.debug()?;
                Some(debug.file().path().display().to_string())
            }
            image::Image::Memory(_) => None,
        }
    }

    /// Where its symbols are from: `symtab`, `kallsyms` (the kernel's own table) or `map`.
    #[getter]
    fn symbol_source(&self) -> &'static str {
        match &self.inner {
            image::Image::File(file) if file.symbol_table().is_some() => "symtab",
            image::Image::Memory(memory) if memory.is_map() => "map",
            _ => "kallsyms",
        }
    }

    /// The same image in memory, at the addresses of a kernel that KASLR moved by `slide` bytes; a file
    /// has those addresses.
    fn unmoved(&self, slide: i64) -> Self {
        match &self.inner {
            image::Image::File(file) => Self::of(image::Image::File(Arc::clone(file))),
            image::Image::Memory(memory) => {
                let moved = slide.wrapping_sub(memory.slide());
                let symbols = self.symbols.get().map(|symbols| symbols.unmoved(moved));
                Self {
                    inner: image::Image::Memory(Arc::new(memory.with_slide(slide))),
                    symbols: symbols.map(OnceLock::from).unwrap_or_default(),
                    types: self.types.clone(),
                }
            }
        }
    }

    /// The same image in memory with further variables, at the addresses where the kernel runs; a file
    /// has its own.
    fn with_variables(&self, variables: Vec<(String, u64)>) -> Self {
        let named = |(name, at): (String, u64)| (name.into_bytes(), at);
        let variables = variables.into_iter().map(named).collect();
        Self::of(match &self.inner {
            image::Image::File(file) => image::Image::File(Arc::clone(file)),
            image::Image::Memory(memory) => {
                image::Image::Memory(Arc::new(memory.with_variables(variables)))
            }
        })
    }

    /// The file's path; for a kernel's memory, its name in messages.
    #[getter]
    fn path(&self) -> String {
        self.inner.name()
    }

    /// Whether it is a kernel's memory, not a file.
    #[getter]
    fn is_memory(&self) -> bool {
        matches!(self.inner, image::Image::Memory(_))
    }

    /// What the dump lacks of an image in memory, as far as it was used.
    #[getter]
    fn losses(&self) -> Vec<String> {
        self.inner.losses()
    }

    /// The build id in hexadecimal; None if there is none.
    #[getter]
    fn build_id(&self) -> PyResult<Option<String>> {
        let bytes = errors::catch(|| self.inner.build_id())?;
        Ok(bytes.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
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
    fn sections(&self) -> PyResult<Vec<(String, u64, u64, u64)>> {
        let sections = errors::catch(|| self.inner.sections())?;
        errors::probe(sections.len(), LISTED_SECTION)?;
        let listed = sections.into_iter();
        Ok(listed
            .map(|s| (s.name, s.address.0, s.offset, s.size))
            .collect())
    }

    /// The bytes of a section, inflated if it is compressed; AbsentError if the file does not have
    /// them.
    fn section<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyBytes>> {
        let data = detach(py, || self.inner.data(name))?.map_err(errors::from_core)?;
        bytes_of(py, &data)
    }

    /// `size` bytes at a link-time address; AbsentError if the file does not have them.
    fn read<'py>(&self, address: &Bound<'py, PyAny>, size: u64) -> PyResult<Bound<'py, PyBytes>> {
        let at = errors::address(address)?.ok_or_else(|| errors::outside(address, "virtual"))?;
        let bytes = errors::catch(|| self.inner.read(VirtAddr(at), size))?;
        bytes_of(address.py(), &bytes.map_err(errors::from_core)?)
    }

    /// The symbols of the kernel when loaded `slide` bytes above its link-time address; AbsentError if
    /// there is no symbol table.
    #[pyo3(signature = (slide=0))]
    fn symbols(&self, slide: i64) -> PyResult<Symbols> {
        let symbols = match self.symbols.get() {
            Some(symbols) => symbols,
            None => {
                let symbols = errors::catch(|| symbols::Symbols::of_image(&self.inner))?;
                let symbols = symbols.map_err(errors::from_core)?;
                self.symbols.get_or_init(|| symbols)
            }
        };
        Ok(Symbols::new(symbols.with_slide(slide)))
    }

    /// The source lines of the kernel when loaded `slide` bytes above its link-time address; AbsentError
    /// if there is no DWARF.
    #[pyo3(signature = (slide=0))]
    fn source_lines(&self, py: Python<'_>, slide: i64) -> PyResult<SourceLines> {
        let lines = detach(py, || Lines::of_image(&self.inner))?;
        let lines = lines.map_err(errors::from_core)?;
        Ok(SourceLines::new(lines, slide))
    }

    /// The types from BTF, else from DWARF; AbsentError if there is neither. `cache` is the directory
    /// for DWARF indices, by default in the user's cache directory.
    #[pyo3(signature = (cache=None))]
    fn types(&self, py: Python<'_>, cache: Option<PathBuf>) -> PyResult<Types> {
        if let Some(known) = self.types.get() {
            return Ok(known.clone());
        }
        let types = detach(py, || match cache {
            Some(folder) => types::Types::of_image(&self.inner, Some(&folder)),
            None => types::Types::of_image(&self.inner, types::user_cache().as_deref()),
        })?;
        let types = types.map(Types::new).map_err(errors::from_core)?;
        Ok(match self.inner {
            image::Image::File(_) => types,
            image::Image::Memory(_) => self.types.get_or_init(|| types).clone(),
        })
    }

    /// The types of BTF data that the file does not have: the kernel's memory between __start_BTF and
    /// __stop_BTF. AbsentError if they cannot be read to their end.
    fn types_from_btf(&self, py: Python<'_>, data: &[u8]) -> PyResult<Types> {
        let word = self.inner.word();
        let types = detach(py, || {
            types::Types::from_btf(alloc::copied(data).into(), word)
        })?;
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

    fn __repr__(&self) -> PyResult<String> {
        let id = self.build_id()?.unwrap_or_else(|| "no build id".into());
        Ok(format!("<Image {:?}: {id}>", self.path()))
    }
}

/// A copy; MemoryError if there is no memory for it.
fn bytes_of<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, bytes.len(), |buf| {
        buf.copy_from_slice(bytes);
        Ok(())
    })
}

/// The first bytes of the file at `path`, at most `size`; of what it holds if it is compressed.
#[pyfunction]
pub fn head<'py>(py: Python<'py>, path: PathBuf, size: usize) -> PyResult<Bound<'py, PyBytes>> {
    let size = size.min(image::MAX_HEAD);
    let bytes = detach(py, || image::head(&path, size))?.map_err(errors::from_core)?;
    Ok(PyBytes::new(py, &bytes))
}
