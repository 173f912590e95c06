//! The scan: a chain of return addresses that explains a stack best.
//!
//! Every word of the stack that points behind a call is a candidate, and most are left over from
//! earlier calls. A true chain holds together: each call leads to the function of the frame below
//! it. So each pair of candidates is given a cost by how well the one's call fits the other's
//! function, and the cheapest chain is taken.

use crate::addr::{Address, VirtAddr, PAGE_SIZE};
use crate::memory::Memory;

use super::call_site::{call_before, Call};
use super::depth::Depths;
use super::frame::How;
use super::pt_regs::PtRegs;
use super::registers::Registers;
use super::saved;
use super::step::{Caller, Step};
use super::symbols::CodeSymbols;
use super::tail_call::{Fit, TailCalls};

/// Costs of one link of a chain. A direct call to the very function costs nothing.
mod cost {
    /// A direct call to another part of the function: `f.cold` is reached from `f` by a jump.
    pub const PART: u32 = 1;
    /// A direct call to a function that jumps to this one.
    pub const TAIL_CALL: u32 = 4;
    /// A call through a pointer: it may lead anywhere, so it proves nothing.
    pub const INDIRECT: u32 = 8;
    /// Saved registers that are not where entry code has them.
    pub const STRAY_REGISTERS: u32 = 60;
    /// The same two, but where the function's code says that its return address lies.
    pub const PLACED: u32 = 1;
    /// Not where the function's code says that its return address lies.
    pub const MISPLACED: u32 = 30;
    /// A direct call to something else.
    pub const MISFIT: u32 = 100;
    /// The chain ends where no stack should.
    pub const NO_END: u32 = 150;
}

/// The most of a stack that is read; Linux's have 4 to 16 KiB, with KASAN 32.
const LARGEST: u64 = 32 << 10;

/// The most candidates that are weighed against each other, as each pair of them is.
const MOST_CANDIDATES: usize = 1024;

/// Finds chains on the stacks of one kernel.
pub(super) struct Scan<'a> {
    pub memory: &'a dyn Memory<VirtAddr>,
    pub symbols: &'a dyn CodeSymbols,
    pub layout: &'a PtRegs,
}

/// Something on the stack that may be the mark of a frame.
struct Candidate {
    /// Where it lies.
    at: u64,
    /// Its frame, with the stack pointer in it.
    caller: Caller,
    /// An address within the instruction that the frame stands at or came from.
    lookup: VirtAddr,
    /// Start of the frame's function.
    function: Option<u64>,
    /// The call that its frame made; none for a frame that was interrupted.
    call: Option<Call>,
    /// What the frame's own stack pointer leads to, if it is entry code.
    entry: Entry,
}

impl Candidate {
    fn pc(&self) -> VirtAddr {
        self.caller.registers.pc().unwrap_or_default()
    }
}

/// What lies where a frame's stack pointer points.
enum Entry {
    /// Nothing known.
    No,
    /// User registers, or the empty ones of a kernel thread: the stack ends.
    End,
    /// Registers of the kernel itself.
    Saved(VirtAddr),
}

impl Scan<'_> {
    /// The callers of `frame`, whose code is at `lookup`, on the stack that ends at `high`.
    pub fn chain(&self, frame: &Caller, lookup: VirtAddr, high: VirtAddr) -> Vec<Caller> {
        let Some(sp) = frame.registers.sp() else {
            return Vec::new();
        };
        let mut candidates = vec![self.candidate(sp.raw(), frame.clone(), lookup, None)];
        self.collect(sp, high, &mut candidates);
        let word = self.layout.word;
        Links {
            candidates: &candidates,
            tail_calls: TailCalls::new(self.memory, self.symbols, word),
            depths: Depths::new(self.memory, self.symbols, word),
        }
        .cheapest()
        .into_iter()
        .filter_map(|index| candidates.get(index))
        .map(|candidate| candidate.caller.clone())
        .collect()
    }

    fn candidate(
        &self,
        at: u64,
        caller: Caller,
        lookup: VirtAddr,
        call: Option<Call>,
    ) -> Candidate {
        let step = saved::step(self.memory, self.symbols, self.layout, &caller.registers);
        Candidate {
            at,
            lookup,
            function: self.symbols.function(lookup).map(|f| f.start.raw()),
            call,
            entry: match step {
                Ok(Step::End) => Entry::End,
                Ok(Step::Caller(saved)) if self.layout.is_user(&saved.registers) => Entry::End,
                Ok(Step::Caller(saved)) => saved.saved_at.map_or(Entry::No, Entry::Saved),
                _ => Entry::No,
            },
            caller,
        }
    }

    /// Adds every candidate from `sp` up.
    fn collect(&self, sp: VirtAddr, high: VirtAddr, candidates: &mut Vec<Candidate>) {
        let word = self.layout.word;
        let words = self.read(sp, high);
        for (at, value) in words {
            if candidates.len() >= MOST_CANDIDATES {
                return;
            }
            let pc = VirtAddr(value);
            let lookup = VirtAddr(value.wrapping_sub(1));
            if self.symbols.is_text(lookup) {
                if let Some(call) = call_before(self.memory, self.symbols, pc, word) {
                    let above = VirtAddr(at.wrapping_add(word.bytes() as u64));
                    let caller = Caller {
                        registers: Registers::at(pc, above),
                        how: How::Scan,
                        guess: true,
                        interrupted: false,
                        saved_at: None,
                    };
                    candidates.push(self.candidate(at, caller, lookup, Some(call)));
                }
            }
            let step = saved::find(self.memory, self.symbols, self.layout, VirtAddr(at));
            if let Ok(Step::Caller(mut caller)) = step {
                caller.guess = true;
                let pc = caller.registers.pc().unwrap_or_default();
                candidates.push(self.candidate(at, *caller, pc, None));
            }
        }
    }

    /// The words of the stack and where they lie, up to `high` or the first that cannot be read.
    fn read(&self, sp: VirtAddr, high: VirtAddr) -> Vec<(u64, u64)> {
        let width = self.layout.word.bytes();
        let end = high.raw().min(sp.raw().saturating_add(LARGEST));
        let mut words = Vec::new();
        let mut at = sp.raw() & !(width as u64 - 1);
        while at < end {
            let page_end = (at | (PAGE_SIZE as u64 - 1)).saturating_add(1);
            let mut bytes = [0; PAGE_SIZE];
            let length = (page_end.min(end) - at) as usize;
            let Some(part) = bytes.get_mut(..length) else {
                break;
            };
            if self.memory.read(VirtAddr(at), part).is_err() {
                break;
            }
            for (i, chunk) in part.chunks_exact(width).enumerate() {
                if let Some(value) = self.layout.word.get(chunk) {
                    words.push((at + (i * width) as u64, value));
                }
            }
            at = page_end;
        }
        words
    }
}

/// The candidates and what is known of the code they stand for.
struct Links<'a> {
    candidates: &'a [Candidate],
    tail_calls: TailCalls<'a>,
    depths: Depths<'a>,
}

impl Links<'_> {
    /// The indices of the cheapest chain from the first candidate on, without the first.
    fn cheapest(&mut self) -> Vec<usize> {
        let candidates = self.candidates;
        let own = candidates.first().map_or(0, |first| first.at)
            ..candidates.last().map_or(0, |last| last.at);
        // From the outermost inwards: the best way on from each candidate is known before it is
        // needed by those below.
        let mut best: Vec<(u32, Option<usize>)> = vec![(cost::NO_END, None); candidates.len()];
        for (i, from) in candidates.iter().enumerate().rev() {
            let sp = from.caller.registers.sp().unwrap_or_default().raw();
            let mut found = (cost::NO_END, None);
            // An interrupted frame on another stack: that one is scanned next.
            let elsewhere = from.caller.saved_at.is_some() && !own.contains(&sp);
            if elsewhere || matches!(from.entry, Entry::End) {
                found = (0, None);
            } else {
                let depths = self.depths.at(from.pc(), from.lookup).to_vec();
                for (j, to) in candidates.iter().enumerate().skip(i + 1) {
                    if to.at < sp {
                        continue;
                    }
                    let (rest, _) = best.get(j).copied().unwrap_or(found);
                    // What comes after costs too much already.
                    if rest >= found.0 {
                        continue;
                    }
                    let total = rest + self.link(from, to, sp, &depths);
                    if total < found.0 {
                        found = (total, Some(j));
                    }
                }
            }
            if let Some(slot) = best.get_mut(i) {
                *slot = found;
            }
        }
        let mut chain = Vec::new();
        let mut at = 0;
        while let Some(&(_, Some(next))) = best.get(at) {
            chain.push(next);
            at = next;
        }
        chain
    }

    /// How badly `to` fits as the caller of `from`, whose stack pointer is `sp` and lies one of
    /// `depths` below its return address.
    fn link(&mut self, from: &Candidate, to: &Candidate, sp: u64, depths: &[i64]) -> u32 {
        let Some(call) = to.call else {
            return match from.entry {
                Entry::Saved(at) if at.raw() == to.at => 0,
                _ => cost::STRAY_REGISTERS,
            };
        };
        let depth = to.at.wrapping_sub(sp) as i64;
        let (fits, misplaced) = if depths.contains(&depth) {
            (true, 0)
        } else if depths.is_empty() {
            (false, 0)
        } else {
            (false, cost::MISPLACED)
        };
        let fit = match (call, from.function) {
            (Call::Indirect, _) if fits => cost::PLACED,
            (Call::Indirect, _) => cost::INDIRECT,
            (Call::Direct(target), Some(function)) => {
                match self.tail_calls.fit(target, VirtAddr(function)) {
                    Fit::Same => 0,
                    Fit::Part => cost::PART,
                    Fit::TailCall if fits => cost::PLACED,
                    Fit::TailCall => cost::TAIL_CALL,
                    Fit::No => cost::MISFIT,
                }
            }
            (Call::Direct(_), None) => cost::MISFIT,
        };
        fit + misplaced
    }
}
