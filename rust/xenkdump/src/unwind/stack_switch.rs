//! Calls that were made on another stack: the instruction after such a call gets the old stack
//! pointer back, and so tells where it is.
//!
//! Linux runs interrupts and softirqs on stacks of their own. On 32 bits `call_on_stack` exchanges
//! `%esp` with `%ebx`, which the callee keeps; on 64 bits `call_on_irqstack` (5.12) leaves the old
//! pointer on top of the new stack. ORC knows of that, DWARF and the code's own depth do not.

use crate::addr::{VirtAddr, Word};
use crate::memory::Memory;

use super::registers::{Reg, Registers};
use super::step::offset;
use super::x86::decode::{decode, Effect};

/// Sizes of a 32-bit kernel's stacks, which are aligned to them: 4 KiB with `CONFIG_4KSTACKS`.
const SIZES_32: [u64; 2] = [8 << 10, 4 << 10];

/// Words of a `struct thread_info`.
const MOST_THREAD_INFO: u64 = 24;

/// The registers once the instruction after the call, at the pc, has switched back; `None` if it
/// does not switch.
pub(super) fn undone(
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
            .or_else(|| at_the_foot(memory, sp, word))?,
    };
    if old == sp.0 || !old.is_multiple_of(word.bytes() as u64) {
        return None;
    }
    let mut undone = *registers;
    undone.set(Reg::Sp, old);
    Some(undone)
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

/// The stack pointer that a 32-bit kernel left behind, as it keeps it at the foot of its interrupt
/// stacks.
fn at_the_foot(memory: &dyn Memory<VirtAddr>, sp: VirtAddr, word: Word) -> Option<u64> {
    if word != Word::W32 {
        return None;
    }
    let read = |addr| memory.read_word(VirtAddr(addr), word).ok();
    // All of the stack may be popped already.
    let last = sp.0.checked_sub(1)?;
    SIZES_32.into_iter().find_map(|size| {
        let foot = last & !(size - 1);
        let first = read(foot)?;
        let elsewhere = |old: &u64| old.wrapping_sub(foot) > size && read(*old).is_some();
        // Until 3.15 a `thread_info` lies there. It is that of the same task as the one at the
        // foot of the stack that `previous_esp` in it points to.
        let previous = (1..MOST_THREAD_INFO).find_map(|i| {
            let old = read(foot + i * 4)?;
            let of_task = SIZES_32
                .into_iter()
                .any(|size| read(old & !(size - 1)) == Some(first));
            (first != 0 && of_task && elsewhere(&old)).then_some(old)
        });
        // Since then ("x86: Keep thread_info on thread stack in x86_32") just that.
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
        let undone = undone(&ram, &registers, word)?;
        undone.get(Reg::Sp)
    }

    #[test]
    fn the_register_that_is_moved_back_has_the_old_stack_pointer() {
        let bx = Some(TASK_STACK);
        assert_eq!(sp_of(&[0x89, 0xdc], Word::W32, bx), bx);
        assert_eq!(sp_of(&[0x8b, 0xe3], Word::W32, bx), bx);
        assert_eq!(sp_of(&[0x48, 0x89, 0xdc], Word::W64, bx), bx);
        assert_eq!(sp_of(&[0x49, 0x89, 0xdc], Word::W64, bx), None, "to r12");
        assert_eq!(sp_of(&[0x89, 0xd8], Word::W32, bx), None, "to eax");
        assert_eq!(sp_of(&[0x89, 0x1c, 0x24], Word::W32, bx), None, "to memory");
    }

    #[test]
    fn what_is_popped_is_the_old_stack_pointer() {
        assert_eq!(sp_of(&[0x5c], Word::W64, None), Some(TASK_STACK + 8));
        let call_first = [0xe8, 1, 2, 3, 4, 0x5c];
        assert_eq!(sp_of(&call_first, Word::W64, None), Some(TASK_STACK + 8));
        let other_pop_first = [0x5b, 0x5c];
        assert_eq!(sp_of(&other_pop_first, Word::W64, None), None);
    }

    #[test]
    fn a_register_that_is_not_known_is_looked_up_at_the_foot_of_the_stack() {
        assert_eq!(sp_of(&[0x89, 0xdc], Word::W32, None), Some(TASK_STACK + 16));
        assert_eq!(sp_of(&[0x48, 0x89, 0xdc], Word::W64, None), None);
    }

    #[test]
    fn an_old_kernel_keeps_it_in_the_thread_info_of_the_same_task() {
        let mut ram = Ram::new(Word::W32);
        let task = 0xcd00_0000;
        ram.words(task, &[0; 64]);
        ram.words(IRQ_STACK, &[0; 64]);
        ram.words(IRQ_STACK, &[task, 0xc130_0000, 0, 0, 1, 0x10000]);
        ram.words(IRQ_STACK + 52, &[TASK_STACK]);
        ram.words(TASK_STACK & !0x1fff, &[task]);
        ram.words(TASK_STACK, &[0]);
        let sp = VirtAddr(IRQ_STACK + 0x1000);
        assert_eq!(at_the_foot(&ram, sp, Word::W32), Some(TASK_STACK));
    }

    #[test]
    fn the_last_stack_that_there_is_room_for_has_a_foot_too() {
        for last in [u64::from(u32::MAX), u64::MAX] {
            let mut ram = Ram::new(Word::W32);
            let foot = last & !(SIZES_32[0] - 1);
            ram.words(foot, &[TASK_STACK]);
            ram.words(TASK_STACK, &[0]);
            let old = at_the_foot(&ram, VirtAddr(last - 0xff), Word::W32);
            assert_eq!(old, Some(TASK_STACK));
        }
    }

    #[test]
    fn a_register_that_makes_no_stack_pointer_is_not_believed() {
        assert_eq!(sp_of(&[0x89, 0xdc], Word::W32, Some(TASK_STACK + 1)), None);
    }
}
