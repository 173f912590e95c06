//! Whether a call to one function can lead to another, by a tail call.

use std::collections::{BTreeSet, HashMap};

use crate::addr::{Address, VirtAddr, Word, PAGE_SIZE};
use crate::budget::Budget;
use crate::limits::MAX_TAIL_JUMP_CODE;
use crate::memory::Memory;
use crate::unwind::step::offset;
use crate::unwind::symbols::{read_code, CodeSymbols, Function};

use super::decode::{decode, Effect};
use super::function_cache::{FunctionCache, LOOKUP_COST, PAGE_COST};

/// How a call to one function matches a frame of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::unwind) enum Fit {
    /// It is the same function.
    Same,
    /// They are parts of one source function: `f`, `f.cold`, `f.part.0`.
    Part,
    /// The called function jumps to the other.
    TailCall,
    /// No jump leads from one to the other.
    No,
}

/// Finds the jumps out of functions, once for each function.
pub(in crate::unwind) struct TailCalls<'a> {
    memory: &'a dyn Memory<VirtAddr>,
    symbols: &'a dyn CodeSymbols,
    word: Word,
    cache: &'a mut FunctionCache<TailJumps>,
    budget: &'a Budget<'a>,
    /// Cached symbol lookups: each call is compared with many functions.
    functions: HashMap<u64, Option<Function<'a>>>,
}

/// The starts of the functions that a function jumps to.
pub(in crate::unwind) type TailJumps = BTreeSet<u64>;

impl<'a> TailCalls<'a> {
    pub fn new(
        memory: &'a dyn Memory<VirtAddr>,
        symbols: &'a dyn CodeSymbols,
        word: Word,
        cache: &'a mut FunctionCache<TailJumps>,
        budget: &'a Budget<'a>,
    ) -> Self {
        Self {
            memory,
            symbols,
            word,
            cache,
            budget,
            functions: HashMap::new(),
        }
    }

    /// How a call to `target` matches a frame of the function that starts at `function`.
    pub fn fit(&mut self, target: VirtAddr, function: VirtAddr) -> Fit {
        let Some(called) = self.function(target) else {
            return Fit::No;
        };
        if called.start == function {
            return Fit::Same;
        }
        let stem = |name: &'a str| name.split('.').next().unwrap_or(name);
        let parts = self
            .function(function)
            .is_some_and(|function| stem(function.name) == stem(called.name));
        if parts {
            return Fit::Part;
        }
        if self.budget.spend(1).is_err() {
            return Fit::No;
        }
        if self.leads_to(target, function) || self.leads_to(called.start, function) {
            return Fit::TailCall;
        }
        Fit::No
    }

    /// Whether the function at `from` jumps to `to`, or is a single jump to a function that does
    /// (`static_call` trampolines, kpatch).
    fn leads_to(&mut self, from: VirtAddr, to: VirtAddr) -> bool {
        self.jumps_to(from, to)
            || self
                .only_jump_of(from)
                .is_some_and(|next| self.jumps_to(next, to))
    }

    /// The target of the jump at `start`, if there is one.
    fn only_jump_of(&self, start: VirtAddr) -> Option<VirtAddr> {
        let mut code = [0; 5];
        read_code(self.memory, self.symbols, start, &mut code).ok()?;
        match decode(&code, start, self.word)?.effect {
            Effect::Jump(target) => Some(target),
            _ => None,
        }
    }

    fn jumps_to(&mut self, from: VirtAddr, to: VirtAddr) -> bool {
        let (memory, symbols, word, budget) = (self.memory, self.symbols, self.word, self.budget);
        let jumps = self.cache.get_or(from, || {
            let jumps = jumps_out_of(memory, symbols, from, word, budget)?;
            let size = jumps.len() + 1;
            Some((jumps, size))
        });
        jumps.is_some_and(|jumps| jumps.contains(&to.raw()))
    }

    fn function(&mut self, addr: VirtAddr) -> Option<Function<'a>> {
        let symbols = self.symbols;
        *self
            .functions
            .entry(addr.raw())
            .or_insert_with(|| symbols.function(addr))
    }
}

/// The targets of jumps from the function at `start` to starts of other functions; `None` if the
/// budget is exhausted.
///
/// Every byte is tried as the start of a jump, so data between instructions cannot hide one. A false
/// jump is unlikely to lead to the first byte of a function.
fn jumps_out_of(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    start: VirtAddr,
    word: Word,
    budget: &Budget<'_>,
) -> Option<TailJumps> {
    let size = symbols
        .function(start)
        .filter(|function| function.start == start)
        .and_then(|function| function.size)
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(PAGE_SIZE);
    let mut code = vec![0; size.min(MAX_TAIL_JUMP_CODE)];
    let pages = code.len().div_ceil(PAGE_SIZE) as u64;
    budget.spend(PAGE_COST * pages).ok()?;
    if read_code(memory, symbols, start, &mut code).is_err() {
        // The next page may be missing.
        code.truncate(PAGE_SIZE - start.page_offset());
        if read_code(memory, symbols, start, &mut code).is_err() {
            return Some(TailJumps::new());
        }
    }
    let mut targets = TailJumps::new();
    for at in 0..code.len() {
        let (end, distance) = match code.get(at..).unwrap_or_default() {
            [0xe9, a, b, c, d, ..] => (at + 5, i32::from_le_bytes([*a, *b, *c, *d]).into()),
            [0x0f, 0x80..=0x8f, a, b, c, d, ..] => {
                (at + 6, i32::from_le_bytes([*a, *b, *c, *d]).into())
            }
            [0xeb, a, ..] => (at + 2, i64::from(*a as i8)),
            _ => continue,
        };
        let target = offset(start, end as i64 + distance, word);
        budget.spend(LOOKUP_COST).ok()?;
        let hits = symbols
            .function(target)
            .is_some_and(|function| function.start == target && target != start);
        if hits && !targets.contains(&target.raw()) {
            let here = VirtAddr(start.raw().wrapping_add(at as u64));
            let within = symbols
                .function(here)
                .is_some_and(|function| function.start == start);
            if !within {
                break;
            }
            targets.insert(target.raw());
        }
    }
    Some(targets)
}

#[cfg(test)]
mod tests {
    use super::super::function_cache::stack_budget;
    use super::*;
    use crate::unwind::testing::{Names, Ram};

    const BASE: u64 = 0xc100_0000;

    fn test_kernel() -> (Ram, Names) {
        let mut ram = Ram::new(Word::W32);
        ram.bytes(BASE, &[0x90; 0x400]);
        // a: je b. The jump of the adjacent function is not attributed to it.
        ram.bytes(BASE + 0x10, &[0x0f, 0x84, 0xea, 0, 0, 0]);
        ram.bytes(BASE + 0x100 + 0x10, &[0xe9, 0xeb, 0, 0, 0]);
        // trampoline: jmp a.
        ram.bytes(BASE + 0x300, &[0xe9, 0xfb, 0xfc, 0xff, 0xff]);
        let names = Names(vec![
            (BASE, "a"),
            (BASE + 0x100, "b"),
            (BASE + 0x200, "c"),
            (BASE + 0x300, "trampoline"),
            (BASE + 0x310, "b.cold"),
            (BASE + 0x400, ""),
        ]);
        (ram, names)
    }

    #[test]
    fn a_call_matches_the_target_of_a_tail_call() {
        let (ram, names) = test_kernel();
        let (mut cache, budget) = (FunctionCache::default(), stack_budget());
        let mut calls = TailCalls::new(&ram, &names, Word::W32, &mut cache, &budget);
        let mut fit =
            |target, function| calls.fit(VirtAddr(BASE + target), VirtAddr(BASE + function));
        assert_eq!(fit(0, 0), Fit::Same);
        assert_eq!(fit(4, 0), Fit::Same, "past `call __fentry__`");
        assert_eq!(fit(0x100, 0x310), Fit::Part);
        assert_eq!(fit(0, 0x100), Fit::TailCall);
        assert_eq!(fit(0x300, 0), Fit::TailCall);
        assert_eq!(fit(0x300, 0x100), Fit::TailCall);
        assert_eq!(fit(0x100, 0), Fit::No);
        assert_eq!(
            fit(0, 0x200),
            Fit::No,
            "only a trampoline is followed by another jump"
        );
    }
}
