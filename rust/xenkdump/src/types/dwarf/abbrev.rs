//! Abbreviation tables, each parsed once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gimli::LittleEndian;

use crate::elf::Bytes;
use crate::limits::MAX_ATTRIBUTES;

/// The tables of `.debug_abbrev` that were asked for so far, by their offset.
///
/// Tables of real files lie side by side. Those of hostile ones may overlap, so that each of many
/// units names a large table of its own: no more is looked through in all than twice the section's
/// size, whatever becomes of it.
pub(super) struct Abbreviations {
    section: Bytes,
    met: Mutex<Met>,
}

struct Met {
    /// `None` for what is broken or was too much.
    tables: HashMap<usize, Option<Arc<Table>>>,
    budget: usize,
}

/// One table, parsed by whoever comes first.
struct Table {
    size: usize,
    parsed: OnceLock<Option<Arc<gimli::Abbreviations>>>,
}

impl Abbreviations {
    pub fn new(section: &Bytes) -> Self {
        Self {
            section: section.clone(),
            met: Mutex::new(Met {
                tables: HashMap::new(),
                budget: section.len().saturating_mul(2),
            }),
        }
    }

    /// The table at `offset`; `None` where it is broken.
    pub fn get(&self, offset: usize) -> Option<Arc<gimli::Abbreviations>> {
        let rest = self.section.get(offset..)?;
        let table = self.table(offset, rest)?;
        let parse = || {
            gimli::DebugAbbrev::new(rest.get(..table.size)?, LittleEndian)
                .abbreviations(gimli::DebugAbbrevOffset(0))
                .map(Arc::new)
                .ok()
        };
        table.parsed.get_or_init(parse).clone()
    }

    fn table(&self, offset: usize, rest: &[u8]) -> Option<Arc<Table>> {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = met.tables.get(&offset) {
            return table.clone();
        }
        let within = rest.get(..met.budget).unwrap_or(rest);
        let (size, sound) = measure(within);
        met.budget = met.budget.saturating_sub(size);
        let table = sound.then(|| {
            Arc::new(Table {
                size,
                parsed: OnceLock::new(),
            })
        });
        met.tables.insert(offset, table.clone());
        table
    }
}

/// How many bytes of the table at the start of `bytes` were looked through, and whether it is whole
/// and sound by then.
fn measure(bytes: &[u8]) -> (usize, bool) {
    let mut rest = bytes;
    let sound = pass(&mut rest).is_some();
    (bytes.len().saturating_sub(rest.len()), sound)
}

/// Takes a table off the front.
fn pass(rest: &mut &[u8]) -> Option<()> {
    // Code, tag, whether it has children; pairs of attribute and form; a pair of zeros.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An abbreviation of so many attributes of no bytes.
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
            self.met.lock().unwrap().budget
        }
    }

    /// Entries of one byte are then read in the time that bytes take.
    #[test]
    fn a_table_of_endless_abbreviations_is_refused() {
        for (attributes, sound) in [(MAX_ATTRIBUTES, true), (MAX_ATTRIBUTES + 1, false)] {
            let mut bytes = abbreviation(1, 2);
            bytes.extend(abbreviation(2, attributes));
            bytes.push(0);
            assert_eq!(tables(&bytes).get(0).is_some(), sound, "{attributes}");
        }
    }

    #[test]
    fn a_broken_table_is_looked_through_once() {
        // Whole abbreviations, but no end.
        let bytes = abbreviation(1, 2).repeat(100);
        let tables = tables(&bytes);
        assert!(tables.get(0).is_none());
        assert_eq!(tables.budget(), bytes.len());
        assert!(tables.get(0).is_none());
        assert_eq!(tables.budget(), bytes.len());
    }

    #[test]
    fn tables_that_overlap_are_looked_through_within_bounds() {
        let mut bytes = abbreviation(1, 2).repeat(100);
        bytes.push(0);
        let len = abbreviation(1, 2).len();
        assert!(tables(&bytes).get(99 * len).is_some());
        let tables = tables(&bytes);
        for i in 0..99 {
            let _ = tables.get(i * len);
        }
        assert_eq!(tables.budget(), 0);
        // Nothing is left for one that would have been sound.
        assert!(tables.get(99 * len).is_none());
    }

    #[test]
    fn tables_side_by_side_are_all_read() {
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
