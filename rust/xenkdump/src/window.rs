//! A cache of borrowed pieces of memory.

use crate::addr::Address;
use crate::memory::Memory;

/// The number of pieces that are kept, and log2 of the bytes of the areas of addresses that they are kept
/// for. A large piece is kept for each of its areas. A host has few pieces: memory below 640 KiB, below 4
/// GiB and above it; on a large one, above each hole of a NUMA node.
const PIECES: usize = 32;
const AREA_SHIFT: u32 = 27;

/// The last borrowed pieces of memory, by address. Most dumps hold memory in a few large pieces, so the next
/// bytes are likely in one of them.
#[derive(Debug)]
pub struct Window<'m, A> {
    pieces: [Piece<'m, A>; PIECES],
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
            pieces: [Piece::empty(); PIECES],
        }
    }
}

impl<'m, A: Address> Window<'m, A> {
    /// The `len` bytes at `addr`, if they are in a piece that is kept.
    #[inline(always)]
    pub fn known(&self, addr: A, len: usize) -> Option<&'m [u8]> {
        self.pieces[place(addr)].get(addr, len)
    }

    /// The `len` bytes at `addr`, if they can be borrowed.
    #[inline]
    pub fn borrow<M: Memory<A> + ?Sized>(
        &mut self,
        mem: &'m M,
        addr: A,
        len: usize,
    ) -> Option<&'m [u8]> {
        match self.known(addr, len) {
            Some(bytes) => Some(bytes),
            None => self.change(mem, addr, len),
        }
    }

    /// Replaces a piece by the one at `addr`.
    #[inline(never)]
    fn change<M: Memory<A> + ?Sized>(
        &mut self,
        mem: &'m M,
        addr: A,
        len: usize,
    ) -> Option<&'m [u8]> {
        let (start, bytes) = mem.borrow_around(addr);
        if bytes.is_empty() {
            return None; // it cannot be borrowed
        }
        let found = Piece { start, bytes };
        self.pieces[place(addr)] = found;
        found.get(addr, len)
    }
}

/// The number of the piece for `addr`.
#[inline(always)]
fn place<A: Address>(addr: A) -> usize {
    (addr.raw() >> AREA_SHIFT) as usize % PIECES
}
