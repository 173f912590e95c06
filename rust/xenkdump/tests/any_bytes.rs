//! Mutations of small valid inputs: each must give a result or an error with bounded work, as
//! checked in `hostile`. Headers get every value at every byte, and are truncated at every length.
//! Data after the headers gets a sample of both.

mod hostile;

use proptest::prelude::*;
use xenkdump::addr::{Mfn, Pfn, Word};
use xenkdump::p2m::P2m;
use xenkdump::paging::NestedFormat;
use xenkdump::types::Types;

type Check = fn(&[u8]);

const ALL: [Check; 19] = [
    hostile::dump,
    hostile::kdump,
    hostile::sections,
    hostile::zstd,
    hostile::notes,
    hostile::image,
    hostile::packed_image,
    hostile::kallsyms,
    hostile::symtab,
    hostile::dwarf,
    hostile::lines,
    hostile::walk,
    hostile::p2m,
    hostile::nested,
    hostile::bare,
    hostile::btf,
    hostile::stack,
    hostile::orc,
    hostile::cfi,
];

/// Extreme values for number fields.
const EXTREMES: [&[u8]; 7] = [
    &[0; 8],
    &[0xff; 8],
    &[0xff; 4],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0, 0, 0, 0, 0, 0, 0, 0x80],
    &[0xff, 0xff],
    &[0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
];

/// Every value at each byte of `headers`, some values and all extremes at each `step`th byte.
fn mutate(valid: &[u8], headers: usize, step: usize, check: impl Fn(&[u8])) {
    check(valid);
    let mut corrupt = valid.to_vec();
    for at in 0..valid.len().min(headers) {
        for value in 0..=255 {
            corrupt[at] = value;
            check(&corrupt);
        }
        corrupt[at] = valid[at];
    }
    for at in (0..valid.len()).step_by(step) {
        for value in [0, 1, 0x7f, 0x80, 0xff, valid[at] ^ 0x10] {
            corrupt[at] = value;
            check(&corrupt);
        }
        corrupt[at] = valid[at];
        for extreme in EXTREMES {
            let end = valid.len().min(at + extreme.len());
            corrupt[at..end].copy_from_slice(&extreme[..end - at]);
            check(&corrupt);
            corrupt[at..end].copy_from_slice(&valid[at..end]);
        }
    }
}

/// Every length up to `all`, and each `step`th from there on.
fn truncate(valid: &[u8], all: usize, step: usize, check: impl Fn(&[u8])) {
    for len in (0..all.min(valid.len())).chain((all..valid.len()).step_by(step)) {
        check(&valid[..len]);
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn note(name: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for number in [name.len() as u32 + 1, desc.len() as u32, kind] {
        note.extend(number.to_le_bytes());
    }
    note.extend(name.as_bytes());
    note.resize(12 + (name.len() + 4) / 4 * 4, 0);
    note.extend(desc);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

fn notes() -> Vec<u8> {
    [
        note("CORE", 1, &[7; 336]),
        note("Xen", 0x100_0002, &words(&[1, 2, 0x5000, 4])),
        note(
            "Xen",
            0x100_0001,
            &words(&[4, 17, 1, 2, 3, 4, 5, 0, 0x1000, 5]),
        ),
        note("Xen Domanin-0 CR3", 0x1000_0001, &words(&[5])),
        note(
            "VMCOREINFO_XEN",
            0,
            b"PAGESIZE=4096\nSYMBOL(domain_list)=ffff82d0404\n",
        ),
    ]
    .concat()
}

/// A small table of symbols.
fn kallsyms() -> Vec<u8> {
    let names = [
        "T_text",
        "T_etext",
        "Rlinux_banner",
        "D__start_BTF",
        "D__stop_BTF",
    ];
    hostile::kallsyms_of(&names, |i, after| match i {
        0 => 0,
        1 => 32,
        i => after + 24 * (i as u32 - 2),
    })
}

#[test]
fn kallsyms_of_any_bytes() {
    mutate(&kallsyms(), 0, 17, hostile::kallsyms);
    truncate(&kallsyms(), 0, 11, hostile::kallsyms);
}

/// An ELF64 vmcore with two segments. The second is smaller in the file than in memory.
fn vmcore() -> (Vec<u8>, usize) {
    let notes = notes();
    let headers = 64 + 3 * 56;
    let memory = (headers + notes.len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [4u16, 62, 1, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(words(&[0, 64, 0]));
    for half in [0u16, 0, 64, 56, 3, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for header in [
        [
            4,
            headers as u64,
            0,
            0,
            notes.len() as u64,
            notes.len() as u64,
            0,
        ],
        [1 | 7 << 32, memory, 0, 0x1000, 0x800, 0x800, 0],
        [1 | 7 << 32, memory + 0x800, 0, 0x3000, 0x400, 0x1000, 0],
    ] {
        file.extend(words(&header));
    }
    file.extend(notes);
    file.resize(file.len() + 0xc00, 0xa5);
    (file, headers)
}

/// The same with 32-bit headers.
fn vmcore32() -> (Vec<u8>, usize) {
    let notes = notes();
    let headers = 52 + 2 * 32u32;
    let size = notes.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    for number in [4 | 3 << 16, 1, 0, 52, 0, 0, 52 | 32 << 16, 2 | 40 << 16, 0] {
        file.extend(u32::to_le_bytes(number));
    }
    for header in [
        [4, headers, 0, 0, size, size, 0, 0],
        [1, headers + size, 0, 0x1000, 0x400, 0x1000, 7, 0],
    ] {
        header
            .iter()
            .for_each(|number| file.extend(number.to_le_bytes()));
    }
    file.extend(notes);
    file.resize(file.len() + 0x400, 0xa5);
    (file, headers as usize)
}

fn dump_core() -> Vec<u8> {
    let mut context = vec![0; 5168];
    context[5008..5016].copy_from_slice(&0x5000u64.to_le_bytes());
    hostile::elf_of(&[
        (
            ".note.Xen",
            &note("Xen", 0x200_0001, &words(&[0xf00f_ebed, 1, 2, 4096])),
        ),
        (".xen_p2m", &words(&[0, 0x77, 1, 0x55])),
        (".xen_pages", &[0xaa; 8192]),
        (".xen_prstatus", &context),
        (".xen_shared_info", &[0xcc; 4096]),
    ])
}

/// A record of a saved domain.
fn record(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), (body.len() as u32).to_le_bytes()].concat();
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// An xl save file of a PV or an HVM domain with two pages, of which one is sent again after a checkpoint.
fn saved_domain(is_hvm: bool) -> Vec<u8> {
    let mut file = b"Xen saved domain, xl format\n \0 \r".to_vec();
    for number in [0x0102_0304, 3, 0, 6, 2] {
        file.extend(u32::to_le_bytes(number));
    }
    file.extend(b"{}LibxlFmt\0\0\0\x02\0\0\0\0");
    file.extend(record(1, &[]));
    file.extend([0xff; 8]);
    file.extend(b"XENF\0\0\0\x03\0\0\0\0\0\0\0\0");
    for number in [1 + u32::from(is_hvm), 12, 4, 17] {
        file.extend(number.to_le_bytes());
    }
    let pages = |entries: &[(u64, u64)]| {
        let mut body = words(&[entries.len() as u64]);
        body.extend(
            entries
                .iter()
                .flat_map(|&(kind, pfn)| words(&[kind << 60 | pfn])),
        );
        let held = entries.iter().filter(|&&(kind, _)| kind < 0xd);
        body.extend(held.flat_map(|&(_, pfn)| [pfn as u8; 4096]));
        record(1, &body)
    };
    let mut context = words(&[5; 646]);
    context[5008..5016].copy_from_slice(&0x2000u64.to_le_bytes());
    let state = if is_hvm {
        let mut hvm = words(&[2 | 1032 << 32]);
        hvm.extend(words(&[0xd01; 129]));
        hvm.extend([0; 8]);
        record(9, &hvm)
    } else {
        let vcpu = [words(&[1]), context].concat();
        [record(7, &[7; 4096]), record(4, &vcpu)].concat()
    };
    file.extend(record(2, &[8, 4, 0, 0, 0, 0, 0, 0]));
    file.extend(record(3, &words(&[5 << 32, 1])));
    file.extend(pages(&[(0, 1), (0xc, 2), (0xf, 3), (0xe, 4)]));
    file.extend(&state);
    file.extend(record(0xe, &[]));
    file.extend(record(3, &[1; 13]));
    file.extend(record(4, &[]));
    file.extend(pages(&[(0, 1)]));
    file.extend(&state);
    file.extend([record(0, &[]), record(0, &[])].concat());
    file
}

/// An xm save file of a PV or an HVM domain with two pages.
fn legacy_saved_domain(is_hvm: bool) -> Vec<u8> {
    let mut file = b"LinuxGuestRecord\0\0\0\x02()".to_vec();
    file.extend(words(&[5]));
    if !is_hvm {
        file.extend([0xff; 8]);
        file.extend((8 + 5168 + 8u32).to_le_bytes());
        file.extend(b"vcpu");
        file.extend(5168u32.to_le_bytes());
        file.extend([5; 5168]);
        file.extend(b"extv\0\0\0\0");
        file.extend(words(&[1]));
    }
    for chunk in [-2i32, 1] {
        file.extend(chunk.to_le_bytes());
    }
    file.extend(words(&[2]));
    file.extend(3u32.to_le_bytes());
    file.extend(words(&[1, 2 | 0xc << 28, 0xf << 28]));
    file.extend([1; 8192]);
    for chunk in [-9i32, 0] {
        file.extend(chunk.to_le_bytes());
    }
    if is_hvm {
        file.extend(words(&[1, 2, 3]));
        file.extend((8 + 1032u32).to_le_bytes());
        file.extend(words(&[2 | 1032 << 32]));
        file.extend(words(&[0xd01; 129]));
    } else {
        file.extend(1u32.to_le_bytes());
        file.extend(words(&[3]));
        file.extend([5; 5168 + 128]);
        file.extend([7; 4096]);
    }
    file
}

/// Bitmaps, notes, descriptors and data of a kdump-compressed dump of four pages.
fn kdump_parts() -> ([Vec<u8>; 4], Vec<u8>) {
    const DATA: u64 = 5 * 4096 + 4 * 24;
    let mut packed = Vec::new();
    let mut zlib = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::fast());
    std::io::Write::write_all(&mut zlib, &[7; 4096]).unwrap();
    packed.push((1u64, zlib.finish().unwrap()));
    packed.push((
        4,
        snap::raw::Encoder::new().compress_vec(&[8; 4096]).unwrap(),
    ));
    let mut zstd = Vec::with_capacity(200);
    zstd_safe::compress(&mut zstd, &[9; 4096], 1).unwrap();
    packed.push((0x20, zstd));
    packed.push((0, vec![10; 4096]));
    let (mut descriptors, mut data) = (Vec::new(), Vec::new());
    for (flags, bytes) in packed {
        let size = bytes.len() as u64 | flags << 32;
        descriptors.extend(words(&[DATA + data.len() as u64, size, 0]));
        data.extend(bytes);
    }
    let (mut ram, mut present) = (vec![0xff; 8], vec![0; 8]);
    present[1] = 0b1000_0101;
    present[7] = 0x80;
    ram.resize(80, 0);
    ([ram, present, notes(), descriptors], data)
}

const fn kind(kind: u32, vlen: u32) -> u32 {
    kind << 24 | vlen
}

fn btf_blob() -> Vec<u8> {
    let strings = b"\0int\0a\0x\0b\0y\0task_struct\0e\0";
    let types: Vec<u32> = [
        &[1, kind(1, 0), 4, 32][..],               // 1: int
        &[5, kind(4, 1), 4, 7, 1, 0],              // 2: struct a { int x; }
        &[0, kind(3, 0), 0, 2, 1, 4],              // 3: struct a [4]
        &[9, kind(4, 2), 24, 11, 3, 0, 0, 2, 128], // 4: struct b { struct a y[4]; struct a; }
        &[13, kind(8, 0), 4],                      // 5: typedef struct b task_struct
        &[25, kind(6, 1), 4, 7, 3],                // 6: enum e { x = 3 }
        &[0, kind(2, 0), 4],                       // 7: struct b *
    ]
    .concat();
    btf_of(&types, strings)
}

/// The BTF of a module, which continues `btf_blob`: 7 types and 27 bytes of strings.
fn split_btf_blob() -> Vec<u8> {
    let types: Vec<u32> = [
        &[27, kind(4, 2), 32, 7, 2, 0, 29, 5, 64][..], // 8: struct m { struct a x; task_struct z; }
        &[0, kind(2, 0), 8],                           // 9: struct m *
        &[31, kind(8, 0), 9],                          // 10: typedef struct m *list_head
    ]
    .concat();
    btf_of(&types, b"m\0z\0list_head\0")
}

fn btf_of(types: &[u32], strings: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    let size = types.len() as u32 * 4;
    for number in [0x0001_eb9f, 24, 0, size, size, strings.len() as u32] {
        blob.extend(number.to_le_bytes());
    }
    types
        .iter()
        .for_each(|number| blob.extend(number.to_le_bytes()));
    blob.extend(strings);
    blob
}

fn vmlinux() -> Vec<u8> {
    let mut symbols = vec![0; 24];
    for (name, value) in [(1u32, 0u64), (8, 0x40), (15, 0x80)] {
        symbols.extend(name.to_le_bytes());
        symbols.extend([0x12, 0, 1, 0]);
        symbols.extend(words(&[0xffff_ffff_8100_0000 + value, 0x40]));
    }
    hostile::elf_of(&[
        (".text", &[0x90; 256]),
        (".symtab", &symbols),
        (".strtab", b"\0_stext\0_etext\0f\0"),
        (".BTF", &btf_blob()),
        (
            ".orc_unwind_ip",
            &[0, 0xff, 0xff, 0xff, 0x40, 0xff, 0xff, 0xff],
        ),
        (
            ".orc_unwind",
            &[8, 0, 0, 0, 5, 1, 16, 0, 0xf0, 0xff, 0x25, 1],
        ),
        (".notes", &note("GNU", 3, &[0x5a; 20])),
    ])
}

/// DWARF of `struct a { int x; }`, after its abbreviations and strings.
fn dwarf_units() -> Vec<u8> {
    let abbrev: &[u8] = &[
        1, 0x11, 1, 0, 0, // compile_unit
        2, 0x13, 1, 0x03, 0x08, 0x0b, 0x0b, 0, 0, // structure_type: name, byte_size
        3, 0x0d, 0, 0x03, 0x08, 0x49, 0x13, 0x38, 0x0b, 0, 0, // member: name, type, location
        4, 0x24, 0, 0x03, 0x0e, 0x0b, 0x0b, 0, 0, // base_type: name by offset, byte_size
        0,
    ];
    let dies: &[u8] = &[
        1, 2, b'a', 0, 4, 3, b'x', 0, 24, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 4, 0,
    ];
    let mut file = Vec::new();
    for piece in [abbrev, b"int\0", b""] {
        file.extend((piece.len() as u16).to_le_bytes());
        file.extend(piece);
    }
    file.extend((7 + dies.len() as u32).to_le_bytes());
    file.extend([4, 0, 0, 0, 0, 0, 8]);
    file.extend(dies);
    file
}

/// A line program of version 4 for code at the address of `.text`, after strings, abbreviations and a
/// unit with the directory of the compiler.
fn line_program() -> Vec<u8> {
    let header: &[u8] = &[
        1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, // opcodes
        b'd', 0, 0, b'a', 0, 0, 0, 0, b'b', 0, 1, 0, 0, 0, // directories and files
    ];
    let set_address: &[u8] = &[0, 9, 2, 0, 0, 0, 0x81, 0xff, 0xff, 0xff, 0xff];
    let rows: &[u8] = &[
        3, 9, 1, 2, 4, 4, 2, 0x55, 0, 6, 3, b'c', 0, 0, 0, 0, 4, 3, 0x66, 2, 4,
    ];
    let program = [set_address, rows, &[0, 1, 1]].concat();
    // compile_unit: stmt_list as sec_offset, comp_dir as string.
    let abbrev: &[u8] = &[1, 0x11, 0, 0x10, 0x17, 0x1b, 0x08, 0, 0, 0];
    let unit: &[u8] = &[14, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0, 0, b'/', 0];
    let mut file = Vec::new();
    for piece in [&b"s\0"[..], abbrev, unit] {
        file.extend((piece.len() as u16).to_le_bytes());
        file.extend(piece);
    }
    file.extend((6 + header.len() as u32 + program.len() as u32).to_le_bytes());
    file.extend([4, 0]);
    file.extend((header.len() as u32).to_le_bytes());
    file.extend(header);
    file.extend(program);
    file
}

/// Tables that map themselves, each other, and missing memory, preceded by the fields of an input.
fn tables(fields: &[u8]) -> Vec<u8> {
    let mut input = fields.to_vec();
    for page in 0..5u64 {
        let mut entries = [0u64; 512];
        entries[0] = (page + 1) << 12 | 0x67;
        entries[1] = page << 12 | 0x67;
        entries[2] = 0x3067;
        entries[3] = 0xf_ffff_f000 | 0x67;
        entries[511] = 0x20_00e7;
        input.extend(words(&entries));
    }
    input
}

fn unwind_input(tables: &[&[u8]]) -> Vec<u8> {
    let mut input = vec![8];
    for table in tables {
        input.extend((table.len() as u16).to_le_bytes());
        input.extend(*table);
    }
    input.extend(words(&[0x105, 0x40, 0x80]));
    let code = [0x55, 0x48, 0x89, 0xe5, 0xe8, 0, 0, 0, 0, 0xc9, 0xc3, 0x90].repeat(60);
    input.extend((code.len() as u16).to_le_bytes());
    input.extend(code);
    for i in 0..80 {
        input.extend(words(&[match i % 5 {
            3 => 0xffff_8880_0000_0100 + 8 * i,
            _ => 0xffff_ffff_8100_0009 + 12 * i,
        }]));
    }
    input
}

#[test]
fn empty_input() {
    for check in ALL {
        check(&[]);
        check(&[0; 4096]);
        check(&[0xff; 4096]);
    }
}

#[test]
fn vmcores() {
    for (valid, headers) in [vmcore(), vmcore32()] {
        mutate(&valid, headers + 60, 7, hostile::dump);
        truncate(&valid, valid.len(), 1, hostile::dump);
    }
}

#[test]
fn dump_core_files() {
    let valid = dump_core();
    mutate(&valid, 200, 37, hostile::dump);
    truncate(&valid, 2048, 61, hostile::dump);
}

#[test]
fn saved_domains() {
    // The headers are the same for PV and HVM domains.
    for (valid, headers) in [
        (saved_domain(false), 190),
        (saved_domain(true), 0),
        (legacy_saved_domain(false), 60),
        (legacy_saved_domain(true), 0),
    ] {
        mutate(&valid, headers, 307, hostile::dump);
        truncate(&valid, headers, 307, hostile::dump);
    }
}

/// Fields are 0x1a0 bytes into the header and at the start of the block after it.
#[test]
fn compressed_dumps() {
    let (parts, data) = kdump_parts();
    let parts = parts.each_ref().map(Vec::as_slice);
    for choice in [0x18, 0x19, 0x38, 0x0c, 0x06, 0x98] {
        let sound = hostile::kdump_of(choice, parts, &data);
        hostile::dump(&sound);
        let mut broken = sound.clone();
        for at in (0..16).chain(0x194..0x1d0).chain(4096..4096 + 104) {
            for value in [0, 1, 2, 3, 0x10, 0x7f, 0x80, 0xff] {
                broken[at] = value;
                hostile::dump(&broken);
            }
            broken[at] = sound[at];
        }
        mutate(&sound[..], 0, 479, hostile::dump);
        truncate(&sound, 0, 777, hostile::dump);
    }
    let mut input = vec![0x18];
    for part in parts {
        input.extend((part.len() as u16).to_le_bytes());
        input.extend(part);
    }
    let descriptors = input.len() - 96;
    input.extend(data);
    // Every bit of the descriptors and of the compressed pages.
    for choice in [0x18, 0x58] {
        input[0] = choice;
        let sound = input.clone();
        for at in descriptors..sound.len().min(descriptors + 300) {
            for bit in 0..8 {
                input[at] ^= 1 << bit;
                hostile::kdump(&input);
                input[at] = sound[at];
            }
        }
        truncate(&sound, 0, 97, hostile::kdump);
    }
}

#[test]
fn flattened_files() {
    let (parts, data) = kdump_parts();
    let kdump = hostile::kdump_of(0x18, parts.each_ref().map(Vec::as_slice), &data);
    for file in [vmcore().0, kdump] {
        for choice in [0, 4, 8, 0x8c] {
            let sound = hostile::flattened_of(&file, choice);
            hostile::dump(&sound);
            let mut broken = sound.clone();
            // The headers of the file and of the first blocks.
            for at in (0..32).chain(4096..4112).chain(4112 + 1000..4112 + 1032) {
                for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
                    if let Some(byte) = broken.get_mut(at) {
                        *byte = value;
                    }
                    hostile::dump(&broken);
                }
                broken.clone_from(&sound);
            }
            truncate(&sound, 0, 331, hostile::dump);
        }
    }
}

#[test]
fn zstd_files() {
    let (file, _) = vmcore();
    for choice in [1, 3, 4, 7] {
        let sound = hostile::zstd_of(choice, &[], &[], &file);
        hostile::dump(&sound);
        // The seek table, and the headers of the first frame.
        let table = sound.len().saturating_sub(8 * (file.len() / 512 + 1) + 17);
        let mut broken = sound.clone();
        for at in (0..24).chain(table..sound.len()) {
            for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
                broken[at] = value;
                hostile::dump(&broken);
            }
            broken[at] = sound[at];
        }
        mutate(&sound, 0, 29, hostile::dump);
        truncate(&sound, 40, 13, hostile::dump);
        // The same with the inner file flattened.
        let inner = hostile::flattened_of(&file, 4);
        hostile::dump(&hostile::zstd_of(choice, &[], &[], &inner));
        let mut input = vec![choice, 2, 0, 0, 0, 0, 0];
        input.extend(&file);
        for at in 0..60 {
            for value in [1, 0x80, 0xff] {
                input[3..5].copy_from_slice(&[at, value]);
                hostile::zstd(&input);
            }
        }
    }
}

fn lime() -> Vec<u8> {
    let mut file = Vec::new();
    for (first, size) in [(0x1000u64, 0x800u64), (0x1800, 0x1000), (0x10_0000, 0x400)] {
        file.extend(words(&[1 << 32 | 0x4c69_4d45, first, first + size - 1, 0]));
        file.resize(file.len() + size as usize, 0xa5);
    }
    file
}

#[test]
fn lime_images() {
    let sound = lime();
    mutate(&sound, 40, 13, hostile::dump);
    truncate(&sound, 100, 7, hostile::dump);
}

#[test]
fn note_sections() {
    let valid = notes();
    mutate(&valid, 70, 2, hostile::notes);
    truncate(&valid, valid.len(), 1, hostile::notes);
}

#[test]
fn kernel_images() {
    let valid = vmlinux();
    mutate(&valid, 64, 3, hostile::image);
    truncate(&valid, valid.len(), 1, hostile::image);
}

#[test]
fn type_information() {
    let valid = btf_blob();
    mutate(&valid, valid.len(), 1, hostile::btf);
    truncate(&valid, valid.len(), 1, hostile::btf);
    let base = Types::from_btf(btf_blob().into(), Word::W64).unwrap();
    let split = split_btf_blob();
    assert!(base.split(split.clone().into()).is_ok());
    mutate(&split, split.len(), 1, |bytes| {
        hostile::split_btf(&base, bytes)
    });
    truncate(&split, split.len(), 1, |bytes| {
        hostile::split_btf(&base, bytes)
    });
    let valid = dwarf_units();
    mutate(&valid, valid.len(), 1, hostile::dwarf);
    truncate(&valid, valid.len(), 1, hostile::dwarf);
    let valid = line_program();
    assert!(hostile::found_lines(&valid) > 8);
    mutate(&valid, valid.len(), 1, hostile::lines);
    truncate(&valid, valid.len(), 1, hostile::lines);
}

#[test]
fn page_tables() {
    for format in 0..4u8 {
        let mut fields = vec![format];
        fields.extend(words(&[
            0,
            0,
            0x1000,
            0x20_0000,
            1 << 40,
            1 << 47,
            u64::MAX,
            0x8080_6040_3000,
            5,
        ]));
        mutate(&tables(&fields), 20, 509, hostile::walk);
        truncate(&tables(&fields), 100, 1021, hostile::walk);
    }
}

#[test]
fn p2ms() {
    for kind in 0..5u8 {
        for choice in [0, 1, 5, 8] {
            let mut fields = vec![kind, choice];
            fields.extend(words(&[u64::from(kind > 0) << 12, 0x1000, 3000]));
            fields.extend(words(&[0, 511, 512, 2999, 3000, u64::MAX]));
            mutate(&tables(&fields), 0, 1021, hostile::p2m);
        }
    }
}

#[test]
fn nested_page_tables() {
    for choice in 0..4 {
        for root in [0, 1] {
            let mut fields = vec![choice, 2];
            fields.extend(words(&[root, 0x1000]));
            fields.extend(words(&[0, 511, 512, 1 << 18, 1 << 35, u64::MAX]));
            mutate(&tables(&fields), 2, 1021, hostile::nested);
        }
    }
}

#[test]
fn bare_views() {
    for format in 0..4 {
        for choice in [0, 8, 7] {
            let mut fields = vec![choice, format];
            fields.extend(words(&[0, 0x1000, 0x2000, 0x1000, 32, 16, 0x3008]));
            // Not all of them are pages of the memory.
            fields.extend(words(
                &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1 << 20, 11, 12, 3, 14, 15]
                    .map(|mfn| (mfn + 0x10) << 32 | mfn),
            ));
            let valid = tables(&fields);
            mutate(&valid, 1, 1021, hostile::bare);
            truncate(&valid, 200, 1021, hostile::bare);
            // Each number of the header.
            let mut corrupt = valid.clone();
            for at in (2..186).step_by(8) {
                for extreme in EXTREMES {
                    corrupt[at..at + extreme.len()].copy_from_slice(extreme);
                    hostile::bare(&corrupt);
                    corrupt[at..at + 8].copy_from_slice(&valid[at..at + 8]);
                }
            }
        }
    }
}

/// Found by fuzzing: an absent table was read again for each entry that refers to it.
#[test]
fn absent_tables() {
    let layout = NestedFormat::ALL[0];
    let table = |entry: &dyn Fn(u64) -> u64| words(&(0..512).map(entry).collect::<Vec<_>>());
    // The first entry maps the table itself, so that there is something at its lowest level.
    let of = |frame: &dyn Fn(u64) -> u64| {
        table(&|i| match i {
            0 => 7,
            i => frame(i) << 12 | 7,
        })
    };
    for (frames, most) in [(1, 1), (2, 2), (512, 511)] {
        let bytes = of(&|i| 9 + i % frames);
        let ram = hostile::Ram::new(0, &bytes);
        assert!(P2m::nested(&ram, Mfn(0), layout).is_ok());
        assert!(ram.missed() <= most, "{} reads", ram.missed());
        // There memory has one page, so that one absent table is remembered.
        let mut fields = vec![0, 2];
        fields.extend(words(&[0; 8]));
        fields.extend(bytes);
        hostile::nested(&fields);
    }
}

/// Found by fuzzing: batches and reverse lookups ignored a partly present P2M page, which single
/// lookups read.
#[test]
fn partly_present_p2m_page() {
    let mut fields = vec![1, 4];
    fields.extend(words(&[
        0x1000,
        0x1000,
        3000,
        0,
        511,
        512,
        2999,
        3000,
        u64::MAX,
    ]));
    let valid = tables(&fields);
    for missing in [8, 4088, 4096, 8192, 12000] {
        hostile::p2m(&valid[..valid.len() - missing]);
    }
}

/// Regression: with one bit of a real dump's frame list flipped, a comparison took 11 s.
#[test]
fn oversized_frame_list_is_not_read_to_its_end() {
    let mut bytes = vec![0; 4096];
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0].repeat(512));
    let ram = hostile::Ram::new(0, &bytes);
    let list = P2m::frame_list(&ram, Mfn(1), Word::W64, None).unwrap();
    assert_eq!(list.len(), 1 << 27);
    let short = P2m::container(&ram, &[(Pfn(0), Mfn(1)), (Pfn(2000), Mfn(1))], Word::W64);
    let before = ram.reads();
    for found in [
        list.compare(&short, 5).unwrap(),
        short.compare(&list, 5).unwrap(),
    ] {
        assert_eq!((found.equal, found.past_end), (2, (1 << 27) - 2001));
    }
    assert!(ram.reads() - before < 200);
}

#[test]
fn stacks() {
    mutate(&unwind_input(&[]), 25, 11, hostile::stack);
    let ip = words(&[0x0000_0040_0000_0000, 0x0000_00f0_0000_0080]);
    let rows = [8, 0, 0xf0, 0xff, 0x25, 1].repeat(4);
    mutate(&unwind_input(&[&ip, &rows]), 45, 23, hostile::orc);
    // A CIE (def_cfa rsp+8, return address at cfa-8) and an FDE of 4 KiB of code.
    let mut frame = vec![
        20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 1, 0x78, 16, 12, 7, 8, 0x90, 1, 0, 0, 0, 0, 0, 0,
    ];
    frame.extend([28, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(words(&[0xffff_ffff_8100_0000, 0x1000]));
    frame.extend([0x41, 14, 16, 0x86, 2, 0x0f, 2, 0x77, 8, 0x2e, 0, 0]);
    let mut valid = unwind_input(&[&frame]);
    valid.insert(1, 0);
    mutate(&valid, 90, 29, hostile::cfi);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        for check in ALL {
            check(&bytes);
        }
    }
}

#[test]
fn compressed_images() {
    for (_, digits) in hostile::packed::SEEDS {
        let stream = hostile::packed::bytes(digits);
        mutate(&stream, 4, 9, hostile::packed_image);
    }
}

#[test]
fn kernels_as_they_are_booted() {
    for (name, digits) in hostile::packed::SEEDS {
        let stream = hostile::packed::bytes(digits);
        for version in [0x0204, 0x020f] {
            let file = hostile::packed::bzimage(name, stream.clone(), 408, version);
            mutate(&file, 0, 31, hostile::packed_image);
        }
    }
}
