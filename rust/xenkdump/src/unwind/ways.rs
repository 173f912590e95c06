//! What is tried to find the caller of a frame, in which order.

use std::sync::PoisonError;

use crate::addr::{Address, VirtAddr, Word};

use super::call_site::call_before;
use super::depth::Depths;
use super::facts::Effort;
use super::frame_pointer;
use super::leaf;
use super::orc_step;
use super::outermost::is_outermost;
use super::registers::{Reg, Registers};
use super::saved;
use super::scan::Scan;
use super::stack_switch;
use super::step::{Caller, Step, Unreadable};
use super::unwinder::{Method, Stack, Unwinder};

/// What is tried for a frame.
#[derive(Clone, Copy)]
enum Way {
    /// Code that Xen wrote over the kernel's, by running it: tables know only what lay there before.
    Stub,
    By(Method),
    /// Entry code, by the registers it saved.
    Entry,
    /// Code that keeps no frame.
    Leaf,
}

impl Way {
    /// All of them, the best first.
    const ALL: [Way; 7] = [
        Way::Stub,
        Way::By(Method::Orc),
        Way::By(Method::Cfi),
        Way::Entry,
        Way::Leaf,
        Way::By(Method::FramePointer),
        Way::By(Method::Scan),
    ];
}

/// So many times a stack is scanned: once more for each interruption, and where the chain was
/// left for a better method.
const MOST_SCANS: usize = 16;

/// The most bytes that a stack has above its first function: a `pt_regs` that is not used, and what
/// little was pushed before the function was called.
const MOST_ABOVE_FIRST: u64 = 256;

/// What scans of a stack have found so far.
#[derive(Default)]
pub(super) struct Scans {
    /// The last chain.
    chain: Vec<Caller>,
    count: usize,
    /// What code may still be looked at.
    pub effort: Effort,
}

impl Unwinder {
    /// The caller of the frame with these registers, whose code is at `lookup`.
    pub(super) fn step(
        &self,
        stack: &Stack<'_>,
        frame: &Caller,
        lookup: VirtAddr,
        scans: &mut Scans,
    ) -> Result<Step, Unreadable> {
        let mut unreadable = None;
        let switched = Caller {
            registers: match frame.interrupted {
                true => None,
                false => stack_switch::undone(stack.memory, &frame.registers, self.word),
            }
            .unwrap_or(frame.registers),
            ..frame.clone()
        };
        for way in Way::ALL {
            let step = match way {
                Way::By(method) if !self.methods.contains(&method) => continue,
                // An image may have entries for discarded code, which is linked at 0.
                Way::By(Method::Orc | Method::Cfi) if leaf::is_null_page(lookup) => continue,
                Way::By(Method::Orc) => self.orc_step(stack, &frame.registers, lookup),
                Way::By(Method::Cfi) => {
                    self.cfi_step(stack, &switched.registers, lookup, &scans.effort)
                }
                Way::By(Method::FramePointer) => {
                    self.frame_pointer_step(stack, &switched, lookup, &scans.effort)
                }
                Way::By(Method::Scan) => Ok(self.scan_step(stack, &switched, lookup, scans)),
                Way::Entry => {
                    saved::step(stack.memory, stack.symbols, &self.layout, &frame.registers)
                }
                Way::Stub if self.is_stub(stack, lookup) => {
                    leaf::run_to_ret(stack.memory, stack.symbols, &frame.registers, self.word)
                }
                Way::Leaf if frame.interrupted => {
                    leaf::top_of_stack(stack.memory, stack.symbols, &frame.registers, self.word)
                }
                Way::Stub | Way::Leaf => continue,
            };
            match step {
                Ok(Step::Caller(caller)) if self.is_plausible(stack, &caller) => {
                    return Ok(Step::Caller(caller))
                }
                Ok(Step::End) if !self.is_stub(stack, lookup) => return Ok(Step::End),
                Ok(_) => {}
                Err(fault) => unreadable = unreadable.or(Some(fault)),
            }
        }
        let outermost = stack
            .symbols
            .function(lookup)
            .is_some_and(|function| is_outermost(function.name, stack.symbols));
        if outermost {
            return Ok(Step::End);
        }
        unreadable.map_or(Ok(Step::Unknown), Err)
    }

    fn frame_pointer_step(
        &self,
        stack: &Stack<'_>,
        frame: &Caller,
        lookup: VirtAddr,
        effort: &Effort,
    ) -> Result<Step, Unreadable> {
        let Stack {
            memory, symbols, ..
        } = *stack;
        let mut code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        let mut depths = Depths::new(memory, symbols, self.word, &mut code.places, effort);
        frame_pointer::step(
            memory,
            symbols,
            &frame.registers,
            lookup,
            &mut depths,
            self.word,
        )
    }

    /// The next frame of the chain that a scan found before, or of a new one.
    fn scan_step(
        &self,
        stack: &Stack<'_>,
        frame: &Caller,
        lookup: VirtAddr,
        scans: &mut Scans,
    ) -> Step {
        let here = (frame.registers.pc(), frame.registers.sp());
        let known = scans
            .chain
            .iter()
            .position(|found| (found.registers.pc(), found.registers.sp()) == here);
        let next = match known {
            // An interrupted frame may stand on another stack, which is to be scanned anew.
            Some(at) if at + 1 < scans.chain.len() || !frame.interrupted => at + 1,
            _ if scans.count >= MOST_SCANS || scans.effort.is_spent() => return Step::Unknown,
            _ => {
                let scan = Scan {
                    memory: stack.memory,
                    symbols: stack.symbols,
                    layout: &self.layout,
                };
                let mut code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
                let high = self.stack_end(stack, frame);
                scans.chain = scan.chain(frame, lookup, high, &mut code, &scans.effort);
                scans.count += 1;
                0
            }
        };
        match scans.chain.get(next) {
            Some(caller) => Step::Caller(Box::new(caller.clone())),
            None => Step::Unknown,
        }
    }

    /// Where the stack of this frame ends, as far as anything tells: stacks are aligned to their
    /// size.
    fn stack_end(&self, stack: &Stack<'_>, frame: &Caller) -> VirtAddr {
        let sp = frame.registers.sp().unwrap_or_default();
        let known = stack
            .bounds
            .iter()
            .find(|(low, high)| (*low..*high).contains(&sp));
        match known {
            Some((_, high)) => *high,
            None => {
                let size = match self.word {
                    Word::W32 => 8 << 10,
                    Word::W64 => 16 << 10,
                };
                VirtAddr((sp.raw() | (size - 1)).saturating_add(1))
            }
        }
    }

    fn is_stub(&self, stack: &Stack<'_>, lookup: VirtAddr) -> bool {
        stack
            .symbols
            .function(lookup)
            .is_some_and(|function| leaf::is_hypercall_stub(function.name))
    }

    fn orc_step(
        &self,
        stack: &Stack<'_>,
        registers: &Registers,
        lookup: VirtAddr,
    ) -> Result<Step, Unreadable> {
        // There are no such tables on 32 bits.
        let found = match self.word {
            Word::W32 => None,
            Word::W64 => self.orc.find(lookup),
        };
        found.map_or(Ok(Step::Unknown), |(format, entry)| {
            orc_step::step(
                &entry,
                format.indirect_then_offset,
                &self.layout,
                stack.memory,
                registers,
            )
        })
    }

    fn cfi_step(
        &self,
        stack: &Stack<'_>,
        registers: &Registers,
        lookup: VirtAddr,
        effort: &Effort,
    ) -> Result<Step, Unreadable> {
        for table in &self.cfi {
            let step = table.step(stack.memory, registers, lookup, effort)?;
            if !matches!(step, Step::Unknown) {
                return Ok(step);
            }
        }
        Ok(Step::Unknown)
    }

    /// Whether this can be a caller at all: unwind data for the wrong code, or a stack that was
    /// overwritten, must not lead to nonsense.
    fn is_plausible(&self, stack: &Stack<'_>, caller: &Caller) -> bool {
        let (Some(pc), Some(sp)) = (caller.registers.pc(), caller.registers.sp()) else {
            return false;
        };
        let saved = caller.interrupted || caller.saved_at.is_some();
        if pc.raw() == 0 {
            return saved || self.is_first(stack, caller);
        }
        // Nobody returns to user space as to a caller.
        if self.layout.is_user(&caller.registers) {
            return saved;
        }
        // An interrupted pc may be anything: a jump through a bad pointer leads anywhere. So may the
        // stack pointer: where it is invalid, the exception becomes a double fault.
        if caller.interrupted {
            return true;
        }
        if sp.raw() % self.word.bytes() as u64 != 0 {
            return false;
        }
        // Code that symbols know nothing of (a module's, a JIT's) must at least have made a call.
        stack.symbols.is_text(VirtAddr(pc.raw().wrapping_sub(1)))
            || call_before(stack.memory, stack.symbols, pc, self.word).is_some()
    }

    /// Whether there is nothing behind this caller: its pc is 0, and no call through NULL led there.
    pub(super) fn is_end(&self, stack: &Stack<'_>, caller: &Caller) -> bool {
        let registers = &caller.registers;
        if registers.get(Reg::Ip) != Some(0) {
            return false;
        }
        // What old kernels push below the first function of a stack.
        if !caller.interrupted || !self.layout.may_be_at_null(registers) {
            return true;
        }
        // From 3.8 to 4.8 copy_thread gave the user registers of a kernel thread the kernel's cs
        // and a stack pointer at the top of its stack.
        !self.layout.is_user(registers)
            && self.is_first(stack, caller)
            && !leaf::is_called(stack.memory, stack.symbols, registers, self.word)
    }

    /// Whether this lies where a stack begins. A return address of 0 there marks the first function;
    /// anywhere else the stack was overwritten, or read amiss.
    fn is_first(&self, stack: &Stack<'_>, caller: &Caller) -> bool {
        let sp = caller.registers.sp().unwrap_or_default();
        let above = self.stack_end(stack, caller).raw().saturating_sub(sp.raw());
        above <= MOST_ABOVE_FIRST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::frame::How;
    use crate::unwind::testing::{Names, Ram};

    const LOW: u64 = 0xffff_c900_0000_0000;
    const HIGH: u64 = LOW + 0x4000;

    const RET: u64 = 0xffff_ffff_8100_0102;

    /// What `ask` says of this caller on a stack with a return address in each word.
    fn asked(
        caller: (u64, u64, Option<u64>, bool),
        word_on_stack: u64,
        ask: impl Fn(&Unwinder, &Stack<'_>, &Caller) -> bool,
    ) -> bool {
        let (pc, sp, cs, interrupted) = caller;
        let mut ram = Ram::new(Word::W64);
        ram.bytes(RET - 0x102, &[0x90; 0x100]);
        ram.bytes(RET - 2, &[0xff, 0xd0]);
        ram.words(sp, &[word_on_stack]);
        let stack = Stack {
            memory: &ram,
            symbols: &Names(vec![(0xffff_ffff_8100_0000, "f")]),
            registers: Registers::new(),
            exact: false,
            bounds: &[(VirtAddr(LOW), VirtAddr(HIGH))],
            limit: 1,
        };
        let mut registers = Registers::at(VirtAddr(pc), VirtAddr(sp));
        registers.put(Reg::Cs, cs);
        let caller = Caller {
            registers,
            how: How::Cfi,
            guess: false,
            interrupted,
            saved_at: None,
        };
        ask(&Unwinder::new(Word::W64, None), &stack, &caller)
    }

    fn is_plausible(pc: u64, sp: u64, interrupted: bool) -> bool {
        let caller = (pc, sp, None, interrupted);
        asked(caller, 0, Unwinder::is_plausible)
    }

    #[test]
    fn a_call_through_null_does_not_end_a_stack() {
        let ends =
            |sp, cs, interrupted, top| asked((0, sp, cs, interrupted), top, Unwinder::is_end);
        assert!(!ends(HIGH - 1024, Some(0x10), true, RET));
        assert!(!ends(HIGH - 1024, Some(0x10), true, 0), "a return to 0");
        assert!(!ends(HIGH - 176, Some(0x10), true, RET), "the first call");
        assert!(!ends(0x7ffc_a352_9220, Some(0x33), true, 0), "user space");
        assert!(ends(HIGH - 64, None, false, 0), "the first function");
        assert!(ends(0, Some(0), true, 0), "a kernel thread");
        assert!(ends(HIGH - 168, Some(0x10), true, 0), "one of 3.8 to 4.8");
        assert!(ends(0, Some(0x33), true, 0), "an io worker");
        assert!(!ends(0, Some(0x10), true, 0), "no stack either");
        assert!(!asked((0x48, 0, None, true), 0, Unwinder::is_end));
    }

    #[test]
    fn only_the_first_function_of_a_stack_returns_to_0() {
        assert!(is_plausible(0, HIGH - 64, false));
        assert!(!is_plausible(0, HIGH - 1024, false), "overwritten");
        assert!(
            is_plausible(0, HIGH - 1024, true),
            "a call of a null pointer"
        );
    }

    #[test]
    fn an_interrupted_stack_pointer_may_be_invalid() {
        for sp in [0, 0x0123_4567, 0xdead_0000_0000_dead, HIGH - 1021] {
            assert!(is_plausible(RET, sp, true), "{sp:#x}");
        }
        assert!(!is_plausible(RET, HIGH - 1021, false));
    }

    #[test]
    fn user_space_is_left_by_an_exception_not_by_a_call() {
        assert!(is_plausible(0x4111eb, 0x7ffc_a352_9220, true));
        assert!(!is_plausible(0x246, HIGH - 1024, false));
    }
}
