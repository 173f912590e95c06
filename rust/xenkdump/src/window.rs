//! A cache of borrowed pieces of memory.

use crate::addr::Address;
use crate::memory::Memory;

/// The pieces that are kept: a host has memory below 640 KiB, below 4 GiB and above it.
const PIECES: usize = 4;

/// The last borrowed pieces of memory. Most dumps hold memory in a few large pieces, so the next bytes
/// are likely in one of them.
#[derive(Debug)]
pub struct Window<'m, A> {
    current: Piece<'m, A>,
    others: [Piece<'m, A>; PIECES - 1],
    /// The one of the others that is replaced next.
    oldest: usize,
}

#[derive(Clone, Copy, Debug)]
struct Piece<'m, A> {
    start: A,
    bytes: &'m [u8],
}

impl<A: Address> Piece<'_, A> {
    fn empty() -> Self {
        Self {
            start: A::new(0),
            bytes: &[],
        }
    }
}

impl<'m, A: Address> Piece<'m, A> {
    #[inline]
    fn get(&self, addr: A, len: usize) -> Option<&'m [u8]> {
        let inside = usize::try_from(addr.raw().wrapping_sub(self.start.raw())).ok()?;
        self.bytes.get(inside..)?.get(..len)
    }
}

impl<A: Address> Default for Window<'_, A> {
    fn default() -> Self {
        Self {
            current: Piece::empty(),
            others: [Piece::empty(); PIECES - 1],
            oldest: 0,
        }
    }
}

impl<'m, A: Address> Window<'m, A> {
    /// The `len` bytes at `addr`, if they are in the piece that was used last.
    #[inline(always)]
    pub fn current(&self, addr: A, len: usize) -> Option<&'m [u8]> {
        self.current.get(addr, len)
    }

    /// The `len` bytes at `addr`, if they can be borrowed.
    #[inline]
    pub fn borrow<M: Memory<A> + ?Sized>(
        &mut self,
        mem: &'m M,
        addr: A,
        len: usize,
    ) -> Option<&'m [u8]> {
        match self.current.get(addr, len) {
            Some(bytes) => Some(bytes),
            None => self.change(mem, addr, len),
        }
    }

    /// Makes another piece the current one.
    #[inline(never)]
    fn change<M: Memory<A> + ?Sized>(
        &mut self,
        mem: &'m M,
        addr: A,
        len: usize,
    ) -> Option<&'m [u8]> {
        for other in &mut self.others {
            if let Some(bytes) = other.get(addr, len) {
                std::mem::swap(other, &mut self.current);
                return Some(bytes);
            }
        }
        let (start, bytes) = mem.borrow_around(addr);
        if bytes.is_empty() {
            return None; // it cannot be borrowed
        }
        let found = Piece { start, bytes };
        let replaced = std::mem::replace(&mut self.current, found);
        if let Some(slot) = self.others.get_mut(self.oldest) {
            *slot = replaced;
        }
        self.oldest = (self.oldest + 1) % (PIECES - 1);
        found.get(addr, len)
    }
}
