//! What comes out: frames, and why there are no more of them.

use crate::addr::VirtAddr;
use crate::memory::Fault;

use super::registers::Registers;

/// How a frame was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum How {
    /// It is where the caller said that the stack starts.
    Start,
    /// By an ORC entry.
    Orc,
    /// By DWARF call frame information.
    Cfi,
    /// By the chain of frame pointers.
    FramePointer,
    /// By running the few instructions that stand between a stub's pc and its `ret`, or by taking
    /// the top of the stack for the return address.
    Leaf,
    /// From registers that entry code saved on the stack, found there by their looks.
    SavedRegisters,
    /// By a scan of the stack for return addresses.
    Scan,
}

impl How {
    /// A short name: `orc`, `cfi`, `fp`, ...
    pub fn name(self) -> &'static str {
        match self {
            How::Start => "start",
            How::Orc => "orc",
            How::Cfi => "cfi",
            How::FramePointer => "fp",
            How::Leaf => "leaf",
            How::SavedRegisters => "saved_registers",
            How::Scan => "scan",
        }
    }
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Where execution stands or will go on.
    pub pc: VirtAddr,
    /// The stack pointer in this frame: the callee's return address is popped already.
    pub sp: VirtAddr,
    /// How the frame was found.
    pub how: How,
    /// No unwind data led here, only likelihood.
    pub guess: bool,
    /// The pc is the very instruction where an interrupt, an exception or a system call came, not
    /// the one after a call.
    pub interrupted: bool,
    /// User space; always the last frame.
    pub user: bool,
    /// The full registers, where the stack holds them: those given for the first frame, those
    /// that an exception saved for an interrupted one.
    pub registers: Option<Registers>,
    /// Where the stack holds them.
    pub registers_at: Option<VirtAddr>,
}

impl Frame {
    /// An address within the instruction that made the call or was interrupted: a return address
    /// may already belong to the next function if the call never returns.
    pub fn lookup_pc(&self) -> VirtAddr {
        if self.interrupted {
            self.pc
        } else {
            VirtAddr(self.pc.0.wrapping_sub(1))
        }
    }
}

/// Why an unwind ended before the end of the stack.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Stop {
    /// The registers to start from lack the pc or the stack pointer.
    #[error("the registers to start from lack {0}")]
    NoStart(&'static str),
    /// As many frames as were asked for.
    #[error("the limit of {0} frames is reached")]
    Limit(usize),
    /// The same pc and stack pointer came twice.
    #[error("the frame at pc {pc}, sp {sp} came twice")]
    Loop {
        /// The pc that came again.
        pc: VirtAddr,
        /// The stack pointer that came again.
        sp: VirtAddr,
    },
    /// The stack cannot be read.
    #[error("the stack at {addr} cannot be read: {fault}")]
    Unreadable {
        /// What was to be read.
        addr: VirtAddr,
        /// Why it cannot be.
        fault: Fault,
    },
    /// The code of all that the stack may mean is more than any stack needs.
    #[error("the caller of {pc} (sp {sp}) would take too much code to find")]
    TooMuchCode {
        /// The frame's pc.
        pc: VirtAddr,
        /// The frame's stack pointer.
        sp: VirtAddr,
    },
    /// No method finds a caller.
    #[error("no method finds the caller of {pc} (sp {sp})")]
    NoCaller {
        /// The frame's pc.
        pc: VirtAddr,
        /// The frame's stack pointer.
        sp: VirtAddr,
    },
}

/// A stack: frames from the innermost outwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Backtrace {
    /// The frames.
    pub frames: Vec<Frame>,
    /// Why it ended early; `None` at the end of the stack.
    pub stopped: Option<Stop>,
}
