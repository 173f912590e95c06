//! `P2M` and `P2MComparison`.

use std::sync::atomic::AtomicU64;
use std::sync::Arc;

use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use xenkdump::addr::{Mfn, Pfn, VirtAddr, Word};
use xenkdump::memory::Fault;
use xenkdump::p2m::{self, Batch, Entry, P2m, Source};
use xenkdump::paging::{NestedFormat, P2mType, Virtual};
use xenkdump::status::Status;
use xenkdump::Error;

use crate::bulk::{self, Argument, Options, Work};
use crate::errors;
use crate::fork::detach;
use crate::gate::Gate;
use crate::handle::{CoreDump, Dump};
use crate::space::AddressSpace;

/// Kind of an entry, and its mfn.
type EntryTuple = (&'static str, Option<u64>);
/// Level, machine address of the table, index in it, entry.
type WalkTuple = (u8, u64, u16, u64);

/// A domain's pfn to mfn table, read in place in machine memory.
///
/// Can be shared between threads.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct P2M {
    pub inner: Arc<P2m<CoreDump>>,
    gate: Gate,
}

/// The lookups of a batch of pfns.
struct Resolve<'p>(&'p P2m<CoreDump>);

impl Work<Batch, Pfn, Mfn> for Resolve<'_> {
    #[inline]
    fn copies(&self, _: &mut Batch, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        self.0.resolve_many(pfns, out, status);
    }

    #[inline]
    fn shared(
        &self,
        batch: &mut Batch,
        pfns: &[AtomicU64],
        out: &[AtomicU64],
        status: &mut [Status],
    ) -> bool {
        self.0.resolve_shared(batch, pfns, out, status);
        true
    }
}

impl P2M {
    fn from_core(dump: &Dump, result: xenkdump::Result<P2m<CoreDump>>) -> PyResult<Self> {
        let inner = Arc::new(result.map_err(errors::from_core)?);
        let gate = dump.gate.inner();
        Ok(Self { inner, gate })
    }
}

fn word_of(bytes: usize) -> PyResult<Word> {
    match bytes {
        4 => Ok(Word::W32),
        8 => Ok(Word::W64),
        _ => Err(PyValueError::new_err(format!(
            "a guest's word has 4 or 8 bytes, not {bytes}"
        ))),
    }
}

/// The size of a listed disagreement in Python: three tuples, three ints, two strings, a list slot.
const LISTED_SIZE: usize = 512;

/// The size of a listed pair, or triple with a kind, in Python: a tuple, two ints, list slots.
const LISTED_SPAN: usize = 256;
/// The size of a listed int in Python, with a list slot.
const LISTED_INT: usize = 64;

/// A run of pfns of one kind in Python.
type KindTuple = (u64, u64, &'static str);

fn no_memory() -> PyErr {
    PyMemoryError::new_err("limit: no memory for so many disagreements")
}

/// The error of a frame that `reverse` does not find.
fn not_a_frame(mfn: Mfn, context: &str) -> PyErr {
    let number = mfn.0;
    errors::AbsentError::new_err(format!("{context}mfn {number:#x} is no frame of this P2M"))
}

fn tuple(entry: Entry) -> EntryTuple {
    (entry.kind(), entry.mfn().map(|mfn| mfn.0))
}

/// The virtual memory of `space`, read through `dump`.
fn under(dump: &Dump, space: &AddressSpace) -> PyResult<Virtual<CoreDump>> {
    let space = space.as_virtual()?;
    if space.memory().p2m().is_some() {
        let text = "page tables of a translated guest lead to no P2M in machine memory";
        return Err(PyTypeError::new_err(text));
    }
    Ok(Virtual::new(
        dump.inner.clone(),
        space.format(),
        space.root(),
    ))
}

#[pymethods]
impl P2M {
    /// The frame-list tree whose top page is `mfn`, of a guest with words of `word` bytes.
    ///
    /// `pages` is the guest's max_pfn; without it the tree ends at its last valid entry.
    #[staticmethod]
    #[pyo3(signature = (dump, mfn, word, pages=None))]
    fn frame_list(
        py: Python<'_>,
        dump: &Dump,
        mfn: u64,
        word: usize,
        pages: Option<u64>,
    ) -> PyResult<Self> {
        let word = word_of(word)?;
        let open = || P2m::frame_list(dump.inner.clone(), Mfn(mfn), word, pages);
        Self::from_core(dump, detach(py, open)?)
    }

    /// The array of `pages` entries at `address` of the address space `virtual`, either published by
    /// the guest (`source="linear"`) or its kernel's own (`source="cr3"`).
    #[staticmethod]
    #[pyo3(signature = (dump, r#virtual, address, word, pages, source="linear"))]
    fn linear(
        dump: &Dump,
        r#virtual: &AddressSpace,
        address: u64,
        word: usize,
        pages: u64,
        source: &str,
    ) -> PyResult<Self> {
        let source = match Source::by_name(source) {
            Some(source @ (Source::Linear | Source::Cr3)) => source,
            _ => {
                let text = format!("an array's source is \"linear\" or \"cr3\", not {source:?}");
                return Err(PyValueError::new_err(text));
            }
        };
        let space = under(dump, r#virtual)?;
        let word = word_of(word)?;
        let open = || P2m::linear(space, VirtAddr(address), word, pages, source);
        Self::from_core(dump, errors::catch(open)?)
    }

    /// The kernel's own tree of `levels` (2 or 3) levels. `top` is the virtual address of the top
    /// array: with 2 levels that of the symbol p2m_top; with 3 that symbol points to it.
    #[staticmethod]
    fn pvops_tree(
        dump: &Dump,
        r#virtual: &AddressSpace,
        top: u64,
        levels: u8,
        word: usize,
        pages: u64,
    ) -> PyResult<Self> {
        let space = under(dump, r#virtual)?;
        let word = word_of(word)?;
        let open = || P2m::pvops_tree(space, VirtAddr(top), levels, word, pages);
        Self::from_core(dump, errors::catch(open)?)
    }

    /// The pairs of pfn and mfn in an xl dump-core file. AbsentError if `dump` has none, because it is
    /// a vmcore, or a dump of a translated guest (HVM, PVH), whose pfns and mfns are equal.
    #[staticmethod]
    fn dump_core(py: Python<'_>, dump: &Dump) -> PyResult<Self> {
        let core = &dump.inner;
        let open = || {
            let pairs = core.container_p2m().filter(|pairs| !pairs.is_empty());
            let pairs =
                pairs.ok_or_else(|| Error::Absent("the file itself lists no P2M".into()))?;
            let guest = core.vcpu_contexts().first().map(|context| context.word);
            Ok(P2m::container(
                core.clone(),
                pairs,
                guest.unwrap_or(Word::W64),
            ))
        };
        Self::from_core(dump, detach(py, open)?)
    }

    /// Xen's page tables of a translated guest (HVM, PVH), whose top page is `mfn`. `layout` is "npt"
    /// (AMD, and the P2M of shadow paging) or "ept" (Intel), with 4 levels, or "npt-5" or "ept-5".
    ///
    /// AbsentError if the page is not in the dump, or if nothing is mapped.
    #[staticmethod]
    fn nested(py: Python<'_>, dump: &Dump, mfn: u64, layout: &str) -> PyResult<Self> {
        let format = NestedFormat::by_name(layout).ok_or_else(|| {
            let names = NestedFormat::ALL.map(NestedFormat::name).join(", ");
            PyValueError::new_err(format!("no nested layout {layout:?}; there are {names}"))
        })?;
        let open = || P2m::nested(dump.inner.clone(), Mfn(mfn), format);
        Self::from_core(dump, detach(py, open)?)
    }

    /// The layout of its page tables; None if it is not one of Xen's.
    #[getter]
    fn nested_format(&self) -> Option<&'static str> {
        self.inner.nested_format().map(NestedFormat::name)
    }

    /// The mfns of its page tables that can be read, the first `limit` ones; empty if it has none.
    fn tables(&self, py: Python<'_>, limit: usize) -> PyResult<Vec<u64>> {
        self.gate.check()?;
        let found = detach(py, || self.inner.tables(limit))?;
        errors::probe(found.len(), LISTED_INT)?;
        Ok(found.into_iter().map(|mfn| mfn.0).collect())
    }

    /// The entries that a walk of its page tables reads for `pfn`, from the root: level (1 maps 4 KiB
    /// pages), machine address of the table, index in it, entry; and Xen's type of the page, as
    /// "ram_rw". No entries if it has no page tables, no type if there is no page.
    fn walk(&self, pfn: &Bound<'_, PyAny>) -> PyResult<(Vec<WalkTuple>, Option<&'static str>)> {
        self.gate.check()?;
        let mut levels = Vec::new();
        let Some(pfn) = errors::address(pfn)? else {
            return Ok((levels, None));
        };
        let kind = errors::catch(|| {
            self.inner.walk_nested(Pfn(pfn), |step| {
                levels.push((step.level, step.table.0, step.index, step.entry));
            })
        })?;
        Ok((levels, kind.map(P2mType::name)))
    }

    /// How it was found: "cr3", "list", "linear", "pvops-tree", "dump-core" or "nested".
    #[getter]
    fn source(&self) -> &'static str {
        self.inner.source().name()
    }

    /// Number of pfns.
    #[getter]
    fn pages(&self) -> u64 {
        self.inner.len()
    }

    /// The guest's word size in bytes.
    #[getter]
    fn word(&self) -> usize {
        self.inner.word().bytes()
    }

    /// The entry of `pfn`: its kind ("frame", "invalid", "foreign", "identity", "out of range", "no
    /// table"; of a translated guest also "grant", "mmio", "emulated", "populate on demand", "paged
    /// out", "broken") and its mfn, if it has one. Never raises MemoryFault.
    fn entry(&self, pfn: &Bound<'_, PyAny>) -> PyResult<EntryTuple> {
        self.gate.check()?;
        // A number outside 64 bits is past the end of any P2M, as is the maximum.
        let pfn = errors::address(pfn)?.unwrap_or(u64::MAX);
        Ok(tuple(errors::catch(|| self.inner.resolve(Pfn(pfn)))?))
    }

    /// The mfn of `pfn`, an int or a one-dimensional uint64 array.
    ///
    /// MemoryFault, with the reason, if the entry is not a frame of the domain. For an array: a uint64
    /// array of the mfns. `out` is an array to reuse. With `status`, a uint8 array, each element gets
    /// an index of STATUS (0 is success), and the result is 2**64 - 1 where there is no frame.
    /// `threads` limits the threads; by default long arrays use all.
    #[pyo3(signature = (pfn, *, out=None, status=None, threads=None))]
    fn resolve<'py>(
        &self,
        py: Python<'py>,
        pfn: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
        status: Option<&Bound<'py, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.gate.check()?;
        let options = Options {
            out,
            status,
            threads,
        };
        match Argument::new(pfn, "pfn", "pseudo-physical")? {
            Argument::One(number) => {
                options.reject()?;
                let number = number.ok_or_else(|| errors::outside(pfn, "pseudo-physical"))?;
                let pfn = Pfn(number);
                match errors::catch(|| self.inner.resolve(pfn))? {
                    Entry::Frame(mfn) => Ok(mfn.0.into_pyobject(py)?.into_any()),
                    Entry::Special(special) => {
                        Err(errors::memory(Fault::P2m { pfn, special }, None))
                    }
                }
            }
            Argument::Many(input) => bulk::map_with(
                py,
                &self.gate,
                &input,
                &options,
                |_| Batch::default(),
                Resolve(&self.inner),
                |pfn, place| match self.inner.resolve(pfn) {
                    Entry::Frame(_) => None,
                    Entry::Special(special) => {
                        Some(errors::memory(Fault::P2m { pfn, special }, Some(place)))
                    }
                },
            ),
        }
    }

    /// The lowest pfn whose frame is `mfn`, an int or a one-dimensional uint64 array. The first
    /// call reads the whole P2M.
    ///
    /// AbsentError if there is none. Arrays are as for resolve.
    #[pyo3(signature = (mfn, *, out=None, status=None, threads=None))]
    fn reverse<'py>(
        &self,
        py: Python<'py>,
        mfn: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
        status: Option<&Bound<'py, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.gate.check()?;
        let options = Options {
            out,
            status,
            threads,
        };
        match Argument::new(mfn, "mfn", "machine")? {
            Argument::One(number) => {
                options.reject()?;
                let mfn = number.ok_or_else(|| errors::outside(mfn, "machine"))?;
                let found = detach(py, || self.inner.reverse(Mfn(mfn)))?;
                let pfn = found.ok_or_else(|| not_a_frame(Mfn(mfn), ""))?;
                Ok(pfn.0.into_pyobject(py)?.into_any())
            }
            Argument::Many(input) => {
                detach(py, || self.inner.prepare_reverse())?;
                bulk::map(
                    py,
                    &self.gate,
                    &input,
                    &options,
                    |_| (),
                    |(), mfns: &[Mfn], out: &mut [Pfn], status| {
                        self.inner.reverse_many(mfns, out, status);
                    },
                    |mfn, place| match self.inner.reverse(mfn) {
                        Some(_) => None,
                        None => Some(not_a_frame(mfn, &format!("{place}: "))),
                    },
                )
            }
        }
    }

    /// The runs of pfns whose pages the dump holds as a whole, ascending: two 64-bit numbers each, the first
    /// pfn and the count. MemoryError if there are too many.
    fn held<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.gate.check()?;
        let runs = detach(py, || p2m::held(&self.inner))?;
        let runs = runs.ok_or_else(|| PyMemoryError::new_err("the pages have too many runs"))?;
        PyBytes::new_with(py, runs.len().saturating_mul(16), |buf| {
            for (row, (pfn, count)) in buf.as_chunks_mut().0.iter_mut().zip(&runs) {
                let row: &mut [u8; 16] = row;
                *row = (u128::from(*count) << 64 | u128::from(pfn.0)).to_le_bytes();
            }
            Ok(())
        })
    }

    /// Ascending (first, count) ranges of pfns whose P2M page is in the dump; each page once. Limited
    /// by the memory that the dump holds, not by `pages`.
    fn spans(&self, py: Python<'_>) -> PyResult<Vec<(u64, u64)>> {
        self.gate.check()?;
        let spans = detach(py, || self.inner.spans())?;
        errors::probe(spans.len(), LISTED_SPAN)?;
        Ok(spans
            .into_iter()
            .map(|(pfn, count)| (pfn.0, count))
            .collect())
    }

    /// (first, count, kind) of runs of pfns whose entries are of one kind, in at most `limit` runs from
    /// `first` to before `end`, and where to go on, None at the end.
    #[pyo3(signature = (first=0, end=None, *, limit=65536))]
    fn kinds(
        &self,
        py: Python<'_>,
        first: u64,
        end: Option<u64>,
        limit: usize,
    ) -> PyResult<(Vec<KindTuple>, Option<u64>)> {
        self.gate.check()?;
        let end = Pfn(end.unwrap_or(u64::MAX));
        let found = detach(py, || self.inner.kinds(Pfn(first), end, limit))?;
        errors::probe(found.runs.len(), LISTED_SPAN)?;
        let runs = found.runs.into_iter();
        let runs = runs.map(|run| (run.pfn.0, run.count, run.kind)).collect();
        Ok((runs, found.next.map(|next| next.0)))
    }

    /// Compares with another P2M of the same domain; lists at most `limit` disagreements.
    #[pyo3(signature = (other, limit=100))]
    fn compare(&self, py: Python<'_>, other: &P2M, limit: usize) -> PyResult<P2MComparison> {
        self.gate.check()?;
        let inner = detach(py, || self.inner.compare(&other.inner, limit))?;
        let inner = inner.map_err(|_| no_memory())?;
        Ok(P2MComparison { inner })
    }

    fn __repr__(&self) -> String {
        format!(
            "<P2M from {}: {} pages, {}-byte words>",
            self.source(),
            self.pages(),
            self.word()
        )
    }
}

/// The result of comparing two P2Ms, as counts of pfns.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct P2MComparison {
    inner: p2m::Comparison,
}

#[pymethods]
impl P2MComparison {
    /// The same in both.
    #[getter]
    fn equal(&self) -> u64 {
        self.inner.equal
    }

    /// Identity in one, invalid in the other: pvops kernels hide identity pages in the frame-list
    /// tree.
    #[getter]
    fn hidden_identity(&self) -> u64 {
        self.inner.hidden_identity
    }

    /// Past the end of one of the P2Ms.
    #[getter]
    fn past_end(&self) -> u64 {
        self.inner.past_end
    }

    /// Unreadable in one of the P2Ms, or beyond the limit on comparisons.
    #[getter]
    fn unreadable(&self) -> u64 {
        self.inner.unreadable
    }

    /// Different otherwise.
    #[getter]
    fn different(&self) -> u64 {
        self.inner.different
    }

    /// The first unreadable or different entries: the pfn and both entries.
    #[getter]
    fn first<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        errors::probe(self.inner.first.len(), LISTED_SIZE)?;
        let first = self.inner.first.iter();
        PyList::new(py, first.map(|d| (d.pfn.0, tuple(d.ours), tuple(d.theirs))))
    }

    fn __repr__(&self) -> String {
        let c = &self.inner;
        format!(
            "<P2MComparison: {} equal, {} hidden identity, {} past the end, {} unreadable, {} different>",
            c.equal, c.hidden_identity, c.past_end, c.unreadable, c.different
        )
    }
}
