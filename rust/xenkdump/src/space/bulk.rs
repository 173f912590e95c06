//! Many addresses of a space at once.

use std::hint::black_box;

use super::Space;
use crate::addr::{Address, MachineAddr, Mfn, PseudoPhysAddr, VirtAddr, PAGE_SHIFT, PAGE_SIZE};
use crate::memory::{Fault, Memory};
use crate::p2m::{P2m, Physical};
use crate::paging::Translator;
use crate::status::{Status, NONE};
use crate::window::Window;

const CHUNK: usize = 256;

/// Where the rows of [`Batch::read_rows`] go.
pub trait Rows {
    /// Puts `bytes` into a row, from the byte `at` on; what does not fit in it belongs to the rows
    /// after it.
    fn put(&mut self, row: usize, at: usize, bytes: &[u8]);
    /// Clears a row: all of it could not be read, and parts of it may have been put.
    fn clear(&mut self, row: usize);
}

/// Translates and reads batches of addresses for one thread.
pub struct Batch<'s, M> {
    space: &'s Space<M>,
    way: Way<'s, M>,
    window: Window<'s, MachineAddr>,
}

enum Way<'s, M> {
    /// The numbers are machine addresses'.
    Same,
    P2m(&'s P2m<M>),
    Tables(Box<Translator<'s, M>>),
}

impl<'s, M: Memory<MachineAddr> + Send> Batch<'s, M> {
    /// For about `expected` addresses.
    pub fn new(space: &'s Space<M>, expected: usize) -> Self {
        let way = match space {
            Space::Machine(_) | Space::Physical(Physical::Bare(_)) => Way::Same,
            Space::Physical(Physical::P2m(p2m)) => Way::P2m(p2m),
            Space::Virtual(space) => Way::Tables(Box::new(Translator::new(space, expected))),
        };
        Self {
            space,
            way,
            window: Window::default(),
        }
    }

    /// The machine address that each address leads to, [`NONE`] where there is none, and why. What
    /// lies past the shortest of the three is left alone.
    pub fn translate(&mut self, addrs: &[u64], out: &mut [MachineAddr], status: &mut [Status]) {
        let chunks = addrs
            .chunks(CHUNK)
            .zip(out.chunks_mut(CHUNK))
            .zip(status.chunks_mut(CHUNK));
        for ((addrs, out), status) in chunks {
            self.chunk(addrs, out, status);
        }
    }

    #[inline]
    fn chunk(&mut self, addrs: &[u64], out: &mut [MachineAddr], status: &mut [Status]) {
        match &mut self.way {
            Way::Same => {
                for ((addr, out), status) in addrs.iter().zip(out).zip(status) {
                    (*out, *status) = (MachineAddr(*addr), Status::Ok);
                }
            }
            Way::P2m(p2m) => {
                let mut pfns = [PseudoPhysAddr(0).frame(); CHUNK];
                let mut mfns = [Mfn(0); CHUNK];
                for (pfn, addr) in pfns.iter_mut().zip(addrs) {
                    *pfn = PseudoPhysAddr(*addr).frame();
                }
                let pfns = pfns.get(..addrs.len()).unwrap_or_default();
                p2m.resolve_many(pfns, &mut mfns, status);
                for ((addr, mfn), out) in addrs.iter().zip(mfns).zip(out) {
                    // A frame lies below 2^52; what is none stays none.
                    *out = MachineAddr(if mfn.0 == NONE {
                        NONE
                    } else {
                        (mfn.0 << PAGE_SHIFT) | (addr & (PAGE_SIZE as u64 - 1))
                    });
                }
            }
            Way::Tables(translator) => {
                let mut virt = [VirtAddr(0); CHUNK];
                for (virt, addr) in virt.iter_mut().zip(addrs) {
                    *virt = VirtAddr(*addr);
                }
                let virt = virt.get(..addrs.len()).unwrap_or_default();
                translator.translate(virt, out, status);
            }
        }
    }

    /// Reads `size` bytes at each address into the row of `rows` with the address's number plus
    /// `first`. A row of which any byte cannot be read is cleared and has a status that says why.
    pub fn read_rows(
        &mut self,
        addrs: &[u64],
        size: usize,
        first: usize,
        rows: &mut impl Rows,
        status: &mut [Status],
    ) {
        if adjoin(addrs, size) && self.read_run(addrs, size, first, rows).is_some() {
            status.fill(Status::Ok);
            return;
        }
        let chunks = addrs.chunks(CHUNK).zip(status.chunks_mut(CHUNK));
        for ((addrs, status), first) in chunks.zip((first..).step_by(CHUNK)) {
            self.soundly(|this| this.read_chunk(addrs, size, first, rows, status));
        }
    }

    /// Reads rows that lie next to each other in one go; `None` if any of them cannot be read.
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
        let mut row = first;
        let mut machine = [MachineAddr(0); CHUNK];
        self.chunk(addrs, &mut machine, status);
        // All rows are found, then touched, then copied: in a loop that does nothing else, a dozen
        // misses overlap.
        let mut found: [&[u8]; CHUNK] = [&[]; CHUNK];
        let results = machine.iter().zip(&*status);
        for ((addr, found), (machine, status)) in addrs.iter().zip(&mut found).zip(results) {
            let in_page = size <= PAGE_SIZE - VirtAddr(*addr).page_offset();
            if in_page && *status == Status::Ok {
                let lent = self.window.borrow(self.space.memory(), *machine, size);
                *found = lent.unwrap_or_default();
            }
        }
        let touched = found
            .iter()
            .take(addrs.len())
            .filter_map(|row| row.first())
            .fold(0, |all, byte| all ^ byte);
        black_box(touched);
        for ((addr, found), status) in addrs.iter().zip(found).zip(status) {
            if *status == Status::Ok {
                if found.len() == size {
                    rows.put(row, 0, found);
                } else if let Err(fault) = self
                    .space
                    .pieces(*addr, size, |at, bytes| rows.put(row, at, bytes))
                {
                    *status = fault.into();
                }
            }
            if *status != Status::Ok {
                rows.clear(row);
            }
            row += 1;
        }
    }

    /// Does some work, and again if what was lent for it proved unsound meanwhile. By then nothing is
    /// lent any more.
    fn soundly<T>(&mut self, mut work: impl FnMut(&mut Self) -> T) -> T {
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

    /// Calls `f` with all of the `len` bytes at `addr`, piece by piece and in order, each with its
    /// distance from `addr`; and from the start again if the file changed meanwhile.
    pub fn pieces(
        &mut self,
        addr: u64,
        len: usize,
        mut f: impl FnMut(usize, &[u8]),
    ) -> Result<(), Fault> {
        self.soundly(|this| this.lent_pieces(addr, len, &mut f))
    }

    fn lent_pieces(
        &mut self,
        addr: u64,
        len: usize,
        f: &mut impl FnMut(usize, &[u8]),
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
            // Pages that follow each other in the machine as they do here go as one.
            let mut run = Run::default();
            for ((page, machine), status) in addrs.iter().zip(machine).zip(status) {
                let within = ((*page).max(start) - page) as usize;
                let n = (PAGE_SIZE - within).min(len - done);
                let first = machine.0.wrapping_add(within as u64);
                if status != Status::Ok || run.end() != Some(first) {
                    self.give(addr, run, f)?;
                    run = Run::at(done, (status == Status::Ok).then_some(first));
                }
                run.len += n;
                done += n;
            }
            self.give(addr, run, f)?;
        }
        Ok(())
    }

    /// Calls `f` with the bytes of a run, of a read at `addr`.
    fn give(&mut self, addr: u64, run: Run, f: &mut impl FnMut(usize, &[u8])) -> Result<(), Fault> {
        let Run { done, machine, len } = run;
        let lent = machine.and_then(|at| {
            let memory = self.space.memory();
            self.window.borrow(memory, MachineAddr(at), len)
        });
        match lent {
            Some(bytes) => f(done, bytes),
            // Missing, or in pieces smaller than a page.
            None => {
                let at = addr.wrapping_add(done as u64);
                self.space
                    .pieces(at, len, |from, bytes| f(done + from, bytes))?;
            }
        }
        Ok(())
    }
}

/// Bytes of a long read that lie together in the machine.
#[derive(Clone, Copy, Default)]
struct Run {
    /// How many bytes of the read are before it.
    done: usize,
    /// Where it is; `None` for one that has to be read another way.
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

/// Whether each address is `size` after the one before it.
fn adjoin(addrs: &[u64], size: usize) -> bool {
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
