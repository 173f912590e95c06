//! Register sets of notes.

use crate::addr::Word;

/// The order of `elf_gregset_t` on x86_64 (Linux `arch/x86/include/uapi/asm/ptrace.h`, then the
/// segment bases and selectors): 27 words, at byte 112 of the 336 of NT_PRSTATUS.
pub const X86_64: [&str; 27] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs",
    "gs",
];

/// The order of `elf_gregset_t` on i386: 17 words, at byte 72 of the 144 of NT_PRSTATUS.
pub const I386: [&str; 17] = [
    "ebx", "ecx", "edx", "esi", "edi", "ebp", "eax", "ds", "es", "fs", "gs", "orig_eax", "eip",
    "cs", "eflags", "esp", "ss",
];

/// Register values in the order of one of the tables above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Names, in the order of the layout.
    pub names: &'static [&'static str],
    /// Values, in the same order.
    pub values: Vec<u64>,
}

impl Registers {
    /// Reads a whole register set at the start of `bytes`; `None` if there are too few bytes.
    pub fn parse(names: &'static [&'static str], word: Word, bytes: &[u8]) -> Option<Self> {
        let values = bytes
            .chunks_exact(word.bytes())
            .take(names.len())
            .map(|chunk| word.get(chunk))
            .collect::<Option<Vec<u64>>>()?;
        (values.len() == names.len()).then_some(Self { names, values })
    }

    /// Names and values, in the order of the layout.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.names.iter().copied().zip(self.values.iter().copied())
    }

    /// The value of the register `name`.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }
}
