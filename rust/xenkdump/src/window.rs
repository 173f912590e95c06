//! A cache of one borrowed piece of memory.

use crate::addr::Address;
use crate::memory::Memory;

/// The last borrowed piece of memory. Most dumps hold memory in a few large pieces, so the next bytes
/// are likely in the same one.
#[derive(Debug)]
pub struct Window<'m, A> {
    start: A,
    bytes: &'m [u8],
}

impl<A: Address> Default for Window<'_, A> {
    fn default() -> Self {
        Self {
            start: A::new(0),
            bytes: &[],
        }
    }
}

impl<'m, A: Address> Window<'m, A> {
    /// The `len` bytes at `addr`, if they can be borrowed.
    #[inline]
    pub fn borrow<M: Memory<A> + ?Sized>(
        &mut self,
        mem: &'m M,
        addr: A,
        len: usize,
    ) -> Option<&'m [u8]> {
        let inside = usize::try_from(addr.raw().wrapping_sub(self.start.raw())).ok();
        let known = inside.and_then(|at| self.bytes.get(at..)?.get(..len));
        known.or_else(|| self.slide(mem, addr, len))
    }

    fn slide<M: Memory<A> + ?Sized>(
        &mut self,
        mem: &'m M,
        addr: A,
        len: usize,
    ) -> Option<&'m [u8]> {
        (self.start, self.bytes) = mem.borrow_around(addr);
        let inside = usize::try_from(addr.raw().wrapping_sub(self.start.raw())).ok()?;
        self.bytes.get(inside..)?.get(..len)
    }
}
