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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{MachineAddr, PAGE_SIZE};
    use crate::memory::Frames;

    #[test]
    fn pieces_replace_each_other() {
        let mut frames = Frames::default();
        // All but the last share a place, the last one is in the same area as the first.
        let starts = [0, 1, 2, 3].map(|i| MachineAddr(i << (AREA_SHIFT + PIECES.ilog2())));
        let starts = [&starts[..], &[MachineAddr(1 << 16)]].concat();
        for (start, byte) in starts.iter().zip(1..) {
            frames.write(*start, &[byte; PAGE_SIZE]);
        }
        let mut window = Window::default();
        for _ in 0..3 {
            for (start, byte) in starts.iter().zip(1_u8..) {
                let last = MachineAddr(start.0 + PAGE_SIZE as u64 - 1);
                assert_eq!(window.known(*start, 1), None);
                assert_eq!(window.borrow(&frames, *start, 2), Some(&[byte; 2][..]));
                assert_eq!(window.known(last, 1), Some(&[byte][..]));
                assert_eq!(window.borrow(&frames, last, 2), None);
            }
        }
        assert_eq!(window.borrow(&frames, MachineAddr(0x2000), 1), None);
    }
}
