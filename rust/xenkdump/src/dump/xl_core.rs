//! The file that `xl dump-core` (formerly `xm dump-core`) writes of one domain: ELF without segments,
//! whose sections hold the pages, an index of them, and the vCPUs' registers.
//!
//! Layout: Xen's `docs/misc/dump-core-format.txt`. Always ELFCLASS64, whatever the guest. Page *i*
//! of `.xen_pages` belongs to entry *i* of `.xen_p2m` (PV: pfn and mfn) or of `.xen_pfn` (HVM and
//! PVH: the pfn, which is used as the machine frame number too).

use std::sync::OnceLock;

use goblin::elf::section_header::{SectionHeader, SHT_NOBITS};

use super::container::{Container, DomainKind, Headers};
use super::elf;
use super::in_place::InPlace;
use super::note::{Note, NoteReader};
use super::run_map::RunMap;
use super::vcpu_context::{VcpuContext, CONTEXT_SIZE_32, CONTEXT_SIZE_64};
use super::warnings::Warnings;
use crate::addr::{Mfn, Pfn, Word, PAGE_SIZE};
use crate::alloc;
use crate::elf::Header;
use crate::file::Storage;
use crate::limits::{
    MAX_DUMP_CORE_NAME, MAX_DUMP_CORE_NAMES_SIZE, MAX_DUMP_CORE_SECTIONS, MAX_DUMP_CORE_VCPUS,
};
use crate::Result;

/// Size of an entry of `.xen_p2m`: pfn and mfn.
const P2M_ENTRY: u64 = 16;
/// Size of an entry of `.xen_pfn`.
const PFN_ENTRY: u64 = 8;

/// The memory of one domain.
#[derive(Debug)]
struct DomainCore<S> {
    storage: S,
    headers: Headers,
    sections: Sections,
    /// Built on first use: it takes a read of the whole index.
    map: OnceLock<RunMap>,
    p2m: OnceLock<Vec<(Pfn, Mfn)>>,
    shared_info: OnceLock<Option<Vec<u8>>>,
}

/// The sections of the format.
#[derive(Clone, Copy, Debug, Default)]
struct Sections {
    notes: Range,
    prstatus: Range,
    context_size: u64,
    shared_info: Range,
    pages: Range,
    p2m: Range,
    pfn: Range,
    /// The section names could not be read; sections were identified by their entry sizes.
    nameless: bool,
    /// Section headers that the ELF header counts and the file does not have.
    missing: u64,
}

/// Offset and size of a section; size 0 if there is none.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    offset: u64,
    size: u64,
}

impl Range {
    fn exists(self) -> bool {
        self.size > 0
    }

    /// How many of its bytes the file holds.
    fn held(self, storage: &impl Storage) -> u64 {
        storage.held(self.offset, self.size)
    }

    /// Its bytes, as far as the file holds them and `limit` allows.
    fn bytes(self, storage: &impl Storage, limit: u64) -> Vec<u8> {
        storage
            .copy(self.offset, self.held(storage).min(limit))
            .unwrap_or_default()
    }
}

/// Finds the sections; `None` if the file has another format.
fn sections(storage: &impl Storage, header: &Header) -> Option<Sections> {
    if header.phnum != 0 || header.shnum == 0 {
        return None;
    }
    let names = header.section_header(storage, header.shstrndx);
    let names = names.map(|names| Range {
        offset: names.sh_offset,
        size: names.sh_size,
    });
    let names = names.unwrap_or_default();
    let claimed = names.size;
    let names = names.bytes(storage, MAX_DUMP_CORE_NAMES_SIZE);

    let mut found = Sections {
        nameless: names.is_empty() || (names.len() as u64) < claimed.min(MAX_DUMP_CORE_NAMES_SIZE),
        missing: header.shnum,
        ..Sections::default()
    };
    for header in header.section_headers(storage).take(MAX_DUMP_CORE_SECTIONS) {
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
    let is_one = found.notes.exists()
        && (found.pages.exists() || found.prstatus.exists() || found.p2m.exists());
    is_one.then_some(found)
}

/// A name up to its NUL, cut to a length that no known name has.
pub(super) fn name_in(names: &[u8]) -> &[u8] {
    let longest = names.get(..MAX_DUMP_CORE_NAME).unwrap_or(names);
    longest.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Identifies a section by the entry size and alignment that xl writes: the section names are at the
/// end of the file, so a truncated file has lost them.
fn name_by_shape(header: &SectionHeader) -> &'static [u8] {
    use goblin::elf::section_header::{SHT_NOTE, SHT_PROGBITS};
    match (header.sh_type, header.sh_entsize, header.sh_addralign) {
        (SHT_NOTE, ..) => b".note.Xen",
        (SHT_PROGBITS, CONTEXT_SIZE_64 | CONTEXT_SIZE_32, _) => b".xen_prstatus",
        (SHT_PROGBITS, 4096, 4096) => b".xen_pages",
        (SHT_PROGBITS, 4096, _) => b".xen_shared_info",
        (SHT_PROGBITS, P2M_ENTRY, _) => b".xen_p2m",
        (SHT_PROGBITS, PFN_ENTRY, _) => b".xen_pfn",
        _ => b"",
    }
}

/// Whether the file has the sections of this format.
pub(super) fn matches(storage: &impl Storage) -> bool {
    elf::matches(storage)
        && elf::header(storage).is_ok_and(|header| sections(storage, &header).is_some())
}

/// Reads the section headers and the headers of the notes. The file must [match](matches).
pub(super) fn open<S: Storage + 'static>(storage: S) -> Result<Box<dyn Container>> {
    let header = elf::header(&storage)?;
    let sections = sections(&storage, &header).unwrap_or_default();
    let mut warnings = Warnings::default();
    let mut notes = NoteReader::new(&storage);
    notes.read(sections.notes.offset, sections.notes.size, &mut warnings);
    let notes = notes.notes;
    sections.check(&storage, &mut warnings);
    Ok(Box::new(DomainCore {
        storage,
        headers: Headers {
            format: "xl dump-core",
            machine_type: header.machine,
            word: Word::W64,
            notes,
            warnings,
        },
        sections,
        map: OnceLock::new(),
        p2m: OnceLock::new(),
        shared_info: OnceLock::new(),
    }))
}

impl Sections {
    /// Warns of what is missing.
    fn check(&self, storage: &impl Storage, warnings: &mut Warnings) {
        if self.missing > 0 {
            warnings.push(format!(
                "{} section headers lie past the end of the file",
                self.missing
            ));
        }
        if self.nameless {
            warnings.push(
                "the section names (.shstrtab) cannot be read: sections are told apart by their \
                 entry sizes",
            );
        }
        for (name, range) in [
            (".xen_prstatus", self.prstatus),
            (".xen_shared_info", self.shared_info),
            (".xen_pages", self.pages),
            (".xen_p2m", self.p2m),
            (".xen_pfn", self.pfn),
        ] {
            let held = range.held(storage);
            if held < range.size {
                warnings.push(format!(
                    "{name} claims {} bytes at offset {:#x}, the file holds {held} of them",
                    range.size, range.offset
                ));
            }
        }
        let (index, size) = self.index();
        let (entries, pages) = (index.size / size, self.pages.size / PAGE_SIZE as u64);
        if index.exists() && entries != pages {
            // xl writes an entry for each page; those of pages that went away are invalid.
            let lost = if pages < entries {
                "the last entries have no page"
            } else {
                "which pages the last ones are is not known"
            };
            warnings.push(format!(
                ".xen_pages has {pages} pages, its index {entries} entries: {lost}"
            ));
        }
        if self.p2m.exists() && self.pfn.exists() {
            warnings.push("both .xen_p2m and .xen_pfn are there: .xen_p2m is used");
        } else if !self.p2m.exists() && !self.pfn.exists() {
            warnings.push("neither .xen_p2m nor .xen_pfn is there: which page is which is lost");
        }
    }

    fn auto_translated(&self) -> bool {
        self.pfn.exists() && !self.p2m.exists()
    }

    /// The index of the pages, and the size of its entries.
    fn index(&self) -> (Range, u64) {
        if self.auto_translated() {
            (self.pfn, PFN_ENTRY)
        } else {
            (self.p2m, P2M_ENTRY)
        }
    }
}

impl<S: Storage> DomainCore<S> {
    /// Every entry of the index that names a frame, with the number of its page in `.xen_pages`.
    /// Bounded by the size of the file.
    fn entries(&self) -> impl Iterator<Item = (u64, Pfn, Mfn)> + '_ {
        let (index, size) = self.sections.index();
        (0..index.held(&self.storage) / size)
            .map_while(move |i| {
                // Within the file, so the sum cannot wrap.
                let mut entry = [0; P2M_ENTRY as usize];
                let entry = entry.get_mut(..size as usize)?;
                self.storage.read_at(index.offset + i * size, entry).ok()?;
                let mfn = entry.get(entry.len() - 8..)?;
                Some((i, Word::W64.get(entry)?, Word::W64.get(mfn)?))
            })
            .filter_map(|(i, pfn, mfn)| {
                // All ones: the page went away while xl copied (ballooning).
                let invalid = pfn == u64::MAX || mfn == u64::MAX;
                (!invalid).then_some((i, Pfn(pfn), Mfn(mfn)))
            })
    }
}

impl<S: Storage> Container for DomainCore<S> {
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
        // As many pages as there are, or fewer where the index is shorter. It is not read for this.
        let (index, size) = self.sections.index();
        let pages = self.sections.pages.held(&self.storage) / PAGE_SIZE as u64;
        pages.min(index.held(&self.storage) / size) * PAGE_SIZE as u64
    }

    fn memory_size(&self) -> u64 {
        self.sections.pages.size
    }

    fn vcpu_contexts(&self) -> Vec<VcpuContext> {
        let (word, size) = match self.sections.context_size {
            CONTEXT_SIZE_32 => (Word::W32, CONTEXT_SIZE_32),
            _ => (Word::W64, CONTEXT_SIZE_64),
        };
        let prstatus = self.sections.prstatus;
        let bytes = prstatus.bytes(&self.storage, MAX_DUMP_CORE_VCPUS * size);
        let contexts = bytes.chunks_exact(size as usize).zip(0..);
        alloc::collect(contexts.map_while(|(bytes, id)| {
            VcpuContext::parse(bytes, word, self.auto_translated(), id, ".xen_prstatus")
        }))
    }

    fn shared_info(&self) -> Option<&[u8]> {
        let read = || {
            let section = self.sections.shared_info;
            let page = section.bytes(&self.storage, PAGE_SIZE as u64);
            (page.len() == PAGE_SIZE).then_some(page)
        };
        self.shared_info.get_or_init(read).as_deref()
    }

    fn p2m(&self) -> Option<&[(Pfn, Mfn)]> {
        Some(self.p2m.get_or_init(|| {
            if self.auto_translated() {
                return Vec::new();
            }
            let mut entries = alloc::collect(self.entries());
            // xl writes them in ascending order; others may not. The first in the file is kept.
            entries.sort_unstable_by_key(|(i, pfn, _)| (*pfn, *i));
            entries.dedup_by_key(|(_, pfn, _)| *pfn);
            alloc::collect(entries.into_iter().map(|(_, pfn, mfn)| (pfn, mfn)))
        }))
    }

    fn domain_kind(&self) -> Option<DomainKind> {
        Some(if self.sections.auto_translated() {
            DomainKind::Translated
        } else {
            DomainKind::Pv
        })
    }

    fn auto_translated(&self) -> bool {
        self.sections.auto_translated()
    }
}

impl<S: Storage> InPlace for DomainCore<S> {
    fn storage(&self) -> &impl Storage {
        &self.storage
    }

    fn map(&self) -> &RunMap {
        self.map.get_or_init(|| {
            let pages = self.sections.pages;
            let count = pages.size / PAGE_SIZE as u64;
            let entries = self.entries().take_while(|(i, ..)| *i < count);
            let frames = alloc::collect(entries.map(|(i, _, mfn)| {
                let offset = i.saturating_mul(PAGE_SIZE as u64);
                (mfn, pages.offset.saturating_add(offset))
            }));
            RunMap::of_pages(frames, self.storage.len())
        })
    }
}
