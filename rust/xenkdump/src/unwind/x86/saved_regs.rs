//! Entry code without unwind data. It saves a `pt_regs` and then calls C code, so the registers are
//! at the stack pointer of its frame.

use crate::addr::{Address, VirtAddr, Word, PAGE_SIZE};
use crate::memory::Memory;
use crate::unwind::frame::How;
use crate::unwind::registers::{Reg, Registers};
use crate::unwind::step::{offset, read_word, Caller, Step, Unreadable};
use crate::unwind::symbols::CodeSymbols;

use super::decode::{decode, Effect};
use super::leaf;
use super::pt_regs::PtRegs;

/// Upper bound for the size of a stack. Registers saved on the interrupted stack have a stack pointer
/// at most this far above them.
const MAX_STACK_SIZE: u64 = 64 << 10;

/// Maximum padding that Linux leaves at the top of a stack: for the selectors that virtual 8086 mode
/// pushes, or for FRED.
const MAX_PADDING: u64 = 16;

/// Maximum size of Xen's data above a guest's registers at the top of a stack (`struct cpu_info`).
const MAX_CPU_INFO: u64 = 256;

/// The interrupted frame, if its registers are at the stack pointer. The stack ends if these are the
/// empty registers of a kernel thread.
pub(in crate::unwind) fn step(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    layout: &PtRegs,
    registers: &Registers,
) -> Result<Step, Unreadable> {
    let Some(sp) = registers.sp() else {
        return Ok(Step::Unknown);
    };
    let found = find(memory, symbols, layout, sp)?;
    if !matches!(found, Step::Unknown) {
        return Ok(found);
    }
    // Before Linux 4.1 a system call saves only some of the registers.
    if let Some((at, saved)) = layout.read_syscall(memory, sp, registers) {
        if layout.is_user(&saved) && is_likely(memory, symbols, layout, &saved, at) {
            return Ok(interrupted(saved, at));
        }
    }
    // Linux 2.6.18 for Xen passes the registers' address on the stack: `push %esp; call
    // evtchn_do_upcall`.
    let word = layout.word;
    let above = offset(sp, word.bytes() as i64, word);
    if read_word(memory, sp, word)? == above.raw() {
        return find(memory, symbols, layout, above);
    }
    if layout.hypervisor {
        return below_arguments(memory, symbols, layout, registers);
    }
    Ok(Step::Unknown)
}

/// The interrupted frame, if its registers are above what the code at the pc discards.
///
/// `hypercall` of 32-bit Xen copies six arguments below the guest's registers, with two more words in
/// a debug build, and discards them after the call.
fn below_arguments(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    layout: &PtRegs,
    registers: &Registers,
) -> Result<Step, Unreadable> {
    let (Some(mut at), Some(pc)) = (registers.sp(), registers.pc()) else {
        return Ok(Step::Unknown);
    };
    let mut code = [0; DISCARDING_CODE];
    if memory.read(pc, &mut code).is_err() {
        return Ok(Step::Unknown);
    }
    let mut rest = &code[..];
    while let Some(instruction) = decode(rest, pc, layout.word) {
        match instruction.effect {
            Effect::Stack(bytes) if bytes > 0 => {
                at = offset(at, bytes, layout.word);
                let found = find(memory, symbols, layout, at)?;
                if !matches!(found, Step::Unknown) {
                    return Ok(found);
                }
            }
            Effect::None => {}
            _ => break,
        }
        rest = rest.get(instruction.length..).unwrap_or_default();
    }
    Ok(Step::Unknown)
}

/// The size of the code after a call that discards its arguments.
const DISCARDING_CODE: usize = 24;

/// The frame whose registers are at `at`, if they are plausible.
pub(in crate::unwind) fn find(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    layout: &PtRegs,
    at: VirtAddr,
) -> Result<Step, Unreadable> {
    // Unreadable memory is no error here: the stack may end less than a `pt_regs` above.
    let Ok(registers) = layout.read(memory, at) else {
        return Ok(Step::Unknown);
    };
    if is_empty(&registers) && is_top_of_stack(layout, at) {
        return Ok(Step::End);
    }
    if !is_likely(memory, symbols, layout, &registers, at)
        || is_copy(memory, layout, &registers, at)
    {
        return Ok(Step::Unknown);
    }
    Ok(interrupted(registers, at))
}

fn interrupted(registers: Registers, at: VirtAddr) -> Step {
    Step::Caller(Box::new(Caller {
        registers,
        how: How::SavedRegisters,
        guess: false,
        interrupted: true,
        saved_at: Some(at),
    }))
}

/// Whether the low half of this word can be the `cs` of saved registers.
pub(in crate::unwind) fn may_be_cs(layout: &PtRegs, word: u64) -> bool {
    let cs = word & 0xffff;
    match layout.word {
        _ if layout.hypervisor => cs != 0,
        Word::W64 => matches!(cs, 0x10 | 0x23 | 0x33 | 0xe023 | 0xe030 | 0xe033),
        Word::W32 => matches!(cs, 0x60 | 0x61 | 0x73),
    }
}

/// Whether a `pt_regs` at `at` is at the top of its stack, as on entry from user mode: only padding
/// lies between it and the end of the page.
fn is_top_of_stack(layout: &PtRegs, at: VirtAddr) -> bool {
    let end = at.raw().wrapping_add(layout.size());
    let max = if layout.hypervisor {
        MAX_CPU_INFO
    } else {
        MAX_PADDING
    };
    end.wrapping_neg() % (PAGE_SIZE as u64) <= max
}

/// Whether these are the user registers of a kernel thread, which are zero.
fn is_empty(registers: &Registers) -> bool {
    registers
        .iter()
        .all(|(reg, value)| value == 0 || reg == Reg::Sp)
}

/// Whether these are plausible registers: selectors and flags have few valid values, and the pc and
/// the stack pointer must agree with them. A kernel pc outside all code needs the return address of
/// the call that led there.
fn is_likely(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    layout: &PtRegs,
    registers: &Registers,
    at: VirtAddr,
) -> bool {
    let get = |reg| registers.get(reg).unwrap_or_default();
    // Bit 1 is always set; 3, 5, 15 and all above 21 never are.
    let flags = get(Reg::Flags);
    if flags & 2 == 0 || flags & !0x3f_7fd7 != 0 {
        return false;
    }
    let (cs, ss, sp) = (get(Reg::Cs), registers.get(Reg::Ss), get(Reg::Sp));
    let pc = VirtAddr(get(Reg::Ip));
    if layout.is_user(registers) {
        let selectors = match layout.word {
            Word::W64 => {
                matches!(cs, 0x33 | 0x23 | 0xe033 | 0xe023) && matches!(ss, Some(0x2b | 0xe02b))
            }
            Word::W32 => cs == 0x73 && ss == Some(0x7b),
        };
        return is_top_of_stack(layout, at)
            && (layout.is_guest(registers) || (selectors && sp != 0 && !symbols.is_text(pc)));
    }
    let selectors = match layout.word {
        Word::W64 => {
            // Under Xen PV the RPL is 0 or 3, depending on who saved the selector.
            matches!(cs, 0x10 | 0xe030 | 0xe033 | 0xe008)
                && matches!(ss, None | Some(0 | 0x18 | 0xe02b | 0xe028 | 0xe010))
        }
        Word::W32 => {
            matches!(cs, 0x60 | 0x61 | 0xe008)
                && matches!(get(Reg::Ds), 0 | 0x7b | 0x68 | 0x69 | 0xe010)
                && matches!(ss, None | Some(0x68 | 0x69))
        }
    };
    // The stack pointer of interrupted code is above the registers. It is not if a crash in this
    // frame saved its own registers.
    let same_stack = sp.abs_diff(at.raw()) < MAX_STACK_SIZE;
    // A double fault has a stack of its own: the stack pointer may be invalid.
    let aligned = sp % layout.word.bytes() as u64 == 0;
    selectors
        && (!same_stack || (aligned && sp >= layout.sp_slot(at).raw()))
        && (symbols.is_text(pc) || leaf::is_called(memory, symbols, registers, layout.word))
}

/// Whether these are registers that a crash copied to its stack, where nothing was interrupted.
///
/// Entry code saves no `sp` and `ss` of a 32-bit kernel before Linux 5.3: the words in their place are
/// the stack of the interrupted function. `crash_setup_regs` stores both. In `fixed_regs` of `crash_kexec`
/// they are the address of that frame itself, or of the words in the original.
fn is_copy(
    memory: &dyn Memory<VirtAddr>,
    layout: &PtRegs,
    registers: &Registers,
    at: VirtAddr,
) -> bool {
    if layout.saves_kernel_sp || layout.hypervisor || layout.is_user(registers) {
        return false;
    }
    let slot = layout.sp_slot(at);
    let ss_slot = offset(slot, layout.word.bytes() as i64, layout.word);
    let read = |addr| memory.read_word(addr, layout.word);
    let (Ok(sp), Ok(ss)) = (read(slot), read(ss_slot)) else {
        return false;
    };
    // The selector is stored with the upper half of another register.
    sp.abs_diff(slot.raw()) < MAX_STACK_SIZE
        && sp.is_multiple_of(layout.word.bytes() as u64)
        && matches!(ss & 0xffff, 0x68 | 0x69)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::testing::{Names, Ram};

    const STACK: u64 = 0xc211_7fb4;

    fn names() -> Names {
        Names(vec![(0xc100_0000, "entry_SYSENTER_32"), (0xc190_0000, "")])
    }

    fn at(ram: &Ram, sp: u64) -> Step {
        let registers = Registers::at(VirtAddr(0xc100_0010), VirtAddr(sp));
        step(ram, &names(), &PtRegs::of(Word::W32, None), &registers).unwrap()
    }

    /// A `pt_regs`: general registers, four selectors, `orig_eax`, then `last`.
    fn pt_regs(general: u64, last: [u64; 5]) -> Vec<u64> {
        let mut words = vec![general; 7];
        words.extend([0x7b, 0x7b, 0xd8, 0, 114]);
        words.extend(last);
        words
    }

    #[test]
    fn the_registers_of_a_system_call_are_at_the_stack_pointer() {
        let mut ram = Ram::new(Word::W32);
        let user = [0xb7f0_1549, 0x73, 0x246, 0xbfc0_0010, 0x7b];
        ram.words(STACK, &pt_regs(9, user));
        let Step::Caller(caller) = at(&ram, STACK) else {
            panic!("not seen");
        };
        assert_eq!(caller.saved_at, Some(VirtAddr(STACK)));
        assert_eq!(caller.registers.get(Reg::Ip), Some(0xb7f0_1549));
        assert_eq!(caller.registers.get(Reg::Ss), Some(0x7b));
        assert!(caller.interrupted);
    }

    #[test]
    fn a_system_call_before_linux_4_1_saves_some_registers() {
        const TOP: u64 = 0xffff_8800_001b_8000;
        let mut ram = Ram::new(Word::W64);
        let orig_ax = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let user = [0x2aaa_aa04_d8f4, 0x33, 0x246, 0x7fff_ffaf_f7f8, 0x2b];
        // The frames of C functions are below the registers.
        ram.words(TOP - 168, &[0xdead; 6]);
        ram.words(TOP - 120, &[&orig_ax[..], &user[..]].concat());
        let names = Names(vec![(0xffff_ffff_8010_0000, "system_call")]);
        let at = |release, sp| {
            let pc = VirtAddr(0xffff_ffff_8010_0020);
            let mut registers = Registers::at(pc, VirtAddr(sp));
            registers.set(Reg::Bx, 7);
            step(&ram, &names, &PtRegs::of(Word::W64, release), &registers).unwrap()
        };
        let Step::Caller(caller) = at(Some((2, 6, 16)), TOP - 120) else {
            panic!("not seen");
        };
        assert_eq!(caller.registers.get(Reg::Ip), Some(user[0]));
        assert_eq!(
            caller.registers.get(Reg::Bx),
            Some(7),
            "as preserved by C code"
        );
        assert_eq!(caller.registers.get(Reg::R15), None);
        assert_eq!(caller.saved_at, Some(VirtAddr(TOP - 168)));
        assert!(matches!(at(Some((4, 1, 0)), TOP - 120), Step::Unknown));
        assert!(matches!(at(Some((2, 6, 16)), TOP - 128), Step::Unknown));
    }

    #[test]
    fn registers_passed_on_the_stack_are_one_word_up() {
        let mut ram = Ram::new(Word::W32);
        let kernel = [0xc100_1000, 0x61, 0x202, u64::from(STACK as u32 + 72), 0x69];
        ram.words(STACK, &[STACK + 4]);
        ram.words(STACK + 4, &pt_regs(9, kernel));
        let Step::Caller(caller) = at(&ram, STACK) else {
            panic!("not seen");
        };
        assert_eq!(caller.saved_at, Some(VirtAddr(STACK + 4)));
        assert_eq!(caller.registers.sp(), Some(VirtAddr(STACK + 72)));
    }

    #[test]
    fn a_hypercall_s_arguments_are_below_the_registers() {
        const RET: u64 = 0xff11_00db;
        const REGS: u64 = 0xff40_5fb4;
        let guest = [0xc100_14a7, 0x61, 0x46, 0xc124_eee8, 0x69, 0x7b, 0x7b, 0, 0];
        let mut regs = vec![9; 8];
        regs.extend(guest);
        let code: [(&[u8], u64); 3] = [
            // add $24,%esp; mov %eax,24(%esp).
            (&[0x83, 0xc4, 0x18, 0x89, 0x44, 0x24, 0x18], 24),
            // add $24,%esp; pop %ecx; cmp %ecx,52(%esp); pop %ecx; jne.
            (
                &[
                    0x83, 0xc4, 0x18, 0x59, 0x39, 0x4c, 0x24, 52, 0x59, 0x75, 0x10,
                ],
                32,
            ),
            (&[0x89, 0xc8, 0xc3], 0),
        ];
        for (code, size) in code {
            let mut ram = Ram::new(Word::W32);
            ram.bytes(RET, &[0x90; 64]);
            ram.bytes(RET, code);
            ram.words(REGS - 32, &[1; 8]);
            ram.words(REGS, &regs);
            let registers = Registers::at(VirtAddr(RET), VirtAddr(REGS - size.max(24)));
            let layout = PtRegs::of_xen(Word::W32);
            let found = step(&ram, &names(), &layout, &registers).unwrap();
            match found {
                Step::Caller(caller) => assert_eq!(caller.saved_at, Some(VirtAddr(REGS))),
                _ => assert_eq!(size, 0),
            }
        }
    }

    #[test]
    fn a_kernel_thread_ends_at_its_empty_user_registers() {
        let mut ram = Ram::new(Word::W32);
        ram.words(STACK, &[0; 17]);
        assert!(matches!(at(&ram, STACK), Step::End));
    }

    #[test]
    fn a_kernel_pc_outside_all_code_needs_a_return_address() {
        let sp = STACK + 68;
        let ret = 0xc100_2005;
        for pc in [0, 0x48, 0xb7f0_1549, 0xd000_0000] {
            let mut ram = Ram::new(Word::W32);
            ram.bytes(ret - 8, &[0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0]);
            ram.words(STACK, &pt_regs(9, [pc, 0x60, 0x246, sp, 0x68]));
            assert!(matches!(at(&ram, STACK), Step::Unknown), "no stack");
            ram.words(sp, &[ret - 1]);
            assert!(matches!(at(&ram, STACK), Step::Unknown), "no call");
            ram.words(sp, &[ret]);
            let Step::Caller(caller) = at(&ram, STACK) else {
                panic!("not seen: {pc:#x}");
            };
            assert_eq!(caller.registers.pc(), Some(VirtAddr(pc)));
            assert!(!PtRegs::of(Word::W32, None).is_user(&caller.registers));
        }
    }

    #[test]
    fn the_stack_pointer_of_a_double_fault_may_be_invalid() {
        for sp in [0, 0x1234_5677, 0xffff_fffd] {
            let mut ram = Ram::new(Word::W32);
            ram.words(STACK, &pt_regs(9, [0xc100_1000, 0x60, 0x246, sp, 0x68]));
            let Step::Caller(caller) = at(&ram, STACK) else {
                panic!("not seen: {sp:#x}");
            };
            assert_eq!(caller.registers.sp(), Some(VirtAddr(sp)));
        }
    }

    #[test]
    fn registers_that_a_crash_copied_are_no_interruption() {
        let is_frame = |release, sp: u64, ss: u64| {
            let layout = PtRegs::of(Word::W32, Some(release));
            let mut ram = Ram::new(Word::W32);
            let mut words = vec![9; layout.slots.len()];
            for (reg, value) in [
                (Reg::Ds, 0x7b),
                (Reg::Ip, 0xc100_1000),
                (Reg::Cs, 0x61),
                (Reg::Flags, 0x46),
                (Reg::Sp, sp),
                (Reg::Ss, ss),
            ] {
                words[layout.slot(reg)] = value;
            }
            ram.words(STACK - 0x100, &words);
            let at = VirtAddr(STACK - 0x100);
            matches!(find(&ram, &names(), &layout, at), Ok(Step::Caller(_)))
        };
        for release in [(2, 6, 18), (2, 6, 24), (4, 19, 0)] {
            let (own, original) = (STACK - 0x100, STACK - 0x40);
            assert!(!is_frame(release, own, 0x69), "its own address");
            assert!(!is_frame(release, own - 0x20, 0x7_0068), "lower");
            assert!(!is_frame(release, original, 0x69), "in the original");
            assert!(is_frame(release, original, 0x7b), "any two words");
            assert!(is_frame(release, 0xc100_2000, 0x69));
        }
        // Since Linux 5.3 the frame of an interruption has both.
        assert!(is_frame((5, 3, 0), STACK - 0x40, 0x68));
    }

    #[test]
    fn user_space_may_call_null_too() {
        let mut ram = Ram::new(Word::W32);
        let user = [0, 0x73, 0x246, 0xbfc0_0010, 0x7b];
        ram.words(STACK, &pt_regs(9, user));
        let Step::Caller(caller) = at(&ram, STACK) else {
            panic!("not seen");
        };
        assert!(PtRegs::of(Word::W32, None).is_user(&caller.registers));
    }

    #[test]
    fn implausible_registers_are_rejected() {
        let unlikely = |last| {
            let mut ram = Ram::new(Word::W32);
            ram.words(STACK, &pt_regs(9, last));
            matches!(at(&ram, STACK), Step::Unknown)
        };
        let sp = STACK + 68;
        assert!(!unlikely([0xc100_1000, 0x60, 0x246, sp, 0x68]));
        assert!(unlikely([0xc100_1000, 0x60, 0x244, sp, 0x68]), "flags");
        assert!(unlikely([0xc100_1000, 0x62, 0x246, sp, 0x68]), "cs");
        assert!(unlikely([0xd000_0000, 0x60, 0x246, sp, 0x68]), "pc");
        assert!(unlikely([0xc100_1000, 0x60, 0x246, sp + 2, 0x68]), "sp");
        assert!(unlikely([0xc100_1000, 0x60, 0x246, STACK, 0x68]), "own sp");
        assert!(
            unlikely([0xc100_1000, 0x60, 0x246, STACK - 8, 0x68]),
            "inward"
        );
        assert!(
            unlikely([0xb7f0_1549, 0x73, 0x246, 0xbfc0_0010, 0x68]),
            "ss"
        );
    }
}
