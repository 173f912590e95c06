//! The loop: asks each method in turn, and believes none of them.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::addr::{Address, VirtAddr, Word};
use crate::memory::Memory;

use super::call_site::call_before;
use super::cfi::CfiTable;
use super::depth::Depths;
use super::frame::{Backtrace, Frame, How, Stop};
use super::frame_pointer;
use super::leaf;
use super::orc::{OrcFormat, OrcTable};
use super::orc_step;
use super::pt_regs::PtRegs;
use super::registers::{Reg, Registers};
use super::saved;
use super::scan::{CodeFacts, Scan};
use super::step::{Caller, Step, Unreadable};
use super::symbols::CodeSymbols;

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

/// What is tried for a frame.
#[derive(Clone, Copy)]
enum Way {
    By(Method),
    /// Entry code, by the registers it saved.
    Entry,
    /// Code that keeps no frame.
    Leaf,
}

impl Way {
    /// All of them, the best first.
    const ALL: [Way; 6] = [
        Way::By(Method::Orc),
        Way::By(Method::Cfi),
        Way::Entry,
        Way::Leaf,
        Way::By(Method::FramePointer),
        Way::By(Method::Scan),
    ];
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
    word: Word,
    layout: PtRegs,
    format: OrcFormat,
    orc: Vec<OrcTable>,
    cfi: Vec<CfiTable>,
    methods: Vec<Method>,
    /// All stacks are of one kernel, so what is read off its code serves all of them.
    code: Mutex<CodeFacts>,
}

impl Unwinder {
    /// An unwinder without tables for a kernel of this word and release.
    pub fn new(word: Word, release: Option<(u32, u32, u32)>) -> Self {
        Self {
            word,
            layout: PtRegs::of(word, release),
            format: OrcFormat::of_release(release),
            orc: Vec::new(),
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

    /// Sets the format of ORC tables added from now on, in place of the release's.
    pub fn set_orc_format(&mut self, format: OrcFormat) {
        self.format = format;
    }

    /// The format of ORC tables.
    pub fn orc_format(&self) -> OrcFormat {
        self.format
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
        let mut chain = Vec::new();
        let mut registers = stack.registers;
        registers.pc().ok_or(missing(Reg::Ip))?;
        registers.sp().ok_or(missing(Reg::Sp))?;
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
            caller = match self.step(stack, &caller, lookup, &mut chain) {
                Ok(Step::Caller(caller)) => *caller,
                Ok(Step::End) => return Ok(()),
                Ok(Step::Unknown) => return Err(Stop::NoCaller { pc, sp }),
                Err(Unreadable { addr, fault }) => return Err(Stop::Unreadable { addr, fault }),
            };
            // What a kernel thread has for user registers, and what old kernels push below the
            // first function of a stack.
            if caller.registers.get(Reg::Ip) == Some(0) {
                return Ok(());
            }
        }
    }

    /// The caller of the frame with these registers, whose code is at `lookup`.
    fn step(
        &self,
        stack: &Stack<'_>,
        frame: &Caller,
        lookup: VirtAddr,
        chain: &mut Vec<Caller>,
    ) -> Result<Step, Unreadable> {
        let mut unreadable = None;
        for way in Way::ALL {
            let step = match way {
                Way::By(method) if !self.methods.contains(&method) => continue,
                Way::By(Method::Orc) => self.orc_step(stack, &frame.registers, lookup),
                Way::By(Method::Cfi) => self.cfi_step(stack, &frame.registers, lookup),
                Way::By(Method::FramePointer) => self.frame_pointer_step(stack, frame, lookup),
                Way::By(Method::Scan) => Ok(self.scan_step(stack, frame, lookup, chain)),
                Way::Entry => {
                    saved::step(stack.memory, stack.symbols, &self.layout, &frame.registers)
                }
                Way::Leaf => self.leaf_step(stack, frame, lookup),
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
        unreadable.map_or(Ok(Step::Unknown), Err)
    }

    fn frame_pointer_step(
        &self,
        stack: &Stack<'_>,
        frame: &Caller,
        lookup: VirtAddr,
    ) -> Result<Step, Unreadable> {
        let Stack {
            memory, symbols, ..
        } = *stack;
        let mut code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        let mut depths = Depths::new(memory, symbols, self.word, &mut code.places);
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
        chain: &mut Vec<Caller>,
    ) -> Step {
        let here = (frame.registers.pc(), frame.registers.sp());
        let known = chain
            .iter()
            .position(|found| (found.registers.pc(), found.registers.sp()) == here);
        let next = match known {
            // An interrupted frame may stand on another stack, which is to be scanned anew.
            Some(at) if at + 1 < chain.len() || !frame.interrupted => at + 1,
            _ => {
                let scan = Scan {
                    memory: stack.memory,
                    symbols: stack.symbols,
                    layout: &self.layout,
                };
                let mut code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
                *chain = scan.chain(frame, lookup, self.stack_end(stack, frame), &mut code);
                0
            }
        };
        match chain.get(next) {
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

    fn leaf_step(
        &self,
        stack: &Stack<'_>,
        frame: &Caller,
        lookup: VirtAddr,
    ) -> Result<Step, Unreadable> {
        let Stack {
            memory, symbols, ..
        } = *stack;
        if self.is_stub(stack, lookup) {
            return leaf::run_to_ret(memory, symbols, &frame.registers, self.word);
        }
        if frame.interrupted {
            return leaf::top_of_stack(memory, symbols, &frame.registers, self.word);
        }
        Ok(Step::Unknown)
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
        self.orc
            .iter()
            .find_map(|table| Some((table, table.find(lookup)?)))
            .map_or(Ok(Step::Unknown), |(table, entry)| {
                orc_step::step(
                    &entry,
                    table.format().indirect_then_offset,
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
    ) -> Result<Step, Unreadable> {
        for table in &self.cfi {
            let step = table.step(stack.memory, registers, lookup)?;
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
        if pc.raw() == 0 || self.layout.is_user(&caller.registers) {
            return true;
        }
        if sp.raw() % self.word.bytes() as u64 != 0 {
            return false;
        }
        // An interrupted pc may be anything: a jump through a bad pointer leads anywhere. Code
        // that symbols know nothing of (a module's, a JIT's) must at least have made a call.
        caller.interrupted
            || stack.symbols.is_text(VirtAddr(pc.raw().wrapping_sub(1)))
            || call_before(stack.memory, stack.symbols, pc, self.word).is_some()
    }
}
