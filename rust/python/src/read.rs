//! Long reads and batches of reads, without the GIL.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use xenkdump::addr::PAGE_SHIFT;
use xenkdump::alloc;
use xenkdump::memory::{Fault, Memory};
use xenkdump::parallel;
use xenkdump::space::{Batch, Layout, PageNumbers, Rows, Space, FEW_PAGES, LONGEST_HELD_ROW};
use xenkdump::status::Status;

use crate::arrays;
use crate::buffers::{Bytes, Column};
use crate::bulk::{self, Options};
use crate::errors;
use crate::fork::detach;
use crate::gate::Gate;
use crate::handle::CoreDump;

/// Shorter reads keep the GIL.
const DETACH: usize = 16 << 10;
/// Bytes of a long read that a thread takes at once.
const PIECE: usize = 1 << 20;
/// The number of rows read at once.
const ROWS: usize = 1024;

/// The rows of a two-dimensional array of bytes.
struct RowsOf<'a> {
    bytes: &'a Bytes,
    size: usize,
}

impl Rows for RowsOf<'_> {
    #[inline]
    fn put(&mut self, row: usize, at: usize, bytes: &[u8]) {
        // The array exists, so its size fits.
        self.bytes.put(row * self.size + at, bytes);
    }

    #[inline]
    fn put_each<const N: usize>(
        &mut self,
        (first, at): (usize, usize),
        found: &[&[u8]],
        from: usize,
    ) {
        let start = first * self.size + at;
        self.bytes.put_each::<N>((start, self.size), found, from);
    }

    fn clear(&mut self, row: usize) {
        const ZEROS: [u8; 4096] = [0; 4096];
        for at in (0..self.size).step_by(ZEROS.len()) {
            let count = ZEROS.len().min(self.size - at);
            self.put(row, at, ZEROS.get(..count).unwrap_or_default());
        }
    }
}

/// The same rows in another order.
struct Reordered<'a, 'o> {
    rows: RowsOf<'a>,
    /// The row at each place.
    order: &'o [u64],
}

impl Rows for Reordered<'_, '_> {
    fn put(&mut self, row: usize, at: usize, bytes: &[u8]) {
        if let Some(row) = self.order.get(row) {
            self.rows.put(*row as usize, at, bytes);
        }
    }

    fn clear(&mut self, row: usize) {
        if let Some(row) = self.order.get(row) {
            self.rows.clear(*row as usize);
        }
    }
}

/// The elements by ascending page, so that a dump that decodes pages decodes each once. `None` if they
/// are in that order, if they are few, or if a batch can hold their pages.
fn by_page(
    dump: &CoreDump,
    input: &Column<u64>,
    wanted: Wanted<'_>,
    threads: usize,
) -> Option<Vec<u64>> {
    let len = input.len();
    if !dump.decodes_pages() || len <= ROWS {
        return None;
    }
    let mut address = [0];
    let mut keys = alloc::collect((0..len).map(|i| {
        input.load(i, &mut address, |raw| raw);
        address[0] >> PAGE_SHIFT
    }));
    let held = match wanted {
        Wanted::Bytes(size) if size <= LONGEST_HELD_ROW => few_pages(dump, threads),
        _ => 0,
    };
    if keys.is_sorted() || are_of_pages(&keys, held) {
        return None;
    }
    // The page, counted from the lowest one, and below it the number of the element. Where both do not
    // fit, the low bits of the page are left out: some pages are mixed then.
    let bounds = keys.iter().fold((u64::MAX, 0), |(low, high), key| {
        (low.min(*key), high.max(*key))
    });
    let index_bits = bits(len as u64);
    let excess = (bits(bounds.1 - bounds.0) + index_bits).saturating_sub(u64::BITS);
    for (key, i) in keys.iter_mut().zip(0..) {
        *key = (*key - bounds.0) >> excess << index_bits | i;
    }
    sort(&mut keys, index_bits);
    for key in &mut keys {
        *key &= (1 << index_bits) - 1;
    }
    Some(keys)
}

/// The most pages that each thread of a batch can hold, so that none is decoded again.
fn few_pages(dump: &CoreDump, threads: usize) -> usize {
    match (dump.pages_kept(), threads) {
        (0, _) => 0,
        (_, 1) => FEW_PAGES,
        // Those of other threads come from the cache.
        (kept, _) => FEW_PAGES.min(kept / 4),
    }
}

/// Whether the keys belong to at most `most` pages.
fn are_of_pages(keys: &[u64], most: usize) -> bool {
    let mut pages = PageNumbers::default();
    most > 0
        && keys
            .iter()
            .all(|key| pages.of(*key).is_some_and(|number| number < most))
}

/// The number of bits that a number takes.
fn bits(number: u64) -> u32 {
    u64::BITS - number.leading_zeros()
}

/// Sorts keys that are in order as far as their lowest `sorted_bits` bits: a radix sort by the other
/// digits that differ. For a batch of words in cached pages a sort by comparison would take longer than
/// the reads.
fn sort(keys: &mut Vec<u64>, sorted_bits: u32) {
    const DIGIT: u32 = 11;
    let digit = |key: u64, shift: u32| (key >> shift) as usize & ((1 << DIGIT) - 1);
    let (all, any) = keys
        .iter()
        .fold((u64::MAX, 0), |(all, any), key| (all & key, any | key));
    let mut sorted = alloc::collect(keys.iter().copied());
    for shift in (sorted_bits..u64::BITS).step_by(DIGIT as usize) {
        if digit(all ^ any, shift) == 0 {
            continue;
        }
        let mut starts = [0_usize; 1 << DIGIT];
        for key in keys.iter() {
            if let Some(count) = starts.get_mut(digit(*key, shift)) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += std::mem::replace(start, sum);
        }
        for key in keys.iter() {
            let Some(start) = starts.get_mut(digit(*key, shift)) else {
                continue;
            };
            if let Some(slot) = sorted.get_mut(*start) {
                *slot = *key;
            }
            *start += 1;
        }
        std::mem::swap(keys, &mut sorted);
    }
}

/// Fills a buffer, with several threads if it is long.
pub fn fill(
    py: Python<'_>,
    space: &Space<CoreDump>,
    gate: &Gate,
    address: u64,
    bytes: &Bytes,
    threads: Option<usize>,
) -> PyResult<()> {
    let len = bytes.len();
    if len < DETACH {
        let put = |at: usize, piece: &[u8]| bytes.put(at, piece);
        return errors::catch(|| Batch::new(space, 1).pieces(address, len, put))?.map_err(fault);
    }
    let threads = match threads {
        Some(0) => return Err(PyValueError::new_err("threads: at least 1 is needed")),
        Some(threads) => threads,
        None if len < 2 * PIECE => 1,
        None => parallel::available(),
    };
    let failed: Mutex<Option<(usize, Fault)>> = Mutex::new(None);
    let decodes = space.memory().pages_kept() > 0;
    let step = |batch: &mut Batch<'_, CoreDump>, range: Range<usize>| {
        let put = |at: usize, piece: &[u8]| bytes.put(range.start + at, piece);
        let read = match address.checked_add(range.start as u64) {
            Some(start) if decodes => bytes.fill(&range, |part| batch.fill(start, part)),
            Some(start) => batch.pieces(start, range.len(), put),
            None => Err(Fault::Wraps {
                addr: address,
                len: len as u64,
            }),
        };
        if let Err(fault) = read {
            // Ranges are assigned in ascending order, so the fault with the lowest address has
            // occurred.
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            if failed.is_none_or(|(lowest, _)| range.start < lowest) {
                *failed = Some((range.start, fault));
            }
            return false;
        }
        gate.is_open()
    };
    detach(py, || {
        let make = || Batch::new(space, PIECE / 4096);
        parallel::ranges(len, PIECE, threads, make, step)
    })?;
    gate.check()?;
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(fault(error)),
        None => Ok(()),
    }
}

/// What is read at each address.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// So many bytes.
    Bytes(usize),
    /// Members of a struct.
    Members(&'a Layout),
}

impl Wanted<'_> {
    /// The size of a row.
    fn size(self) -> usize {
        match self {
            Wanted::Bytes(size) => size,
            Wanted::Members(layout) => layout.row(),
        }
    }

    /// The cache lines that the work for an element is proportional to.
    fn lines(self) -> usize {
        match self {
            Wanted::Bytes(size) => size / 64 + 1,
            Wanted::Members(layout) => layout.row() / 64 + layout.len() + 1,
        }
    }

    fn read(
        self,
        batch: &mut Batch<'_, CoreDump>,
        addrs: &[u64],
        first: usize,
        rows: &mut impl Rows,
        status: &mut [Status],
    ) {
        match self {
            Wanted::Bytes(size) => batch.read_rows(addrs, size, first, rows, status),
            Wanted::Members(layout) => batch.read_packed(addrs, layout, first, rows, status),
        }
    }

    /// Why it cannot be read.
    fn fault(self, space: &Space<CoreDump>, address: u64) -> Option<Fault> {
        match self {
            Wanted::Bytes(size) => space.pieces(address, size, |_, _| ()).err(),
            Wanted::Members(layout) => space.fault_of(address, layout),
        }
    }
}

/// Reads `size` bytes at each address of `input`; see `AddressSpace.read_many`.
pub fn many<'py>(
    py: Python<'py>,
    space: &Space<CoreDump>,
    gate: &Gate,
    input: &Column<u64>,
    size: usize,
    options: &Options<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let len = input.len();
    let result = match options.out {
        Some(out) => out.clone(),
        None => arrays::empty(py, (len, size), "uint8")?,
    };
    let target = Bytes::rows(&result, "out", len, size)?;
    rows(
        py,
        (space, gate),
        input,
        Wanted::Bytes(size),
        &target,
        options,
    )?;
    Ok(result)
}

/// Reads what is wanted at each address of `input` into the rows of `target`.
pub fn rows(
    py: Python<'_>,
    (space, gate): (&Space<CoreDump>, &Gate),
    input: &Column<u64>,
    wanted: Wanted<'_>,
    target: &Bytes,
    options: &Options<'_, '_>,
) -> PyResult<()> {
    let (len, size) = (input.len(), wanted.size());
    let lines = wanted.lines();
    let threads = options.threads(len.saturating_mul(lines))?;
    let grain = (bulk::GRAIN / lines).max(ROWS);
    let column = bulk::status_column(options.status, input)?;
    target.check_apart("out", input, "the input")?;
    if let Some(column) = &column {
        target.check_apart("out", column, "status")?;
    }
    let failed = AtomicUsize::new(usize::MAX);
    let order = detach(py, || by_page(space.memory(), input, wanted, threads))?;
    let in_order = |batch: &mut Batch<'_, CoreDump>, order: &[u64]| {
        let mut rows = Reordered {
            rows: RowsOf {
                bytes: target,
                size,
            },
            order,
        };
        let mut addrs = [0; ROWS];
        let mut statuses = [Status::Ok; ROWS];
        let (Some(addrs), Some(statuses)) = (
            addrs.get_mut(..order.len()),
            statuses.get_mut(..order.len()),
        ) else {
            return false;
        };
        for (addr, i) in addrs.iter_mut().zip(order) {
            input.load(*i as usize, std::slice::from_mut(addr), |raw| raw);
        }
        wanted.read(batch, addrs, 0, &mut rows, statuses);
        for (status, i) in statuses.iter().zip(order) {
            if let Some(column) = &column {
                column.store(*i as usize, std::slice::from_ref(status), |status| {
                    status as u8
                });
            } else if *status != Status::Ok {
                failed.fetch_min(*i as usize, Ordering::Relaxed);
            }
        }
        gate.is_open()
    };
    let step = |batch: &mut Batch<'_, CoreDump>, range: Range<usize>| {
        if let Some(order) = order.as_ref().and_then(|order| order.get(range.clone())) {
            return order.chunks(ROWS).all(|order| in_order(batch, order));
        }
        let mut rows = RowsOf {
            bytes: target,
            size,
        };
        let mut addrs = [0; ROWS];
        let mut statuses = [Status::Ok; ROWS];
        for first in range.clone().step_by(ROWS) {
            let count = ROWS.min(range.end - first);
            let (Some(addrs), Some(statuses)) = (addrs.get_mut(..count), statuses.get_mut(..count))
            else {
                return false;
            };
            input.load(first, addrs, |raw| raw);
            wanted.read(batch, addrs, first, &mut rows, statuses);
            match &column {
                Some(column) => column.store(first, statuses, |status| status as u8),
                None => {
                    if let Some(row) = bulk::first_failure(statuses) {
                        failed.fetch_min(first + row, Ordering::Relaxed);
                        return false;
                    }
                }
            }
        }
        gate.is_open()
    };
    let make = |expected| Batch::new(space, expected);
    bulk::run(py, gate, len, (grain, threads), &make, step)?;
    match failed.into_inner() {
        usize::MAX => Ok(()),
        row => {
            let mut address = [0];
            input.load(row, &mut address, |raw| raw);
            // Read the row again for the details of the fault.
            let text = format!("element {row}");
            let again = wanted.fault(space, address[0]);
            Err(again.map_or_else(arrays::changed, |fault| errors::memory(fault, Some(&text))))
        }
    }
}

fn fault(fault: Fault) -> PyErr {
    errors::memory(fault, None)
}
