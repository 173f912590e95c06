//! DWARF abbreviation tables. Each table is parsed once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gimli::LittleEndian;

use crate::alloc;
use crate::elf::Bytes;
use crate::limits::MAX_ATTRIBUTES;

/// Tables of `.debug_abbrev` by offset, loaded on demand.
///
/// In a valid file, tables do not overlap. In a hostile file, many units may refer to large
/// overlapping tables, so at most twice the size of the section is scanned in total.
pub(super) struct Abbreviations {
    section: Bytes,
    state: Mutex<State>,
}

struct State {
    /// `None` for an invalid table, and for one that exceeded the budget.
    tables: HashMap<usize, Option<Arc<Table>>>,
    /// Remaining bytes to scan.
    budget: usize,
}

/// Bytes that gimli allocates for each byte of a table, at most: an abbreviation of 5 bytes takes 112.
const PARSED: usize = 24;

/// One table, parsed on first use.
struct Table {
    size: usize,
    parsed: OnceLock<Option<Arc<gimli::Abbreviations>>>,
}

impl Abbreviations {
    pub fn new(section: &Bytes) -> Self {
        Self {
            section: section.clone(),
            state: Mutex::new(State {
                tables: HashMap::new(),
                budget: section.len().saturating_mul(2),
            }),
        }
    }

    /// The table at `offset`; `None` if it is invalid.
    pub fn get(&self, offset: usize) -> Option<Arc<gimli::Abbreviations>> {
        let rest = self.section.get(offset..)?;
        let table = self.table(offset, rest)?;
        let parse = || {
            // gimli's own allocations end the process if they fail.
            alloc::probe(table.size.saturating_mul(PARSED));
            gimli::DebugAbbrev::new(rest.get(..table.size)?, LittleEndian)
                .abbreviations(gimli::DebugAbbrevOffset(0))
                .map(Arc::new)
                .ok()
        };
        table.parsed.get_or_init(parse).clone()
    }

    fn table(&self, offset: usize, rest: &[u8]) -> Option<Arc<Table>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = state.tables.get(&offset) {
            return table.clone();
        }
        let bounded = rest.get(..state.budget).unwrap_or(rest);
        let (size, valid) = measure(bounded);
        state.budget = state.budget.saturating_sub(size);
        let table = valid.then(|| {
            Arc::new(Table {
                size,
                parsed: OnceLock::new(),
            })
        });
        alloc::insert_at(&mut state.tables, offset, table.clone());
        table
    }
}

/// Scans the table at the start of `bytes`. Returns the number of bytes scanned and whether the table
/// is complete and valid.
fn measure(bytes: &[u8]) -> (usize, bool) {
    let mut rest = bytes;
    let valid = skip_table(&mut rest).is_some();
    (bytes.len().saturating_sub(rest.len()), valid)
}

/// Removes a table from the front of `rest`.
fn skip_table(rest: &mut &[u8]) -> Option<()> {
    // Each abbreviation: code, tag, children flag, (attribute, form) pairs, a (0, 0) pair.
    while leb128(rest)? != 0 {
        leb128(rest)?;
        *rest = rest.get(1..)?;
        let mut attributes = 0;
        loop {
            let (name, form) = (leb128(rest)?, leb128(rest)?);
            if form == u64::from(gimli::constants::DW_FORM_implicit_const.0) {
                leb128(rest)?;
            }
            if (name, form) == (0, 0) {
                break;
            }
            attributes += 1;
            if attributes > MAX_ATTRIBUTES {
                return None;
            }
        }
    }
    Some(())
}

/// Removes a LEB128 number from the front of `rest`. Bits above the 64th are dropped.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An abbreviation with `attributes` attributes, all of a form without data.
    fn abbreviation(code: u8, attributes: usize) -> Vec<u8> {
        let mut bytes = vec![code, 0x34, 0];
        bytes.extend([0x3f, 0x19].repeat(attributes));
        bytes.extend([0, 0]);
        bytes
    }

    fn tables(bytes: &[u8]) -> Abbreviations {
        Abbreviations::new(&bytes.to_vec().into())
    }

    impl Abbreviations {
        fn budget(&self) -> usize {
            self.state.lock().unwrap().budget
        }
    }

    /// Without this limit, decoding an entry of one byte could take arbitrarily long.
    #[test]
    fn too_many_attributes_are_rejected() {
        for (attributes, valid) in [(MAX_ATTRIBUTES, true), (MAX_ATTRIBUTES + 1, false)] {
            let mut bytes = abbreviation(1, 2);
            bytes.extend(abbreviation(2, attributes));
            bytes.push(0);
            assert_eq!(tables(&bytes).get(0).is_some(), valid, "{attributes}");
        }
    }

    #[test]
    fn an_invalid_table_is_scanned_once() {
        // Complete abbreviations, but no terminator.
        let bytes = abbreviation(1, 2).repeat(100);
        let tables = tables(&bytes);
        assert!(tables.get(0).is_none());
        assert_eq!(tables.budget(), bytes.len());
        assert!(tables.get(0).is_none());
        assert_eq!(tables.budget(), bytes.len());
    }

    #[test]
    fn overlapping_tables_are_scanned_within_budget() {
        let mut bytes = abbreviation(1, 2).repeat(100);
        bytes.push(0);
        let len = abbreviation(1, 2).len();
        assert!(tables(&bytes).get(99 * len).is_some());
        let tables = tables(&bytes);
        for i in 0..99 {
            let _ = tables.get(i * len);
        }
        assert_eq!(tables.budget(), 0);
        // The budget is exhausted, so a valid table is rejected too.
        assert!(tables.get(99 * len).is_none());
    }

    #[test]
    fn adjacent_tables_are_all_read() {
        let mut one = abbreviation(1, 3);
        one.push(0);
        let tables = tables(&one.repeat(50));
        for _ in 0..2 {
            for i in 0..50 {
                assert!(tables.get(i * one.len()).is_some(), "{i}");
            }
        }
        assert_eq!(tables.budget(), 50 * one.len());
    }
}
