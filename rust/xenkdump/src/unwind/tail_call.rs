//! Whether a call to one function can have led into another.

use std::collections::{BTreeSet, HashMap};

use crate::addr::{Address, VirtAddr, Word, PAGE_SIZE};
use crate::memory::Memory;

use super::facts::{Effort, Known, LOOKUP, PAGE};
use super::step::offset;
use super::symbols::{CodeSymbols, Function};

/// How much of a function is searched for jumps out of it.
const WINDOW: usize = 32 << 10;

/// How a call to one function fits a frame of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is the same function.
    Same,
    /// They are parts of one function of the source: `f`, `f.cold`, `f.part.0`.
    Part,
    /// The one jumps to the other.
    TailCall,
    /// Nothing leads from the one to the other.
    No,
}

/// Knows where functions jump to; each is searched once.
pub(super) struct TailCalls<'a> {
    memory: &'a dyn Memory<VirtAddr>,
    symbols: &'a dyn CodeSymbols,
    word: Word,
    known: &'a mut Known<Exits>,
    effort: &'a Effort,
    /// What was asked of the symbols; the same calls are held against many functions.
    functions: HashMap<u64, Option<Function<'a>>>,
}

/// The functions that a function jumps to.
pub(super) type Exits = BTreeSet<u64>;

impl<'a> TailCalls<'a> {
    pub fn new(
        memory: &'a dyn Memory<VirtAddr>,
        symbols: &'a dyn CodeSymbols,
        word: Word,
        known: &'a mut Known<Exits>,
        effort: &'a Effort,
    ) -> Self {
        Self {
            memory,
            symbols,
            word,
            known,
            effort,
            functions: HashMap::new(),
        }
    }

    /// How a call to `target` fits a frame of the function that starts at `function`.
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
        if !self.effort.spend(1) {
            return Fit::No;
        }
        if self.leads_to(target, function) || self.leads_to(called.start, function) {
            return Fit::TailCall;
        }
        Fit::No
    }

    /// Whether the function at `from` jumps to `to`, or to something that does: patched functions
    /// go through one more jump (`static_call` trampolines, kpatch).
    fn leads_to(&mut self, from: VirtAddr, to: VirtAddr) -> bool {
        self.jumps_to(from, to)
            || self
                .only_jump_of(from)
                .is_some_and(|next| self.jumps_to(next, to))
    }

    /// Where the code at `start` goes if it is a jump and nothing else.
    fn only_jump_of(&self, start: VirtAddr) -> Option<VirtAddr> {
        let mut code = [0; 5];
        self.memory.read(start, &mut code).ok()?;
        let [0xe9, a, b, c, d] = code else {
            return None;
        };
        let distance = i32::from_le_bytes([a, b, c, d]);
        Some(offset(start, 5 + i64::from(distance), self.word))
    }

    fn jumps_to(&mut self, from: VirtAddr, to: VirtAddr) -> bool {
        let (memory, symbols, word, effort) = (self.memory, self.symbols, self.word, self.effort);
        let exits = self.known.get_or(from, || {
            let exits = jumps_out_of(memory, symbols, from, word, effort)?;
            let size = exits.len() + 1;
            Some((exits, size))
        });
        exits.is_some_and(|exits| exits.contains(&to.raw()))
    }

    fn function(&mut self, addr: VirtAddr) -> Option<Function<'a>> {
        let symbols = self.symbols;
        *self
            .functions
            .entry(addr.raw())
            .or_insert_with(|| symbols.function(addr))
    }
}

/// The targets of jumps from the function at `start` to starts of other functions. The code is
/// not decoded, so some are not really there; that they hit the first byte of a function makes it
/// unlikely. `None` if they would take too long to find.
fn jumps_out_of(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    start: VirtAddr,
    word: Word,
    effort: &Effort,
) -> Option<Exits> {
    let size = symbols
        .function(start)
        .filter(|function| function.start == start)
        .and_then(|function| function.size)
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(PAGE_SIZE);
    let mut code = vec![0; size.min(WINDOW)];
    effort.spend(PAGE * code.len().div_ceil(PAGE_SIZE) as u32);
    if memory.read(start, &mut code).is_err() {
        // What follows a function may be missing.
        code.truncate(PAGE_SIZE - start.page_offset());
        if memory.read(start, &mut code).is_err() {
            return Some(Exits::new());
        }
    }
    let mut targets = Exits::new();
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
        if !effort.spend(LOOKUP) {
            return None;
        }
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
    use super::*;
    use crate::unwind::testing::{Names, Ram};

    const BASE: u64 = 0xc100_0000;

    fn setting() -> (Ram, Names) {
        let mut ram = Ram::new(Word::W32);
        ram.bytes(BASE, &[0x90; 0x400]);
        // a: je b; the jump of its neighbour is not its own.
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
    fn a_call_fits_where_code_leads_on() {
        let (ram, names) = setting();
        let (mut known, effort) = (Known::default(), Effort::default());
        let mut calls = TailCalls::new(&ram, &names, Word::W32, &mut known, &effort);
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
            "over one jump only from a trampoline"
        );
    }
}
