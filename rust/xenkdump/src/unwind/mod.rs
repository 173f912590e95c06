//! Stack unwinding: from the registers of a frame to its callers.
//!
//! An [`Unwinder`] holds the tables of one kernel. For each stack it takes virtual memory, symbols and
//! the registers to start from. It does not know file formats. Its input is not trusted: the number of
//! frames is bounded, no frame is repeated, and an incomplete backtrace has a reason.
//!
//! - `unwinder`: the loop from frame to frame.
//! - `strategy`: which method finds the caller of a frame. They are tried in the order ORC, DWARF call
//!   frame information, frame pointers, stack scan. A frame without unwind data is unreliable.
//! - `orc`, `cfi`, `frame_pointer`, `scan`: the methods.
//! - `x86`: code analysis and saved registers.

mod cfi;
mod frame;
mod frame_pointer;
mod orc;
mod outermost;
mod registers;
mod scan;
mod section;
mod stack;
mod step;
mod strategy;
mod symbols;
#[cfg(test)]
mod testing;
mod unwinder;
mod x86;

pub use cfi::table::{CfiKind, CfiTable};
pub use frame::{Backtrace, Frame, How, Stop};
pub use orc::format::{OrcFormat, OrcNumbering};
pub use orc::table::OrcTable;
pub use orc::verify::{OrcDescription, OrcVerdict};
pub use registers::{Reg, Registers};
pub use section::Section;
pub use stack::{Method, Stack};
pub use symbols::{CodeSymbols, Function};
pub use unwinder::Unwinder;
pub use x86::pt_regs::PtRegs;
