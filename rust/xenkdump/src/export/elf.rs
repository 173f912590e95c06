//! ELF core files, laid out as /proc/vmcore: program headers, notes, memory.

use std::fs::File;

use goblin::elf::header::{ELFCLASS32, ELFCLASS64, ELFDATA2LSB, ELFMAG, ET_CORE, EV_CURRENT};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};

use super::job::{Control, Export, Failure, Lost, Report};
use super::output::{self, Fields};
use super::pages::{self, PageRun};
use super::raw;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::alloc;

/// Program headers that are reserved for gaps: pages that turn out to be unreadable.
const SPARE_HEADERS: u64 = 64;
/// `e_phnum` of a file whose section header 0 has the number.
const PN_XNUM: u64 = 0xffff;
/// Sizes of the headers with 32 and with 64 bits.
const FILE_HEADER: [u64; 2] = [52, 64];
const PROGRAM_HEADER: [u64; 2] = [32, 56];
const SECTION_HEADER: [u64; 2] = [40, 64];

/// Contiguous virtual addresses of contiguous physical memory, in whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first virtual address.
    pub virtual_address: u64,
    /// The first page frame number.
    pub first: u64,
    /// The number of pages.
    pub count: u64,
}

/// The headers of an ELF core file.
#[derive(Clone, Debug, Default)]
pub struct Elf {
    /// `e_machine`.
    pub machine: u16,
    /// ELFCLASS64.
    pub is_64: bool,
    /// The contents of PT_NOTE.
    pub notes: Vec<u8>,
    /// The kernel's linear mapping, which gives memory its virtual addresses.
    pub direct: Option<Mapping>,
    /// Further virtual addresses of the same memory, each in segments of its own.
    pub others: Vec<Mapping>,
}

/// Pages that are contiguous in memory and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    run: PageRun,
    /// The number of exported pages before it.
    position: u64,
}

impl Piece {
    /// Its part in `first..end`.
    fn within(&self, first: u64, end: u64) -> Option<Self> {
        let start = self.run.first.max(first);
        let count = self.run.end().min(end).checked_sub(start)?;
        let position = self.position + (start - self.run.first);
        (count > 0).then_some(Self {
            run: PageRun {
                first: start,
                count,
            },
            position,
        })
    }
}

/// A program header of type PT_LOAD.
struct Segment {
    piece: Piece,
    virtual_address: u64,
}

/// Where the parts of the file are.
struct Layout {
    notes: u64,
    /// Section header 0, which counts the program headers if there are too many.
    section: u64,
    data: u64,
    size: u64,
}

/// Writes an ELF core file.
pub(super) fn write(
    export: &Export<'_>,
    elf: &Elf,
    file: &File,
    control: &Control,
) -> Result<Report, Failure> {
    let planned = elf.segments(&pieces(export.pages, &[])).len() as u64;
    let reserved = planned + SPARE_HEADERS;
    let layout = elf.layout(reserved, pages::total(export.pages))?;
    if !elf.is_64 {
        let end = export.pages.last().map_or(0, |run| run.end()) << PAGE_SHIFT;
        if end.max(layout.size) > 1 << 32 {
            let text = "ELF32 cannot hold memory above 4 GiB, or a file of that size";
            return Err(Failure::Limit(text.to_owned()));
        }
    }
    output::resize(file, layout.size)?;
    let (mut report, lost) = raw::plain(export, file, control, |place| {
        layout.data + (place.position << PAGE_SHIFT)
    })?;
    let (segments, as_zeros) = elf.without(export.pages, &lost, reserved);
    report.lost_as_zeros = as_zeros;
    output::write(file, 0, &elf.headers(&segments, &layout))?;
    output::write(file, layout.notes, &elf.notes)?;
    if segments.len() as u64 + 1 >= PN_XNUM {
        let section = elf.section_header(segments.len() as u64 + 1);
        output::write(file, layout.section, &section)?;
    }
    Ok(report)
}

/// The runs without gaps.
fn pieces(runs: &[PageRun], gaps: &[PageRun]) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut position = 0;
    let mut gaps = gaps.iter().peekable();
    for run in runs {
        let whole = Piece {
            run: *run,
            position,
        };
        position += run.count;
        let mut from = run.first;
        // Gaps are within runs.
        while let Some(gap) = gaps.next_if(|gap| gap.first < run.end()) {
            if let Some(piece) = whole.within(from, gap.first) {
                alloc::push(&mut found, piece);
            }
            from = gap.end();
        }
        if let Some(piece) = whole.within(from, run.end()) {
            alloc::push(&mut found, piece);
        }
    }
    found
}

impl Elf {
    /// The segments, and how many of the lost pages are still in them for lack of program headers.
    fn without(&self, runs: &[PageRun], lost: &Lost, reserved: u64) -> (Vec<Segment>, u64) {
        let mut gaps = lost.ranges.as_slice();
        loop {
            let segments = self.segments(&pieces(runs, gaps));
            if segments.len() as u64 <= reserved || gaps.is_empty() {
                let removed: u64 = gaps.iter().map(|gap| gap.count).sum();
                let all: u64 = lost.ranges.iter().map(|gap| gap.count).sum();
                return (segments, all - removed);
            }
            gaps = gaps.get(..gaps.len() / 2).unwrap_or_default();
        }
    }

    /// The segments of all memory, then those of other mappings.
    fn segments(&self, pieces: &[Piece]) -> Vec<Segment> {
        let mut found = Vec::new();
        let direct = self.direct.unwrap_or(Mapping {
            virtual_address: 0,
            first: 0,
            count: 0,
        });
        let end = direct.first.saturating_add(direct.count);
        let virtual_address = |piece: &Piece, mapping: &Mapping| {
            let offset = (piece.run.first - mapping.first) << PAGE_SHIFT;
            mapping.virtual_address.wrapping_add(offset)
        };
        for piece in pieces {
            let parts = [(0, direct.first), (direct.first, end), (end, u64::MAX)];
            for (i, (first, end)) in parts.into_iter().enumerate() {
                if let Some(piece) = piece.within(first, end) {
                    let segment = Segment {
                        virtual_address: match i {
                            1 => virtual_address(&piece, &direct),
                            _ => 0,
                        },
                        piece,
                    };
                    alloc::push(&mut found, segment);
                }
            }
        }
        for mapping in &self.others {
            let end = mapping.first.saturating_add(mapping.count);
            for piece in pieces {
                if let Some(piece) = piece.within(mapping.first, end) {
                    let segment = Segment {
                        virtual_address: virtual_address(&piece, mapping),
                        piece,
                    };
                    alloc::push(&mut found, segment);
                }
            }
        }
        found
    }

    fn size(&self, of: [u64; 2]) -> u64 {
        let [small, large] = of;
        if self.is_64 {
            large
        } else {
            small
        }
    }

    /// The layout for this number of segments, with one further header for the notes.
    fn layout(&self, segments: u64, pages: u64) -> Result<Layout, Failure> {
        let headers = self.size(FILE_HEADER) + (segments + 1) * self.size(PROGRAM_HEADER);
        let notes = headers.next_multiple_of(8);
        let section = (notes + self.notes.len() as u64).next_multiple_of(8);
        let data = (section + self.size(SECTION_HEADER)).next_multiple_of(PAGE_SIZE as u64);
        let bytes = pages.checked_mul(PAGE_SIZE as u64);
        let size = bytes.and_then(|bytes| data.checked_add(bytes));
        let size = size.filter(|size| i64::try_from(*size).is_ok());
        let size = size.ok_or_else(|| Failure::Limit("ELF: more than 2^63 bytes".to_owned()))?;
        Ok(Layout {
            notes,
            section,
            data,
            size,
        })
    }

    /// The file header and all program headers.
    fn headers(&self, segments: &[Segment], layout: &Layout) -> Vec<u8> {
        let is_64 = self.is_64;
        let count = segments.len() as u64 + 1;
        let has_section = count >= PN_XNUM;
        let mut out = Fields::default();
        let class = if is_64 { ELFCLASS64 } else { ELFCLASS32 };
        out.bytes(ELFMAG)
            .bytes(&[class, ELFDATA2LSB, EV_CURRENT, 0])
            .pad_to(16);
        out.u16(ET_CORE).u16(self.machine).u32(EV_CURRENT.into());
        out.word(0, is_64);
        out.word(self.size(FILE_HEADER), is_64);
        out.word(if has_section { layout.section } else { 0 }, is_64);
        out.u32(0).u16(self.size(FILE_HEADER) as u16);
        out.u16(self.size(PROGRAM_HEADER) as u16);
        out.u16(count.min(PN_XNUM) as u16);
        let section_size = if has_section {
            self.size(SECTION_HEADER)
        } else {
            0
        };
        out.u16(section_size as u16);
        out.u16(has_section.into()).u16(0);
        let size = self.notes.len() as u64;
        self.program_header(&mut out, PT_NOTE, 0, [layout.notes, 0, 0, size]);
        for segment in segments {
            let piece = &segment.piece;
            let fields = [
                layout.data + (piece.position << PAGE_SHIFT),
                segment.virtual_address,
                piece.run.first << PAGE_SHIFT,
                piece.run.count << PAGE_SHIFT,
            ];
            self.program_header(&mut out, PT_LOAD, PF_R | PF_W | PF_X, fields);
        }
        out.0
    }

    /// A program header; the fields are offset, virtual and physical address, and size.
    fn program_header(&self, out: &mut Fields, kind: u32, flags: u32, fields: [u64; 4]) {
        let is_64 = self.is_64;
        let [offset, virtual_address, physical, size] = fields;
        let in_memory = if kind == PT_LOAD { size } else { 0 };
        out.u32(kind);
        if is_64 {
            out.u32(flags);
        }
        for field in [offset, virtual_address, physical, size, in_memory] {
            out.word(field, is_64);
        }
        if !is_64 {
            out.u32(flags);
        }
        // As in /proc/vmcore.
        out.word(0, is_64);
    }

    /// Section header 0 with the number of program headers in `sh_info`.
    fn section_header(&self, count: u64) -> Vec<u8> {
        let is_64 = self.is_64;
        let mut out = Fields::default();
        out.u32(0).u32(0);
        for _ in 0..4 {
            out.word(0, is_64);
        }
        out.u32(0).u32(count as u32);
        out.word(0, is_64).word(0, is_64);
        out.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn run(first: u64, count: u64) -> PageRun {
        PageRun { first, count }
    }

    const fn piece(first: u64, count: u64, position: u64) -> Piece {
        Piece {
            run: run(first, count),
            position,
        }
    }

    #[test]
    fn gaps_are_left_out() {
        let runs = [run(0, 10), run(20, 10)];
        assert_eq!(pieces(&runs, &[]), [piece(0, 10, 0), piece(20, 10, 10)]);
        let gaps = [run(0, 1), run(5, 2), run(29, 1)];
        let expected = [piece(1, 4, 1), piece(7, 3, 7), piece(20, 9, 10)];
        assert_eq!(pieces(&runs, &gaps), expected);
        assert_eq!(pieces(&[run(3, 2)], &[run(3, 2)]), []);
    }

    #[test]
    fn segments_are_cut_at_the_end_of_the_linear_mapping() {
        let elf = Elf {
            direct: Some(Mapping {
                virtual_address: 0xc000_0000,
                first: 0,
                count: 8,
            }),
            others: vec![Mapping {
                virtual_address: 0xf000_0000,
                first: 4,
                count: 2,
            }],
            ..Elf::default()
        };
        let found: Vec<_> = elf
            .segments(&pieces(&[run(1, 9)], &[]))
            .iter()
            .map(|segment| (segment.virtual_address, segment.piece))
            .collect();
        let expected = [
            (0xc000_1000, piece(1, 7, 0)),
            (0, piece(8, 2, 7)),
            (0xf000_0000, piece(4, 2, 3)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn pages_stay_if_there_are_no_headers_for_gaps() {
        let elf = Elf::default();
        let mut lost = Lost::default();
        for pfn in (0..100).step_by(2) {
            lost.add(pfn);
        }
        let (segments, as_zeros) = elf.without(&[run(0, 100)], &lost, 65);
        assert_eq!((segments.len(), as_zeros), (50, 0));
        let (segments, as_zeros) = elf.without(&[run(0, 100)], &lost, 20);
        assert_eq!((segments.len(), as_zeros), (12, 38));
    }
}
