//! Unwinding with arbitrary memory, tables and registers: it ends, with a bounded number of frames,
//! and does not panic.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use proptest::prelude::*;
use xenkdump::addr::{VirtAddr, Word};
use xenkdump::memory::{Fault, Memory};
use xenkdump::unwind::{
    Backtrace, CfiKind, CfiTable, CodeSymbols, Function, Method, OrcFormat, OrcTable, Reg,
    Registers, Stack, Stop, Unwinder,
};

const LIMIT: usize = 300;

/// Unlimited memory: code with common instructions, and stacks of return addresses, stack pointers
/// and these words.
struct Noise {
    word: Word,
    seed: u64,
    words: Vec<u64>,
}

/// Eight bytes of code each.
const CODE: [[u8; 8]; 16] = [
    [0xe8, 0xfb, 0, 0, 0, 0x90, 0x90, 0x90],
    [0xe8, 0x03, 0xff, 0xff, 0xff, 0x5b, 0x5d, 0xc3],
    [0xe8, 0, 0, 0, 0, 0x5c, 0x90, 0x90],
    [0xff, 0xd0, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90],
    [0xff, 0xd0, 0x89, 0xdc, 0x90, 0x90, 0x90, 0x90],
    [0x55, 0x48, 0x89, 0xe5, 0x53, 0x90, 0x90, 0x90],
    [0x55, 0x89, 0xe5, 0x53, 0x90, 0x90, 0x90, 0x90],
    [0x48, 0x83, 0xec, 0x18, 0x90, 0x90, 0x90, 0x90],
    [0x83, 0xec, 0x0c, 0x50, 0x58, 0x90, 0x90, 0x90],
    [0x48, 0x83, 0xe4, 0xf0, 0x90, 0x90, 0x90, 0x90],
    [0x0f, 0x84, 0xf2, 0xff, 0xff, 0xff, 0x90, 0x90],
    [0xe9, 0xf3, 1, 0, 0, 0x90, 0x90, 0x90],
    [0xeb, 0xf6, 0x0f, 0x0b, 0x90, 0x90, 0x90, 0x90],
    [0x5b, 0x5d, 0xc9, 0xc3, 0x90, 0x90, 0x90, 0x90],
    [0x41, 0x5b, 0x59, 0xc3, 0x90, 0x90, 0x90, 0x90],
    [0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90],
];

impl Noise {
    fn byte(&self, at: u64) -> u8 {
        let mix = |number: u64| (number ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        if Code(self.word).is_text(VirtAddr(at)) {
            return CODE[mix(at / 8) as usize % CODE.len()][at as usize % 8];
        }
        let width = self.word.bytes() as u64;
        let hash = mix(at / width);
        let value = match hash % 8 {
            0..=3 => base(self.word) + ((hash >> 3) % 0x800) * 8 + [2, 5][hash as usize >> 20 & 1],
            4 => (at & !0x3fff) + (hash >> 3) % 0x4000 / width * width,
            _ => self.words[hash as usize % self.words.len()],
        };
        (value >> ((at % width) * 8)) as u8
    }
}

impl Memory<VirtAddr> for Noise {
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> Result<(), Fault> {
        for (i, byte) in buf.iter_mut().enumerate() {
            let at = addr.0.wrapping_add(i as u64);
            if at & 0xf_f000 == 0xf_f000 {
                return Err(Fault::NonCanonical(VirtAddr(at)));
            }
            *byte = self.byte(at);
        }
        Ok(())
    }
}

fn base(word: Word) -> u64 {
    match word {
        Word::W32 => 0xc100_0000,
        Word::W64 => 0xffff_ffff_8100_0000,
    }
}

/// A function every 256 bytes, of 64 in all.
struct Code(Word);

const NAMES: [&str; 4] = [
    "f",
    "f.cold",
    "xen_hypercall_iret",
    "__x86_indirect_thunk_rax",
];

impl CodeSymbols for Code {
    fn function(&self, addr: VirtAddr) -> Option<Function<'_>> {
        let number = self.is_text(addr).then(|| (addr.0 - base(self.0)) >> 8)?;
        Some(Function {
            name: NAMES[number as usize % NAMES.len()],
            start: VirtAddr(base(self.0) + (number << 8)),
            size: (!number.is_multiple_of(3)).then_some(256),
        })
    }

    fn start_of(&self, _: &str) -> Option<VirtAddr> {
        Some(VirtAddr(base(self.0)))
    }

    fn is_text(&self, addr: VirtAddr) -> bool {
        (base(self.0)..base(self.0) + 0x4000).contains(&addr.0)
    }
}

fn orc_tables(word: Word, noise: &[u8], format: OrcFormat) -> OrcTable {
    let mut ip = Vec::new();
    for row in 0..64u64 {
        let at = base(word) + 0x10_0000 + row * 4;
        let pc = base(word) + row * 0x100 + u64::from(noise[row as usize]);
        ip.extend_from_slice(&(pc.wrapping_sub(at) as i32).to_le_bytes());
    }
    // Mostly small offsets from the stack pointer, else random.
    let rows: Vec<u8> = (0..64)
        .flat_map(|row| match (noise[row % 8], noise[row]) {
            (0..=200, n) => [n & 0x78, 0, 0xf0, 0xff, n & 0x10 | 5, n >> 4],
            (_, n) => [n, n, n, n, n, n],
        })
        .collect();
    OrcTable::new(
        Arc::new(ip),
        VirtAddr(base(word) + 0x10_0000),
        Arc::new(rows),
        format,
        (VirtAddr(0), VirtAddr(u64::MAX)),
    )
}

/// One CIE, then an FDE for each function with mostly valid instructions.
fn debug_frame(word: Word, noise: &[u8]) -> Vec<u8> {
    let width = word.bytes();
    let mut entry = vec![0xff, 0xff, 0xff, 0xff, 1, 0, 1, 0x78, 16];
    if word == Word::W32 {
        entry[8] = 8;
    }
    entry.extend_from_slice(&[0x0c, 7, 8, 0x90, 1, 0, 0]);
    let mut section = (entry.len() as u32).to_le_bytes().to_vec();
    section.extend(entry);
    for function in 0..64u64 {
        let start = base(word) + function * 256;
        let mut entry = 0u32.to_le_bytes().to_vec();
        entry.extend_from_slice(&start.to_le_bytes()[..width]);
        entry.extend_from_slice(&256u64.to_le_bytes()[..width]);
        let n = noise[function as usize % noise.len()];
        // def_cfa_offset, the offset of a register, then any instruction.
        entry.extend_from_slice(&[0x0e, n & 0x3c, 0x80 | (n & 7), n >> 4]);
        entry.extend_from_slice(match n % 8 {
            0 => &[0x0f, 3, 0x77, 8, 0x06],
            1 => &[0x10, 6, 2, 0x75, 0],
            2 => &[0x0d, 6, 0, 0],
            3 => &[0x0f, 3, 0x2f, 0xfd, 0xff],
            4 => &[0x0a, 0x0b, 0x0a, 0x0b],
            _ => &[0, 0, 0],
        });
        let from = function as usize * 7 % noise.len();
        if n > 200 {
            entry.extend(noise.iter().cycle().skip(from).take(24));
        }
        section.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        section.extend(entry);
    }
    section
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unwinding_ends_on_arbitrary_input(
        is64: bool,
        seed: u64,
        words in prop::collection::vec(any::<u64>(), 1..16),
        noise in prop::collection::vec(any::<u8>(), 64..512),
        registers in prop::collection::vec(any::<u64>(), Reg::ALL.len()),
        in_code: u16,
        exact: bool,
        bp_on_stack: bool,
        format in prop::sample::select(vec![
            OrcFormat::V4_14, OrcFormat::V4_18, OrcFormat::V5_12, OrcFormat::V6_3, OrcFormat::V6_4,
            OrcFormat::V7_1,
        ]),
        methods in prop::sample::subsequence(Method::ALL.to_vec(), 0..=4),
    ) {
        let word = if is64 { Word::W64 } else { Word::W32 };
        let mut unwinder = Unwinder::new(word, Some((6, 1, 0)));
        unwinder.add_orc(orc_tables(word, &noise, format));
        for (kind, bytes) in [
            (CfiKind::DebugFrame, debug_frame(word, &noise)),
            (CfiKind::DebugFrame, noise.clone()),
            (CfiKind::EhFrame, noise.clone()),
        ] {
            unwinder.add_cfi(CfiTable::new(Arc::new(bytes), kind, word, VirtAddr(0), 0));
        }
        unwinder.set_methods(&methods);
        let mut start = Registers::new();
        for (reg, value) in Reg::ALL.iter().zip(&registers) {
            start.set(*reg, *value);
        }
        start.set(Reg::Ip, base(word) + u64::from(in_code) % 0x800 * 8 + 5);
        start.set(Reg::Sp, registers[4] & !7);
        start.set(Reg::Cs, if is64 { 0x10 } else { 0x60 });
        if bp_on_stack {
            start.set(Reg::Bp, start.get(Reg::Sp).unwrap_or(0).wrapping_add(registers[5] & 0xf8));
        }
        let memory = Noise { word, seed, words };
        let found = unwinder.unwind(&Stack {
            memory: &memory,
            symbols: &Code(word),
            registers: start,
            exact,
            bounds: &[],
            limit: LIMIT,
        });
        prop_assert!((1..=LIMIT).contains(&found.frames.len()));
        for frame in &found.frames {
            prop_assert!(frame.pc.0 <= word.max() && frame.sp.0 <= word.max());
        }
        let users = found.frames.iter().filter(|frame| frame.user).count();
        prop_assert!(users == 0 || (users == 1 && found.frames.last().unwrap().user));
    }
}

#[test]
fn missing_start_registers_are_reported() {
    let unwinder = Unwinder::new(Word::W64, None);
    let memory = Noise {
        word: Word::W64,
        seed: 0,
        words: vec![0],
    };
    let mut registers = Registers::new();
    registers.set(Reg::Ip, base(Word::W64));
    let found = unwinder.unwind(&Stack {
        memory: &memory,
        symbols: &Code(Word::W64),
        registers,
        exact: true,
        bounds: &[],
        limit: LIMIT,
    });
    assert!(found.frames.is_empty());
    let reason = found.stopped.map(|stop| stop.to_string());
    assert_eq!(
        reason.as_deref(),
        Some("the registers to start from lack rsp")
    );
}

/// A kernel whose code is one repeated page, in functions of equal size, and a stack of return
/// addresses at the same offset in each function.
struct Copies {
    page: Vec<u8>,
    size: u64,
    ret: u64,
    queries: AtomicU64,
}

/// The address of the code.
const TEXT: u64 = 0xffff_ff80_0000_0000;
/// The address of the stack.
const STACK: u64 = 0xffff_8000_0000_0000;
/// The number of words on the stack.
const RETURNS: u64 = 1024;
const STACK_END: u64 = STACK + 8 * RETURNS;

impl Copies {
    fn new(size: u64, code: &[u8], call: &[u8]) -> Self {
        let mut page: Vec<u8> = code.iter().copied().cycle().take(4096).collect();
        let ret = 16 + call.len();
        page[16..ret].copy_from_slice(call);
        Self {
            page,
            size,
            ret: ret as u64,
            queries: AtomicU64::new(0),
        }
    }

    fn unwind(&self, unwinder: &Unwinder) -> Backtrace {
        let pc = TEXT + self.size * (RETURNS + 1) + 0x30;
        unwinder.unwind(&Stack {
            memory: self,
            symbols: self,
            registers: Registers::at(VirtAddr(pc), VirtAddr(STACK)),
            exact: true,
            bounds: &[(VirtAddr(STACK), VirtAddr(STACK_END))],
            limit: 1024,
        })
    }
}

impl Memory<VirtAddr> for Copies {
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> Result<(), Fault> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        for (i, byte) in buf.iter_mut().enumerate() {
            let at = addr.0.wrapping_add(i as u64);
            *byte = match at {
                TEXT.. => self.page[at as usize % self.page.len()],
                STACK..STACK_END => {
                    let ret = TEXT + self.size * ((at - STACK) / 8) + self.ret;
                    ret.to_le_bytes()[at as usize % 8]
                }
                _ => return Err(Fault::NonCanonical(addr)),
            };
        }
        Ok(())
    }
}

impl CodeSymbols for Copies {
    fn function(&self, addr: VirtAddr) -> Option<Function<'_>> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let start = TEXT + addr.0.checked_sub(TEXT)? / self.size * self.size;
        let name = ["f", "g"][(start / self.size % 2) as usize];
        Some(Function {
            name,
            start: VirtAddr(start),
            size: Some(self.size),
        })
    }

    fn start_of(&self, _: &str) -> Option<VirtAddr> {
        None
    }

    fn is_text(&self, addr: VirtAddr) -> bool {
        addr.0 >= TEXT
    }
}

#[test]
fn decoded_code_is_bounded_by_the_stack() {
    // Jumps to the next page, on all pages; calls through a pointer lead to them.
    let pages = Copies::new(32 << 20, &[0xe9, 0xfb, 0x0f, 0, 0], &[0xff, 0xd0]);
    // A jump at every byte where decoding may start; each function calls the second function after it.
    let jumps = Copies::new(32 << 10, &[0xe9], &[0xe8, 0, 0, 1, 0]);
    for code in [pages, jumps] {
        let mut unwinder = Unwinder::new(Word::W64, Some((6, 1, 0)));
        for methods in [&[Method::Scan][..], &Method::ALL] {
            unwinder.set_methods(methods);
            let found = code.unwind(&unwinder);
            let stopped = found.stopped.as_ref();
            assert!(
                matches!(stopped, Some(Stop::TooMuchCode { .. })),
                "{stopped:?}"
            );
            let queries = code.queries.swap(0, Ordering::Relaxed);
            assert!(queries < 1 << 20, "{queries} queries");
        }
    }
}

#[test]
fn call_frame_information_is_bounded_by_the_stack() {
    // One entry for an unlimited range: the CFA is rsp+8, the return address is below it.
    let cie = [
        0xff, 0xff, 0xff, 0xff, 1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1, 0, 0,
    ];
    let mut fde = vec![0; 4];
    fde.extend(TEXT.to_le_bytes());
    fde.extend((1_u64 << 36).to_le_bytes());
    let code = Copies::new(4096, &[0x90], &[0xff, 0xd0]);
    let frames = |instructions: usize| {
        let mut fde = fde.clone();
        fde.resize(fde.len() + instructions, 0);
        let mut section = Vec::new();
        for entry in [&cie[..], &fde] {
            section.extend((entry.len() as u32).to_le_bytes());
            section.extend(entry);
        }
        let mut unwinder = Unwinder::new(Word::W64, Some((6, 1, 0)));
        let kind = CfiKind::DebugFrame;
        unwinder.add_cfi(CfiTable::new(
            Arc::new(section),
            kind,
            Word::W64,
            VirtAddr(0),
            0,
        ));
        unwinder.set_methods(&[Method::Cfi]);
        let found = code.unwind(&unwinder);
        (found.frames.len(), found.stopped)
    };
    assert!(matches!(frames(64), (1024, Some(Stop::Limit(1024)))));
    let (count, stopped) = frames(60_000);
    assert!(count < 20, "{count} frames");
    assert!(
        matches!(stopped, Some(Stop::TooMuchCode { .. })),
        "{stopped:?}"
    );
}

/// A kernel of two functions, `f` and asm entry code, with an exception frame on the stack.
struct Faulted {
    word: Word,
    text: Vec<u8>,
    stack: Vec<u64>,
    stack_at: u64,
}

/// The return addresses of `f`'s indirect call and of the entry code's call of the handler.
const CALLED_FROM: u64 = 0x20;
const ENTRY_RETURNS: u64 = 0x120;
const HANDLER: u64 = 0x200;

impl Faulted {
    /// `f` called `pc`. The registers saved by the exception are on the stack, below `f`'s frame.
    fn new(word: Word, pc: u64) -> Self {
        let mut text = vec![0x90; 0x300];
        // f: call through a register.
        text[CALLED_FROM as usize - 2..CALLED_FROM as usize].copy_from_slice(&[0xff, 0xd0]);
        // The entry code: call the handler.
        let distance = (HANDLER - ENTRY_RETURNS) as u32;
        text[ENTRY_RETURNS as usize - 5] = 0xe8;
        text[ENTRY_RETURNS as usize - 4..ENTRY_RETURNS as usize]
            .copy_from_slice(&distance.to_le_bytes());
        let stack_at = match word {
            Word::W32 => 0xc211_7e00,
            Word::W64 => 0xffff_c900_0001_3e00,
        };
        let (slots, ip, cs, flags, sp, ss) = match word {
            Word::W32 => (17, 12, 0x60, 14, 15, 0x68),
            Word::W64 => (21, 16, 0x10, 18, 19, 0x18),
        };
        let bytes = word.bytes() as u64;
        let mut stack = vec![0; 1 + slots + 1];
        stack[0] = base(word) + ENTRY_RETURNS;
        stack[1 + ip] = pc;
        stack[1 + ip + 1] = cs;
        stack[1 + flags] = 0x246;
        stack[1 + sp] = stack_at + (1 + slots as u64) * bytes;
        stack[1 + sp + 1] = ss;
        stack[1 + slots] = base(word) + CALLED_FROM;
        Self {
            word,
            text,
            stack,
            stack_at,
        }
    }

    fn interrupted_at(&self) -> Registers {
        let last = self.stack.len() as u64 - 1;
        let mut registers = Registers::at(
            VirtAddr(0),
            VirtAddr(self.stack_at + last * self.word.bytes() as u64),
        );
        registers.set(Reg::Cs, 0x10);
        registers
    }
}

impl Memory<VirtAddr> for Faulted {
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> Result<(), Fault> {
        let width = self.word.bytes() as u64;
        for (i, byte) in buf.iter_mut().enumerate() {
            let at = addr.0.wrapping_add(i as u64);
            let code = self.text.get(at.wrapping_sub(base(self.word)) as usize);
            let above = at.wrapping_sub(self.stack_at);
            // The rest of the stack is zero.
            let word = self.stack.get((above / width) as usize).unwrap_or(&0);
            *byte = match code {
                Some(code) => *code,
                None if above < 0x200 => (word >> (above % width * 8)) as u8,
                None => return Err(Fault::NonCanonical(VirtAddr(at))),
            };
        }
        Ok(())
    }
}

impl CodeSymbols for Faulted {
    fn function(&self, addr: VirtAddr) -> Option<Function<'_>> {
        let number = self
            .is_text(addr)
            .then(|| (addr.0 - base(self.word)) >> 8)?;
        Some(Function {
            name: ["f", "asm_exc_page_fault", "exc_page_fault"][number as usize],
            start: VirtAddr(base(self.word) + (number << 8)),
            size: Some(256),
        })
    }

    fn start_of(&self, _: &str) -> Option<VirtAddr> {
        None
    }

    fn is_text(&self, addr: VirtAddr) -> bool {
        (base(self.word)..base(self.word) + self.text.len() as u64).contains(&addr.0)
    }
}

#[test]
fn every_method_unwinds_a_call_through_null() {
    let methods = Method::ALL.map(|method| vec![method]);
    for word in [Word::W32, Word::W64] {
        for methods in methods.iter().chain([&Method::ALL.to_vec()]) {
            for (pc, certain) in [(0, true), (0x48, true), (0xa000_0000, false)] {
                let kernel = Faulted::new(word, pc);
                let mut unwinder = Unwinder::new(word, Some((6, 1, 0)));
                unwinder.set_methods(methods);
                let start =
                    Registers::at(VirtAddr(base(word) + HANDLER), VirtAddr(kernel.stack_at));
                let unwind = |registers| {
                    let found = unwinder.unwind(&Stack {
                        memory: &kernel,
                        symbols: &kernel,
                        registers,
                        exact: true,
                        bounds: &[],
                        limit: LIMIT,
                    });
                    found.frames
                };
                let frames = unwind(start);
                let pcs: Vec<u64> = frames.iter().map(|frame| frame.pc.0).collect();
                let expected = [HANDLER, ENTRY_RETURNS].map(|at| base(word) + at);
                assert_eq!(pcs[..2], expected, "{word:?} {methods:?}");
                assert_eq!(pcs[2..4], [pc, base(word) + CALLED_FROM]);
                assert!(frames[2].interrupted && !frames[2].user);
                assert!(frames[2].registers.is_some());
                assert_eq!(frames[3].guess, !certain);
                // The same, starting from the registers at pc 0.
                let frames = unwind(kernel.interrupted_at());
                assert!(!frames[0].user);
                assert_eq!(frames[1].pc.0, base(word) + CALLED_FROM);
            }
        }
    }
}
