//! Backtraces: frames, and the reason why an unwind stopped.

use crate::addr::VirtAddr;
use crate::memory::Fault;

use super::registers::Registers;

/// How a frame was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum How {
    /// The frame that the unwind started from.
    Start,
    /// By an ORC entry.
    Orc,
    /// By DWARF call frame information.
    Cfi,
    /// By the chain of frame pointers.
    FramePointer,
    /// By following the instructions of a stub from the pc to its `ret`, or by the return address at
    /// the top of the stack.
    Leaf,
    /// By registers that entry code saved on the stack, recognized by their values.
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
    /// The next instruction to execute.
    pub pc: VirtAddr,
    /// The stack pointer, after the return from the callee.
    pub sp: VirtAddr,
    /// How the frame was found.
    pub how: How,
    /// The frame is unreliable: no unwind data leads to it.
    pub guess: bool,
    /// The frame was interrupted by an interrupt, an exception or a system call: the pc is exact, not
    /// a return address.
    pub interrupted: bool,
    /// User space; always the last frame.
    pub user: bool,
    /// All registers, if they are known: those given for the first frame, those saved on the stack for
    /// an interrupted one.
    pub registers: Option<Registers>,
    /// The address of the saved registers on the stack.
    pub registers_at: Option<VirtAddr>,
}

impl Frame {
    /// An address within the call or the interrupted instruction. After a call that never returns, the
    /// return address may belong to the next function.
    pub fn lookup_pc(&self) -> VirtAddr {
        if self.interrupted {
            self.pc
        } else {
            VirtAddr(self.pc.0.wrapping_sub(1))
        }
    }
}

/// The reason why an unwind stopped before the end of the stack.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Stop {
    /// The registers to start from lack the pc or the stack pointer.
    #[error("the registers to start from lack {0}")]
    NoStart(&'static str),
    /// The limit of frames is reached.
    #[error("the limit of {0} frames is reached")]
    Limit(usize),
    /// A pc and stack pointer are repeated.
    #[error("the frame at pc {pc}, sp {sp} came twice")]
    Loop {
        /// The repeated pc.
        pc: VirtAddr,
        /// The repeated stack pointer.
        sp: VirtAddr,
    },
    /// The stack cannot be read.
    #[error("the stack at {addr} cannot be read: {fault}")]
    Unreadable {
        /// The address that is unreadable.
        addr: VirtAddr,
        /// The reason.
        fault: Fault,
    },
    /// The budget for the code of a stack is exhausted.
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

/// The frames of a stack, from the innermost outwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Backtrace {
    /// The frames.
    pub frames: Vec<Frame>,
    /// Why the unwind stopped; `None` at the end of the stack.
    pub stopped: Option<Stop>,
}
