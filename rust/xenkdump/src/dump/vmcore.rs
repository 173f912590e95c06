//! ELF vmcores: what kexec-tools, makedumpfile -E and QEMU write.

use goblin::elf::header::{ET_CORE, ET_DYN, ET_EXEC};
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};

use super::note_list::NoteList;
use super::{Dump, Segment, SegmentMap, Warnings};
use crate::addr::{MachineAddr, Word};
use crate::elf::Header;
use crate::file::MappedFile;
use crate::Result;

/// No more program headers than this are read. A terabyte of memory in single megabytes has as many;
/// real dumps have a few hundred.
const HEADERS: usize = 1 << 20;

/// The header of an ELF core file for x86.
pub(super) fn header(file: &MappedFile) -> Result<Header> {
    let header = Header::parse(file).map_err(|malformed| malformed.of(file))?;
    if header.kind != ET_CORE {
        let found = match header.kind {
            ET_EXEC | ET_DYN => format!("{} (an executable: is it the vmlinux?)", header.kind),
            kind => kind.to_string(),
        };
        return Err(file.format_error(16, format!("e_type {ET_CORE} (ET_CORE)"), found));
    }
    Ok(header)
}

pub(super) fn open(file: MappedFile, header: &Header) -> Result<Dump> {
    let mut warnings = Warnings::default();
    let mut segments = Vec::new();
    let mut notes = NoteList::default();
    let (claimed, room) = (header.phnum, header.room_for_program_headers(file.len()));
    if claimed > room {
        warnings.push(format!(
            "the ELF header counts {claimed} program headers, the file holds {room} of them"
        ));
    }
    if claimed.min(room) > HEADERS as u64 {
        warnings.push(format!(
            "of {} program headers the first {HEADERS} are read",
            claimed.min(room)
        ));
    }
    for program in header.program_headers(&file).take(HEADERS) {
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
        format: match header.word {
            Word::W32 => "ELF32 vmcore",
            Word::W64 => "ELF64 vmcore",
        },
        machine_type: header.machine,
        word: header.word,
        segments: segments.into(),
        core: None,
        notes: notes.notes,
        warnings,
        file,
    })
}
