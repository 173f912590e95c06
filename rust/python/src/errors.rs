//! Converts the core's errors to Python exceptions.

use std::io::ErrorKind;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyMemoryError, PyOSError, PyOverflowError};
use pyo3::prelude::*;

use xenkdump::alloc::{self, NoMemory};
use xenkdump::memory::Fault;
use xenkdump::Error;

create_exception!(
    xenkdump_fast._native,
    DumpError,
    PyException,
    "The file is not a dump, or is damaged beyond use."
);
create_exception!(
    xenkdump_fast._native,
    AbsentError,
    DumpError,
    "The dump does not hold what was asked for."
);
create_exception!(
    xenkdump_fast._native,
    MemoryFault,
    AbsentError,
    "An address cannot be read or translated; has `address`, `kind` and `reason`."
);

/// Converts a core error to the documented Python exception.
pub fn from_core(error: Error) -> PyErr {
    match error {
        Error::Io { path, source } if source.kind() == ErrorKind::OutOfMemory => {
            PyMemoryError::new_err(format!("{path}: {source}"))
        }
        Error::Io { path, source } => Python::attach(|py| {
            // OSError(errno, text, path) becomes FileNotFoundError, PermissionError and so on.
            match source.raw_os_error() {
                Some(errno) => {
                    let text = source.to_string();
                    let text = text
                        .split(" (os error")
                        .next()
                        .unwrap_or_default()
                        .to_owned();
                    PyErr::from_value(
                        match py.get_type::<PyOSError>().call1((errno, text, path)) {
                            Ok(value) => value,
                            Err(error) => return error,
                        },
                    )
                }
                None => PyOSError::new_err(format!("{path}: {source}")),
            }
        }),
        Error::NotRegular { .. } | Error::Format { .. } => DumpError::new_err(error.to_string()),
        Error::Memory { what, fault } => memory(fault, Some(&what)),
        error => AbsentError::new_err(error.to_string()),
    }
}

/// Calls `work` with the GIL held. MemoryError if the core has no memory for what it makes.
pub fn catch<T>(work: impl FnOnce() -> T) -> PyResult<T> {
    alloc::catch(work).map_err(no_memory)
}

/// MemoryError if there is no memory for `count` objects of `size` bytes in Python: pyo3 panics if it
/// cannot make an object.
pub fn probe(count: usize, size: usize) -> PyResult<()> {
    catch(|| alloc::probe(count.saturating_mul(size)))
}

/// Lack of memory as MemoryError.
pub fn no_memory(error: NoMemory) -> PyErr {
    PyMemoryError::new_err(error.to_string())
}

/// A fault as `MemoryFault`, or as MemoryError if there is no memory for the result. The message
/// starts with what was being read, if known.
pub fn memory(fault: Fault, what: Option<&str>) -> PyErr {
    if let Fault::NoMemory { .. } = fault {
        return PyMemoryError::new_err(fault.to_string());
    }
    let reason = fault.to_string();
    let (kind, address) = fault.address();
    let text = match what {
        Some(what) => format!("{what}: {reason}"),
        None => reason.clone(),
    };
    Python::attach(|py| new_fault(py, text, address, kind, reason))
}

fn new_fault<'py>(
    py: Python<'py>,
    text: String,
    address: impl IntoPyObject<'py>,
    kind: &str,
    reason: String,
) -> PyErr {
    let error = MemoryFault::new_err(text);
    let value = error.value(py);
    let set = value
        .setattr("address", address)
        .and_then(|()| value.setattr("kind", kind))
        .and_then(|()| value.setattr("reason", reason));
    match set {
        Ok(()) => error,
        Err(error) => error,
    }
}

/// An address or frame number from Python; None for an int outside 64 bits. Such ints can result from
/// sums of values of a damaged dump, and are treated like unmapped addresses.
pub fn address(number: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    match number.extract() {
        Ok(address) => Ok(Some(address)),
        Err(error) if error.is_instance_of::<PyOverflowError>(number.py()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The fault of a number for which [`address`] returns None; `kind` names its address space.
pub fn outside(number: &Bound<'_, PyAny>, kind: &str) -> PyErr {
    outside_in(number, kind, "")
}

/// The same for element `i` of a sequence.
pub fn outside_at(number: &Bound<'_, PyAny>, kind: &str, i: usize) -> PyErr {
    outside_in(number, kind, &format!("element {i}: "))
}

fn outside_in(number: &Bound<'_, PyAny>, kind: &str, context: &str) -> PyErr {
    match number.call_method1("__format__", ("#x",)) {
        Ok(hex) => {
            let reason = format!("{kind} address {hex} is outside the address space");
            let text = format!("{context}{reason}");
            new_fault(number.py(), text, number, kind, reason)
        }
        Err(error) => error,
    }
}
