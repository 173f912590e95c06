//! The candidates on a stack: words that can be return addresses, and saved registers.
//!
//! Most candidates are left over from earlier calls. In the true chain, each call leads to the
//! function of the next inner frame, and its return address is at the position given by that frame's
//! layout. So each pair of candidates gets a penalty, and the chain with the lowest total penalty is
//! returned.

use crate::addr::{Address, VirtAddr, PAGE_SIZE};
use crate::budget::Budget;
use crate::limits::{MAX_SCANNED_STACK, MAX_SCAN_CANDIDATES};
use crate::memory::Memory;
use crate::unwind::frame::How;
use crate::unwind::outermost::is_entry;
use crate::unwind::registers::{Reg, Registers};
use crate::unwind::step::{offset, Caller, Step};
use crate::unwind::symbols::CodeSymbols;
use crate::unwind::x86::call_site::{call_before, Call};
use crate::unwind::x86::code_cache::CodeCache;
use crate::unwind::x86::frame_layout::FrameAnalyzer;
use crate::unwind::x86::pt_regs::PtRegs;
use crate::unwind::x86::saved_regs;
use crate::unwind::x86::stack_switch;
use crate::unwind::x86::tail_call::TailCalls;

use super::chain::{Candidate, Chain, Entry};

/// A scan of a stack.
pub(in crate::unwind) struct Scan<'a> {
    pub memory: &'a dyn Memory<VirtAddr>,
    pub symbols: &'a dyn CodeSymbols,
    pub layout: &'a PtRegs,
}

impl Scan<'_> {
    /// The callers of `frame`, whose code is at `lookup`, on the stack that ends at `high`; none if
    /// the budget is exhausted.
    pub fn chain(
        &self,
        frame: &Caller,
        lookup: VirtAddr,
        high: VirtAddr,
        code: &mut CodeCache,
        budget: &Budget<'_>,
    ) -> Vec<Caller> {
        let Some(sp) = frame.registers.sp() else {
            return Vec::new();
        };
        let mut candidates = vec![self.candidate(sp.raw(), frame.clone(), lookup, None)];
        self.collect(sp, high, &mut candidates);
        let CodeCache {
            layouts,
            tail_jumps,
        } = code;
        let word = self.layout.word;
        let chain = Chain {
            memory: self.memory,
            word,
            candidates: &candidates,
            tail_calls: TailCalls::new(self.memory, self.symbols, word, tail_jumps, budget),
            frames: FrameAnalyzer::new(self.memory, self.symbols, word, layouts, budget),
        }
        .cheapest();
        // An incomplete analysis might favour the wrong chain.
        if budget.is_exhausted() {
            return Vec::new();
        }
        chain
    }

    fn candidate(
        &self,
        at: u64,
        caller: Caller,
        lookup: VirtAddr,
        call: Option<Call>,
    ) -> Candidate {
        let step = saved_regs::step(self.memory, self.symbols, self.layout, &caller.registers);
        let function = self.symbols.function(lookup);
        Candidate {
            at,
            lookup,
            function: function.map(|function| function.start),
            call,
            entry: match step {
                Ok(Step::End) => Entry::End,
                Ok(Step::Caller(saved)) if self.layout.is_user(&saved.registers) => Entry::End,
                Ok(Step::Caller(saved)) => saved.saved_at.map_or(Entry::No, Entry::Saved),
                _ if function.is_some_and(|function| is_entry(function.name, self.symbols)) => {
                    Entry::End
                }
                // The first frame is already back on the old stack.
                _ if call.is_some() && self.switches(&caller) => Entry::End,
                _ => Entry::No,
            },
            caller,
        }
    }

    /// Whether a frame continues on another stack, which needs a scan of its own.
    fn switches(&self, caller: &Caller) -> bool {
        stack_switch::switch_back(self.memory, &caller.registers, self.layout.word)
            .and_then(|switched| switched.sp())
            .zip(caller.registers.sp())
            .is_some_and(|(old, sp)| old.raw().abs_diff(sp.raw()) > MAX_SCANNED_STACK)
    }

    /// Adds every candidate from `sp` up to `high`.
    fn collect(&self, sp: VirtAddr, high: VirtAddr, candidates: &mut Vec<Candidate>) {
        let word = self.layout.word;
        let words = self.read(sp, high);
        let cs = self.layout.slot(Reg::Cs);
        for (i, &(at, value)) in words.iter().enumerate() {
            if candidates.len() >= MAX_SCAN_CANDIDATES {
                return;
            }
            let pc = VirtAddr(value);
            let lookup = VirtAddr(value.wrapping_sub(1));
            if self.symbols.is_text(lookup) {
                if let Some(call) = call_before(self.memory, self.symbols, pc, word) {
                    let above = offset(VirtAddr(at), word.bytes() as i64, word);
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
            let may_be_saved = words
                .get(i + cs)
                .is_some_and(|(_, word)| saved_regs::may_be_cs(self.layout, *word));
            if !may_be_saved {
                continue;
            }
            let step = saved_regs::find(self.memory, self.symbols, self.layout, VirtAddr(at));
            if let Ok(Step::Caller(mut caller)) = step {
                caller.guess = true;
                let pc = caller.registers.pc().unwrap_or_default();
                candidates.push(self.candidate(at, *caller, pc, None));
            }
        }
    }

    /// The words of the stack with their addresses, up to `high` or the first unreadable page.
    fn read(&self, sp: VirtAddr, high: VirtAddr) -> Vec<(u64, u64)> {
        let width = self.layout.word.bytes();
        let end = high.raw().min(sp.raw().saturating_add(MAX_SCANNED_STACK));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Word;
    use crate::unwind::testing::{Names, Ram};
    use crate::unwind::x86::function_cache::stack_budget;

    const CODE: u64 = 0xc100_0000;

    #[test]
    fn the_stack_pointer_above_the_last_word_wraps() {
        let mut ram = Ram::new(Word::W32);
        ram.bytes(CODE, &[0x90; 64]);
        // call f, from g.
        ram.bytes(CODE + 32, &[0xe8, 0xdb, 0xff, 0xff, 0xff]);
        let (last, ret) = (0xffff_fffc, CODE + 37);
        ram.words(last, &[ret]);
        let scan = Scan {
            memory: &ram,
            symbols: &Names(vec![(CODE, "f"), (CODE + 32, "g"), (CODE + 64, "")]),
            layout: &PtRegs::of(Word::W32, None),
        };
        let frame = Caller {
            registers: Registers::at(VirtAddr(CODE), VirtAddr(last)),
            how: How::Start,
            guess: false,
            interrupted: true,
            saved_at: None,
        };
        let (mut code, budget) = (CodeCache::default(), stack_budget());
        let high = VirtAddr(1 << 32);
        let chain = scan.chain(&frame, VirtAddr(CODE), high, &mut code, &budget);
        let [caller] = chain.as_slice() else {
            panic!("{chain:?}");
        };
        assert_eq!(caller.registers.pc(), Some(VirtAddr(ret)));
        assert_eq!(caller.registers.sp(), Some(VirtAddr(0)));
    }
}
