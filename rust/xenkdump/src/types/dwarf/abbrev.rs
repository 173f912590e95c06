//! Abbreviation tables, each parsed once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gimli::LittleEndian;

use crate::elf::Bytes;

/// The tables of `.debug_abbrev` that were asked for so far, by their offset.
///
/// Tables of real files lie side by side. Those of hostile ones may overlap, so that each of many
/// units names a large table of its own: no more is parsed in all than twice the section's size.
pub(super) struct Abbreviations {
    section: Bytes,
    parsed: Mutex<Parsed>,
}

struct Parsed {
    tables: HashMap<usize, Option<Arc<gimli::Abbreviations>>>,
    budget: usize,
}

impl Abbreviations {
    pub fn new(section: &Bytes) -> Self {
        Self {
            section: section.clone(),
            parsed: Mutex::new(Parsed {
                tables: HashMap::new(),
                budget: section.len().saturating_mul(2),
            }),
        }
    }

    /// The table at `offset`; `None` where it is broken.
    pub fn get(&self, offset: usize) -> Option<Arc<gimli::Abbreviations>> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = parsed.tables.get(&offset) {
            return table.clone();
        }
        let rest = self.section.get(offset..)?;
        let size = size(rest)?;
        parsed.budget = parsed.budget.checked_sub(size)?;
        let table = gimli::DebugAbbrev::new(rest.get(..size)?, LittleEndian)
            .abbreviations(gimli::DebugAbbrevOffset(0))
            .map(Arc::new)
            .ok();
        parsed.tables.insert(offset, table.clone());
        table
    }
}

/// How long the table at the start of `bytes` is.
fn size(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    loop {
        // Code, tag, whether it has children; pairs of attribute and form; a pair of zeros.
        if leb128(&mut rest)? == 0 {
            return Some(bytes.len() - rest.len());
        }
        leb128(&mut rest)?;
        rest = rest.get(1..)?;
        loop {
            let (name, form) = (leb128(&mut rest)?, leb128(&mut rest)?);
            if form == u64::from(gimli::constants::DW_FORM_implicit_const.0) {
                leb128(&mut rest)?;
            }
            if (name, form) == (0, 0) {
                break;
            }
        }
    }
}

/// Takes a LEB128 off the front; bits past the 64th are lost.
fn leb128(rest: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0_u64, 0_u32);
    loop {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift = shift.saturating_add(7);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
}
