//! Batches of addresses of a space.

use super::held::{HeldPages, LONGEST_HELD_ROW};
use super::{Space, Tables};
use crate::addr::{Address, MachineAddr, Mfn, PseudoPhysAddr, VirtAddr, PAGE_SHIFT, PAGE_SIZE};
use crate::file::{part, prefetched};
use crate::memory::{Fault, Memory};
use crate::p2m::{P2m, Physical};
use crate::paging::Translator;
use crate::status::{Status, NONE};
use crate::window::Window;

/// The number of addresses that are translated together.
pub(super) const CHUNK: usize = 256;
/// Bytes of a long read that are decoded at once; they stay in the first-level cache until they are
/// copied.
const DECODED: usize = 16 << 10;

/// The destination of [`Batch::read_rows`].
pub trait Rows {
    /// Copies `bytes` into a row at offset `at`; the excess belongs to the following rows.
    fn put(&mut self, row: usize, at: usize, bytes: &[u8]);

    /// Copies the `N` bytes at offset `from` of each of `found` into the rows from number `first` on, at
    /// offset `at`. Does not change the rows of those that are shorter.
    #[inline]
    fn put_each<const N: usize>(
        &mut self,
        (first, at): (usize, usize),
        found: &[&[u8]],
        from: usize,
    ) {
        for (row, bytes) in (first..).zip(prefetched(found, from, N)) {
            let bytes = bytes.get(from..).and_then(<[u8]>::first_chunk::<N>);
            if let Some(bytes) = bytes {
                self.put(row, at, bytes);
            }
        }
    }

    /// Clears a row that could not be read, parts of which may have been copied.
    fn clear(&mut self, row: usize);
}

/// The destination of a long read.
trait Sink {
    /// Takes bytes, at their offset in the read.
    fn put(&mut self, at: usize, bytes: &[u8]);

    /// Where these bytes go, if pages may be decoded into it. Whatever is written to it may be replaced.
    fn room(&mut self, _at: usize, _len: usize) -> Option<&mut [u8]> {
        None
    }
}

/// Calls a function with each piece.
struct Each<F>(F);

impl<F: FnMut(usize, &[u8])> Sink for Each<F> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        (self.0)(at, bytes);
    }
}

/// Fills a buffer.
struct Fill<'b>(&'b mut [u8]);

impl Sink for Fill<'_> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let room = self.room(at, bytes.len()).unwrap_or_default();
        let size = part(bytes.len());
        for (to, from) in room.chunks_mut(size).zip(bytes.chunks(size)) {
            to.copy_from_slice(from);
        }
    }

    fn room(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        self.0.get_mut(at..)?.get_mut(..len)
    }
}

/// Translates and reads batches of addresses in one thread.
pub struct Batch<'s, M> {
    pub(super) space: &'s Space<M>,
    method: Method<'s, M>,
    pub(super) window: Window<'s, MachineAddr>,
    /// For long reads of memory that cannot be borrowed.
    decoded: Vec<u8>,
    /// For small rows of memory that is decoded by page.
    held: Option<HeldPages>,
}

enum Method<'s, M> {
    /// Addresses are machine addresses.
    Identity,
    P2m(&'s P2m<M>),
    /// With the P2M of a translated guest, whose tables hold its physical addresses.
    PageTables(Box<Translator<'s, Tables<M>>>, Option<&'s P2m<M>>),
}

impl<'s, M: Memory<MachineAddr> + Send> Batch<'s, M> {
    /// For about `expected` addresses.
    pub fn new(space: &'s Space<M>, expected: usize) -> Self {
        let method = match space {
            Space::Machine(_) | Space::Physical(Physical::Bare(_)) => Method::Identity,
            Space::Physical(Physical::P2m(p2m)) => Method::P2m(p2m),
            Space::Virtual(space) => Method::PageTables(
                Box::new(Translator::new(space, expected)),
                space.memory().p2m().map(|p2m| &**p2m),
            ),
        };
        Self {
            space,
            method,
            window: Window::default(),
            decoded: Vec::new(),
            held: None,
        }
    }

    /// The machine address of each address, or [`NONE`], with its status. Elements past the shortest
    /// of the three slices are not touched.
    pub fn translate(&mut self, addrs: &[u64], out: &mut [MachineAddr], status: &mut [Status]) {
        let chunks = addrs
            .chunks(CHUNK)
            .zip(out.chunks_mut(CHUNK))
            .zip(status.chunks_mut(CHUNK));
        for ((addrs, out), status) in chunks {
            self.chunk(addrs, out, status);
        }
    }

    /// Translates at most [`CHUNK`] addresses.
    #[inline]
    pub(super) fn chunk(&mut self, addrs: &[u64], out: &mut [MachineAddr], status: &mut [Status]) {
        match &mut self.method {
            Method::Identity => {
                for ((addr, out), status) in addrs.iter().zip(out).zip(status) {
                    (*out, *status) = (MachineAddr(*addr), Status::Ok);
                }
            }
            Method::P2m(p2m) => {
                let mut pfns = [PseudoPhysAddr(0).frame(); CHUNK];
                let mut mfns = [Mfn(0); CHUNK];
                for (pfn, addr) in pfns.iter_mut().zip(addrs) {
                    *pfn = PseudoPhysAddr(*addr).frame();
                }
                let pfns = pfns.get(..addrs.len()).unwrap_or_default();
                p2m.resolve_many(pfns, &mut mfns, status);
                for ((addr, mfn), out) in addrs.iter().zip(mfns).zip(out) {
                    // Frames are below 2^52, so only NONE stays NONE.
                    *out = MachineAddr(if mfn.0 == NONE {
                        NONE
                    } else {
                        (mfn.0 << PAGE_SHIFT) | (addr & (PAGE_SIZE as u64 - 1))
                    });
                }
            }
            Method::PageTables(translator, p2m) => {
                let mut virt = [VirtAddr(0); CHUNK];
                for (virt, addr) in virt.iter_mut().zip(addrs) {
                    *virt = VirtAddr(*addr);
                }
                let virt = virt.get(..addrs.len()).unwrap_or_default();
                translator.translate(virt, out, status);
                if let Some(p2m) = p2m {
                    to_machine(p2m, out, status);
                }
            }
        }
    }

    /// Reads `size` bytes at each address into the rows from number `first` on. Rows with an
    /// unreadable byte are cleared, and their status is the reason.
    pub fn read_rows(
        &mut self,
        addrs: &[u64],
        size: usize,
        first: usize,
        rows: &mut impl Rows,
        status: &mut [Status],
    ) {
        if size == 0 {
            // Empty rows can always be read, as with single reads.
            status.fill(Status::Ok);
            return;
        }
        if are_adjacent(addrs, size) && self.read_run(addrs, size, first, rows).is_some() {
            status.fill(Status::Ok);
            return;
        }
        let chunks = addrs.chunks(CHUNK).zip(status.chunks_mut(CHUNK));
        for ((addrs, status), first) in chunks.zip((first..).step_by(CHUNK)) {
            self.checked(|this| this.read_chunk(addrs, size, first, rows, status));
        }
    }

    /// Reads adjacent rows at once; `None` if any of them cannot be read.
    fn read_run(
        &mut self,
        addrs: &[u64],
        size: usize,
        first: usize,
        rows: &mut impl Rows,
    ) -> Option<()> {
        let start = *addrs.first()?;
        let len = addrs.len().checked_mul(size)?;
        self.pieces(start, len, |at, bytes| rows.put(first, at, bytes))
            .ok()
    }

    fn read_chunk(
        &mut self,
        addrs: &[u64],
        size: usize,
        first: usize,
        rows: &mut impl Rows,
        status: &mut [Status],
    ) {
        let mut machine = [MachineAddr(0); CHUNK];
        self.chunk(addrs, &mut machine, status);
        if size <= LONGEST_HELD_ROW && self.space.memory().pages_kept() > 0 {
            self.read_held((addrs, &machine), size, first, rows, status);
            return;
        }
        let mut found: [&[u8]; CHUNK] = [&[]; CHUNK];
        let whole = self.locate(&machine, status, size, &mut found);
        let found = found.get(..addrs.len()).unwrap_or_default();
        put_all(rows, (first, 0), found, 0, size);
        if whole {
            return;
        }
        let mut copied = [0; CHUNK];
        let mut count = 0;
        for (i, (found, status)) in found.iter().zip(status.iter()).enumerate() {
            if *status != Status::Ok {
                rows.clear(first + i);
            } else if found.is_empty() {
                if let Some(slot) = copied.get_mut(count) {
                    *slot = i;
                    count += 1;
                }
            }
        }
        if count > 0 {
            let copied = copied.get_mut(..count).unwrap_or_default();
            self.copy_rows((addrs, &machine), copied, size, first, rows, status);
        }
    }

    /// Reads a chunk of rows of memory that is decoded by page.
    fn read_held(
        &mut self,
        (addrs, machine): (&[u64], &[MachineAddr; CHUNK]),
        size: usize,
        first: usize,
        rows: &mut impl Rows,
        status: &mut [Status],
    ) {
        let held = self.held.get_or_insert_default();
        let mut numbers = [0; CHUNK];
        // Find all pages, then copy: in a loop that does not wait for the bytes, cache misses overlap.
        let within = machine.get(..addrs.len()).unwrap_or_default();
        held.look_up(self.space.memory(), within, status, size, &mut numbers);
        let mut others = [0; CHUNK];
        let mut count = 0;
        for (i, ((machine, number), status)) in within.iter().zip(numbers).zip(&*status).enumerate()
        {
            if let Some(bytes) = held.bytes(number, *machine, size) {
                rows.put(first + i, 0, bytes);
            } else if *status != Status::Ok {
                rows.clear(first + i);
            } else if let Some(slot) = others.get_mut(count) {
                *slot = i;
                count += 1;
            }
        }
        if count > 0 {
            let others = others.get_mut(..count).unwrap_or_default();
            self.copy_rows((addrs, machine), others, size, first, rows, status);
        }
    }

    /// Borrows `size` bytes, not 0, at each machine address with a status of success, unless they go on
    /// in another page of the space. False if any of `found` is left empty.
    #[inline]
    pub(super) fn locate(
        &mut self,
        machine: &[MachineAddr; CHUNK],
        status: &[Status],
        size: usize,
        found: &mut [&'s [u8]; CHUNK],
    ) -> bool {
        let Some(last) = PAGE_SIZE.checked_sub(size) else {
            return false;
        };
        let space: &'s Space<M> = self.space;
        let memory = space.memory();
        let mut whole = true;
        // The last frame that could not be borrowed.
        let mut unborrowed = None;
        for ((machine, status), found) in machine.iter().zip(status).zip(found) {
            if machine.page_offset() <= last && *status == Status::Ok {
                *found = match self.window.known(*machine, size) {
                    Some(bytes) => bytes,
                    None if unborrowed == Some(machine.frame()) => &[],
                    None => {
                        let borrowed = self.window.borrow(memory, *machine, size);
                        unborrowed = borrowed.is_none().then_some(machine.frame());
                        borrowed.unwrap_or_default()
                    }
                };
            }
            whole &= !found.is_empty();
        }
        whole
    }

    /// Reads the rows of a chunk that cannot be borrowed, given by their indices, by ascending frame. Rows
    /// of one page are read at once, so that the page is looked up and decoded once.
    #[cold]
    fn copy_rows(
        &self,
        (addrs, machine): (&[u64], &[MachineAddr; CHUNK]),
        indices: &mut [usize],
        size: usize,
        first: usize,
        rows: &mut impl Rows,
        status: &mut [Status],
    ) {
        let at = |i: &usize| machine.get(*i).copied().unwrap_or(MachineAddr(NONE));
        let frame = |i: &usize| at(i).frame();
        if !indices.is_sorted_by_key(frame) {
            indices.sort_unstable_by_key(frame);
        }
        let mut page = [0; PAGE_SIZE];
        for group in indices.chunk_by(|a, b| frame(a) == frame(b)) {
            if self.copy_group(group, at, size, first, rows, &mut page) {
                continue;
            }
            // Read one by one: some rows succeed, and the others get their own reasons.
            for &i in group {
                let (Some(addr), Some(status)) = (addrs.get(i), status.get_mut(i)) else {
                    continue;
                };
                let row = first + i;
                let result = match page.get_mut(..size) {
                    Some(bytes) if size <= PAGE_SIZE - VirtAddr(*addr).page_offset() => {
                        let read = self.space.memory().read(at(&i), bytes);
                        read.map(|()| rows.put(row, 0, bytes))
                    }
                    _ => self
                        .space
                        .pieces(*addr, size, |at, bytes| rows.put(row, at, bytes)),
                };
                if let Err(fault) = result {
                    *status = fault.into();
                    rows.clear(row);
                }
            }
        }
    }

    /// Reads several rows of one page at once; false if there is one only or if that is not possible.
    #[inline]
    fn copy_group(
        &self,
        group: &[usize],
        at: impl Fn(&usize) -> MachineAddr,
        size: usize,
        first: usize,
        rows: &mut impl Rows,
        page: &mut [u8; PAGE_SIZE],
    ) -> bool {
        let [any, _, ..] = group else {
            return false;
        };
        let (start, last) = group
            .iter()
            .map(&at)
            .fold((at(any), at(any)), |(low, high), at| {
                (low.min(at), high.max(at))
            });
        let end = last.page_offset().saturating_add(size);
        // Otherwise the last row continues in the next page of the space, whose frame may be anywhere.
        let Some(bytes) = (end <= PAGE_SIZE)
            .then(|| page.get_mut(..end - start.page_offset()))
            .flatten()
        else {
            return false;
        };
        if self.space.memory().read(start, bytes).is_err() {
            return false;
        }
        for i in group {
            let from = at(i).page_offset() - start.page_offset();
            if let Some(bytes) = bytes.get(from..).and_then(|rest| rest.get(..size)) {
                rows.put(first + i, 0, bytes);
            }
        }
        true
    }

    /// Calls `work`. Repeats it if borrowed memory was invalidated meanwhile: the second call does not
    /// borrow.
    pub(super) fn checked<T>(&mut self, mut work: impl FnMut(&mut Self) -> T) -> T {
        let before = self.space.memory().is_intact();
        if !before {
            self.window = Window::default();
        }
        let done = work(self);
        if before && !self.space.memory().is_intact() {
            self.window = Window::default();
            return work(self);
        }
        done
    }

    /// Calls `f` with all of the `len` bytes at `addr` in pieces and in order, each with its offset
    /// from `addr`. Starts again from the first piece if borrowed memory was invalidated meanwhile.
    pub fn pieces(
        &mut self,
        addr: u64,
        len: usize,
        f: impl FnMut(usize, &[u8]),
    ) -> Result<(), Fault> {
        let mut sink = Each(f);
        self.checked(|this| this.borrowed_pieces(addr, len, &mut sink))
    }

    /// Fills `buf` with the bytes at `addr`, as [`Batch::pieces`] does. Pages that have to be decoded are
    /// decoded into it. If it fails, parts of the buffer may have been written.
    pub fn fill(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let (len, mut sink) = (buf.len(), Fill(buf));
        self.checked(|this| this.borrowed_pieces(addr, len, &mut sink))
    }

    fn borrowed_pieces(
        &mut self,
        addr: u64,
        len: usize,
        sink: &mut impl Sink,
    ) -> Result<(), Fault> {
        let wraps = Fault::Wraps {
            addr,
            len: len as u64,
        };
        if len > 0 && addr.checked_add(len as u64 - 1).is_none() {
            return Err(wraps);
        }
        let mut done = 0;
        while done < len {
            let mut addrs = [0; CHUNK];
            let mut machine = [MachineAddr(0); CHUNK];
            let mut status = [Status::Ok; CHUNK];
            let start = addr.wrapping_add(done as u64);
            let page = start & !(PAGE_SIZE as u64 - 1);
            let pages = (len - done)
                .saturating_add((start - page) as usize)
                .div_ceil(PAGE_SIZE)
                .min(CHUNK);
            for (i, slot) in addrs.iter_mut().enumerate() {
                *slot = page.wrapping_add((i * PAGE_SIZE) as u64);
            }
            let addrs = addrs.get(..pages).unwrap_or_default();
            self.chunk(addrs, &mut machine, &mut status);
            // Join pages that are contiguous in machine memory.
            let mut run = Run::default();
            for ((page, machine), status) in addrs.iter().zip(machine).zip(status) {
                let within = ((*page).max(start) - page) as usize;
                let n = (PAGE_SIZE - within).min(len - done);
                let first = machine.0.wrapping_add(within as u64);
                if status != Status::Ok || run.end() != Some(first) {
                    self.emit(addr, run, sink)?;
                    run = Run::at(done, (status == Status::Ok).then_some(first));
                }
                run.len += n;
                done += n;
            }
            self.emit(addr, run, sink)?;
        }
        Ok(())
    }

    /// Reads a run of a read at `addr`.
    fn emit(&mut self, addr: u64, run: Run, sink: &mut impl Sink) -> Result<(), Fault> {
        let Run { done, machine, len } = run;
        if len == 0 {
            return Ok(());
        }
        let borrowed = machine.and_then(|at| {
            let memory = self.space.memory();
            self.window.borrow(memory, MachineAddr(at), len)
        });
        match borrowed {
            Some(bytes) => sink.put(done, bytes),
            // Missing, not borrowable, or in pieces smaller than a page.
            None => {
                let read = machine.map_or(0, |at| self.read_long(MachineAddr(at), done, len, sink));
                if read < len {
                    let at = addr.wrapping_add((done + read) as u64);
                    self.space.pieces(at, len - read, |from, bytes| {
                        sink.put(done + read + from, bytes);
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Reads a run of more than a page, with many pages at once. Returns the number of bytes before the
    /// first ones that could not be read.
    fn read_long(
        &mut self,
        machine: MachineAddr,
        done: usize,
        len: usize,
        sink: &mut impl Sink,
    ) -> usize {
        if len <= PAGE_SIZE {
            return 0;
        }
        if let Some(room) = sink.room(done, len) {
            if self.space.memory().read(machine, room).is_ok() {
                return len;
            }
            // As many pages as can be read, below.
        }
        if self.decoded.is_empty() && self.decoded.try_reserve_exact(DECODED).is_ok() {
            self.decoded.resize(DECODED, 0);
        }
        let mut read = 0;
        while read < len {
            let at = MachineAddr(machine.0.wrapping_add(read as u64));
            // Up to the end of a page, so that each is decoded once.
            let n = (DECODED - at.page_offset()).min(len - read);
            let Some(bytes) = self.decoded.get_mut(..n) else {
                break;
            };
            if self.space.memory().read(at, bytes).is_err() {
                break;
            }
            sink.put(done + read, bytes);
            read += n;
        }
        read
    }
}

/// Copies `size` bytes from offset `from` of each of `found` into the rows from number `first` on, at
/// offset `at`. Rows of empty ones do not change.
///
/// All rows are located before any is read, and the loops that read them are short, so that as many cache
/// misses overlap as the processor allows.
#[inline]
pub(super) fn put_all(
    rows: &mut impl Rows,
    place: (usize, usize),
    found: &[&[u8]],
    from: usize,
    size: usize,
) {
    match size {
        1 => rows.put_each::<1>(place, found, from),
        2 => rows.put_each::<2>(place, found, from),
        4 => rows.put_each::<4>(place, found, from),
        8 => rows.put_each::<8>(place, found, from),
        16 => rows.put_each::<16>(place, found, from),
        32 => rows.put_each::<32>(place, found, from),
        64 => rows.put_each::<64>(place, found, from),
        _ => {
            let (first, at) = place;
            for (row, bytes) in (first..).zip(prefetched(found, from, size)) {
                if let Some(bytes) = bytes.get(from..).and_then(|rest| rest.get(..size)) {
                    rows.put(row, at, bytes);
                }
            }
        }
    }
}

/// Replaces the physical addresses of a translated guest by machine addresses; at most [`CHUNK`].
fn to_machine<M: Memory<MachineAddr>>(
    p2m: &P2m<M>,
    addrs: &mut [MachineAddr],
    status: &mut [Status],
) {
    let len = addrs.len().min(status.len());
    let (Some(addrs), Some(status)) = (addrs.get_mut(..len), status.get_mut(..len)) else {
        return;
    };
    let mut pfns = [PseudoPhysAddr(0).frame(); CHUNK];
    let mut mfns = [Mfn(0); CHUNK];
    for (pfn, addr) in pfns.iter_mut().zip(&*addrs) {
        *pfn = PseudoPhysAddr(addr.0).frame();
    }
    let pfns = pfns.get_mut(..len).unwrap_or_default();
    // Without an early exit, so that the loop is vectorized.
    let failed = status.iter().fold(0, |all, status| all | *status as u8);
    if failed == Status::Ok as u8 {
        p2m.resolve_many(pfns, &mut mfns, status);
    } else {
        // Elements that have failed repeat another pfn, so that they do not slow down the others.
        let mut last = PseudoPhysAddr(0).frame();
        for (pfn, status) in pfns.iter_mut().zip(&*status) {
            if *status == Status::Ok {
                last = *pfn;
            }
            *pfn = last;
        }
        let mut second = [Status::Ok; CHUNK];
        p2m.resolve_many(pfns, &mut mfns, &mut second);
        for ((mfn, status), second) in mfns.iter_mut().zip(status).zip(second) {
            if *status == Status::Ok {
                *status = second;
            } else {
                *mfn = Mfn(NONE);
            }
        }
    }
    for (addr, mfn) in addrs.iter_mut().zip(mfns) {
        // Frames are below 2^52, so only NONE stays NONE.
        *addr = MachineAddr(if mfn.0 == NONE {
            NONE
        } else {
            (mfn.0 << PAGE_SHIFT) | (addr.0 & (PAGE_SIZE as u64 - 1))
        });
    }
}

/// A part of a long read that is contiguous in machine memory.
#[derive(Clone, Copy, Default)]
struct Run {
    /// Its offset in the read.
    done: usize,
    /// Its machine address; `None` if it was not translated.
    machine: Option<u64>,
    len: usize,
}

impl Run {
    fn at(done: usize, machine: Option<u64>) -> Self {
        Self {
            done,
            machine,
            len: 0,
        }
    }

    fn end(&self) -> Option<u64> {
        self.machine?.checked_add(self.len as u64)
    }
}

/// Whether each address is `size` bytes after the previous one.
fn are_adjacent(addrs: &[u64], size: usize) -> bool {
    let (Some(first), Some(second)) = (addrs.first(), addrs.get(1)) else {
        return false;
    };
    let mut expected = *first;
    let step = size as u64;
    if expected.wrapping_add(step) != *second {
        return false;
    }
    let mut different = 0;
    for addr in addrs {
        different |= addr ^ expected;
        expected = expected.wrapping_add(step);
    }
    different == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Mutex;

    /// Memory that cannot be borrowed. A read decodes its page, unless it was the last page decoded.
    #[derive(Default)]
    struct Compressed {
        /// The last page decoded, and the number of pages decoded.
        state: Mutex<(u64, usize)>,
        reads: AtomicUsize,
    }

    impl Compressed {
        const END: u64 = 8 * PAGE_SIZE as u64;
    }

    impl Memory<MachineAddr> for Compressed {
        fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            for (i, byte) in buf.iter_mut().enumerate() {
                let at = MachineAddr(addr.0 + i as u64);
                if at.0 >= Self::END {
                    return Err(Fault::Excluded(at));
                }
                let mut state = self.state.lock().unwrap();
                let page = at.frame().0 + 1;
                if state.0 != page {
                    *state = (page, state.1 + 1);
                }
                *byte = (at.0 >> 4) as u8;
            }
            Ok(())
        }
    }

    struct Kept(Vec<[u8; 16]>);

    impl Rows for Kept {
        fn put(&mut self, row: usize, at: usize, bytes: &[u8]) {
            self.0[row][at..at + bytes.len()].copy_from_slice(bytes);
        }

        fn clear(&mut self, row: usize) {
            self.0[row] = [0; 16];
        }
    }

    #[test]
    fn a_batch_decodes_each_page_once() {
        let space = Space::Machine(Compressed::default());
        // All rows of eight pages in scattered order, and some past the end.
        let addrs: Vec<_> = (0..CHUNK as u64).map(|i| (i * 37 % 256) * 160).collect();
        let mut rows = Kept(vec![[0xee; 16]; CHUNK]);
        let mut status = [Status::Ok; CHUNK];
        let mut batch = Batch::new(&space, CHUNK);
        batch.read_rows(&addrs, 16, 0, &mut rows, &mut status);
        for ((addr, row), status) in addrs.iter().zip(&rows.0).zip(status) {
            if *addr < Compressed::END {
                assert_eq!((*row, status), ([(addr >> 4) as u8; 16], Status::Ok));
            } else {
                assert_eq!((*row, status), ([0; 16], Status::Excluded));
            }
        }
        assert_eq!(space.memory().state.lock().unwrap().1, 8);
    }

    #[test]
    fn a_buffer_is_filled_up_to_the_first_fault() {
        let space = Space::Machine(Compressed::default());
        let mut batch = Batch::new(&space, 1);
        let expected = |from: u64, len: u64| (from..from + len).map(|at| (at >> 4) as u8);
        let mut buffer = vec![0xee; 3 * PAGE_SIZE + 100];
        batch.fill(5000, &mut buffer).unwrap();
        assert!(buffer
            .iter()
            .copied()
            .eq(expected(5000, buffer.len() as u64)));
        // One read of all pages.
        assert_eq!(space.memory().reads.load(Ordering::Relaxed), 1);
        let start = Compressed::END - 2 * PAGE_SIZE as u64 - 1;
        let fault = batch.fill(start, &mut buffer);
        assert_eq!(fault, Err(Fault::Excluded(MachineAddr(Compressed::END))));
        assert!(buffer[..8193].iter().copied().eq(expected(start, 8193)));
        assert_eq!(batch.fill(0, &mut []), Ok(()));
        let wraps = batch.fill(u64::MAX, &mut buffer[..2]);
        assert!(matches!(wraps, Err(Fault::Wraps { .. })));
    }

    #[test]
    fn rows_of_one_page_are_read_at_once() {
        let space = Space::Machine(Compressed::default());
        let end = Compressed::END;
        // Two pages in scattered order; a row that goes on in the next page; the last bytes of memory, and
        // a row that goes on after them.
        let mut addrs: Vec<_> = (0..20).map(|i| (i * 7 % 20) * 400).collect();
        addrs.extend([2 * 4096 - 8, 5 * 4096 - 8, end - 16, end - 8]);
        let mut rows = Kept(vec![[0xee; 16]; addrs.len()]);
        let mut status = vec![Status::Ok; addrs.len()];
        Batch::new(&space, 1).read_rows(&addrs[..20], 16, 0, &mut rows, &mut status[..20]);
        assert_eq!(space.memory().reads.load(Ordering::Relaxed), 2);
        Batch::new(&space, 1).read_rows(&addrs, 16, 0, &mut rows, &mut status);
        for ((addr, row), status) in addrs.iter().zip(&rows.0).zip(status) {
            if addr + 16 <= end {
                let bytes = std::array::from_fn(|i| ((addr + i as u64) >> 4) as u8);
                assert_eq!((*row, status), (bytes, Status::Ok), "{addr:#x}");
            } else {
                assert_eq!((*row, status), ([0; 16], Status::Excluded));
            }
        }
    }
}
