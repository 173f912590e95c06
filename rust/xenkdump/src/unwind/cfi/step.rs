//! From a frame to its caller, by a row of call frame information.

use gimli::{
    BaseAddresses, CfaRule, Encoding, EndianSlice, EvaluationResult, FrameDescriptionEntry,
    LittleEndian, Location, ReaderOffset, Register, RegisterRule, UnwindContext,
    UnwindContextStorage, UnwindExpression, UnwindSection, UnwindTableRow, Value,
};

use crate::addr::{VirtAddr, Word};
use crate::limits::MAX_CFI_OPERATIONS;
use crate::memory::Memory;
use crate::unwind::frame::How;
use crate::unwind::registers::{Reg, Registers};
use crate::unwind::step::{read_word, Caller, Step, Unreadable};

/// The bytes of a section.
pub(in crate::unwind) type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Storage for the rows of a function, large enough for x86's registers and a kernel's depth of
/// remembered states. gimli's default is for every architecture, and slow to clear.
struct Rows;

impl<T: ReaderOffset> UnwindContextStorage<T> for Rows {
    type Rules = [(Register, RegisterRule<T>); 32];
    type Stack = [UnwindTableRow<T, Self>; 4];
}

/// The registers by their DWARF numbers; the last one is the return address.
fn numbered(word: Word) -> &'static [Reg] {
    use Reg::{Ax, Bp, Bx, Cx, Di, Dx, Ip, Si, Sp, R10, R11, R12, R13, R14, R15, R8, R9};
    match word {
        Word::W32 => &[Ax, Cx, Dx, Bx, Sp, Bp, Si, Di, Ip],
        Word::W64 => &[
            Ax, Dx, Cx, Bx, Si, Di, Bp, Sp, R8, R9, R10, R11, R12, R13, R14, R15, Ip,
        ],
    }
}

/// The frame that the rules of a row are applied to.
struct Frame<'a> {
    word: Word,
    encoding: Encoding,
    memory: &'a dyn Memory<VirtAddr>,
    registers: &'a Registers,
}

/// Applies the row of `fde` for `pc` (a link-time address) to the frame with these registers.
pub(in crate::unwind) fn step<'a, S: UnwindSection<Reader<'a>>>(
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
            None if signal || reg.is_callee_saved(word) => registers.get(*reg),
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
    // In an interrupted frame the processor pushed cs above the pc. DWARF has no number for cs.
    if let (true, Some(RegisterRule::Offset(ip))) =
        (signal, row.register(fde.cie().return_address_register()))
    {
        let at = cfa
            .wrapping_add_signed(ip)
            .wrapping_add(word.bytes() as u64);
        caller.put(Reg::Cs, frame.read(at).ok().map(|cs| cs & 0xffff));
    }
    // The outermost function is marked by an undefined return address.
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

    /// The value of an expression; `None` if it is invalid or needs an unknown register.
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
        evaluation.set_max_iterations(MAX_CFI_OPERATIONS);
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
