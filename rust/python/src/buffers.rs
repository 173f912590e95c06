//! Python buffers as columns of numbers and as plain bytes. The only module of this crate with
//! `unsafe`.
//!
//! Safety:
//!
//! - A [`Column`] holds the exporter's buffer until it is dropped. The buffer protocol requires that
//!   the memory is neither moved nor resized until then. bytearray, array, mmap and memoryview comply.
//! - numpy does not: it does not count exports, and `resize(refcheck=False)` frees the memory of an
//!   array in use. numpy documents this as unsafe. It cannot be prevented here, so the docstring of
//!   `AddressSpace` excludes it, as it excludes closing a file descriptor under a mapping.
//! - Every access is checked against the shape given by the exporter.
//! - No Rust reference to the memory is created, with two exceptions. [`Column::shared`] refers to atomic
//!   numbers, for which writes by others are no breach of Rust's rules. [`Bytes::fill`] is for decoders of
//!   pages, which write to it alone; no check depends on what they find there.
//! - Otherwise numbers are copied in and out through raw pointers, in batches. All checks are made on the
//!   copy, or on the result of one atomic load. Another Python thread that writes to the same array
//!   while the GIL is released can corrupt the numbers, as with numpy itself, but cannot bypass a check.

use std::ffi::CStr;
use std::ops::Range;
use std::slice;
use std::sync::atomic::AtomicU64;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use xenkdump::file;

/// An element of a column.
pub trait Element: Copy + Send {
    /// The name of its numpy type.
    const NAME: &'static str;
    /// Whether a buffer format describes this type.
    fn matches(format: &CStr) -> bool;
}

impl Element for u64 {
    const NAME: &'static str = "uint64";
    fn matches(format: &CStr) -> bool {
        let native: &[u8] = if cfg!(target_endian = "little") {
            b"<Q"
        } else {
            b">Q"
        };
        match format.to_bytes() {
            b"Q" | b"@Q" | b"=Q" => true,
            b"L" | b"@L" => size_of::<std::ffi::c_ulong>() == 8,
            b"N" | b"@N" => size_of::<usize>() == 8,
            other => other == native,
        }
    }
}

impl Element for u8 {
    const NAME: &'static str = "uint8";
    fn matches(format: &CStr) -> bool {
        matches!(format.to_bytes(), b"B" | b"@B" | b"=B" | b"<B" | b">B")
    }
}

/// A one-dimensional buffer of `T`, contiguous or strided.
pub struct Column<T> {
    buffer: PyUntypedBuffer,
    len: usize,
    stride: isize,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Column<T> {
    /// A column of the buffer of argument `name`. TypeError if the element type does not match;
    /// ValueError if the shape does not match.
    pub fn new(buffer: PyUntypedBuffer, name: &str) -> PyResult<Self> {
        if buffer.item_size() != size_of::<T>() || !T::matches(buffer.format()) {
            return Err(PyTypeError::new_err(format!(
                "{name}: {} in native byte order is needed, not elements of {} bytes of format \
                 {:?}",
                T::NAME,
                buffer.item_size(),
                buffer.format().to_string_lossy()
            )));
        }
        let ([len], [stride]) = (buffer.shape(), buffer.strides()) else {
            return Err(PyValueError::new_err(format!(
                "{name}: one dimension is needed, not {}",
                buffer.dimensions()
            )));
        };
        if buffer.suboffsets().is_some() {
            return Err(PyValueError::new_err(format!(
                "{name}: its memory is indirect"
            )));
        }
        let (len, stride) = (*len, *stride);
        Ok(Self {
            buffer,
            len,
            stride,
            element: std::marker::PhantomData,
        })
    }

    /// A column of the array `object`.
    pub fn of(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        Self::new(get(object, name)?, name)
    }

    /// A writable column of `len` elements.
    pub fn writable(object: &Bound<'_, PyAny>, name: &str, len: usize) -> PyResult<Self> {
        let column = Self::new(get(object, name)?, name)?;
        if column.buffer.readonly() {
            return Err(PyValueError::new_err(format!("{name}: it is read-only")));
        }
        if column.len != len {
            let text = format!("{name}: {len} elements are needed, not {}", column.len);
            return Err(PyValueError::new_err(text));
        }
        if column.stride.unsigned_abs() < size_of::<T>() && len > 1 {
            let text = format!("{name}: its elements overlap");
            return Err(PyValueError::new_err(text));
        }
        Ok(column)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of the element at `index`, which must be less than `len`.
    fn at(&self, index: usize) -> *mut T {
        debug_assert!(index < self.len);
        // All elements are within one object, so the product does not overflow.
        let offset = (index as isize).wrapping_mul(self.stride);
        self.buffer
            .buf_ptr()
            .cast::<u8>()
            .wrapping_offset(offset)
            .cast()
    }

    /// Copies elements, starting at `first`, to `into`, each through `f`. Stops at the end of either.
    #[inline]
    pub fn load<U>(&self, first: usize, into: &mut [U], f: impl Fn(T) -> U) {
        let count = into.len().min(self.len.saturating_sub(first));
        let into = into.iter_mut().take(count);
        if self.stride == size_of::<T>() as isize {
            // An incremented pointer, so that the loop is vectorized: an index would be checked at
            // each step.
            let mut at = self.at(first);
            for slot in into {
                // SAFETY: `at` is within the column (see the module).
                *slot = f(unsafe { at.read_unaligned() });
                at = at.wrapping_add(1);
            }
        } else {
            for (i, slot) in into.enumerate() {
                // SAFETY: as above.
                *slot = f(unsafe { self.at(first + i).read_unaligned() });
            }
        }
    }

    /// Copies `from` to the elements starting at `first`, each through `f`. Stops at the end of either.
    #[inline]
    pub fn store<U: Copy>(&self, first: usize, from: &[U], f: impl Fn(U) -> T) {
        let count = from.len().min(self.len.saturating_sub(first));
        let from = from.iter().take(count);
        if self.stride == size_of::<T>() as isize {
            let mut at = self.at(first);
            for value in from {
                // SAFETY: `at` is within the column, and callers only use writable columns (see the
                // module).
                unsafe { at.write_unaligned(f(*value)) };
                at = at.wrapping_add(1);
            }
        } else {
            for (i, value) in from.enumerate() {
                // SAFETY: as above.
                unsafe { self.at(first + i).write_unaligned(f(*value)) };
            }
        }
    }

    /// The address range of its bytes, for strides of either sign, and the distance between elements.
    fn extent(&self) -> (Range<usize>, usize) {
        if self.len == 0 {
            return (0..0, 0);
        }
        let (first, last) = (self.at(0) as usize, self.at(self.len - 1) as usize);
        (
            first.min(last)..first.max(last).saturating_add(size_of::<T>()),
            self.stride.unsigned_abs(),
        )
    }
}

impl Column<u64> {
    /// All elements, if they are contiguous and aligned. Only a writable column may be written to. Others
    /// may write to it at the same time.
    pub fn shared(&self) -> Option<&[AtomicU64]> {
        let first = self.buffer.buf_ptr().cast::<AtomicU64>();
        let is_contiguous = self.stride == size_of::<u64>() as isize || self.len == 1;
        if self.len == 0 || !is_contiguous || !first.is_aligned() {
            return None;
        }
        // SAFETY: `first` is aligned, and the column, which the result borrows, has `len` contiguous
        // numbers from there on (see the module). Read-only memory may be read by relaxed atomic loads
        // of 8 bytes on 64-bit processors.
        Some(unsafe { slice::from_raw_parts(first, self.len) })
    }
}

/// ValueError if a writable column overlaps another column. Interleaved columns (the fields of a
/// structured array) do not overlap.
pub fn check_apart<T: Element, U: Element>(
    (written, name): (&Column<T>, &str),
    (other, other_name): (&Column<U>, &str),
) -> PyResult<()> {
    let ((a, step), (b, other_step)) = (written.extent(), other.extent());
    let overlap = a.start < b.end && b.start < a.end;
    let interleave = step == other_step && step > 0 && {
        let ahead = (b.start.wrapping_sub(a.start) as isize).rem_euclid(step as isize) as usize;
        ahead >= size_of::<T>() && ahead + size_of::<U>() <= step
    };
    if overlap && !interleave {
        return Err(PyValueError::new_err(format!(
            "{name} and {other_name} overlap in memory"
        )));
    }
    Ok(())
}

/// A writable, contiguous buffer as plain bytes.
pub struct Bytes(PyUntypedBuffer);

impl Bytes {
    /// The buffer of argument `name`. ValueError if it is read-only or not contiguous.
    pub fn writable(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        let buffer = get(object, name)?;
        if buffer.readonly() {
            return Err(PyValueError::new_err(format!("{name}: it is read-only")));
        }
        if !buffer.is_c_contiguous() {
            return Err(PyValueError::new_err(format!(
                "{name}: it is not contiguous"
            )));
        }
        if holds_objects(buffer.format()) {
            let text = format!("{name}: Python objects cannot be read from a dump");
            return Err(PyTypeError::new_err(text));
        }
        Ok(Self(buffer))
    }

    /// A writable uint8 buffer of shape (`rows`, `size`).
    pub fn rows(object: &Bound<'_, PyAny>, name: &str, rows: usize, size: usize) -> PyResult<Self> {
        let bytes = Self::writable(object, name)?;
        if bytes.0.item_size() != 1 || !u8::matches(bytes.0.format()) {
            let format = bytes.0.format().to_string_lossy();
            let text = format!("{name}: uint8 is needed, not format {format:?}");
            return Err(PyTypeError::new_err(text));
        }
        if bytes.0.shape() != [rows, size] {
            let shape = bytes.0.shape();
            let text = format!("{name}: the shape ({rows}, {size}) is needed, not {shape:?}");
            return Err(PyValueError::new_err(text));
        }
        Ok(bytes)
    }

    /// The size in bytes.
    pub fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// Copies `bytes` to offset `at`. Stops at the end of the buffer.
    #[inline]
    pub fn put(&self, at: usize, bytes: &[u8]) {
        let count = bytes.len().min(self.len().saturating_sub(at));
        let target = self.0.buf_ptr().cast::<u8>().wrapping_add(at);
        let bytes = bytes.get(..count).unwrap_or_default();
        // Numbers and cache lines are copied without a call.
        if let Ok(word) = <&[u8; 8]>::try_from(bytes) {
            // SAFETY: as below.
            unsafe { target.copy_from_nonoverlapping(word.as_ptr(), word.len()) };
            return;
        }
        if let Ok(word) = <&[u8; 4]>::try_from(bytes) {
            // SAFETY: as below.
            unsafe { target.copy_from_nonoverlapping(word.as_ptr(), word.len()) };
            return;
        }
        if let Ok(line) = <&[u8; 64]>::try_from(bytes) {
            // SAFETY: as below.
            unsafe { target.copy_from_nonoverlapping(line.as_ptr(), line.len()) };
            return;
        }
        let size = file::part(count);
        for (i, part) in bytes.chunks(size).enumerate() {
            let target = target.wrapping_add(i * size);
            // SAFETY: `at + count` is within the buffer, which is writable and contiguous. `bytes`
            // does not overlap it: it is memory of the dump or a copy of it (see the module).
            unsafe { target.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
        }
    }

    /// Calls `fill` with the bytes of a range, which it may only write to, or read back after it has written
    /// them. Callers use each range in one thread.
    pub fn fill<T>(&self, range: &Range<usize>, fill: impl FnOnce(&mut [u8]) -> T) -> T {
        let (start, end) = (range.start.min(self.len()), range.end.min(self.len()));
        let target = self.0.buf_ptr().cast::<u8>().wrapping_add(start);
        // SAFETY: the range is within the buffer, which is writable and contiguous, and whose bytes were
        // initialized or allocated by Python. Within this crate only one thread uses it. Another Python
        // thread that writes to it meanwhile changes what is read from the dump, as with numpy itself:
        // decoders take all lengths and distances from their input (see the module).
        fill(unsafe { std::slice::from_raw_parts_mut(target, end.saturating_sub(start)) })
    }

    /// Copies the `N` bytes at offset `from` of each of `found`, the first to offset `at` and each of
    /// the others `step` bytes further. Leaves out those that are shorter. Stops at the end of the buffer.
    #[inline]
    pub fn put_each<const N: usize>(
        &self,
        (at, step): (usize, usize),
        found: &[&[u8]],
        from: usize,
    ) {
        let room = self
            .len()
            .checked_sub(N)
            .and_then(|room| room.checked_sub(at));
        let fit = room.map_or(0, |room| (room / step.max(1)).saturating_add(1));
        let mut target = self.0.buf_ptr().cast::<u8>().wrapping_add(at);
        let found = found.get(..fit).unwrap_or(found);
        for bytes in file::prefetched(found, from, N) {
            if let Some(bytes) = bytes.get(from..).and_then(<[u8]>::first_chunk::<N>) {
                // SAFETY: as in `put`; the last of `fit` places ends within the buffer.
                unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), N) };
            }
            target = target.wrapping_add(step);
        }
    }

    /// ValueError if it overlaps a column.
    pub fn check_apart<T: Element>(
        &self,
        name: &str,
        other: &Column<T>,
        other_name: &str,
    ) -> PyResult<()> {
        let start = self.0.buf_ptr() as usize;
        let (extent, _) = other.extent();
        if start < extent.end && extent.start < start.saturating_add(self.len()) {
            return Err(PyValueError::new_err(format!(
                "{name} and {other_name} overlap in memory"
            )));
        }
        Ok(())
    }
}

/// Whether an element contains a pointer to a Python object: `O` outside of a `:name:` of a field.
fn holds_objects(format: &CStr) -> bool {
    let parts = format.to_bytes().split(|byte| *byte == b':');
    parts.step_by(2).any(|part| part.contains(&b'O'))
}

/// The buffer of the argument `name`.
fn get(object: &Bound<'_, PyAny>, name: &str) -> PyResult<PyUntypedBuffer> {
    PyUntypedBuffer::get(object).map_err(|_| {
        let kind = object.get_type();
        PyTypeError::new_err(format!("{name}: an array is needed, not {kind}"))
    })
}
