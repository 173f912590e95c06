//! From a frame to its caller by a row of call frame information.

use gimli::{
    BaseAddresses, CfaRule, Encoding, EvaluationResult, FrameDescriptionEntry, Location,
    ReaderOffset, Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindExpression,
    UnwindSection, UnwindTableRow, Value,
};

use crate::addr::{VirtAddr, Word};
use crate::memory::Memory;

use super::cfi::Reader;
use super::frame::How;
use super::registers::{Reg, Registers};
use super::step::{read_word, Caller, Step, Unreadable};

/// No expression in a kernel's unwind data is near this long.
const MOST_OPERATIONS: u32 = 256;

/// Room for the rows of one function: a kernel's code has no other registers, and no deeper nesting
/// of states. gimli's own storage has room for those of every architecture, and is slow to clear.
struct Rows;

impl<T: ReaderOffset> UnwindContextStorage<T> for Rows {
    type Rules = [(Register, RegisterRule<T>); 32];
    type Stack = [UnwindTableRow<T, Self>; 4];
}

/// The registers by their DWARF numbers; the last is the return address.
fn numbered(word: Word) -> &'static [Reg] {
    use Reg::{Ax, Bp, Bx, Cx, Di, Dx, Ip, Si, Sp, R10, R11, R12, R13, R14, R15, R8, R9};
    match word {
        Word::W32 => &[Ax, Cx, Dx, Bx, Sp, Bp, Si, Di, Ip],
        Word::W64 => &[
            Ax, Dx, Cx, Bx, Si, Di, Bp, Sp, R8, R9, R10, R11, R12, R13, R14, R15, Ip,
        ],
    }
}

/// Whether a callee gives the register back as it was.
pub(super) fn is_callee_saved(reg: Reg, word: Word) -> bool {
    match word {
        Word::W32 => matches!(reg, Reg::Bx | Reg::Bp | Reg::Si | Reg::Di),
        Word::W64 => matches!(
            reg,
            Reg::Bx | Reg::Bp | Reg::R12 | Reg::R13 | Reg::R14 | Reg::R15
        ),
    }
}

/// What the rules of a row are applied to.
struct Frame<'a> {
    word: Word,
    encoding: Encoding,
    memory: &'a dyn Memory<VirtAddr>,
    registers: &'a Registers,
}

/// Applies the row of `fde` for `pc` (as linked) to the frame whose registers these are.
pub(super) fn step<'a, S: UnwindSection<Reader<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    fde: &FrameDescriptionEntry<Reader<'a>>,
    pc: u64,
    word: Word,
    memory: &dyn Memory<VirtAddr>,
    registers: &Registers,
) -> Result<Step, Unreadable> {
    let mut context: UnwindContext<usize, Rows> = UnwindContext::new_in();
    let Ok(row) = fde.unwind_info_for_address(section, bases, &mut context, pc) else {
        return Ok(Step::Unknown);
    };
    let frame = Frame {
        word,
        encoding: fde.cie().encoding(),
        memory,
        registers,
    };
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => frame
            .register(*register)
            .map(|base| base.wrapping_add_signed(*offset)),
        CfaRule::Expression(expression) => frame.evaluate(section, expression, None)?,
    };
    let Some(cfa) = cfa.map(|cfa| cfa & word.max()) else {
        return Ok(Step::Unknown);
    };
    let signal = fde.is_signal_trampoline();
    let mut caller = Registers::new();
    for (number, reg) in numbered(word).iter().enumerate() {
        let rule = u16::try_from(number)
            .ok()
            .and_then(|number| row.register(Register(number)));
        let value = match rule {
            None if *reg == Reg::Sp => Some(cfa),
            None if signal || is_callee_saved(*reg, word) => registers.get(*reg),
            None | Some(RegisterRule::Undefined) => None,
            Some(RegisterRule::SameValue) => registers.get(*reg),
            Some(RegisterRule::Offset(offset)) => {
                Some(frame.read(cfa.wrapping_add_signed(offset))?)
            }
            Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::Register(register)) => frame.register(register),
            Some(RegisterRule::Expression(expression)) => {
                match frame.evaluate(section, &expression, Some(cfa))? {
                    Some(addr) => Some(frame.read(addr)?),
                    None => None,
                }
            }
            Some(RegisterRule::ValExpression(expression)) => {
                frame.evaluate(section, &expression, Some(cfa))?
            }
            Some(RegisterRule::Constant(value)) => Some(value),
            Some(_) => None,
        };
        caller.put(*reg, value.map(|value| value & word.max()));
    }
    // Of an interruption the processor pushed cs above the pc, of which DWARF has no number.
    if let (true, Some(RegisterRule::Offset(ip))) =
        (signal, row.register(fde.cie().return_address_register()))
    {
        let at = cfa
            .wrapping_add_signed(ip)
            .wrapping_add(word.bytes() as u64);
        caller.put(Reg::Cs, frame.read(at).ok().map(|cs| cs & 0xffff));
    }
    // Without a return address there is no caller: so the outermost function is marked.
    if caller.get(Reg::Ip).is_none() {
        return Ok(Step::End);
    }
    Ok(Step::Caller(Box::new(Caller {
        registers: caller,
        how: How::Cfi,
        guess: false,
        interrupted: signal,
        saved_at: None,
    })))
}

impl Frame<'_> {
    fn register(&self, register: Register) -> Option<u64> {
        let reg = numbered(self.word).get(usize::from(register.0))?;
        self.registers.get(*reg)
    }

    fn read(&self, addr: u64) -> Result<u64, Unreadable> {
        read_word(self.memory, VirtAddr(addr & self.word.max()), self.word)
    }

    /// The value of an expression; `None` if it needs what is not known or makes no sense.
    fn evaluate<'a, S: UnwindSection<Reader<'a>>>(
        &self,
        section: &S,
        expression: &UnwindExpression<usize>,
        initial: Option<u64>,
    ) -> Result<Option<u64>, Unreadable> {
        let Ok(expression) = expression.get(section) else {
            return Ok(None);
        };
        let mut evaluation = expression.evaluation(self.encoding);
        evaluation.set_max_iterations(MOST_OPERATIONS);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut state = evaluation.evaluate();
        loop {
            state = match state {
                Ok(EvaluationResult::Complete) => break,
                Ok(EvaluationResult::RequiresRegister { register, .. }) => {
                    match self.register(register) {
                        Some(value) => evaluation.resume_with_register(Value::Generic(value)),
                        None => return Ok(None),
                    }
                }
                Ok(EvaluationResult::RequiresMemory { address, size, .. })
                    if usize::from(size) == self.word.bytes() =>
                {
                    let value = self.read(address)?;
                    evaluation.resume_with_memory(Value::Generic(value))
                }
                _ => return Ok(None),
            }
        }
        Ok(match evaluation.as_result() {
            [piece] => match piece.location {
                Location::Address { address } => Some(address),
                _ => None,
            },
            _ => None,
        })
    }
}
