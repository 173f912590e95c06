//! How far below its return address a function has its stack pointer, read off its code.
//!
//! The code is followed from the function's start along every branch, and what it pushes, pops and
//! sets aside is summed up. It needs no unwind data at all, so it is what a scan has to go by.

use std::collections::{HashMap, HashSet};

use crate::addr::{Address, VirtAddr, Word, PAGE_SIZE};
use crate::memory::Memory;

use super::decode::{decode, Effect};
use super::step::offset;
use super::symbols::CodeSymbols;

/// The most instructions of one function that are looked at.
const MOST_INSTRUCTIONS: usize = 8192;

/// No frame is larger than a stack.
const LARGEST_FRAME: i64 = 16 << 10;

/// The longest instruction there is.
const LONGEST: usize = 15;

/// The state of the stack before an instruction, in bytes below the return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The stack pointer; unknown after it was aligned.
    stack: Option<i64>,
    /// The frame pointer, if it points into this frame.
    frame: Option<i64>,
}

/// Measures functions; remembers code and results.
pub(super) struct Depths<'a> {
    memory: &'a dyn Memory<VirtAddr>,
    symbols: &'a dyn CodeSymbols,
    word: Word,
    pages: HashMap<u64, Option<Box<[u8; PAGE_SIZE]>>>,
    known: HashMap<u64, Vec<i64>>,
}

impl<'a> Depths<'a> {
    pub fn new(memory: &'a dyn Memory<VirtAddr>, symbols: &'a dyn CodeSymbols, word: Word) -> Self {
        Self {
            memory,
            symbols,
            word,
            pages: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// Bytes between the stack pointer and the return address before the instruction at `pc`,
    /// which belongs to the function at `lookup`. Mostly one value; several where code that is
    /// never reached seems to be, none where the code could not be followed.
    pub fn at(&mut self, pc: VirtAddr, lookup: VirtAddr) -> &[i64] {
        if !self.known.contains_key(&pc.raw()) {
            let found = self
                .start(lookup)
                .map_or(Vec::new(), |start| self.follow(start, pc));
            self.known.insert(pc.raw(), found);
        }
        self.known.get(&pc.raw()).map_or(&[], Vec::as_slice)
    }

    /// Where the function begins; a part that was split off begins in the middle.
    fn start(&self, lookup: VirtAddr) -> Option<VirtAddr> {
        let function = self.symbols.function(lookup)?;
        match function.name.split_once(".cold") {
            Some((whole, _)) => self.symbols.start_of(whole),
            None => Some(function.start),
        }
    }

    fn follow(&mut self, start: VirtAddr, pc: VirtAddr) -> Vec<i64> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let first = State {
            stack: Some(0),
            frame: None,
        };
        // What may not be reached at all waits until the rest is done.
        let mut likely = vec![(start, first)];
        let mut unlikely = Vec::new();
        while seen.len() < MOST_INSTRUCTIONS {
            let (mut at, mut state) = match likely.pop() {
                Some(next) => next,
                None if !found.is_empty() => break,
                None => match unlikely.pop() {
                    Some(next) => next,
                    None => break,
                },
            };
            while seen.len() < MOST_INSTRUCTIONS && seen.insert((at, state)) {
                if at == pc {
                    if let Some(stack) = state.stack.filter(|stack| !found.contains(stack)) {
                        found.push(stack);
                    }
                }
                let Some(instruction) = self
                    .code(at)
                    .and_then(|(code, length)| decode(code.get(..length)?, self.word))
                else {
                    break;
                };
                let next = offset(at, instruction.length as i64, self.word);
                let target = |distance| offset(next, distance, self.word);
                match instruction.effect {
                    Effect::Return => break,
                    Effect::Jump(distance) => {
                        if !self.is_same(start, target(distance)) {
                            break;
                        }
                        at = target(distance);
                        continue;
                    }
                    Effect::Branch(distance) => {
                        if self.is_same(start, target(distance)) {
                            likely.push((target(distance), state));
                        }
                    }
                    Effect::JumpTable | Effect::Trap => {
                        unlikely.push((next, state));
                        break;
                    }
                    effect => state = state.after(effect, self.word),
                }
                if state
                    .stack
                    .is_some_and(|stack| !(0..LARGEST_FRAME).contains(&stack))
                {
                    break;
                }
                at = next;
            }
        }
        found
    }

    /// Whether a jump stays in the function, or goes to a part of it that was split off.
    fn is_same(&self, start: VirtAddr, target: VirtAddr) -> bool {
        let (Some(a), Some(b)) = (self.symbols.function(start), self.symbols.function(target))
        else {
            return false;
        };
        a.start == b.start
            || b.name
                .split_once(".cold")
                .is_some_and(|(whole, _)| whole == a.name)
    }

    /// The bytes at `addr`, and how many of them there are.
    fn code(&mut self, addr: VirtAddr) -> Option<([u8; LONGEST], usize)> {
        let mut code = [0; LONGEST];
        let mut length = 0;
        while length < LONGEST {
            let at = offset(addr, length as i64, self.word);
            let base = at.raw() & !(PAGE_SIZE as u64 - 1);
            let memory = self.memory;
            let page = self.pages.entry(base).or_insert_with(|| {
                let mut page = Box::new([0; PAGE_SIZE]);
                memory
                    .read(VirtAddr(base), page.as_mut_slice())
                    .ok()
                    .map(|()| page)
            });
            let Some(page) = page else {
                break;
            };
            let part = page.get(at.page_offset()..)?;
            for (to, from) in code.get_mut(length..)?.iter_mut().zip(part) {
                *to = *from;
                length += 1;
            }
        }
        (length > 0).then_some((code, length))
    }
}

impl State {
    fn after(self, effect: Effect, word: Word) -> Self {
        let width = word.bytes() as i64;
        let Self { stack, frame } = self;
        let (stack, frame) = match effect {
            Effect::Stack(bytes) => (stack.map(|stack| stack - bytes), frame),
            Effect::PopFrame => (stack.map(|stack| stack - width), None),
            Effect::SetFrame => (stack, stack),
            Effect::ToFrame(bytes) => (frame.map(|frame| frame - bytes), frame),
            Effect::Leave => (frame.map(|frame| frame - width), None),
            Effect::LoseStack => (None, frame),
            Effect::LoseFrame => (stack, None),
            _ => (stack, frame),
        };
        Self { stack, frame }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::testing::{Names, Ram};

    const BASE: u64 = 0xc100_0000;

    fn depth(code: &[u8], at: u64) -> Vec<i64> {
        let mut ram = Ram::new(Word::W32);
        ram.bytes(BASE, &[0xcc; PAGE_SIZE]);
        ram.bytes(BASE, code);
        // f.cold: push %ecx; call; nop.
        ram.bytes(BASE + 0x100, &[0x51, 0xe8, 0, 0, 0, 0, 0x90]);
        let names = Names(vec![
            (BASE, "f"),
            (BASE + 0x100, "f.cold"),
            (BASE + 0x180, "g"),
            (BASE + 0x200, ""),
        ]);
        let pc = VirtAddr(BASE + at);
        Depths::new(&ram, &names, Word::W32).at(pc, pc).to_vec()
    }

    #[test]
    fn pushes_and_locals_are_summed_up_along_the_code() {
        // push %ebp; push %ebx; sub $0x10,%esp; test %eax,%eax; je 1f; call; add $0x10,%esp;
        // pop %ebx; pop %ebp; ret; 1: push $1; call; pop %eax; jmp back.
        let code = [
            0x55, 0x53, 0x83, 0xec, 0x10, 0x85, 0xc0, 0x74, 0x0b, 0xe8, 0, 0, 0, 0, 0x83, 0xc4,
            0x10, 0x5b, 0x5d, 0xc3, 0x6a, 0x01, 0xe8, 0, 0, 0, 0, 0x58, 0xeb, 0xf0,
        ];
        assert_eq!(depth(&code, 0), [0]);
        assert_eq!(depth(&code, 2), [8]);
        assert_eq!(depth(&code, 14), [24]);
        assert_eq!(depth(&code, 19), [0]);
        assert_eq!(depth(&code, 27), [28]);
        assert_eq!(depth(&code, 10), [0; 0], "not an instruction");
    }

    #[test]
    fn a_frame_pointer_gives_the_stack_pointer_back() {
        // push %ebp; mov %esp,%ebp; and $-16,%esp; call; lea -4(%ebp),%esp; nop; leave; ret.
        let code = [
            0x55, 0x89, 0xe5, 0x83, 0xe4, 0xf0, 0xe8, 0, 0, 0, 0, 0x8d, 0x65, 0xfc, 0x90, 0xc9,
            0xc3,
        ];
        assert_eq!(depth(&code, 3), [4]);
        assert_eq!(depth(&code, 11), [0; 0]);
        assert_eq!(depth(&code, 14), [8]);
        assert_eq!(depth(&code, 16), [0]);
    }

    #[test]
    fn a_part_that_was_split_off_goes_on_where_the_function_left_it() {
        // push %ebx; je f.cold; ret.
        let code = [0x53, 0x0f, 0x84, 0xf9, 0, 0, 0, 0xc3];
        assert_eq!(depth(&code, 0x106), [8]);
    }

    #[test]
    fn code_without_end_is_given_up() {
        // 1: push %eax; jmp 1b.
        assert_eq!(depth(&[0x50, 0xeb, 0xfd], 0x50), [0; 0]);
        // jmp into itself.
        assert_eq!(depth(&[0xeb, 0xfe], 0x50), [0; 0]);
    }
}
