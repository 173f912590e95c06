//! The scan: a chain of return addresses that explains a stack best.
//!
//! Every word of the stack that points behind a call is a candidate, and most are left over from
//! earlier calls. A true chain holds together: each call leads to the function of the frame below
//! it, and its return address lies where that function's code says. So each pair of candidates is
//! weighed by how well they fit, and the chain is taken that does best as a whole.

use crate::addr::{Address, VirtAddr, PAGE_SIZE};
use crate::memory::Memory;

use super::call_site::{call_before, Call};
use super::chain::{Candidate, Chain, Entry};
use super::depth::Depths;
use super::facts::{CodeFacts, Effort};
use super::frame::How;
use super::outermost::is_entry;
use super::pt_regs::PtRegs;
use super::registers::{Reg, Registers};
use super::saved;
use super::stack_switch;
use super::step::{offset, Caller, Step};
use super::symbols::CodeSymbols;
use super::tail_call::TailCalls;

/// The most of a stack that is read; Linux's have 4 to 16 KiB, with KASAN 32.
const LARGEST: u64 = 32 << 10;

/// The most candidates that are weighed against each other, as each pair of them is.
const MOST_CANDIDATES: usize = 512;

/// Finds chains on the stacks of one kernel.
pub(super) struct Scan<'a> {
    pub memory: &'a dyn Memory<VirtAddr>,
    pub symbols: &'a dyn CodeSymbols,
    pub layout: &'a PtRegs,
}

impl Scan<'_> {
    /// The callers of `frame`, whose code is at `lookup`, on the stack that ends at `high`; none if
    /// they would take too long to find.
    pub fn chain(
        &self,
        frame: &Caller,
        lookup: VirtAddr,
        high: VirtAddr,
        facts: &mut CodeFacts,
        effort: &Effort,
    ) -> Vec<Caller> {
        let Some(sp) = frame.registers.sp() else {
            return Vec::new();
        };
        let mut candidates = vec![self.candidate(sp.raw(), frame.clone(), lookup, None)];
        self.collect(sp, high, &mut candidates);
        let CodeFacts { places, exits } = facts;
        let word = self.layout.word;
        let chain = Chain {
            memory: self.memory,
            word,
            candidates: &candidates,
            tail_calls: TailCalls::new(self.memory, self.symbols, word, exits, effort),
            depths: Depths::new(self.memory, self.symbols, word, places, effort),
        }
        .cheapest();
        // What was not looked at any more might have made another chain likelier.
        if effort.is_spent() {
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
        let step = saved::step(self.memory, self.symbols, self.layout, &caller.registers);
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
                // The first frame has switched back already.
                _ if call.is_some() && self.switches(&caller) => Entry::End,
                _ => Entry::No,
            },
            caller,
        }
    }

    /// Whether a frame goes on on another stack, which is to be scanned on its own.
    fn switches(&self, caller: &Caller) -> bool {
        stack_switch::undone(self.memory, &caller.registers, self.layout.word)
            .and_then(|undone| undone.sp())
            .zip(caller.registers.sp())
            .is_some_and(|(old, sp)| old.raw().abs_diff(sp.raw()) > LARGEST)
    }

    /// Adds every candidate from `sp` up.
    fn collect(&self, sp: VirtAddr, high: VirtAddr, candidates: &mut Vec<Candidate>) {
        let word = self.layout.word;
        let words = self.read(sp, high);
        let cs = self.layout.slot(Reg::Cs);
        for (i, &(at, value)) in words.iter().enumerate() {
            if candidates.len() >= MOST_CANDIDATES {
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
                .is_some_and(|(_, word)| saved::may_be_cs(self.layout, *word));
            if !may_be_saved {
                continue;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Word;
    use crate::unwind::testing::{Names, Ram};

    const CODE: u64 = 0xc100_0000;

    #[test]
    fn the_stack_pointer_above_the_last_word_wraps_round() {
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
        let (mut facts, effort) = (CodeFacts::default(), Effort::default());
        let high = VirtAddr(1 << 32);
        let chain = scan.chain(&frame, VirtAddr(CODE), high, &mut facts, &effort);
        let [caller] = chain.as_slice() else {
            panic!("{chain:?}");
        };
        assert_eq!(caller.registers.pc(), Some(VirtAddr(ret)));
        assert_eq!(caller.registers.sp(), Some(VirtAddr(0)));
    }
}
