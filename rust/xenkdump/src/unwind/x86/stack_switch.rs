//! Calls on another stack. The instruction after such a call restores the old stack pointer, which
//! shows where it was saved.
//!
//! Linux runs interrupts and softirqs on separate stacks. On 32 bits `call_on_stack` exchanges `%esp`
//! with `%ebx`, which is callee-saved; on 64 bits `call_on_irqstack` (5.12) saves the old pointer at
//! the top of the new stack. ORC describes this; DWARF and frame layouts do not.

use crate::addr::{VirtAddr, Word};
use crate::memory::Memory;
use crate::unwind::registers::{Reg, Registers};
use crate::unwind::step::offset;

use super::decode::{decode, Effect};

/// Sizes and alignments of a 32-bit kernel's stacks: 4 KiB with `CONFIG_4KSTACKS`.
const SIZES_32: [u64; 2] = [8 << 10, 4 << 10];

/// Maximum size of a `struct thread_info`, in words.
const MAX_THREAD_INFO: u64 = 24;

/// The registers after the code at the pc, a return address, has switched back to the old stack;
/// `None` if it does not.
pub(in crate::unwind) fn switch_back(
    memory: &dyn Memory<VirtAddr>,
    registers: &Registers,
    word: Word,
) -> Option<Registers> {
    let sp = registers.sp()?;
    let mut code = [0; WINDOW];
    let pc = registers.pc()?;
    memory.read(pc, &mut code).ok()?;
    let old = match source(&code, pc, word)? {
        Source::Popped => memory.read_word(sp, word).ok()?,
        Source::Register(reg) => registers
            .get(reg)
            .or_else(|| saved_at_base(memory, sp, word))?,
    };
    if old == sp.0 || !old.is_multiple_of(word.bytes() as u64) {
        return None;
    }
    let mut switched = *registers;
    switched.set(Reg::Sp, old);
    Some(switched)
}

/// The source of the stack pointer that the code at `pc` switches back to.
fn source(code: &[u8], pc: VirtAddr, word: Word) -> Option<Source> {
    let mut rest = code;
    for before in 0..=MAX_BEFORE_POP {
        let at = offset(pc, (code.len() - rest.len()) as i64, word);
        let instruction = decode(rest, at, word)?;
        match instruction.effect {
            Effect::SetStack(reg) if before == 0 => return Some(Source::Register(reg)),
            Effect::ToFrame(0) if before == 0 => return Some(Source::Register(Reg::Bp)),
            Effect::PopStack => return Some(Source::Popped),
            // `irq_exit_rcu` is called before the old stack pointer is popped.
            Effect::None => rest = rest.get(instruction.length..)?,
            _ => return None,
        }
    }
    None
}

/// The size of the code that is searched for the switch, and the number of instructions before it.
const WINDOW: usize = 32;
const MAX_BEFORE_POP: usize = 3;

enum Source {
    /// `pop %sp`.
    Popped,
    /// `mov %reg,%sp`.
    Register(Reg),
}

/// The old stack pointer of a 32-bit kernel, which it saves at the lowest address of its interrupt
/// stacks.
fn saved_at_base(memory: &dyn Memory<VirtAddr>, sp: VirtAddr, word: Word) -> Option<u64> {
    if word != Word::W32 {
        return None;
    }
    let read = |addr| memory.read_word(VirtAddr(addr), word).ok();
    // The stack may be empty: then the stack pointer is at the end of its range.
    let last = sp.0.checked_sub(1)?;
    SIZES_32.into_iter().find_map(|size| {
        let base = last & !(size - 1);
        let first = read(base)?;
        let elsewhere = |old: &u64| old.wrapping_sub(base) > size && read(*old).is_some();
        // Until 3.15 it is in a `thread_info` of the same task as the one at the base of the stack
        // that its `previous_esp` points to.
        let previous = (1..MAX_THREAD_INFO).find_map(|i| {
            let old = read(base + i * 4)?;
            let of_task = SIZES_32
                .into_iter()
                .any(|size| read(old & !(size - 1)) == Some(first));
            (first != 0 && of_task && elsewhere(&old)).then_some(old)
        });
        // Since then ("x86: Keep thread_info on thread stack in x86_32") only the pointer.
        previous.or(Some(first).filter(elsewhere))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::testing::Ram;

    const CODE: u64 = 0xc100_0000;
    const IRQ_STACK: u64 = 0xcf00_2000;
    const TASK_STACK: u64 = 0xc200_1f00;

    fn sp_of(code: &[u8], word: Word, bx: Option<u64>) -> Option<u64> {
        let mut ram = Ram::new(word);
        ram.bytes(CODE, &[0x90; 64]);
        ram.bytes(CODE, code);
        ram.words(IRQ_STACK, &[TASK_STACK + 16]);
        ram.words(TASK_STACK, &[0; 8]);
        ram.words(IRQ_STACK + SIZES_32[0], &[TASK_STACK + 8]);
        let mut registers = Registers::at(VirtAddr(CODE), VirtAddr(IRQ_STACK + SIZES_32[0]));
        registers.put(Reg::Bx, bx);
        switch_back(&ram, &registers, word)?.get(Reg::Sp)
    }

    #[test]
    fn the_old_stack_pointer_may_be_in_a_register() {
        let bx = Some(TASK_STACK);
        assert_eq!(sp_of(&[0x89, 0xdc], Word::W32, bx), bx);
        assert_eq!(sp_of(&[0x8b, 0xe3], Word::W32, bx), bx);
        assert_eq!(sp_of(&[0x48, 0x89, 0xdc], Word::W64, bx), bx);
        assert_eq!(sp_of(&[0x49, 0x89, 0xdc], Word::W64, bx), None, "to r12");
        assert_eq!(sp_of(&[0x89, 0xd8], Word::W32, bx), None, "to eax");
        assert_eq!(sp_of(&[0x89, 0x1c, 0x24], Word::W32, bx), None, "to memory");
    }

    #[test]
    fn the_old_stack_pointer_may_be_popped() {
        assert_eq!(sp_of(&[0x5c], Word::W64, None), Some(TASK_STACK + 8));
        let call_first = [0xe8, 1, 2, 3, 4, 0x5c];
        assert_eq!(sp_of(&call_first, Word::W64, None), Some(TASK_STACK + 8));
        let other_pop_first = [0x5b, 0x5c];
        assert_eq!(sp_of(&other_pop_first, Word::W64, None), None);
    }

    #[test]
    fn an_unknown_register_is_replaced_by_the_pointer_at_the_base() {
        assert_eq!(sp_of(&[0x89, 0xdc], Word::W32, None), Some(TASK_STACK + 16));
        assert_eq!(sp_of(&[0x48, 0x89, 0xdc], Word::W64, None), None);
    }

    #[test]
    fn an_old_kernel_s_pointer_is_in_the_thread_info() {
        let mut ram = Ram::new(Word::W32);
        let task = 0xcd00_0000;
        ram.words(task, &[0; 64]);
        ram.words(IRQ_STACK, &[0; 64]);
        ram.words(IRQ_STACK, &[task, 0xc130_0000, 0, 0, 1, 0x10000]);
        ram.words(IRQ_STACK + 52, &[TASK_STACK]);
        ram.words(TASK_STACK & !0x1fff, &[task]);
        ram.words(TASK_STACK, &[0]);
        let sp = VirtAddr(IRQ_STACK + 0x1000);
        assert_eq!(saved_at_base(&ram, sp, Word::W32), Some(TASK_STACK));
    }

    #[test]
    fn a_stack_at_the_end_of_the_address_space_has_a_base() {
        for last in [u64::from(u32::MAX), u64::MAX] {
            let mut ram = Ram::new(Word::W32);
            let base = last & !(SIZES_32[0] - 1);
            ram.words(base, &[TASK_STACK]);
            ram.words(TASK_STACK, &[0]);
            let old = saved_at_base(&ram, VirtAddr(last - 0xff), Word::W32);
            assert_eq!(old, Some(TASK_STACK));
        }
    }

    #[test]
    fn an_unaligned_stack_pointer_is_rejected() {
        assert_eq!(sp_of(&[0x89, 0xdc], Word::W32, Some(TASK_STACK + 1)), None);
    }
}
