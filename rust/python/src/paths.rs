//! Paths of many places in one call.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use xenkdump::alloc;
use xenkdump::space::{Lost, PathLayout, PathLimits, Place, Space};

use crate::errors;
use crate::fork::detach;
use crate::handle::CoreDump;
use crate::structs::{elements, word};

/// A small string in Python, with a list slot.
const STRING: usize = 64;

/// The texts, what the incomplete ones among them lack, the number of structs, the bytes of names that were
/// read and of texts, and the number of structs that the paths lead through.
pub type Found<'py> = (
    Bound<'py, PyList>,
    Vec<(&'static str, u64)>,
    usize,
    usize,
    usize,
);

/// Where a node has its members, and the size of the length of its name.
pub type Node = (u64, u64, u64, usize);
/// The part of a tree that its address belongs to, and where it has its members.
pub type Tree = (u64, u64, u64, u64);

/// Nodes and trees above each other, those of all paths, bytes of all paths, and what all paths lead through.
pub type Limits = (usize, usize, usize, usize);

/// See `AddressSpace.paths`.
pub fn paths<'py>(
    space: &Space<CoreDump>,
    (nodes, trees): (&Bound<'py, PyAny>, &Bound<'py, PyAny>),
    (word_size, node, tree): (usize, Node, Tree),
    (depth, structs, size, steps): Limits,
) -> PyResult<Found<'py>> {
    let py = nodes.py();
    let layout = PathLayout {
        word: word(word_size)?,
        parent: node.0,
        name: node.1,
        name_len: (node.2, node.3),
        inside: tree.0,
        tree: tree.1,
        point: tree.2,
        root: tree.3,
    };
    let limits = PathLimits {
        depth,
        structs,
        size,
        steps,
    };
    // An address outside 64 bits is one that cannot be read, as that of the last byte.
    let nodes = elements(nodes, |at| Ok(errors::address(&at)?.unwrap_or(u64::MAX)))?;
    let trees = elements(trees, |at| {
        let at = (!at.is_none()).then(|| errors::address(&at)).transpose()?;
        Ok(at.map(|at| at.unwrap_or(u64::MAX)))
    })?;
    if nodes.len() != trees.len() {
        let text = format!("{} nodes, but {} trees", nodes.len(), trees.len());
        return Err(PyValueError::new_err(text));
    }
    let paths = detach(py, || {
        let places = nodes.into_iter().zip(trees);
        let places = alloc::collect(places.map(|(node, tree)| Place { tree, node }));
        space.paths(&places, &layout, &limits)
    })?;
    let mut texts = errors::catch(|| alloc::with_capacity(paths.len()))?;
    for text in paths.texts() {
        errors::probe(1, text.len().saturating_mul(4).saturating_add(STRING))?;
        texts.push(decoded(py, text)?);
    }
    errors::probe(paths.numbers.len(), STRING)?;
    let found = paths.numbers.iter().filter_map(|number| texts.get(*number));
    let found = PyList::new(py, found.collect::<Vec<_>>())?;
    let lost = paths.lost.iter();
    let lost = lost.map(|(_, lost)| match *lost {
        Lost::Node(at) => ("node", at),
        Lost::Name(at) => ("name", at),
        Lost::Tree(at) => ("tree", at),
        Lost::Deep => ("depth", 0),
        Lost::Structs => ("structs", 0),
        Lost::Size => ("size", 0),
        Lost::Steps => ("steps", 0),
    });
    let lost = errors::catch(|| alloc::collect(lost))?;
    let size = paths
        .names
        .saturating_add(paths.texts().map(<[u8]>::len).sum());
    Ok((found, lost, paths.structs, size, paths.steps))
}

/// Bytes that are not UTF-8 are escaped.
fn decoded<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match std::str::from_utf8(text) {
        Ok(text) => Ok(PyString::new(py, text)),
        Err(_) => PyString::from_encoded_object(
            &PyBytes::new(py, text),
            Some(c"utf-8"),
            Some(c"backslashreplace"),
        ),
    }
}
