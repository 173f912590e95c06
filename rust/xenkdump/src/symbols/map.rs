//! Symbols from a `System.map` or `xen-syms.map`: lines of address, type letter and name.

use std::ops::Range;
use std::path::Path;

use super::table::{Binding, Entry, Kind, Table};
use crate::addr::{VirtAddr, Word};
use crate::alloc;
use crate::elf::Bytes;
use crate::file::RegularFile;
use crate::limits::MAX_MAP_SYMBOLS;
use crate::Result;

/// Symbols at the start and at the end of an image, in order of preference.
const STARTS: [&[u8]; 3] = [b"_text", b"_stext", b"_start"];
const ENDS: [&[u8]; 2] = [b"_end", b"__brk_limit"];

/// The minimum size of a line: `0 T a` and a newline.
const MIN_LINE: usize = 6;

/// Opens a map file.
pub(super) fn open(path: &Path) -> Result<Table> {
    open_within(path, MAX_MAP_SYMBOLS)
}

/// Like [`open`], with at most `max_symbols` symbols.
pub(super) fn open_within(path: &Path, max_symbols: usize) -> Result<Table> {
    let file = RegularFile::open(path)?;
    let format_error = |offset: usize, found: String| {
        file.format_error(offset as u64, "an address, a type letter and a name", found)
    };
    if u32::try_from(file.len()).is_err() {
        return Err(format_error(0, format!("{} bytes", file.len())));
    }
    let bytes = file
        .copy(0, file.len())
        .map_err(|error| file.read_error(0, error))?;
    let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or(&bytes);
    let Some(first_line) = parse(first) else {
        let shown = first.get(..first.len().min(60)).unwrap_or_default();
        return Err(format_error(0, String::from_utf8_lossy(shown).into_owned()));
    };
    // nm pads addresses to the word size of the target.
    let word = if first_line.digits > 8 {
        Word::W64
    } else {
        Word::W32
    };
    if bytes.len() >= max_symbols.saturating_mul(MIN_LINE)
        && lines(&bytes).nth(max_symbols).is_some()
    {
        return Err(format_error(0, format!("more than {max_symbols} of them")));
    }
    let span = span(&bytes);
    let strings = Bytes::from(bytes);
    Ok(Table::new(
        word,
        strings,
        span.into_iter().collect(),
        |strings| {
            alloc::collect(lines(strings).filter_map(|(start, line)| {
                let (kind, binding) = letter(line.letter);
                Some(Entry {
                    address: line.address,
                    size: 0,
                    name: u32::try_from(start.checked_add(line.name.start)?).ok()?,
                    kind,
                    binding,
                    located: false,
                })
            }))
        },
    ))
}

/// The kind and binding for a type letter of nm: upper case is global, W and V are weak.
pub(super) fn letter(letter: u8) -> (Kind, Binding) {
    let kind = match letter.to_ascii_lowercase() {
        b't' | b'w' | b'i' => Kind::Func,
        b'd' | b'b' | b'r' | b'g' | b's' | b'v' => Kind::Object,
        _ => Kind::NoType,
    };
    let binding = match letter {
        b'W' | b'w' | b'V' | b'v' => Binding::Weak,
        b'A'..=b'Z' => Binding::Global,
        _ => Binding::Local,
    };
    (kind, binding)
}

struct Line {
    address: VirtAddr,
    digits: usize,
    letter: u8,
    /// The range of the name within the line.
    name: Range<usize>,
}

fn parse(line: &[u8]) -> Option<Line> {
    let digits = line.iter().position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(line.get(..digits)?).ok()?;
    let address = VirtAddr(u64::from_str_radix(text, 16).ok()?);
    let rest = line.get(digits..)?;
    let [b' ', letter, b' ', name @ ..] = rest else {
        return None;
    };
    if !letter.is_ascii_alphabetic() || name.is_empty() {
        return None;
    }
    Some(Line {
        address,
        digits,
        letter: *letter,
        name: digits + 3..line.len(),
    })
}

/// The valid lines, each with its offset. Other lines are skipped.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, Line)> + use<'_> {
    let mut at = 0_usize;
    bytes.split(|&byte| byte == b'\n').filter_map(move |line| {
        let start = at;
        at = at.saturating_add(line.len()).saturating_add(1);
        parse(line).map(|line| (start, line))
    })
}

/// The range from the image's first symbol to its end. Lower addresses are constants and, on x86_64,
/// offsets into the per-CPU areas.
fn span(bytes: &[u8]) -> Option<Range<VirtAddr>> {
    let mut starts = [None; STARTS.len()];
    let mut ends = [None; ENDS.len()];
    let (mut lowest, mut highest) = (None::<VirtAddr>, None::<VirtAddr>);
    for (start, line) in lines(bytes) {
        let name = start.checked_add(line.name.start)?..start.checked_add(line.name.end)?;
        let name = bytes.get(name).unwrap_or_default();
        for (names, slots) in [(&STARTS[..], &mut starts[..]), (&ENDS[..], &mut ends[..])] {
            let named = names.iter().zip(slots).find(|(wanted, _)| **wanted == name);
            if let Some((_, slot)) = named {
                *slot = Some(line.address);
            }
        }
        if !line.letter.eq_ignore_ascii_case(&b'a') && line.address.0 != 0 {
            lowest = Some(lowest.map_or(line.address, |at| at.min(line.address)));
            highest = Some(highest.map_or(line.address, |at| at.max(line.address)));
        }
    }
    let start = starts.into_iter().flatten().next().or(lowest)?;
    let past = highest.map(|last| VirtAddr(last.0.saturating_add(1)));
    let end = ends.into_iter().flatten().next().or(past)?;
    Some(start..end)
}
