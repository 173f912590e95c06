//! The input of an unwind: the stack and the methods.

use crate::addr::VirtAddr;
use crate::memory::Memory;

use super::registers::Registers;
use super::symbols::CodeSymbols;

/// A method that finds the caller of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The kernel's own tables: x86_64 Linux since 4.14.
    Orc,
    /// DWARF call frame information: `.debug_frame` or `.eh_frame`.
    Cfi,
    /// The chain of frame pointers.
    FramePointer,
    /// The scan of the stack for return addresses.
    Scan,
}

impl Method {
    /// All of them, the most reliable first.
    pub const ALL: [Method; 4] = [Method::Orc, Method::Cfi, Method::FramePointer, Method::Scan];

    /// A short name: `orc`, `cfi`, `fp`, `scan`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Orc => "orc",
            Method::Cfi => "cfi",
            Method::FramePointer => "fp",
            Method::Scan => "scan",
        }
    }
}

/// A stack to unwind.
#[derive(Clone, Copy)]
pub struct Stack<'a> {
    /// Virtual memory as seen by the code that used the stack.
    pub memory: &'a dyn Memory<VirtAddr>,
    /// Names and bounds of the code.
    pub symbols: &'a dyn CodeSymbols,
    /// The registers to start from; `ip` and `sp` must be known.
    pub registers: Registers,
    /// The pc is the next instruction to execute, not a return address.
    pub exact: bool,
    /// Ranges known to be stacks: lowest address, first address past the end.
    pub bounds: &'a [(VirtAddr, VirtAddr)],
    /// The maximum number of frames.
    pub limit: usize,
}
