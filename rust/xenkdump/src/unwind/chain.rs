//! Of all that a stack may mean, the likeliest: the chain of candidates that holds together best.

use crate::addr::{Address, VirtAddr, Word};
use crate::memory::Memory;

use super::call_site::Call;
use super::depth::{Depths, Place};
use super::registers::{Reg, Registers};
use super::step::Caller;
use super::tail_call::{Fit, TailCalls};

/// Something on the stack that may be the mark of a frame.
pub(super) struct Candidate {
    /// Where it lies.
    pub at: u64,
    /// Its frame, with the stack pointer in it.
    pub caller: Caller,
    /// An address within the instruction that the frame stands at or came from.
    pub lookup: VirtAddr,
    /// Start of the frame's function.
    pub function: Option<VirtAddr>,
    /// The call that its frame made; none for a frame that was interrupted.
    pub call: Option<Call>,
    /// What the frame's own stack pointer leads to, if it is entry code.
    pub entry: Entry,
}

/// What lies where a frame's stack pointer points.
pub(super) enum Entry {
    /// Nothing known.
    No,
    /// User registers, or the empty ones of a kernel thread, or nothing: the frame called on another
    /// stack than its own. This stack ends here.
    End,
    /// Registers of the kernel itself.
    Saved(VirtAddr),
}

/// What speaks against a link, by whether the return address lies where the callee's code says,
/// somewhere else, or the code does not tell. Less than nothing speaks for it.
struct Cost {
    placed: i32,
    unknown: i32,
    misplaced: i32,
}

impl Cost {
    /// A direct call to the very function.
    const SAME: Cost = Cost::of(-2, 0, 30);
    /// A direct call to another part of the function.
    const PART: Cost = Cost::of(-1, 1, 31);
    /// A direct call to a function that jumps to this one.
    const TAIL_CALL: Cost = Cost::of(-1, 4, 34);
    /// A call through a pointer may lead anywhere, so alone it proves nothing.
    const INDIRECT: Cost = Cost::of(-1, 8, 38);
    /// A direct call to something else; several jumps may lie between.
    const MISFIT: Cost = Cost::of(10, 100, 130);
    /// Saved registers that are not where entry code has them.
    const STRAY_REGISTERS: i32 = 120;
    /// The chain ends where no stack should.
    const NO_END: i32 = 150;

    const fn of(placed: i32, unknown: i32, misplaced: i32) -> Self {
        Self {
            placed,
            unknown,
            misplaced,
        }
    }
}

/// The best way on from a candidate.
#[derive(Clone, Copy)]
struct Best {
    cost: i32,
    next: Option<(usize, Option<Place>)>,
}

/// The candidates of one stack, from the frame that is known upwards.
pub(super) struct Chain<'a> {
    pub memory: &'a dyn Memory<VirtAddr>,
    pub word: Word,
    pub candidates: &'a [Candidate],
    pub tail_calls: TailCalls<'a>,
    pub depths: Depths<'a>,
}

impl Chain<'_> {
    /// The callers of the first candidate, in order.
    pub fn cheapest(mut self) -> Vec<Caller> {
        let best = self.weigh();
        let mut chain = Vec::new();
        let mut at = 0;
        let first = self.candidates.first();
        let mut registers = first.map_or_else(Registers::new, |first| first.caller.registers);
        while let Some((next, place)) = best.get(at).and_then(|best| best.next) {
            let Some(to) = self.candidates.get(next) else {
                break;
            };
            let mut caller = to.caller.clone();
            if caller.saved_at.is_none() {
                let bp = place.and_then(|place| {
                    place.bp_of_caller(self.memory, &registers, VirtAddr(to.at), self.word)
                });
                caller.registers.put(Reg::Bp, bp);
            }
            registers = caller.registers;
            chain.push(caller);
            at = next;
        }
        chain
    }

    /// The best way on from each candidate, from the outermost inwards: it is known then before
    /// it is needed by those below.
    fn weigh(&mut self) -> Vec<Best> {
        let candidates = self.candidates;
        let own = candidates.first().map_or(0, |first| first.at)
            ..=candidates.last().map_or(0, |last| last.at);
        let stop = Best {
            cost: Cost::NO_END,
            next: None,
        };
        let end = Best {
            cost: 0,
            next: None,
        };
        let mut best = vec![stop; candidates.len()];
        for (i, from) in candidates.iter().enumerate().rev() {
            let sp = from.caller.registers.sp().unwrap_or_default().raw();
            // An interrupted frame on another stack: that one is scanned next.
            let elsewhere = from.caller.saved_at.is_some() && !own.contains(&sp);
            let found = if elsewhere || matches!(from.entry, Entry::End) {
                end
            } else {
                self.best_from(i, from, sp, &best, stop)
            };
            if let Some(slot) = best.get_mut(i) {
                *slot = found;
            }
        }
        best
    }

    fn best_from(
        &mut self,
        i: usize,
        from: &Candidate,
        sp: u64,
        best: &[Best],
        stop: Best,
    ) -> Best {
        let pc = from.caller.registers.pc().unwrap_or_default();
        let places = self.depths.at(pc, from.lookup).to_vec();
        let told = places.iter().any(|place| place.stack.is_some());
        let mut found = stop;
        for (j, (to, rest)) in self.candidates.iter().zip(best).enumerate().skip(i + 1) {
            if to.at < sp {
                continue;
            }
            let depth = i64::try_from(to.at - sp).ok();
            let place = places
                .iter()
                .find(|place| place.stack.is_some() && place.stack == depth);
            let at_best = match place {
                None if told && to.call.is_some() => Cost::SAME.misplaced,
                _ => Cost::SAME.placed,
            };
            // What comes after speaks against it already.
            if rest.cost + at_best >= found.cost {
                continue;
            }
            let cost = match (place, self.link(from, to)) {
                (_, Err(stray)) => stray,
                (Some(_), Ok(cost)) => cost.placed,
                (None, Ok(cost)) if told => cost.misplaced,
                (None, Ok(cost)) => cost.unknown,
            };
            if rest.cost + cost < found.cost {
                found = Best {
                    cost: rest.cost + cost,
                    next: Some((j, place.copied())),
                };
            }
        }
        found
    }

    /// What speaks against `to` as the caller of `from`, wherever it lies; or that of saved
    /// registers.
    fn link(&mut self, from: &Candidate, to: &Candidate) -> Result<Cost, i32> {
        let Some(call) = to.call else {
            return Err(match from.entry {
                Entry::Saved(at) if at.raw() == to.at => 0,
                _ => Cost::STRAY_REGISTERS,
            });
        };
        Ok(match (call, from.function) {
            (Call::Indirect, _) => Cost::INDIRECT,
            (Call::Direct(target), Some(function)) if target == function => Cost::SAME,
            (Call::Direct(target), Some(function)) => match self.tail_calls.fit(target, function) {
                Fit::Same => Cost::SAME,
                Fit::Part => Cost::PART,
                Fit::TailCall => Cost::TAIL_CALL,
                Fit::No => Cost::MISFIT,
            },
            (Call::Direct(_), None) => Cost::MISFIT,
        })
    }
}
