//! The registers in Xen's HVM context (`public/arch-x86/hvm/save.h`).

use super::super::vcpu_context::{names, values, Field, VcpuContext, ONLINE};
use super::cursor::{Cursor, Range};
use crate::addr::{MachineAddr, Word};
use crate::alloc;
use crate::file::Storage;
use crate::limits::MAX_DUMP_CORE_VCPUS;
use crate::notes::Registers;

/// `HVM_SAVE_CODE(END)`.
const END: u16 = 0;
/// `HVM_SAVE_CODE(CPU)`: `struct hvm_hw_cpu`. Older versions of the struct are shorter, but the same up
/// to efer.
const CPU: u16 = 2;
/// Bytes up to efer and with it.
const CPU_SIZE: u64 = 1000;

const fn wide(name: &'static str, at: usize) -> Field {
    (name, at, 8)
}

const fn selector(name: &'static str, at: usize) -> Field {
    (name, at, 2)
}

/// The registers of a vCPU in long mode.
const FIELDS_64: [Field; 26] = [
    wide("r15", 632),
    wide("r14", 624),
    wide("r13", 616),
    wide("r12", 608),
    wide("rbp", 544),
    wide("rbx", 520),
    wide("r11", 600),
    wide("r10", 592),
    wide("r9", 584),
    wide("r8", 576),
    wide("rax", 512),
    wide("rcx", 528),
    wide("rdx", 536),
    wide("rsi", 552),
    wide("rdi", 560),
    wide("rip", 640),
    selector("cs", 736),
    wide("rflags", 648),
    wide("rsp", 568),
    selector("ss", 756),
    selector("es", 744),
    selector("ds", 740),
    selector("fs", 748),
    selector("gs", 752),
    wide("fs_base", 832),
    wide("gs_base", 840),
];

/// Those of a vCPU in any other mode.
const FIELDS_32: [Field; 16] = [
    ("ebx", 520, 4),
    ("ecx", 528, 4),
    ("edx", 536, 4),
    ("esi", 552, 4),
    ("edi", 560, 4),
    ("ebp", 544, 4),
    ("eax", 512, 4),
    ("eip", 640, 4),
    selector("cs", 736),
    ("eflags", 648, 4),
    ("esp", 568, 4),
    selector("ss", 756),
    selector("es", 744),
    selector("ds", 740),
    selector("fs", 748),
    selector("gs", 752),
];

static NAMES_64: [&str; FIELDS_64.len()] = names(&FIELDS_64);
static NAMES_32: [&str; FIELDS_32.len()] = names(&FIELDS_32);

/// cr0, cr2, cr3, cr4, efer.
const CONTROL: [Field; 5] = [
    wide("cr0", 656),
    wide("cr2", 664),
    wide("cr3", 672),
    wide("cr4", 680),
    wide("efer", 992),
];

const PG: u64 = 1 << 31;
const PAE: u64 = 1 << 5;
/// EFER.LMA: long mode.
const LMA: u64 = 1 << 10;

/// The vCPUs that were up, in the order of their numbers. A broken context ends the list.
pub(super) fn vcpus(storage: &impl Storage, context: Range) -> Vec<VcpuContext> {
    let mut found = Vec::new();
    let mut cursor = Cursor {
        storage,
        at: context.offset,
    };
    let end = context.offset.saturating_add(context.size);
    // A descriptor: type, number of the vCPU, size.
    while let Ok(Some([a, b, c, d, e, f, g, h])) = cursor.take::<8>() {
        let code = u16::from_le_bytes([a, b]);
        let id = u32::from(u16::from_le_bytes([c, d]));
        let size = u64::from(u32::from_le_bytes([e, f, g, h]));
        let at = cursor.at;
        if code == END || at.saturating_add(size) > end {
            break;
        }
        if code == CPU && size >= CPU_SIZE && (found.len() as u64) < MAX_DUMP_CORE_VCPUS {
            let cpu = storage.copy(at, CPU_SIZE).ok();
            if let Some(vcpu) = cpu.and_then(|cpu| parse(&cpu, id)) {
                alloc::push(&mut found, vcpu);
            }
        }
        cursor.at = at + size;
    }
    found.sort_unstable_by_key(|vcpu| vcpu.id);
    found.dedup_by_key(|vcpu| vcpu.id);
    found
}

fn parse(cpu: &[u8], id: u32) -> Option<VcpuContext> {
    let control = values(cpu, &CONTROL)?;
    let [cr0, cr2, cr3, cr4, efer] = *control.first_chunk()?;
    let (word, fields, names): (_, &[Field], &'static [&'static str]) = if efer & LMA == 0 {
        (Word::W32, &FIELDS_32, &NAMES_32)
    } else {
        (Word::W64, &FIELDS_64, &NAMES_64)
    };
    let root = match (cr0 & PG != 0, word) {
        (false, _) => 0,
        (_, Word::W64) => cr3 & 0x000f_ffff_ffff_f000,
        (_, Word::W32) if cr4 & PAE != 0 => cr3 & 0xffff_ffe0,
        (_, Word::W32) => cr3 & 0xffff_f000,
    };
    Some(VcpuContext {
        id,
        source: "HVM_CONTEXT",
        word,
        flags: ONLINE,
        registers: Registers {
            names,
            values: values(cpu, fields)?,
        },
        cr: [cr0, 0, cr2, cr3, cr4, 0, 0, 0],
        root: MachineAddr(root),
        efer: Some(efer),
    })
}
