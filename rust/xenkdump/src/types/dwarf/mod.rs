//! Types from DWARF 2 to 5, as written by compilers or compressed by dwz (partial units, references
//! between units).
//!
//! - `sections`: the sections and their strings.
//! - `abbrev`: abbreviation tables.
//! - `unit`: one unit and its entries.
//! - `index`: entries by name, built by one scan.
//! - `cache`: indices on disk.
//! - `graph`: types one by one.
//! - `directories`: where the compiler ran, for line programs.
//!
//! Not supported: type units, supplementary files (`.gnu_debugaltlink`), split DWARF. Linux and Xen
//! are not built with them.

mod abbrev;
mod cache;
mod directories;
mod graph;
mod index;
mod sections;
mod unit;

#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::OnceLock;

use gimli::constants as dw;

use super::query;
use super::question::Question;
use super::shape::{self, Field, Layouts, Name, Shape, Tag, TypeId};
use crate::addr::Word;
use crate::budget::Budget;
use crate::elf::Image;
use crate::limits::{MAX_ARRAY_DIMENSIONS, MAX_TYPE_STEPS};
use abbrev::Abbreviations;
pub(crate) use directories::Directories;
use index::{Index, Key};
use sections::Sections;
use unit::{Entry, Unit};

/// The shift of the dimension in the [`TypeId`] of an array: DWARF has one entry for all dimensions.
const DIMENSION_SHIFT: u32 = 32;

/// The types of an image's DWARF.
pub(super) struct Dwarf {
    sections: Sections,
    abbreviations: Abbreviations,
    word: Word,
    index: OnceLock<Index>,
    /// Base types, which the index lacks.
    bases: OnceLock<Vec<TypeId>>,
    cache: Option<cache::File>,
}

impl Dwarf {
    /// `None` if the image has no `.debug_info`, or if it exceeds 32-bit offsets.
    pub fn new(image: &Image, folder: Option<PathBuf>) -> Option<Self> {
        // Taken before reading, so that a later change of the file changes it.
        let file = image.debug().map_or(image, |debug| debug).file().identity();
        let sections = Sections::new(image)?;
        let id = image.build_id().unwrap_or_default();
        let cache = folder
            .zip(file)
            .and_then(|(folder, file)| cache::File::new(folder, id, file, &sections.info));
        Some(Self::of_sections(sections, image.word(), cache))
    }

    fn of_sections(sections: Sections, word: Word, cache: Option<cache::File>) -> Self {
        Self {
            abbreviations: Abbreviations::new(&sections.abbrev),
            sections,
            word,
            index: OnceLock::new(),
            bases: OnceLock::new(),
            cache,
        }
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let size = self.sections.info.len();
            if let Some(index) = self.cache.as_ref().and_then(|file| file.load(size)) {
                return index;
            }
            let index = Index::scan(&self.sections);
            // A cached index has no warnings about missing parts.
            if let Some(file) = self
                .cache
                .as_ref()
                .filter(|_| self.sections.unread.is_index_complete())
            {
                file.store(&index);
            }
            index
        })
    }

    /// The unit that contains the entry of a type, and the entry's offset in `.debug_info`.
    fn unit(&self, id: TypeId) -> Option<(Unit<'_>, u32)> {
        let offset = (id.0 & u64::from(u32::MAX)) as u32;
        let start = self.index().unit_of(offset)?;
        let unit = Unit::new(&self.sections, &self.abbreviations, start)?;
        Some((unit, offset))
    }

    fn with<T>(
        &self,
        id: TypeId,
        budget: &Budget<'_>,
        read: impl FnOnce(&Entry<'_, '_>) -> Option<T>,
    ) -> Option<T> {
        let (unit, offset) = self.unit(id)?;
        let entry = unit.entry(offset, budget)?;
        read(&entry)
    }

    /// The dimensions of an array; `None` for a dimension of unknown extent. At most
    /// `MAX_ARRAY_DIMENSIONS + 1` are returned.
    fn dimensions(unit: &Unit<'_>, offset: u32, budget: &Budget<'_>) -> Vec<Option<u64>> {
        let mut dimensions = Vec::new();
        let _ = unit.children(offset, budget, &mut |child| {
            if child.tag() == dw::DW_TAG_subrange_type {
                dimensions.push(child.extent());
            }
            match dimensions.len() {
                ..=MAX_ARRAY_DIMENSIONS => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        dimensions
    }

    fn array<'a>(
        unit: &Unit<'a>,
        offset: u32,
        entry: &Entry<'a, '_>,
        which: u64,
        budget: &Budget<'_>,
    ) -> Shape<'a> {
        let dimensions = Self::dimensions(unit, offset, budget);
        if dimensions.len() > MAX_ARRAY_DIMENSIONS {
            return Shape::BROKEN;
        }
        let last = dimensions.len().saturating_sub(1) as u64;
        let element = if which < last {
            Some(TypeId(u64::from(offset) | (which + 1) << DIMENSION_SHIFT))
        } else {
            entry.target()
        };
        let count = usize::try_from(which).ok().and_then(|i| dimensions.get(i));
        match element {
            Some(element) => Shape::Array {
                element,
                count: count.copied().flatten().unwrap_or(0),
            },
            None => Shape::BROKEN,
        }
    }

    /// Whether an enum is signed: by its encoding, else by its underlying type, else by whether it
    /// has a negative enumerator.
    fn signed_enum(
        &self,
        unit: &Unit<'_>,
        offset: u32,
        entry: &Entry<'_, '_>,
        budget: &Budget<'_>,
    ) -> bool {
        if let Some(encoding) = entry.encoding() {
            return is_signed(encoding);
        }
        let underlying = entry
            .target()
            .and_then(|target| self.with(target, budget, |base| base.encoding()));
        if let Some(encoding) = underlying {
            return is_signed(encoding);
        }
        let mut negative = false;
        let _ = unit.children(offset, budget, &mut |child| {
            negative |= child.value().is_some_and(|value| value < 0);
            ControlFlow::Continue(())
        });
        negative
    }
}

fn is_signed(encoding: dw::DwAte) -> bool {
    matches!(encoding, dw::DW_ATE_signed | dw::DW_ATE_signed_char)
}

impl Layouts for Dwarf {
    fn find(&self, tag: Tag, name: &str) -> Option<TypeId> {
        let offset = self.index().find(Key::Type(tag), name)?;
        let id = TypeId(offset.into());
        self.with(id, &shape::budget(MAX_TYPE_STEPS), |entry| {
            let sought = index::tag(entry.tag()) == Some(tag) && entry.name().is(name);
            (sought && !entry.is_declaration()).then_some(id)
        })
    }

    fn shape(&self, id: TypeId, budget: &Budget<'_>) -> Shape<'_> {
        let Some((unit, offset)) = self.unit(id) else {
            return Shape::BROKEN;
        };
        let Some(entry) = unit.entry(offset, budget) else {
            return Shape::BROKEN;
        };
        let name = entry.name();
        let target = entry.target();
        let size = entry.size();
        let qualified = |word| Shape::Qualified { word, target };
        match entry.tag() {
            dw::DW_TAG_base_type => {
                let size = size.unwrap_or(0);
                match entry.encoding() {
                    Some(dw::DW_ATE_float | dw::DW_ATE_complex_float) => {
                        Shape::Float { name, size }
                    }
                    encoding => Shape::Int {
                        name,
                        size,
                        signed: encoding.is_some_and(is_signed),
                        bits: None,
                    },
                }
            }
            tag @ (dw::DW_TAG_structure_type | dw::DW_TAG_class_type | dw::DW_TAG_union_type) => {
                let union = tag == dw::DW_TAG_union_type;
                match size {
                    Some(size) if !entry.is_declaration() => Shape::Composite { name, union, size },
                    _ => Shape::Declared { name, union },
                }
            }
            dw::DW_TAG_enumeration_type => Shape::Enum {
                name,
                size: size.unwrap_or(4),
                signed: self.signed_enum(&unit, offset, &entry, budget),
            },
            dw::DW_TAG_pointer_type
            | dw::DW_TAG_reference_type
            | dw::DW_TAG_rvalue_reference_type => Shape::Pointer {
                target,
                size: size.unwrap_or(self.word.bytes() as u64),
            },
            dw::DW_TAG_array_type => {
                Self::array(&unit, offset, &entry, id.0 >> DIMENSION_SHIFT, budget)
            }
            dw::DW_TAG_typedef => Shape::Typedef { name, target },
            dw::DW_TAG_const_type => qualified("const"),
            dw::DW_TAG_volatile_type => qualified("volatile"),
            dw::DW_TAG_restrict_type | dw::DW_TAG_atomic_type => qualified(""),
            dw::DW_TAG_subroutine_type => Shape::Function,
            _ => Shape::BROKEN,
        }
    }

    fn fields<'a>(
        &'a self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(Field<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some((unit, offset)) = self.unit(id) else {
            return ControlFlow::Continue(());
        };
        let question = Question {
            layouts: self,
            budget,
        };
        unit.children(offset, budget, &mut |child| {
            let (true, Some(ty)) = (child.tag() == dw::DW_TAG_member, child.target()) else {
                return ControlFlow::Continue(());
            };
            let unit_size = || child.size().or_else(|| query::size(question, ty));
            match child.position(unit_size) {
                Some((bit_offset, bit_size)) => visit(Field {
                    name: child.name(),
                    ty,
                    bit_offset,
                    bit_size,
                }),
                None => {
                    unit.unread_member();
                    ControlFlow::Continue(())
                }
            }
        })
    }

    fn enumerators<'a>(
        &'a self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(Name<'a>, i128) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some((unit, offset)) = self.unit(id) else {
            return ControlFlow::Continue(());
        };
        unit.children(
            offset,
            budget,
            &mut |child| match (child.tag(), child.value()) {
                (dw::DW_TAG_enumerator, Some(value)) => visit(child.name(), value),
                _ => ControlFlow::Continue(()),
            },
        )
    }

    fn warnings(&self) -> Vec<String> {
        self.sections.unread.warnings()
    }

    fn enumerator(&self, name: &str) -> Option<i128> {
        let offset = self.index().find(Key::Enumerator, name)?;
        let mut found = None;
        let id = TypeId(offset.into());
        let _ = self.enumerators(
            id,
            &shape::budget(MAX_TYPE_STEPS),
            &mut |candidate, value| {
                if candidate.is(name) {
                    found = Some(value);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            },
        );
        found
    }
}
