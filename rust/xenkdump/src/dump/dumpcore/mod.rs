//! What `xl dump-core` (and `xm dump-core` before it) writes of one domain: an ELF file without
//! segments, whose sections hold the pages, an index of them, and the vCPUs' registers.
//!
//! Layout: Xen's `docs/misc/dump-core-format.txt`. Always ELFCLASS64, whatever the guest. Page *i*
//! of `.xen_pages` belongs to entry *i* of `.xen_p2m` (PV: pfn and mfn) or of `.xen_pfn` (HVM and
//! PVH: the pfn, which plays the machine frame number too).

mod context;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use goblin::elf::section_header::{SectionHeader, SHT_NOBITS};

use super::note_list::NoteList;
use super::{Dump, SegmentMap, Warnings};
use crate::addr::{Mfn, Pfn, Word, PAGE_SIZE};
use crate::elf::Header;
use crate::file::MappedFile;
use crate::Result;

pub use context::{VcpuContext, CONTEXT_SIZE_32, CONTEXT_SIZE_64};

/// The sections of this container, and the file's own where their names lie.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sections {
    notes: Range,
    prstatus: Range,
    context_size: u64,
    shared_info: Range,
    pages: Range,
    p2m: Range,
    pfn: Range,
    /// The names could not be read, and shapes had to do.
    nameless: bool,
    /// How many section headers the ELF header counts that the file does not hold.
    missing: u64,
}

/// So many sections are looked at; xl writes eight.
const SECTIONS: usize = 1 << 16;

/// So many bytes of section names are read; xl writes 81.
const NAMES: u64 = 1 << 16;

/// So many bytes of one name are looked at; xl's longest has 16. Each of the sections may name all of
/// the names.
const NAME: usize = 32;

/// The registers of so many vCPUs are read: more than any Xen lets a domain have (8192, HVM).
const VCPUS: u64 = 1 << 14;

/// Offset and size of a section that is there (size 0 is not).
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    offset: u64,
    size: u64,
}

impl Range {
    fn is_there(self) -> bool {
        self.size > 0
    }

    /// How much of it the file holds.
    fn held(self, file: &MappedFile) -> u64 {
        file.held(self.offset, self.size)
    }

    /// As much of it as the file holds and `limit` allows.
    fn bytes(self, file: &MappedFile, limit: u64) -> Vec<u8> {
        file.copy(self.offset, self.held(file).min(limit))
            .unwrap_or_default()
    }
}

/// Finds the sections; `None` if this is another kind of file.
pub(super) fn sections(file: &MappedFile, header: &Header) -> Option<Sections> {
    if header.phnum != 0 || header.shnum == 0 {
        return None;
    }
    let names = header.section_header(file, header.shstrndx);
    let names = names.map(|names| Range {
        offset: names.sh_offset,
        size: names.sh_size,
    });
    let names = names.unwrap_or_default();
    let claimed = names.size;
    let names = names.bytes(file, NAMES);

    let mut found = Sections {
        nameless: names.is_empty() || (names.len() as u64) < claimed.min(NAMES),
        missing: header.shnum,
        ..Sections::default()
    };
    for header in header.section_headers(file).take(SECTIONS) {
        found.missing -= 1;
        if header.sh_type == SHT_NOBITS {
            continue;
        }
        let range = Range {
            offset: header.sh_offset,
            size: header.sh_size,
        };
        let name = match names.get(header.sh_name..) {
            Some(rest) if !found.nameless => name_in(rest),
            _ => name_by_shape(&header),
        };
        match name {
            b".note.Xen" => found.notes = range,
            b".xen_prstatus" => {
                found.prstatus = range;
                found.context_size = header.sh_entsize;
            }
            b".xen_shared_info" => found.shared_info = range,
            b".xen_pages" => found.pages = range,
            b".xen_p2m" => found.p2m = range,
            b".xen_pfn" => found.pfn = range,
            _ => {}
        }
    }
    let is_one = found.notes.is_there()
        && (found.pages.is_there() || found.prstatus.is_there() || found.p2m.is_there());
    is_one.then_some(found)
}

/// A name up to its NUL. None that is known has as many bytes as are looked at.
fn name_in(names: &[u8]) -> &[u8] {
    let most = names.get(..NAME).unwrap_or(names);
    most.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The sections' names stand at the file's very end, so a cut file has lost them; entry size and
/// alignment, as xl writes them, still tell the sections apart.
fn name_by_shape(header: &SectionHeader) -> &'static [u8] {
    use goblin::elf::section_header::{SHT_NOTE, SHT_PROGBITS};
    match (header.sh_type, header.sh_entsize, header.sh_addralign) {
        (SHT_NOTE, ..) => b".note.Xen",
        (SHT_PROGBITS, CONTEXT_SIZE_64 | CONTEXT_SIZE_32, _) => b".xen_prstatus",
        (SHT_PROGBITS, 4096, 4096) => b".xen_pages",
        (SHT_PROGBITS, 4096, _) => b".xen_shared_info",
        (SHT_PROGBITS, 16, _) => b".xen_p2m",
        (SHT_PROGBITS, 8, _) => b".xen_pfn",
        _ => b"",
    }
}

pub(super) fn open(file: MappedFile, header: &Header, sections: Sections) -> Result<Dump> {
    let mut warnings = Warnings::default();
    let mut notes = NoteList::default();
    let range = sections.notes;
    notes.read(&file, range.offset, range.size, &mut warnings);
    let core = DumpCore::new(&file, sections, &mut warnings);
    Ok(Dump {
        format: "xl dump-core",
        machine_type: header.machine,
        word: Word::W64,
        segments: OnceLock::new(),
        core: Some(Box::new(core)),
        notes: notes.notes,
        warnings,
        file,
    })
}

/// What a dump-core file has beyond notes.
#[derive(Debug)]
pub(super) struct DumpCore {
    sections: Sections,
    p2m: OnceLock<Vec<(Pfn, Mfn)>>,
    shared_info: OnceLock<Option<Vec<u8>>>,
}

impl DumpCore {
    fn new(file: &MappedFile, sections: Sections, warnings: &mut Warnings) -> Self {
        if sections.missing > 0 {
            warnings.push(format!(
                "{} section headers lie past the end of the file",
                sections.missing
            ));
        }
        if sections.nameless {
            warnings.push(
                "the section names (.shstrtab) cannot be read: sections are told apart by their \
                 entry sizes",
            );
        }
        for (name, range) in [
            (".xen_prstatus", sections.prstatus),
            (".xen_shared_info", sections.shared_info),
            (".xen_pages", sections.pages),
            (".xen_p2m", sections.p2m),
            (".xen_pfn", sections.pfn),
        ] {
            let held = range.held(file);
            if held < range.size {
                warnings.push(format!(
                    "{name} claims {} bytes at offset {:#x}, the file holds {held} of them",
                    range.size, range.offset
                ));
            }
        }
        if sections.p2m.is_there() && sections.pfn.is_there() {
            warnings.push("both .xen_p2m and .xen_pfn are there: .xen_p2m is used");
        } else if !sections.p2m.is_there() && !sections.pfn.is_there() {
            warnings.push("neither .xen_p2m nor .xen_pfn is there: which page is which is lost");
        }
        Self {
            sections,
            p2m: OnceLock::new(),
            shared_info: OnceLock::new(),
        }
    }

    pub(super) fn auto_translated(&self) -> bool {
        self.sections.pfn.is_there() && !self.sections.p2m.is_there()
    }

    /// Every entry of the index that names a frame, with the number of its page in `.xen_pages`.
    /// There are no more of them than the file has bytes for.
    fn entries<'a>(&self, file: &'a MappedFile) -> impl Iterator<Item = (u64, Pfn, Mfn)> + 'a {
        let (index, size) = if self.auto_translated() {
            (self.sections.pfn, 8)
        } else {
            (self.sections.p2m, 16)
        };
        (0..index.held(file) / size)
            .map_while(move |i| {
                // Within the file, so the sum cannot wrap.
                let mut entry = [0; 16];
                let entry = entry.get_mut(..size as usize)?;
                file.read_at(index.offset + i * size, entry).ok()?;
                let mfn = entry.get(entry.len() - 8..)?;
                Some((i, Word::W64.get(entry)?, Word::W64.get(mfn)?))
            })
            .filter_map(|(i, pfn, mfn)| {
                // All ones: the page went away while xl copied (ballooning).
                let invalid = pfn == u64::MAX || mfn == u64::MAX;
                (!invalid).then_some((i, Pfn(pfn), Mfn(mfn)))
            })
    }

    /// Where each frame lies in the file.
    pub(super) fn page_map(&self, file: &MappedFile) -> SegmentMap {
        let pages = self.sections.pages;
        let count = pages.size / PAGE_SIZE as u64;
        let index = self
            .entries(file)
            .take_while(|(i, ..)| *i < count)
            .map(|(i, _, mfn)| {
                let offset = i.saturating_mul(PAGE_SIZE as u64);
                (mfn, pages.offset.saturating_add(offset))
            })
            .collect();
        SegmentMap::from_pages(index, file.len())
    }

    pub(super) fn p2m(&self, file: &MappedFile) -> &[(Pfn, Mfn)] {
        self.p2m.get_or_init(|| {
            if self.auto_translated() {
                return Vec::new();
            }
            let mut pairs: Vec<_> = self.entries(file).map(|(_, pfn, mfn)| (pfn, mfn)).collect();
            // Ascending in xl's files; no reason to trust that of any other.
            pairs.sort_by_key(|(pfn, _)| *pfn);
            pairs.dedup_by_key(|(pfn, _)| *pfn);
            pairs
        })
    }

    pub(super) fn shared_info(&self, file: &MappedFile) -> Option<&[u8]> {
        let read = || {
            let page = self.sections.shared_info.bytes(file, PAGE_SIZE as u64);
            (page.len() == PAGE_SIZE).then_some(page)
        };
        self.shared_info.get_or_init(read).as_deref()
    }

    pub(super) fn vcpu_contexts(&self, file: &MappedFile) -> Vec<VcpuContext> {
        let (word, size) = match self.sections.context_size {
            CONTEXT_SIZE_32 => (Word::W32, CONTEXT_SIZE_32),
            _ => (Word::W64, CONTEXT_SIZE_64),
        };
        self.sections
            .prstatus
            .bytes(file, VCPUS * size)
            .chunks_exact(size as usize)
            .map_while(|bytes| VcpuContext::parse(bytes, word, self.auto_translated()))
            .collect()
    }
}
