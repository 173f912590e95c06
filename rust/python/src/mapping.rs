//! `Mapping`, `MappedRange` and `MappedRanges`.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;

use xenkdump::addr::{MachineAddr, Pfn, PseudoPhysAddr, VirtAddr, PAGE_SHIFT, PAGE_SIZE};
use xenkdump::dump::Run;
use xenkdump::memory::Fault;
use xenkdump::p2m::{FrameRun, FrameRuns, P2m, Physical, Special};
use xenkdump::paging::{self, Flags};
use xenkdump::space::Space;

use crate::fork::detach;
use crate::gate::Gate;
use crate::handle::CoreDump;

/// How a virtual address is mapped.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct Mapping {
    inner: paging::Mapping,
    levels: Vec<Level>,
    machine: MachineAddr,
    physical: Option<MachineAddr>,
}

/// Level, address of the table, index in it, entry.
type Level = (u8, u64, u16, u64);

impl Mapping {
    /// `physical` is where the tables of a translated guest lead to.
    pub fn new(
        inner: paging::Mapping,
        levels: Vec<Level>,
        machine: MachineAddr,
        physical: Option<MachineAddr>,
    ) -> Self {
        Self {
            inner,
            levels,
            machine,
            physical,
        }
    }
}

#[pymethods]
impl Mapping {
    /// Machine address of the byte.
    #[getter]
    fn machine(&self) -> u64 {
        self.machine.0
    }

    /// Physical address of the byte, to which the page tables of a translated guest lead; None if they
    /// lead to its machine address.
    #[getter]
    fn physical(&self) -> Option<u64> {
        self.physical.map(|addr| addr.0)
    }

    /// Size of the page that maps it, in bytes.
    #[getter]
    fn page_size(&self) -> u64 {
        self.inner.page_size
    }

    /// Flags in the bit positions of an x86 entry: writable and user if every level is, no-execute if
    /// any level is; PAT always in bit 12.
    #[getter]
    fn flags(&self) -> u64 {
        self.inner.flags.0
    }

    /// The names of the set bits of `flags`, lowest bit first, as in crash.
    #[getter]
    fn flag_names(&self) -> Vec<&'static str> {
        self.inner.flags.names().collect()
    }

    /// The entries of the walk, from the root: level (1 maps 4 KiB pages), address of the table (as in
    /// the entry that points to it), index in it, entry.
    #[getter]
    fn levels(&self) -> Vec<Level> {
        self.levels.clone()
    }

    fn __repr__(&self) -> String {
        format!(
            "<Mapping to {}: {} bytes, {}>",
            self.machine,
            self.inner.page_size,
            self.flag_names().join("|")
        )
    }
}

/// A range of addresses that is contiguous in machine memory.
#[pyclass(frozen, get_all, module = "xenkdump_fast._native")]
pub struct MappedRange {
    /// Its first address.
    address: u64,
    /// The machine address of its first byte.
    machine: u64,
    /// Its size in bytes.
    size: u64,
    /// Size in bytes of the pages that map it; 4096 where there are no page tables.
    page_size: u64,
    /// Flags as in `Mapping.flags`; 0 where there are no page tables.
    flags: u64,
}

#[pymethods]
impl MappedRange {
    /// The names of the bits of `flags`.
    #[getter]
    fn flag_names(&self) -> Vec<&'static str> {
        Flags(self.flags).names().collect()
    }

    fn __repr__(&self) -> String {
        format!(
            "<MappedRange {:#x}: {:#x} bytes at machine {:#x}>",
            self.address, self.size, self.machine
        )
    }
}

type Ranges = Box<dyn Iterator<Item = Result<MappedRange, Fault>> + Send>;

/// Iterator over the mapped ranges of an address space, found on demand.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct MappedRanges {
    state: Mutex<State>,
    gate: Gate,
}

struct State {
    ranges: Ranges,
    missing: u64,
    first_missing: Option<String>,
}

/// The number of missing tables skipped between checks for signals.
const SKIPPED_AT_ONCE: usize = 1 << 16;

impl State {
    /// The next range, or `Some(None)` at the end; `None` if it is not found yet.
    #[allow(clippy::option_option)]
    fn advance(&mut self) -> Option<Option<MappedRange>> {
        for _ in 0..SKIPPED_AT_ONCE {
            match self.ranges.next() {
                Some(Err(fault)) => {
                    self.missing += 1;
                    self.first_missing.get_or_insert_with(|| fault.to_string());
                }
                found => return Some(found.and_then(Result::ok)),
            }
        }
        None
    }
}

impl MappedRanges {
    fn over(gate: &Gate, ranges: Ranges) -> Self {
        Self {
            state: Mutex::new(State {
                ranges,
                missing: 0,
                first_missing: None,
            }),
            gate: gate.clone(),
        }
    }

    /// An iterator without ranges.
    pub fn none(gate: &Gate) -> Self {
        Self::over(gate, Box::new(std::iter::empty()))
    }

    /// The mapped ranges of `space` from `first` to `last`, both included.
    pub fn new(
        space: &Space<CoreDump>,
        dump: &CoreDump,
        gate: &Gate,
        first: u64,
        last: u64,
    ) -> Self {
        let ranges: Ranges = match space {
            Space::Machine(_) | Space::Physical(Physical::Bare(_)) => {
                Box::new(held(dump.clone(), first, last).map(Ok))
            }
            Space::Physical(Physical::P2m(p2m)) => {
                let (start, end) = (PseudoPhysAddr(first).frame(), PseudoPhysAddr(last).frame());
                let runs = FrameRuns::new(p2m.clone(), start, Pfn(end.0 + 1));
                Box::new(runs.filter_map(move |run| {
                    let start = run.pfn.addr()?.0;
                    let size = run.count << PAGE_SHIFT;
                    cut(start, run.mfn.addr()?.0, size - 1, first, last).map(Ok)
                }))
            }
            Space::Virtual(space) => {
                let space = space.clone();
                let p2m = space.memory().p2m().cloned();
                let ranges = space.into_mapped(VirtAddr(first), VirtAddr(last));
                let ranges = ranges.map(|range| {
                    range.map(|range| MappedRange {
                        address: range.addr.0,
                        machine: range.machine.0,
                        size: range.len,
                        page_size: range.page_size,
                        flags: range.flags.0,
                    })
                });
                match p2m {
                    None => Box::new(ranges),
                    Some(p2m) => Box::new(GuestRanges {
                        ranges,
                        p2m,
                        open: None,
                    }),
                }
            }
        };
        Self::over(gate, ranges)
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The machine memory that the dump holds from `first` to `last`.
fn held(dump: CoreDump, first: u64, last: u64) -> impl Iterator<Item = MappedRange> {
    let mut next = Some(MachineAddr(first));
    std::iter::from_fn(move || {
        let Run { start, last: end } = dump.runs(next?).next()?;
        next = end.0.checked_add(1).map(MachineAddr);
        cut(start.0, start.0, end.0 - start.0, first, last)
    })
}

/// The ranges of a translated guest's page tables, cut where its memory is not contiguous in machine
/// memory. A part without a frame yields a fault.
struct GuestRanges<I> {
    ranges: I,
    p2m: Arc<P2m<CoreDump>>,
    /// The range that is being cut, with its frames, and how much of it is done.
    open: Option<(MappedRange, FrameRuns<CoreDump>, u64, Option<FrameRun>)>,
}

impl<I: Iterator<Item = Result<MappedRange, Fault>>> Iterator for GuestRanges<I> {
    type Item = Result<MappedRange, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((range, frames, done, next)) = &mut self.open else {
                match self.ranges.next()? {
                    Err(fault) => return Some(Err(fault)),
                    Ok(range) => {
                        let start = PseudoPhysAddr(range.machine);
                        let last = PseudoPhysAddr(range.machine.saturating_add(range.size - 1));
                        let end = Pfn(last.frame().0 + 1);
                        let frames = FrameRuns::new(self.p2m.clone(), start.frame(), end);
                        self.open = Some((range, frames, 0, None));
                        continue;
                    }
                }
            };
            if *done >= range.size {
                self.open = None;
                continue;
            }
            let at = range.machine.saturating_add(*done);
            let hole = |special| {
                let pfn = PseudoPhysAddr(at).frame();
                Some(Err(Fault::P2m { pfn, special }))
            };
            let Some(run) = next.take().or_else(|| frames.next()) else {
                *done = range.size;
                return hole(Special::Invalid);
            };
            let (Some(start), Some(machine)) = (run.pfn.addr(), run.mfn.addr()) else {
                self.open = None;
                continue;
            };
            if start.0 > at {
                *done += start.0 - at;
                *next = Some(run);
                return hole(Special::Invalid);
            }
            let skipped = at - start.0;
            let size = (run.count << PAGE_SHIFT).saturating_sub(skipped);
            let part = MappedRange {
                address: range.address.saturating_add(*done),
                machine: machine.0 + skipped,
                size: size.min(range.size - *done),
                page_size: range.page_size,
                flags: range.flags,
            };
            *done += part.size.max(1);
            return Some(Ok(part));
        }
    }
}

/// The range of `more + 1` bytes at `start`, cut to `first..=last`.
fn cut(start: u64, machine: u64, more: u64, first: u64, last: u64) -> Option<MappedRange> {
    let address = start.max(first);
    let end = start.saturating_add(more).min(last);
    (address <= end).then(|| MappedRange {
        address,
        machine: machine.saturating_add(address - start),
        size: (end - address).saturating_add(1),
        page_size: PAGE_SIZE as u64,
        flags: 0,
    })
}

#[pymethods]
impl MappedRanges {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<MappedRange>> {
        loop {
            self.gate.check()?;
            if let Some(found) = detach(py, || self.with(State::advance))? {
                return Ok(found);
            }
            py.check_signals()?;
        }
    }

    /// The number of page tables skipped so far because they are not in the dump or have reserved bits
    /// set.
    #[getter]
    fn missing(&self, py: Python<'_>) -> PyResult<u64> {
        detach(py, || self.with(|state| state.missing))
    }

    /// The fault of the first skipped table; None if none was skipped.
    #[getter]
    fn first_missing(&self, py: Python<'_>) -> PyResult<Option<String>> {
        detach(py, || self.with(|state| state.first_missing.clone()))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let missing = self.missing(py)?;
        Ok(format!(
            "<MappedRanges: {missing} page tables missing so far>"
        ))
    }
}
