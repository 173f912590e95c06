//! One line program: its rows, and the names of its files.

use std::collections::HashMap;
use std::sync::Arc;

use gimli::{
    AttributeValue, DebugLine, DebugLineOffset, EndianSlice, IncompleteLineProgram, LittleEndian,
};

use super::sections::Sections;
use crate::alloc;
use crate::limits::{MAX_LINE_HEADER, MAX_LINE_PROGRAM};
use crate::names;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a> = gimli::FileEntry<Slice<'a>, usize>;

/// The fewest bytes of a file in a header, and of one that a program defines (before version 5).
const SMALLEST_ENTRY: usize = 1;
const SMALLEST_DEFINITION: usize = 7;

/// The part of a row that is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub address: u64,
    /// 0 for code of no line.
    pub line: u64,
    /// The number of the file.
    pub file: u64,
}

/// All line programs.
pub(super) struct Programs<'a> {
    sections: &'a Sections,
}

/// One line program.
pub(super) struct Program<'a> {
    program: IncompleteLineProgram<Slice<'a>>,
    offset: usize,
}

/// The offsets and sizes of line programs, as far as their sizes lead to them.
pub(super) struct Offsets<'a> {
    lines: &'a [u8],
    at: usize,
}

/// The start of a line program: its size without the field, and where its fields are.
struct Start {
    /// The size of the program with all of its header.
    size: usize,
    version: u16,
    /// The size of the header after the field that has it.
    header: usize,
}

impl Start {
    /// `None` if it is not complete.
    fn parse(program: &[u8]) -> Option<Self> {
        /// The 32-bit size that announces a 64-bit one.
        const DWARF64: u32 = 0xffff_ffff;
        let number = |at: usize, wide: bool| -> Option<usize> {
            let bytes = program.get(at..)?;
            match wide {
                true => usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok(),
                false => Some(u32::from_le_bytes(*bytes.first_chunk()?) as usize),
            }
        };
        let wide = u32::from_le_bytes(*program.first_chunk()?) == DWARF64;
        let (at, field) = if wide { (12, 8) } else { (4, 4) };
        let size = number(at - field, wide)?.checked_add(at)?;
        let version = program.get(at..).and_then(|rest| rest.first_chunk());
        let version = version.map_or(0, |bytes| u16::from_le_bytes(*bytes));
        // Version 5 has the sizes of an address and of a segment selector before it.
        let header = at + 2 + if version >= 5 { 2 } else { 0 };
        Some(Self {
            size,
            version,
            header: number(header, wide).unwrap_or(0),
        })
    }
}

impl<'a> Programs<'a> {
    pub fn new(sections: &'a Sections) -> Self {
        Self { sections }
    }

    pub fn offsets(&self) -> Offsets<'a> {
        Offsets {
            lines: &self.sections.lines,
            at: 0,
        }
    }

    /// The program at `offset`; `None` if its header is invalid or exceeds a limit.
    pub fn get(&self, offset: usize) -> Option<Program<'a>> {
        let lines: &'a [u8] = &self.sections.lines;
        let start = Start::parse(lines.get(offset..)?)?;
        if start.size > MAX_LINE_PROGRAM || start.header > MAX_LINE_HEADER {
            return None;
        }
        // gimli's own allocations end the process if they fail; its vectors double.
        let entries = start.header / SMALLEST_ENTRY;
        let defined = match start.version {
            ..=4 => start.size / SMALLEST_DEFINITION,
            _ => 0,
        };
        let entry = size_of::<Entry<'_>>() + size_of::<AttributeValue<Slice<'_>>>();
        alloc::probe(2 * entry * (entries + defined));
        let program = DebugLine::new(lines, LittleEndian)
            .program(DebugLineOffset(offset), self.sections.word, None, None)
            .ok()?;
        Some(Program { program, offset })
    }
}

impl Offsets<'_> {
    /// Whether the sizes led to the end of the section.
    pub fn is_complete(&self) -> bool {
        self.at == self.lines.len()
    }
}

impl Iterator for Offsets<'_> {
    /// Offset and size.
    type Item = (usize, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.lines.get(self.at..).filter(|rest| !rest.is_empty())?;
        let start = Start::parse(rest)?;
        if start.size > rest.len() {
            return None;
        }
        let offset = self.at;
        self.at += start.size;
        Some((offset, start.size))
    }
}

impl<'a> Program<'a> {
    /// Calls `visit` with the first and the last address of each sequence, the last one excluded. `None`
    /// if the program ends with an invalid instruction.
    pub fn sequences(&self, mut visit: impl FnMut(u64, u64)) -> Option<()> {
        let mut first = None::<u64>;
        let mut rows = self.program.clone().rows();
        while let Some((_, row)) = rows.next_row().ok()? {
            let address = row.address();
            let start = *first.get_or_insert(address);
            if row.end_sequence() {
                visit(start, address);
                first = None;
            }
        }
        Some(())
    }

    /// Calls `visit` with each row, and the address of the next one. `None` if the program ends with an
    /// invalid instruction.
    pub fn visit(&self, mut visit: impl FnMut(Row, u64)) -> Option<()> {
        let mut last = None::<Row>;
        let mut rows = self.program.clone().rows();
        while let Some((_, row)) = rows.next_row().ok()? {
            let address = row.address();
            if let Some(last) = last.filter(|last| last.address < address) {
                visit(last, address);
            }
            last = (!row.end_sequence()).then(|| Row {
                address,
                line: row.line().map_or(0, |line| line.get()),
                file: row.file_index(),
            });
        }
        Some(())
    }

    /// The names of its files. `directory` has the directory in which the compiler ran, if the program
    /// does not have it (before version 5).
    pub fn files<'p>(
        &'p self,
        sections: &'p Sections,
        directory: &'p dyn Fn(usize) -> Option<String>,
    ) -> Files<'p, 'a> {
        Files {
            program: self,
            sections,
            directory,
            paths: HashMap::new(),
        }
    }
}

/// The names of the files of a line program.
pub(super) struct Files<'p, 'a> {
    program: &'p Program<'a>,
    sections: &'p Sections,
    directory: &'p dyn Fn(usize) -> Option<String>,
    paths: HashMap<u64, Option<Arc<str>>>,
}

impl Files<'_, '_> {
    /// The path of a file; `None` if the program does not have its name.
    pub fn path(&mut self, file: u64) -> Option<Arc<str>> {
        if let Some(path) = self.paths.get(&file) {
            return path.clone();
        }
        let path = self.read(file).map(Arc::from);
        alloc::insert_at(&mut self.paths, file, path.clone());
        path
    }

    fn read(&self, file: u64) -> Option<String> {
        let header = self.program.program.header();
        let entry = header.file(file)?;
        let name = self.text(&entry.path_name())?;
        let number = entry.directory_index();
        let compiler = || match header.version() {
            ..=4 => (self.directory)(self.program.offset).unwrap_or_default(),
            _ => {
                let own = header.directory(0);
                own.and_then(|own| self.text(&own)).unwrap_or_default()
            }
        };
        let folder = match number {
            0 => String::new(),
            _ => self.text(&header.directory(number)?)?,
        };
        let path = joined(&folder, &name);
        Some(match path.starts_with('/') {
            true => path,
            false => joined(&compiler(), &path),
        })
    }

    /// At most `MAX_SYMBOL_NAME` bytes of a string.
    fn text(&self, value: &AttributeValue<Slice<'_>>) -> Option<String> {
        let at = |bytes, offset: usize| {
            let text = names::string(bytes, u32::try_from(offset).ok()?, |byte| byte == 0);
            Some(names::text(text).to_owned())
        };
        match value {
            AttributeValue::String(text) => at(text.slice(), 0),
            AttributeValue::DebugStrRef(offset) => at(&self.sections.strings, offset.0),
            AttributeValue::DebugLineStrRef(offset) => at(&self.sections.line_strings, offset.0),
            _ => None,
        }
    }
}

/// A path in a folder, which may be empty; written as by addr2line.
fn joined(folder: &str, path: &str) -> String {
    if folder.is_empty() || path.starts_with('/') {
        return path.to_owned();
    }
    format!("{}/{path}", folder.trim_end_matches('/'))
}
