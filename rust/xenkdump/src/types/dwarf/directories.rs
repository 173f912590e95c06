//! The directories in which the compiler ran. Line programs before version 5 do not have them.

use super::super::shape;
use super::abbrev::Abbreviations;
use super::sections::Sections;
use super::unit::{Entry, Unit};
use crate::alloc;
use crate::elf::Image;
use crate::limits::MAX_TYPE_STEPS;

/// The compilation directories of units, by the offset of their line programs.
pub(crate) struct Directories {
    sections: Sections,
    abbreviations: Abbreviations,
    /// Offsets of line programs and of units that refer to them, ascending.
    units: Vec<(usize, u32)>,
}

impl Directories {
    /// `None` if the image has no `.debug_info` that can be read.
    pub fn of_image(image: &Image) -> Option<Self> {
        let sections = Sections::new(image)?;
        let mut directories = Self {
            abbreviations: Abbreviations::new(&sections.abbrev),
            sections,
            units: Vec::new(),
        };
        let units = directories.sections.units().filter_map(|(start, _)| {
            let program = directories.root(start, |root| root.line_program())?;
            Some((program, start))
        });
        let mut units = alloc::collect(units);
        units.sort_unstable();
        directories.units = units;
        Some(directories)
    }

    /// The directory of the first unit with this line program.
    pub fn of_program(&self, program: usize) -> Option<String> {
        let at = self.units.partition_point(|(other, _)| *other < program);
        let (found, start) = *self.units.get(at)?;
        if found != program {
            return None;
        }
        self.root(start, |root| root.directory())
    }

    fn root<T>(&self, start: u32, read: impl FnOnce(&Entry<'_, '_>) -> Option<T>) -> Option<T> {
        let unit = Unit::new(&self.sections, &self.abbreviations, start)?;
        let entry = unit.entry(unit.root()?, &shape::budget(MAX_TYPE_STEPS))?;
        read(&entry)
    }
}
