//! The layout of a function's stack frame at each of its instructions, derived from its code.
//!
//! The code is followed from the function's start along every branch, and its effects on the stack
//! pointer and the frame pointer are summed up. This needs no unwind data: frame pointers, the scan
//! and the verification of ORC depend on it.

use std::collections::HashMap;
use std::ops::Range;

use crate::addr::{Address, VirtAddr, Word, PAGE_SIZE};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::{
    MAX_CODE_PAGES, MAX_FRAME_SIZE, MAX_FUNCTION_INSTRUCTIONS, MAX_FUNCTION_SIZE,
    MAX_INSTRUCTION_LAYOUTS,
};
use crate::memory::Memory;
use crate::unwind::registers::{Reg, Registers};
use crate::unwind::step::offset;
use crate::unwind::symbols::{read_code, CodeSymbols, Function};

use super::decode::{decode, Effect, Instruction, MAX_LENGTH};
use super::function_cache::{FunctionCache, LOOKUP_COST, PAGE_COST};
use super::leaf::is_null_page;

/// The positions of a frame's return address and of its caller's frame pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::unwind) struct FrameLayout {
    /// Bytes from the stack pointer up to the return address: the stack depth. Unknown after the
    /// stack was aligned.
    pub from_sp: Option<i64>,
    /// Bytes from the frame pointer up to the return address, if the register points into this frame.
    pub from_bp: Option<i64>,
    /// The caller's frame pointer.
    pub caller_bp: CallerBp,
}

impl FrameLayout {
    /// At the first instruction of a function.
    const ENTRY: Self = Self {
        from_sp: Some(0),
        from_bp: None,
        caller_bp: CallerBp::Kept,
    };
}

/// The frame pointer of a function's caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::unwind) enum CallerBp {
    /// It is still in its register.
    Kept,
    /// It was pushed, this many bytes below the return address.
    Pushed(i64),
    /// It was overwritten.
    Lost,
}

/// The layouts at the instructions of one function.
#[derive(Debug)]
pub(in crate::unwind) struct FrameLayouts {
    /// Ascending addresses of instructions, one for each layout.
    pcs: Vec<u64>,
    layouts: Vec<FrameLayout>,
}

/// Derives frame layouts, once for each function.
pub(in crate::unwind) struct FrameAnalyzer<'a> {
    cache: &'a mut FunctionCache<FrameLayouts>,
    code: Code<'a>,
}

/// Code in the dump.
struct Code<'a> {
    memory: &'a dyn Memory<VirtAddr>,
    symbols: &'a dyn CodeSymbols,
    word: Word,
    budget: &'a Budget<'a>,
    pages: HashMap<u64, Option<Box<[u8; PAGE_SIZE]>>>,
}

impl<'a> FrameAnalyzer<'a> {
    pub fn new(
        memory: &'a dyn Memory<VirtAddr>,
        symbols: &'a dyn CodeSymbols,
        word: Word,
        cache: &'a mut FunctionCache<FrameLayouts>,
        budget: &'a Budget<'a>,
    ) -> Self {
        Self {
            cache,
            code: Code {
                memory,
                symbols,
                word,
                budget,
                pages: HashMap::new(),
            },
        }
    }

    /// The layouts before the instruction at `pc`, in the function that contains `lookup`. Usually
    /// one; several if unreachable code seems to be reachable, none if the code cannot be followed.
    pub fn at(&mut self, pc: VirtAddr, lookup: VirtAddr) -> &[FrameLayout] {
        if is_null_page(pc) {
            return &[FrameLayout::ENTRY];
        }
        self.of_function(lookup)
            .map_or(&[], |layouts| layouts.at(pc))
    }

    /// The layouts in the function that contains `lookup`; `None` if its code cannot be followed.
    pub fn of_function(&mut self, lookup: VirtAddr) -> Option<&FrameLayouts> {
        let code = &mut self.code;
        let start = code.start(lookup)?;
        self.cache.get_or(start, || {
            let layouts = code.follow(start)?;
            let size = layouts.pcs.len() + 1;
            Some((layouts, size))
        })
    }
}

impl FrameLayouts {
    /// The instructions that have exactly one layout, in ascending order.
    pub fn certain(&self) -> impl Iterator<Item = (VirtAddr, &FrameLayout)> {
        let runs = self.pcs.chunk_by(|a, b| a == b);
        runs.scan(0, |at, run| {
            let first = *at;
            *at += run.len();
            Some((first, run))
        })
        .filter_map(|(first, run)| match run {
            [pc] => Some((VirtAddr(*pc), self.layouts.get(first)?)),
            _ => None,
        })
    }

    fn at(&self, pc: VirtAddr) -> &[FrameLayout] {
        let from = self.pcs.partition_point(|at| *at < pc.raw());
        let to = self.pcs.partition_point(|at| *at <= pc.raw());
        self.layouts.get(from..to).unwrap_or_default()
    }
}

impl<'a> Code<'a> {
    /// The start of the function; that of the whole function for a part that was split off.
    fn start(&self, lookup: VirtAddr) -> Option<VirtAddr> {
        let function = self.symbols.function(lookup)?;
        match function.name.split_once(".cold") {
            Some((whole, _)) => self.symbols.start_of(whole),
            None => Some(function.start),
        }
    }

    /// The layouts in the function at `start`; `None` if the budget is exhausted.
    fn follow(&mut self, start: VirtAddr) -> Option<FrameLayouts> {
        let own = self.function(start);
        // With their order.
        let mut found: Vec<(u64, usize, u32, FrameLayout)> = Vec::new();
        let mut seen: HashMap<VirtAddr, Vec<FrameLayout>> = HashMap::new();
        let mut steps = 0;
        // Code after a jump table or a trap may be unreachable. It is followed last, and its layouts
        // are used only for instructions that were not reached otherwise.
        let mut likely = vec![(start, FrameLayout::ENTRY)];
        let mut unlikely = Vec::new();
        let mut unlikelihood = 0;
        while steps < MAX_FUNCTION_INSTRUCTIONS {
            let (mut at, mut layout) = match likely.pop() {
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
            let mut switch = Switch::default();
            while steps < MAX_FUNCTION_INSTRUCTIONS && part.contains(&at) {
                self.budget.spend(1).ok()?;
                steps += 1;
                let layouts = alloc::entry(&mut seen, at);
                if layouts.contains(&layout) || layouts.len() >= MAX_INSTRUCTION_LAYOUTS {
                    break;
                }
                layouts.push(layout);
                let number = found.len();
                alloc::push(&mut found, (at.raw(), number, unlikelihood, layout));
                let Some(instruction) = self
                    .bytes(at)
                    .and_then(|(code, length)| decode(code.get(..length)?, at, self.word))
                else {
                    break;
                };
                let next = offset(at, instruction.length as i64, self.word);
                if switch.follow(instruction, layout) {
                    if let Some((layout, after)) = self.resumed(next, &switch) {
                        let number = found.len();
                        alloc::push(&mut found, (next.raw(), number, unlikelihood, layout));
                        alloc::push(&mut likely, (after, layout));
                        break;
                    }
                }
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
                            alloc::push(&mut likely, (target, layout));
                        }
                    }
                    Effect::JumpTable | Effect::Trap => {
                        alloc::push(&mut unlikely, (next, layout));
                        break;
                    }
                    effect => layout = layout.after(effect, self.word),
                }
                if layout
                    .from_sp
                    .is_some_and(|depth| !(0..MAX_FRAME_SIZE).contains(&depth))
                {
                    break;
                }
                at = next;
            }
        }
        found.sort_unstable_by_key(|(at, number, ..)| (*at, *number));
        let mut likeliest = None;
        found.retain(|(at, _, unlikelihood, _)| match likeliest {
            Some((pc, least)) if pc == *at => *unlikelihood == least,
            _ => {
                likeliest = Some((*at, *unlikelihood));
                true
            }
        });
        let pcs = alloc::collect(found.iter().map(|(at, ..)| *at));
        let layouts = alloc::collect(found.iter().map(|(.., layout)| *layout));
        Some(FrameLayouts { pcs, layouts })
    }

    fn function(&self, addr: VirtAddr) -> Option<Function<'a>> {
        // If this charge is refused, so is that of the next instruction.
        let _ = self.budget.spend(LOOKUP_COST);
        self.symbols.function(addr)
    }

    /// The layout where a task resumes that was switched out before `at`, and where the registers that
    /// `switch` pushed are popped again. The stack pointer of a saved task is that behind them.
    fn resumed(&mut self, mut at: VirtAddr, switch: &Switch) -> Option<(FrameLayout, VirtAddr)> {
        let mut layout = switch.pushed?;
        let mut is_popped = false;
        for _ in 0..MAX_AFTER_SWITCH {
            self.budget.spend(1).ok()?;
            let (code, length) = self.bytes(at)?;
            let instruction = decode(code.get(..length)?, at, self.word)?;
            match instruction.effect {
                Effect::PopFrame if !is_popped => is_popped = true,
                // The flags.
                Effect::Stack(bytes) if is_popped && bytes == self.word.bytes() as i64 => {
                    layout.from_sp = layout.from_sp.map(|depth| depth - bytes);
                }
                _ if is_popped => return Some((layout, at)),
                Effect::None | Effect::Branch(_) => {}
                _ => return None,
            }
            at = offset(at, instruction.length as i64, self.word);
        }
        None
    }

    /// The code around `addr` under one symbol. Beyond its end, after a call that never returns, is
    /// another function.
    fn part(&self, addr: VirtAddr) -> Range<VirtAddr> {
        match self.function(addr) {
            Some(function) => {
                let size = function.size.unwrap_or(MAX_FUNCTION_SIZE);
                function.start..VirtAddr(function.start.raw().saturating_add(size))
            }
            None => addr..addr,
        }
    }

    /// Whether a jump stays in the function or goes to a part of it that was split off.
    fn is_same(&self, own: Option<Function<'_>>, target: VirtAddr) -> bool {
        let Some((a, b)) = own.zip(self.function(target)) else {
            return false;
        };
        a.start == b.start
            || b.name
                .split_once(".cold")
                .is_some_and(|(whole, _)| whole == a.name)
    }

    /// The bytes at `addr`, and their number.
    fn bytes(&mut self, addr: VirtAddr) -> Option<([u8; MAX_LENGTH], usize)> {
        let mut code = [0; MAX_LENGTH];
        let mut length = 0;
        while length < MAX_LENGTH {
            let at = offset(addr, length as i64, self.word);
            let base = at.raw() & !(PAGE_SIZE as u64 - 1);
            let (memory, symbols, budget) = (self.memory, self.symbols, self.budget);
            if self.pages.len() >= MAX_CODE_PAGES && !self.pages.contains_key(&base) {
                self.pages.clear();
            }
            let page = self.pages.entry(base).or_insert_with(|| {
                let _ = budget.spend(PAGE_COST);
                let mut page = Box::new([0; PAGE_SIZE]);
                read_code(memory, symbols, VirtAddr(base), page.as_mut_slice())
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

/// The maximum number of instructions between the switch to another stack and the last of the pops.
const MAX_AFTER_SWITCH: usize = 16;

/// The maximum number of instructions from the push of the frame pointer to the switch.
const MAX_BEFORE_SWITCH: usize = 4;

/// `switch_to` before Linux 4.9: pushes the frame pointer, loads the stack pointer of another task and
/// jumps (on 32 bits) to `__switch_to`, or calls it. Code then follows in which another task resumes.
#[derive(Default)]
struct Switch {
    /// The layout before the frame pointer was pushed.
    pushed: Option<FrameLayout>,
    /// The number of instructions since then.
    age: usize,
    loaded: bool,
}

impl Switch {
    /// Follows an instruction that is executed with this layout. Returns whether it leaves the code
    /// of the task that is switched out.
    fn follow(&mut self, instruction: Instruction, layout: FrameLayout) -> bool {
        self.age += 1;
        match instruction.effect {
            Effect::PushFrame => {
                *self = Self {
                    pushed: Some(layout),
                    ..Self::default()
                };
            }
            Effect::LoadStack => {
                self.loaded = self.pushed.is_some() && self.age <= MAX_BEFORE_SWITCH;
            }
            Effect::Jump(_) => return self.loaded,
            Effect::None => return self.loaded && instruction.is_call,
            _ => {}
        }
        false
    }
}

impl FrameLayout {
    /// The caller's frame pointer, if the return address is at `at`.
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

    /// The layout after an instruction with this effect.
    fn after(self, effect: Effect, word: Word) -> Self {
        let width = word.bytes() as i64;
        let Self {
            from_sp,
            from_bp,
            caller_bp,
        } = self;
        let overwritten = match caller_bp {
            CallerBp::Pushed(_) => caller_bp,
            CallerBp::Kept | CallerBp::Lost => CallerBp::Lost,
        };
        // A function that pushed its caller's frame pointer pops it at its end.
        let popped = match caller_bp {
            CallerBp::Lost => CallerBp::Lost,
            CallerBp::Pushed(_) | CallerBp::Kept => CallerBp::Kept,
        };
        let (from_sp, from_bp, caller_bp) = match effect {
            Effect::Stack(bytes) => (from_sp.map(|depth| depth - bytes), from_bp, caller_bp),
            Effect::PushFrame => {
                let depth = from_sp.map(|depth| depth + width);
                let pushed = match (caller_bp, depth) {
                    (CallerBp::Kept, Some(depth)) => CallerBp::Pushed(depth),
                    _ => caller_bp,
                };
                (depth, from_bp, pushed)
            }
            Effect::PopFrame => (from_sp.map(|depth| depth - width), None, popped),
            Effect::SetFrame => (from_sp, from_sp, overwritten),
            Effect::ToFrame(bytes) => (from_bp.map(|depth| depth - bytes), from_bp, caller_bp),
            Effect::Leave => (from_bp.map(|depth| depth - width), None, popped),
            Effect::SetStack(_) | Effect::PopStack | Effect::LoadStack | Effect::LoseStack => {
                (None, from_bp, caller_bp)
            }
            Effect::LoseFrame => (from_sp, None, overwritten),
            _ => (from_sp, from_bp, caller_bp),
        };
        Self {
            from_sp,
            from_bp,
            caller_bp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::function_cache::stack_budget;
    use super::*;
    use crate::unwind::testing::{Names, Ram};

    const BASE: u64 = 0xc100_0000;

    fn layouts(code: &[u8], at: u64) -> Vec<FrameLayout> {
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
        let (mut cache, budget) = (FunctionCache::default(), stack_budget());
        FrameAnalyzer::new(&ram, &names, Word::W32, &mut cache, &budget)
            .at(pc, pc)
            .to_vec()
    }

    fn depth(code: &[u8], at: u64) -> Vec<Option<i64>> {
        layouts(code, at)
            .iter()
            .map(|layout| layout.from_sp)
            .collect()
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
        assert_eq!(depth(&code, 10), [], "not the start of an instruction");
    }

    #[test]
    fn a_frame_pointer_restores_the_stack_pointer() {
        // push %ebp; mov %esp,%ebp; and $-16,%esp; call; lea -4(%ebp),%esp; nop; leave; ret.
        let code = [
            0x55, 0x89, 0xe5, 0x83, 0xe4, 0xf0, 0xe8, 0, 0, 0, 0, 0x8d, 0x65, 0xfc, 0x90, 0xc9,
            0xc3,
        ];
        assert_eq!(depth(&code, 3), [Some(4)]);
        let aligned = FrameLayout {
            from_sp: None,
            from_bp: Some(4),
            caller_bp: CallerBp::Pushed(4),
        };
        assert_eq!(layouts(&code, 11), [aligned]);
        assert_eq!(depth(&code, 14), [Some(8)]);
        let left = FrameLayout {
            from_sp: Some(0),
            from_bp: None,
            caller_bp: CallerBp::Kept,
        };
        assert_eq!(layouts(&code, 16), [left]);
    }

    #[test]
    fn a_task_resumes_after_the_pops_of_a_context_switch() {
        let fp = Some(4);
        for (flags, pointer) in [(false, false), (true, false), (true, true)] {
            // push %ebp; [mov %esp,%ebp]; sub $16,%esp; [pushf]; push %ebp;
            // mov %esp,2(%eax); mov 2(%edx),%esp; movl $1f,3(%eax); push 3(%edx); jmp g;
            // 1: pop %ebp; [popf]; call; add $16,%esp; pop %ebp; ret.
            let mut code = vec![0x55];
            code.extend(if pointer { &[0x89, 0xe5][..] } else { &[] });
            code.extend([0x83, 0xec, 0x10]);
            code.extend(if flags { &[0x9c][..] } else { &[] });
            code.extend([
                0x55, 0x89, 0x60, 2, 0x8b, 0x62, 2, 0xc7, 0x40, 3, 1, 2, 3, 4,
            ]);
            code.extend([0xff, 0x72, 3, 0xe9]);
            let to_g = 0x180 - (code.len() as i32 + 4);
            code.extend(to_g.to_le_bytes());
            let resume = code.len() as u64;
            code.push(0x5d);
            code.extend(if flags { &[0x9d][..] } else { &[] });
            let after = code.len() as u64;
            code.extend([0xe8, 0, 0, 0, 0, 0x83, 0xc4, 0x10, 0x5d, 0xc3]);
            let expected = FrameLayout {
                from_sp: Some(20),
                from_bp: if pointer { fp } else { None },
                caller_bp: CallerBp::Pushed(4),
            };
            for at in [resume, after, after + 5] {
                assert_eq!(layouts(&code, at), [expected], "{flags} {pointer} {at:#x}");
            }
            assert_eq!(depth(&code, after + 9), [Some(0)]);
        }
    }

    #[test]
    fn a_tail_call_is_no_context_switch() {
        // push %ebp; mov %esp,%ebp; and $-16,%esp; call; jmp g; pop %ebp; ret.
        let code = [
            0x55, 0x89, 0xe5, 0x83, 0xe4, 0xf0, 0xe8, 0, 0, 0, 0, 0xe9, 0x70, 1, 0, 0, 0x5d, 0xc3,
        ];
        assert_eq!(layouts(&code, 16), []);
    }

    #[test]
    fn a_split_part_continues_with_the_layout_of_the_jump() {
        // push %ebx; je f.cold; ret.
        let code = [0x53, 0x0f, 0x84, 0xf9, 0, 0, 0, 0xc3];
        assert_eq!(depth(&code, 0x106), [Some(8)]);
    }

    #[test]
    fn code_after_a_jump_table_counts_only_if_it_is_not_reached_otherwise() {
        // je 1f; push %ebx; jmp *table(,%eax,4); 1: ret.
        let code = [0x74, 8, 0x53, 0xff, 0x24, 0x85, 0, 0, 0, 0, 0xc3];
        assert_eq!(depth(&code, 10), [Some(0)]);
        // push %ebx; jmp *table(,%eax,4); nop; ret.
        let code = [0x53, 0xff, 0x24, 0x85, 0, 0, 0, 0, 0x90, 0xc3];
        assert_eq!(depth(&code, 9), [Some(4)]);
    }

    #[test]
    fn a_function_is_analyzed_once_and_few_pages_are_cached() {
        let pages = 2 * MAX_CODE_PAGES as u64;
        let page = |number| BASE + number * PAGE_SIZE as u64;
        let mut ram = Ram::new(Word::W32);
        for number in 0..pages {
            ram.bytes(page(number), &[0; PAGE_SIZE]);
            // push %ebx; jmp to the next page.
            ram.bytes(page(number), &[0x53, 0xe9, 0xfa, 0x0f, 0, 0]);
        }
        let names = Names(vec![(BASE, "f"), (page(pages), "")]);
        let (mut cache, budget) = (FunctionCache::default(), stack_budget());
        let mut frames = FrameAnalyzer::new(&ram, &names, Word::W32, &mut cache, &budget);
        let mut remaining = None;
        for number in 0..pages {
            let pc = VirtAddr(page(number) + 1);
            let [layout] = frames.at(pc, pc) else {
                panic!("page {number}");
            };
            assert_eq!(layout.from_sp, Some(4 * (number as i64 + 1)));
            // Only the function's start is looked up again.
            let before = remaining.replace(budget.remaining());
            assert!(before.is_none_or(|before| before - budget.remaining() <= LOOKUP_COST));
        }
        assert!(frames.code.pages.len() <= MAX_CODE_PAGES);
    }

    #[test]
    fn in_the_null_page_nothing_was_pushed_after_the_call() {
        let ram = Ram::new(Word::W64);
        // Per-CPU symbols are linked at 0 until 6.14.
        let names = Names(vec![(0, "fixed_percpu_data"), (0x1000, "")]);
        let (mut cache, budget) = (FunctionCache::default(), stack_budget());
        let mut frames = FrameAnalyzer::new(&ram, &names, Word::W64, &mut cache, &budget);
        for pc in [0, 0x48] {
            assert_eq!(frames.at(VirtAddr(pc), VirtAddr(pc)), [FrameLayout::ENTRY]);
        }
    }

    #[test]
    fn endless_code_is_abandoned() {
        // 1: push %eax; jmp 1b.
        assert_eq!(depth(&[0x50, 0xeb, 0xfd], 0x50), []);
        // jmp into itself.
        assert_eq!(depth(&[0xeb, 0xfe], 0x50), []);
    }
}
