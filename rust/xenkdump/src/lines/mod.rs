//! Source lines of code, from the line tables of DWARF 2 to 5 (`.debug_line`).
//!
//! The row of a line table that covers an address has the line of the innermost inlined function there,
//! so that the entries of functions in `.debug_info` are not needed.
//!
//! - `sections`: the sections.
//! - `program`: one line program, executed by gimli.
//! - this file: which program has an address, from one scan of all programs.

mod program;
mod sections;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::addr::VirtAddr;
use crate::alloc;
use crate::elf;
use crate::image::Image;
use crate::limits::{
    MAX_LINE_PROGRAM, MAX_LINE_PROGRAMS_SIZE, MAX_LINE_SEQUENCES, MAX_OVERLAPPING_SEQUENCES,
};
use crate::types::Directories;
use crate::{Error, Result};
use program::{Programs, Row};
use sections::Sections;

/// A line of a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// The path of the file as the compiler was given it, after the directory it ran in.
    pub file: Arc<str>,
    /// The number of the line, from 1 up.
    pub line: u64,
}

/// The line tables of an image.
pub struct Lines {
    image: Arc<elf::Image>,
    tables: Tables,
    directories: OnceLock<Option<Directories>>,
}

/// Line programs, and which of them has an address.
struct Tables {
    sections: Sections,
    /// Ascending by start.
    sequences: Vec<Sequence>,
    /// Whether line programs were left out.
    is_incomplete: bool,
}

/// Contiguous code, whose rows ascend by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sequence {
    start: u64,
    end: u64,
    /// The offset of its line program.
    program: usize,
}

/// An address that is looked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    program: usize,
    address: u64,
    /// Its position in the answer.
    index: usize,
}

impl Lines {
    /// The line tables of an image. An error if there are none.
    pub fn of_image(image: &Image) -> Result<Self> {
        let absent = || Error::Absent(format!("{}: no source lines: no DWARF", image.name()));
        let Image::File(file) = image else {
            return Err(absent());
        };
        let sections = Sections::new(file).ok_or_else(absent)?;
        // Code that the linker discarded is in no section.
        let spans = file.spans(0);
        Ok(Self {
            image: Arc::clone(file),
            tables: Tables::scan(sections, &spans, MAX_LINE_SEQUENCES),
            directories: OnceLock::new(),
        })
    }

    /// The source lines of code at link-time addresses. `None` for an address without code, or whose
    /// code is of no line. Each line program is executed at most once.
    pub fn find(&self, addresses: &[VirtAddr]) -> Vec<Option<SourceLine>> {
        self.tables
            .find(addresses, &|program| self.directory(program))
    }

    /// Whether parts of the line tables were not read, as they are damaged or exceed limits.
    pub fn is_incomplete(&self) -> bool {
        self.tables.is_incomplete
    }

    /// The directory in which the compiler ran that wrote a line program.
    fn directory(&self, program: usize) -> Option<String> {
        let directories = self
            .directories
            .get_or_init(|| Directories::of_image(&self.image));
        directories.as_ref()?.of_program(program)
    }
}

impl Tables {
    /// The sequences of all line programs within `spans`, at most `limit`.
    fn scan(sections: Sections, spans: &[Range<VirtAddr>], limit: usize) -> Self {
        let (sequences, is_incomplete) = scan(&sections, spans, limit);
        Self {
            sections,
            sequences,
            is_incomplete,
        }
    }

    fn find(
        &self,
        addresses: &[VirtAddr],
        directory: &dyn Fn(usize) -> Option<String>,
    ) -> Vec<Option<SourceLine>> {
        let wanted = addresses.iter().enumerate();
        let wanted = wanted.filter_map(|(index, address)| {
            Some(Wanted {
                program: self.sequence(address.0)?.program,
                address: address.0,
                index,
            })
        });
        let mut wanted = alloc::collect(wanted);
        wanted.sort_unstable();
        let mut found = alloc::filled(None, addresses.len());
        for same in wanted.chunk_by(|a, b| a.program == b.program) {
            self.find_in(same, directory, &mut found);
        }
        found
    }

    /// Finds addresses of one program.
    fn find_in(
        &self,
        wanted: &[Wanted],
        directory: &dyn Fn(usize) -> Option<String>,
        found: &mut [Option<SourceLine>],
    ) {
        let first = wanted.first().map(|one| one.program);
        let Some(program) = first.and_then(|program| Programs::new(&self.sections).get(program))
        else {
            return;
        };
        let mut rows: Vec<Option<Row>> = alloc::filled(None, wanted.len());
        // Sequences of a valid file do not overlap, so that each address is met once.
        let mut steps = wanted.len().saturating_mul(MAX_OVERLAPPING_SEQUENCES);
        let _ = program.visit(|row, next| {
            let from = wanted.partition_point(|one| one.address < row.address);
            let rest = wanted.get(from..).unwrap_or_default();
            let covered = rest.iter().take_while(|one| one.address < next);
            for (slot, _) in rows.iter_mut().skip(from).zip(covered).take(steps) {
                slot.get_or_insert(row);
                steps -= 1;
            }
        });
        let mut files = program.files(&self.sections, directory);
        for (one, row) in wanted.iter().zip(rows) {
            // Line 0 is code that the compiler added.
            let Some(row) = row.filter(|row| row.line > 0) else {
                continue;
            };
            if let (Some(slot), Some(file)) = (found.get_mut(one.index), files.path(row.file)) {
                *slot = Some(SourceLine {
                    file,
                    line: row.line,
                });
            }
        }
    }

    /// The sequence with an address.
    fn sequence(&self, address: u64) -> Option<&Sequence> {
        let above = self.sequences.partition_point(|one| one.start <= address);
        let below = self.sequences.get(..above)?.iter().rev();
        below
            .take(MAX_OVERLAPPING_SEQUENCES)
            .find(|one| address < one.end)
    }
}

/// The sequences of all line programs, at most `limit`, and whether some were left out.
fn scan(sections: &Sections, spans: &[Range<VirtAddr>], limit: usize) -> (Vec<Sequence>, bool) {
    // The end of the loaded section with an address.
    let end_of = |address| {
        let above = spans.partition_point(|span| span.start.0 <= address);
        let span = above.checked_sub(1).and_then(|at| spans.get(at))?;
        (address < span.end.0).then_some(span.end.0)
    };
    let mut sequences = Vec::new();
    let mut is_incomplete = false;
    let mut size = 0_usize;
    let programs = Programs::new(sections);
    let mut offsets = programs.offsets();
    for (offset, len) in &mut offsets {
        size = size.saturating_add(len);
        if len > MAX_LINE_PROGRAM || size > MAX_LINE_PROGRAMS_SIZE {
            is_incomplete = true;
            continue;
        }
        let Some(program) = programs.get(offset) else {
            is_incomplete = true;
            continue;
        };
        let complete = program.sequences(|start, end| {
            let Some(last) = end_of(start) else {
                return;
            };
            if sequences.len() >= limit {
                is_incomplete = true;
                return;
            }
            let sequence = Sequence {
                start,
                end: end.min(last),
                program: offset,
            };
            alloc::push(&mut sequences, sequence);
        });
        is_incomplete |= complete.is_none();
    }
    is_incomplete |= !offsets.is_complete();
    sequences.sort_unstable();
    (sequences, is_incomplete)
}
