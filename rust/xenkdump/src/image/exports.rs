//! Symbols of variables, where kallsyms has functions only (without `CONFIG_KALLSYMS_ALL`).
//!
//! The kernel's table of exported symbols, `__ksymtab`, has the addresses and names of the variables
//! that modules use, `init_task` among them. It is found by its entry for that name. An entry has the
//! value, the name, and since 5.4 (8651ec01daed) a namespace: as words, or since 4.19 (7290d5809571)
//! as distances of 4 bytes from their own places.

use std::ops::Range;

use memchr::memmem::Finder;

use super::region::{align, Region};
use crate::addr::{Address, MachineAddr, VirtAddr, Word};
use crate::alloc;
use crate::limits::{MAX_EXPORTED_SYMBOLS, MAX_KERNEL_IMAGE_SEARCH, MAX_MEMORY_SECTION_SIZE};
use crate::memory::Memory;
use crate::paging::Virtual;
use crate::space::{Space, Tables};

/// A variable that all versions export; its name is in `__ksymtab_strings`.
const KNOWN: &[u8] = b"\0init_task\0";
const BANNER: &[u8] = b"Linux version ";
/// The magic number, version 1, no flags, and the length of the header.
const BTF_HEADER: &[u8] = b"\x9f\xeb\x01\x00\x18\0\0\0";
/// Longest name of an exported symbol: `MODULE_NAME_LEN` and `KSYM_NAME_LEN` allow no longer one.
const MAX_NAME: usize = 512;
/// Entries on either side of the known one that must be valid.
const NEIGHBOURS: u64 = 4;

/// Entries in succession that may be invalid within the table.
const MAX_INVALID: usize = 1;
/// Occurrences of a text that are examined.
const MAX_TEXTS: usize = 4;

/// Distance from the names of exported symbols, in `.rodata`, to the table, the banner and the BTF.
const REACH: u64 = 24 << 20;

/// The name and the address of a symbol.
type Export = (Vec<u8>, u64);

/// How an entry refers to its value and its name.
#[derive(Clone, Copy)]
struct Form {
    /// Size of a reference.
    size: u64,
    /// It is the distance from its own place.
    relative: bool,
    /// References in an entry: with or without a namespace.
    count: u64,
}

/// Names and addresses of the banner and of exported variables, which are between the kernel's code
/// and its init code.
pub(super) fn find(memory: &dyn Memory<VirtAddr>, word: Word, between: (u64, u64)) -> Vec<Export> {
    let (start, end) = between;
    let len = end.saturating_sub(start).min(MAX_MEMORY_SECTION_SIZE);
    let region = Region::read(memory, start..start.saturating_add(len));
    let mut found = Vec::new();
    let mut ends = Vec::new();
    if let Some(types) = btf(&region) {
        ends.push(types.start);
        found.push((alloc::copied(b"__start_BTF"), types.start));
        found.push((alloc::copied(b"__stop_BTF"), types.end));
    }
    let texts = Finder::new(KNOWN);
    for offset in texts.find_iter(&region.bytes).take(MAX_TEXTS) {
        let name = region.start + offset as u64 + 1;
        if let Some((at, entries)) = table(&region, word, name) {
            ends.push(at);
            for entry in entries {
                alloc::push(&mut found, entry);
            }
            break;
        }
    }
    // The banner is before both. The log, which is behind them, has a copy of it.
    let end = ends.into_iter().min();
    let banner = banner(&region).filter(|at| end.is_some_and(|end| *at < end));
    if let Some(at) = banner {
        alloc::push(&mut found, (alloc::copied(b"linux_banner"), at));
    }
    found
}

/// The same for a kernel that is mapped in one of `ranges`, without other symbols; `None` if no table
/// with a banner is found.
pub(super) fn search<M: Memory<MachineAddr> + Send + Clone>(
    space: &Virtual<Tables<M>>,
    word: Word,
    ranges: &[(VirtAddr, VirtAddr)],
) -> Option<Vec<Export>> {
    let mut remaining = MAX_KERNEL_IMAGE_SEARCH;
    for &(first, last) in ranges {
        let searched = Space::Virtual(space.clone());
        let found = searched.find(KNOWN, first.raw(), last.raw(), MAX_TEXTS, remaining);
        let Some(Ok(found)) = found else { break };
        remaining = remaining.saturating_sub(found.bytes);
        for at in found.places {
            let start = at.saturating_sub(REACH).max(first.raw());
            let symbols = find(space, word, (start, at.saturating_add(REACH)));
            let has = |name: &[u8]| symbols.iter().any(|(known, _)| known == name);
            if has(b"linux_banner") && has(b"init_task") {
                return Some(symbols);
            }
        }
    }
    None
}

/// The first text that may be the kernel's banner.
fn banner(region: &Region) -> Option<u64> {
    let texts = Finder::new(BANNER);
    let mut offsets = texts.find_iter(&region.bytes).take(MAX_TEXTS);
    let at = offsets.find(|at| {
        let rest = region.bytes.get(at + BANNER.len()..).unwrap_or_default();
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        // "#1 SMP": the copies of the first stage of the link have "# SMP".
        let version = line.iter().rposition(|byte| *byte == b'#');
        let build = version.and_then(|at| line.get(at + 1));
        line.first().is_some_and(u8::is_ascii_digit) && build.is_some_and(u8::is_ascii_digit)
    })?;
    Some(region.start + at as u64)
}

/// The addresses of the type information, by its header (include/uapi/linux/btf.h): `btf_vmlinux` is
/// the first, in `.BTF`.
fn btf(region: &Region) -> Option<Range<u64>> {
    let headers = Finder::new(BTF_HEADER);
    let starts = headers.find_iter(&region.bytes).take(MAX_TEXTS);
    starts
        .filter_map(|offset| {
            let start = region.start + offset as u64;
            let field = |i: u64| region.number(start + 4 * i, 4);
            // hdr_len, type_off, type_len, str_off, str_len.
            let (header, types, strings) =
                (field(1)?, (field(2)?, field(3)?), (field(4)?, field(5)?));
            let first = start + header + strings.0;
            let end = first + strings.1;
            let sound = types.0 == 0
                && types.1 > 0
                && types.1 <= strings.0
                && region.number(first, 1).is_none_or(|byte| byte == 0)
                && region.number(end - 1, 1).is_none_or(|byte| byte == 0)
                && region.offset(end).is_some();
            sound.then_some(start..end)
        })
        .next()
}

/// The place of an entry with the name at this address, and all entries of its table.
fn table(region: &Region, word: Word, name: u64) -> Option<(u64, Vec<Export>)> {
    let bytes = word.bytes() as u64;
    for (size, relative) in [(4, true), (bytes, false)] {
        let mut at = align(region.start, size);
        while at < region.start + region.bytes.len() as u64 {
            if reference(region, word, at, size, relative) == Some(name) {
                for count in [2, 3] {
                    let form = Form {
                        size,
                        relative,
                        count,
                    };
                    let first = at.checked_sub(size)?;
                    if is_table(region, word, form, first) {
                        return Some((first, entries(region, word, form, first)));
                    }
                }
            }
            at += size;
        }
    }
    None
}

fn is_table(region: &Region, word: Word, form: Form, at: u64) -> bool {
    let step = form.size * form.count;
    (1..=NEIGHBOURS).all(|i| {
        entry(region, word, form, at.wrapping_add(i * step)).is_some()
            || entry(region, word, form, at.wrapping_sub(i * step)).is_some()
    }) && entry(region, word, form, at.wrapping_sub(step)).is_some()
}

/// The entries around the one at an address. Entries that the dump lacks, or a single invalid entry, do not
/// end the table: the bytes before the first string can be arbitrary.
fn entries(region: &Region, word: Word, form: Form, known: u64) -> Vec<Export> {
    let step = form.size * form.count;
    let mut found = Vec::new();
    for forward in [true, false] {
        let mut at = known;
        let mut invalid = 0;
        if !forward {
            at = at.wrapping_sub(step);
        }
        while invalid <= MAX_INVALID && region.offset(at).is_some() {
            match entry(region, word, form, at) {
                Some(entry) => {
                    invalid = 0;
                    alloc::push(&mut found, entry);
                }
                None if reference(region, word, at, form.size, form.relative).is_some() => {
                    invalid += 1;
                }
                None => {}
            }
            if found.len() >= MAX_EXPORTED_SYMBOLS {
                return found;
            }
            at = match forward {
                true => at.wrapping_add(step),
                false => at.wrapping_sub(step),
            };
        }
    }
    found
}

/// The name and the value of an entry; `None` if none is there.
fn entry(region: &Region, word: Word, form: Form, at: u64) -> Option<Export> {
    let Form { size, relative, .. } = form;
    let value = reference(region, word, at, size, relative)?;
    let name = reference(region, word, at.checked_add(size)?, size, relative)?;
    let start = region.offset(name)?;
    let before = region.bytes.get(start.checked_sub(1)?)?;
    let rest = region.bytes.get(start..)?;
    let rest = rest.get(..MAX_NAME).unwrap_or(rest);
    let len = rest.iter().position(|byte| *byte == 0)?;
    let text = rest.get(..len)?;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    // Strings are merged, so that one may be the end of another.
    let follows = *before == 0 || is_name(before);
    (follows && len > 0 && text.iter().all(is_name)).then(|| (alloc::copied(text), value))
}

fn reference(region: &Region, word: Word, at: u64, size: u64, relative: bool) -> Option<u64> {
    let value = region.number(at, size as usize)?;
    if !relative {
        return Some(value);
    }
    let distance = i64::from(value as u32 as i32);
    Some(at.wrapping_add_signed(distance) & word.max())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0xc180_0000;

    /// A header, then so many bytes of types and of strings.
    fn blob(types: u32, strings: u32) -> Vec<u8> {
        let mut bytes = BTF_HEADER.to_vec();
        for word in [0, types, types, strings] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(vec![1; types as usize]);
        bytes.extend(vec![b'x'; strings as usize]);
        let first = bytes.len() - strings as usize;
        bytes[first] = 0;
        *bytes.last_mut().unwrap() = 0;
        bytes
    }

    fn region(bytes: Vec<u8>, holes: Vec<Range<usize>>) -> Region {
        let (start, bytes) = (START, bytes.into());
        Region {
            start,
            bytes,
            holes,
        }
    }

    #[test]
    fn btf_is_found_by_its_header() {
        let valid = blob(0x30, 0x20);
        let len = valid.len();
        // The magic number alone, a header with another order, and one whose strings have no end.
        let mut unordered = valid.clone();
        unordered[8] = 1;
        let mut endless = valid.clone();
        *endless.last_mut().unwrap() = b'x';
        let decoys = [&BTF_HEADER[..4], &unordered, &endless].concat();
        let mut bytes = decoys.clone();
        bytes.extend(&valid);
        // A later BTF, such as a module's, and one that is cut off are not used.
        bytes.extend(blob(0x10, 0x10));
        let at = START + decoys.len() as u64;
        let found = btf(&region(bytes, Vec::new()));
        assert_eq!(found, Some(at..at + len as u64));
        let cut = valid[..len - 0x21].to_vec();
        assert_eq!(btf(&region([decoys, cut].concat(), Vec::new())), None);
        assert_eq!(btf(&region(vec![0; 0x1000], Vec::new())), None);
    }

    #[test]
    fn btf_is_found_if_a_page_of_it_is_missing() {
        let valid = blob(0x3000, 0x2000);
        let len = valid.len();
        let mut bytes = valid;
        bytes[0x1000..0x2000].fill(0xff);
        bytes.extend([0; 8]);
        let hole = 0x1000..0x2000;
        let found = btf(&region(bytes, Vec::from([hole])));
        assert_eq!(found, Some(START..START + len as u64));
    }

    #[test]
    fn sizes_of_a_hostile_header_do_not_overflow() {
        for field in 1..6 {
            let mut bytes = blob(0x30, 0x20);
            bytes[4 * field..4 * field + 4].fill(0xff);
            bytes.extend([0; 64]);
            // The size of a header is part of what is searched for.
            assert_eq!(btf(&region(bytes, Vec::new())), None);
        }
    }
}
