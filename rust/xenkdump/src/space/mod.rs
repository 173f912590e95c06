//! Memory whose kind of address is chosen at run time.
//!
//! Elsewhere in this crate, the kind of an address is a type. Bindings to other languages have one
//! class for all three kinds: only here are addresses plain numbers, whose kind is [`Space::kind`].

mod ancestors;
pub mod bare;
mod bulk;
mod find;
mod held;
mod layout;
mod lists;
mod paths;
mod structs;
mod tables;

pub use bulk::{Batch, Rows};
pub use find::{Found, Pieces};
pub use held::{PageNumbers, FEW_PAGES, LONGEST_HELD_ROW};
pub use layout::{Layout, Member};
pub use lists::{End, Links, List};
pub use paths::{Lost, PathLayout, PathLimits, Paths, Place};
pub use structs::Members;
pub use tables::Tables;

use crate::addr::{Address, MachineAddr, PseudoPhysAddr, VirtAddr, PAGE_SIZE};
use crate::memory::{Fault, Memory};
use crate::p2m::Physical;
use crate::paging::Virtual;

/// Memory under one kind of address.
#[derive(Clone, Debug)]
pub enum Space<M> {
    /// Machine memory.
    Machine(M),
    /// The physical memory of a domain, or of a host without Xen.
    Physical(Physical<M>),
    /// Virtual memory.
    Virtual(Virtual<Tables<M>>),
}

impl<M: Memory<MachineAddr> + Send> Space<M> {
    /// The name of its kind of address.
    pub fn kind(&self) -> &'static str {
        match self {
            Space::Machine(_) => MachineAddr::KIND,
            Space::Physical(_) => PseudoPhysAddr::KIND,
            Space::Virtual(_) => VirtAddr::KIND,
        }
    }

    /// The machine address of `addr`. A machine address is returned unchanged, whether or not the dump
    /// holds it.
    pub fn translate(&self, addr: u64) -> Result<MachineAddr, Fault> {
        match self {
            Space::Machine(_) => Ok(MachineAddr(addr)),
            Space::Physical(physical) => physical.translate(PseudoPhysAddr(addr)),
            Space::Virtual(space) => space.memory().machine(space.translate(VirtAddr(addr))?),
        }
    }

    /// The machine memory below.
    pub fn memory(&self) -> &M {
        match self {
            Space::Machine(mem) => mem,
            Space::Physical(physical) => physical.memory(),
            Space::Virtual(space) => space.memory().memory(),
        }
    }

    /// Fills `buf` with the bytes at `addr`.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        match self {
            Space::Machine(mem) => mem.read(MachineAddr(addr), buf),
            Space::Physical(physical) => physical.read(PseudoPhysAddr(addr), buf),
            Space::Virtual(space) => space.read(VirtAddr(addr), buf),
        }
    }

    /// Calls `f` with all of the `len` bytes at `addr` in order, in pieces of at most a page, each
    /// with its offset from `addr`.
    pub fn pieces(
        &self,
        addr: u64,
        len: usize,
        mut f: impl FnMut(usize, &[u8]),
    ) -> Result<(), Fault> {
        let mut page = [0; PAGE_SIZE];
        let mut done = 0;
        while done < len {
            let at = addr.checked_add(done as u64).ok_or(Fault::Wraps {
                addr,
                len: len as u64,
            })?;
            let n = (PAGE_SIZE - VirtAddr(at).page_offset()).min(len - done);
            let part = page.get_mut(..n).unwrap_or_default();
            self.read(at, part)?;
            f(done, part);
            done += n;
        }
        Ok(())
    }

    /// Checks that all of the `len` bytes at `addr` can be read; fails with the fault of the first
    /// unreadable one. To be called before allocating a buffer of an untrusted length.
    pub fn check(&self, addr: u64, len: u64) -> Result<(), Fault> {
        let wraps = Fault::Wraps { addr, len };
        let mut at = addr;
        let mut left = len;
        while left > 0 {
            self.read(at, &mut [0])?;
            let page = (PAGE_SIZE - VirtAddr(at).page_offset()) as u64;
            if page >= left {
                return at
                    .checked_add(left - 1)
                    .ok_or(wraps)
                    .and_then(|last| self.read(last, &mut [0]));
            }
            left -= page;
            at = at.checked_add(page).ok_or(wraps)?;
        }
        Ok(())
    }

    /// The bytes at `addr` up to the first NUL, or `limit` bytes if there is none. Fails only if a
    /// byte before that is missing.
    pub fn cstring(&self, addr: u64, limit: usize) -> Result<Vec<u8>, Fault> {
        let mut text = Vec::new();
        let mut at = addr;
        while text.len() < limit {
            let mut page = [0; PAGE_SIZE];
            let len = (PAGE_SIZE - VirtAddr(at).page_offset()).min(limit - text.len());
            let part = page.get_mut(..len).unwrap_or_default();
            let whole = self.read(at, part);
            // The end of the page may be missing, after the end of the text.
            let fits = match whole {
                Ok(()) => len,
                Err(_) => self.readable_prefix(at, part),
            };
            let readable = part.get(..fits).unwrap_or_default();
            // Page tables can map one page to any number of addresses.
            text.try_reserve(fits).map_err(|_| Fault::NoMemory {
                addr,
                len: text.len() as u64,
            })?;
            if let Some(end) = readable.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(readable.get(..end).unwrap_or_default());
                return Ok(text);
            }
            whole?;
            text.extend_from_slice(readable);
            if text.len() < limit {
                at = at.checked_add(len as u64).ok_or(Fault::Wraps {
                    addr,
                    len: limit as u64,
                })?;
            }
        }
        Ok(text)
    }

    /// Reads bytes into `part` up to the first unreadable one; returns their number.
    fn readable_prefix(&self, at: u64, part: &mut [u8]) -> usize {
        for (i, byte) in part.iter_mut().enumerate() {
            if self
                .read(at.saturating_add(i as u64), std::slice::from_mut(byte))
                .is_err()
            {
                return i;
            }
        }
        part.len()
    }
}
