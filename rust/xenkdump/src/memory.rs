//! Memory as a trait, by kind of address.
//!
//! Page walks, the P2M and the unwinder do not depend on file formats; they take a [`Memory`]. In
//! tests that is a [`Frames`].

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use crate::addr::{Address, MachineAddr, Mfn, Word, PAGE_SIZE};

pub use crate::fault::Fault;

/// The bytes of a page.
pub type Page = [u8; PAGE_SIZE];

/// Memory that is addressed by `A`.
///
/// A read yields every requested byte or a [`Fault`]: missing memory is an error, never zeros.
pub trait Memory<A: Address>: Sync {
    /// Fills `buf` with the bytes at `addr`; fails with the reason why the first unreadable byte is
    /// missing, and `buf` is unspecified then.
    fn read(&self, addr: A, buf: &mut [u8]) -> Result<(), Fault>;

    /// The bytes at `addr` and all that follow contiguously, without a copy. Empty where memory
    /// cannot be borrowed; it may still be readable.
    ///
    /// Unlike those of [`Memory::read`] these bytes are not checked: results computed from them are
    /// valid only if [`Memory::is_intact`] is true afterwards.
    #[inline]
    fn borrow(&self, _addr: A) -> &[u8] {
        &[]
    }

    /// Like [`Memory::borrow`], but with the bytes that precede `addr` contiguously; with the address
    /// of the first byte.
    #[inline]
    fn borrow_around(&self, addr: A) -> (A, &[u8]) {
        (addr, self.borrow(addr))
    }

    /// How many decoded pages are kept for later reads, at least. 0 if memory is not decoded by page: then
    /// [`Memory::page`] has none.
    #[inline]
    fn pages_kept(&self) -> usize {
        0
    }

    /// The decoded page with `addr`, for as long as it is held. `None` if it is not decoded, or cannot be
    /// read: [`Memory::read`] has the bytes, or the reason.
    #[inline]
    fn page(&self, _addr: A) -> Option<Arc<Page>> {
        None
    }

    /// False if a borrowed slice was invalidated: retry with [`Memory::read`]. Nothing can be
    /// borrowed any more then.
    #[inline]
    fn is_intact(&self) -> bool {
        true
    }

    /// The first and the last address of the next run that may be held, at `addr` or after it.
    /// Addresses before it cannot be read. With `None`, no address from `addr` on can be read. A run that
    /// starts before `addr` is cut to start there.
    fn next_held(&self, addr: A) -> Option<(A, A)> {
        Some((addr, A::new(u64::MAX)))
    }

    /// Whether any of the `len` bytes at `addr` may be held.
    fn may_hold(&self, addr: A, len: u64) -> bool {
        let next = self.next_held(addr);
        next.is_some_and(|(start, _)| start.raw() - addr.raw() < len)
    }

    /// Upper limit on the pages that have content of their own. Any number of addresses can be
    /// mapped to them; limits on work scale with this number.
    fn pages_held(&self) -> u64 {
        u64::MAX
    }

    /// `N` bytes.
    fn read_bytes<const N: usize>(&self, addr: A) -> Result<[u8; N], Fault>
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.read(addr, &mut bytes)?;
        Ok(bytes)
    }

    /// A little-endian 32-bit number.
    fn read_u32(&self, addr: A) -> Result<u32, Fault> {
        let mut bytes = [0; 4];
        self.read(addr, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A little-endian 64-bit number.
    fn read_u64(&self, addr: A) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        self.read(addr, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A little-endian word.
    fn read_word(&self, addr: A, word: Word) -> Result<u64, Fault> {
        match word {
            Word::W32 => self.read_u32(addr).map(u64::from),
            Word::W64 => self.read_u64(addr),
        }
    }
}

/// References and [`Arc`]s.
impl<A: Address, P: Deref<Target: Memory<A>> + Sync> Memory<A> for P {
    fn read(&self, addr: A, buf: &mut [u8]) -> Result<(), Fault> {
        (**self).read(addr, buf)
    }

    #[inline]
    fn borrow(&self, addr: A) -> &[u8] {
        (**self).borrow(addr)
    }

    #[inline]
    fn borrow_around(&self, addr: A) -> (A, &[u8]) {
        (**self).borrow_around(addr)
    }

    #[inline]
    fn pages_kept(&self) -> usize {
        (**self).pages_kept()
    }

    fn page(&self, addr: A) -> Option<Arc<Page>> {
        (**self).page(addr)
    }

    #[inline]
    fn is_intact(&self) -> bool {
        (**self).is_intact()
    }

    fn next_held(&self, addr: A) -> Option<(A, A)> {
        (**self).next_held(addr)
    }

    fn pages_held(&self) -> u64 {
        (**self).pages_held()
    }
}

/// Machine memory of single frames, for tests.
#[derive(Clone, Debug, Default)]
pub struct Frames(pub BTreeMap<Mfn, Box<[u8; PAGE_SIZE]>>);

impl Frames {
    /// Writes `bytes` at `addr`, adding frames as needed.
    pub fn write(&mut self, addr: MachineAddr, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let at = MachineAddr(addr.0 + i as u64);
            self.0
                .entry(at.frame())
                .or_insert_with(|| Box::new([0; PAGE_SIZE]))[at.page_offset()] = *byte;
        }
    }
}

impl Memory<MachineAddr> for Frames {
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        for_each_page(addr, buf, |at, part| {
            let frame = self.0.get(&at.frame()).ok_or(Fault::NoSegment(at))?;
            part.copy_from_slice(&frame[at.page_offset()..][..part.len()]);
            Ok(())
        })
    }

    fn borrow(&self, addr: MachineAddr) -> &[u8] {
        self.0
            .get(&addr.frame())
            .map_or(&[], |frame| &frame[addr.page_offset()..])
    }

    fn next_held(&self, addr: MachineAddr) -> Option<(MachineAddr, MachineAddr)> {
        let (next, _) = self.0.range(addr.frame()..).next()?;
        let start = next.addr()?;
        let last = MachineAddr(start.0 | (PAGE_SIZE as u64 - 1));
        Some((start.max(addr), last))
    }

    fn pages_held(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Splits `buf` at page boundaries and calls `f` with each part and its address.
pub fn for_each_page<A: Address>(
    addr: A,
    buf: &mut [u8],
    mut f: impl FnMut(A, &mut [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let len = buf.len() as u64;
    if len > 0 && addr.checked_add(len - 1).is_none() {
        return Err(Fault::Wraps {
            addr: addr.raw(),
            len,
        });
    }
    let mut rest = buf;
    let mut at = addr;
    while !rest.is_empty() {
        let n = rest.len().min(PAGE_SIZE - at.page_offset());
        let (part, tail) = rest.split_at_mut(n);
        f(at, part)?;
        rest = tail;
        if !rest.is_empty() {
            // Cannot wrap: the last byte's address was checked above.
            at = A::new(at.raw() + n as u64);
        }
    }
    Ok(())
}
