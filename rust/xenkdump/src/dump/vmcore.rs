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
use scroll::Pread;

use super::{Dump, Note, Segment, SegmentMap};
use crate::addr::{MachineAddr, Word};
use crate::file::MappedFile;
use crate::Result;

/// `e_phnum` of a file with more program headers than 16 bits count: the number is in `sh_info` of
/// section header 0 (elf(5); kexec-tools writes it above 65,534 segments).
const PN_XNUM: u16 = 0xffff;

/// The header of an ELF core file for x86, and what its tables are parsed with.
pub(super) fn header(file: &MappedFile) -> Result<(Header, Ctx, Word)> {
    let bytes = file.bytes();
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
    let mut warnings = Vec::new();
    let mut segments = Vec::new();
    let mut notes = Vec::new();
    for program in program_headers(&file, header, ctx, &mut warnings)? {
        match program.p_type {
            PT_LOAD => segments.push(Segment {
                start: MachineAddr(program.p_paddr),
                offset: program.p_offset,
                file_size: program.p_filesz,
                memory_size: program.p_memsz,
            }),
            PT_NOTE => read_notes(
                &file,
                program.p_offset,
                program.p_filesz,
                &mut notes,
                &mut warnings,
            ),
            _ => {}
        }
    }
    let file_len = file.bytes().len();
    let segments = SegmentMap::new(segments, file_len as u64);
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
        notes,
        warnings,
        file,
    })
}

/// All program headers that the file really has; their number is bounded by its length.
fn program_headers<'a>(
    file: &'a MappedFile,
    header: &Header,
    ctx: Ctx,
    warnings: &mut Vec<String>,
) -> Result<impl Iterator<Item = ProgramHeader> + 'a> {
    let bytes = file.bytes();
    let claimed = if header.e_phnum == PN_XNUM {
        let section: SectionHeader = at(bytes, header.e_shoff, ctx).ok_or_else(|| {
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
    let room = (bytes.len() as u64).saturating_sub(header.e_phoff) / stride.max(1);
    if claimed > room {
        warnings.push(format!(
            "the ELF header counts {claimed} program headers, the file holds {room} of them"
        ));
    }
    let start = header.e_phoff;
    Ok((0..claimed.min(room)).map_while(move |i| at(bytes, start + i * stride, ctx)))
}

pub(super) fn at<'a, T>(bytes: &'a [u8], offset: u64, ctx: Ctx) -> Option<T>
where
    T: scroll::ctx::TryFromCtx<'a, Ctx, Error = goblin::error::Error>,
{
    bytes.pread_with(usize::try_from(offset).ok()?, ctx).ok()
}

/// Splits a PT_NOTE segment into notes, up to the first that is broken.
///
/// The header is three u32 in either class, and name and descriptor are each padded to 4 bytes
/// whatever `p_align` says: neither Xen nor Linux ever used 8 here.
pub(super) fn read_notes(
    file: &MappedFile,
    offset: u64,
    size: u64,
    notes: &mut Vec<Note>,
    warnings: &mut Vec<String>,
) {
    let available = (file.bytes().len() as u64).saturating_sub(offset).min(size);
    if available < size {
        warnings.push(format!(
            "the PT_NOTE segment at offset {offset:#x} claims {size} bytes, the file holds \
             {available} of them"
        ));
    }
    let segment = file.range(offset, available).unwrap_or_default();
    let mut at = 0usize;
    while let Some(header) = segment.get(at..).and_then(|rest| rest.first_chunk::<12>()) {
        let field =
            |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let (name_size, desc_size, note_type) = (field(0), field(4), field(8));
        if name_size == 0 && desc_size == 0 && note_type == 0 {
            // /proc/vmcore pads a merged segment with zeros, and an unused crash note is all zeros.
            return;
        }
        let name_at = at + 12;
        let desc_at = name_at.saturating_add(padded(name_size));
        let end = desc_at.saturating_add(desc_size as usize);
        let (Some(name), Some(_)) = (
            segment.get(name_at..name_at.saturating_add(name_size as usize)),
            segment.get(desc_at..end),
        ) else {
            warnings.push(format!(
                "the note at offset {:#x} (n_namesz {name_size}, n_descsz {desc_size}, n_type \
                 {note_type:#x}) runs past the end of its segment: it and what follows it are lost",
                offset + at as u64
            ));
            return;
        };
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        notes.push(Note {
            name: name.to_vec(),
            note_type,
            name_size,
            offset: offset + at as u64,
            desc_offset: offset + desc_at as u64,
            desc_size: u64::from(desc_size),
        });
        at = desc_at.saturating_add(padded(desc_size));
    }
}

/// A size rounded up to the notes' padding of 4.
fn padded(size: u32) -> usize {
    (size as usize).saturating_add(3) & !3
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
