//! Symbols from ELF symbol tables: of an image in its file, of a module in memory.

use std::ops::Range;

use goblin::elf::section_header::{SHN_ABS, SHN_COMMON, SHN_UNDEF};
use goblin::elf::sym::{
    Sym, STB_GLOBAL, STB_GNU_UNIQUE, STB_LOCAL, STB_WEAK, STT_FILE, STT_FUNC, STT_GNU_IFUNC,
    STT_NOTYPE, STT_OBJECT, STT_SECTION, STT_TLS,
};
use goblin::elf32::sym as sym32;
use goblin::elf64::sym as sym64;

use super::map;
use super::table::{Binding, Entry, Kind, Table};
use crate::addr::{VirtAddr, Word};
use crate::alloc;
use crate::elf::Image;
use crate::{Error, Result};

/// Sections closer than this are merged into one span: the kernel aligns some sections to 2 MiB.
const GAP: u64 = 2 << 20;

/// The symbols of an image.
pub(super) fn of_image(image: &Image) -> Result<Table> {
    let absent = || {
        let path = image.file().path().display();
        Error::Absent(format!("{path}: no symbol table"))
    };
    let (symbols, strings) = image.symbol_table().ok_or_else(absent)?;
    let strings = strings.bytes().ok_or_else(absent)?;
    let word = image.word();
    let letters = image.section_letters();
    let letter = |symbol: &Sym| letters.get(symbol.st_shndx).copied();
    let mut all = Vec::new();
    let read = symbols.pieces(size(word), &mut |piece| {
        for entry in entries(piece, &strings, word, letter) {
            alloc::push(&mut all, entry);
        }
    });
    read.ok_or_else(absent)?;
    Ok(Table::of_entries(word, strings, image.spans(GAP), all))
}

/// The size of a symbol.
fn size(word: Word) -> usize {
    match word {
        Word::W32 => sym32::SIZEOF_SYM,
        Word::W64 => sym64::SIZEOF_SYM,
    }
}

/// The symbols of a module within `span`.
pub(super) fn of_module(
    span: Range<VirtAddr>,
    symtab: Vec<u8>,
    strtab: Vec<u8>,
    word: Word,
) -> Table {
    let Range { start, end } = span.clone();
    Table::new(word, strtab.into(), vec![span], move |strings| {
        let all = entries(&symtab, strings, word, in_memory);
        alloc::collect(all.filter(|entry| start <= entry.address && entry.address <= end))
    })
}

/// The letter of a module's section, by a symbol in it: the numbers of sections mean nothing in memory.
fn in_memory(symbol: &Sym) -> Option<u8> {
    match symbol.st_type() {
        STT_OBJECT => Some(b'd'),
        _ => Some(b't'),
    }
}

/// The entries of a symbol table; `section` has the letter of a symbol's section.
fn entries<'a, F>(
    symtab: &'a [u8],
    strings: &[u8],
    word: Word,
    section: F,
) -> impl Iterator<Item = Entry> + use<'a, F>
where
    F: Fn(&Sym) -> Option<u8>,
{
    let names = strings.len();
    // Symbols that follow each other are nearly always alike.
    let mut last = ((0, 0), None);
    let mut class = move |symbol: &Sym| {
        let like = (symbol.st_info, symbol.st_shndx);
        if last.0 != like {
            last = (like, class(symbol, &section));
        }
        last.1
    };
    symtab
        .chunks_exact(size(word))
        .filter_map(move |chunk| entry(&symbol(chunk, word)?, &mut class))
        .filter(move |entry| (entry.name as usize) < names)
}

/// The fields of one symbol. The reader of goblin, for either byte order, takes three times as long.
fn symbol(bytes: &[u8], word: Word) -> Option<Sym> {
    let [n0, n1, n2, n3, rest @ ..] = bytes else {
        return None;
    };
    let st_name = u32::from_le_bytes([*n0, *n1, *n2, *n3]) as usize;
    Some(match word {
        Word::W32 => {
            let (value, rest) = rest.split_first_chunk()?;
            let (size, rest) = rest.split_first_chunk()?;
            let [st_info, st_other, s0, s1] = *rest.first_chunk()?;
            Sym {
                st_name,
                st_info,
                st_other,
                st_shndx: u16::from_le_bytes([s0, s1]).into(),
                st_value: u32::from_le_bytes(*value).into(),
                st_size: u32::from_le_bytes(*size).into(),
            }
        }
        Word::W64 => {
            let ([st_info, st_other, s0, s1], rest) = rest.split_first_chunk()?;
            let (value, rest) = rest.split_first_chunk()?;
            Sym {
                st_name,
                st_info: *st_info,
                st_other: *st_other,
                st_shndx: u16::from_le_bytes([*s0, *s1]).into(),
                st_value: u64::from_le_bytes(*value),
                st_size: u64::from_le_bytes(*rest.first_chunk()?),
            }
        }
    })
}

fn entry(symbol: &Sym, class: impl FnOnce(&Sym) -> Option<(Kind, Binding, u8)>) -> Option<Entry> {
    let name = u32::try_from(symbol.st_name)
        .ok()
        .filter(|&name| name > 0)?;
    let (kind, binding, letter) = class(symbol)?;
    Some(Entry {
        address: VirtAddr(symbol.st_value),
        size: symbol.st_size,
        name,
        kind,
        binding,
        letter,
        located: false,
    })
}

/// What a symbol names, its binding and the letter that nm shows for it; `None` if it is none to be found.
/// They depend on `st_info` and `st_shndx` only.
fn class(symbol: &Sym, section: impl Fn(&Sym) -> Option<u8>) -> Option<(Kind, Binding, u8)> {
    if u32::try_from(symbol.st_shndx).ok()? == SHN_UNDEF {
        return None;
    }
    if symbol.st_info.is_ascii_alphabetic() {
        // Linux before 5.2 (1c7651f43777) overwrites `st_info` of a loaded module's symbols with
        // the letter shown in /proc/kallsyms. No valid `st_info` has such a value.
        let (kind, binding) = map::letter(symbol.st_info);
        return Some((kind, binding, symbol.st_info));
    }
    let kind = match symbol.st_type() {
        STT_FUNC | STT_GNU_IFUNC => Kind::Func,
        STT_OBJECT => Kind::Object,
        STT_NOTYPE => Kind::NoType,
        STT_SECTION | STT_FILE | STT_TLS => return None,
        _ => Kind::NoType,
    };
    let binding = match symbol.st_bind() {
        STB_LOCAL => Binding::Local,
        STB_GLOBAL | STB_GNU_UNIQUE => Binding::Global,
        STB_WEAK => Binding::Weak,
        _ => Binding::Local,
    };
    Some((kind, binding, letter(symbol, section)))
}

/// The letter that nm shows for a symbol.
fn letter(symbol: &Sym, section: impl Fn(&Sym) -> Option<u8>) -> u8 {
    let in_section = || match u32::try_from(symbol.st_shndx) {
        Ok(SHN_ABS) => b'a',
        Ok(SHN_COMMON) => b'C',
        _ => section(symbol).unwrap_or(b'?'),
    };
    match (symbol.st_bind(), symbol.st_type()) {
        (_, STT_GNU_IFUNC) => b'i',
        (STB_WEAK, STT_OBJECT) => b'V',
        (STB_WEAK, _) => b'W',
        (STB_GNU_UNIQUE, _) => b'u',
        (STB_GLOBAL, _) => in_section().to_ascii_uppercase(),
        _ => in_section(),
    }
}
