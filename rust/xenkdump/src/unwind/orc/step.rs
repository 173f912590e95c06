//! From a frame to its caller, by an ORC row.

use crate::addr::{Address, VirtAddr, Word};
use crate::memory::Memory;
use crate::unwind::frame::How;
use crate::unwind::registers::{Reg, Registers};
use crate::unwind::step::{read_word, Caller, Step, Unreadable};
use crate::unwind::x86::pt_regs::PtRegs;

use super::format::{OrcEntry, OrcKind, OrcReg};

/// Applies `entry` to the frame with these registers. `indirect_then_offset` is that of the format in
/// which the entry was decoded.
pub(in crate::unwind) fn step(
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
        Some(OrcReg::Ax) => Reg::Ax,
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
        // An unreadable frame pointer is an error only if a later frame depends on it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::orc::format::OrcFormat;
    use crate::unwind::testing::Ram;

    const STACK: u64 = 0xffff_c900_0001_3000;
    const PC: u64 = 0xffff_ffff_8100_1234;

    /// A row of Linux 6.4: base of `sp`, base of `bp`, type, signal.
    fn row(sp: (u16, i16), bp: (u16, i16), kind: u16, signal: u16) -> OrcEntry {
        let flags = sp.0 | bp.0 << 4 | kind << 8 | signal << 11;
        let mut bytes = [0; 6];
        bytes[..2].copy_from_slice(&sp.1.to_le_bytes());
        bytes[2..4].copy_from_slice(&bp.1.to_le_bytes());
        bytes[4..].copy_from_slice(&flags.to_le_bytes());
        OrcFormat::V6_4.decode(bytes)
    }

    fn run(entry: &OrcEntry, then_offset: bool, ram: &Ram, given: &[(Reg, u64)]) -> Step {
        let mut registers = Registers::at(VirtAddr(PC), VirtAddr(STACK));
        for (reg, value) in given {
            registers.set(*reg, *value);
        }
        let layout = PtRegs::of(Word::W64, None);
        step(entry, then_offset, &layout, ram, &registers).unwrap()
    }

    fn caller(step: Step) -> Caller {
        match step {
            Step::Caller(caller) => *caller,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_base_leads_to_the_return_address_below_the_sum() {
        let mut ram = Ram::new(Word::W64);
        ram.words(STACK, &[0; 64]);
        ram.words(STACK + 0x58, &[PC + 0x100]);
        let at = STACK + 0x60;
        for (base, offset, reg) in [
            (5, 0x60, None),
            (4, 0x10, Some(Reg::Bp)),
            (6, 0x10, Some(Reg::R10)),
            (7, 0x10, Some(Reg::R13)),
            (3, 0x10, Some(Reg::Di)),
            (2, 0x10, Some(Reg::Dx)),
            (10, 0x10, Some(Reg::Ax)),
        ] {
            let given: Vec<_> = reg.iter().map(|reg| (*reg, at - 0x10)).collect();
            let entry = row((base, offset), (0, 0), 2, 0);
            let found = caller(run(&entry, true, &ram, &given));
            assert_eq!(found.registers.pc(), Some(VirtAddr(PC + 0x100)), "{base}");
            assert_eq!(found.registers.sp(), Some(VirtAddr(at)));
            assert!(!found.interrupted);
            if let Some(reg) = reg {
                // Of the callee-saved registers ORC restores only the frame pointer.
                assert_eq!(found.registers.get(reg).is_some(), reg == Reg::Bp);
                assert!(matches!(run(&entry, true, &ram, &[]), Step::Unknown));
            }
        }
    }

    #[test]
    fn sp_indirect_follows_a_saved_pointer_in_both_orders() {
        let mut ram = Ram::new(Word::W64);
        let other = STACK + 0x1000;
        ram.words(STACK, &[other, 0, 0, other + 8]);
        ram.words(other - 8, &[PC + 1, PC + 2, PC + 3]);
        let pc = |offset, then_offset| {
            let entry = row((9, offset), (0, 0), 2, 0);
            caller(run(&entry, then_offset, &ram, &[])).registers.pc()
        };
        // Since 5.12 the offset is added to what is read, before that to where it is read.
        assert_eq!(pc(8, true), Some(VirtAddr(PC + 2)));
        assert_eq!(pc(0, false), Some(VirtAddr(PC + 1)));
        assert_eq!(pc(24, false), Some(VirtAddr(PC + 2)));
        let entry = row((8, 24), (0, 0), 2, 0);
        let found = caller(run(&entry, true, &ram, &[(Reg::Bp, STACK)]));
        assert_eq!(found.registers.pc(), Some(VirtAddr(PC + 2)));
    }

    #[test]
    fn the_frame_pointer_is_restored_by_the_row() {
        let mut ram = Ram::new(Word::W64);
        ram.words(STACK, &[0x11, 0x22, PC, 0x33, 0x44]);
        let bp = |base, offset| {
            let entry = row((5, 24), (base, offset), 2, 0);
            let given = [(Reg::Bp, STACK + 0x18)];
            caller(run(&entry, true, &ram, &given))
                .registers
                .get(Reg::Bp)
        };
        assert_eq!(bp(0, 0), Some(STACK + 0x18), "kept");
        assert_eq!(bp(1, -16), Some(0x22), "from the caller's sp");
        assert_eq!(bp(4, 8), Some(0x44), "from the frame's own bp");
        assert_eq!(bp(4, 0x1000), None, "unreadable");
    }

    #[test]
    fn saved_registers_are_restored_whole_or_in_part() {
        let mut ram = Ram::new(Word::W64);
        let words: Vec<u64> = (1..=21).collect();
        ram.words(STACK + 8, &words);
        let whole = caller(run(&row((5, 8), (0, 0), 3, 1), true, &ram, &[]));
        assert_eq!(whole.registers.get(Reg::R15), Some(1));
        assert_eq!(whole.registers.get(Reg::Bp), Some(5));
        assert_eq!(whole.registers.get(Reg::Ip), Some(17));
        assert_eq!(whole.registers.get(Reg::Sp), Some(20));
        assert_eq!(whole.saved_at, Some(VirtAddr(STACK + 8)));
        assert!(whole.interrupted);
        // The processor saves rip, cs, rflags, rsp, ss; other registers are unchanged.
        let given = [(Reg::R15, 0x99), (Reg::Bp, 0x98)];
        let part = caller(run(&row((5, 8), (0, 0), 4, 1), true, &ram, &given));
        assert_eq!(part.registers.get(Reg::Ip), Some(1));
        assert_eq!(part.registers.get(Reg::Sp), Some(4));
        assert_eq!(part.registers.get(Reg::R15), Some(0x99));
        assert_eq!(part.registers.get(Reg::Bp), Some(0x98));
    }

    #[test]
    fn end_rows_end_and_invalid_rows_find_no_caller() {
        let ram = Ram::new(Word::W64);
        assert!(matches!(
            run(&row((0, 0), (0, 0), 1, 0), true, &ram, &[]),
            Step::End
        ));
        for base in [0, 1, 11, 15] {
            let entry = row((base, 0), (0, 0), 2, 0);
            assert!(
                matches!(run(&entry, true, &ram, &[]), Step::Unknown),
                "{base}"
            );
        }
        for kind in [0, 5, 7] {
            let entry = row((5, 8), (0, 0), kind, 0);
            assert!(
                matches!(run(&entry, true, &ram, &[]), Step::Unknown),
                "{kind}"
            );
        }
    }
}
