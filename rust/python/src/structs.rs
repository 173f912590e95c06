//! Reads members of many structs, and linked lists, in one call and without numpy.

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use xenkdump::addr::Word;
use xenkdump::alloc;
use xenkdump::space::{Batch, End, Layout, Links, List, Member, Members, Space};
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
    status: Vec<Status>,
}

impl Column {
    fn new(rows: usize, size: usize) -> PyResult<Self> {
        let len = rows
            .checked_mul(size)
            .ok_or_else(|| PyOverflowError::new_err("the members are larger than memory"))?;
        errors::catch(|| Self {
            bytes: alloc::filled(0, len),
            size,
            status: alloc::filled(Status::Ok, rows),
        })
    }

    /// The bytes in a row; None if they could not be read.
    fn row(&self, row: usize) -> Option<&[u8]> {
        let start = row * self.size;
        let bytes = self.bytes.get(start..start + self.size);
        bytes.filter(|_| self.status.get(row) == Some(&Status::Ok))
    }
}

struct Columns(Vec<Column>);

impl Members for Columns {
    #[inline]
    fn put(&mut self, row: usize, member: &(Member, usize), at: usize, bytes: &[u8]) {
        let Some(column) = self.0.get_mut(member.1) else {
            return;
        };
        let start = row * column.size + at;
        if let Some(target) = column.bytes.get_mut(start..start + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }

    fn fail(&mut self, row: usize, member: &(Member, usize), status: Status) {
        let column = self.0.get_mut(member.1);
        if let Some(slot) = column.and_then(|column| column.status.get_mut(row)) {
            *slot = status;
        }
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
    let layout = errors::catch(|| Layout::packed(members.iter().copied()))?;
    let layout =
        layout.ok_or_else(|| PyOverflowError::new_err("the members are larger than memory"))?;
    let mut columns = Columns(errors::catch(|| alloc::with_capacity(members.len()))?);
    for &(_, size) in members {
        columns.0.push(Column::new(structs.len(), size)?);
    }
    let columns = detach(py, || {
        let addrs = alloc::collect(structs.iter().map(|at| at.unwrap_or(u64::MAX)));
        Batch::new(space, addrs.len()).read_members(&addrs, &layout, 0, &mut columns);
        columns
    })?;
    let mut lists = errors::catch(|| alloc::with_capacity(members.len()))?;
    for column in columns.0 {
        errors::probe(structs.len(), column.size.saturating_add(OBJECT))?;
        let values = structs.iter().enumerate().map(|(row, at)| {
            let bytes = column.row(row).filter(|_| at.is_some());
            bytes.map(|bytes| value(py, bytes)).transpose()
        });
        lists.push(PyList::new(py, values.collect::<PyResult<Vec<_>>>()?)?);
    }
    Ok(lists)
}

/// See `AddressSpace.read_each`.
pub fn each<'py>(
    py: Python<'py>,
    space: &Space<CoreDump>,
    addresses: &Bound<'py, PyAny>,
    sizes: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyList>> {
    let places = pairs(addresses, sizes)?;
    let mut total = 0_usize;
    for (_, size) in &places {
        total = total
            .checked_add(*size)
            .ok_or_else(|| PyOverflowError::new_err("sizes: they are larger than memory"))?;
    }
    let (bytes, read) = detach(py, || {
        let mut bytes = alloc::filled(0_u8, total);
        let mut batch = Batch::new(space, places.len());
        let mut rest = bytes.as_mut_slice();
        let read = alloc::collect(places.iter().map(|(address, size)| {
            let (row, others) = std::mem::take(&mut rest).split_at_mut(*size);
            rest = others;
            let put = |at: usize, piece: &[u8]| {
                if let Some(target) = row.get_mut(at..at + piece.len()) {
                    target.copy_from_slice(piece);
                }
            };
            address.is_some_and(|address| batch.pieces(address, *size, put).is_ok())
        }));
        (bytes, read)
    })?;
    errors::probe(places.len(), OBJECT)?;
    errors::probe(total, 1)?;
    let mut rest = bytes.as_slice();
    let rows = places.iter().zip(read).map(|((_, size), read)| {
        let (row, others) = rest.split_at(*size);
        rest = others;
        read.then(|| PyBytes::new(py, row))
    });
    PyList::new(py, rows.collect::<Vec<_>>())
}

/// The number of elements of each array that are not NULL, None if it cannot be read; of all arrays their
/// indices, and they.
pub type Pointers = (Vec<Option<usize>>, Vec<usize>, Vec<u64>);

/// See `AddressSpace.pointers`.
pub fn pointers(
    py: Python<'_>,
    space: &Space<CoreDump>,
    arrays: &Bound<'_, PyAny>,
    counts: &Bound<'_, PyAny>,
    word: usize,
    flags: u64,
) -> PyResult<Pointers> {
    let word = self::word(word)?;
    let places = pairs(arrays, counts)?;
    let (sizes, found) = detach(py, || {
        let mut batch = Batch::new(space, places.len());
        let mut found = alloc::with_capacity(0);
        let sizes = alloc::collect(places.iter().map(|(address, count)| {
            let before = found.len();
            let read = address.and_then(|address| {
                nonzero(&mut batch, address, *count, (word, flags), &mut found)
            });
            if read.is_none() {
                found.truncate(before);
            }
            read.map(|()| found.len() - before)
        }));
        (sizes, found)
    })?;
    errors::probe(2 * found.len() + sizes.len(), OBJECT)?;
    let columns = errors::catch(|| {
        let indices = alloc::collect(found.iter().map(|(index, _)| *index));
        (
            indices,
            alloc::collect(found.iter().map(|(_, pointer)| *pointer)),
        )
    })?;
    Ok((sizes, columns.0, columns.1))
}

/// Adds the pointers of one array; None if it cannot be read.
fn nonzero(
    batch: &mut Batch<'_, CoreDump>,
    address: u64,
    count: usize,
    (word, flags): (Word, u64),
    found: &mut Vec<(usize, u64)>,
) -> Option<()> {
    const ELEMENTS: usize = 512;
    let mut bytes = [0_u8; ELEMENTS * 8];
    for first in (0..count).step_by(ELEMENTS) {
        let size = ELEMENTS.min(count - first) * word.bytes();
        let start = address.checked_add(first.checked_mul(word.bytes())? as u64)?;
        let read = batch.pieces(start, size, |at, piece| {
            if let Some(target) = bytes.get_mut(at..at + piece.len()) {
                target.copy_from_slice(piece);
            }
        });
        read.ok()?;
        let elements = bytes.get(..size).unwrap_or_default();
        let mut add = |i: usize, element: u64| {
            if element != 0 {
                alloc::push(found, (first + i, element & !flags));
            }
        };
        // Most elements are NULL: the loop has no branch on the size of one.
        match word {
            Word::W32 => {
                let (elements, _) = elements.as_chunks();
                let elements = elements.iter().enumerate();
                elements.for_each(|(i, at)| add(i, u64::from(u32::from_le_bytes(*at))));
            }
            Word::W64 => {
                let (elements, _) = elements.as_chunks();
                let elements = elements.iter().enumerate();
                elements.for_each(|(i, at)| add(i, u64::from_le_bytes(*at)));
            }
        }
    }
    Some(())
}

/// The elements of two sequences of the same length: addresses, None for one outside 64 bits, and sizes.
fn pairs(
    addresses: &Bound<'_, PyAny>,
    sizes: &Bound<'_, PyAny>,
) -> PyResult<Vec<(Option<u64>, usize)>> {
    let addresses = elements(addresses, |number| errors::address(&number))?;
    let sizes = elements(sizes, |size| size.extract())?;
    if addresses.len() != sizes.len() {
        let text = format!("{} addresses, but {} sizes", addresses.len(), sizes.len());
        return Err(PyValueError::new_err(text));
    }
    errors::catch(|| alloc::collect(addresses.into_iter().zip(sizes)))
}

pub fn word(word: usize) -> PyResult<Word> {
    match word {
        4 => Ok(Word::W32),
        8 => Ok(Word::W64),
        _ => Err(PyValueError::new_err("word: 4 or 8 bytes")),
    }
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
pub fn elements<'py, T>(
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
    dump: &CoreDump,
    heads: &Bound<'_, PyAny>,
    word: usize,
    links: &str,
    limit: usize,
) -> PyResult<Vec<Walked>> {
    let word = self::word(word)?;
    let links = match links {
        "circular" => Links::Circular,
        "backward" => Links::CircularBackward,
        "null-terminated" => Links::NullTerminated,
        _ => return Err(PyValueError::new_err(format!("unknown links: {links:?}"))),
    };
    let heads = elements(heads, |head| head.extract())?;
    let found = detach(py, || {
        space.lists_counted(&heads, links, word, limit, |nodes| dump.count_reads(nodes))
    })?;
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
