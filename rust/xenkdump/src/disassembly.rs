//! Disassembles x86 code in the notations of AT&T (as objdump and gdb print it) and Intel.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, FormatterOptions, GasFormatter, Instruction,
    IntelFormatter, MemorySizeOptions, Mnemonic, OpKind, Register,
};

use crate::addr::{Address, VirtAddr, Word};
use crate::alloc;

/// How instructions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// `mov %rsp,%rbp`
    Att,
    /// `mov rbp,rsp`
    Intel,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its address.
    pub address: VirtAddr,
    /// Its size in bytes.
    pub size: usize,
    /// Mnemonic and operands; `(bad)` for bytes that are no instruction.
    pub text: String,
    /// The address that it jumps to, calls or refers to relative to the program counter.
    pub target: Option<VirtAddr>,
}

/// Disassembles `code`, which is at `address`, up to `limit` instructions. One that is cut by the end of
/// `code` is left out. A byte that starts no instruction is a line of its own.
pub fn disassemble(
    code: &[u8],
    address: VirtAddr,
    word: Word,
    notation: Notation,
    limit: usize,
) -> Vec<Line> {
    let bits = match word {
        Word::W32 => 32,
        Word::W64 => 64,
    };
    let mut lines = Vec::new();
    let Ok(mut decoder) = Decoder::try_with_ip(bits, code, address.raw(), DecoderOptions::NONE)
    else {
        return lines;
    };
    let mut formatter = Notated::new(notation);
    while decoder.can_decode() && lines.len() < limit {
        let (at, start) = (decoder.ip(), decoder.position());
        let instruction = decoder.decode();
        let line = if instruction.is_invalid() {
            if decoder.last_error() == iced_x86::DecoderError::NoMoreBytes {
                break;
            }
            // Goes on at the next byte, as objdump does.
            decoder.set_ip(at.wrapping_add(1));
            if decoder.set_position(start + 1).is_err() {
                break;
            }
            Line {
                address: VirtAddr(at),
                size: 1,
                text: "(bad)".to_owned(),
                target: None,
            }
        } else {
            Line {
                address: VirtAddr(at),
                size: instruction.len(),
                text: formatter.text(&instruction),
                target: target(&instruction),
            }
        };
        alloc::push(&mut lines, line);
    }
    lines
}

/// The address in code or data that an instruction refers to.
fn target(instruction: &Instruction) -> Option<VirtAddr> {
    let is_near = (0..instruction.op_count()).any(|operand| {
        matches!(
            instruction.op_kind(operand),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        )
    });
    if is_near && instruction.flow_control() != FlowControl::Next {
        return Some(VirtAddr(instruction.near_branch_target()));
    }
    let relative = instruction.is_ip_rel_memory_operand();
    relative.then(|| VirtAddr(instruction.ip_rel_memory_address()))
}

/// A formatter of one of the notations, set to what objdump prints.
enum Notated {
    Att(GasFormatter),
    Intel(IntelFormatter),
}

impl Notated {
    fn new(notation: Notation) -> Self {
        match notation {
            Notation::Att => {
                let mut formatter = GasFormatter::new();
                set(formatter.options_mut());
                Self::Att(formatter)
            }
            Notation::Intel => {
                let mut formatter = IntelFormatter::new();
                set(formatter.options_mut());
                let options = formatter.options_mut();
                options.set_memory_size_options(MemorySizeOptions::Always);
                options.set_uppercase_keywords(true);
                Self::Intel(formatter)
            }
        }
    }

    fn text(&mut self, instruction: &Instruction) -> String {
        let mut text = String::new();
        match self {
            Self::Att(formatter) => {
                adapt(formatter.options_mut(), instruction);
                formatter.format(instruction, &mut text);
                if shifts_by_one(instruction) {
                    text = text.replacen("$0x1,", "", 1);
                }
            }
            Self::Intel(formatter) => {
                adapt(formatter.options_mut(), instruction);
                formatter.format(instruction, &mut text);
            }
        }
        text
    }
}

/// Options that objdump's output needs for some instructions only.
fn adapt(options: &mut FormatterOptions, instruction: &Instruction) {
    options.set_always_show_scale(instruction.memory_index() != Register::None);
    options.set_always_show_segment_register(instruction.is_string_instruction());
}

/// Whether an instruction has the short form of a shift by one, whose operand objdump leaves out.
fn shifts_by_one(instruction: &Instruction) -> bool {
    let shifts = matches!(
        instruction.mnemonic(),
        Mnemonic::Rcl
            | Mnemonic::Rcr
            | Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Sal
            | Mnemonic::Sar
            | Mnemonic::Shl
            | Mnemonic::Shr
    );
    shifts && format!("{:?}", instruction.code()).ends_with("_1")
}

fn set(options: &mut FormatterOptions) {
    options.set_uppercase_hex(false);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_small_hex_numbers_in_decimal(false);
    options.set_branch_leading_zeros(false);
    options.set_leading_zeros(false);
    options.set_displacement_leading_zeros(false);
    options.set_space_after_operand_separator(false);
    options.set_first_operand_char_index(7);
    options.set_signed_immediate_operands(false);
    options.set_signed_memory_displacements(true);
    options.set_rip_relative_addresses(true);
    options.set_show_branch_size(false);
    options.set_use_pseudo_ops(false);
    options.set_show_useless_prefixes(true);
    options.set_show_zero_displacements(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// push %rbp; mov %rsp,%rbp; call +0; a bad byte; lea 0x10(%rip),%rax; a cut instruction
    const CODE: &[u8] = &[
        0x55, 0x48, 0x89, 0xe5, 0xe8, 0, 0, 0, 0, 0x06, 0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0x48,
    ];

    fn lines(notation: Notation) -> Vec<(u64, usize, String, Option<u64>)> {
        let lines = disassemble(CODE, VirtAddr(0x1000), Word::W64, notation, 100);
        lines
            .into_iter()
            .map(|line| {
                (
                    line.address.0,
                    line.size,
                    line.text,
                    line.target.map(|at| at.0),
                )
            })
            .collect()
    }

    #[test]
    fn att() {
        let expected = [
            (0x1000, 1, "push   %rbp", None),
            (0x1001, 3, "mov    %rsp,%rbp", None),
            (0x1004, 5, "call   0x1009", Some(0x1009)),
            (0x1009, 1, "(bad)", None),
            (0x100a, 7, "lea    0x10(%rip),%rax", Some(0x1021)),
        ]
        .map(|(at, size, text, target)| (at, size, text.to_owned(), target));
        assert_eq!(lines(Notation::Att), expected);
    }

    #[test]
    fn intel() {
        let texts: Vec<_> = lines(Notation::Intel)
            .into_iter()
            .map(|line| line.2)
            .collect();
        assert_eq!(texts[1], "mov    rbp,rsp");
        assert_eq!(texts[4], "lea    rax,[rip+0x10]");
    }

    #[test]
    fn the_limit_counts_bad_bytes() {
        let found = disassemble(
            &[0x06; 64],
            VirtAddr(u64::MAX - 3),
            Word::W64,
            Notation::Att,
            10,
        );
        assert_eq!(found.len(), 10);
        assert_eq!(found[4].address, VirtAddr(0));
    }
}
