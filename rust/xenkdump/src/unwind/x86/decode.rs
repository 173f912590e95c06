//! The effect of an x86 instruction on the stack pointer, the frame pointer and the control flow.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, InstructionInfoOptions, Mnemonic,
    OpAccess, OpKind, Register,
};

use crate::addr::{Address, VirtAddr, Word};
use crate::unwind::registers::Reg;

/// The maximum length of an x86 instruction.
pub(in crate::unwind) const MAX_LENGTH: usize = 15;

/// The effect of an instruction, as far as stack unwinding depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::unwind) enum Effect {
    /// None that is relevant. This includes calls, which return with the stack unchanged.
    None,
    /// Adds a number of bytes to the stack pointer.
    Stack(i64),
    /// Pushes the frame pointer.
    PushFrame,
    /// Pops the frame pointer.
    PopFrame,
    /// Copies the stack pointer to the frame pointer.
    SetFrame,
    /// Sets the stack pointer to the frame pointer plus a number of bytes.
    ToFrame(i64),
    /// `leave`: copies the frame pointer to the stack pointer and pops the frame pointer.
    Leave,
    /// Copies another register to the stack pointer.
    SetStack(Reg),
    /// Pops the stack pointer.
    PopStack,
    /// Loads the stack pointer from memory.
    LoadStack,
    /// Writes an unknown value to the stack pointer.
    LoseStack,
    /// Writes an unknown value to the frame pointer.
    LoseFrame,
    /// Jumps to an address.
    Jump(VirtAddr),
    /// Jumps to an address, or continues with the next instruction.
    Branch(VirtAddr),
    /// Jumps through memory, as a `switch` does with its jump table.
    JumpTable,
    /// `ud2` and the like: the end of a path, or a warning after which execution continues.
    Trap,
    /// Leaves the function.
    Return,
}

/// A decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::unwind) struct Instruction {
    /// The size in bytes.
    pub length: usize,
    /// The effect on the stack and on the flow of control.
    pub effect: Effect,
    /// Whether it is a call.
    pub is_call: bool,
}

/// Decodes the instruction at the start of `code`, which is at `pc`. Returns `None` for an invalid
/// or truncated instruction, and for `enter`, which compilers do not emit.
///
/// iced-x86 1.22 does not support `rmpread` and `udb`. Linux 7.3 has them in `get_rmpentry` and in the
/// FineIBT thunks, before code that calls nothing.
pub(in crate::unwind) fn decode(code: &[u8], pc: VirtAddr, word: Word) -> Option<Instruction> {
    let bits = match word {
        Word::W32 => 32,
        Word::W64 => 64,
    };
    let mut decoder = Decoder::try_with_ip(bits, code, pc.raw(), DecoderOptions::NONE).ok()?;
    let instruction = decoder.decode();
    if instruction.is_invalid() || instruction.mnemonic() == Mnemonic::Enter {
        return None;
    }
    Some(Instruction {
        length: instruction.len(),
        effect: effect(&instruction, word),
        is_call: matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        ),
    })
}

fn effect(instruction: &iced_x86::Instruction, word: Word) -> Effect {
    let target = VirtAddr(instruction.near_branch_target());
    match instruction.flow_control() {
        FlowControl::Next => effect_on_registers(instruction, word),
        FlowControl::UnconditionalBranch if is_far(instruction) => Effect::Return,
        FlowControl::UnconditionalBranch => Effect::Jump(target),
        FlowControl::ConditionalBranch => Effect::Branch(target),
        FlowControl::XbeginXabortXend if instruction.mnemonic() == Mnemonic::Xbegin => {
            Effect::Branch(target)
        }
        // Compilers emit tail calls through registers, and jump tables as memory operands.
        FlowControl::IndirectBranch if instruction.op0_kind() == OpKind::Register => Effect::Return,
        FlowControl::IndirectBranch => Effect::JumpTable,
        FlowControl::Return => Effect::Return,
        FlowControl::Exception => Effect::Trap,
        FlowControl::Interrupt if instruction.mnemonic() == Mnemonic::Int3 => Effect::Trap,
        FlowControl::Interrupt
        | FlowControl::Call
        | FlowControl::IndirectCall
        | FlowControl::XbeginXabortXend => Effect::None,
    }
}

fn is_far(instruction: &iced_x86::Instruction) -> bool {
    matches!(
        instruction.op0_kind(),
        OpKind::FarBranch16 | OpKind::FarBranch32
    )
}

fn effect_on_registers(instruction: &iced_x86::Instruction, word: Word) -> Effect {
    let (sp, bp) = match word {
        Word::W32 => (Register::ESP, Register::EBP),
        Word::W64 => (Register::RSP, Register::RBP),
    };
    // Displacements and immediates of the stack and frame pointer have at most 32 bits, and iced
    // does not sign-extend those of a 32-bit address or operand.
    let displacement = i64::from(instruction.memory_displacement64() as i32);
    let immediate = || i64::from(instruction.immediate(1) as i32);
    let is_immediate = || {
        matches!(
            instruction.op1_kind(),
            OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32
                | OpKind::Immediate32to64
        )
    };
    // An address without an index.
    let base = match instruction.memory_index() {
        Register::None => instruction.memory_base(),
        _ => Register::None,
    };
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    match instruction.mnemonic() {
        Mnemonic::Push if to == bp => Effect::PushFrame,
        Mnemonic::Pop if to == bp => Effect::PopFrame,
        Mnemonic::Pop if to == sp => Effect::PopStack,
        Mnemonic::Leave => Effect::Leave,
        Mnemonic::Add if to == sp && is_immediate() => Effect::Stack(immediate()),
        Mnemonic::Sub if to == sp && is_immediate() => Effect::Stack(-immediate()),
        Mnemonic::Mov if to == bp && from == sp => Effect::SetFrame,
        Mnemonic::Mov if to == sp && from == bp => Effect::ToFrame(0),
        Mnemonic::Mov if to == sp && from.is_gpr() => {
            general(from).map_or(Effect::LoseStack, Effect::SetStack)
        }
        Mnemonic::Mov if to == sp && instruction.op1_kind() == OpKind::Memory => Effect::LoadStack,
        Mnemonic::Lea if to == sp && base == sp => Effect::Stack(displacement),
        Mnemonic::Lea if to == sp && base == bp => Effect::ToFrame(displacement),
        Mnemonic::Lea if to == bp && base == sp && displacement == 0 => Effect::SetFrame,
        _ => match instruction.stack_pointer_increment() {
            0 if writes(instruction, Register::RSP) => Effect::LoseStack,
            0 if writes(instruction, Register::RBP) => Effect::LoseFrame,
            0 => Effect::None,
            bytes => Effect::Stack(bytes.into()),
        },
    }
}

/// The general register that `register` is or is a part of.
fn general(register: Register) -> Option<Reg> {
    // `Reg` begins with the general registers, in the order of their encoding.
    Reg::ALL.get(register.full_register().number()).copied()
}

/// Whether an operand that is written is `register` or a part of it.
fn writes(instruction: &iced_x86::Instruction, register: Register) -> bool {
    let mut operands = (0..instruction.op_count())
        .filter(|operand| {
            instruction.op_kind(*operand) == OpKind::Register
                && instruction.op_register(*operand).full_register() == register
        })
        .peekable();
    // Few instructions have such an operand; the access is looked up only for them.
    if operands.peek().is_none() {
        return false;
    }
    let options =
        InstructionInfoOptions::NO_MEMORY_USAGE | InstructionInfoOptions::NO_REGISTER_USAGE;
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info_options(instruction, options);
    operands.any(|operand| {
        matches!(
            info.op_access(operand),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    })
}

#[cfg(test)]
mod tests;
