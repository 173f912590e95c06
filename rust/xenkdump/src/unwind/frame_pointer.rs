//! Frame pointers, if the code shows that the register points into the frame.

use crate::addr::{VirtAddr, Word};
use crate::memory::Memory;

use super::frame::How;
use super::registers::{Reg, Registers};
use super::step::{offset, read_word, Caller, Step, Unreadable};
use super::symbols::CodeSymbols;
use super::x86::call_site::call_before;
use super::x86::frame_layout::{CallerBp, FrameAnalyzer, FrameLayout};

/// The layout of code that begins with `push %bp; mov %sp,%bp`: the frame pointer points to the
/// caller's frame pointer, and the return address is a word above.
fn usual(word: Word) -> FrameLayout {
    let width = word.bytes() as i64;
    FrameLayout {
        from_sp: None,
        from_bp: Some(width),
        caller_bp: CallerBp::Pushed(width),
    }
}

/// The caller of the frame with these registers, whose code is at `lookup`.
pub(super) fn step(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    registers: &Registers,
    lookup: VirtAddr,
    frames: &mut FrameAnalyzer<'_>,
    word: Word,
) -> Result<Step, Unreadable> {
    let (Some(pc), Some(sp), Some(bp)) = (registers.pc(), registers.sp(), registers.get(Reg::Bp))
    else {
        return Ok(Step::Unknown);
    };
    // Code without a symbol (a JIT's, a trampoline's) cannot be analyzed from its start. In a kernel
    // it usually keeps frame pointers.
    let (layout, guess) = if symbols.is_text(lookup) {
        let [layout] = frames.at(pc, lookup) else {
            return Ok(Step::Unknown);
        };
        (*layout, false)
    } else {
        (usual(word), true)
    };
    let Some(up) = layout.from_bp else {
        return Ok(Step::Unknown);
    };
    let at = offset(VirtAddr(bp), up, word);
    if at < sp || !at.0.is_multiple_of(word.bytes() as u64) {
        return Ok(Step::Unknown);
    }
    let ret = VirtAddr(read_word(memory, at, word)?);
    if !symbols.is_text(ret) || call_before(memory, symbols, ret, word).is_none() {
        return Ok(Step::Unknown);
    }
    let mut caller = Registers::at(ret, offset(at, word.bytes() as i64, word));
    caller.put(Reg::Bp, layout.bp_of_caller(memory, registers, at, word));
    Ok(Step::Caller(Box::new(Caller {
        registers: caller,
        how: How::FramePointer,
        guess,
        interrupted: false,
        saved_at: None,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::testing::{Names, Ram};
    use crate::unwind::x86::function_cache::{stack_budget, FunctionCache};

    const CODE: u64 = 0xc100_0000;
    const STACK: u64 = 0xc200_0100;
    const RET: u64 = CODE + 0x205;

    /// `f` keeps a frame pointer and aligns its stack, `g` does not.
    fn test_kernel() -> (Ram, Names) {
        let mut ram = Ram::new(Word::W32);
        ram.bytes(CODE, &[0x90; 0x1000]);
        // f: push %ebp; mov %esp,%ebp; and $-16,%esp; call.
        ram.bytes(
            CODE,
            &[0x55, 0x89, 0xe5, 0x83, 0xe4, 0xf0, 0xe8, 0, 0, 0, 0],
        );
        // g: push %ebp; mov %eax,%ebp; call.
        ram.bytes(CODE + 0x100, &[0x55, 0x89, 0xc5, 0xe8, 0, 0, 0, 0]);
        ram.bytes(RET - 5, &[0xe8, 0xfb, 0xfd, 0xff, 0xff]);
        ram.words(STACK, &[1, 2, 3, STACK + 0x40, RET]);
        let names = Names(vec![
            (CODE, "f"),
            (CODE + 0x100, "g"),
            (CODE + 0x200, "h"),
            (CODE + 0x1000, ""),
        ]);
        (ram, names)
    }

    fn caller_of(pc: u64, bp: u64) -> Option<Caller> {
        let (ram, names) = test_kernel();
        let mut registers = Registers::at(VirtAddr(pc), VirtAddr(STACK));
        registers.set(Reg::Bp, bp);
        let (mut cache, budget) = (FunctionCache::default(), stack_budget());
        let mut frames = FrameAnalyzer::new(&ram, &names, Word::W32, &mut cache, &budget);
        let lookup = VirtAddr(pc - 1);
        match step(&ram, &names, &registers, lookup, &mut frames, Word::W32).unwrap() {
            Step::Caller(caller) => Some(*caller),
            _ => None,
        }
    }

    #[test]
    fn the_caller_of_an_aligned_frame_is_found() {
        let caller = caller_of(CODE + 11, STACK + 12).unwrap();
        assert_eq!(caller.registers.pc(), Some(VirtAddr(RET)));
        assert_eq!(caller.registers.sp(), Some(VirtAddr(STACK + 20)));
        assert_eq!(caller.registers.get(Reg::Bp), Some(STACK + 0x40));
        assert!(!caller.guess);
    }

    #[test]
    fn a_register_that_is_not_a_frame_pointer_is_rejected() {
        assert!(caller_of(CODE + 0x108, STACK + 12).is_none());
        assert!(
            caller_of(CODE + 11, STACK + 8).is_none(),
            "no return address"
        );
        assert!(
            caller_of(CODE + 11, STACK - 0x40).is_none(),
            "below the stack pointer"
        );
        assert!(caller_of(CODE + 11, STACK + 13).is_none(), "not aligned");
    }

    #[test]
    fn code_without_a_symbol_has_the_usual_layout() {
        let caller = caller_of(0xd000_0000, STACK + 12).unwrap();
        assert_eq!(caller.registers.pc(), Some(VirtAddr(RET)));
        assert!(caller.guess);
    }
}
