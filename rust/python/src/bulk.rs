//! Calls that take arrays: arguments, threads, the GIL, results.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyInt;

use xenkdump::parallel;
use xenkdump::status::Status;

use crate::arrays;
use crate::buffers::{self, Column, Element};
use crate::convert;
use crate::errors;
use crate::fork::detach;
use crate::gate::Gate;

/// The number of elements copied in and out at once: all copies fit in the first-level cache.
const COPY: usize = 128;
/// The number of elements that are processed at once where they are.
const BATCH: usize = 1024;
/// The number of elements that a thread takes at once. A second thread is used from twice as many.
pub const GRAIN: usize = 32 << 10;
/// Shorter batches keep the GIL, because releasing it would cost more.
const DETACH: usize = 128;

/// A number or an array of numbers.
pub enum Argument {
    /// An int, or an object that converts to one; None if it does not fit in 64 bits.
    One(Option<u64>),
    /// An array.
    Many(Column<u64>),
}

impl Argument {
    /// Converts the argument `name`. Arrays of other integers, lists, tuples and ranges are copied to an
    /// array of uint64. MemoryFault for an element outside 64 bits; `kind` is the kind of address.
    #[inline]
    pub fn new(object: &Bound<'_, PyAny>, name: &str, kind: &str) -> PyResult<Self> {
        if object.is_exact_instance_of::<PyInt>() {
            return errors::address(object).map(Self::One);
        }
        match PyUntypedBuffer::get(object) {
            // numpy scalars are arrays of no dimension.
            Ok(buffer) if buffer.dimensions() > 0 => {
                if u64::matches(buffer.format()) {
                    return Column::new(buffer, name).map(Self::Many);
                }
                drop(buffer);
                convert::array(object, name, kind).map(Self::Many)
            }
            Err(_) if convert::is_sequence(object) => {
                convert::sequence(object, name, kind).map(Self::Many)
            }
            _ => errors::address(object).map(Self::One).map_err(|error| {
                if error.is_instance_of::<PyTypeError>(object.py()) {
                    convert::wrong_type(object, name)
                } else {
                    error
                }
            }),
        }
    }
}

/// The argument `name`, an array of addresses of this kind. TypeError for a single number.
pub fn addresses(object: &Bound<'_, PyAny>, name: &str, kind: &str) -> PyResult<Column<u64>> {
    match Argument::new(object, name, kind)? {
        Argument::Many(input) => Ok(input),
        Argument::One(_) => Err(PyTypeError::new_err(format!(
            "{name}: an array of integers is needed, not a single number"
        ))),
    }
}

/// The keyword arguments of a call that takes arrays.
pub struct Options<'a, 'py> {
    pub out: Option<&'a Bound<'py, PyAny>>,
    pub status: Option<&'a Bound<'py, PyAny>>,
    pub threads: Option<usize>,
}

impl Options<'_, '_> {
    /// TypeError if any of them is given for a single number.
    pub fn reject(&self) -> PyResult<()> {
        if self.out.is_some() || self.status.is_some() || self.threads.is_some() {
            let text = "out, status and threads go with an array, not with a single number";
            return Err(PyTypeError::new_err(text));
        }
        Ok(())
    }

    /// Number of threads for `len` elements.
    pub fn threads(&self, len: usize) -> PyResult<usize> {
        match self.threads {
            Some(0) => Err(PyValueError::new_err("threads: at least 1 is needed")),
            Some(threads) => Ok(threads),
            None if len < 2 * GRAIN => Ok(1),
            None => Ok(parallel::available()),
        }
    }
}

/// A number that is stored as uint64 in an array.
pub trait Number: Copy {
    fn wrap(raw: u64) -> Self;
    fn raw(self) -> u64;
}

macro_rules! number {
    ($($name:ty),*) => {$(
        impl Number for $name {
            fn wrap(raw: u64) -> Self {
                Self(raw)
            }
            fn raw(self) -> u64 {
                self.0
            }
        }
    )*};
}

number!(
    xenkdump::addr::Pfn,
    xenkdump::addr::Mfn,
    xenkdump::addr::MachineAddr
);

impl Number for u64 {
    fn wrap(raw: u64) -> Self {
        raw
    }
    fn raw(self) -> u64 {
        self
    }
}

/// Work on a batch. Outputs and statuses are of equal length.
pub trait Work<W, I, O>: Sync {
    /// Processes copies of elements.
    fn copies(&self, worker: &mut W, inputs: &[I], outputs: &mut [O], statuses: &mut [Status]);

    /// Processes elements in the arrays themselves, which others may change meanwhile. False, and
    /// nothing is changed, if it has to have copies. Inputs after those with an output are the ones
    /// that are processed next.
    fn shared(&self, _: &mut W, _: &[AtomicU64], _: &[AtomicU64], _: &mut [Status]) -> bool {
        false
    }
}

/// Work on copies only.
struct OnCopies<F>(F);

impl<W, I, O, F> Work<W, I, O> for OnCopies<F>
where
    F: Fn(&mut W, &[I], &mut [O], &mut [Status]) + Sync,
{
    #[inline]
    fn copies(&self, worker: &mut W, inputs: &[I], outputs: &mut [O], statuses: &mut [Status]) {
        self.0(worker, inputs, outputs, statuses);
    }
}

/// The columns of a call.
struct Columns<'c> {
    input: &'c Column<u64>,
    out: &'c Column<u64>,
    /// The elements of both, if they can be used where they are.
    shared: Option<(&'c [AtomicU64], &'c [AtomicU64])>,
}

impl Columns<'_> {
    /// Does the work for a range of elements; there is a status for each.
    #[inline]
    fn process<I: Number, O: Number, W>(
        &self,
        range: Range<usize>,
        worker: &mut W,
        work: &impl Work<W, I, O>,
        statuses: &mut [Status],
    ) {
        if let Some((input, out)) = self.shared {
            if let (Some(input), Some(out)) = (input.get(range.start..), out.get(range.clone())) {
                if work.shared(worker, input, out, statuses) {
                    return;
                }
            }
        }
        for (i, statuses) in statuses.chunks_mut(COPY).enumerate() {
            let first = range.start + i * COPY;
            let mut inputs = [I::wrap(0); COPY];
            let mut outputs = [O::wrap(0); COPY];
            let (Some(inputs), Some(outputs)) = (
                inputs.get_mut(..statuses.len()),
                outputs.get_mut(..statuses.len()),
            ) else {
                return;
            };
            self.input.load(first, inputs, I::wrap);
            work.copies(worker, inputs, outputs, statuses);
            self.out.store(first, outputs, O::raw);
        }
    }
}

/// Calls `work` on all elements of `input`, on workers from `make`, with the GIL released; returns the
/// array of results. Without a `status` array the first element that fails is raised as the error
/// that `again` gives for it; its arguments are the element, and words for where it is.
pub fn map<'py, I: Number, O: Number, W>(
    py: Python<'py>,
    gate: &Gate,
    input: &Column<u64>,
    options: &Options<'_, 'py>,
    make: impl Fn(usize) -> W + Sync,
    work: impl Fn(&mut W, &[I], &mut [O], &mut [Status]) + Sync,
    again: impl Fn(I, &str) -> Option<PyErr>,
) -> PyResult<Bound<'py, PyAny>> {
    map_with(py, gate, input, options, make, OnCopies(work), again)
}

/// [`map`] with [`Work`].
pub fn map_with<'py, I: Number, O: Number, W>(
    py: Python<'py>,
    gate: &Gate,
    input: &Column<u64>,
    options: &Options<'_, 'py>,
    make: impl Fn(usize) -> W + Sync,
    work: impl Work<W, I, O>,
    again: impl Fn(I, &str) -> Option<PyErr>,
) -> PyResult<Bound<'py, PyAny>> {
    let len = input.len();
    let threads = options.threads(len)?;
    let status = status_column(options.status, input)?;
    let result = match options.out {
        Some(out) => out.clone(),
        None => arrays::empty(py, (len,), "uint64")?,
    };
    let out = Column::<u64>::writable(&result, "out", len)?;
    buffers::check_apart((&out, "out"), (input, "the input"))?;
    if let Some(status) = &status {
        buffers::check_apart((&out, "out"), (status, "status"))?;
    }
    let columns = Columns {
        input,
        out: &out,
        shared: input.shared().zip(out.shared()),
    };
    let failed = AtomicUsize::new(usize::MAX);
    let step = |worker: &mut W, range: Range<usize>| {
        let mut statuses = [Status::Ok; BATCH];
        for first in range.clone().step_by(BATCH) {
            let count = BATCH.min(range.end - first);
            let Some(statuses) = statuses.get_mut(..count) else {
                return false;
            };
            columns.process(first..first + count, worker, &work, statuses);
            match &status {
                Some(column) => column.store(first, statuses, |status| status as u8),
                None => {
                    if let Some(i) = first_failure(statuses) {
                        failed.fetch_min(first + i, Ordering::Relaxed);
                        return false;
                    }
                }
            }
        }
        gate.is_open()
    };
    run(py, gate, len, (GRAIN, threads), &make, step)?;
    let first = failed.into_inner();
    if first == usize::MAX {
        return Ok(result);
    }
    let mut element = [I::wrap(0)];
    input.load(first, &mut element, I::wrap);
    let error = again(element[0], &format!("element {first}"));
    Err(error.unwrap_or_else(arrays::changed))
}

/// The position of the first status that is not success.
#[inline]
pub fn first_failure(statuses: &[Status]) -> Option<usize> {
    // First without an early end, so that the loop is vectorized.
    let failed = statuses
        .iter()
        .fold(false, |failed, status| failed | (*status != Status::Ok));
    let position = || statuses.iter().position(|status| *status != Status::Ok);
    failed.then(position).flatten()
}

/// Calls `step` for all of `0..len`, in ranges of `grain` elements, on `threads` threads. Releases the
/// GIL unless the range is short. ValueError if the gate was closed meanwhile.
pub fn run<W>(
    py: Python<'_>,
    gate: &Gate,
    len: usize,
    (grain, threads): (usize, usize),
    make: &(impl Fn(usize) -> W + Sync),
    step: impl Fn(&mut W, Range<usize>) -> bool + Sync,
) -> PyResult<()> {
    gate.check()?;
    if len < DETACH {
        errors::catch(|| step(&mut make(len), 0..len))?;
    } else {
        // Threads share the work, and what their workers expect.
        let shares = threads.min(len.div_ceil(grain.max(1))).max(1);
        let make = || make(len.div_ceil(shares));
        detach(py, || parallel::ranges(len, grain, threads, make, &step))?;
    }
    gate.check()
}

/// The `status` argument, which must be as long as the input and not overlap it.
pub fn status_column(
    status: Option<&Bound<'_, PyAny>>,
    input: &Column<u64>,
) -> PyResult<Option<Column<u8>>> {
    let Some(status) = status else {
        return Ok(None);
    };
    let status = Column::writable(status, "status", input.len())?;
    buffers::check_apart((&status, "status"), (input, "the input"))?;
    Ok(Some(status))
}
