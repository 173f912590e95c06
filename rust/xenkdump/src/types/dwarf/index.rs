//! An index of DWARF entries by name.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use gimli::constants as dw;
use gimli::{AttributeValue, UnitOffset};

use super::super::shape::Tag;
use super::abbrev::Abbreviations;
use super::sections::{Sections, Unread};
use super::unit::Unit;
use crate::alloc;
use crate::limits::MAX_INDEXED_TYPES;
use crate::names;
use crate::parallel;

/// What a name refers to.
#[derive(Clone, Copy)]
pub(super) enum Key {
    Type(Tag),
    Enumerator,
}

/// The offsets in `.debug_info` of all units and of the first definition of each name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Ascending.
    pub units: Vec<u32>,
    /// (hash of the name, offset of the type's entry), ascending by hash. For an enumerator, the
    /// offset of its enum. Names are not stored: a lookup must check that the entry has the name.
    pub names: Vec<(u64, u32)>,
}

/// The versions of DWARF that gimli reads.
const VERSIONS: std::ops::RangeInclusive<u16> = 2..=5;

/// Maximum number of scanning threads. With more, the scan is bound by memory.
const MAX_THREADS: usize = 8;

/// Number of names that a thread collects before it merges them. Most are duplicates, since every
/// unit of a kernel includes the same headers.
const BATCH: usize = 1 << 18;

/// The names found by all threads.
struct Found {
    /// Each hash once, ascending.
    names: Mutex<Vec<(u64, u32)>>,
    limit: usize,
    full: AtomicBool,
}

impl Found {
    fn new(limit: usize) -> Self {
        Self {
            names: Mutex::default(),
            limit,
            full: AtomicBool::new(false),
        }
    }

    /// Whether names were dropped because the limit was reached.
    fn full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Merges a thread's names and clears `batch`.
    fn merge(&self, batch: &mut Vec<(u64, u32)>) {
        sort(batch);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = self.limit.saturating_sub(names.len());
        let mut merged: Vec<(u64, u32)> = alloc::with_capacity(names.len() + batch.len());
        let (mut known, mut new) = (names.iter().peekable(), batch.drain(..).peekable());
        loop {
            match (known.peek(), new.peek()) {
                (None, None) => break,
                (Some((hash, offset)), Some((other, other_offset))) if hash == other => {
                    merged.push((*hash, *offset.min(other_offset)));
                    known.next();
                    new.next();
                }
                (Some((hash, _)), Some((other, _))) if other < hash => {
                    self.add(&mut merged, &mut room, new.next())
                }
                (None, Some(_)) => self.add(&mut merged, &mut room, new.next()),
                (Some(_), _) => merged.extend(known.next()),
            }
        }
        drop(new);
        *names = merged;
    }

    /// Appends a new name, if the limit has `room` for it.
    fn add(&self, merged: &mut Vec<(u64, u32)>, room: &mut usize, name: Option<(u64, u32)>) {
        match room.checked_sub(1) {
            Some(rest) => {
                *room = rest;
                merged.extend(name);
            }
            None => self.full.store(true, Ordering::Relaxed),
        }
    }
}

/// Sorts by hash and keeps the lowest offset of each hash.
fn sort(names: &mut Vec<(u64, u32)>) {
    names.sort_unstable();
    names.dedup_by_key(|(hash, _)| *hash);
}

impl Index {
    /// Scans the top-level entries of all units and the enumerators of their enums. Invalid entries,
    /// and names beyond the limit, are left out.
    pub fn scan(sections: &Sections) -> Self {
        Self::scan_within(sections, MAX_INDEXED_TYPES)
    }

    fn scan_within(sections: &Sections, limit: usize) -> Self {
        let mut units = Vec::new();
        for (start, version) in sections.units() {
            let offset = gimli::DebugInfoOffset(start as usize);
            if sections.debug_info().header_from_offset(offset).is_ok() {
                alloc::push(&mut units, start);
            } else if VERSIONS.contains(&version) {
                Unread::count(&sections.unread.units);
            } else {
                sections.unread.version.store(version, Ordering::Relaxed);
                Unread::count(&sections.unread.units_of_version);
            }
        }
        let threads = parallel::available().min(MAX_THREADS);
        let threads = threads.min(units.len() / 16).max(1);
        let share = sections.info.len() / threads + 1;
        let tables = Abbreviations::new(&sections.abbrev);
        let found = Found::new(limit);
        let parts = units.chunk_by(|a, b| *a as usize / share == *b as usize / share);
        let parts = alloc::collect(parts);
        let scan = |(): &mut (), range: Range<usize>| {
            for part in parts.get(range).unwrap_or_default() {
                scan_units(sections, &tables, part, &found);
            }
            true
        };
        parallel::ranges(parts.len(), 1, threads, || (), scan);
        if found.full() {
            Unread::count(&sections.unread.names);
        }
        let names = found.names.into_inner();
        let mut names = names.unwrap_or_else(PoisonError::into_inner);
        names.shrink_to_fit();
        Self { units, names }
    }

    /// The start of the unit that contains `offset`.
    pub fn unit_of(&self, offset: u32) -> Option<u32> {
        let above = self.units.partition_point(|&start| start <= offset);
        self.units.get(above.checked_sub(1)?).copied()
    }

    /// The offset of the entry that may have this name (hashes may collide).
    pub fn find(&self, key: Key, name: &str) -> Option<u32> {
        let hash = hash(key, name);
        let at = self.names.binary_search_by_key(&hash, |(hash, _)| *hash);
        self.names.get(at.ok()?).map(|(_, offset)| *offset)
    }
}

/// The tag of the type that an entry defines.
pub(super) fn tag(tag: dw::DwTag) -> Option<Tag> {
    match tag {
        dw::DW_TAG_structure_type | dw::DW_TAG_class_type => Some(Tag::Struct),
        dw::DW_TAG_union_type => Some(Tag::Union),
        dw::DW_TAG_enumeration_type => Some(Tag::Enum),
        dw::DW_TAG_typedef => Some(Tag::Typedef),
        _ => None,
    }
}

fn hash(key: Key, name: &str) -> u64 {
    let seed: u64 = match key {
        Key::Type(Tag::Struct) => 0,
        Key::Type(Tag::Union) => 1,
        Key::Type(Tag::Enum) => 2,
        Key::Type(Tag::Typedef) => 3,
        Key::Enumerator => 4,
    };
    names::hash(name.as_bytes()) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn scan_units(sections: &Sections, tables: &Abbreviations, units: &[u32], found: &Found) {
    let mut batch = Vec::new();
    for &start in units {
        // Names before an invalid entry of the unit are kept.
        let unit = Unit::new(sections, tables, start);
        let scanned = unit.and_then(|unit| scan_unit(&unit, &mut batch, found));
        if scanned.is_none() && !found.full() {
            Unread::count(&sections.unread.units);
        }
    }
    found.merge(&mut batch);
}

/// Scans the children of the root. Their children are skipped, by `DW_AT_sibling` if present, except
/// for enumerators.
fn scan_unit(unit: &Unit<'_>, batch: &mut Vec<(u64, u32)>, all: &Found) -> Option<()> {
    let mut raw = unit.raw(None)?;
    let root = raw.read_abbreviation().ok()??;
    raw.skip_attributes(root.attributes()).ok()?;
    // The depth of the root's children. It changes at each jump to a sibling: the new reader counts
    // from there.
    let mut level = raw.next_depth();
    if !root.has_children() {
        return Some(());
    }
    // The enum whose children are being scanned.
    let mut owner = None;
    while !raw.is_empty() && raw.next_depth() >= level {
        let depth = raw.next_depth();
        let at = raw.next_offset();
        let Some(abbreviation) = raw.read_abbreviation().ok()? else {
            if raw.next_depth() <= level {
                owner = None;
            }
            continue;
        };
        let top = depth == level;
        let found = tag(abbreviation.tag()).filter(|_| top);
        let enumerator = abbreviation.tag() == dw::DW_TAG_enumerator && owner.is_some();
        if found.is_none() && !enumerator && !(top && abbreviation.has_children()) {
            raw.skip_attributes(abbreviation.attributes()).ok()?;
            continue;
        }

        let (mut name, mut declaration, mut sibling) = ("", false, None);
        for spec in abbreviation.attributes() {
            match spec.name() {
                dw::DW_AT_name if found.is_some() || enumerator => {
                    name = unit
                        .name(&raw.read_attribute(*spec).ok()?.raw_value())
                        .text();
                }
                dw::DW_AT_declaration => {
                    let value = raw.read_attribute(*spec).ok()?.raw_value();
                    declaration = matches!(value, AttributeValue::Flag(true));
                }
                dw::DW_AT_sibling => {
                    if let AttributeValue::UnitRef(offset) =
                        raw.read_attribute(*spec).ok()?.raw_value()
                    {
                        sibling = Some(offset);
                    }
                }
                _ => raw.skip_attributes(std::slice::from_ref(spec)).ok()?,
            }
        }
        let offset = |at: UnitOffset| unit.start().checked_add(u32::try_from(at.0).ok()?);
        let key = match found {
            _ if declaration || name.is_empty() => None,
            Some(tag) => Some((Key::Type(tag), offset(at)?)),
            None => owner.map(|owner| (Key::Enumerator, owner)),
        };
        if let Some((key, offset)) = key {
            alloc::push(batch, (hash(key, name), offset));
            if batch.len() >= BATCH {
                all.merge(batch);
            }
            if all.full() {
                return None;
            }
        }
        if top && abbreviation.has_children() {
            if found == Some(Tag::Enum) {
                owner = Some(offset(at)?);
            } else if let Some(to) = sibling.filter(|to| to.0 > raw.next_offset().0) {
                raw = unit.raw(Some(to))?;
                level = raw.next_depth();
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{modern, Synthetic, HEADER5};
    use super::*;

    #[test]
    fn names_are_limited() {
        let sections = modern().sections();
        let all = Index::scan(&sections);
        for limit in 0..all.names.len() {
            let index = Index::scan_within(&sections, limit);
            assert_eq!((index.units.len(), index.names.len()), (2, limit));
        }
        let index = Index::scan_within(&sections, all.names.len());
        assert_eq!(index, all);
    }

    /// Duplicates do not count towards the limit. The first definition is kept.
    #[test]
    fn duplicate_names_are_merged() {
        let mut synthetic = Synthetic::default();
        synthetic.abbreviation(1, dw::DW_TAG_compile_unit, true, &[]);
        let name = [(dw::DW_AT_name, dw::DW_FORM_string)];
        synthetic.abbreviation(2, dw::DW_TAG_typedef, false, &name);
        synthetic.abbrev.push(0);
        let mut entries = vec![1];
        for name in b'a'..=b'p' {
            entries.extend([2, name, 0]);
        }
        entries.push(0);
        for _ in 0..2 * BATCH / 16 + 1 {
            synthetic.unit5(dw::DW_UT_compile, &entries);
        }
        let index = Index::scan_within(&synthetic.sections(), BATCH / 2);
        assert_eq!(index.names.len(), 16);
        let at = index.find(Key::Type(Tag::Typedef), "c");
        assert_eq!(at, Some(HEADER5 + 1 + 2 * 3));
    }
}
