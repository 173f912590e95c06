//! From a frame to its caller by an ORC row.

use crate::addr::{Address, VirtAddr, Word};
use crate::memory::Memory;

use super::frame::How;
use super::orc::{OrcEntry, OrcKind, OrcReg};
use super::pt_regs::PtRegs;
use super::registers::{Reg, Registers};
use super::step::{read_word, Caller, Step, Unreadable};

/// Applies `entry`, in the format it was decoded with, to the frame whose registers these are.
pub(super) fn step(
    entry: &OrcEntry,
    indirect_then_offset: bool,
    layout: &PtRegs,
    memory: &dyn Memory<VirtAddr>,
    registers: &Registers,
) -> Result<Step, Unreadable> {
    if entry.kind == OrcKind::EndOfStack {
        return Ok(Step::End);
    }
    let offset = i64::from(entry.sp_offset);
    let base = match entry.sp_reg {
        Some(OrcReg::Sp | OrcReg::SpIndirect) => Reg::Sp,
        Some(OrcReg::Bp | OrcReg::BpIndirect) => Reg::Bp,
        Some(OrcReg::R10) => Reg::R10,
        Some(OrcReg::R13) => Reg::R13,
        Some(OrcReg::Di) => Reg::Di,
        Some(OrcReg::Dx) => Reg::Dx,
        Some(OrcReg::Undefined | OrcReg::PrevSp) | None => return Ok(Step::Unknown),
    };
    let Some(base) = registers.get(base) else {
        return Ok(Step::Unknown);
    };
    let sum = VirtAddr(base.wrapping_add_signed(offset));
    let at = match entry.sp_reg {
        Some(OrcReg::SpIndirect) if indirect_then_offset => {
            let word = read_word(memory, VirtAddr(base), Word::W64)?;
            VirtAddr(word.wrapping_add_signed(offset))
        }
        Some(OrcReg::SpIndirect | OrcReg::BpIndirect) => {
            VirtAddr(read_word(memory, sum, Word::W64)?)
        }
        _ => sum,
    };
    let (mut caller, saved_at) = match entry.kind {
        OrcKind::Call => {
            let below = VirtAddr(at.raw().wrapping_sub(8));
            let pc = VirtAddr(read_word(memory, below, Word::W64)?);
            let mut caller = Registers::at(pc, at);
            caller.put(Reg::Bp, registers.get(Reg::Bp));
            (caller, None)
        }
        OrcKind::Regs => (layout.read(memory, at)?, Some(at)),
        OrcKind::RegsPartial => (layout.read_iret(memory, at, *registers)?, Some(at)),
        OrcKind::Undefined | OrcKind::EndOfStack => return Ok(Step::Unknown),
    };
    let bp_at = match entry.bp_reg {
        Some(OrcReg::PrevSp) => Some(at),
        Some(OrcReg::Bp) => registers.get(Reg::Bp).map(VirtAddr),
        _ => None,
    };
    if let Some(bp_at) = bp_at {
        let bp_at = VirtAddr(bp_at.raw().wrapping_add_signed(entry.bp_offset.into()));
        // A frame pointer that cannot be read is missed only where something counts from it.
        caller.put(Reg::Bp, memory.read_u64(bp_at).ok());
    }
    Ok(Step::Caller(Box::new(Caller {
        registers: caller,
        how: How::Orc,
        guess: false,
        interrupted: entry.signal,
        saved_at,
    })))
}
