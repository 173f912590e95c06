//! The loop: asks each method in turn, and believes none of them.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::addr::{VirtAddr, Word};
use crate::memory::Memory;

use super::cfi::CfiTable;
use super::facts::CodeFacts;
use super::frame::{Backtrace, Frame, How, Stop};
use super::orc::{OrcTable, OrcTables};
use super::pt_regs::PtRegs;
use super::registers::{Reg, Registers};
use super::step::{Caller, Step, Unreadable};
use super::symbols::CodeSymbols;
use super::ways::Scans;

/// No stack has more frames than this; a kernel's is 16 KiB.
const MOST_FRAMES: usize = 1024;

/// A way to find callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The kernel's own tables: x86_64 Linux since 4.14.
    Orc,
    /// DWARF: `.debug_frame` or `.eh_frame`.
    Cfi,
    /// The chain of frame pointers.
    FramePointer,
    /// The scan for return addresses.
    Scan,
}

impl Method {
    /// All of them, the best first.
    pub const ALL: [Method; 4] = [Method::Orc, Method::Cfi, Method::FramePointer, Method::Scan];

    /// A short name: `orc`, `cfi`, `fp`, `scan`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Orc => "orc",
            Method::Cfi => "cfi",
            Method::FramePointer => "fp",
            Method::Scan => "scan",
        }
    }
}

/// One stack to unwind.
#[derive(Clone, Copy)]
pub struct Stack<'a> {
    /// Memory by virtual address, as the code that used the stack saw it.
    pub memory: &'a dyn Memory<VirtAddr>,
    /// Names and bounds of its code.
    pub symbols: &'a dyn CodeSymbols,
    /// Where to start; `ip` and `sp` must be known.
    pub registers: Registers,
    /// The pc is where execution stands, not a return address.
    pub exact: bool,
    /// Ranges known to be stacks, lowest and first address past the end.
    pub bounds: &'a [(VirtAddr, VirtAddr)],
    /// The most frames wanted.
    pub limit: usize,
}

/// The unwind tables of one kernel, or of Xen.
#[derive(Debug)]
pub struct Unwinder {
    pub(super) word: Word,
    pub(super) layout: PtRegs,
    pub(super) orc: OrcTables,
    pub(super) cfi: Vec<CfiTable>,
    pub(super) methods: Vec<Method>,
    /// All stacks are of one kernel, so what is read off its code serves all of them.
    pub(super) code: Mutex<CodeFacts>,
}

impl Unwinder {
    /// An unwinder without tables for a kernel of this word and release.
    pub fn new(word: Word, release: Option<(u32, u32, u32)>) -> Self {
        Self {
            word,
            layout: PtRegs::of(word, release),
            orc: OrcTables::default(),
            cfi: Vec::new(),
            code: Mutex::default(),
            methods: Method::ALL.to_vec(),
        }
    }

    /// An unwinder without tables for Xen itself.
    pub fn for_xen(word: Word) -> Self {
        Self {
            layout: PtRegs::of_xen(word),
            ..Self::new(word, None)
        }
    }

    /// Restricts the methods. The best is asked first in any case.
    pub fn set_methods(&mut self, methods: &[Method]) {
        self.methods = Method::ALL
            .into_iter()
            .filter(|method| methods.contains(method))
            .collect();
    }

    /// The methods in use, in the order in which they are asked.
    pub fn methods(&self) -> impl Iterator<Item = Method> + '_ {
        self.methods.iter().copied().filter(|method| match method {
            Method::Orc => !self.orc.is_empty(),
            Method::Cfi => !self.cfi.is_empty(),
            Method::FramePointer | Method::Scan => true,
        })
    }

    /// Whether ORC is among the methods; there are no such tables on 32 bits.
    pub fn uses_orc(&self) -> bool {
        self.word == Word::W64 && self.methods.contains(&Method::Orc)
    }

    /// Adds ORC tables, of the kernel or of a module.
    pub fn add_orc(&mut self, table: OrcTable) {
        self.orc.push(table);
    }

    /// Adds call frame information.
    pub fn add_cfi(&mut self, table: CfiTable) {
        self.cfi.push(table);
    }

    /// The layout of registers saved on this kernel's stacks.
    pub fn pt_regs(&self) -> &PtRegs {
        &self.layout
    }

    /// The frames of `stack`, from the innermost outwards.
    pub fn unwind(&self, stack: &Stack<'_>) -> Backtrace {
        let mut frames = Vec::new();
        let stopped = self.run(stack, &mut frames).err();
        Backtrace { frames, stopped }
    }

    fn run(&self, stack: &Stack<'_>, frames: &mut Vec<Frame>) -> Result<(), Stop> {
        let missing = |reg: Reg| Stop::NoStart(reg.name(self.word));
        let limit = stack.limit.min(MOST_FRAMES);
        let mut seen = HashSet::new();
        let mut scans = Scans::default();
        let mut registers = stack.registers;
        for reg in [Reg::Ip, Reg::Sp] {
            let value = registers.get(reg).ok_or(missing(reg))?;
            registers.set(reg, value & self.word.max());
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
            let whole = caller.saved_at.is_some() || (caller.how == How::Start && stack.exact);
            let user = self.layout.is_user(&registers);
            let frame = Frame {
                pc,
                sp,
                how: caller.how,
                guess: caller.guess,
                interrupted: caller.interrupted,
                user,
                registers: whole.then_some(registers),
                registers_at: caller.saved_at,
            };
            let lookup = frame.lookup_pc();
            frames.push(frame);
            if user {
                return Ok(());
            }
            caller = match self.step(stack, &caller, lookup, &mut scans) {
                Ok(Step::Caller(caller)) => *caller,
                Ok(Step::End) => return Ok(()),
                Ok(Step::Unknown) if scans.effort.is_spent() => {
                    return Err(Stop::TooMuchCode { pc, sp })
                }
                Ok(Step::Unknown) => return Err(Stop::NoCaller { pc, sp }),
                Err(Unreadable { addr, fault }) => return Err(Stop::Unreadable { addr, fault }),
            };
            if self.is_end(stack, &caller) {
                return Ok(());
            }
        }
    }
}
