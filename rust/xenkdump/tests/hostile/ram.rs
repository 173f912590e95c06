//! Memory that counts how often it is read.

use std::sync::atomic::{AtomicU64, Ordering};

use xenkdump::addr::Address;
use xenkdump::memory::{Fault, Memory};

/// Bytes from the address `start` on.
pub struct Ram<'a> {
    pub start: u64,
    pub bytes: &'a [u8],
    reads: AtomicU64,
    missed: AtomicU64,
}

impl<'a> Ram<'a> {
    pub fn new(start: u64, bytes: &'a [u8]) -> Self {
        Self {
            start,
            bytes,
            reads: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }
    }

    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// The reads of what is not there, among all.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// The number of pages, including a partial one.
    pub fn pages(&self) -> u64 {
        self.bytes.len().div_ceil(4096) as u64
    }

    fn at(&self, addr: u64) -> Option<&[u8]> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let from = usize::try_from(addr.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..)
    }
}

impl<A: Address> Memory<A> for Ram<'_> {
    fn read(&self, addr: A, buf: &mut [u8]) -> Result<(), Fault> {
        let found = self.at(addr.raw()).and_then(|bytes| bytes.get(..buf.len()));
        self.missed
            .fetch_add(found.is_none().into(), Ordering::Relaxed);
        buf.copy_from_slice(found.ok_or(Fault::Wraps {
            addr: addr.raw(),
            len: buf.len() as u64,
        })?);
        Ok(())
    }

    fn next_held(&self, addr: A) -> Option<(A, A)> {
        let last = self.start + (self.bytes.len() as u64).checked_sub(1)?;
        (addr.raw() <= last).then(|| (A::new(addr.raw().max(self.start)), A::new(last)))
    }

    fn borrow(&self, addr: A) -> &[u8] {
        self.at(addr.raw()).unwrap_or_default()
    }
}
