//! ELF vmcores: what kexec-tools, makedumpfile -E and QEMU write.
//!
//! goblin parses single headers; the tables are walked here, because its eager parser reads section
//! and dynamic tables that a hostile file can inflate, does not know PN_XNUM, and takes the notes'
//! alignment from `p_align`, which kexec-tools leaves at 0.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{Header, ELFMAG, ET_CORE};
use goblin::elf::program_header::{ProgramHeader, PT_LOAD, PT_NOTE};
use goblin::elf::section_header::SectionHeader;
use goblin::elf::Elf;

use super::note_list::NoteList;
use super::{Dump, Segment, SegmentMap, Warnings};
use crate::addr::{MachineAddr, Word};
use crate::elf::header::{at, Source};
use crate::file::MappedFile;
use crate::Result;

/// `e_phnum` of a file with more program headers than 16 bits count: the number is in `sh_info` of
/// section header 0 (elf(5); kexec-tools writes it above 65,534 segments).
const PN_XNUM: u16 = 0xffff;

/// No more program headers than this are read. A terabyte of memory in single megabytes has as many;
/// real dumps have a few hundred.
const HEADERS: u64 = 1 << 20;

/// The header of an ELF core file for x86, and what its tables are parsed with.
pub(super) fn header(file: &MappedFile) -> Result<(Header, Ctx, Word)> {
    let mut start = [0; 64];
    let bytes = file.part(0, &mut start);
    if !bytes.starts_with(ELFMAG) {
        return Err(file.format_error(0, "an ELF vmcore (7f 45 4c 46)", hex(bytes, 4)));
    }
    let header = Elf::parse_header(bytes)
        .map_err(|error| file.format_error(0, "an ELF header", error.to_string()))?;
    if header.e_type != ET_CORE {
        return Err(file.format_error(
            16,
            format!("e_type {ET_CORE} (ET_CORE)"),
            format!("{}", header.e_type),
        ));
    }
    let container = header
        .container()
        .map_err(|error| file.format_error(4, "ELFCLASS32 or ELFCLASS64", error.to_string()))?;
    if !header.endianness().is_ok_and(|endian| endian.is_little()) {
        return Err(file.format_error(5, "ELFDATA2LSB (x86)", format!("{}", header.e_ident[5])));
    }
    let word = match container {
        Container::Little => Word::W32,
        Container::Big => Word::W64,
    };
    Ok((header, Ctx::new(container, Endian::Little), word))
}

pub(super) fn open(file: MappedFile, header: &Header, ctx: Ctx, word: Word) -> Result<Dump> {
    let mut warnings = Warnings::default();
    let mut segments = Vec::new();
    let mut notes = NoteList::default();
    for program in program_headers(&file, header, ctx, &mut warnings)? {
        match program.p_type {
            PT_LOAD => segments.push(Segment {
                start: MachineAddr(program.p_paddr),
                offset: program.p_offset,
                file_size: program.p_filesz,
                memory_size: program.p_memsz,
            }),
            PT_NOTE => notes.read(&file, program.p_offset, program.p_filesz, &mut warnings),
            _ => {}
        }
    }
    let file_len = file.len();
    let segments = SegmentMap::new(segments, file_len);
    let missing = segments.truncated_bytes();
    if missing > 0 {
        warnings.push(format!(
            "the file is cut: {missing} bytes of memory that its headers promise lie past its end \
             ({file_len} bytes)"
        ));
    }
    Ok(Dump {
        format: match word {
            Word::W32 => "ELF32 vmcore",
            Word::W64 => "ELF64 vmcore",
        },
        machine_type: header.e_machine,
        word,
        segments: segments.into(),
        core: None,
        notes: notes.notes,
        warnings,
        file,
    })
}

/// All program headers that the file really has; their number is bounded by its length.
fn program_headers<'a>(
    file: &'a MappedFile,
    header: &Header,
    ctx: Ctx,
    warnings: &mut Warnings,
) -> Result<impl Iterator<Item = ProgramHeader> + 'a> {
    let claimed = if header.e_phnum == PN_XNUM {
        let section: SectionHeader = at(file, header.e_shoff, ctx).ok_or_else(|| {
            file.format_error(
                header.e_shoff,
                "section header 0, which counts the program headers (PN_XNUM)",
                "the end of the file",
            )
        })?;
        u64::from(section.sh_info)
    } else {
        u64::from(header.e_phnum)
    };
    let stride = u64::from(header.e_phentsize);
    let size = ProgramHeader::size(ctx) as u64;
    if claimed > 0 && stride < size {
        return Err(file.format_error(
            if ctx.is_big() { 54 } else { 42 },
            format!("e_phentsize {size}"),
            stride.to_string(),
        ));
    }
    let room = file.len().saturating_sub(header.e_phoff) / stride.max(1);
    if claimed > room {
        warnings.push(format!(
            "the ELF header counts {claimed} program headers, the file holds {room} of them"
        ));
    }
    let count = claimed.min(room);
    if count > HEADERS {
        warnings.push(format!(
            "of {count} program headers the first {HEADERS} are read"
        ));
    }
    let start = header.e_phoff;
    Ok((0..count.min(HEADERS)).map_while(move |i| at(file, start + i * stride, ctx)))
}

fn hex(bytes: &[u8], count: usize) -> String {
    if bytes.is_empty() {
        return "an empty file".into();
    }
    let found: Vec<_> = bytes
        .iter()
        .take(count)
        .map(|b| format!("{b:02x}"))
        .collect();
    found.join(" ")
}
