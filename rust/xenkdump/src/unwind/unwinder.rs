//! The loop from frame to frame, and the checks that end it.

use std::collections::HashSet;

use crate::addr::Word;
use crate::limits::MAX_FRAMES;

use super::cfi::table::CfiTable;
use super::frame::{Backtrace, Frame, How, Stop};
use super::orc::table::OrcTable;
use super::registers::Reg;
use super::stack::{Method, Stack};
use super::step::{Caller, Step, Unreadable};
use super::strategy::{Scans, Strategy};
use super::x86::pt_regs::PtRegs;

/// The unwinder of one kernel, or of Xen, with its unwind tables.
#[derive(Debug)]
pub struct Unwinder {
    strategy: Strategy,
}

impl Unwinder {
    /// An unwinder without tables for a Linux kernel of this word size and release.
    pub fn new(word: Word, release: Option<(u32, u32, u32)>) -> Self {
        Self {
            strategy: Strategy::new(word, PtRegs::of(word, release)),
        }
    }

    /// An unwinder without tables for Xen itself.
    pub fn for_xen(word: Word) -> Self {
        Self {
            strategy: Strategy::new(word, PtRegs::of_xen(word)),
        }
    }

    /// Restricts the methods. Their order is always that of [`Method::ALL`].
    pub fn set_methods(&mut self, methods: &[Method]) {
        self.strategy.methods = Method::ALL
            .into_iter()
            .filter(|method| methods.contains(method))
            .collect();
    }

    /// The methods in use, in the order in which they are tried.
    pub fn methods(&self) -> impl Iterator<Item = Method> + '_ {
        let Strategy {
            methods, orc, cfi, ..
        } = &self.strategy;
        methods.iter().copied().filter(|method| match method {
            Method::Orc => !orc.is_empty(),
            Method::Cfi => !cfi.is_empty(),
            Method::FramePointer | Method::Scan => true,
        })
    }

    /// Whether ORC is among the methods. There are no such tables on 32 bits.
    pub fn uses_orc(&self) -> bool {
        self.strategy.word == Word::W64 && self.strategy.methods.contains(&Method::Orc)
    }

    /// Adds the ORC tables of the kernel or of a module.
    pub fn add_orc(&mut self, table: OrcTable) {
        self.strategy.orc.push(table);
    }

    /// Adds call frame information.
    pub fn add_cfi(&mut self, table: CfiTable) {
        self.strategy.cfi.push(table);
    }

    /// The layout of registers saved on this kernel's stacks.
    pub fn pt_regs(&self) -> &PtRegs {
        &self.strategy.layout
    }

    /// The frames of `stack`, from the innermost outwards.
    pub fn unwind(&self, stack: &Stack<'_>) -> Backtrace {
        let mut frames = Vec::new();
        let stopped = self.run(stack, &mut frames).err();
        Backtrace { frames, stopped }
    }

    fn run(&self, stack: &Stack<'_>, frames: &mut Vec<Frame>) -> Result<(), Stop> {
        let Strategy { word, layout, .. } = &self.strategy;
        let missing = |reg: Reg| Stop::NoStart(reg.name(*word));
        let limit = stack.limit.min(MAX_FRAMES);
        let mut seen = HashSet::new();
        let mut scans = Scans::default();
        let mut registers = stack.registers;
        for reg in [Reg::Ip, Reg::Sp] {
            let value = registers.get(reg).ok_or(missing(reg))?;
            registers.set(reg, value & word.max());
        }
        let mut caller = Caller {
            registers,
            how: How::Start,
            guess: false,
            interrupted: stack.exact,
            saved_at: None,
        };
        loop {
            registers = caller.registers;
            let pc = registers.pc().ok_or(missing(Reg::Ip))?;
            let sp = registers.sp().ok_or(missing(Reg::Sp))?;
            if !seen.insert((pc, sp)) {
                return Err(Stop::Loop { pc, sp });
            }
            if frames.len() >= limit {
                return Err(Stop::Limit(limit));
            }
            let is_complete =
                caller.saved_at.is_some() || (caller.how == How::Start && stack.exact);
            let user = layout.is_user(&registers);
            let frame = Frame {
                pc,
                sp,
                how: caller.how,
                guess: caller.guess,
                interrupted: caller.interrupted,
                user,
                registers: is_complete.then_some(registers),
                registers_at: caller.saved_at,
            };
            let lookup = frame.lookup_pc();
            frames.push(frame);
            if user {
                return Ok(());
            }
            caller = match self.strategy.step(stack, &caller, lookup, &mut scans) {
                Ok(Step::Caller(caller)) => *caller,
                Ok(Step::End) => return Ok(()),
                Ok(Step::Unknown) if scans.budget.is_exhausted() => {
                    return Err(Stop::TooMuchCode { pc, sp })
                }
                Ok(Step::Unknown) => return Err(Stop::NoCaller { pc, sp }),
                Err(Unreadable { addr, fault }) => return Err(Stop::Unreadable { addr, fault }),
            };
            if self.strategy.is_end(stack, &caller) {
                return Ok(());
            }
        }
    }
}
