//! Targets for stacks and unwind tables.

use std::sync::Arc;

use xenkdump::addr::{VirtAddr, Word};
use xenkdump::unwind::{
    CfiKind, CfiTable, CodeSymbols, Function, OrcFormat, OrcTable, Reg, Registers, Section, Stack,
    Unwinder,
};

use super::{Input, Ram};

const TEXT: u64 = 0xffff_ffff_8100_0000;
const STACK: u64 = 0xffff_8880_0000_0000;
const LIMIT: usize = 64;

/// A function every 64 bytes.
struct Code;

impl CodeSymbols for Code {
    fn function(&self, addr: VirtAddr) -> Option<Function<'_>> {
        self.is_text(addr).then_some(Function {
            name: "f",
            start: VirtAddr(addr.0 & !63),
            size: (addr.0 & 64 == 0).then_some(64),
        })
    }

    fn start_of(&self, name: &str) -> Option<VirtAddr> {
        Some(VirtAddr(TEXT + 64 * (name.len() as u64 % 64)))
    }

    fn is_text(&self, addr: VirtAddr) -> bool {
        (TEXT..TEXT + 0x10000).contains(&addr.0)
    }
}

/// A stack without tables.
pub fn stack(bytes: &[u8]) {
    run(Input(bytes), |_, _, _| ());
}

/// A stack with ORC tables.
pub fn orc(bytes: &[u8]) {
    run(Input(bytes), |unwinder, input, _| {
        let (ip, rows): (Section, Section) = (
            Arc::new(input.piece().to_vec()),
            Arc::new(input.piece().to_vec()),
        );
        let format = OrcFormat::of_release(None);
        let range = (VirtAddr(TEXT), VirtAddr(TEXT + 0x10000));
        unwinder.add_orc(OrcTable::new(ip, VirtAddr(TEXT), rows, format, range));
    });
}

/// A stack with call frame information.
pub fn cfi(bytes: &[u8]) {
    run(Input(bytes), |unwinder, input, word| {
        let kind = match input.byte() & 1 {
            0 => CfiKind::DebugFrame,
            _ => CfiKind::EhFrame,
        };
        let section: Section = Arc::new(input.piece().to_vec());
        unwinder.add_cfi(CfiTable::new(section, kind, word, VirtAddr(TEXT), 0));
    });
}

fn run(mut input: Input<'_>, add: impl FnOnce(&mut Unwinder, &mut Input<'_>, Word)) {
    let choice = input.byte();
    let word = if choice & 1 == 0 {
        Word::W64
    } else {
        Word::W32
    };
    let release = [(6, 1, 0), (2, 6, 18), (4, 14, 0), (6, 4, 0)][usize::from(choice >> 1) % 4];
    let mut unwinder = match choice & 0x80 {
        0 => Unwinder::new(word, Some(release)),
        _ => Unwinder::for_xen(word),
    };
    add(&mut unwinder, &mut input, word);
    let mut registers = Registers::at(
        VirtAddr(TEXT | input.number() & 0xffff),
        VirtAddr(STACK | input.number() & 0x3fff),
    );
    registers.set(Reg::Bp, STACK | input.number() & 0x3fff);
    let code = input.piece();
    let memory = Halves {
        code: Ram::new(TEXT, code),
        stack: Ram::new(STACK, input.0),
    };
    let trace = unwinder.unwind(&Stack {
        memory: &memory,
        symbols: &Code,
        registers,
        exact: choice & 8 != 0,
        bounds: &[(VirtAddr(STACK), VirtAddr(STACK + 0x4000))],
        limit: LIMIT,
    });
    assert!(trace.frames.len() <= LIMIT);
    let reads = memory.code.reads() + memory.stack.reads();
    let bound = 64 * 1024 * (trace.frames.len() as u64 + 1);
    assert!(
        reads <= bound,
        "{reads} reads for {} frames",
        trace.frames.len()
    );
}

/// Code and stack.
struct Halves<'a> {
    code: Ram<'a>,
    stack: Ram<'a>,
}

impl xenkdump::memory::Memory<VirtAddr> for Halves<'_> {
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> Result<(), xenkdump::memory::Fault> {
        match addr.0 >= TEXT {
            true => self.code.read(addr, buf),
            false => self.stack.read(addr, buf),
        }
    }
}
