//! Members of many structs as a numpy structured array.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyList, PyMapping};

use xenkdump::space::{Layout, Space};

use crate::arrays;
use crate::buffers::{Bytes, Column};
use crate::bulk::Options;
use crate::errors;
use crate::gate::Gate;
use crate::handle::CoreDump;
use crate::read::{self, Wanted};

/// A member: its name, its offset, and its size or dtype.
type Entry<'py> = (String, u64, Bound<'py, PyAny>);

/// See `AddressSpace.read_struct_many`.
pub fn many<'py>(
    py: Python<'py>,
    space: (&Space<CoreDump>, &Gate),
    input: &Column<u64>,
    members: &Bound<'py, PyAny>,
    options: &Options<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let dtype = py.import("numpy")?.getattr("dtype")?;
    let fields = PyList::empty(py);
    let mut places = Vec::new();
    for (name, offset, what) in entries(members, &dtype)? {
        let kind = member_type(&what, &dtype)?;
        let size: usize = kind.getattr("itemsize")?.extract()?;
        if size == 0 {
            return Err(PyValueError::new_err(format!(
                "members: {name} has no bytes"
            )));
        }
        if kind.getattr("hasobject")?.is_truthy()? {
            let text = format!("members: {name}: Python objects cannot be read from a dump");
            return Err(PyTypeError::new_err(text));
        }
        places.push((offset, size));
        fields.append((name, kind))?;
    }
    if places.is_empty() {
        return Err(PyValueError::new_err("members: there are none"));
    }
    let layout = errors::catch(|| Layout::packed(places))?
        .ok_or_else(|| PyOverflowError::new_err("members: they are larger than memory"))?;
    let packed = dtype.call1((fields,))?;
    let result = match options.out {
        Some(out) => {
            check(out, &packed, input.len())?;
            out.clone()
        }
        None => arrays::empty(py, (input.len(),), packed)?,
    };
    let bytes = Bytes::writable(&result.call_method1("view", ("uint8",))?, "out")?;
    read::rows(py, space, input, Wanted::Members(&layout), &bytes, options)?;
    Ok(result)
}

/// The members: those of a dtype, of a mapping of names, or of a sequence.
fn entries<'py>(
    members: &Bound<'py, PyAny>,
    dtype: &Bound<'py, PyAny>,
) -> PyResult<Vec<Entry<'py>>> {
    let mut found = Vec::new();
    if members.is_instance(dtype)? {
        let names = members.getattr("names")?;
        if names.is_none() {
            return Err(PyTypeError::new_err(
                "members: a dtype with fields is needed",
            ));
        }
        let fields = members.getattr("fields")?;
        for name in names.try_iter()? {
            let name = name?;
            let field = fields.get_item(&name)?;
            let offset = field.get_item(1)?.extract()?;
            found.push((name.extract()?, offset, field.get_item(0)?));
        }
    } else if let Ok(mapping) = members.cast::<PyMapping>() {
        for item in mapping.items()? {
            let (name, (offset, what)) = item.extract()?;
            found.push((name, offset, what));
        }
    } else {
        for member in members.try_iter()? {
            found.push(member?.extract()?);
        }
    }
    Ok(found)
}

/// The dtype of a member: a given dtype, or the dtype for a size in bytes.
fn member_type<'py>(
    what: &Bound<'py, PyAny>,
    dtype: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    if !what.is_instance_of::<PyInt>() || what.is_instance_of::<PyBool>() {
        return dtype.call1((what,));
    }
    let size: usize = what.extract()?;
    let text = match size {
        1 | 2 | 4 | 8 => format!("<u{size}"),
        _ => format!("V{size}"),
    };
    dtype.call1((text,))
}

/// TypeError or ValueError if an array is not one for the result.
fn check(out: &Bound<'_, PyAny>, packed: &Bound<'_, PyAny>, len: usize) -> PyResult<()> {
    let dtype = out.getattr("dtype");
    let dtype = dtype.map_err(|_| PyTypeError::new_err("out: a numpy array is needed"))?;
    if !dtype.eq(packed)? {
        let text = format!(
            "out: dtype {} is needed, not {}",
            packed.str()?,
            dtype.str()?
        );
        return Err(PyTypeError::new_err(text));
    }
    let shape: Vec<usize> = out.getattr("shape")?.extract()?;
    if shape != [len] {
        let text = format!("out: the shape ({len},) is needed, not {shape:?}");
        return Err(PyValueError::new_err(text));
    }
    let flags = out.getattr("flags")?;
    if !flags.getattr("c_contiguous")?.is_truthy()? {
        return Err(PyValueError::new_err("out: it is not contiguous"));
    }
    Ok(())
}
