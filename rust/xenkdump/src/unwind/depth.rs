//! How far below its return address a function has its stack pointer, read off its code.
//!
//! The code is followed from the function's start along every branch, and what it pushes, pops and
//! sets aside is summed up. It needs no unwind data at all, so it is what a scan has to go by.

use std::collections::HashMap;
use std::ops::Range;

use crate::addr::{Address, VirtAddr, Word, PAGE_SIZE};
use crate::memory::Memory;

use super::facts::{Effort, Known, LOOKUP, PAGE};
use super::leaf::is_null_page;
use super::registers::{Reg, Registers};
use super::step::offset;
use super::symbols::{CodeSymbols, Function};
use super::x86::decode::{decode, Effect, MAX_LENGTH};

/// The most instructions of one function that are looked at.
const MOST_INSTRUCTIONS: usize = 8192;

/// How far a function reaches whose size is not known.
const LARGEST_FUNCTION: u64 = 64 << 10;

/// The most ways in which one instruction is reached; more of them mean that the code is misread.
const MOST_STATES: usize = 4;

/// No frame is larger than a stack.
const LARGEST_FRAME: i64 = 16 << 10;

/// So many pages of code are kept at once: many functions share one, and few have more than this.
const MOST_PAGES: usize = 64;

/// Where a frame's return address and its caller's frame pointer lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Bytes from the stack pointer up to the return address; unknown after it was aligned.
    pub stack: Option<i64>,
    /// Bytes from the frame pointer up to the return address, if it points into this frame.
    pub frame: Option<i64>,
    /// The caller's frame pointer.
    pub caller_bp: CallerBp,
}

/// Right after a call, before the function has done anything.
const CALLED: [Place; 1] = [Place {
    stack: Some(0),
    frame: None,
    caller_bp: CallerBp::Kept,
}];

/// What a function did with the frame pointer of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum CallerBp {
    /// It is in its register still.
    Kept,
    /// It was pushed, so many bytes below the return address.
    Pushed(i64),
    /// It was overwritten.
    Lost,
}

/// What was read off a function's code: the places before each of its instructions.
#[derive(Debug)]
pub(super) struct Places {
    /// Addresses of instructions, in order; as often as there are places.
    pcs: Vec<u64>,
    places: Vec<Place>,
}

/// Measures functions, each once.
pub(super) struct Depths<'a> {
    known: &'a mut Known<Places>,
    code: Code<'a>,
}

/// Code as it lies in memory.
struct Code<'a> {
    memory: &'a dyn Memory<VirtAddr>,
    symbols: &'a dyn CodeSymbols,
    word: Word,
    effort: &'a Effort,
    pages: HashMap<u64, Option<Box<[u8; PAGE_SIZE]>>>,
}

impl<'a> Depths<'a> {
    pub fn new(
        memory: &'a dyn Memory<VirtAddr>,
        symbols: &'a dyn CodeSymbols,
        word: Word,
        known: &'a mut Known<Places>,
        effort: &'a Effort,
    ) -> Self {
        Self {
            known,
            code: Code {
                memory,
                symbols,
                word,
                effort,
                pages: HashMap::new(),
            },
        }
    }

    /// The place of the return address before the instruction at `pc`, which belongs to the
    /// function at `lookup`. Mostly one; several where code that is never reached seems to be, none
    /// where the code could not be followed.
    pub fn at(&mut self, pc: VirtAddr, lookup: VirtAddr) -> &[Place] {
        if is_null_page(pc) {
            return &CALLED;
        }
        self.of_function(lookup).map_or(&[], |places| places.at(pc))
    }

    /// The places in the function at `lookup`; `None` where its code could not be followed.
    pub fn of_function(&mut self, lookup: VirtAddr) -> Option<&Places> {
        let code = &mut self.code;
        let start = code.start(lookup)?;
        self.known.get_or(start, || {
            let places = code.follow(start)?;
            let size = places.pcs.len() + 1;
            Some((places, size))
        })
    }
}

impl Places {
    /// Each instruction with its place, in order; those with several places are left out.
    pub fn certain(&self) -> impl Iterator<Item = (VirtAddr, &Place)> {
        let runs = self.pcs.chunk_by(|a, b| a == b);
        runs.scan(0, |at, run| {
            let first = *at;
            *at += run.len();
            Some((first, run))
        })
        .filter_map(|(first, run)| match run {
            [pc] => Some((VirtAddr(*pc), self.places.get(first)?)),
            _ => None,
        })
    }

    fn at(&self, pc: VirtAddr) -> &[Place] {
        let from = self.pcs.partition_point(|at| *at < pc.raw());
        let to = self.pcs.partition_point(|at| *at <= pc.raw());
        self.places.get(from..to).unwrap_or_default()
    }
}

impl<'a> Code<'a> {
    /// Where the function begins; a part that was split off begins in the middle.
    fn start(&self, lookup: VirtAddr) -> Option<VirtAddr> {
        let function = self.symbols.function(lookup)?;
        match function.name.split_once(".cold") {
            Some((whole, _)) => self.symbols.start_of(whole),
            None => Some(function.start),
        }
    }

    /// The places in the function at `start`; `None` if they would take too long to find.
    fn follow(&mut self, start: VirtAddr) -> Option<Places> {
        let own = self.function(start);
        let mut found: Vec<(u64, u32, Place)> = Vec::new();
        let mut seen: HashMap<VirtAddr, Vec<Place>> = HashMap::new();
        let mut steps = 0;
        let first = Place {
            stack: Some(0),
            frame: None,
            caller_bp: CallerBp::Kept,
        };
        // What may not be reached at all waits until the rest is done, and counts only where that
        // did not come.
        let mut likely = vec![(start, first)];
        let mut unlikely = Vec::new();
        let mut unlikelihood = 0;
        while steps < MOST_INSTRUCTIONS {
            let (mut at, mut state) = match likely.pop() {
                Some(next) => next,
                None => match unlikely.pop() {
                    Some(next) => {
                        unlikelihood += 1;
                        next
                    }
                    None => break,
                },
            };
            let mut part = self.part(at);
            while steps < MOST_INSTRUCTIONS && part.contains(&at) {
                if !self.effort.spend(1) {
                    return None;
                }
                steps += 1;
                let states = seen.entry(at).or_default();
                if states.contains(&state) || states.len() >= MOST_STATES {
                    break;
                }
                states.push(state);
                found.push((at.raw(), unlikelihood, state));
                let Some(instruction) = self
                    .bytes(at)
                    .and_then(|(code, length)| decode(code.get(..length)?, at, self.word))
                else {
                    break;
                };
                let next = offset(at, instruction.length as i64, self.word);
                match instruction.effect {
                    Effect::Return => break,
                    Effect::Jump(target) => {
                        if !self.is_same(own, target) {
                            break;
                        }
                        at = target;
                        part = self.part(at);
                        continue;
                    }
                    Effect::Branch(target) => {
                        if self.is_same(own, target) {
                            likely.push((target, state));
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
        found.sort_by_key(|(at, ..)| *at);
        let mut likeliest = None;
        found.retain(|(at, unlikelihood, _)| match likeliest {
            Some((known, least)) if known == *at => *unlikelihood == least,
            _ => {
                likeliest = Some((*at, *unlikelihood));
                true
            }
        });
        let (pcs, places) = found.into_iter().map(|(at, _, place)| (at, place)).unzip();
        Some(Places { pcs, places })
    }

    fn function(&self, addr: VirtAddr) -> Option<Function<'a>> {
        self.effort.spend(LOOKUP);
        self.symbols.function(addr)
    }

    /// The code around `addr` that bears one name. After a call that never returns comes the next
    /// function, and nothing of this one.
    fn part(&self, addr: VirtAddr) -> Range<VirtAddr> {
        match self.function(addr) {
            Some(function) => {
                let size = function.size.unwrap_or(LARGEST_FUNCTION);
                function.start..VirtAddr(function.start.raw().saturating_add(size))
            }
            None => addr..addr,
        }
    }

    /// Whether a jump stays in the function, or goes to a part of it that was split off.
    fn is_same(&self, own: Option<Function<'_>>, target: VirtAddr) -> bool {
        let Some((a, b)) = own.zip(self.function(target)) else {
            return false;
        };
        a.start == b.start
            || b.name
                .split_once(".cold")
                .is_some_and(|(whole, _)| whole == a.name)
    }

    /// The bytes at `addr`, and how many of them there are.
    fn bytes(&mut self, addr: VirtAddr) -> Option<([u8; MAX_LENGTH], usize)> {
        let mut code = [0; MAX_LENGTH];
        let mut length = 0;
        while length < MAX_LENGTH {
            let at = offset(addr, length as i64, self.word);
            let base = at.raw() & !(PAGE_SIZE as u64 - 1);
            let (memory, effort) = (self.memory, self.effort);
            if self.pages.len() >= MOST_PAGES && !self.pages.contains_key(&base) {
                self.pages.clear();
            }
            let page = self.pages.entry(base).or_insert_with(|| {
                effort.spend(PAGE);
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

impl Place {
    /// The frame pointer of the caller, whose return address lies at `at`.
    pub fn bp_of_caller(
        &self,
        memory: &dyn Memory<VirtAddr>,
        registers: &Registers,
        at: VirtAddr,
        word: Word,
    ) -> Option<u64> {
        match self.caller_bp {
            CallerBp::Kept => registers.get(Reg::Bp),
            CallerBp::Pushed(below) => {
                let pushed = offset(at, below.wrapping_neg(), word);
                memory.read_word(pushed, word).ok()
            }
            CallerBp::Lost => None,
        }
    }

    fn after(self, effect: Effect, word: Word) -> Self {
        let width = word.bytes() as i64;
        let Self {
            stack,
            frame,
            caller_bp,
        } = self;
        let overwritten = match caller_bp {
            CallerBp::Pushed(_) => caller_bp,
            CallerBp::Kept | CallerBp::Lost => CallerBp::Lost,
        };
        // A function that pushes its caller's pops the same at its end.
        let popped = match caller_bp {
            CallerBp::Lost => CallerBp::Lost,
            CallerBp::Pushed(_) | CallerBp::Kept => CallerBp::Kept,
        };
        let (stack, frame, caller_bp) = match effect {
            Effect::Stack(bytes) => (stack.map(|stack| stack - bytes), frame, caller_bp),
            Effect::PushFrame => {
                let stack = stack.map(|stack| stack + width);
                let pushed = match (caller_bp, stack) {
                    (CallerBp::Kept, Some(stack)) => CallerBp::Pushed(stack),
                    _ => caller_bp,
                };
                (stack, frame, pushed)
            }
            Effect::PopFrame => (stack.map(|stack| stack - width), None, popped),
            Effect::SetFrame => (stack, stack, overwritten),
            Effect::ToFrame(bytes) => (frame.map(|frame| frame - bytes), frame, caller_bp),
            Effect::Leave => (frame.map(|frame| frame - width), None, popped),
            Effect::SetStack(_) | Effect::PopStack | Effect::LoseStack => (None, frame, caller_bp),
            Effect::LoseFrame => (stack, None, overwritten),
            _ => (stack, frame, caller_bp),
        };
        Self {
            stack,
            frame,
            caller_bp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::testing::{Names, Ram};

    const BASE: u64 = 0xc100_0000;

    fn places(code: &[u8], at: u64) -> Vec<Place> {
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
        let (mut known, effort) = (Known::default(), Effort::default());
        Depths::new(&ram, &names, Word::W32, &mut known, &effort)
            .at(pc, pc)
            .to_vec()
    }

    fn depth(code: &[u8], at: u64) -> Vec<Option<i64>> {
        places(code, at).iter().map(|place| place.stack).collect()
    }

    #[test]
    fn pushes_and_locals_are_summed_up_along_the_code() {
        // push %ebp; push %ebx; sub $0x10,%esp; test %eax,%eax; je 1f; call; add $0x10,%esp;
        // pop %ebx; pop %ebp; ret; 1: push $1; call; pop %eax; jmp back.
        let code = [
            0x55, 0x53, 0x83, 0xec, 0x10, 0x85, 0xc0, 0x74, 0x0b, 0xe8, 0, 0, 0, 0, 0x83, 0xc4,
            0x10, 0x5b, 0x5d, 0xc3, 0x6a, 0x01, 0xe8, 0, 0, 0, 0, 0x58, 0xeb, 0xf0,
        ];
        assert_eq!(depth(&code, 0), [Some(0)]);
        assert_eq!(depth(&code, 2), [Some(8)]);
        assert_eq!(depth(&code, 14), [Some(24)]);
        assert_eq!(depth(&code, 19), [Some(0)]);
        assert_eq!(depth(&code, 27), [Some(28)]);
        assert_eq!(depth(&code, 10), [], "not an instruction");
    }

    #[test]
    fn a_frame_pointer_gives_the_stack_pointer_back() {
        // push %ebp; mov %esp,%ebp; and $-16,%esp; call; lea -4(%ebp),%esp; nop; leave; ret.
        let code = [
            0x55, 0x89, 0xe5, 0x83, 0xe4, 0xf0, 0xe8, 0, 0, 0, 0, 0x8d, 0x65, 0xfc, 0x90, 0xc9,
            0xc3,
        ];
        assert_eq!(depth(&code, 3), [Some(4)]);
        let aligned = Place {
            stack: None,
            frame: Some(4),
            caller_bp: CallerBp::Pushed(4),
        };
        assert_eq!(places(&code, 11), [aligned]);
        assert_eq!(depth(&code, 14), [Some(8)]);
        let left = Place {
            stack: Some(0),
            frame: None,
            caller_bp: CallerBp::Kept,
        };
        assert_eq!(places(&code, 16), [left]);
    }

    #[test]
    fn a_part_that_was_split_off_goes_on_where_the_function_left_it() {
        // push %ebx; je f.cold; ret.
        let code = [0x53, 0x0f, 0x84, 0xf9, 0, 0, 0, 0xc3];
        assert_eq!(depth(&code, 0x106), [Some(8)]);
    }

    #[test]
    fn what_comes_after_a_jump_table_counts_only_where_nothing_else_leads() {
        // je 1f; push %ebx; jmp *table(,%eax,4); 1: ret.
        let code = [0x74, 8, 0x53, 0xff, 0x24, 0x85, 0, 0, 0, 0, 0xc3];
        assert_eq!(depth(&code, 10), [Some(0)]);
        // push %ebx; jmp *table(,%eax,4); nop; ret.
        let code = [0x53, 0xff, 0x24, 0x85, 0, 0, 0, 0, 0x90, 0xc3];
        assert_eq!(depth(&code, 9), [Some(4)]);
    }

    #[test]
    fn a_function_is_followed_once_with_few_of_its_pages_at_a_time() {
        let pages = 2 * MOST_PAGES as u64;
        let page = |number| BASE + number * PAGE_SIZE as u64;
        let mut ram = Ram::new(Word::W32);
        for number in 0..pages {
            ram.bytes(page(number), &[0; PAGE_SIZE]);
            // push %ebx; jmp to the next page.
            ram.bytes(page(number), &[0x53, 0xe9, 0xfa, 0x0f, 0, 0]);
        }
        let names = Names(vec![(BASE, "f"), (page(pages), "")]);
        let (mut known, effort) = (Known::default(), Effort::default());
        let mut depths = Depths::new(&ram, &names, Word::W32, &mut known, &effort);
        let mut left = None;
        for number in 0..pages {
            let pc = VirtAddr(page(number) + 1);
            let [place] = depths.at(pc, pc) else {
                panic!("page {number}");
            };
            assert_eq!(place.stack, Some(4 * (number as i64 + 1)));
            // To find the function's start again is all.
            let before = left.replace(effort.left());
            assert!(before.is_none_or(|before| before - effort.left() <= LOOKUP));
        }
        assert!(depths.code.pages.len() <= MOST_PAGES);
    }

    #[test]
    fn nothing_was_pushed_since_a_call_into_the_null_page() {
        let ram = Ram::new(Word::W64);
        // Per-CPU symbols are linked at 0 until 6.14.
        let names = Names(vec![(0, "fixed_percpu_data"), (0x1000, "")]);
        let (mut known, effort) = (Known::default(), Effort::default());
        let mut depths = Depths::new(&ram, &names, Word::W64, &mut known, &effort);
        for pc in [0, 0x48] {
            assert_eq!(depths.at(VirtAddr(pc), VirtAddr(pc)), CALLED);
        }
    }

    #[test]
    fn code_without_end_is_given_up() {
        // 1: push %eax; jmp 1b.
        assert_eq!(depth(&[0x50, 0xeb, 0xfd], 0x50), []);
        // jmp into itself.
        assert_eq!(depth(&[0xeb, 0xfe], 0x50), []);
    }
}
