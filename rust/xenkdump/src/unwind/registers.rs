//! The registers of a frame; the value of each may be unknown.

use crate::addr::{VirtAddr, Word};

macro_rules! registers {
    ($($variant:ident $name64:literal $name32:literal $bare:literal,)*) => {
        /// An x86 register, named after its lower 16 bits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Reg { $($variant,)* }

        impl Reg {
            /// Every register, in the order of the enum.
            pub const ALL: &'static [Reg] = &[$(Reg::$variant,)*];

            /// The register's name for this word size: `rip` or `eip`.
            pub fn name(self, word: Word) -> &'static str {
                match (self, word) {
                    $((Reg::$variant, Word::W64) => $name64,)*
                    $((Reg::$variant, Word::W32) => $name32,)*
                }
            }

            /// Whether a C function preserves the register for its caller.
            pub(super) fn is_callee_saved(self, word: Word) -> bool {
                match word {
                    Word::W32 => matches!(self, Reg::Bx | Reg::Bp | Reg::Si | Reg::Di),
                    Word::W64 => matches!(
                        self,
                        Reg::Bx | Reg::Bp | Reg::R12 | Reg::R13 | Reg::R14 | Reg::R15
                    ),
                }
            }

            /// The register with this name; `rip`, `eip` and `ip` are the same register.
            pub fn from_name(name: &str) -> Option<Self> {
                Some(match name {
                    $($bare => Reg::$variant,)*
                    _ => return Reg::ALL.iter().copied().find(|reg| {
                        reg.name(Word::W64) == name || reg.name(Word::W32) == name
                    }),
                })
            }
        }
    };
}

registers! {
    Ax "rax" "eax" "ax",
    Cx "rcx" "ecx" "cx",
    Dx "rdx" "edx" "dx",
    Bx "rbx" "ebx" "bx",
    Sp "rsp" "esp" "sp",
    Bp "rbp" "ebp" "bp",
    Si "rsi" "esi" "si",
    Di "rdi" "edi" "di",
    R8 "r8" "r8" "r8",
    R9 "r9" "r9" "r9",
    R10 "r10" "r10" "r10",
    R11 "r11" "r11" "r11",
    R12 "r12" "r12" "r12",
    R13 "r13" "r13" "r13",
    R14 "r14" "r14" "r14",
    R15 "r15" "r15" "r15",
    Ip "rip" "eip" "ip",
    Flags "rflags" "eflags" "flags",
    Cs "cs" "cs" "cs",
    Ss "ss" "ss" "ss",
    Ds "ds" "ds" "ds",
    Es "es" "es" "es",
    Fs "fs" "fs" "fs",
    Gs "gs" "gs" "gs",
    OrigAx "orig_rax" "orig_eax" "orig_ax",
}

const COUNT: usize = Reg::ALL.len();

/// Register values, any of which may be unknown.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    values: [u64; COUNT],
    known: u32,
}

impl Registers {
    /// No register is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only the pc and the stack pointer are known, as in every frame.
    pub fn at(pc: VirtAddr, sp: VirtAddr) -> Self {
        let mut registers = Self::new();
        registers.set(Reg::Ip, pc.0);
        registers.set(Reg::Sp, sp.0);
        registers
    }

    /// The value, if known.
    pub fn get(&self, reg: Reg) -> Option<u64> {
        (self.known & (1 << reg as u32) != 0).then(|| self.values[reg as usize])
    }

    /// Sets the value.
    pub fn set(&mut self, reg: Reg, value: u64) {
        self.values[reg as usize] = value;
        self.known |= 1 << reg as u32;
    }

    /// Makes the value unknown.
    pub fn forget(&mut self, reg: Reg) {
        self.values[reg as usize] = 0;
        self.known &= !(1 << reg as u32);
    }

    /// Sets the value, or makes it unknown.
    pub fn put(&mut self, reg: Reg, value: Option<u64>) {
        match value {
            Some(value) => self.set(reg, value),
            None => self.forget(reg),
        }
    }

    /// The instruction pointer.
    pub fn pc(&self) -> Option<VirtAddr> {
        self.get(Reg::Ip).map(VirtAddr)
    }

    /// The stack pointer.
    pub fn sp(&self) -> Option<VirtAddr> {
        self.get(Reg::Sp).map(VirtAddr)
    }

    /// The known registers with their values, in the order of [`Reg::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Reg, u64)> + '_ {
        Reg::ALL
            .iter()
            .filter_map(|&reg| Some((reg, self.get(reg)?)))
    }
}

impl std::fmt::Debug for Registers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(reg, value)| (reg.name(Word::W64), format!("{value:#x}"))),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_widths_are_equivalent() {
        for name in ["rip", "eip", "ip"] {
            assert_eq!(Reg::from_name(name), Some(Reg::Ip));
        }
        assert_eq!(Reg::from_name("orig_eax"), Some(Reg::OrigAx));
        assert_eq!(Reg::from_name("r12"), Some(Reg::R12));
        assert_eq!(Reg::from_name("xmm0"), None);
        assert_eq!(Reg::Flags.name(Word::W32), "eflags");
    }

    #[test]
    fn zero_is_a_known_value() {
        let mut registers = Registers::new();
        assert_eq!(registers.get(Reg::Bp), None);
        registers.set(Reg::Bp, 0);
        assert_eq!(registers.get(Reg::Bp), Some(0));
        registers.forget(Reg::Bp);
        assert_eq!(registers.get(Reg::Bp), None);
    }
}
