//! What a method of unwinding says of one frame.

use crate::addr::{Address, VirtAddr, Word};
use crate::memory::{Fault, Memory};

use super::frame::How;
use super::registers::Registers;

/// One step outwards.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The caller.
    Caller(Box<Caller>),
    /// There is none: the stack ends here.
    End,
    /// The method knows nothing about this frame.
    Unknown,
}

/// Memory that a step needs cannot be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unreadable {
    /// Where.
    pub addr: VirtAddr,
    /// Why not.
    pub fault: Fault,
}

/// A caller that a method found.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Its registers, as far as they are known.
    pub registers: Registers,
    /// What found it.
    pub how: How,
    /// It is likely, no more.
    pub guess: bool,
    /// Its pc is exact.
    pub interrupted: bool,
    /// Where the stack holds its registers.
    pub saved_at: Option<VirtAddr>,
}

/// Reads a word of the stack.
pub(super) fn read_word(
    memory: &dyn Memory<VirtAddr>,
    addr: VirtAddr,
    word: Word,
) -> Result<u64, Unreadable> {
    memory
        .read_word(addr, word)
        .map_err(|fault| Unreadable { addr, fault })
}

/// `addr` moved by `bytes`, wrapping round as the processor does at the machine's own width.
pub(super) fn offset(addr: VirtAddr, bytes: i64, word: Word) -> VirtAddr {
    VirtAddr(addr.raw().wrapping_add_signed(bytes) & word.max())
}
