//! ELF vmcores, as kexec-tools, makedumpfile -E and QEMU write them.

use goblin::elf::header::{machine_to_str, ELFMAG, EM_386, EM_X86_64, ET_CORE, ET_DYN, ET_EXEC};
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};

use super::container::{Container, Headers, Segment};
use super::in_place::InPlace;
use super::note::{Note, NoteReader};
use super::run_map::RunMap;
use super::warnings::Warnings;
use crate::addr::{MachineAddr, Word};
use crate::alloc;
use crate::elf::Header;
use crate::file::Storage;
use crate::limits::MAX_PROGRAM_HEADERS;
use crate::Result;

/// An ELF vmcore: memory in PT_LOAD segments, by physical address.
#[derive(Debug)]
struct ElfCore<S> {
    storage: S,
    headers: Headers,
    segments: Vec<Segment>,
    map: RunMap,
    memory_held: u64,
}

/// Whether the file starts as an ELF file does.
pub(super) fn matches(storage: &impl Storage) -> bool {
    let mut magic = [0; 4];
    storage.read_at(0, &mut magic).is_ok() && magic == *ELFMAG
}

/// The header of an ELF core file for x86.
pub(super) fn header(storage: &impl Storage) -> Result<Header> {
    let header = Header::parse(storage).map_err(|malformed| malformed.of(storage.file()))?;
    if header.kind != ET_CORE {
        let found = match header.kind {
            ET_EXEC | ET_DYN => format!("{} (an executable: is it the vmlinux?)", header.kind),
            kind => kind.to_string(),
        };
        let expected = format!("e_type {ET_CORE} (ET_CORE)");
        return Err(storage.file().format_error(16, expected, found));
    }
    if !matches!(header.machine, EM_386 | EM_X86_64) {
        let found = format!("{} ({})", header.machine, machine_to_str(header.machine));
        let expected = format!("e_machine {EM_386} (EM_386) or {EM_X86_64} (EM_X86_64)");
        return Err(storage.file().format_error(18, expected, found));
    }
    Ok(header)
}

/// Reads the program headers and the headers of the notes.
pub(super) fn open<S: Storage + 'static>(storage: S) -> Result<Box<dyn Container>> {
    let header = header(&storage)?;
    let mut warnings = Warnings::default();
    let mut segments = Vec::new();
    let mut notes = NoteReader::new(&storage);
    let file_len = storage.len();
    let (claimed, held) = (header.phnum, header.max_program_headers(file_len));
    if claimed > held {
        warnings.push(format!(
            "the ELF header counts {claimed} program headers, the file holds {held} of them"
        ));
    }
    if claimed.min(held) > MAX_PROGRAM_HEADERS as u64 {
        warnings.push(format!(
            "of {} program headers the first {MAX_PROGRAM_HEADERS} are read",
            claimed.min(held)
        ));
    }
    for program in header.program_headers(&storage).take(MAX_PROGRAM_HEADERS) {
        match program.p_type {
            PT_LOAD => {
                let segment = Segment {
                    start: MachineAddr(program.p_paddr),
                    offset: program.p_offset,
                    file_size: program.p_filesz,
                    memory_size: program.p_memsz,
                };
                alloc::push(&mut segments, segment);
            }
            PT_NOTE => notes.read(program.p_offset, program.p_filesz, &mut warnings),
            _ => {}
        }
    }
    let notes = notes.notes;
    let map = RunMap::of_segments(&segments, file_len);
    let missing = map.truncated_bytes();
    if missing > 0 {
        warnings.push(format!(
            "the file is cut: {missing} bytes of memory that its headers promise lie past its end \
             ({file_len} bytes)"
        ));
    }
    Ok(Box::new(ElfCore {
        storage,
        headers: Headers {
            format: match header.word {
                Word::W32 => "ELF32 vmcore",
                Word::W64 => "ELF64 vmcore",
            },
            machine_type: header.machine,
            word: header.word,
            notes,
            warnings,
        },
        segments,
        memory_held: map.distinct_bytes(),
        map,
    }))
}

impl<S: Storage> Container for ElfCore<S> {
    fn headers(&self) -> &Headers {
        &self.headers
    }

    fn descriptor(&self, note: &Note, size: u64) -> Option<Vec<u8>> {
        self.storage.copy(note.desc_offset, size).ok()
    }

    fn file_size(&self) -> u64 {
        self.storage.file().len()
    }

    fn memory_held(&self) -> u64 {
        self.memory_held
    }

    fn memory_size(&self) -> u64 {
        let sizes = self.segments.iter().map(|segment| segment.memory_size);
        sizes.fold(0, u64::saturating_add)
    }

    fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl<S: Storage> InPlace for ElfCore<S> {
    fn storage(&self) -> &impl Storage {
        &self.storage
    }

    fn map(&self) -> &RunMap {
        &self.map
    }
}
