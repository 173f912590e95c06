//! Arrays and sequences of other numbers than uint64, as columns of uint64.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyList, PyRange, PyTuple};

use xenkdump::alloc;

use crate::arrays;
use crate::buffers::Column;
use crate::errors;

/// Elements of a sequence that are stored at once.
const PIECE: usize = 128;

/// Whether an argument without a buffer is several numbers.
pub fn is_sequence(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyList>()
        || object.is_instance_of::<PyTuple>()
        || object.is_instance_of::<PyRange>()
}

/// The TypeError for the argument `name`.
pub fn wrong_type(object: &Bound<'_, PyAny>, name: &str) -> PyErr {
    let kind = object.get_type();
    PyTypeError::new_err(format!(
        "{name}: an int, an array of integers or a list of ints is needed, not {kind}"
    ))
}

/// A list, tuple or range of ints.
pub fn sequence(object: &Bound<'_, PyAny>, name: &str, kind: &str) -> PyResult<Column<u64>> {
    let py = object.py();
    let len = object.len()?;
    let array = arrays::empty(py, (len,), "uint64")?;
    let column = Column::<u64>::writable(&array, name, len)?;
    let mut piece = errors::catch(|| alloc::with_capacity(PIECE.min(len)))?;
    let mut first = 0;
    for (i, element) in object.try_iter()?.enumerate() {
        let element = element?;
        // A list may grow during the loop, by what an element's __index__ does.
        if i >= len {
            break;
        }
        if element.is_instance_of::<PyBool>() {
            return Err(wrong_element(&element, name, i));
        }
        let number = errors::address(&element).map_err(|error| {
            if error.is_instance_of::<PyTypeError>(py) {
                wrong_element(&element, name, i)
            } else {
                error
            }
        })?;
        piece.push(number.ok_or_else(|| errors::outside_at(&element, kind, i))?);
        if piece.len() == PIECE || i + 1 == len {
            column.store(first, &piece, |number| number);
            first += piece.len();
            piece.clear();
        }
    }
    if first != len {
        return Err(arrays::changed());
    }
    Ok(column)
}

fn wrong_element(element: &Bound<'_, PyAny>, name: &str, i: usize) -> PyErr {
    let kind = element.get_type();
    PyTypeError::new_err(format!("{name}: element {i}: an int is needed, not {kind}"))
}

/// An array of integers of another type or byte order.
pub fn array(object: &Bound<'_, PyAny>, name: &str, kind: &str) -> PyResult<Column<u64>> {
    let py = object.py();
    // Bytes are a buffer of numbers too, but nobody means addresses by them.
    if object.is_instance_of::<PyBytes>() || object.is_instance_of::<PyByteArray>() {
        return Err(wrong_type(object, name));
    }
    let array = py.import("numpy")?.call_method1("asarray", (object,))?;
    let dtype = array.getattr("dtype")?;
    let numbers = match dtype.getattr("kind")?.extract::<char>()? {
        'u' => array.call_method1("astype", ("uint64",))?,
        'i' => {
            // What is checked is a copy: another thread may write to the array.
            let copy = array.call_method1("astype", ("int64",))?;
            let negative = copy.call_method1("__lt__", (0,))?;
            if negative.call_method0("any")?.is_truthy()? {
                let i: usize = negative.call_method0("argmax")?.extract()?;
                let element = copy.call_method1("item", (i,))?;
                return Err(errors::outside_at(&element, kind, i));
            }
            copy.call_method1("view", ("uint64",))?
        }
        _ => {
            let text = format!("{name}: an array of integers is needed, not of {dtype}");
            return Err(PyTypeError::new_err(text));
        }
    };
    Column::of(&numbers, name)
}
