//! `ExportControl` and `export`: writes memory to a file.

use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use xenkdump::alloc;
use xenkdump::export::{
    self as core, Compression, Control, Elf, Export, Format, Kdump, Mapping, PageRun,
};
use xenkdump::parallel;

use crate::buffers::Column;
use crate::errors;
use crate::fork::detach;
use crate::handle::Dump;

/// The progress of an export in another thread, which can be stopped.
#[pyclass(frozen, module = "xenkdump_fast._native")]
#[derive(Default)]
pub struct ExportControl {
    inner: Control,
}

#[pymethods]
impl ExportControl {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Pages that are done.
    #[getter]
    fn done(&self) -> u64 {
        self.inner.done()
    }

    /// Stops the export: `export` returns early.
    fn stop(&self) {
        self.inner.stop();
    }

    fn __repr__(&self) -> String {
        format!("<ExportControl: {} pages done>", self.inner.done())
    }
}

/// A run of virtual addresses in Python: the first address, pfn and number of pages.
type MappingTuple = (u64, u64, u64);

fn mapping((virtual_address, first, count): MappingTuple) -> Mapping {
    Mapping {
        virtual_address,
        first,
        count,
    }
}

/// The format that the arguments `options` of `export` describe.
fn format_of(name: &str, options: &Bound<'_, PyDict>) -> PyResult<Format> {
    let get = |key: &str| {
        let value = options.get_item(key)?;
        value.ok_or_else(|| PyValueError::new_err(format!("options: no {key:?}")))
    };
    Ok(match name {
        "elf" => Format::Elf(Elf {
            machine: get("machine")?.extract()?,
            is_64: get("is_64")?.extract()?,
            notes: get("notes")?.extract()?,
            direct: get("direct")?
                .extract::<Option<MappingTuple>>()?
                .map(mapping),
            others: get("others")?
                .extract::<Vec<MappingTuple>>()?
                .into_iter()
                .map(mapping)
                .collect(),
        }),
        "kdump" => {
            let compression: Option<String> = get("compression")?.extract()?;
            Format::Kdump(Kdump {
                is_64: get("is_64")?.extract()?,
                compression: match compression.as_deref() {
                    None => Compression::Stored,
                    Some("zlib") => Compression::Zlib,
                    Some("zstd") => Compression::Zstd,
                    Some(other) => {
                        let text = format!("compression: zlib, zstd or None, not {other:?}");
                        return Err(PyValueError::new_err(text));
                    }
                },
                level: get("level")?.extract()?,
                utsname: get("utsname")?.extract()?,
                notes: get("notes")?.extract()?,
                vmcoreinfo: get("vmcoreinfo")?.extract()?,
                phys_base: get("phys_base")?.extract()?,
                cpus: get("cpus")?.extract()?,
            })
        }
        "lime" => Format::Lime,
        "raw" => Format::Raw,
        other => return Err(PyValueError::new_err(format!("format: not {other:?}"))),
    })
}

/// The runs in an array of first pfns and numbers of pages in turn.
fn runs_of(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<PageRun>> {
    let column = Column::<u64>::of(object, name)?;
    errors::catch(|| {
        let mut numbers = alloc::filled(0, column.len());
        column.load(0, &mut numbers, |number| number);
        let pairs = numbers.chunks_exact(2).filter_map(|pair| match pair {
            [first, count] => Some(PageRun {
                first: *first,
                count: *count,
            }),
            _ => None,
        });
        alloc::collect(pairs)
    })
}

/// Writes the memory of the first of `dumps` to a new file, readable by its owner only; the second is the
/// dump whose file that memory is in. `runs` are two arrays with a first pfn and a number of pages in turn,
/// ascending: what is written, and what the machine has. `format` is "elf", "kdump", "lime" or "raw"; its
/// headers are in `options`, and the number of `threads`.
///
/// Returns the numbers of pages `written`, `zero`, `lost` (not readable), `lost_as_zeros` (those of them that
/// read as zeros in the file), the `first_lost` pfn, and whether it `is_stopped`. OSError if the file
/// exists or cannot be written, AbsentError if the format cannot hold the memory.
#[pyfunction]
pub fn export<'py>(
    py: Python<'py>,
    dumps: (Bound<'py, Dump>, Bound<'py, Dump>),
    path: PathBuf,
    runs: (Bound<'py, PyAny>, Bound<'py, PyAny>),
    format: &str,
    options: &Bound<'py, PyDict>,
    control: &ExportControl,
) -> PyResult<Bound<'py, PyDict>> {
    let (dump, host) = (dumps.0.get(), dumps.1.get());
    dump.gate.check()?;
    let format = format_of(format, options)?;
    let pages = runs_of(&runs.0, "runs")?;
    let all_pages = runs_of(&runs.1, "runs")?;
    let threads = match options.get_item("threads")? {
        Some(threads) => threads.extract()?,
        None => parallel::available(),
    };
    let export = Export {
        dump: &dump.inner,
        host: &host.inner,
        pages: &pages,
        all_pages: &all_pages,
        threads,
    };
    let write = || core::write(&export, &format, &path, &control.inner);
    let report = detach(py, write)?.map_err(errors::from_core)?;
    let found = PyDict::new(py);
    found.set_item("written", report.written)?;
    found.set_item("zero", report.zero)?;
    found.set_item("lost", report.lost)?;
    found.set_item("lost_as_zeros", report.lost_as_zeros)?;
    found.set_item("first_lost", report.first_lost)?;
    found.set_item("is_stopped", report.is_stopped)?;
    Ok(found)
}
