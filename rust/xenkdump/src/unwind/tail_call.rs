//! Whether a call to one function can have led into another.

use std::collections::HashMap;

use crate::addr::{Address, VirtAddr, Word, PAGE_SIZE};
use crate::memory::Memory;

use super::step::offset;
use super::symbols::CodeSymbols;

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
    jumps: &'a mut Jumps,
}

/// The functions that each function jumps to.
pub(super) type Jumps = HashMap<u64, Vec<u64>>;

impl<'a> TailCalls<'a> {
    pub fn new(
        memory: &'a dyn Memory<VirtAddr>,
        symbols: &'a dyn CodeSymbols,
        word: Word,
        jumps: &'a mut Jumps,
    ) -> Self {
        Self {
            memory,
            symbols,
            word,
            jumps,
        }
    }

    /// How a call to `target` fits a frame of the function that starts at `function`.
    pub fn fit(&mut self, target: VirtAddr, function: VirtAddr) -> Fit {
        let Some(called) = self.symbols.function(target) else {
            return Fit::No;
        };
        if called.start == function {
            return Fit::Same;
        }
        let stem = |name: &'a str| name.split('.').next().unwrap_or(name);
        let symbols = self.symbols;
        let parts = symbols
            .function(function)
            .zip(symbols.function(target))
            .is_some_and(|(a, b)| stem(a.name) == stem(b.name));
        if parts {
            return Fit::Part;
        }
        if self.leads_to(target, function) || self.leads_to(called.start, function) {
            return Fit::TailCall;
        }
        Fit::No
    }

    /// Whether the function at `from` jumps to `to`, or to something that does: patched functions
    /// go through one more jump (`static_call` trampolines, kpatch).
    fn leads_to(&mut self, from: VirtAddr, to: VirtAddr) -> bool {
        self.jumps_of(from).contains(&to.raw())
            || self
                .only_jump_of(from)
                .is_some_and(|next| self.jumps_of(next).contains(&to.raw()))
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

    fn jumps_of(&mut self, start: VirtAddr) -> &[u64] {
        let (memory, symbols, word) = (self.memory, self.symbols, self.word);
        self.jumps
            .entry(start.raw())
            .or_insert_with(|| jumps_out_of(memory, symbols, start, word))
    }
}

/// The targets of jumps from the function at `start` to starts of other functions. The code is
/// not decoded, so some are not really there; that they hit the first byte of a function makes it
/// unlikely.
fn jumps_out_of(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    start: VirtAddr,
    word: Word,
) -> Vec<u64> {
    let size = symbols
        .function(start)
        .filter(|function| function.start == start)
        .and_then(|function| function.size)
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(PAGE_SIZE);
    let mut code = vec![0; size.min(WINDOW)];
    if memory.read(start, &mut code).is_err() {
        // What follows a function may be missing.
        code.truncate(PAGE_SIZE - start.page_offset());
        if memory.read(start, &mut code).is_err() {
            return Vec::new();
        }
    }
    let mut targets = Vec::new();
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
            targets.push(target.raw());
        }
    }
    targets
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
        let mut jumps = Jumps::new();
        let mut calls = TailCalls::new(&ram, &names, Word::W32, &mut jumps);
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
