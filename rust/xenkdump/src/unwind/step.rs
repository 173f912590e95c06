//! The result of one method for one frame.

use crate::addr::{Address, VirtAddr, Word};
use crate::memory::{Fault, Memory};

use super::frame::How;
use super::registers::Registers;

/// A step to the caller.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The caller.
    Caller(Box<Caller>),
    /// The stack ends here.
    End,
    /// The method does not find the caller of this frame.
    Unknown,
}

/// Memory that a step needs is unreadable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unreadable {
    /// The address.
    pub addr: VirtAddr,
    /// The reason.
    pub fault: Fault,
}

/// A caller.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Its known registers.
    pub registers: Registers,
    /// How it was found.
    pub how: How,
    /// It is unreliable: no unwind data leads to it.
    pub guess: bool,
    /// It was interrupted: its pc is exact, not a return address.
    pub interrupted: bool,
    /// The address of its registers on the stack.
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

/// `addr` moved by `bytes`, wrapping at the word size.
pub(super) fn offset(addr: VirtAddr, bytes: i64, word: Word) -> VirtAddr {
    VirtAddr(addr.raw().wrapping_add_signed(bytes) & word.max())
}
