//! `PageTables`: what `Dump.bare` found.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use xenkdump::addr::{MachineAddr, VirtAddr, Word};
use xenkdump::paging::Format;
use xenkdump::space::bare::{self, Altered, Bare, FrameTable};
use xenkdump::space::Tables;

use crate::errors;
use crate::fork::detach;
use crate::handle::Dump;
use crate::p2m::P2M;
use crate::space::AddressSpace;

/// The size of a listed table in Python: a tuple, two ints, a list slot.
const LISTED_TABLE: usize = 256;

/// Xen's virtual memory, the frame table's address there, its number of elements, their size, the offset of
/// `type_info` in one, its size.
pub type FrameTableTuple<'py> = (PyRef<'py, AddressSpace>, u64, u64, u64, u64, usize);

/// The page tables of a PV domain, and what was noticed while they were searched for.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct PageTables {
    inner: bare::PageTables,
}

#[pymethods]
impl PageTables {
    /// The pfn and the level of each, by ascending pfn.
    fn tables(&self) -> PyResult<Vec<(u64, u8)>> {
        let tables = &self.inner.tables;
        errors::probe(tables.len(), LISTED_TABLE)?;
        Ok(tables.iter().map(|(pfn, level)| (pfn.0, *level)).collect())
    }

    /// How many the walk from the roots found.
    #[getter]
    fn walked(&self) -> u64 {
        self.inner.walked
    }

    /// Number of page tables by the frame table; None if it was not used, or contradicts the walk entirely.
    #[getter]
    fn typed(&self) -> Option<u64> {
        self.inner.typed
    }

    /// How many have different levels in the frame table and in the walk.
    #[getter]
    fn conflicts(&self) -> u64 {
        self.inner.conflicts
    }

    /// How many are below a table that the frame table has, without being in it themselves.
    #[getter]
    fn untyped(&self) -> u64 {
        self.inner.untyped
    }

    /// How many the walk could not read.
    #[getter]
    fn unreadable(&self) -> u64 {
        self.inner.unreadable
    }

    /// Roots that are no frames of the domain.
    #[getter]
    fn foreign_roots(&self) -> u64 {
        self.inner.foreign_roots
    }

    /// Elements of the frame table that could not be read.
    #[getter]
    fn unread(&self) -> u64 {
        self.inner.unread
    }

    /// Whether the search ended early: more tables were found than the dump can hold.
    #[getter]
    fn exhausted(&self) -> bool {
        self.inner.exhausted
    }

    fn __len__(&self) -> usize {
        self.inner.tables.len()
    }

    fn __repr__(&self) -> String {
        let (walked, all) = (self.inner.walked, self.inner.tables.len());
        format!("<PageTables: {all}, {walked} by walking>")
    }
}

/// See `Dump.bare`.
pub fn open(
    py: Python<'_>,
    dump: &Dump,
    p2m: Option<&P2M>,
    paging: &str,
    roots: &[u64],
    frame_table: Option<&FrameTableTuple<'_>>,
    altered: &[(u64, u64, usize)],
) -> PyResult<(Dump, PageTables)> {
    let format = Format::by_name(paging)
        .ok_or_else(|| PyValueError::new_err(format!("no paging layout {paging:?}")))?;
    let table = frame_table.map(frame_table_of).transpose()?;
    let altered = altered
        .iter()
        .map(altered_of)
        .collect::<PyResult<Vec<_>>>()?;
    let roots: Vec<_> = roots.iter().map(|root| MachineAddr(*root)).collect();
    let core = dump.inner.clone();
    let p2m = p2m.map(|p2m| p2m.inner.clone());
    let (inner, found) = detach(py, move || {
        let found = match &p2m {
            Some(p2m) => bare::find(p2m, format, &roots, table.as_ref()),
            None => bare::PageTables::default(),
        };
        let size = core.memory_held();
        let tables = p2m.map_or_else(|| Tables::Machine(core.clone()), Tables::Guest);
        let memory = Bare::new(tables, format, &found, &altered);
        (core.guest(memory, size), found)
    })?;
    let dump = Dump {
        inner: inner.into(),
        gate: dump.gate.inner(),
    };
    Ok((dump, PageTables { inner: found }))
}

fn frame_table_of<'a>(
    tuple: &'a FrameTableTuple<'_>,
) -> PyResult<FrameTable<&'a xenkdump::paging::Virtual<Tables<crate::handle::CoreDump>>>> {
    let (space, base, frames, size, type_info, word) = tuple;
    Ok(FrameTable {
        memory: space.as_virtual()?,
        base: VirtAddr(*base),
        frames: *frames,
        size: *size,
        type_info: *type_info,
        word: match word {
            4 => Word::W32,
            8 => Word::W64,
            _ => {
                return Err(PyValueError::new_err(
                    "frame_table: a word has 4 or 8 bytes",
                ))
            }
        },
    })
}

fn altered_of(word: &(u64, u64, usize)) -> PyResult<Altered> {
    let (at, value, size) = *word;
    if !matches!(size, 1 | 2 | 4 | 8) || at % size as u64 != 0 {
        let text = "altered: aligned words of 1, 2, 4 or 8 bytes are needed";
        return Err(PyValueError::new_err(text));
    }
    let at = MachineAddr(at);
    Ok(Altered { at, value, size })
}
