//! The three kinds of address, each a type of its own.
//!
//! Confusing them is a classic mistake, so no module interface uses a bare `u64` for an address.
//! Without Xen, pseudo-physical and machine addresses have the same numbers, but still not the same
//! type: [`crate::p2m::Physical`] converts them.

use std::fmt;

/// log2 of the size of a page frame on every x86 that Xen and Linux run on.
pub const PAGE_SHIFT: u32 = 12;
/// Size of a page frame in bytes.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;

/// What the three kinds of address have in common.
pub trait Address: Copy + Ord + fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// The kind's name in messages: `machine`, `pseudo-physical` or `virtual`.
    const KIND: &'static str;
    /// Wraps a number.
    fn new(raw: u64) -> Self;
    /// The number.
    fn raw(self) -> u64;
    /// The address `bytes` after this one, if it fits in 64 bits.
    fn checked_add(self, bytes: u64) -> Option<Self> {
        self.raw().checked_add(bytes).map(Self::new)
    }
    /// The byte within the page.
    fn page_offset(self) -> usize {
        (self.raw() & (PAGE_SIZE as u64 - 1)) as usize
    }
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl Address for $name {
            const KIND: &'static str = $kind;
            fn new(raw: u64) -> Self {
                Self(raw)
            }
            fn raw(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:#x})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(
    /// Host memory: the addresses in the segments of a vmcore and in the page tables of a PV guest.
    MachineAddr,
    "machine"
);
address!(
    /// The physical memory of a guest.
    PseudoPhysAddr,
    "pseudo-physical"
);
address!(
    /// The address that code uses; translated by page tables (cr3).
    VirtAddr,
    "virtual"
);

macro_rules! frame {
    ($(#[$doc:meta])* $name:ident, $addr:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address of the frame's first byte; `None` if it does not fit in 64 bits.
            pub fn addr(self) -> Option<$addr> {
                (self.0 >> (64 - PAGE_SHIFT) == 0).then(|| $addr(self.0 << PAGE_SHIFT))
            }
        }

        impl $addr {
            /// The frame that holds this address.
            pub fn frame(self) -> $name {
                $name(self.0 >> PAGE_SHIFT)
            }
        }
    };
}

frame!(
    /// Machine frame number.
    Mfn,
    MachineAddr
);
frame!(
    /// Pseudo-physical frame number.
    Pfn,
    PseudoPhysAddr
);

/// The width of a word: of a guest, of the hypervisor, of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// 4 bytes.
    W32,
    /// 8 bytes.
    W64,
}

impl Word {
    /// Size in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Word::W32 => 4,
            Word::W64 => 8,
        }
    }

    /// All bits of the word set, as a `u64`.
    pub const fn max(self) -> u64 {
        match self {
            Word::W32 => u32::MAX as u64,
            Word::W64 => u64::MAX,
        }
    }

    /// Reads a little-endian word at the start of `bytes`; `None` if they are too few.
    pub fn get(self, bytes: &[u8]) -> Option<u64> {
        Some(match self {
            Word::W32 => u64::from(u32::from_le_bytes(*bytes.first_chunk()?)),
            Word::W64 => u64::from_le_bytes(*bytes.first_chunk()?),
        })
    }
}
