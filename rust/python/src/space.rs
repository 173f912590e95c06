//! `AddressSpace` and `Mapping`.

use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use xenkdump::addr::{MachineAddr, VirtAddr};
use xenkdump::dump::Dump;
use xenkdump::memory::Fault;
use xenkdump::p2m::{P2m, Physical};
use xenkdump::paging::{self, Format, Virtual};
use xenkdump::space::Space;

use crate::errors;

/// Reads of as many bytes release the GIL.
const DETACH: usize = 16 << 10;
/// Before memory for a longer read is set aside, all of it is looked up.
const CHECK: usize = 64 << 20;

/// Memory under one kind of address.
///
/// Addresses are ints, sizes are bytes, numbers are little-endian. What cannot be read raises
/// MemoryFault. May be shared between threads.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct AddressSpace {
    pub inner: Space<Arc<Dump>>,
}

impl AddressSpace {
    /// The machine memory of `dump`.
    pub fn machine(dump: Arc<Dump>) -> Self {
        Self {
            inner: Space::Machine(dump),
        }
    }

    /// A domain's pseudo-physical memory; without a P2M that of a bare host.
    pub fn physical(dump: Arc<Dump>, p2m: Option<Arc<P2m<Arc<Dump>>>>) -> Self {
        let physical = p2m.map_or(Physical::Bare(dump), Physical::P2m);
        Self {
            inner: Space::Physical(physical),
        }
    }

    /// What the tables below `root` (a cr3) map; `paging` names their layout.
    pub fn virtual_memory(dump: Arc<Dump>, root: u64, paging: &str) -> PyResult<Self> {
        let format = Format::by_name(paging).ok_or_else(|| {
            let names = Format::ALL.map(|format| format.name).join(", ");
            PyValueError::new_err(format!("no paging layout {paging:?}; there are {names}"))
        })?;
        Ok(Self {
            inner: Space::Virtual(Virtual::new(dump, format, MachineAddr(root))),
        })
    }

    /// The virtual space within, or a TypeError.
    pub fn as_virtual(&self) -> PyResult<&Virtual<Arc<Dump>>> {
        match &self.inner {
            Space::Virtual(space) => Ok(space),
            other => Err(PyTypeError::new_err(format!(
                "a virtual address space is needed, not a {} one",
                other.kind()
            ))),
        }
    }

    fn number<const N: usize>(&self, address: u64) -> PyResult<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read(address, &mut bytes).map_err(fault)?;
        Ok(bytes)
    }
}

fn fault(fault: Fault) -> PyErr {
    errors::memory(fault, None)
}

#[pymethods]
impl AddressSpace {
    /// What its addresses are: "machine", "pseudo-physical" or "virtual".
    #[getter]
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    /// The name of the page tables' layout; None where there are none.
    #[getter]
    fn paging(&self) -> Option<&'static str> {
        self.as_virtual().ok().map(|space| space.format().name)
    }

    /// Machine address of the topmost page table; None where there is none.
    #[getter]
    fn root(&self) -> Option<u64> {
        self.as_virtual().ok().map(|space| space.root().0)
    }

    /// The `size` bytes at `address`.
    fn read<'py>(
        &self,
        py: Python<'py>,
        address: u64,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if size > CHECK {
            py.detach(|| self.inner.check(address, size as u64))
                .map_err(fault)?;
        }
        PyBytes::new_with(py, size, |buf| {
            if size < DETACH {
                self.inner.read(address, buf)
            } else {
                py.detach(|| self.inner.read(address, buf))
            }
            .map_err(fault)
        })
    }

    /// The byte at `address`.
    fn u8(&self, address: u64) -> PyResult<u8> {
        self.number(address).map(u8::from_le_bytes)
    }

    /// The 16-bit number at `address`.
    fn u16(&self, address: u64) -> PyResult<u16> {
        self.number(address).map(u16::from_le_bytes)
    }

    /// The 32-bit number at `address`.
    fn u32(&self, address: u64) -> PyResult<u32> {
        self.number(address).map(u32::from_le_bytes)
    }

    /// The 64-bit number at `address`.
    fn u64(&self, address: u64) -> PyResult<u64> {
        self.number(address).map(u64::from_le_bytes)
    }

    /// The number of `size` bytes (1, 2, 4 or 8) at `address`.
    fn word(&self, address: u64, size: usize) -> PyResult<u64> {
        match size {
            1 => self.u8(address).map(u64::from),
            2 => self.u16(address).map(u64::from),
            4 => self.u32(address).map(u64::from),
            8 => self.u64(address),
            _ => Err(PyValueError::new_err(format!(
                "a word has 1, 2, 4 or 8 bytes, not {size}"
            ))),
        }
    }

    /// The bytes at `address` up to the first NUL, without it; `limit` bytes if there is none
    /// among them. Raises MemoryFault only if a byte is missing before either.
    #[pyo3(signature = (address, limit=4096))]
    fn cstring<'py>(
        &self,
        py: Python<'py>,
        address: u64,
        limit: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let text = self.inner.cstring(address, limit).map_err(fault)?;
        Ok(PyBytes::new(py, &text))
    }

    /// The machine address that `address` leads to.
    fn translate(&self, address: u64) -> PyResult<u64> {
        self.inner
            .translate(address)
            .map(|machine| machine.0)
            .map_err(fault)
    }

    /// How `address` is mapped, every level of it. Only a virtual space has mappings (TypeError).
    ///
    /// The MemoryFault for one that is not mapped has `levels` too: the way as far as it goes.
    fn mapping(&self, py: Python<'_>, address: u64) -> PyResult<Mapping> {
        let space = self.as_virtual()?;
        let mut levels = Vec::with_capacity(5);
        let walked = paging::walk_steps(
            space.memory(),
            space.format(),
            space.root(),
            VirtAddr(address),
            |step| levels.push((step.level, step.table.0, step.index, step.entry)),
        );
        match walked {
            Ok(inner) => Ok(Mapping { inner, levels }),
            Err(error) => {
                let error = fault(error);
                error.value(py).setattr("levels", levels)?;
                Err(error)
            }
        }
    }

    fn __repr__(&self) -> String {
        match &self.inner {
            Space::Virtual(space) => format!(
                "<AddressSpace virtual: {} root {}>",
                space.format().name,
                space.root()
            ),
            other => format!("<AddressSpace {}>", other.kind()),
        }
    }
}

/// How a virtual address is mapped.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct Mapping {
    inner: paging::Mapping,
    levels: Vec<(u8, u64, u16, u64)>,
}

#[pymethods]
impl Mapping {
    /// Machine address of the byte.
    #[getter]
    fn machine(&self) -> u64 {
        self.inner.machine.0
    }

    /// Size of the page that maps it, in bytes.
    #[getter]
    fn page_size(&self) -> u64 {
        self.inner.page_size
    }

    /// What the walk allows, in the bits of an x86 entry: writable and user where every level
    /// grants them, no-execute where any demands it; the PAT bit always at bit 12.
    #[getter]
    fn flags(&self) -> u64 {
        self.inner.flags.0
    }

    /// The names of the bits of `flags`, lowest bit first, as crash spells them.
    #[getter]
    fn flag_names(&self) -> Vec<&'static str> {
        self.inner.flags.names().collect()
    }

    /// The entries on the way, the root's first: level (1 maps 4 KiB pages), machine address of the
    /// table, index in it, entry.
    #[getter]
    fn levels(&self) -> Vec<(u8, u64, u16, u64)> {
        self.levels.clone()
    }

    fn __repr__(&self) -> String {
        format!(
            "<Mapping to {}: {} bytes, {}>",
            self.inner.machine,
            self.inner.page_size,
            self.flag_names().join("|")
        )
    }
}
