//! The registers of a vCPU, as in files of single domains and Xen's own interfaces.

use crate::addr::{MachineAddr, Word};
use crate::notes::Registers;

/// Size of a 64-bit `vcpu_guest_context`.
pub const CONTEXT_SIZE_64: u64 = 5168;
/// Size of a 32-bit `vcpu_guest_context`.
pub const CONTEXT_SIZE_32: u64 = 2800;

/// A vCPU's `vcpu_guest_context` (Xen `public/arch-x86/xen.h`), or what a saved translated guest has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuContext {
    /// The number of the vCPU.
    pub id: u32,
    /// What the file calls the place of the registers.
    pub source: &'static str,
    /// Word size of the context: that of the guest for PV, that of Xen for HVM.
    pub word: Word,
    /// `flags`: VGCF_* bits; bit 2 is VGCF_in_kernel, bit 5 VGCF_online.
    pub flags: u64,
    /// `user_regs`, and on 64 bits the segment bases.
    pub registers: Registers,
    /// `ctrlreg`: cr0 to cr7 as stored; cr3 of a 32-bit PV guest is folded.
    pub cr: [u64; 8],
    /// The top page table according to cr3.
    pub root: MachineAddr,
    /// The MSR efer, where it is recorded (saved HVM and PVH guests).
    pub efer: Option<u64>,
}

/// Bit of [`VcpuContext::flags`]: VGCF_online.
pub(super) const ONLINE: u64 = 1 << 5;

/// A register in a context: name, offset, size.
pub(super) type Field = (&'static str, usize, usize);

/// `user_regs` of the 64-bit context, then the segment bases at its end.
const FIELDS_64: [Field; 27] = [
    ("r15", 520, 8),
    ("r14", 528, 8),
    ("r13", 536, 8),
    ("r12", 544, 8),
    ("rbp", 552, 8),
    ("rbx", 560, 8),
    ("r11", 568, 8),
    ("r10", 576, 8),
    ("r9", 584, 8),
    ("r8", 592, 8),
    ("rax", 600, 8),
    ("rcx", 608, 8),
    ("rdx", 616, 8),
    ("rsi", 624, 8),
    ("rdi", 632, 8),
    ("rip", 648, 8),
    ("cs", 656, 2),
    ("rflags", 664, 8),
    ("rsp", 672, 8),
    ("ss", 680, 2),
    ("es", 688, 2),
    ("ds", 696, 2),
    ("fs", 704, 2),
    ("gs", 712, 2),
    ("fs_base", 5144, 8),
    ("gs_base_kernel", 5152, 8),
    ("gs_base_user", 5160, 8),
];

/// `user_regs` of the 32-bit context.
const FIELDS_32: [Field; 16] = [
    ("ebx", 516, 4),
    ("ecx", 520, 4),
    ("edx", 524, 4),
    ("esi", 528, 4),
    ("edi", 532, 4),
    ("ebp", 536, 4),
    ("eax", 540, 4),
    ("eip", 548, 4),
    ("cs", 552, 2),
    ("eflags", 556, 4),
    ("esp", 560, 4),
    ("ss", 564, 2),
    ("es", 568, 2),
    ("ds", 572, 2),
    ("fs", 576, 2),
    ("gs", 580, 2),
];

/// The names of `fields`.
pub(super) const fn names<const N: usize>(fields: &[Field; N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut i = 0;
    while i < N {
        names[i] = fields[i].0;
        i += 1;
    }
    names
}

static NAMES_64: [&str; FIELDS_64.len()] = names(&FIELDS_64);
static NAMES_32: [&str; FIELDS_32.len()] = names(&FIELDS_32);

/// Offset of `flags`.
const FLAGS: usize = 512;
/// Offset of `ctrlreg[8]` in the 64-bit context.
const CTRLREG_64: usize = 4984;
/// Offset of `ctrlreg[8]` in the 32-bit context.
const CTRLREG_32: usize = 2716;

/// The values of `fields`.
pub(super) fn values(bytes: &[u8], fields: &[Field]) -> Option<Vec<u64>> {
    let mut values = Vec::with_capacity(fields.len());
    for &(_, at, width) in fields {
        let mut value = [0; 8];
        value
            .get_mut(..width)?
            .copy_from_slice(bytes.get(at..at.checked_add(width)?)?);
        values.push(u64::from_le_bytes(value));
    }
    Some(values)
}

impl VcpuContext {
    /// Reads a context of word size `word`. `source` is what the file calls its place.
    pub(super) fn parse(
        bytes: &[u8],
        word: Word,
        auto_translated: bool,
        id: u32,
        source: &'static str,
    ) -> Option<Self> {
        let (fields, names, ctrlreg): (&[Field], &'static [&'static str], _) = match word {
            Word::W64 => (&FIELDS_64, &NAMES_64, CTRLREG_64),
            Word::W32 => (&FIELDS_32, &NAMES_32, CTRLREG_32),
        };
        let values = values(bytes, fields)?;
        let mut cr = [0; 8];
        for (value, chunk) in cr
            .iter_mut()
            .zip(bytes.get(ctrlreg..)?.chunks_exact(word.bytes()))
        {
            *value = word.get(chunk)?;
        }
        Some(Self {
            id,
            source,
            word,
            flags: word.get(bytes.get(FLAGS..)?)?,
            registers: Registers { names, values },
            cr,
            root: match (word, cr[3]) {
                // Folded: the mfn's bits above the 20 that fit are in the low 12 bits.
                (Word::W32, cr3) if !auto_translated => {
                    MachineAddr((cr3 & 0xffff_f000) | ((cr3 & 0xfff) << 32))
                }
                (_, cr3) => MachineAddr(cr3 & 0x000f_ffff_ffff_f000),
            },
            efer: None,
        })
    }
}
