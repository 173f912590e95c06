//! Tests against small synthetic images.

use super::*;
use crate::addr::{VirtAddr, Word};
use crate::symbols::Symbols;
use crate::types::Types;
use std::path::PathBuf;

/// A section to write: name, type, flags, address, link, entry size, content (or a size without
/// content).
struct Synthetic(&'static str, u32, u64, u64, u32, u64, Content);

enum Content {
    Bytes(Vec<u8>),
    Nothing(u64),
}
use Content::{Bytes as Held, Nothing};

/// An ELF64 file with these sections, followed by the section names.
fn elf64(sections: &[Synthetic]) -> Vec<u8> {
    let mut names = vec![0];
    let mut file = vec![0; 64];
    let mut headers = vec![0; 64];
    let last = Synthetic(".shstrtab", 3, 0, 0, 0, 0, Held(Vec::new()));
    for section in sections.iter().chain([&last]) {
        let Synthetic(name, kind, flags, address, link, entry, content) = section;
        let name_at = names.len() as u32;
        names.extend(name.as_bytes());
        names.push(0);
        let offset = file.len() as u64;
        let size = match content {
            Held(_) if *name == ".shstrtab" => {
                file.extend(&names);
                names.len() as u64
            }
            Held(bytes) => {
                file.extend(bytes);
                bytes.len() as u64
            }
            Nothing(size) => *size,
        };
        headers.extend(name_at.to_le_bytes());
        headers.extend(kind.to_le_bytes());
        for word in [*flags, *address, offset, size] {
            headers.extend(word.to_le_bytes());
        }
        headers.extend(link.to_le_bytes());
        headers.extend([0; 12]);
        headers.extend(entry.to_le_bytes());
    }
    let count = (headers.len() / 64) as u16;
    let shoff = file.len() as u64;
    file.extend(headers);
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16] = 2;
    file[18] = 62;
    file[40..48].copy_from_slice(&shoff.to_le_bytes());
    file[58..60].copy_from_slice(&64_u16.to_le_bytes());
    file[60..62].copy_from_slice(&count.to_le_bytes());
    file[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    file
}

const TEXT: u64 = 0xffff_ffff_8100_0000;

/// A kernel of one function: text without bytes, a build id, zero-based per-cpu data.
fn kernel() -> Vec<u8> {
    let note = b"\x04\0\0\0\x04\0\0\0\x03\0\0\0GNU\0\xca\xfe\xba\xbe".to_vec();
    let mut symbols = vec![0; 24];
    for (name, info, section, value, size) in [
        (1_u32, 0x12, 1_u16, TEXT + 0x10, 0x20_u64),
        (7, 0x11, 4, 0x100, 8),
        (15, 0x10, 0xfff1, 0x1ff, 0),
    ] {
        symbols.extend(name.to_le_bytes());
        symbols.extend([info, 0]);
        symbols.extend(section.to_le_bytes());
        symbols.extend(value.to_le_bytes());
        symbols.extend(size.to_le_bytes());
    }
    elf64(&[
        Synthetic(".text", 8, 6, TEXT, 0, 0, Nothing(0x1000)),
        Synthetic(
            ".rodata",
            1,
            2,
            TEXT + 0x1000,
            0,
            0,
            Held(b"0123456789".to_vec()),
        ),
        Synthetic(".notes", 7, 2, TEXT + 0x2000, 0, 0, Held(note)),
        Synthetic(".data..percpu", 8, 3, 0, 0, 0, Nothing(0x1000)),
        Synthetic(".symtab", 2, 0, 0, 6, 24, Held(symbols)),
        Synthetic(
            ".strtab",
            3,
            0,
            0,
            0,
            0,
            Held(b"\0start\0per_cpu\0CONST\0".to_vec()),
        ),
        Synthetic(
            ".BTF",
            1,
            2,
            TEXT + 0x3000,
            0,
            0,
            Held(vec![0x9f, 0xeb, 1, 0]),
        ),
    ])
}

fn open(name: &str, bytes: &[u8]) -> crate::Result<Image> {
    let path: PathBuf =
        std::env::temp_dir().join(format!("xenkdump-{name}-{}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let image = Image::open(&path);
    // An open image does not need its path.
    std::fs::remove_file(&path).unwrap();
    image
}

#[test]
fn an_image_is_read_by_section_and_by_address() {
    let image = open("image", &kernel()).unwrap();
    assert_eq!((image.word(), image.machine()), (Word::W64, 62));
    assert_eq!(image.build_id(), Some(&b"\xca\xfe\xba\xbe"[..]));
    assert_eq!(image.sections().count(), 8);
    assert_eq!(image.data(".rodata").unwrap(), b"0123456789");
    assert_eq!(image.read(VirtAddr(TEXT + 0x1004), 3).unwrap(), b"456");
    for (address, len) in [
        (TEXT, 1),
        (TEXT + 0x1008, 3),
        (TEXT - 1, 1),
        (0, 1),
        (u64::MAX, u64::MAX),
    ] {
        assert!(image.read(VirtAddr(address), len).is_err(), "{address:#x}");
    }
    assert!(image.data(".text").is_err());
    assert!(image.data(".none").is_err());
    let error = Types::of_image(&image.into(), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("a BTF header"), "{error}");
}

#[test]
fn a_slide_moves_neither_constants_nor_per_cpu_offsets() {
    let image = open("slide", &kernel()).unwrap();
    let symbols = Symbols::of_image(&image.into()).unwrap();
    let symbols = symbols.with_slide(0x1000_0000);
    let address = |name| symbols.get(name).unwrap().address;
    assert_eq!(address("start"), VirtAddr(TEXT + 0x1000_0010));
    assert_eq!(address("per_cpu"), VirtAddr(0x100));
    assert_eq!(address("CONST"), VirtAddr(0x1ff));
    assert_eq!(
        symbols.lookup(VirtAddr(TEXT + 0x1000_0020)).unwrap().name,
        "start"
    );
    assert_eq!(symbols.lookup(VirtAddr(0x100)), None);
}

#[test]
fn corrupt_bytes_do_not_panic() {
    let valid = kernel();
    let query = |bytes: &[u8]| {
        let Ok(image) = open("mutated", bytes) else {
            return;
        };
        for section in image.sections() {
            let _ = (section.name(), section.size(), section.data());
        }
        let _ = (image.build_id(), image.spans(1 << 21));
        let _ = image.read(VirtAddr(TEXT + 0x1004), 3);
        let image = image.into();
        if let Ok(symbols) = Symbols::of_image(&image) {
            let _ = (symbols.len(), symbols.all("start"));
            let _ = symbols.lookup(VirtAddr(TEXT + 0x20));
        }
        let _ = Types::of_image(&image, None);
    };
    for at in 0..valid.len() {
        for bits in [0x01, 0x08, 0x80, 0xff] {
            let mut corrupt = valid.clone();
            corrupt[at] ^= bits;
            query(&corrupt);
        }
        query(&valid[..at]);
    }
}

/// A header of a compressed section and zeros that are `size` bytes when inflated.
fn compressed(size: usize) -> Vec<u8> {
    use std::io::Write;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&vec![0; size]).unwrap();
    let zlib = zlib.finish().unwrap();
    let mut bytes = [1_u32.to_le_bytes(), [0; 4]].concat();
    bytes.extend((size as u64).to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(zlib);
    // Padded so that the compression ratio is within the limit.
    bytes.resize(bytes.len().max(size / 64), 0xaa);
    bytes
}

/// All sections of a small file can be inflated, even at a high compression ratio.
#[test]
fn compressed_sections_are_inflated() {
    let sections = [".debug_info", ".debug_str", ".debug_abbrev"];
    let synthetic =
        sections.map(|name| Synthetic(name, 1, 0x800, 0, 0, 0, Held(compressed(1 << 20))));
    let image = open("compressed", &elf64(&synthetic)).unwrap();
    for name in sections {
        assert_eq!(image.data(name).unwrap(), vec![0; 1 << 20], "{name}");
    }
}

/// As gcc -gz=zlib-gnu writes them: the size is big-endian.
#[test]
fn zdebug_sections_are_inflated() {
    let text = compressed(1 << 20);
    let mut held = b"ZLIB".to_vec();
    held.extend((1_u64 << 20).to_be_bytes());
    held.extend(&text[24..]);
    let mut short = held.clone();
    short[11] = 1;
    let plain = b"not compressed".to_vec();
    let image = open(
        "zdebug",
        &elf64(&[
            Synthetic(".zdebug_info", 1, 0, 0, 0, 0, Held(held)),
            Synthetic(".zdebug_line", 1, 0, 0, 0, 0, Held(short)),
            Synthetic(".zdebug_str", 1, 0, 0, 0, 0, Held(plain.clone())),
        ]),
    )
    .unwrap();
    assert_eq!(image.data(".debug_info").unwrap(), vec![0; 1 << 20]);
    assert_eq!(image.data(".zdebug_info").unwrap().len(), 1 << 20);
    assert_eq!(image.section(".debug_info").unwrap().size(), 1 << 20);
    // Its size is one byte more than what it claims.
    assert!(image.data(".debug_line").is_err());
    assert_eq!(image.data(".debug_str").unwrap(), plain);
    assert!(image.data(".debug_abbrev").is_err());
}

#[test]
fn sections_on_the_same_compressed_bytes_are_inflated_once() {
    let held = compressed(1 << 20);
    let synthetic = [".one", ".two", ".three", ".four"]
        .map(|name| Synthetic(name, 1, 0x800, 0, 0, 0, Held(held.clone())));
    let mut bytes = elf64(&synthetic[..]);
    // All sections refer to the bytes of the first. The other copies are removed from the file.
    let gap = 3 * held.len();
    bytes.drain(64 + held.len()..64 + 4 * held.len());
    let shoff = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) - gap as u64;
    bytes[40..48].copy_from_slice(&shoff.to_le_bytes());
    for i in 1..6 {
        let at = shoff as usize + 64 * i + 24;
        let moved = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let moved = if i < 5 { 64 } else { moved - gap as u64 };
        bytes[at..at + 8].copy_from_slice(&moved.to_le_bytes());
    }
    let image = open("aliased", &bytes).unwrap();
    let readable = image.sections().filter(|section| section.data().is_some());
    // The budget does not cover a second copy. The section names remain readable.
    assert_eq!(
        readable.map(|s| s.name()).collect::<Vec<_>>(),
        [".one", ".shstrtab"]
    );
}

#[test]
fn the_total_inflated_size_is_limited() {
    let held = compressed(24 << 20);
    let synthetic = [".one", ".two", ".three"]
        .map(|name| Synthetic(name, 1, 0x800, 0, 0, 0, Held(held.clone())));
    let image = open("inflated", &elf64(&synthetic)).unwrap();
    let readable = synthetic.map(|Synthetic(name, ..)| image.data(name).is_ok());
    // 64 MiB, whatever the file's size.
    assert_eq!(readable, [true, true, false]);
}

#[test]
fn bytes_outlive_their_image() {
    let image = open("bytes", &kernel()).unwrap();
    let bytes = image.section(".rodata").unwrap().bytes().unwrap();
    drop(image);
    assert_eq!(&bytes[..2], b"01");
    assert_eq!(&Bytes::from(b"xy".to_vec())[..], b"xy");
}

#[test]
fn pieces_are_the_whole_section() {
    let content: Vec<u8> = (0..(300_u32 << 10) + 5)
        .map(|i| ((i * 7) >> 3) as u8)
        .collect();
    let sections = [
        Synthetic(".symtab", 2, 0, 0, 0, 24, Held(content.clone())),
        Synthetic(".bss", 8, 3, 0, 0, 0, Nothing(64)),
        Synthetic(".past", 1, 0, 0, 0, 0, Nothing(1 << 30)),
        Synthetic(".debug_str", 1, 0x800, 0, 0, 0, Held(compressed(500_000))),
    ];
    let image = open("pieces", &elf64(&sections)).unwrap();
    let pieces = |name: &str, unit: usize| {
        let mut all = Vec::new();
        let section = image.section(name).unwrap();
        section.pieces(unit, &mut |piece| all.push(piece.to_vec()))?;
        Some(all)
    };
    // The last round is of a copy that is held.
    for _ in 0..2 {
        for unit in [0, 1, 16, 24, 1 << 20] {
            let all = pieces(".symtab", unit).unwrap();
            assert_eq!(all.concat(), content, "{unit}");
            let (_, others) = all.split_last().unwrap();
            assert!(others.iter().all(|piece| piece.len() % unit.max(1) == 0));
        }
        assert_eq!(image.data(".symtab").unwrap(), content);
    }
    assert!(pieces(".bss", 1).is_none());
    assert!(pieces(".past", 1).is_none());
    let inflated = pieces(".debug_str", 1).unwrap().concat();
    assert_eq!(image.data(".debug_str").unwrap(), inflated);
}
