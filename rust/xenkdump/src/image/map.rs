//! Symbols in a file: `System.map`, or `xen-syms.map`. Lines of address, type letter and name.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::kallsyms::{keys_of, Kallsyms, Symbol};
use crate::addr::{VirtAddr, Word};
use crate::alloc;
use crate::file::RegularFile;
use crate::limits::MAX_MAP_SYMBOLS;
use crate::Result;

/// The minimum size of a line: `0 T a` and a newline.
const MIN_LINE: usize = 6;

/// A map file.
#[derive(Debug)]
pub(crate) struct MapFile {
    pub word: Word,
    pub bytes: Vec<u8>,
}

/// A valid line.
pub(crate) struct Line {
    pub address: VirtAddr,
    pub letter: u8,
    /// The range of the name within the file.
    pub name: Range<usize>,
    digits: usize,
}

impl MapFile {
    /// Opens a map file with at most `max_symbols` symbols.
    pub fn open_within(path: &Path, max_symbols: usize) -> Result<Self> {
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
        let Some(first_line) = parse(first, 0) else {
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
        Ok(Self { word, bytes })
    }

    /// Its symbols as those of a kernel. Fails if it has none but absolute ones.
    pub fn kallsyms(path: &Path) -> Result<Kallsyms> {
        let map = Self::open_within(path, MAX_MAP_SYMBOLS)?;
        let symbols = lines(&map.bytes).filter_map(|line| {
            Some(Symbol {
                address: line.address.0,
                name: u32::try_from(line.name.start).ok()?,
                letter: line.letter,
            })
        });
        let symbols = alloc::collect(symbols);
        let mut strings = map.bytes;
        for byte in &mut strings {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = 0;
            }
        }
        Ok(Kallsyms {
            word: map.word,
            keys: Arc::new(keys_of(&strings, &symbols)),
            strings: strings.into(),
            symbols,
            lost: 0,
            misplaced: 0,
            gaps: Vec::new(),
            only_exports: false,
        })
    }
}

/// The valid lines. Others are skipped.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = Line> + use<'_> {
    let mut at = 0_usize;
    bytes.split(|&byte| byte == b'\n').filter_map(move |line| {
        let start = at;
        at = at.saturating_add(line.len()).saturating_add(1);
        parse(line, start)
    })
}

fn parse(line: &[u8], start: usize) -> Option<Line> {
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
        name: start.checked_add(digits + 3)?..start.checked_add(line.len())?,
    })
}
