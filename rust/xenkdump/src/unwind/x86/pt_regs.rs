//! `struct pt_regs`: registers saved by entry code on the kernel's stack.

use crate::addr::{Address, VirtAddr, Word};
use crate::memory::Memory;
use crate::unwind::registers::{Reg, Registers};
use crate::unwind::step::Unreadable;

/// The layout of a `pt_regs`: one word for each register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PtRegs {
    /// The size of a slot.
    pub word: Word,
    /// The registers by ascending address.
    pub slots: &'static [Reg],
    /// Whether the stack pointer and `ss` are also saved when the kernel is interrupted. If not, `sp`
    /// is the address of their slots.
    pub saves_kernel_sp: bool,
    /// The first register that a system call saves. The registers before it are callee-saved.
    pub syscall_from: Option<Reg>,
    /// Whether Xen saved the registers: user mode then means a guest.
    pub hypervisor: bool,
}

/// The number of slots of the largest layout.
const MAX_SLOTS: usize = 25;

/// Xen's flat code segment for 64-bit PV guests (xen/include/public/arch-x86/xen-x86_64.h). Kernel and
/// user space both use it in ring 3. Xen saves it unchanged in `cpu_user_regs`, and a kernel saves its
/// own `cs` unchanged in a crash. In the frames that Xen pushes on a kernel's stack, an interrupted
/// kernel has RPL 0 instead.
const FLAT_RING3_CS64: u64 = 0xe033;

use Reg::{
    Ax, Bp, Bx, Cs, Cx, Di, Ds, Dx, Es, Flags, Fs, Gs, Ip, OrigAx, Si, Sp, Ss, R10, R11, R12, R13,
    R14, R15, R8, R9,
};

/// Since Linux 4.1 ("x86/asm/entry/64: Always allocate a complete struct pt_regs on the
/// kernel stack").
const X86_64: PtRegs = PtRegs {
    word: Word::W64,
    slots: &[
        R15, R14, R13, R12, Bp, Bx, R11, R10, R9, R8, Ax, Cx, Dx, Si, Di, OrigAx, Ip, Cs, Flags,
        Sp, Ss,
    ],
    saves_kernel_sp: true,
    syscall_from: None,
    hypervisor: false,
};

/// Before that a system call saved only the registers that are not callee-saved.
const X86_64_2_6: PtRegs = PtRegs {
    syscall_from: Some(R11),
    ..X86_64
};

/// Since Linux 5.3: 3c88c692c287 ("x86/stackframe/32: Provide consistent pt_regs").
const I386: PtRegs = PtRegs {
    word: Word::W32,
    slots: &[
        Bx, Cx, Dx, Si, Di, Bp, Ax, Ds, Es, Fs, Gs, OrigAx, Ip, Cs, Flags, Sp, Ss,
    ],
    saves_kernel_sp: true,
    syscall_from: None,
    hypervisor: false,
};

/// Linux 2.6.30 to 5.2. 2.6.30 added `gs` for the stack protector ("x86: make lazy %gs optional on
/// x86_32").
const I386_2_6_30: PtRegs = PtRegs {
    saves_kernel_sp: false,
    ..I386
};

/// Linux 2.6.20 to 2.6.29: `ds`, `es` and the segment register for per-CPU data (named `gs` in
/// 2.6.20).
const I386_2_6_20: PtRegs = PtRegs {
    word: Word::W32,
    slots: &[
        Bx, Cx, Dx, Si, Di, Bp, Ax, Ds, Es, Fs, OrigAx, Ip, Cs, Flags, Sp, Ss,
    ],
    saves_kernel_sp: false,
    syscall_from: None,
    hypervisor: false,
};

/// Before Linux 2.6.20: only `ds` and `es`.
const I386_2_6: PtRegs = PtRegs {
    word: Word::W32,
    slots: &[
        Bx, Cx, Dx, Si, Di, Bp, Ax, Ds, Es, OrigAx, Ip, Cs, Flags, Sp, Ss,
    ],
    saves_kernel_sp: false,
    syscall_from: None,
    hypervisor: false,
};

/// Xen's `struct cpu_user_regs`.
const XEN_X86_64: PtRegs = PtRegs {
    word: Word::W64,
    slots: &[
        R15, R14, R13, R12, Bp, Bx, R11, R10, R9, R8, Ax, Cx, Dx, Si, Di, OrigAx, Ip, Cs, Flags,
        Sp, Ss, Es, Ds, Fs, Gs,
    ],
    saves_kernel_sp: true,
    syscall_from: None,
    hypervisor: true,
};

/// The same for a 32-bit Xen, up to 4.2.
const XEN_X86_32: PtRegs = PtRegs {
    word: Word::W32,
    slots: &[
        Bx, Cx, Dx, Si, Di, Bp, Ax, OrigAx, Ip, Cs, Flags, Sp, Ss, Es, Ds, Fs, Gs,
    ],
    saves_kernel_sp: false,
    syscall_from: None,
    hypervisor: true,
};

impl PtRegs {
    /// The layout of a Linux kernel of this word size and release; the newest if the release is
    /// unknown.
    pub fn of(word: Word, release: Option<(u32, u32, u32)>) -> Self {
        match (word, release) {
            (Word::W64, Some(release)) if release < (4, 1, 0) => X86_64_2_6,
            (Word::W64, _) => X86_64,
            (Word::W32, Some(release)) if release < (2, 6, 20) => I386_2_6,
            (Word::W32, Some(release)) if release < (2, 6, 30) => I386_2_6_20,
            (Word::W32, Some(release)) if release < (5, 3, 0) => I386_2_6_30,
            (Word::W32, _) => I386,
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        (self.slots.len() * self.word.bytes()) as u64
    }

    /// The layout of Xen's own stacks.
    pub fn of_xen(word: Word) -> Self {
        match word {
            Word::W64 => XEN_X86_64,
            Word::W32 => XEN_X86_32,
        }
    }

    /// The index of the slot of this register.
    pub(in crate::unwind) fn slot(&self, reg: Reg) -> usize {
        self.slots
            .iter()
            .position(|slot| *slot == reg)
            .unwrap_or_default()
    }

    /// The address of the saved stack pointer in a `pt_regs` at `addr`.
    pub(in crate::unwind) fn sp_slot(&self, addr: VirtAddr) -> VirtAddr {
        let bytes = self.slot(Sp) * self.word.bytes();
        VirtAddr(addr.raw().wrapping_add(bytes as u64) & self.word.max())
    }

    /// Reads all registers from a `pt_regs` at `addr`.
    pub(in crate::unwind) fn read(
        &self,
        memory: &dyn Memory<VirtAddr>,
        addr: VirtAddr,
    ) -> Result<Registers, Unreadable> {
        self.read_slots(memory, addr, 0, Registers::new())
    }

    /// Reads the registers that a system call saves, at `addr`; the callee-saved ones are those of
    /// `before`. Also returns the address where a complete `pt_regs` would start.
    pub(in crate::unwind) fn read_syscall(
        &self,
        memory: &dyn Memory<VirtAddr>,
        addr: VirtAddr,
        before: &Registers,
    ) -> Option<(VirtAddr, Registers)> {
        let first = self.slot(self.syscall_from?);
        let preserved = self.slots.get(..first)?;
        let mut registers = Registers::new();
        for reg in preserved {
            registers.put(*reg, before.get(*reg));
        }
        let registers = self.read_slots(memory, addr, first, registers).ok()?;
        let bytes = first * self.word.bytes();
        let start = VirtAddr(addr.raw().wrapping_sub(bytes as u64) & self.word.max());
        Some((start, registers))
    }

    /// Reads the registers that the processor saves, from `ip` on, at `addr`; the rest are those of
    /// `before`.
    pub(in crate::unwind) fn read_iret(
        &self,
        memory: &dyn Memory<VirtAddr>,
        addr: VirtAddr,
        before: Registers,
    ) -> Result<Registers, Unreadable> {
        let first = self.slot(Ip);
        self.read_slots(memory, addr, first, before)
    }

    fn read_slots(
        &self,
        memory: &dyn Memory<VirtAddr>,
        addr: VirtAddr,
        first: usize,
        mut registers: Registers,
    ) -> Result<Registers, Unreadable> {
        let slots = self.slots.get(first..).unwrap_or_default();
        let width = self.word.bytes();
        let mut bytes = [0; MAX_SLOTS * 8];
        let bytes = &mut bytes[..slots.len().min(MAX_SLOTS) * width];
        memory
            .read(addr, bytes)
            .map_err(|fault| Unreadable { addr, fault })?;
        for (slot, bytes) in slots.iter().zip(bytes.chunks_exact(width)) {
            let value = self.word.get(bytes).unwrap_or_default();
            registers.set(
                *slot,
                match slot {
                    // A selector has 16 bits. The bits above it are used by FRED and by Xen's
                    // `saved_upcall_mask`, and undefined if the processor pushes only 16 bits.
                    Cs | Ss | Ds | Es | Fs | Gs => value & 0xffff,
                    _ => value,
                },
            );
        }
        // The processor pushes ss and sp only when it changes rings. Xen runs in ring 0; a frame that
        // it writes on the stack of a 32-bit guest's kernel, which runs in ring 1, lacks them.
        let changed = |cs: u64| cs & 3 == 3 || (self.hypervisor && cs & 3 != 0);
        if !self.saves_kernel_sp && registers.get(Cs).is_some_and(|cs| !changed(cs)) {
            let before = first * width;
            let whole = VirtAddr(addr.raw().wrapping_sub(before as u64));
            registers.set(Sp, self.sp_slot(whole).raw());
            registers.forget(Ss);
            if self.hypervisor {
                // 32-bit Xen saves them above ss, and only those of a guest.
                for reg in [Es, Ds, Fs, Gs] {
                    registers.forget(reg);
                }
            }
        }
        Ok(registers)
    }

    /// Whether these are registers of user space; for Xen, of a guest.
    ///
    /// The privilege level in `cs` decides, not the pc: a kernel that calls NULL has the pc of user
    /// space, and the vsyscall page has one of the kernel's half.
    pub fn is_user(&self, registers: &Registers) -> bool {
        if self.hypervisor {
            return self.is_guest(registers);
        }
        match (self.word, registers.get(Cs)) {
            // Xen runs a 32-bit kernel in ring 1 (`cs` 0x61), so ring 3 is user space there too.
            (Word::W32, cs) => cs.is_some_and(|cs| cs & 3 == 3),
            (Word::W64, Some(cs)) if !matches!(cs, 0 | FLAT_RING3_CS64) => cs & 3 == 3,
            // A kernel stack is never in the user half of the address space, whatever the kernel
            // called. After `syscall` the stack pointer is still that of user space, but the pc is
            // not.
            (Word::W64, _) => [Ip, Sp]
                .iter()
                .all(|reg| registers.get(*reg).is_some_and(|value| value >> 63 == 0)),
        }
    }

    /// Whether these registers may be those of an interruption at pc 0, by a call through NULL. The
    /// user registers of a kernel thread are zero; those of an io worker have user space's `cs`.
    pub(in crate::unwind) fn may_be_at_null(&self, registers: &Registers) -> bool {
        let is_set = |reg| registers.get(reg).is_some_and(|value| value != 0);
        is_set(Cs) && (is_set(Sp) || !self.is_user(registers))
    }

    /// Whether Xen saved these registers of a PV guest, whose kernel runs in ring 3, or in
    /// ring 1 on 32 bits, and its stack is in the same ring.
    pub(in crate::unwind) fn is_guest(&self, registers: &Registers) -> bool {
        let ring = |reg| registers.get(reg).map(|selector| selector & 3);
        self.hypervisor && matches!(ring(Cs), Some(1 | 3)) && ring(Cs) == ring(Ss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::testing::Ram;

    #[test]
    fn sizes_are_correct_for_each_kernel() {
        assert_eq!(PtRegs::of(Word::W64, None).size(), 168);
        assert_eq!(PtRegs::of(Word::W32, None).size(), 68);
        assert_eq!(PtRegs::of(Word::W32, Some((2, 6, 18))).size(), 60);
        assert_eq!(PtRegs::of(Word::W32, Some((2, 6, 24))).size(), 64);
        assert_eq!(PtRegs::of(Word::W32, Some((4, 19, 0))).size(), 68);
    }

    #[test]
    fn a_guest_s_cs_and_ss_have_the_same_nonzero_ring() {
        let layout = PtRegs::of_xen(Word::W32);
        let mut ram = Ram::new(Word::W32);
        let base = 0xffbe_df80;
        let mut at = |cs, ss| {
            let general = [0; 8];
            let pushed = [0xc010_1234, cs, 0x246, 0xc12d_1f00, ss, 0x7b, 0x7b, 0, 0];
            ram.words(base, &[&general[..], &pushed[..]].concat());
            let registers = layout.read(&ram, VirtAddr(base)).unwrap();
            (layout.is_guest(&registers), registers.get(Sp))
        };
        // saved_upcall_mask follows cs.
        assert_eq!(at(0x1_0061, 0x69), (true, Some(0xc12d_1f00)));
        assert_eq!(at(0x73, 0x7b), (true, Some(0xc12d_1f00)));
        assert!(!at(0x62, 0x6a).0);
        assert!(!at(0x61, 0x7b).0);
        // Xen itself, interrupted: nothing was pushed above the flags.
        assert_eq!(at(0xe008, 0xe010), (false, Some(base + 11 * 4)));
        let own = layout.read(&ram, VirtAddr(base)).unwrap();
        assert_eq!([Ss, Es, Ds, Fs, Gs].map(|reg| own.get(reg)), [None; 5]);
    }

    #[test]
    fn an_interrupted_32_bit_kernel_s_sp_is_the_end_of_the_frame() {
        let layout = PtRegs::of(Word::W32, Some((2, 6, 18)));
        let mut ram = Ram::new(Word::W32);
        let base = 0xc040_1000;
        ram.words(
            base,
            &[
                1,
                2,
                3,
                4,
                5,
                6,
                7,
                0x7b,
                0x7b,
                u64::from(u32::MAX),
                0xc010_0000,
            ],
        );
        ram.words(base + 44, &[0x61, 0x246, 0xdead, 0xbeef]);
        let registers = layout.read(&ram, VirtAddr(base)).unwrap();
        assert_eq!(registers.get(Sp), Some(base + 52));
        assert_eq!(registers.get(Ss), None);
        assert_eq!(registers.get(Bp), Some(6));
        assert!(!layout.is_user(&registers));
    }

    const KERNEL: u64 = 0xffff_ffff_8100_0000;
    const KERNEL_STACK: u64 = 0xffff_c900_0001_3f58;
    const USER_STACK: u64 = 0x7ffc_a352_9220;

    fn is_user(word: Word, cs: Option<u64>, ip: u64, sp: u64) -> bool {
        let mut registers = Registers::at(VirtAddr(ip), VirtAddr(sp));
        registers.put(Cs, cs);
        PtRegs::of(word, None).is_user(&registers)
    }

    #[test]
    fn user_space_is_determined_by_the_privilege_level() {
        let null_or_wild = [0, 0x48, 0x47_b7a0, 0x00ff_1234_5678_9abc, KERNEL];
        for ip in null_or_wild {
            for cs in [0x10, 0xe030] {
                assert!(!is_user(Word::W64, Some(cs), ip, KERNEL_STACK), "{ip:#x}");
            }
            for cs in [0x33, 0x23, 0xe023] {
                assert!(is_user(Word::W64, Some(cs), ip, USER_STACK), "{ip:#x}");
            }
            for (cs, user) in [(0x60, false), (0x61, false), (0xe019, false), (0x73, true)] {
                let ip = ip & Word::W32.max();
                assert_eq!(is_user(Word::W32, Some(cs), ip, 0xc211_7fb4), user);
            }
        }
    }

    #[test]
    fn with_a_shared_segment_user_space_is_determined_by_the_stack_too() {
        // A PV guest in Xen's registers; an HVM guest, whose segments Xen does not save.
        for cs in [Some(0xe033), Some(0), None] {
            for user in [0, 0x47_b7a0, 0x7f12_3456_7890, 0x00ff_1234_5678_9abc] {
                assert!(is_user(Word::W64, cs, user, USER_STACK));
                assert!(!is_user(Word::W64, cs, user, KERNEL_STACK), "a wild call");
            }
            assert!(!is_user(Word::W64, cs, KERNEL, KERNEL_STACK));
            assert!(!is_user(Word::W64, cs, KERNEL, USER_STACK), "syscall entry");
        }
    }
}
