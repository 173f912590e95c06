//! Decodes ELF notes.
//!
//! The size of the descriptor determines its layout and its word size, for all notes that Xen and
//! Linux have written since 2006. A note of another size is kept raw. The word size may differ from
//! the file's: with a 32-bit dom0 on 64-bit Xen, notes are 64-bit, and ELF64 files may have EM_386
//! (Linux 4.19 i386 on Xen 4.17).

mod registers;
pub(crate) mod save;
mod xen_version;

pub use registers::Registers;
pub use save::SaveHeader;
pub use xen_version::{XenVersion, XEN_VERSION_STRINGS};

use crate::addr::{MachineAddr, Mfn, Word};

/// `NT_PRSTATUS`, name `CORE`.
pub const NT_PRSTATUS: u32 = 1;
/// `NT_VMCOREDD`, name `LINUX`: a driver's dump of its device (Linux 4.18, 2724273e8fd0).
/// /proc/vmcore has these before the notes of the CPUs.
pub const NT_VMCOREDD: u32 = 0x700;
/// `VMCOREDD_MAX_NAME_BYTES`: the descriptor starts with the device dump's name.
pub const DEVICE_DUMP_NAME: usize = 44;
/// `NT_XEN_KDUMP_CR3`: only in the Xen kexec patches of 2006, with the name `Xen Domanin-0 CR3` (sic).
/// Not to be confused with [`XEN_ELFNOTE_CRASH_INFO`], which has one zero less.
pub const NT_XEN_KDUMP_CR3: u32 = 0x1000_0001;
/// `XEN_ELFNOTE_CRASH_INFO`, name `Xen`; Xen 3.0.4 to today.
pub const XEN_ELFNOTE_CRASH_INFO: u32 = 0x100_0001;
/// `XEN_ELFNOTE_CRASH_REGS`, name `Xen`, one for each pCPU.
pub const XEN_ELFNOTE_CRASH_REGS: u32 = 0x100_0002;
/// `XEN_ELFNOTE_DUMPCORE_NONE`, first of xl dump-core's notes.
pub const XEN_ELFNOTE_DUMPCORE_NONE: u32 = 0x200_0000;
/// `XEN_ELFNOTE_DUMPCORE_HEADER`.
pub const XEN_ELFNOTE_DUMPCORE_HEADER: u32 = 0x200_0001;
/// `XEN_ELFNOTE_DUMPCORE_XEN_VERSION`.
pub const XEN_ELFNOTE_DUMPCORE_XEN_VERSION: u32 = 0x200_0002;
/// `XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION`.
pub const XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION: u32 = 0x200_0003;

/// The name of the note of type 0 that `xkdump export` writes.
pub const EXPORT: &[u8] = b"XENKDUMP";

/// Registers of one CPU at the moment of the crash. Under Xen they are the hypervisor's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrStatus {
    /// `pr_info.si_signo`, `si_code`, `si_errno`.
    pub signal_info: [u32; 3],
    /// `pr_cursig`.
    pub current_signal: u16,
    /// `pr_pid`, `pr_ppid`, `pr_pgrp`, `pr_sid`.
    pub ids: [u32; 4],
    /// `pr_reg`.
    pub registers: Registers,
}

/// XEN_ELFNOTE_CRASH_INFO in any of its three generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashInfo {
    /// Word size of the hypervisor.
    pub word: Word,
    /// `xen_major_version`, `xen_minor_version`.
    pub version: (u64, u64),
    /// Machine addresses of NUL-terminated strings: `xen_extra_version`, `xen_changeset`,
    /// `xen_compiler`, `xen_compile_date`, `xen_compile_time`.
    pub strings: [MachineAddr; 5],
    /// `tainted`.
    pub tainted: u64,
    /// `xen_phys_start`, since Xen 3.3.
    pub xen_phys_start: Option<MachineAddr>,
    /// `dom0_pfn_to_mfn_frame_list_list`, always the last word; since the second patch for Xen 3.0.4.
    /// 0 if dom0 had not set it up, all ones if it has no such list.
    pub frame_list_list: Option<Mfn>,
}

/// Names of [`CrashInfo::strings`], in order.
pub const CRASH_INFO_STRINGS: [&str; 5] = [
    "xen_extra_version",
    "xen_changeset",
    "xen_compiler",
    "xen_compile_date",
    "xen_compile_time",
];

/// XEN_ELFNOTE_CRASH_REGS. With PV guests, cr3 is the page-table root of the guest that ran on the pCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashRegs {
    /// Word size of the hypervisor.
    pub word: Word,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 2: the address of the last page fault.
    pub cr2: u64,
    /// Control register 3: the root of the page tables.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
}

/// A decoded note.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decoded<'a> {
    /// NT_PRSTATUS.
    PrStatus(PrStatus),
    /// NT_XEN_KDUMP_CR3: the mfn (not the address) of dom0's top page table.
    XenKdumpCr3(Mfn),
    /// XEN_ELFNOTE_CRASH_INFO.
    CrashInfo(CrashInfo),
    /// XEN_ELFNOTE_CRASH_REGS.
    CrashRegs(CrashRegs),
    /// `VMCOREINFO`: the text of the Linux kernel.
    VmcoreInfo(&'a [u8]),
    /// `VMCOREINFO_XEN`: the text of the hypervisor.
    VmcoreInfoXen(&'a [u8]),
    /// `ERASEINFO`: the data that makedumpfile erased, as text.
    EraseInfo(&'a [u8]),
    /// [`EXPORT`]: what `xkdump export` wrote the file from, as JSON text.
    Export(&'a [u8]),
    /// `QEMU`: a `QEMUCPUState`.
    Qemu(QemuCpu),
    /// NT_VMCOREDD: the name of the device dump.
    DeviceDump(Vec<u8>),
    /// XEN_ELFNOTE_DUMPCORE_HEADER: magic, vCPUs, pages, page size.
    DumpCoreHeader([u64; 4]),
    /// XEN_ELFNOTE_DUMPCORE_XEN_VERSION.
    DumpCoreXenVersion(XenVersion<'a>),
    /// XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION.
    DumpCoreFormat(u64),
    /// The image header and the domain header of a saved domain.
    SaveHeader(SaveHeader),
    /// The configuration of a saved domain, as text.
    SaveConfig(&'a [u8]),
    /// Anything else, or a known type of unknown size.
    Raw(&'a [u8]),
}

/// `QEMUCPUState` version 1 (QEMU `target/i386/arch_dump.c`): the registers that NT_PRSTATUS lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuCpu {
    /// `version`.
    pub version: u32,
    /// `size`.
    pub size: u32,
    /// rax rbx rcx rdx rsi rdi rsp rbp r8..r15 rip rflags, by name.
    pub registers: Registers,
    /// cr0 to cr4.
    pub cr: [u64; 5],
}

const QEMU_REGISTERS: [&str; 18] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip", "rflags",
];

/// Offset of `cr[5]` in QEMUCPUState: two u32, 18 registers, then ten segments (cs ds es fs gs ss
/// ldt tr gdt idt) of 24 bytes.
const QEMU_CR: usize = 8 + 18 * 8 + 10 * 24;

/// Decodes the descriptor of a note by name, type and size.
pub fn decode<'a>(name: &[u8], note_type: u32, desc: &'a [u8]) -> Decoded<'a> {
    let known = match (name, note_type) {
        (b"VMCOREINFO", 0) => Some(Decoded::VmcoreInfo(desc)),
        (b"VMCOREINFO_XEN", 0) => Some(Decoded::VmcoreInfoXen(desc)),
        (b"ERASEINFO", 0) => Some(Decoded::EraseInfo(desc)),
        (EXPORT, 0) => Some(Decoded::Export(desc)),
        (b"QEMU", 0) => qemu(desc),
        (save::HEADER, 0) => SaveHeader::parse(desc).map(Decoded::SaveHeader),
        (save::XL_CONFIG | save::XEND_CONFIG | save::LIBVIRT_CONFIG, 0) => {
            Some(Decoded::SaveConfig(desc))
        }
        (b"Xen", XEN_ELFNOTE_CRASH_INFO) => crash_info(desc),
        (b"Xen", XEN_ELFNOTE_CRASH_REGS) => crash_regs(desc),
        (b"Xen", XEN_ELFNOTE_DUMPCORE_HEADER) => words(desc).map(Decoded::DumpCoreHeader),
        (b"Xen", XEN_ELFNOTE_DUMPCORE_XEN_VERSION) => {
            XenVersion::parse(desc).map(Decoded::DumpCoreXenVersion)
        }
        (b"Xen", XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION) => {
            Word::W64.get(desc).map(Decoded::DumpCoreFormat)
        }
        // The patch of 2006 misspells the name, which other versions may have corrected; the type is
        // unique.
        (_, NT_XEN_KDUMP_CR3) => match desc.len() {
            4 => Word::W32.get(desc),
            8 => Word::W64.get(desc),
            _ => None,
        }
        .map(|mfn| Decoded::XenKdumpCr3(Mfn(mfn))),
        (b"CORE", NT_PRSTATUS) => prstatus(desc),
        (b"LINUX", NT_VMCOREDD) => Some(Decoded::DeviceDump(device_dump_name(desc))),
        _ => None,
    };
    known.unwrap_or(Decoded::Raw(desc))
}

/// The name of a note's type; `None` if it is unknown.
pub fn type_name(name: &[u8], note_type: u32) -> Option<&'static str> {
    Some(match (name, note_type) {
        (b"CORE", NT_PRSTATUS) => "NT_PRSTATUS",
        (_, NT_XEN_KDUMP_CR3) => "NT_XEN_KDUMP_CR3",
        (b"Xen", XEN_ELFNOTE_CRASH_INFO) => "XEN_ELFNOTE_CRASH_INFO",
        (b"Xen", XEN_ELFNOTE_CRASH_REGS) => "XEN_ELFNOTE_CRASH_REGS",
        (b"Xen", XEN_ELFNOTE_DUMPCORE_NONE) => "XEN_ELFNOTE_DUMPCORE_NONE",
        (b"Xen", XEN_ELFNOTE_DUMPCORE_HEADER) => "XEN_ELFNOTE_DUMPCORE_HEADER",
        (b"Xen", XEN_ELFNOTE_DUMPCORE_XEN_VERSION) => "XEN_ELFNOTE_DUMPCORE_XEN_VERSION",
        (b"Xen", XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION) => "XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION",
        (b"LINUX", NT_VMCOREDD) => "NT_VMCOREDD",
        (b"VMCOREINFO", 0) => "VMCOREINFO",
        (b"VMCOREINFO_XEN", 0) => "VMCOREINFO_XEN",
        (b"ERASEINFO", 0) => "ERASEINFO",
        (EXPORT, 0) => "export",
        (b"QEMU", 0) => "QEMUCPUState",
        (save::HEADER, 0) => "headers",
        (save::XL_CONFIG | save::XEND_CONFIG | save::LIBVIRT_CONFIG, 0) => "configuration",
        (save::LIBXC, record) => return save::libxc_record(record),
        (save::LIBXL, record) => return save::libxl_record(record),
        _ => return None,
    })
}

/// The name at the start of an NT_VMCOREDD's descriptor.
pub fn device_dump_name(desc: &[u8]) -> Vec<u8> {
    let array = desc.get(..DEVICE_DUMP_NAME).unwrap_or(desc);
    array
        .iter()
        .copied()
        .take_while(|&byte| byte != 0)
        .collect()
}

/// `NUMBER(sme_mask)` of a VMCOREINFO text, a decimal number; `None` if it has none.
pub fn sme_mask(text: &[u8]) -> Option<u64> {
    let mut lines = text.split(|&byte| byte == b'\n');
    let number = lines.find_map(|line| line.strip_prefix(b"NUMBER(sme_mask)="))?;
    std::str::from_utf8(number)
        .ok()?
        .trim_end_matches(['\0', '\r'])
        .parse()
        .ok()
}

fn words<const N: usize>(desc: &[u8]) -> Option<[u64; N]> {
    let mut values = [0; N];
    for (value, chunk) in values.iter_mut().zip(desc.chunks_exact(8)) {
        *value = Word::W64.get(chunk)?;
    }
    (desc.len() >= N * 8).then_some(values)
}

fn u32_at(desc: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*desc.get(at..)?.first_chunk()?))
}

fn prstatus(desc: &[u8]) -> Option<Decoded<'static>> {
    // A descriptor without the last member, pr_fpvalid and its padding, has all registers.
    let (word, pid, regs, names): (_, _, _, &'static [&'static str]) = match desc.len() {
        328 | 336 => (Word::W64, 32, 112, &registers::X86_64),
        140 | 144 => (Word::W32, 24, 72, &registers::I386),
        _ => return None,
    };
    Some(Decoded::PrStatus(PrStatus {
        signal_info: [u32_at(desc, 0)?, u32_at(desc, 4)?, u32_at(desc, 8)?],
        current_signal: u16::from_le_bytes(*desc.get(12..)?.first_chunk()?),
        ids: [
            u32_at(desc, pid)?,
            u32_at(desc, pid + 4)?,
            u32_at(desc, pid + 8)?,
            u32_at(desc, pid + 12)?,
        ],
        registers: Registers::parse(names, word, desc.get(regs..)?)?,
    }))
}

fn crash_info(desc: &[u8]) -> Option<Decoded<'static>> {
    // The size determines both the hypervisor's word size and the generation: 8 words (Nov 2006, and
    // non-x86 today), 9 with the frame list (Xen 3.0.4 to 3.2), 10 with xen_phys_start (since Xen
    // 3.3). All six sizes differ.
    let (word, count) = match desc.len() {
        32 => (Word::W32, 8),
        36 => (Word::W32, 9),
        40 => (Word::W32, 10),
        64 => (Word::W64, 8),
        72 => (Word::W64, 9),
        80 => (Word::W64, 10),
        _ => return None,
    };
    let at = |i: usize| word.get(desc.get(i * word.bytes()..)?);
    Some(Decoded::CrashInfo(CrashInfo {
        word,
        version: (at(0)?, at(1)?),
        strings: [
            MachineAddr(at(2)?),
            MachineAddr(at(3)?),
            MachineAddr(at(4)?),
            MachineAddr(at(5)?),
            MachineAddr(at(6)?),
        ],
        tainted: at(7)?,
        xen_phys_start: (count == 10).then(|| at(8)).flatten().map(MachineAddr),
        frame_list_list: (count > 8).then(|| at(count - 1)).flatten().map(Mfn),
    }))
}

fn crash_regs(desc: &[u8]) -> Option<Decoded<'static>> {
    let word = match desc.len() {
        16 => Word::W32,
        32 => Word::W64,
        _ => return None,
    };
    let at = |i: usize| word.get(desc.get(i * word.bytes()..)?);
    Some(Decoded::CrashRegs(CrashRegs {
        word,
        cr0: at(0)?,
        cr2: at(1)?,
        cr3: at(2)?,
        cr4: at(3)?,
    }))
}

fn qemu(desc: &[u8]) -> Option<Decoded<'static>> {
    let mut cr = [0; 5];
    for (i, value) in cr.iter_mut().enumerate() {
        *value = Word::W64.get(desc.get(QEMU_CR + i * 8..)?)?;
    }
    Some(Decoded::Qemu(QemuCpu {
        version: u32_at(desc, 0)?,
        size: u32_at(desc, 4)?,
        registers: Registers::parse(&QEMU_REGISTERS, Word::W64, desc.get(8..)?)?,
        cr,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_without_pr_fpvalid() {
        for (size, word, count) in [(336, 8, 27), (328, 8, 27), (144, 4, 17), (140, 4, 17)] {
            let desc = vec![1; size];
            let Decoded::PrStatus(status) = decode(b"CORE", NT_PRSTATUS, &desc) else {
                panic!("{size}");
            };
            let value = 0x0101_0101_0101_0101 & (u64::MAX >> (64 - 8 * word));
            assert_eq!(status.registers.values, vec![value; count], "{size}");
        }
        for size in [0, 139, 142, 327, 332, 340] {
            let desc = vec![1; size];
            let decoded = decode(b"CORE", NT_PRSTATUS, &desc);
            assert_eq!(decoded, Decoded::Raw(&desc), "{size}");
        }
    }

    #[test]
    fn encryption_masks() {
        let text = b"OSRELEASE=6.1\nNUMBER(sme_mask)=140737488355328\nX=1\n";
        assert_eq!(sme_mask(text), Some(1 << 47));
        assert_eq!(sme_mask(b"NUMBER(sme_mask)=0\0\0"), Some(0));
        for text in [&b""[..], b"NUMBER(sme_mask)=-1", b"NUMBER(sme_mask)=x"] {
            assert_eq!(sme_mask(text), None);
        }
    }
}
