//! Reads members of many structs, and linked lists, in one call and without numpy.

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use xenkdump::addr::Word;
use xenkdump::alloc;
use xenkdump::space::{Batch, End, Links, List, Rows, Space};
use xenkdump::status::Status;

use crate::errors;
use crate::fork::detach;
use crate::handle::CoreDump;

/// The size of a small object in Python, with a list slot.
const OBJECT: usize = 64;

/// One member of every struct, as rows of `size` bytes.
struct Column {
    bytes: Vec<u8>,
    size: usize,
}

impl Column {
    fn new(rows: usize, size: usize) -> PyResult<Self> {
        let len = rows
            .checked_mul(size)
            .ok_or_else(|| PyOverflowError::new_err("the members are larger than memory"))?;
        let bytes = errors::catch(|| alloc::filled(0, len))?;
        Ok(Self { bytes, size })
    }

    fn row(&self, row: usize) -> &[u8] {
        let start = row * self.size;
        self.bytes.get(start..start + self.size).unwrap_or_default()
    }
}

impl Rows for Column {
    fn put(&mut self, row: usize, at: usize, bytes: &[u8]) {
        let start = row * self.size + at;
        if let Some(target) = self.bytes.get_mut(start..start + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }

    fn clear(&mut self, _row: usize) {
        // The row is not used: its status is not 0.
    }
}

/// See `AddressSpace.read_members`.
pub fn members<'py>(
    py: Python<'py>,
    space: &Space<CoreDump>,
    structs: &Bound<'py, PyAny>,
    members: &[(u64, usize)],
) -> PyResult<Vec<Bound<'py, PyList>>> {
    // None for a number outside 64 bits.
    let structs = elements(structs, |number| errors::address(&number))?;
    let mut batch = errors::catch(|| Batch::new(space, structs.len()))?;
    let mut columns = errors::catch(|| alloc::with_capacity(members.len()))?;
    for &(offset, size) in members {
        let mut column = Column::new(structs.len(), size)?;
        let places = structs.iter();
        let places = places.map(|at| at.and_then(|at| at.checked_add(offset)));
        let (places, statuses) = detach(py, || {
            let mut statuses = alloc::filled(Status::Ok, structs.len());
            let places = alloc::collect(places);
            let addrs = alloc::collect(places.iter().map(|at| at.unwrap_or(u64::MAX)));
            batch.read_rows(&addrs, size, 0, &mut column, &mut statuses);
            (places, statuses)
        })?;
        errors::probe(places.len(), size.saturating_add(OBJECT))?;
        let values = places
            .iter()
            .zip(&statuses)
            .enumerate()
            .map(|(row, (place, status))| match (place, status) {
                (Some(_), Status::Ok) => value(py, column.row(row)).map(Some),
                _ => Ok(None),
            })
            .collect::<PyResult<Vec<_>>>()?;
        columns.push(PyList::new(py, values)?);
    }
    Ok(columns)
}

/// 1, 2, 4 or 8 bytes as an unsigned number; any other number of bytes as bytes.
fn value<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if !matches!(bytes.len(), 1 | 2 | 4 | 8) {
        return Ok(PyBytes::new(py, bytes).into_any());
    }
    let number = bytes
        .iter()
        .rev()
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Ok(number.into_pyobject(py)?.into_any())
}

/// The elements of a sequence from Python.
fn elements<'py, T>(
    sequence: &Bound<'py, PyAny>,
    element: impl Fn(Bound<'py, PyAny>) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    let len = sequence.len()?;
    let mut all = errors::catch(|| alloc::with_capacity(len))?;
    // One that grows meanwhile is cut.
    for number in sequence.try_iter()?.take(len) {
        all.push(element(number?)?);
    }
    Ok(all)
}

/// A walked list: its nodes, how the walk ended, and the address where it ended.
pub type Walked = (Vec<u64>, &'static str, Option<u64>);

/// See `AddressSpace.lists`.
pub fn lists(
    py: Python<'_>,
    space: &Space<CoreDump>,
    heads: &Bound<'_, PyAny>,
    word: usize,
    links: &str,
    limit: usize,
) -> PyResult<Vec<Walked>> {
    let word = match word {
        4 => Word::W32,
        8 => Word::W64,
        _ => return Err(PyValueError::new_err("word: 4 or 8 bytes")),
    };
    let links = match links {
        "circular" => Links::Circular,
        "backward" => Links::CircularBackward,
        "null-terminated" => Links::NullTerminated,
        _ => return Err(PyValueError::new_err(format!("unknown links: {links:?}"))),
    };
    let heads = elements(heads, |head| head.extract())?;
    let found = detach(py, || space.lists(&heads, links, word, limit))?;
    let nodes = found.iter().map(|list| list.nodes.len());
    errors::probe(nodes.sum::<usize>() + found.len(), OBJECT)?;
    Ok(found.into_iter().map(walked).collect())
}

fn walked(list: List) -> Walked {
    let (end, at) = match list.end {
        End::Complete => ("complete", None),
        End::Loop(at) => ("loop", Some(at)),
        End::Shared(at) => ("shared", Some(at)),
        End::Limit(at) => ("limit", Some(at)),
        End::Unreadable(at) => ("unreadable", Some(at)),
    };
    (list.nodes, end, at)
}
