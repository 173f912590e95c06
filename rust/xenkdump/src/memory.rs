//! Memory as the rooms above see it: a trait by kind of address, and what can go wrong in a read.
//!
//! The walkers, the P2M and the unwinder know nothing about files; they take a [`Memory`]. Tests
//! hand them a [`Frames`].

use std::collections::BTreeMap;

use crate::addr::{Address, MachineAddr, Mfn, Pfn, PseudoPhysAddr, VirtAddr, Word, PAGE_SIZE};
use crate::p2m::Special;

/// Why an address could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No segment of the dump holds it.
    #[error("machine address {0} is in no segment of the dump")]
    NoSegment(MachineAddr),
    /// A segment covers it, but without bytes in the file (`p_filesz < p_memsz`): left out by
    /// whoever wrote the dump.
    #[error("machine address {0} was left out of the dump (p_filesz < p_memsz)")]
    Excluded(MachineAddr),
    /// The file ends before it.
    #[error("machine address {addr} lies at file offset {offset:#x}, past the end of the file")]
    Truncated {
        /// What was asked for.
        addr: MachineAddr,
        /// Where it would be.
        offset: u64,
    },
    /// The operating system could not read the file there.
    #[error(
        "machine address {addr} at file offset {offset:#x}: {}",
        std::io::Error::from_raw_os_error(*errno)
    )]
    Io {
        /// What was asked for.
        addr: MachineAddr,
        /// Where it is.
        offset: u64,
        /// The system's error number.
        errno: i32,
    },
    /// A page-table entry on the way is not present.
    #[error(
        "virtual address {addr}: not present at level {level} (entry {index} of table {table} is {entry:#x})"
    )]
    NotPresent {
        /// What was asked for.
        addr: VirtAddr,
        /// Level of the table, 1 = the one whose entries map 4 KiB pages.
        level: u8,
        /// Machine address of the table.
        table: MachineAddr,
        /// Index of the entry in it.
        index: u16,
        /// The entry.
        entry: u64,
    },
    /// A page table on the way cannot be read.
    #[error("virtual address {addr}: the level {level} table at {table} is not in the dump")]
    NoTable {
        /// What was asked for.
        addr: VirtAddr,
        /// Level of the table.
        level: u8,
        /// Its machine address.
        table: MachineAddr,
    },
    /// A page-table entry has bits set that the format reserves.
    #[error(
        "virtual address {addr}: reserved bits at level {level} (entry {index} of table {table} is {entry:#x})"
    )]
    Reserved {
        /// What was asked for.
        addr: VirtAddr,
        /// Level of the table.
        level: u8,
        /// Machine address of the table.
        table: MachineAddr,
        /// Index of the entry in it.
        index: u16,
        /// The entry.
        entry: u64,
    },
    /// Not an address of this paging format (not canonical, or above 4 GiB on 32 bits).
    #[error("virtual address {0} is not canonical")]
    NonCanonical(VirtAddr),
    /// The P2M has no mfn for this pfn that may be read.
    #[error("pfn {pfn:#x}: {special}", pfn = .pfn.0)]
    P2m {
        /// What was asked for.
        pfn: Pfn,
        /// What the P2M says of it.
        special: Special,
    },
    /// The address and the length do not fit in 64 bits.
    #[error("the range of {len:#x} bytes at {addr:#x} wraps round")]
    Wraps {
        /// Start of the range.
        addr: u64,
        /// Its length.
        len: u64,
    },
}

impl Fault {
    /// The kind and the number of the address that cannot be read. For a range that wraps the kind
    /// is not known here and empty.
    pub fn address(&self) -> (&'static str, u64) {
        fn of<A: Address>(addr: A) -> (&'static str, u64) {
            (A::KIND, addr.raw())
        }
        match *self {
            Fault::NoSegment(addr)
            | Fault::Excluded(addr)
            | Fault::Truncated { addr, .. }
            | Fault::Io { addr, .. } => of(addr),
            Fault::NotPresent { addr, .. }
            | Fault::NoTable { addr, .. }
            | Fault::Reserved { addr, .. }
            | Fault::NonCanonical(addr) => of(addr),
            Fault::P2m { pfn, .. } => of(pfn.addr().unwrap_or(PseudoPhysAddr(u64::MAX))),
            Fault::Wraps { addr, .. } => ("", addr),
        }
    }
}

/// Memory that is addressed by `A`.
///
/// A read gives every byte asked for or a [`Fault`]: missing memory is an error, never zeros.
pub trait Memory<A: Address>: Sync {
    /// Fills `buf` with the bytes at `addr`, or says what the first unreadable one lacks. `buf` is
    /// then left in an unspecified state.
    fn read(&self, addr: A, buf: &mut [u8]) -> Result<(), Fault>;

    /// The bytes at `addr` and all that lie behind them in one piece, without a copy. None where
    /// they cannot be lent, which does not say that they cannot be read.
    ///
    /// They are not checked, as [`Memory::read`] checks its own: what was made of them counts only
    /// if [`Memory::lent_soundly`] says so afterwards.
    #[inline]
    fn lend(&self, _addr: A) -> &[u8] {
        &[]
    }

    /// What [`Memory::lend`] lends at `addr`, and as much of what lies before it as is of the same
    /// piece; with the address of the first byte.
    #[inline]
    fn lend_around(&self, addr: A) -> (A, &[u8]) {
        (addr, self.lend(addr))
    }

    /// Whether all that was lent so far was what the memory holds. If not, nothing is lent any more,
    /// and what was made of lent bytes is to be made again.
    #[inline]
    fn lent_soundly(&self) -> bool {
        true
    }

    /// The first address from `addr` to before `end` that may be held. All before it cannot be read,
    /// and all of them if there is none.
    fn next_held(&self, addr: A, _end: A) -> Option<A> {
        Some(addr)
    }

    /// How many pages have bytes of their own, at most. However many addresses one page has, no more
    /// than so many can hold different things.
    fn pages(&self) -> u64 {
        u64::MAX
    }

    /// A little-endian `u8`, `u16`, `u32` or `u64`, by the size of the array.
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

impl<A: Address, M: Memory<A> + ?Sized> Memory<A> for &M {
    fn read(&self, addr: A, buf: &mut [u8]) -> Result<(), Fault> {
        (**self).read(addr, buf)
    }

    #[inline]
    fn lend(&self, addr: A) -> &[u8] {
        (**self).lend(addr)
    }

    #[inline]
    fn lend_around(&self, addr: A) -> (A, &[u8]) {
        (**self).lend_around(addr)
    }

    #[inline]
    fn lent_soundly(&self) -> bool {
        (**self).lent_soundly()
    }

    fn next_held(&self, addr: A, end: A) -> Option<A> {
        (**self).next_held(addr, end)
    }

    fn pages(&self) -> u64 {
        (**self).pages()
    }
}

impl<A: Address, M: Memory<A> + ?Sized + Send> Memory<A> for std::sync::Arc<M> {
    fn read(&self, addr: A, buf: &mut [u8]) -> Result<(), Fault> {
        (**self).read(addr, buf)
    }

    #[inline]
    fn lend(&self, addr: A) -> &[u8] {
        (**self).lend(addr)
    }

    #[inline]
    fn lend_around(&self, addr: A) -> (A, &[u8]) {
        (**self).lend_around(addr)
    }

    #[inline]
    fn lent_soundly(&self) -> bool {
        (**self).lent_soundly()
    }

    fn next_held(&self, addr: A, end: A) -> Option<A> {
        (**self).next_held(addr, end)
    }

    fn pages(&self) -> u64 {
        (**self).pages()
    }
}

/// Machine memory made of single frames: what tests hand to the walkers.
#[derive(Clone, Debug, Default)]
pub struct Frames(pub BTreeMap<Mfn, Box<[u8; PAGE_SIZE]>>);

impl Frames {
    /// Writes `bytes` at `addr`, making frames where there are none.
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

    fn lend(&self, addr: MachineAddr) -> &[u8] {
        self.0
            .get(&addr.frame())
            .map_or(&[], |frame| &frame[addr.page_offset()..])
    }

    fn next_held(&self, addr: MachineAddr, end: MachineAddr) -> Option<MachineAddr> {
        let (next, _) = self.0.range(addr.frame()..).next()?;
        next.addr().map(|at| at.max(addr)).filter(|at| *at < end)
    }

    fn pages(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Calls `f` with each part of `buf` that lies within one page, and the part's address.
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
