//! The ELF file of a kernel, a hypervisor or a module, by section and by link-time address.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use goblin::elf::section_header::{
    SectionHeader, SHF_ALLOC, SHF_COMPRESSED, SHT_NOBITS, SHT_NOTE, SHT_NULL, SHT_SYMTAB,
};

use super::{inflate, Bytes, Header, Notes};
use crate::addr::{VirtAddr, Word};
use crate::file::MappedFile;
use crate::{Error, Result};

/// Type of the note, named `GNU`, that holds a build id.
const NT_GNU_BUILD_ID: u32 = 3;

/// Bounds on what a hostile file can make us look at: section names are cut after so many bytes,
/// and a build id is sought in so many note sections. Real ones have 30 and 5.
const NAME_LIMIT: u64 = 256;
const NOTE_SECTIONS: usize = 64;

/// The ELF file of a kernel (`vmlinux`), a hypervisor (`xen-syms`) or a module (`.ko`).
///
/// Opening it reads the headers only. Nothing is copied but compressed sections, which are inflated
/// when they are first asked for.
#[derive(Debug)]
pub struct Image {
    file: Arc<MappedFile>,
    header: Header,
    sections: Vec<SectionHeader>,
    /// Address and index into `sections` of those that are loaded, ascending.
    located: Vec<(u64, usize)>,
    /// The content of compressed sections, by index into `sections`.
    inflated: BTreeMap<usize, OnceLock<Option<Arc<[u8]>>>>,
}

/// One section of an [`Image`].
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    image: &'a Image,
    index: usize,
    header: &'a SectionHeader,
}

impl<'a> Section<'a> {
    /// Its name; empty where it cannot be read.
    pub fn name(&self) -> &'a str {
        self.image.name(self.header).unwrap_or_default()
    }

    /// Where it was linked to be; 0 for sections that are not loaded.
    pub fn address(&self) -> VirtAddr {
        VirtAddr(self.header.sh_addr)
    }

    /// Where its bytes are in the file.
    pub fn offset(&self) -> u64 {
        self.header.sh_offset
    }

    /// Its size in memory, in bytes; where it is compressed, its size inflated.
    pub fn size(&self) -> u64 {
        if self.image.inflated.contains_key(&self.index) {
            let raw = self
                .image
                .file
                .range(self.header.sh_offset, self.header.sh_size);
            raw.and_then(|raw| inflate::size(raw, self.image.header.ctx()))
                .unwrap_or(0)
        } else {
            self.header.sh_size
        }
    }

    /// Its bytes, inflated where they are compressed. `None` where the file has none (`SHT_NOBITS`,
    /// as strip leaves the text of a vmlinux), is cut before their end, or they do not inflate.
    pub fn data(&self) -> Option<&'a [u8]> {
        self.image.bytes(self.index, self.header)
    }

    /// The same, to be kept.
    pub fn bytes(&self) -> Option<Bytes> {
        self.data()?;
        match self.image.inflated.get(&self.index) {
            Some(cell) => cell.get()?.clone().map(Bytes::from),
            None => Bytes::mapped(&self.image.file, self.header.sh_offset, self.header.sh_size),
        }
    }
}

impl Image {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(Arc::new(MappedFile::open(path)?))
    }

    /// An image of a file that is mapped already.
    pub fn new(file: Arc<MappedFile>) -> Result<Self> {
        let header = Header::parse(file.bytes()).map_err(|malformed| malformed.of(&file))?;
        let sections: Vec<_> = header.section_headers(file.bytes()).collect();
        let flagged = |flag: u32| {
            let headers = sections.iter().enumerate();
            headers.filter(move |(_, section)| section.sh_flags & u64::from(flag) != 0)
        };
        let mut located: Vec<_> = flagged(SHF_ALLOC)
            .filter(|(_, section)| section.sh_size > 0)
            .map(|(i, section)| (section.sh_addr, i))
            .collect();
        located.sort_unstable();
        // What is loaded may not be compressed (gABI).
        let inflated = flagged(SHF_COMPRESSED)
            .filter(|(_, section)| section.sh_flags & u64::from(SHF_ALLOC) == 0)
            .map(|(i, _)| (i, OnceLock::new()))
            .collect();
        Ok(Self {
            file,
            header,
            sections,
            located,
            inflated,
        })
    }

    /// The file.
    pub fn file(&self) -> &Arc<MappedFile> {
        &self.file
    }

    /// 32 or 64 bits.
    pub fn word(&self) -> Word {
        self.header.word
    }

    /// `e_machine`.
    pub fn machine(&self) -> u16 {
        self.header.machine
    }

    /// All sections, in the order of the file.
    pub fn sections(&self) -> impl Iterator<Item = Section<'_>> {
        let headers = self.sections.iter().enumerate();
        headers
            .filter(|(_, header)| header.sh_type != SHT_NULL)
            .map(|(index, header)| Section {
                image: self,
                index,
                header,
            })
    }

    /// The first section of this name.
    pub fn section(&self, name: &str) -> Option<Section<'_>> {
        self.sections().find(|section| section.name() == name)
    }

    /// The bytes of the section of this name, or why there are none.
    pub fn data(&self, name: &str) -> Result<&[u8]> {
        let absent = |why: &str| {
            let path = self.file.path().display();
            Error::Absent(format!("{path}: {why} {name}"))
        };
        let section = self.section(name).ok_or_else(|| absent("no section"))?;
        section
            .data()
            .ok_or_else(|| absent("the file has no bytes of section"))
    }

    /// The symbol table and the section of its strings.
    pub fn symbol_table(&self) -> Option<(Section<'_>, Section<'_>)> {
        let symbols = self
            .sections()
            .find(|section| section.header.sh_type == SHT_SYMTAB)?;
        let index = usize::try_from(symbols.header.sh_link).ok()?;
        let strings = Section {
            image: self,
            index,
            header: self.sections.get(index)?,
        };
        Some((symbols, strings))
    }

    /// `len` bytes at a link-time address. They must lie within one section.
    pub fn read(&self, address: VirtAddr, len: u64) -> Result<&[u8]> {
        self.find(address, len).ok_or_else(|| {
            Error::Absent(format!(
                "{}: no section has {len:#x} bytes at {address} in the file",
                self.file.path().display()
            ))
        })
    }

    /// The address ranges of the sections that the kernel or hypervisor runs from, ascending, those
    /// less than `gap` bytes apart joined. Sections at address 0 (the zero-based per-cpu template
    /// of Linux on x86_64, all sections of a module) are left out.
    pub fn spans(&self, gap: u64) -> Vec<Range<VirtAddr>> {
        let mut spans: Vec<Range<VirtAddr>> = Vec::new();
        for &(start, i) in self.located.iter().filter(|(start, _)| *start != 0) {
            let size = self.sections.get(i).map_or(0, |section| section.sh_size);
            let end = start.saturating_add(size);
            match spans.last_mut() {
                Some(last) if start <= last.end.0.saturating_add(gap) => {
                    last.end = last.end.max(VirtAddr(end));
                }
                _ => spans.push(VirtAddr(start)..VirtAddr(end)),
            }
        }
        spans
    }

    /// The build id, in bytes.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.sections
            .iter()
            .enumerate()
            .filter(|(i, header)| header.sh_type == SHT_NOTE && !self.inflated.contains_key(i))
            .take(NOTE_SECTIONS)
            .filter_map(|(i, header)| Some((header, self.bytes(i, header)?)))
            .flat_map(|(header, bytes)| Notes::new(bytes, header.sh_offset).map_while(Result::ok))
            .find(|note| note.name == b"GNU" && note.kind == NT_GNU_BUILD_ID)
            .map(|note| note.desc)
    }

    fn find(&self, address: VirtAddr, len: u64) -> Option<&[u8]> {
        let above = self.located.partition_point(|&(at, _)| at <= address.0);
        let &(at, i) = self.located.get(above.checked_sub(1)?)?;
        let header = self.sections.get(i)?;
        let start = usize::try_from(address.0.checked_sub(at)?).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.bytes(i, header)?.get(start..end)
    }

    fn name(&self, header: &SectionHeader) -> Option<&str> {
        let index = usize::try_from(self.header.shstrndx).ok()?;
        let names = self.sections.get(index)?;
        let start = u64::try_from(header.sh_name).ok()?;
        let len = names.sh_size.checked_sub(start)?.min(NAME_LIMIT);
        let bytes = self.file.range(names.sh_offset.checked_add(start)?, len)?;
        std::str::from_utf8(bytes.split(|&byte| byte == 0).next()?).ok()
    }

    fn bytes(&self, index: usize, header: &SectionHeader) -> Option<&[u8]> {
        if header.sh_type == SHT_NOBITS {
            return None;
        }
        let raw = self.file.range(header.sh_offset, header.sh_size)?;
        match self.inflated.get(&index) {
            None => Some(raw),
            Some(cell) => cell
                .get_or_init(|| inflate::inflate(raw, self.header.ctx()))
                .as_deref(),
        }
    }
}
