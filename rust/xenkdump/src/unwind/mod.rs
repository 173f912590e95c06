//! Stacks: from the registers of one frame to all its callers.
//!
//! [`Unwinder`] holds the tables of one kernel and takes, for each stack, memory by virtual
//! address, symbols and the registers to start from. It knows no file format, and trusts nothing
//! of what it reads: the number of frames is bounded, no frame comes twice, and a stack that
//! cannot be read ends with a reason.
//!
//! Of each frame the first method that knows something of it finds the caller: ORC, then DWARF call
//! frame information, then frame pointers where the code keeps them, then a scan for return
//! addresses. What no data stood behind is marked a guess.

mod call_site;
mod cfi;
mod cfi_step;
mod chain;
mod depth;
mod facts;
mod frame;
mod frame_pointer;
mod leaf;
mod orc;
mod orc_format;
mod orc_step;
mod orc_verify;
mod outermost;
mod pt_regs;
mod registers;
mod saved;
mod scan;
mod stack_switch;
mod step;
mod symbols;
mod tail_call;
#[cfg(test)]
mod testing;
mod unwinder;
mod ways;
mod x86;

pub use cfi::{CfiKind, CfiTable};
pub use frame::{Backtrace, Frame, How, Stop};
pub use orc::{OrcTable, Section};
pub use orc_format::{OrcFormat, OrcNumbering};
pub use orc_verify::{OrcDescription, OrcVerdict};
pub use pt_regs::PtRegs;
pub use registers::{Reg, Registers};
pub use symbols::{CodeSymbols, Function};
pub use unwinder::{Method, Stack, Unwinder};
