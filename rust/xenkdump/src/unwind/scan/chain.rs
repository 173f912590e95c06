//! The most likely chain of the candidates on a stack.

use crate::addr::{Address, VirtAddr, Word};
use crate::alloc;
use crate::memory::Memory;
use crate::unwind::registers::{Reg, Registers};
use crate::unwind::step::Caller;
use crate::unwind::x86::call_site::Call;
use crate::unwind::x86::frame_layout::{FrameAnalyzer, FrameLayout};
use crate::unwind::x86::tail_call::{Fit, TailCalls};

/// A word or `pt_regs` on the stack that may belong to a frame.
pub(in crate::unwind) struct Candidate {
    /// Its address.
    pub at: u64,
    /// Its frame.
    pub caller: Caller,
    /// An address within the call instruction, or the pc of an interrupted frame.
    pub lookup: VirtAddr,
    /// The start of the frame's function.
    pub function: Option<VirtAddr>,
    /// The call that the frame made; `None` for an interrupted frame.
    pub call: Option<Call>,
    /// What is at the frame's stack pointer, if it is entry code.
    pub entry: Entry,
}

/// What is at a frame's stack pointer.
pub(in crate::unwind) enum Entry {
    /// Nothing special.
    No,
    /// The end of this stack: user registers, the empty registers of a kernel thread, or a switch to
    /// another stack.
    End,
    /// Registers of the kernel itself.
    Saved(VirtAddr),
}

/// The penalty of a link between two frames: for a return address at the position given by the
/// callee's frame layout (`placed`), at another one (`misplaced`), or without a known layout. A
/// negative penalty favours the link.
struct Cost {
    placed: i32,
    unknown: i32,
    misplaced: i32,
}

impl Cost {
    /// A direct call to the function.
    const SAME: Cost = Cost::of(-2, 0, 30);
    /// A direct call to another part of the function.
    const PART: Cost = Cost::of(-1, 1, 31);
    /// A direct call to a function that jumps to this one.
    const TAIL_CALL: Cost = Cost::of(-1, 4, 34);
    /// An indirect call, which can lead to any function.
    const INDIRECT: Cost = Cost::of(-1, 8, 38);
    /// A direct call to another function, which may still lead here by several jumps.
    const MISFIT: Cost = Cost::of(10, 100, 130);
    /// Saved registers that are not at the stack pointer of entry code.
    const STRAY_REGISTERS: i32 = 120;
    /// The chain does not end at the end of a stack.
    const NO_END: i32 = 150;

    const fn of(placed: i32, unknown: i32, misplaced: i32) -> Self {
        Self {
            placed,
            unknown,
            misplaced,
        }
    }
}

/// The best continuation of the chain from a candidate.
#[derive(Clone, Copy)]
struct Best {
    cost: i32,
    next: Option<(usize, Option<FrameLayout>)>,
}

/// The candidates of one stack by ascending address; the first is the known frame.
pub(in crate::unwind) struct Chain<'a> {
    pub memory: &'a dyn Memory<VirtAddr>,
    pub word: Word,
    pub candidates: &'a [Candidate],
    pub tail_calls: TailCalls<'a>,
    pub frames: FrameAnalyzer<'a>,
}

impl Chain<'_> {
    /// The callers of the first candidate, from the innermost outwards.
    pub fn cheapest(mut self) -> Vec<Caller> {
        let best = self.weigh();
        let mut chain = Vec::new();
        let mut at = 0;
        let first = self.candidates.first();
        let mut registers = first.map_or_else(Registers::new, |first| first.caller.registers);
        while let Some((next, layout)) = best.get(at).and_then(|best| best.next) {
            let Some(to) = self.candidates.get(next) else {
                break;
            };
            let mut caller = to.caller.clone();
            if caller.saved_at.is_none() {
                let bp = layout.and_then(|layout| {
                    layout.bp_of_caller(self.memory, &registers, VirtAddr(to.at), self.word)
                });
                caller.registers.put(Reg::Bp, bp);
            }
            registers = caller.registers;
            chain.push(caller);
            at = next;
        }
        chain
    }

    /// The best continuation from each candidate. They are computed from the outermost candidate
    /// inwards: each depends on those further out.
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
            // An interrupted frame on another stack, which is scanned next.
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
        let layouts = alloc::copied(self.frames.at(pc, from.lookup));
        let is_known = layouts.iter().any(|layout| layout.from_sp.is_some());
        let mut found = stop;
        for (j, (to, rest)) in self.candidates.iter().zip(best).enumerate().skip(i + 1) {
            if to.at < sp {
                continue;
            }
            let depth = i64::try_from(to.at - sp).ok();
            let layout = layouts
                .iter()
                .find(|layout| layout.from_sp.is_some() && layout.from_sp == depth);
            let at_best = match layout {
                None if is_known && to.call.is_some() => Cost::SAME.misplaced,
                _ => Cost::SAME.placed,
            };
            // Even the best link would not improve the chain.
            if rest.cost + at_best >= found.cost {
                continue;
            }
            let cost = match (layout, self.link(from, to)) {
                (_, Err(stray)) => stray,
                (Some(_), Ok(cost)) => cost.placed,
                (None, Ok(cost)) if is_known => cost.misplaced,
                (None, Ok(cost)) => cost.unknown,
            };
            if rest.cost + cost < found.cost {
                found = Best {
                    cost: rest.cost + cost,
                    next: Some((j, layout.copied())),
                };
            }
        }
        found
    }

    /// The penalties of `to` as the caller of `from`; a single one for saved registers.
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
