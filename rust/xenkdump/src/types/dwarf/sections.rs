//! The DWARF sections that describe types, and their strings.

use gimli::{EndianSlice, LittleEndian};

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use super::super::shape::Name;
use crate::elf::{Bytes, Image};

/// The reader for gimli.
pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The sections that describe types. Missing optional sections are empty.
pub(super) struct Sections {
    /// What could not be read of them.
    pub unread: Unread,
    pub info: Bytes,
    pub abbrev: Bytes,
    pub strings: Bytes,
    pub line_strings: Bytes,
    pub string_offsets: Bytes,
}

impl Sections {
    /// `None` if `.debug_info` or `.debug_abbrev` is missing, or if `.debug_info` exceeds 32-bit
    /// offsets.
    pub fn new(image: &Image) -> Option<Self> {
        let section = |name| image.section(name)?.bytes();
        let optional = |name| section(name).unwrap_or_else(|| Vec::new().into());
        let info = section(".debug_info")?;
        u32::try_from(info.len()).ok()?;
        Some(Self {
            unread: Unread::default(),
            info,
            abbrev: section(".debug_abbrev")?,
            strings: optional(".debug_str"),
            line_strings: optional(".debug_line_str"),
            string_offsets: optional(".debug_str_offsets"),
        })
    }

    /// The units of `.debug_info`: their offsets and versions, as far as their sizes lead to them.
    pub fn units(&self) -> Units<'_> {
        Units {
            info: &self.info,
            at: 0,
        }
    }

    /// `.debug_info`.
    pub fn debug_info(&self) -> gimli::DebugInfo<Slice<'_>> {
        gimli::DebugInfo::new(&self.info, LittleEndian)
    }

    /// The string value of an attribute. `base` returns the unit's base in `.debug_str_offsets`, which
    /// only clang uses.
    pub fn name<'a>(
        &'a self,
        value: &gimli::AttributeValue<Slice<'a>>,
        format: gimli::Format,
        base: impl FnOnce() -> gimli::DebugStrOffsetsBase,
    ) -> Name<'a> {
        let at = |section: &'a Bytes, offset: usize| {
            u32::try_from(offset).map_or(Name::default(), |offset| Name::new(section, offset))
        };
        match *value {
            gimli::AttributeValue::String(text) => Name::new(text.slice(), 0),
            gimli::AttributeValue::DebugStrRef(offset) => at(&self.strings, offset.0),
            gimli::AttributeValue::DebugLineStrRef(offset) => at(&self.line_strings, offset.0),
            gimli::AttributeValue::DebugStrOffsetsIndex(index) => {
                let offsets = Slice::new(&self.string_offsets, LittleEndian);
                gimli::DebugStrOffsets::from(offsets)
                    .get_str_offset(format, base(), index)
                    .map_or(Name::default(), |offset| at(&self.strings, offset.0))
            }
            _ => Name::default(),
        }
    }
}

/// What could not be read of the sections, counted while they are read.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Units of a version that gimli does not know, and the last such version.
    pub units_of_version: AtomicU32,
    pub version: AtomicU16,
    /// Units with an invalid header, or with an entry that cannot be decoded.
    pub units: AtomicU32,
    /// Names beyond the limit.
    pub names: AtomicU32,
    /// Times that a struct's members could be read in part only.
    pub structs: AtomicU32,
}

impl Unread {
    /// Whether nothing was left out of an index.
    pub fn is_index_complete(&self) -> bool {
        [&self.units_of_version, &self.units, &self.names]
            .iter()
            .all(|count| count.load(Ordering::Relaxed) == 0)
    }

    /// Counts one.
    pub fn count(counter: &AtomicU32) {
        // A hostile file may be read for long.
        let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1));
    }

    /// As warnings.
    pub fn warnings(&self) -> Vec<String> {
        let get = |count: &AtomicU32| count.load(Ordering::Relaxed);
        let mut found = Vec::new();
        let (units, version) = (
            get(&self.units_of_version),
            self.version.load(Ordering::Relaxed),
        );
        if units > 0 {
            found.push(format!(
                "DWARF: {units} units have the unknown version {version}; their types are missing"
            ));
        }
        if get(&self.units) > 0 {
            found.push(format!(
                "DWARF: {} units cannot be read to their end; types may be missing",
                get(&self.units)
            ));
        }
        if get(&self.names) > 0 {
            found.push("DWARF: there are more types than the limit; some are missing".to_owned());
        }
        if get(&self.structs) > 0 {
            found.push(
                "DWARF: members of some structs are encoded in an unknown way; they are missing"
                    .to_owned(),
            );
        }
        found
    }
}

/// The units of `.debug_info`.
pub(super) struct Units<'a> {
    info: &'a [u8],
    at: usize,
}

impl Iterator for Units<'_> {
    /// Offset and version.
    type Item = (u32, u16);

    fn next(&mut self) -> Option<Self::Item> {
        /// The 32-bit size that announces a 64-bit one.
        const DWARF64: u32 = 0xffff_ffff;
        loop {
            let start = u32::try_from(self.at).ok()?;
            let rest = self.info.get(self.at..)?;
            let short = u32::from_le_bytes(*rest.first_chunk()?);
            let (header, size) = match short {
                DWARF64 => {
                    let size = u64::from_le_bytes(*rest.get(4..)?.first_chunk()?);
                    (12, usize::try_from(size).ok()?)
                }
                size => (4, size as usize),
            };
            self.at = self.at.checked_add(header)?.checked_add(size)?;
            // Padding between the units of two object files.
            if size == 0 {
                continue;
            }
            let version = rest.get(header..).and_then(|rest| rest.first_chunk());
            return Some((start, version.map_or(0, |bytes| u16::from_le_bytes(*bytes))));
        }
    }
}
