//! Selects the method that finds the caller of a frame, and validates the result.

use std::sync::{Mutex, PoisonError};

use crate::addr::{Address, VirtAddr, Word};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::MAX_STACK_SCANS;

use super::cfi::table::CfiTable;
use super::frame_pointer;
use super::orc;
use super::orc::table::OrcTables;
use super::outermost::is_outermost;
use super::registers::{Reg, Registers};
use super::scan::candidates::Scan;
use super::stack::{Method, Stack};
use super::step::{Caller, Step, Unreadable};
use super::x86::call_site::call_before;
use super::x86::code_cache::CodeCache;
use super::x86::frame_layout::FrameAnalyzer;
use super::x86::function_cache::stack_budget;
use super::x86::pt_regs::PtRegs;
use super::x86::{leaf, saved_regs, stack_switch};

/// One attempt to find the caller of a frame.
#[derive(Clone, Copy)]
enum Attempt {
    /// A hypercall stub, whose code is followed to its `ret`. Xen writes them over the kernel's code,
    /// so the kernel's tables do not describe them.
    Stub,
    /// One of the methods.
    By(Method),
    /// Entry code, by the registers that it saved.
    Entry,
    /// Code without a frame, by the top of the stack.
    Leaf,
}

impl Attempt {
    /// All of them, the most reliable first.
    const ALL: [Attempt; 7] = [
        Attempt::Stub,
        Attempt::By(Method::Orc),
        Attempt::By(Method::Cfi),
        Attempt::Entry,
        Attempt::Leaf,
        Attempt::By(Method::FramePointer),
        Attempt::By(Method::Scan),
    ];
}

/// The maximum distance in bytes from the frame of a stack's first function to the end of the stack:
/// an unused `pt_regs`, and the little that was pushed before the function was called.
const MAX_ABOVE_FIRST: u64 = 256;

/// The state of the scans of one stack.
pub(super) struct Scans {
    /// The chain that the last scan found.
    chain: Vec<Caller>,
    count: usize,
    /// The budget for analyzing the code of this stack.
    pub budget: Budget<'static>,
}

impl Default for Scans {
    fn default() -> Self {
        Self {
            chain: Vec::new(),
            count: 0,
            budget: stack_budget(),
        }
    }
}

/// The unwind tables of one kernel, or of Xen, and the methods that use them.
#[derive(Debug)]
pub(super) struct Strategy {
    pub word: Word,
    pub layout: PtRegs,
    pub orc: OrcTables,
    pub cfi: Vec<CfiTable>,
    pub methods: Vec<Method>,
    /// Shared by all stacks of the kernel.
    code: Mutex<CodeCache>,
}

impl Strategy {
    /// All methods, without tables.
    pub fn new(word: Word, layout: PtRegs) -> Self {
        Self {
            word,
            layout,
            orc: OrcTables::default(),
            cfi: Vec::new(),
            methods: alloc::copied(&Method::ALL),
            code: Mutex::default(),
        }
    }

    /// The caller of `frame`, whose code is at `lookup`.
    pub fn step(
        &self,
        stack: &Stack<'_>,
        frame: &Caller,
        lookup: VirtAddr,
        scans: &mut Scans,
    ) -> Result<Step, Unreadable> {
        let Stack {
            memory, symbols, ..
        } = *stack;
        let registers = &frame.registers;
        let mut unreadable = None;
        // ORC describes stack switches; the other methods do not.
        let switched = match frame.interrupted {
            true => None,
            false => stack_switch::switch_back(memory, registers, self.word),
        };
        let switched = Caller {
            registers: switched.unwrap_or(*registers),
            ..frame.clone()
        };
        let is_stub = symbols
            .function(lookup)
            .is_some_and(|function| leaf::is_hypercall_stub(function.name));
        for attempt in Attempt::ALL {
            let step = match attempt {
                Attempt::By(method) if !self.methods.contains(&method) => continue,
                // An image may have entries for discarded code, which is linked at 0.
                Attempt::By(Method::Orc | Method::Cfi) if leaf::is_null_page(lookup) => continue,
                Attempt::By(Method::Orc) => self.orc_step(stack, registers, lookup),
                Attempt::By(Method::Cfi) => {
                    self.cfi_step(stack, &switched.registers, lookup, &scans.budget)
                }
                Attempt::By(Method::FramePointer) => {
                    self.frame_pointer_step(stack, &switched, lookup, &scans.budget)
                }
                Attempt::By(Method::Scan) => Ok(self.scan_step(stack, &switched, lookup, scans)),
                Attempt::Entry => saved_regs::step(memory, symbols, &self.layout, registers),
                Attempt::Stub if is_stub => leaf::run_to_ret(memory, symbols, registers, self.word),
                Attempt::Leaf if frame.interrupted => {
                    leaf::top_of_stack(memory, symbols, registers, self.word)
                }
                Attempt::Stub | Attempt::Leaf => continue,
            };
            match step {
                Ok(Step::Caller(caller)) if self.is_plausible(stack, &caller) => {
                    return Ok(Step::Caller(caller))
                }
                // From Linux 4.14 to 5.11 ORC ends a stack at a hypercall stub.
                Ok(Step::End) if !is_stub => return Ok(Step::End),
                Ok(_) => {}
                Err(fault) => unreadable = unreadable.or(Some(fault)),
            }
        }
        let outermost = symbols
            .function(lookup)
            .is_some_and(|function| is_outermost(function.name, symbols));
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
        budget: &Budget<'_>,
    ) -> Result<Step, Unreadable> {
        let Stack {
            memory, symbols, ..
        } = *stack;
        let mut code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frames = FrameAnalyzer::new(memory, symbols, self.word, &mut code.layouts, budget);
        frame_pointer::step(
            memory,
            symbols,
            &frame.registers,
            lookup,
            &mut frames,
            self.word,
        )
    }

    /// The next frame of the chain that the last scan found, or the first frame of a new one.
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
            // An interrupted frame may be on another stack, which needs a scan of its own.
            Some(at) if at + 1 < scans.chain.len() || !frame.interrupted => at + 1,
            _ if scans.count >= MAX_STACK_SCANS || scans.budget.is_exhausted() => {
                return Step::Unknown
            }
            _ => {
                let scan = Scan {
                    memory: stack.memory,
                    symbols: stack.symbols,
                    layout: &self.layout,
                };
                let mut code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
                let high = self.stack_end(stack, frame);
                scans.chain = scan.chain(frame, lookup, high, &mut code, &scans.budget);
                scans.count += 1;
                0
            }
        };
        match scans.chain.get(next) {
            Some(caller) => Step::Caller(Box::new(caller.clone())),
            None => Step::Unknown,
        }
    }

    /// The end of the stack of this frame. If its bounds are not known, stacks have the kernel's
    /// usual size and are aligned to it.
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
            orc::step::step(
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
        budget: &Budget<'_>,
    ) -> Result<Step, Unreadable> {
        for table in &self.cfi {
            let step = table.step(stack.memory, registers, lookup, budget)?;
            if !matches!(step, Step::Unknown) {
                return Ok(step);
            }
        }
        Ok(Step::Unknown)
    }

    /// Whether this can be a caller: unwind data for other code, or an overwritten stack, must not
    /// yield meaningless frames.
    fn is_plausible(&self, stack: &Stack<'_>, caller: &Caller) -> bool {
        let (Some(pc), Some(sp)) = (caller.registers.pc(), caller.registers.sp()) else {
            return false;
        };
        let saved = caller.interrupted || caller.saved_at.is_some();
        if pc.raw() == 0 {
            return saved || self.is_first(stack, caller);
        }
        // Kernel code does not return to user space by `ret`.
        if self.layout.is_user(&caller.registers) {
            return saved;
        }
        // Any interrupted pc is possible: a jump through a bad pointer leads anywhere. So is any
        // stack pointer: if it is invalid, the exception becomes a double fault.
        if caller.interrupted {
            return true;
        }
        if sp.raw() % self.word.bytes() as u64 != 0 {
            return false;
        }
        // Code without symbols (of a module, of a JIT) must at least have made a call.
        stack.symbols.is_text(VirtAddr(pc.raw().wrapping_sub(1)))
            || call_before(stack.memory, stack.symbols, pc, self.word).is_some()
    }

    /// Whether this caller is the end of the stack and not a frame: its pc is 0, but not because of a
    /// call through NULL.
    pub fn is_end(&self, stack: &Stack<'_>, caller: &Caller) -> bool {
        let registers = &caller.registers;
        if registers.get(Reg::Ip) != Some(0) {
            return false;
        }
        // Old kernels push a return address of 0 before the first function of a stack.
        if !caller.interrupted || !self.layout.may_be_at_null(registers) {
            return true;
        }
        // From 3.8 to 4.8 copy_thread gave the user registers of a kernel thread the kernel's cs
        // and a stack pointer at the top of its stack.
        !self.layout.is_user(registers)
            && self.is_first(stack, caller)
            && !leaf::is_called(stack.memory, stack.symbols, registers, self.word)
    }

    /// Whether this is the frame of the first function of a stack, whose return address is 0. In any
    /// other frame, a return address of 0 means that the stack was overwritten or unwound incorrectly.
    fn is_first(&self, stack: &Stack<'_>, caller: &Caller) -> bool {
        let sp = caller.registers.sp().unwrap_or_default();
        let above = self.stack_end(stack, caller).raw().saturating_sub(sp.raw());
        above <= MAX_ABOVE_FIRST
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

    /// The result of `check` for this caller, on a stack with this word at its stack pointer.
    fn checked(
        caller: (u64, u64, Option<u64>, bool),
        word_on_stack: u64,
        check: impl Fn(&Strategy, &Stack<'_>, &Caller) -> bool,
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
        let layout = PtRegs::of(Word::W64, None);
        check(&Strategy::new(Word::W64, layout), &stack, &caller)
    }

    fn is_plausible(pc: u64, sp: u64, interrupted: bool) -> bool {
        let caller = (pc, sp, None, interrupted);
        checked(caller, 0, Strategy::is_plausible)
    }

    #[test]
    fn a_call_through_null_does_not_end_a_stack() {
        let ends =
            |sp, cs, interrupted, top| checked((0, sp, cs, interrupted), top, Strategy::is_end);
        assert!(!ends(HIGH - 1024, Some(0x10), true, RET));
        assert!(!ends(HIGH - 1024, Some(0x10), true, 0), "a return to 0");
        assert!(!ends(HIGH - 176, Some(0x10), true, RET), "the first call");
        assert!(!ends(0x7ffc_a352_9220, Some(0x33), true, 0), "user space");
        assert!(ends(HIGH - 64, None, false, 0), "the first function");
        assert!(ends(0, Some(0), true, 0), "a kernel thread");
        assert!(
            ends(HIGH - 168, Some(0x10), true, 0),
            "a kernel thread of 3.8 to 4.8"
        );
        assert!(ends(0, Some(0x33), true, 0), "an io worker");
        assert!(!ends(0, Some(0x10), true, 0), "no kernel stack");
        assert!(!checked((0x48, 0, None, true), 0, Strategy::is_end));
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
    fn user_space_is_entered_by_an_exception_only() {
        assert!(is_plausible(0x4111eb, 0x7ffc_a352_9220, true));
        assert!(!is_plausible(0x246, HIGH - 1024, false));
    }
}
