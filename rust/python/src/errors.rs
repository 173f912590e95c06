//! The core's errors as Python's.

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyOSError};
use pyo3::prelude::*;

use xenkdump::memory::Fault;
use xenkdump::Error;

create_exception!(
    xenkdump_fast._native,
    DumpError,
    PyException,
    "The file is not a dump, or is broken beyond use."
);
create_exception!(
    xenkdump_fast._native,
    AbsentError,
    DumpError,
    "The file is sound but does not hold what was asked for."
);
create_exception!(
    xenkdump_fast._native,
    MemoryFault,
    AbsentError,
    "An address cannot be read or translated; has `address`, `kind` and `reason`."
);

/// A core error as the Python exception that `docs` promise for it.
pub fn from_core(error: Error) -> PyErr {
    match error {
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
        Error::Format { .. } => DumpError::new_err(error.to_string()),
        Error::Memory { what, fault } => memory(fault, Some(&what)),
        error => AbsentError::new_err(error.to_string()),
    }
}

/// A fault as `MemoryFault`, with what was being read where that is known.
pub fn memory(fault: Fault, what: Option<&str>) -> PyErr {
    let reason = fault.to_string();
    let (kind, address) = fault.address();
    Python::attach(|py| {
        let error = MemoryFault::new_err(match what {
            Some(what) => format!("{what}: {reason}"),
            None => reason.clone(),
        });
        let value = error.value(py);
        let set = value
            .setattr("address", address)
            .and_then(|()| value.setattr("kind", kind))
            .and_then(|()| value.setattr("reason", reason));
        match set {
            Ok(()) => error,
            Err(error) => error,
        }
    })
}
