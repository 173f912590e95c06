//! `AddressSpace`.

use std::ffi::CString;
use std::sync::Arc;

use pyo3::exceptions::{
    PyMemoryError, PyOverflowError, PyRuntimeWarning, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use xenkdump::addr::{MachineAddr, VirtAddr};
use xenkdump::memory::Fault;
use xenkdump::p2m::{P2m, Physical};
use xenkdump::paging::{self, Format, Virtual};
use xenkdump::space::{Batch, Found, Pieces, Space, Tables};

use crate::arrays;
use crate::buffers::Bytes;
use crate::bulk::{self, Argument, Options};
use crate::errors;
use crate::fork::detach;
use crate::gate::Gate;
use crate::handle::{CoreDump, Dump};
use crate::mapping::{MappedRanges, Mapping};
use crate::paths;
use crate::read;
use crate::search::{self, SearchResult};
use crate::struct_arrays;
use crate::structs;

/// Reads of at least this many bytes release the GIL.
const DETACH: usize = 16 << 10;
/// Bytes of a search after which mapped pages of the file are given back.
const PIECE: u64 = 32 << 20;
/// Longer reads are checked before memory is allocated for them.
const CHECK: usize = 64 << 20;

/// Memory under one kind of address.
///
/// Addresses are ints, sizes are bytes, numbers are little-endian. Unreadable memory raises
/// MemoryFault, and so does an int outside 64 bits. Can be shared between threads.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct AddressSpace {
    inner: Space<CoreDump>,
    dump: CoreDump,
    gate: Gate,
}

impl AddressSpace {
    fn new(dump: &Dump, inner: Space<CoreDump>) -> Self {
        Self {
            inner,
            dump: dump.inner.clone(),
            gate: dump.gate.inner(),
        }
    }

    /// The machine memory of `dump`.
    pub fn machine(dump: &Dump) -> Self {
        Self::new(dump, Space::Machine(dump.inner.clone()))
    }

    /// The pseudo-physical memory of a domain or, without a P2M, of a host without Xen.
    pub fn physical(dump: &Dump, p2m: Option<Arc<P2m<CoreDump>>>) -> Self {
        let physical = p2m.map_or_else(|| Physical::Bare(dump.inner.clone()), Physical::P2m);
        Self::new(dump, Space::Physical(physical))
    }

    /// The virtual memory of the page tables at `root` (a cr3) of layout `paging`, whose entries have
    /// the bit `encryption_mask`; by default the one in the dump's VMCOREINFO. With `p2m` the tables
    /// are in the memory of a translated guest, and hold its physical addresses.
    pub fn virtual_memory(
        dump: &Dump,
        root: u64,
        paging: &str,
        encryption_mask: Option<u64>,
        p2m: Option<Arc<P2m<CoreDump>>>,
    ) -> PyResult<Self> {
        let format = Format::by_name(paging).ok_or_else(|| {
            let names = Format::ALL.map(|format| format.name).join(", ");
            PyValueError::new_err(format!("no paging layout {paging:?}; there are {names}"))
        })?;
        // The note is not about a guest.
        let noted = if p2m.is_some() {
            0
        } else {
            errors::catch(|| dump.inner.encryption_mask())?
        };
        let mask = encryption_mask.unwrap_or(noted);
        let format = match format.with_encryption(mask) {
            Some(format) => format,
            None if mask == 0 || encryption_mask.is_none() => *format,
            None => {
                let text =
                    format!("encryption_mask: {mask:#x} is no single address bit of {paging}");
                return Err(PyValueError::new_err(text));
            }
        };
        let tables = p2m.map_or_else(|| Tables::Machine(dump.inner.clone()), Tables::Guest);
        let space = Virtual::new(tables, &format, MachineAddr(root));
        Ok(Self::new(dump, Space::Virtual(space)))
    }

    /// The space; ValueError if it is closed.
    #[inline]
    fn open(&self) -> PyResult<&Space<CoreDump>> {
        self.gate.check()?;
        Ok(&self.inner)
    }

    /// The virtual space; TypeError for another kind.
    pub fn as_virtual(&self) -> PyResult<&Virtual<Tables<CoreDump>>> {
        match &self.inner {
            Space::Virtual(space) => Ok(space),
            other => Err(PyTypeError::new_err(format!(
                "a virtual address space is needed, not a {} one",
                other.kind()
            ))),
        }
    }

    /// See `Dump::count_reads` of the core.
    pub fn count_reads(&self, count: usize) {
        self.dump.count_reads(count);
    }

    /// Checks a long read before memory is allocated for it.
    fn check(&self, py: Python<'_>, address: u64, size: usize) -> PyResult<()> {
        if size > CHECK {
            detach(py, || self.inner.check(address, size as u64))?.map_err(fault)?;
        }
        Ok(())
    }

    /// An address argument; MemoryFault for a number outside 64 bits.
    #[inline]
    fn address(&self, address: &Bound<'_, PyAny>) -> PyResult<u64> {
        errors::address(address)?.ok_or_else(|| errors::outside(address, self.inner.kind()))
    }

    fn found(
        &self,
        py: Python<'_>,
        needle: &[u8],
        (start, end): (u64, u128),
        limit: usize,
        most: u64,
        pieces: Option<u64>,
    ) -> PyResult<Found> {
        let space = self.open()?;
        let Some(last) = last_before(end, start)? else {
            return Ok(Found::default());
        };
        // A long needle must be within a piece, so that the search proceeds.
        let piece = pieces.unwrap_or_else(|| PIECE.max((needle.len() as u64).saturating_mul(2)));
        let mut search = Pieces::new(needle, (start, last), limit, (most, piece));
        while detach(py, || search.advance(space))?
            .ok_or_else(|| PyTypeError::new_err("a domain's frames cannot be searched in order"))?
            .map_err(|_| PyMemoryError::new_err("limit: no memory for so many addresses"))?
        {
            if pieces.is_some() {
                self.dump.release();
            }
            py.check_signals()?; // terabytes take minutes
        }
        Ok(search.found)
    }

    fn number<const N: usize>(&self, address: &Bound<'_, PyAny>) -> PyResult<[u8; N]> {
        let mut bytes = [0; N];
        let space = self.open()?;
        let address = self.address(address)?;
        errors::catch(|| space.read(address, &mut bytes))?.map_err(fault)?;
        Ok(bytes)
    }
}

/// The last address in `start..end`; None if the range is empty.
fn last_before(end: u128, start: u64) -> PyResult<Option<u64>> {
    let Some(last) = end.checked_sub(1) else {
        return Ok(None);
    };
    let last =
        u64::try_from(last).map_err(|_| PyOverflowError::new_err("end: it is more than 2**64"))?;
    Ok((start <= last).then_some(last))
}

fn fault(fault: Fault) -> PyErr {
    errors::memory(fault, None)
}

#[pymethods]
impl AddressSpace {
    /// Its kind of address: "machine", "pseudo-physical" or "virtual".
    #[getter]
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    /// The layout of the page tables; None unless the space is virtual.
    #[getter]
    fn paging(&self) -> Option<&'static str> {
        self.as_virtual().ok().map(|space| space.format().name)
    }

    /// Address of the top page table: a machine address, or of a translated guest its physical one.
    /// None if there is none.
    #[getter]
    fn root(&self) -> Option<u64> {
        self.as_virtual().ok().map(|space| space.root().0)
    }

    /// The `size` bytes at `address`.
    fn read<'py>(
        &self,
        py: Python<'py>,
        address: &Bound<'py, PyAny>,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let space = self.open()?;
        let address = self.address(address)?;
        self.check(py, address, size)?;
        PyBytes::new_with(py, size, |buf| {
            let read = if size < DETACH {
                errors::catch(|| space.read(address, buf))
            } else {
                detach(py, || space.read(address, buf))
            };
            read?.map_err(fault)
        })
    }

    /// The byte at `address`.
    fn u8(&self, address: &Bound<'_, PyAny>) -> PyResult<u8> {
        self.number(address).map(u8::from_le_bytes)
    }

    /// The 16-bit number at `address`.
    fn u16(&self, address: &Bound<'_, PyAny>) -> PyResult<u16> {
        self.number(address).map(u16::from_le_bytes)
    }

    /// The 32-bit number at `address`.
    fn u32(&self, address: &Bound<'_, PyAny>) -> PyResult<u32> {
        self.number(address).map(u32::from_le_bytes)
    }

    /// The 64-bit number at `address`.
    fn u64(&self, address: &Bound<'_, PyAny>) -> PyResult<u64> {
        self.number(address).map(u64::from_le_bytes)
    }

    /// The number of `size` bytes (1, 2, 4 or 8) at `address`.
    fn word(&self, address: &Bound<'_, PyAny>, size: usize) -> PyResult<u64> {
        match size {
            1 => self.u8(address).map(u64::from),
            2 => self.u16(address).map(u64::from),
            4 => self.u32(address).map(u64::from),
            8 => self.u64(address),
            _ => Err(PyValueError::new_err(format!(
                "a word has 1, 2, 4 or 8 bytes, not {size}"
            ))),
        }
    }

    /// The bytes at `address` up to the first NUL, or `limit` bytes if there is none. Raises
    /// MemoryFault only if a byte before that is missing.
    #[pyo3(signature = (address, limit=4096))]
    fn cstring<'py>(
        &self,
        py: Python<'py>,
        address: &Bound<'py, PyAny>,
        limit: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let space = self.open()?;
        let address = self.address(address)?;
        let text = errors::catch(|| space.cstring(address, limit))?.map_err(fault)?;
        PyBytes::new_with(py, text.len(), |buf| {
            buf.copy_from_slice(&text);
            Ok(())
        })
    }

    /// Fills `buffer`, any writable contiguous one, with the bytes at `address`; returns its size in
    /// bytes. Long reads use `threads` threads, by default all. If MemoryFault is raised, parts of the
    /// buffer may have been written.
    #[pyo3(signature = (address, buffer, *, threads=None))]
    fn readinto(
        &self,
        py: Python<'_>,
        address: &Bound<'_, PyAny>,
        buffer: &Bound<'_, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<usize> {
        let address = self.address(address)?;
        let bytes = Bytes::writable(buffer, "buffer")?;
        read::fill(py, self.open()?, &self.gate, address, &bytes, threads)?;
        Ok(bytes.len())
    }

    /// A new numpy array of `count` elements of `dtype`, with the bytes at `address`. The dump is
    /// little-endian; so should the dtype be.
    #[pyo3(signature = (address, dtype, count, *, threads=None))]
    fn read_array<'py>(
        &self,
        py: Python<'py>,
        address: &Bound<'py, PyAny>,
        dtype: &Bound<'py, PyAny>,
        count: usize,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let address = self.address(address)?;
        let dtype = py.import("numpy")?.call_method1("dtype", (dtype,))?;
        let size: usize = dtype.getattr("itemsize")?.extract()?;
        self.open()?;
        let total = size
            .checked_mul(count)
            .ok_or_else(|| PyOverflowError::new_err("count: the array is larger than memory"))?;
        self.check(py, address, total)?;
        let array = arrays::empty(py, (count,), dtype)?;
        let bytes = Bytes::writable(&array, "dtype")?;
        read::fill(py, self.open()?, &self.gate, address, &bytes, threads)?;
        Ok(array)
    }

    /// Reads `size` bytes at each of `addresses`, a one-dimensional uint64 array. Returns a uint8
    /// array of shape (len(addresses), size).
    ///
    /// `out` is such an array to reuse. With `status`, a uint8 array as long as `addresses`, each
    /// element gets an index of STATUS (0 is success), and rows that cannot be read are zeros; without
    /// it the first such row raises MemoryFault.
    #[pyo3(signature = (addresses, size, *, out=None, status=None, threads=None))]
    fn read_many<'py>(
        &self,
        py: Python<'py>,
        addresses: &Bound<'py, PyAny>,
        size: usize,
        out: Option<&Bound<'py, PyAny>>,
        status: Option<&Bound<'py, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let input = bulk::addresses(addresses, "addresses", self.inner.kind())?;
        let options = Options {
            out,
            status,
            threads,
        };
        read::many(py, self.open()?, &self.gate, &input, size, &options)
    }

    /// Reads members of the struct at each of `addresses`, each page of a struct once. Returns a numpy
    /// structured array with a field for each member, one after another.
    ///
    /// `members` is a sequence of (name, offset, dtype), a mapping of names to (offset, dtype), or a dtype
    /// whose fields have offsets, such as `Kernel.struct_dtype`. Instead of a dtype it may be a size in
    /// bytes: 1, 2, 4 and 8 are unsigned little-endian numbers, others opaque bytes. `out`, `status` and
    /// `threads` are those of `read_many`; the element of a struct with an unreadable member is zeros.
    #[pyo3(signature = (addresses, members, *, out=None, status=None, threads=None))]
    fn read_struct_many<'py>(
        &self,
        py: Python<'py>,
        addresses: &Bound<'py, PyAny>,
        members: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
        status: Option<&Bound<'py, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let input = bulk::addresses(addresses, "addresses", self.inner.kind())?;
        let options = Options {
            out,
            status,
            threads,
        };
        struct_arrays::many(py, (self.open()?, &self.gate), &input, members, &options)
    }

    /// Reads members of many structs. For each `(offset, size)` in `members`, returns a list of its
    /// values in the structs at the addresses `structs`. Members of 1, 2, 4 or 8 bytes are unsigned
    /// numbers, others are bytes. Unreadable ones are None.
    fn read_members<'py>(
        &self,
        py: Python<'py>,
        structs: &Bound<'py, PyAny>,
        members: Vec<(u64, usize)>,
    ) -> PyResult<Vec<Bound<'py, PyList>>> {
        let found = structs::members(py, self.open()?, structs, &members)?;
        self.dump.count_reads(structs.len().unwrap_or(0));
        Ok(found)
    }

    /// The bytes at each of `addresses`, as many as `sizes` has for it; None where they cannot be read.
    fn read_each<'py>(
        &self,
        py: Python<'py>,
        addresses: &Bound<'py, PyAny>,
        sizes: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let found = structs::each(py, self.open()?, addresses, sizes)?;
        self.dump.count_reads(found.len());
        Ok(found)
    }

    /// The pointers in the arrays at `addresses`, of `counts` elements of `word` bytes, that are not NULL:
    /// how many each array has, None for one that cannot be read; then of all arrays their indices, and
    /// they, without the bits `flags`.
    #[pyo3(signature = (addresses, counts, word, *, flags=0))]
    fn pointers(
        &self,
        py: Python<'_>,
        addresses: &Bound<'_, PyAny>,
        counts: &Bound<'_, PyAny>,
        word: usize,
        flags: u64,
    ) -> PyResult<structs::Pointers> {
        structs::pointers(py, self.open()?, addresses, counts, word, flags)
    }

    /// The paths of `nodes` in the `trees` at the same positions: names joined by "/", from the node up to
    /// the root of all trees. Without a tree (None) it is the name of the node.
    ///
    /// `node` is where the struct of a node has the pointer to its parent, the pointer to its name, and the
    /// length of the name, with its size. `tree` is which part of the struct of a tree its address
    /// belongs to, and where the struct has pointers to the struct that it is mounted in, to the node
    /// that it is mounted on, and to its root. At the top a struct leads to itself. `word` is the size of a
    /// pointer. `limits` are the nodes and trees above each other, those of all paths, the bytes of all
    /// paths, and the nodes and trees that all paths lead through.
    fn paths<'py>(
        &self,
        nodes: &Bound<'py, PyAny>,
        trees: &Bound<'py, PyAny>,
        word: usize,
        node: paths::Node,
        tree: paths::Tree,
        limits: paths::Limits,
    ) -> PyResult<paths::Found<'py>> {
        paths::paths(self.open()?, (nodes, trees), (word, node, tree), limits)
    }

    /// The nodes of the kernel's linked lists with these `heads`. `links` is "circular" or
    /// "backward" for list_head, "null-terminated" for hlist_head; `word` is the size of a pointer.
    ///
    /// Returns for each list its nodes, how the walk ended, and an address: "complete", None; "loop",
    /// the node that was reached twice; "shared", the node that an earlier list also has; "limit", the
    /// first node beyond `limit` nodes in all lists; "unreadable", the node whose link cannot be read.
    #[pyo3(signature = (heads, word, *, links="circular", limit))]
    fn lists(
        &self,
        py: Python<'_>,
        heads: &Bound<'_, PyAny>,
        word: usize,
        links: &str,
        limit: usize,
    ) -> PyResult<Vec<structs::Walked>> {
        structs::lists(py, self.open()?, &self.dump, heads, word, links, limit)
    }

    /// The machine address of `address`, an int or a one-dimensional uint64 array.
    ///
    /// For an array: a uint64 array of the results. `out` is an array to reuse. With `status`, a uint8
    /// array, each element gets an index of STATUS (0 is success), and the result is 2**64 - 1 where
    /// there is none; without it the first such element raises MemoryFault. `threads` limits the
    /// threads; by default long arrays use all.
    #[pyo3(signature = (address, *, out=None, status=None, threads=None))]
    fn translate<'py>(
        &self,
        py: Python<'py>,
        address: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
        status: Option<&Bound<'py, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let space = self.open()?;
        let options = Options {
            out,
            status,
            threads,
        };
        match Argument::new(address, "address", space.kind())? {
            Argument::One(number) => {
                options.reject()?;
                let number = number.ok_or_else(|| errors::outside(address, space.kind()))?;
                let machine = errors::catch(|| space.translate(number))?.map_err(fault)?;
                Ok(machine.0.into_pyobject(py)?.into_any())
            }
            Argument::Many(input) => bulk::map(
                py,
                &self.gate,
                &input,
                &options,
                |expected| Batch::new(space, expected),
                |batch: &mut Batch<'_, CoreDump>, addrs: &[u64], out, status| {
                    batch.translate(addrs, out, status);
                },
                |address, place| {
                    let fault = space.translate(address).err()?;
                    Some(errors::memory(fault, Some(place)))
                },
            ),
        }
    }

    /// The mapped ranges in `start..end`, in ascending order, found on demand. For machine memory,
    /// these are the runs that the dump holds; for pseudo-physical memory, the domain's frames.
    #[pyo3(signature = (start=0, end=None))]
    fn iter_mapped(&self, start: u64, end: Option<u128>) -> PyResult<MappedRanges> {
        let Some(last) = last_before(end.unwrap_or(1 << 64), start)? else {
            return Ok(MappedRanges::none(&self.gate));
        };
        let space = self.open()?;
        Ok(MappedRanges::new(
            space, &self.dump, &self.gate, start, last,
        ))
    }

    /// How `address` is mapped, with every level. TypeError unless the space is virtual.
    ///
    /// The MemoryFault for an unmapped address also has `levels`: the entries that were read.
    fn mapping(&self, py: Python<'_>, address: &Bound<'_, PyAny>) -> PyResult<Mapping> {
        self.open()?;
        let address = self.address(address)?;
        let space = self.as_virtual()?;
        let mut levels = Vec::new();
        let walked = errors::catch(|| {
            paging::walk_steps(
                space.memory(),
                space.format(),
                space.root(),
                VirtAddr(address),
                |step| levels.push((step.level, step.table.0, step.index, step.entry)),
            )
        })?;
        match walked {
            Ok(inner) => match space.memory().machine(inner.machine) {
                Ok(machine) => {
                    let physical = space.memory().p2m().map(|_| inner.machine);
                    Ok(Mapping::new(inner, levels, machine, physical))
                }
                Err(error) => {
                    let error = fault(error);
                    let value = error.value(py);
                    value.setattr("levels", levels)?;
                    Err(error)
                }
            },
            Err(error) => {
                let error = fault(error);
                error.value(py).setattr("levels", levels)?;
                Err(error)
            }
        }
    }

    /// The ascending addresses of `needle` in `start..end`: at most `limit`, found in the first `most`
    /// bytes of memory. RuntimeWarning if the search stopped after `most` bytes. TypeError
    /// for a domain's pseudo-physical space, whose frames are not in order.
    #[pyo3(signature = (needle, start, end, *, limit=64, most=1 << 30))]
    fn find<'py>(
        &self,
        py: Python<'py>,
        needle: &[u8],
        start: u64,
        end: u128,
        limit: usize,
        most: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let found = self.found(py, needle, (start, end), limit, most, None)?;
        if let Some(next) = found.next.filter(|_| found.places.len() < limit) {
            let text = format!("find() stopped at {next:#x}, after {most} bytes of memory");
            let text = CString::new(text).unwrap_or_default();
            PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)?;
        }
        search::list(py, &found.places)
    }

    /// Like `find`, but also returns the number of bytes searched and the address to continue from.
    /// For a search of several spaces with one limit, and of much memory: memory that only caches
    /// bytes of the file is given back, as by `Dump.release`, after every 32 MiB.
    #[pyo3(signature = (needle, start, end, *, limit=64, most=1 << 30))]
    fn search(
        &self,
        py: Python<'_>,
        needle: &[u8],
        start: u64,
        end: u128,
        limit: usize,
        most: u64,
    ) -> PyResult<SearchResult> {
        let found = self.found(py, needle, (start, end), limit, most, Some(PIECE))?;
        Ok(SearchResult::new(found))
    }

    /// Closes the space. Every later use raises ValueError, and batches in other threads stop.
    fn close(&self) {
        self.gate.close();
    }

    fn __repr__(&self) -> String {
        match &self.inner {
            Space::Virtual(space) => format!(
                "<AddressSpace virtual: {} root {}>",
                space.format().name,
                space.root()
            ),
            other => format!("<AddressSpace {}>", other.kind()),
        }
    }
}
