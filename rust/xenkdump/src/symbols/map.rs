//! Symbols from a `System.map` or `xen-syms.map`: lines of address, type letter and name.

use std::ops::Range;
use std::path::Path;

use super::table::{Binding, Entry, Kind, Table};
use crate::addr::VirtAddr;
use crate::alloc;
use crate::elf::Bytes;
use crate::image::map::{lines, MapFile};
use crate::limits::MAX_MAP_SYMBOLS;
use crate::Result;

/// Symbols at the start and at the end of an image, in order of preference.
const STARTS: [&[u8]; 3] = [b"_text", b"_stext", b"_start"];
const ENDS: [&[u8]; 2] = [b"_end", b"__brk_limit"];

/// Opens a map file.
pub(super) fn open(path: &Path) -> Result<Table> {
    open_within(path, MAX_MAP_SYMBOLS)
}

/// Like [`open`], with at most `max_symbols` symbols.
pub(super) fn open_within(path: &Path, max_symbols: usize) -> Result<Table> {
    let MapFile { word, bytes } = MapFile::open_within(path, max_symbols)?;
    let span = span(&bytes);
    let strings = Bytes::from(bytes);
    Ok(Table::new(
        word,
        strings,
        span.into_iter().collect(),
        |strings| {
            alloc::collect(lines(strings).filter_map(|line| {
                let (kind, binding) = letter(line.letter);
                Some(Entry {
                    address: line.address,
                    size: 0,
                    name: u32::try_from(line.name.start).ok()?,
                    kind,
                    binding,
                    letter: line.letter,
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

/// The range from the image's first symbol to its end. Lower addresses are constants and, on x86_64,
/// offsets into the per-CPU areas.
fn span(bytes: &[u8]) -> Option<Range<VirtAddr>> {
    let mut starts = [None; STARTS.len()];
    let mut ends = [None; ENDS.len()];
    let (mut lowest, mut highest) = (None::<VirtAddr>, None::<VirtAddr>);
    for line in lines(bytes) {
        let name = bytes.get(line.name).unwrap_or_default();
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
