//! x86 instructions, as far as it matters to a stack: how long they are, and what they do to the
//! stack pointer, the frame pointer and the flow of control.

use crate::addr::Word;

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing that matters; calls are of this kind too.
    None,
    /// Moves the stack pointer by so many bytes.
    Stack(i64),
    /// Pushes the frame pointer.
    PushFrame,
    /// Pops it.
    PopFrame,
    /// Sets the frame pointer to the stack pointer.
    SetFrame,
    /// Sets the stack pointer so many bytes off the frame pointer.
    ToFrame(i64),
    /// `leave`: stack pointer to the frame pointer, then pops that.
    Leave,
    /// Sets the stack pointer to something that is not known.
    LoseStack,
    /// Sets the frame pointer to something that is not known.
    LoseFrame,
    /// Goes so many bytes on from the instruction's end.
    Jump(i64),
    /// Goes there, or straight on.
    Branch(i64),
    /// Goes through a table, as a `switch` does.
    JumpTable,
    /// `ud2`: the end, or a warning that goes on.
    Trap,
    /// Leaves the function.
    Return,
}

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Its size in bytes.
    pub length: usize,
    /// What it does.
    pub effect: Effect,
}

const SP: u8 = 4;
const BP: u8 = 5;

/// Reads bytes one by one.
struct Bytes<'a> {
    code: &'a [u8],
    at: usize,
}

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.code.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn signed(&mut self, size: usize) -> Option<i64> {
        let bytes = self.code.get(self.at..self.at.checked_add(size)?)?;
        self.at += size;
        Some(match *bytes {
            [] => 0,
            [a] => i64::from(a as i8),
            [a, b] => i64::from(i16::from_le_bytes([a, b])),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
            _ => 0,
        })
    }
}

/// A ModRM byte and what belongs to it.
#[derive(Clone, Copy)]
struct ModRm {
    /// Two register numbers, of 16.
    reg: u8,
    rm: u8,
    /// `rm` is a register, not memory.
    direct: bool,
    /// The base register of an address without an index.
    base: Option<u8>,
    displacement: i64,
}

/// The prefixes that change lengths or registers.
#[derive(Clone, Copy, Default)]
struct Prefixes {
    operand16: bool,
    rex: u8,
}

impl Prefixes {
    /// Size of an immediate operand that is a word, but never more than 4 bytes.
    fn immediate(self) -> usize {
        if self.operand16 {
            2
        } else {
            4
        }
    }
}

/// The instruction at the start of `code`; `None` for one that kernels' C code has not.
pub(super) fn decode(code: &[u8], word: Word) -> Option<Instruction> {
    let mut bytes = Bytes { code, at: 0 };
    let mut prefixes = Prefixes::default();
    let opcode = loop {
        let byte = bytes.next()?;
        match byte {
            0x66 => prefixes.operand16 = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3 => {}
            // 16-bit addresses.
            0x67 if word == Word::W32 => return None,
            0x67 => {}
            0x40..=0x4f if word == Word::W64 => {
                prefixes.rex = byte;
                break bytes.next()?;
            }
            _ => break byte,
        }
        if bytes.at > 14 {
            return None;
        }
    };
    let effect = if opcode == 0x0f {
        two_bytes(&mut bytes, prefixes, word)?
    } else {
        one_byte(opcode, &mut bytes, prefixes, word)?
    };
    // The bytes are all there: the last were read, if only to be skipped.
    Some(Instruction {
        length: bytes.at,
        effect,
    })
}

fn modrm(bytes: &mut Bytes<'_>, prefixes: Prefixes) -> Option<ModRm> {
    let byte = bytes.next()?;
    let (mode, reg, rm) = (byte >> 6, (byte >> 3) & 7, byte & 7);
    let high = |bit: u8| if prefixes.rex & bit != 0 { 8 } else { 0 };
    let mut found = ModRm {
        reg: reg | high(4),
        rm: rm | high(1),
        direct: mode == 3,
        base: None,
        displacement: 0,
    };
    if found.direct {
        return Some(found);
    }
    let mut base = rm;
    let mut indexed = false;
    if rm == 4 {
        let sib = bytes.next()?;
        base = sib & 7;
        indexed = (sib >> 3) & 7 != 4 || prefixes.rex & 2 != 0;
    }
    let absolute = mode == 0 && base == 5;
    found.displacement = bytes.signed(match mode {
        1 => 1,
        2 => 4,
        _ if absolute => 4,
        _ => 0,
    })?;
    if !absolute && !indexed {
        found.base = Some(base | high(1));
    }
    Some(found)
}

fn one_byte(opcode: u8, bytes: &mut Bytes<'_>, prefixes: Prefixes, word: Word) -> Option<Effect> {
    let width = if prefixes.operand16 {
        2
    } else {
        word.bytes() as i64
    };
    let wide = prefixes.immediate();
    let is32 = word == Word::W32;
    Some(match opcode {
        // add, or, adc, sbb, and, sub, xor, cmp.
        0x00..=0x3f => match opcode & 7 {
            // Writes to rm, or to reg.
            low @ 0..=3 => {
                let operands = modrm(bytes, prefixes)?;
                let target = match low {
                    1 if operands.direct => Some(operands.rm),
                    3 => Some(operands.reg),
                    _ => None,
                };
                let compares = opcode >= 0x38;
                target.filter(|_| !compares).map_or(Effect::None, lost)
            }
            4 => skip(bytes, 1)?,
            5 => skip(bytes, wide)?,
            // push and pop of segment registers; the rest are prefixes and decimal arithmetic.
            6 if is32 && opcode < 0x20 => Effect::Stack(-width),
            7 if is32 && opcode < 0x20 => Effect::Stack(width),
            _ if is32 => Effect::None,
            _ => return None,
        },
        // inc and dec; in 64 bits these are prefixes.
        0x40..=0x4f => Effect::None,
        0x55 if prefixes.rex & 1 == 0 => Effect::PushFrame,
        0x50..=0x57 => Effect::Stack(-width),
        0x58..=0x5f => match opcode & 7 | if prefixes.rex & 1 != 0 { 8 } else { 0 } {
            BP => Effect::PopFrame,
            SP => Effect::LoseStack,
            _ => Effect::Stack(width),
        },
        0x60 if is32 => Effect::Stack(-8 * width),
        0x61 if is32 => Effect::Stack(8 * width),
        0x63 => {
            let operands = modrm(bytes, prefixes)?;
            lost(operands.reg)
        }
        0x68 => {
            skip(bytes, wide)?;
            Effect::Stack(-width)
        }
        0x69 => {
            let operands = modrm(bytes, prefixes)?;
            skip(bytes, wide)?;
            lost(operands.reg)
        }
        0x6a => {
            skip(bytes, 1)?;
            Effect::Stack(-width)
        }
        0x6b => {
            let operands = modrm(bytes, prefixes)?;
            skip(bytes, 1)?;
            lost(operands.reg)
        }
        0x6c..=0x6f => Effect::None,
        0x70..=0x7f => Effect::Branch(bytes.signed(1)?),
        0x80..=0x83 => {
            let operands = modrm(bytes, prefixes)?;
            let value = bytes.signed(if opcode == 0x81 { wide } else { 1 })?;
            match (operands.direct, operands.rm, operands.reg & 7) {
                _ if opcode & 1 == 0 => Effect::None,
                (true, SP, 0) => Effect::Stack(value),
                (true, SP, 5) => Effect::Stack(-value),
                (true, _, 7) => Effect::None,
                (true, reg, _) => lost(reg),
                _ => Effect::None,
            }
        }
        0x84..=0x86 | 0x88 | 0x8a | 0x8c | 0x8e => {
            modrm(bytes, prefixes)?;
            Effect::None
        }
        0x87 => {
            let operands = modrm(bytes, prefixes)?;
            match lost(operands.reg) {
                Effect::None if operands.direct => lost(operands.rm),
                effect => effect,
            }
        }
        0x89 | 0x8b => {
            let operands = modrm(bytes, prefixes)?;
            let (to, from) = match (opcode, operands.direct) {
                (0x89, true) => (operands.rm, Some(operands.reg)),
                (0x89, false) => return Some(Effect::None),
                (_, true) => (operands.reg, Some(operands.rm)),
                (_, false) => (operands.reg, None),
            };
            match (to, from) {
                (BP, Some(SP)) => Effect::SetFrame,
                (SP, Some(BP)) => Effect::ToFrame(0),
                (to, _) => lost(to),
            }
        }
        0x8d => {
            let operands = modrm(bytes, prefixes)?;
            match (operands.reg, operands.base) {
                (SP, Some(SP)) => Effect::Stack(operands.displacement),
                (SP, Some(BP)) => Effect::ToFrame(operands.displacement),
                (BP, Some(SP)) if operands.displacement == 0 => Effect::SetFrame,
                (reg, _) => lost(reg),
            }
        }
        0x8f => {
            let operands = modrm(bytes, prefixes)?;
            match (operands.direct, operands.rm) {
                (true, BP) => Effect::PopFrame,
                (true, SP) => Effect::LoseStack,
                _ => Effect::Stack(width),
            }
        }
        0x91..=0x97 => lost(opcode & 7 | if prefixes.rex & 1 != 0 { 8 } else { 0 }),
        0x90 | 0x98 | 0x99 | 0x9b | 0x9e | 0x9f => Effect::None,
        0x9c => Effect::Stack(-width),
        0x9d => Effect::Stack(width),
        0xa0..=0xa3 => skip(bytes, word.bytes())?,
        0xa4..=0xa7 | 0xaa..=0xaf => Effect::None,
        0xa8 => skip(bytes, 1)?,
        0xa9 => skip(bytes, wide)?,
        0xb0..=0xb7 => skip(bytes, 1)?,
        0xb8..=0xbf => {
            skip(bytes, if prefixes.rex & 8 != 0 { 8 } else { wide })?;
            lost(opcode & 7 | if prefixes.rex & 1 != 0 { 8 } else { 0 })
        }
        0xc0 | 0xc1 | 0xc6 => {
            modrm(bytes, prefixes)?;
            skip(bytes, 1)?
        }
        0xc7 => {
            let operands = modrm(bytes, prefixes)?;
            skip(bytes, wide)?;
            if operands.direct {
                lost(operands.rm)
            } else {
                Effect::None
            }
        }
        0xc2 | 0xca => {
            skip(bytes, 2)?;
            Effect::Return
        }
        0xc3 | 0xcb | 0xcf => Effect::Return,
        0xc9 => Effect::Leave,
        0xcc => Effect::Trap,
        0xcd => skip(bytes, 1)?,
        0xd0..=0xd3 | 0xd8..=0xdf => {
            modrm(bytes, prefixes)?;
            Effect::None
        }
        0xe0..=0xe3 => Effect::Branch(bytes.signed(1)?),
        0xe4..=0xe7 => skip(bytes, 1)?,
        0xe8 => skip(bytes, 4)?,
        0xe9 => Effect::Jump(bytes.signed(4)?),
        0xeb => Effect::Jump(bytes.signed(1)?),
        0xec..=0xef | 0xf1 | 0xf5 | 0xf8..=0xfd => Effect::None,
        0xf4 => Effect::None,
        0xf6 | 0xf7 => {
            let operands = modrm(bytes, prefixes)?;
            match (opcode, operands.reg & 7) {
                (0xf6, 0 | 1) => skip(bytes, 1)?,
                (_, 0 | 1) => skip(bytes, wide)?,
                _ => Effect::None,
            }
        }
        0xfe => {
            modrm(bytes, prefixes)?;
            Effect::None
        }
        0xff => {
            let operands = modrm(bytes, prefixes)?;
            match operands.reg & 7 {
                4 | 5 if operands.direct => Effect::Return,
                4 | 5 => Effect::JumpTable,
                6 => Effect::Stack(-width),
                _ => Effect::None,
            }
        }
        _ => return None,
    })
}

fn two_bytes(bytes: &mut Bytes<'_>, prefixes: Prefixes, word: Word) -> Option<Effect> {
    let width = word.bytes() as i64;
    let opcode = bytes.next()?;
    Some(match opcode {
        0x0b => Effect::Trap,
        0x05..=0x09 | 0x0e | 0x30..=0x37 | 0x77 | 0xa2 | 0xaa | 0xc8..=0xcf => Effect::None,
        0xa0 | 0xa8 => Effect::Stack(-width),
        0xa1 | 0xa9 => Effect::Stack(width),
        0x80..=0x8f => Effect::Branch(bytes.signed(4)?),
        0x38 => {
            bytes.next()?;
            modrm(bytes, prefixes)?;
            Effect::None
        }
        0x3a => {
            bytes.next()?;
            modrm(bytes, prefixes)?;
            skip(bytes, 1)?
        }
        0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => {
            modrm(bytes, prefixes)?;
            skip(bytes, 1)?
        }
        // cmov, imul, movzx, movsx, bsf, bsr: they write reg.
        0x40..=0x4f | 0xaf | 0xb6..=0xb8 | 0xbc..=0xbf => {
            let operands = modrm(bytes, prefixes)?;
            lost(operands.reg)
        }
        0x24..=0x27 | 0x39 | 0x3b..=0x3f | 0x04 | 0x0a | 0x0c => return None,
        _ => {
            modrm(bytes, prefixes)?;
            Effect::None
        }
    })
}

fn lost(reg: u8) -> Effect {
    match reg {
        SP => Effect::LoseStack,
        BP => Effect::LoseFrame,
        _ => Effect::None,
    }
}

fn skip(bytes: &mut Bytes<'_>, size: usize) -> Option<Effect> {
    let end = bytes.at.checked_add(size)?;
    if end > bytes.code.len() {
        return None;
    }
    bytes.at = end;
    Some(Effect::None)
}

#[cfg(test)]
mod tests;
