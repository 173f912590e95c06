//! Frame pointers: where the code shows that the register points into the frame.

use crate::addr::{VirtAddr, Word};
use crate::memory::Memory;

use super::call_site::call_before;
use super::depth::{CallerBp, Depths, Place};
use super::frame::How;
use super::registers::{Reg, Registers};
use super::step::{offset, read_word, Caller, Step, Unreadable};
use super::symbols::CodeSymbols;

/// A return address lies a word above the caller's frame pointer, to which this one points, in
/// code that begins `push %bp; mov %sp,%bp`.
fn usual(word: Word) -> Place {
    let width = word.bytes() as i64;
    Place {
        stack: None,
        frame: Some(width),
        caller_bp: CallerBp::Pushed(width),
    }
}

/// The caller of the frame with these registers, whose code is at `lookup`.
pub(super) fn step(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    registers: &Registers,
    lookup: VirtAddr,
    depths: &mut Depths<'_>,
    word: Word,
) -> Result<Step, Unreadable> {
    let (Some(pc), Some(sp), Some(bp)) = (registers.pc(), registers.sp(), registers.get(Reg::Bp))
    else {
        return Ok(Step::Unknown);
    };
    // Code without a name (a JIT's, a trampoline's) is no kernel's C code, but what runs in a
    // kernel mostly keeps frame pointers.
    let (place, guess) = if symbols.is_text(lookup) {
        let [place] = depths.at(pc, lookup) else {
            return Ok(Step::Unknown);
        };
        (*place, false)
    } else {
        (usual(word), true)
    };
    let Some(up) = place.frame else {
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
    caller.put(Reg::Bp, place.bp_of_caller(memory, registers, at, word));
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
    use crate::unwind::facts::{Effort, Known};
    use crate::unwind::testing::{Names, Ram};

    const CODE: u64 = 0xc100_0000;
    const STACK: u64 = 0xc200_0100;
    const RET: u64 = CODE + 0x205;

    /// `f` keeps a frame pointer and aligns its stack, `g` does not.
    fn setting() -> (Ram, Names) {
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
        let (ram, names) = setting();
        let mut registers = Registers::at(VirtAddr(pc), VirtAddr(STACK));
        registers.set(Reg::Bp, bp);
        let (mut known, effort) = (Known::default(), Effort::default());
        let mut depths = Depths::new(&ram, &names, Word::W32, &mut known, &effort);
        let lookup = VirtAddr(pc - 1);
        match step(&ram, &names, &registers, lookup, &mut depths, Word::W32).unwrap() {
            Step::Caller(caller) => Some(*caller),
            _ => None,
        }
    }

    #[test]
    fn a_frame_pointer_leads_out_of_an_aligned_frame() {
        let caller = caller_of(CODE + 11, STACK + 12).unwrap();
        assert_eq!(caller.registers.pc(), Some(VirtAddr(RET)));
        assert_eq!(caller.registers.sp(), Some(VirtAddr(STACK + 20)));
        assert_eq!(caller.registers.get(Reg::Bp), Some(STACK + 0x40));
        assert!(!caller.guess);
    }

    #[test]
    fn a_register_that_the_code_uses_for_something_else_is_not_believed() {
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
    fn code_without_a_name_is_given_the_usual_frame() {
        let caller = caller_of(0xd000_0000, STACK + 12).unwrap();
        assert_eq!(caller.registers.pc(), Some(VirtAddr(RET)));
        assert!(caller.guess);
    }
}
