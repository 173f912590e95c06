//! Callers of code without unwind data and without a frame: hypercall stubs, and a pc outside all
//! code.

use crate::addr::{VirtAddr, Word, PAGE_SIZE};
use crate::memory::Memory;
use crate::unwind::frame::How;
use crate::unwind::registers::{Reg, Registers};
use crate::unwind::step::{offset, read_word, Caller, Step, Unreadable};
use crate::unwind::symbols::CodeSymbols;

use super::call_site::{call_before, Call};
use super::decode::{decode, Effect};

/// Whether this is code that Xen writes when the kernel starts, in a slot of 32 bytes for each
/// hypercall. Linux's tables do not describe it, or (Linux 4.14 to 5.11) end the stack there.
pub(in crate::unwind) fn is_hypercall_stub(name: &str) -> bool {
    name == "hypercall_page" || name.starts_with("xen_hypercall_")
}

/// The code that [`run_to_ret`] reads: a slot of the hypercall page.
const WINDOW: usize = 32;

/// The caller of a stub, by the effects of its instructions from the pc to its `ret`. A stub does not
/// branch.
pub(in crate::unwind) fn run_to_ret(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    registers: &Registers,
    word: Word,
) -> Result<Step, Unreadable> {
    let (Some(pc), Some(sp)) = (registers.pc(), registers.sp()) else {
        return Ok(Step::Unknown);
    };
    let mut code = [0; WINDOW];
    if memory.read(pc, &mut code).is_err() {
        return Ok(Step::Unknown);
    }
    let Some((stack, bp_at)) = stack_at_ret(&code, pc, word) else {
        return Ok(Step::Unknown);
    };
    let at = offset(sp, stack, word);
    let Step::Caller(mut caller) = return_address(memory, symbols, at, registers, word, false)?
    else {
        return Ok(Step::Unknown);
    };
    if let Some(bp_at) = bp_at {
        let saved = memory.read_word(offset(sp, bp_at, word), word);
        caller.registers.put(Reg::Bp, saved.ok());
    }
    Ok(Step::Caller(caller))
}

/// The distance by which the code moves the stack pointer up to its `ret`, and the position from which
/// it pops the frame pointer, relative to the stack pointer at the pc.
fn stack_at_ret(mut code: &[u8], mut pc: VirtAddr, word: Word) -> Option<(i64, Option<i64>)> {
    let width = word.bytes() as i64;
    let (mut stack, mut bp_at) = (0, None);
    loop {
        let instruction = decode(code, pc, word)?;
        match instruction.effect {
            Effect::Return => return Some((stack, bp_at)),
            Effect::Stack(bytes) => stack += bytes,
            Effect::PushFrame => stack -= width,
            Effect::PopFrame => {
                bp_at = Some(stack);
                stack += width;
            }
            Effect::None => {}
            _ => return None,
        }
        code = code.get(instruction.length..)?;
        pc = offset(pc, instruction.length as i64, word);
    }
}

/// Whether the pc is in the page at 0, which is never mapped so that accesses through NULL fault. No
/// table describes code there.
pub(in crate::unwind) fn is_null_page(pc: VirtAddr) -> bool {
    pc.0 < PAGE_SIZE as u64
}

/// The caller if the word at the top of the stack is the return address of a call that can have led
/// to the pc. This is the case after a call through a wild pointer, and at the first instruction of a
/// function. After a call through NULL it is reliable: Linux's own unwinder does the same
/// (arch/x86/kernel/unwind_orc.c, `null_orc_entry`, since 5.1).
pub(in crate::unwind) fn top_of_stack(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    registers: &Registers,
    word: Word,
) -> Result<Step, Unreadable> {
    let (Some(pc), Some(sp)) = (registers.pc(), registers.sp()) else {
        return Ok(Step::Unknown);
    };
    let Step::Caller(mut caller) = return_address(memory, symbols, sp, registers, word, true)?
    else {
        return Ok(Step::Unknown);
    };
    let call = caller
        .registers
        .pc()
        .and_then(|ret| call_before(memory, symbols, ret, word));
    let led_here = match symbols.function(pc).filter(|_| symbols.is_text(pc)) {
        Some(function) => match call {
            Some(Call::Direct(target)) => target == function.start,
            Some(Call::Indirect) => pc == function.start,
            None => false,
        },
        None => {
            caller.guess = !(is_null_page(pc) && call == Some(Call::Indirect));
            true
        }
    };
    Ok(match led_here {
        true => Step::Caller(caller),
        false => Step::Unknown,
    })
}

/// Whether the return address of the call that led to the pc is at the top of the stack.
pub(in crate::unwind) fn is_called(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    registers: &Registers,
    word: Word,
) -> bool {
    matches!(
        top_of_stack(memory, symbols, registers, word),
        Ok(Step::Caller(_))
    )
}

fn return_address(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    at: VirtAddr,
    registers: &Registers,
    word: Word,
    guess: bool,
) -> Result<Step, Unreadable> {
    let pc = VirtAddr(read_word(memory, at, word)?);
    if !symbols.is_text(pc) || call_before(memory, symbols, pc, word).is_none() {
        return Ok(Step::Unknown);
    }
    // Such code has not changed any callee-saved register.
    let mut caller = Registers::at(pc, offset(at, word.bytes() as i64, word));
    for (reg, value) in registers.iter() {
        if reg.is_callee_saved(word) {
            caller.set(reg, value);
        }
    }
    Ok(Step::Caller(Box::new(Caller {
        registers: caller,
        how: How::Leaf,
        guess,
        interrupted: false,
        saved_at: None,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::testing::{Names, Ram};

    /// The slot that Xen writes for hypercall 29 of a 64-bit PV guest.
    const PV64: [u8; 15] = [
        0x51, 0x41, 0x53, 0xb8, 29, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3, 0xcc,
    ];
    const PAGE: u64 = 0xffff_ffff_8100_1000;
    const RET: u64 = 0xffff_ffff_8100_0105;
    const STACK: u64 = 0xffff_c900_0000_1000;

    fn test_kernel() -> (Ram, Names) {
        let mut ram = Ram::new(Word::W64);
        ram.bytes(RET - 0x100, &[0x90; 0x200]);
        let distance = (PAGE + 29 * 32).wrapping_sub(RET) as u32;
        ram.bytes(RET - 5, &[0xe8]);
        ram.bytes(RET - 4, &distance.to_le_bytes());
        ram.bytes(PAGE, &[0xcc; 0x1000]);
        ram.bytes(PAGE + 29 * 32, &PV64);
        ram.words(STACK, &[0x11, 0x22, RET, RET]);
        let names = Names(vec![
            (PAGE - 0x1000, "caller"),
            (PAGE, "hypercall_page"),
            (PAGE + 0x1000, ""),
        ]);
        (ram, names)
    }

    #[test]
    fn a_caller_is_found_from_any_instruction_of_a_hypercall_slot() {
        let (ram, names) = test_kernel();
        // The position of the return address at each instruction, in words above the stack pointer.
        for (instruction, words) in [(0, 0), (1, 1), (3, 2), (8, 2), (10, 2), (12, 1), (13, 0)] {
            let sp = STACK + 16 - words * 8;
            let registers = Registers::at(VirtAddr(PAGE + 29 * 32 + instruction), VirtAddr(sp));
            let Ok(Step::Caller(caller)) = run_to_ret(&ram, &names, &registers, Word::W64) else {
                panic!("no caller at +{instruction}");
            };
            assert_eq!(caller.registers.pc(), Some(VirtAddr(RET)));
            assert_eq!(caller.registers.sp(), Some(VirtAddr(STACK + 24)));
            assert!(!caller.guess);
        }
    }

    #[test]
    fn other_code_and_other_words_are_rejected() {
        let (ram, names) = test_kernel();
        let unknown = |pc, sp| {
            let registers = Registers::at(VirtAddr(pc), VirtAddr(sp));
            matches!(
                run_to_ret(&ram, &names, &registers, Word::W64),
                Ok(Step::Unknown) | Err(_)
            )
        };
        assert!(unknown(PAGE + 32, STACK));
        assert!(unknown(PAGE + 29 * 32 + 10, STACK - 8));
        assert!(unknown(PAGE + 29 * 32 + 10, u64::MAX - 7));
        assert!(unknown(0x1000, STACK));
    }

    #[test]
    fn after_a_call_through_a_wild_pointer_the_return_address_is_on_top() {
        let (ram, names) = test_kernel();
        let registers = Registers::at(VirtAddr(0), VirtAddr(STACK + 16));
        let Ok(Step::Caller(caller)) = top_of_stack(&ram, &names, &registers, Word::W64) else {
            panic!("no caller");
        };
        assert_eq!(caller.registers.pc(), Some(VirtAddr(RET)));
        assert!(caller.guess);
    }

    #[test]
    fn an_indirect_call_into_the_null_page_is_reliable() {
        let (mut ram, names) = test_kernel();
        ram.bytes(RET - 2, &[0xff, 0xd0]);
        for (pc, guess) in [
            (0, false),
            (0x48, false),
            (0x1000, true),
            (0xdead_0000_0000_dead, true),
        ] {
            let mut registers = Registers::at(VirtAddr(pc), VirtAddr(STACK + 16));
            registers.set(Reg::Bp, 0x11);
            let Ok(Step::Caller(caller)) = top_of_stack(&ram, &names, &registers, Word::W64) else {
                panic!("no caller of {pc:#x}");
            };
            assert_eq!(caller.registers.pc(), Some(VirtAddr(RET)));
            assert_eq!(caller.registers.sp(), Some(VirtAddr(STACK + 24)));
            assert_eq!(caller.registers.get(Reg::Bp), Some(0x11));
            assert_eq!(caller.guess, guess, "{pc:#x}");
        }
        // A `ret` to 0 has popped the return address.
        let registers = Registers::at(VirtAddr(0), VirtAddr(STACK));
        assert!(!is_called(&ram, &names, &registers, Word::W64));
    }
}
