//! The DWARF sections that describe types, and their strings.

use gimli::{EndianSlice, LittleEndian};

use super::super::shape::Name;
use crate::elf::{Bytes, Image};

/// The reader for gimli.
pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The sections that describe types. Missing optional sections are empty.
pub(super) struct Sections {
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
            info,
            abbrev: section(".debug_abbrev")?,
            strings: optional(".debug_str"),
            line_strings: optional(".debug_line_str"),
            string_offsets: optional(".debug_str_offsets"),
        })
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
