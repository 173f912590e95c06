//! A DWARF unit and its entries.

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::sync::Arc;

use gimli::constants as dw;
use gimli::{AttributeValue, DebuggingInformationEntry, Reader, UnitHeader, UnitOffset};

use super::super::shape::{charge, Name, TypeId};
use super::abbrev::Abbreviations;
use super::sections::{Sections, Slice, Unread};
use crate::budget::Budget;

/// One unit of `.debug_info`.
pub(super) struct Unit<'a> {
    sections: &'a Sections,
    header: UnitHeader<Slice<'a>>,
    abbreviations: Arc<gimli::Abbreviations>,
    /// Its offset in `.debug_info`.
    start: u32,
    strings: OnceCell<gimli::DebugStrOffsetsBase>,
}

/// One entry of a unit.
pub(super) struct Entry<'a, 'u> {
    unit: &'u Unit<'a>,
    die: DebuggingInformationEntry<Slice<'a>>,
}

impl<'a> Unit<'a> {
    /// The unit at offset `start` of `.debug_info`; `None` if it is invalid.
    pub fn new(sections: &'a Sections, tables: &Abbreviations, start: u32) -> Option<Self> {
        let offset = gimli::DebugInfoOffset(start as usize);
        let header = sections.debug_info().header_from_offset(offset).ok()?;
        Some(Self {
            sections,
            abbreviations: tables.get(header.debug_abbrev_offset().0)?,
            header,
            start,
            strings: OnceCell::new(),
        })
    }

    /// Its offset in `.debug_info`.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// The entries from `offset` of the unit, or from its root.
    pub fn raw(&self, offset: Option<UnitOffset>) -> Option<gimli::EntriesRaw<'_, Slice<'a>>> {
        self.header.entries_raw(&self.abbreviations, offset).ok()
    }

    /// The offset of its root in `.debug_info`.
    pub fn root(&self) -> Option<u32> {
        let size = u32::try_from(self.header.size_of_header()).ok()?;
        self.start.checked_add(size)
    }

    /// The entry at `offset` of `.debug_info`.
    pub fn entry<'u>(&'u self, offset: u32, budget: &Budget<'_>) -> Option<Entry<'a, 'u>> {
        let offset = UnitOffset(offset.checked_sub(self.start)? as usize);
        let mut raw = self.raw(Some(offset))?;
        let mut entry = self.null_entry();
        match read(&mut raw, &mut entry, budget) {
            ControlFlow::Continue(Some(true)) => Some(entry),
            _ => None,
        }
    }

    fn null_entry<'u>(&'u self) -> Entry<'a, 'u> {
        Entry {
            unit: self,
            die: DebuggingInformationEntry::null(),
        }
    }

    /// Calls `visit` with each child of the entry at `offset` of `.debug_info`, until it breaks or an
    /// entry is invalid.
    pub fn children<'u>(
        &'u self,
        offset: u32,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(&Entry<'a, 'u>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let raw = offset
            .checked_sub(self.start)
            .and_then(|offset| self.raw(Some(UnitOffset(offset as usize))));
        let Some(mut raw) = raw else {
            return ControlFlow::Continue(());
        };
        let mut entry = self.null_entry();
        if read(&mut raw, &mut entry, budget)? != Some(true) {
            return ControlFlow::Continue(());
        }
        while raw.next_depth() > 0 && !raw.is_empty() {
            match read(&mut raw, &mut entry, budget)? {
                Some(true) if entry.die.depth() == 1 => visit(&entry)?,
                Some(_) => {}
                None => {
                    self.unread_member();
                    break;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Counts a struct of which a member could not be read.
    pub fn unread_member(&self) {
        Unread::count(&self.sections.unread.structs);
    }

    /// The string value of an attribute of this unit.
    pub fn name(&self, value: &AttributeValue<Slice<'a>>) -> Name<'a> {
        let base = || *self.strings.get_or_init(|| self.strings_base());
        self.sections.name(value, self.header.format(), base)
    }

    fn strings_base(&self) -> gimli::DebugStrOffsetsBase {
        self.root_strings_base().unwrap_or_else(|| {
            gimli::DebugStrOffsetsBase::default_for_encoding_and_file(
                self.header.encoding(),
                gimli::DwarfFileType::Main,
            )
        })
    }

    fn root_strings_base(&self) -> Option<gimli::DebugStrOffsetsBase> {
        let mut raw = self.raw(None)?;
        for spec in raw.read_abbreviation().ok()??.attributes() {
            if spec.name() == dw::DW_AT_str_offsets_base {
                return match raw.read_attribute(*spec).ok()?.value() {
                    AttributeValue::DebugStrOffsetsBase(base) => Some(base),
                    _ => None,
                };
            }
            // Producers of such a base have no inline strings in the root. These could be long, and
            // would be scanned for each name.
            if spec.form() == dw::DW_FORM_string {
                return None;
            }
            raw.skip_attributes(std::slice::from_ref(spec)).ok()?;
        }
        None
    }
}

/// Reads the next entry. False for the null entry after the last child; `None` if it is invalid.
fn read<'a>(
    raw: &mut gimli::EntriesRaw<'_, Slice<'a>>,
    entry: &mut Entry<'a, '_>,
    budget: &Budget<'_>,
) -> ControlFlow<(), Option<bool>> {
    /// One more step is charged per this many bytes: inline strings are scanned for their end.
    const BYTES: usize = 64;
    let start = raw.next_offset().0;
    let found = raw.read_entry(&mut entry.die).ok();
    let size = raw.next_offset().0.saturating_sub(start);
    charge(budget, 1 + size / BYTES)?;
    ControlFlow::Continue(found)
}

impl<'a> Entry<'a, '_> {
    /// Its offset in `.debug_info`.
    pub fn offset(&self) -> Option<u32> {
        let offset = u32::try_from(self.die.offset().0).ok()?;
        self.unit.start.checked_add(offset)
    }

    pub fn tag(&self) -> dw::DwTag {
        self.die.tag()
    }

    /// The name; empty for an anonymous type or member.
    pub fn name(&self) -> Name<'a> {
        let value = self.die.attr_value_raw(dw::DW_AT_name);
        value.map_or(Name::default(), |value| self.unit.name(&value))
    }

    /// Whether it is a declaration without a definition.
    pub fn is_declaration(&self) -> bool {
        let value = self.die.attr_value_raw(dw::DW_AT_declaration);
        matches!(value, Some(AttributeValue::Flag(true)))
    }

    /// The type that it refers to; `None` means `void`.
    pub fn target(&self) -> Option<TypeId> {
        let offset = match self.die.attr_value_raw(dw::DW_AT_type)? {
            AttributeValue::UnitRef(offset) => (self.unit.start as usize).checked_add(offset.0)?,
            AttributeValue::DebugInfoRef(offset) => offset.0,
            _ => return None,
        };
        Some(TypeId(u32::try_from(offset).ok()?.into()))
    }

    /// The offset of the line program of a unit, whose root it is.
    pub fn line_program(&self) -> Option<usize> {
        match self.die.attr_value(dw::DW_AT_stmt_list)? {
            AttributeValue::DebugLineRef(offset) => Some(offset.0),
            _ => None,
        }
    }

    /// The directory in which the compiler ran, of a unit whose root it is.
    pub fn directory(&self) -> Option<String> {
        let value = self.die.attr_value_raw(dw::DW_AT_comp_dir)?;
        Some(self.unit.name(&value).text().to_owned()).filter(|text| !text.is_empty())
    }

    /// The size in bytes.
    pub fn size(&self) -> Option<u64> {
        self.unsigned(dw::DW_AT_byte_size)
    }

    /// The encoding of a base type or an enum.
    pub fn encoding(&self) -> Option<dw::DwAte> {
        match self.die.attr_value(dw::DW_AT_encoding)? {
            AttributeValue::Encoding(encoding) => Some(encoding),
            _ => None,
        }
    }

    /// The number of elements of a dimension; `None` if unknown.
    pub fn extent(&self) -> Option<u64> {
        if let Some(count) = self.unsigned(dw::DW_AT_count) {
            return Some(count);
        }
        // The upper bound of an empty array is -1. gcc before about 4.5 writes it in the size of a
        // pointer.
        match self.unsigned(dw::DW_AT_upper_bound)? {
            u64::MAX => Some(0),
            bound if bound == u64::from(u32::MAX) => Some(0),
            bound => bound.checked_add(1),
        }
    }

    /// The value of an enumerator.
    pub fn value(&self) -> Option<i128> {
        match self.die.attr_value_raw(dw::DW_AT_const_value)? {
            AttributeValue::Data1(value) => Some(value.into()),
            AttributeValue::Data2(value) => Some(value.into()),
            AttributeValue::Data4(value) => Some(value.into()),
            AttributeValue::Data8(value) | AttributeValue::Udata(value) => Some(value.into()),
            AttributeValue::Sdata(value) => Some(value.into()),
            _ => None,
        }
    }

    /// The offset of a member in bits from the start of its struct, and its width if it is a bit-field.
    /// `unit` returns the size in bytes of the storage unit of a bit-field in DWARF 2 and 3.
    pub fn position(&self, unit: impl FnOnce() -> Option<u64>) -> Option<(u64, Option<u64>)> {
        let start = match self.die.attr_value_raw(dw::DW_AT_data_member_location) {
            None => 0,
            Some(AttributeValue::Block(block)) => location(block.slice())?,
            Some(AttributeValue::Exprloc(expression)) => location(expression.0.slice())?,
            Some(value) => number(&value)?,
        };
        let start = start.checked_mul(8)?;
        let Some(width) = self.unsigned(dw::DW_AT_bit_size) else {
            return Some((start, None));
        };
        if let Some(offset) = self.unsigned(dw::DW_AT_data_bit_offset) {
            return Some((start.checked_add(offset)?, Some(width)));
        }
        // DWARF 2 and 3: the offset is relative to the most significant bit of the storage unit. It is
        // negative if the field extends beyond the unit.
        let Some(value) = self.die.attr_value_raw(dw::DW_AT_bit_offset) else {
            return Some((start, Some(width)));
        };
        let from_top = match value {
            AttributeValue::Sdata(value) => i128::from(value),
            value => i128::from(number(&value)?),
        };
        let bits = i128::from(unit()?).checked_mul(8)?;
        let lowest = i128::from(start)
            .checked_add(bits)?
            .checked_sub(from_top)?
            .checked_sub(width.into())?;
        Some((u64::try_from(lowest).ok()?, Some(width)))
    }

    fn unsigned(&self, name: dw::DwAt) -> Option<u64> {
        number(&self.die.attr_value_raw(name)?)
    }
}

/// A constant. Negative values are in two's complement.
fn number(value: &AttributeValue<Slice<'_>>) -> Option<u64> {
    match *value {
        AttributeValue::Data1(value) => Some(value.into()),
        AttributeValue::Data2(value) => Some(value.into()),
        AttributeValue::Data4(value) => Some(value.into()),
        AttributeValue::Data8(value) | AttributeValue::Udata(value) => Some(value),
        AttributeValue::Sdata(value) => Some(value as u64),
        _ => None,
    }
}

/// The offset in a member's location expression. C compilers only use `DW_OP_plus_uconst`.
fn location(expression: &[u8]) -> Option<u64> {
    let (&operation, operand) = expression.split_first()?;
    if dw::DwOp(operation) != dw::DW_OP_plus_uconst {
        return None;
    }
    let mut operand = Slice::new(operand, gimli::LittleEndian);
    operand.read_uleb128().ok()
}
