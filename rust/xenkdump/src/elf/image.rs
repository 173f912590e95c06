//! The ELF file of a kernel, a hypervisor or a module, by section and by link-time address.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use goblin::elf::compression_header::CompressionHeader;
use goblin::elf::section_header::{
    SectionHeader, SHF_ALLOC, SHF_COMPRESSED, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS, SHT_NOTE,
    SHT_NULL, SHT_SYMTAB,
};

use super::{header, inflate, Bytes, Header, Notes};
use crate::addr::{VirtAddr, Word, PAGE_SIZE};
use crate::alloc;
use crate::budget::Budget;
use crate::file::{RegularFile, Storage};
use crate::limits::{
    MAX_BUILD_ID_SECTIONS, MAX_BUILD_ID_SECTION_SIZE, MAX_IMAGE_SECTIONS, MAX_INFLATED_RATIO,
    MAX_INFLATED_SMALL, MAX_SECTION_NAME, MAX_SECTION_SIZE,
};
use crate::{Error, Result};

/// Type of the note, named `GNU`, that holds a build id.
const NT_GNU_BUILD_ID: u32 = 3;

/// Bytes of a section that are read at once if it is read in pieces: they fit into the second-level cache.
const PIECE: usize = 128 << 10;

/// The ELF file of a kernel (`vmlinux`), a hypervisor (`xen-syms`) or a module (`.ko`).
///
/// Opening it reads the headers only. A section is read, and inflated if it is compressed, on first
/// use, and then kept. In total, no more bytes are read than the file has; inflated sections have a
/// separate budget.
///
/// What a stripped file lacks is taken from its debug file, once there is one.
#[derive(Debug)]
pub struct Image {
    file: Box<dyn Storage>,
    header: Header,
    sections: Vec<SectionHeader>,
    /// Address and index into `sections` of each loaded section, by ascending address.
    located: Vec<(u64, usize)>,
    /// The contents of sections, read on first use, by index into `sections`.
    contents: Vec<OnceLock<Option<Bytes>>>,
    /// The budget of bytes read from the file.
    read: Budget<'static>,
    /// The budget of bytes inflated from compressed sections.
    inflated: Budget<'static>,
    debug: OnceLock<Arc<Image>>,
}

/// One section of an [`Image`].
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    image: &'a Image,
    index: usize,
    header: &'a SectionHeader,
}

impl<'a> Section<'a> {
    /// Its name; empty if it cannot be read.
    pub fn name(&self) -> &'a str {
        self.image.name(self.header).unwrap_or_default()
    }

    /// Its link-time address; 0 for sections that are not loaded.
    pub fn address(&self) -> VirtAddr {
        VirtAddr(self.header.sh_addr)
    }

    /// Its offset in the file.
    pub fn offset(&self) -> u64 {
        self.header.sh_offset
    }

    /// Its size in memory, in bytes; inflated if it is compressed.
    pub fn size(&self) -> u64 {
        if self.image.is_zdebug(self.index) {
            return self.data().map_or(0, |data| data.len() as u64);
        }
        if !is_compressed(self.header) {
            return self.header.sh_size;
        }
        let header = header::at::<CompressionHeader, _>(
            &self.image.file,
            self.header.sh_offset,
            self.image.header.ctx(),
        );
        header.map_or(0, |header| header.ch_size)
    }

    /// Its bytes, inflated if they are compressed. `None` if the file does not contain them
    /// (`SHT_NOBITS`, as the text of a stripped vmlinux), is truncated, or if they cannot be inflated.
    pub fn data(&self) -> Option<&'a [u8]> {
        self.image.content(self.index).map(|bytes| &**bytes)
    }

    /// Whether the file has no bytes of it, but the memory of the running kernel has: a section of
    /// code or constants in the output of `objcopy --only-keep-debug`.
    pub fn is_only_in_memory(&self) -> bool {
        self.header.sh_type == SHT_NOBITS && self.header.sh_flags & u64::from(SHF_ALLOC) != 0
    }

    /// Passes its bytes to `visit`, in order and in pieces whose lengths are multiples of `unit` but for
    /// the last. Unlike [`Section::data`] it keeps no copy of a section that is not compressed.
    pub fn pieces(&self, unit: usize, visit: &mut dyn FnMut(&[u8])) -> Option<()> {
        let Self {
            image,
            index,
            header,
        } = *self;
        let is_held = image.contents.get(index)?.get().is_some();
        if is_held || is_compressed(header) || image.is_zdebug(index) || !is_readable(header) {
            visit(self.data()?);
            return Some(());
        }
        if image.file.held(header.sh_offset, header.sh_size) < header.sh_size {
            return None;
        }
        let most = (PIECE / unit.max(1)).max(1).saturating_mul(unit.max(1)) as u64;
        let mut buf = alloc::filled(0, header.sh_size.min(most) as usize);
        let mut at = 0;
        while at < header.sh_size {
            let len = (header.sh_size - at).min(most) as usize;
            let piece = buf.get_mut(..len)?;
            image
                .file
                .read_at(header.sh_offset.checked_add(at)?, piece)
                .ok()?;
            visit(piece);
            at += len as u64;
        }
        Some(())
    }

    /// [`Section::data`], as shared bytes.
    pub fn bytes(&self) -> Option<Bytes> {
        self.image.content(self.index).cloned()
    }
}

impl Image {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(Box::new(RegularFile::open(path)?))
    }

    /// An image of an open file.
    pub fn new(file: Box<dyn Storage>) -> Result<Self> {
        let header = Header::parse(&file).map_err(|malformed| malformed.of(file.file()))?;
        header
            .check_sections()
            .map_err(|malformed| malformed.of(file.file()))?;
        let sections = alloc::collect(header.section_headers(&file).take(MAX_IMAGE_SECTIONS));
        let located = sections
            .iter()
            .enumerate()
            .filter(|(_, section)| section.sh_flags & u64::from(SHF_ALLOC) != 0)
            .filter(|(_, section)| section.sh_size > 0)
            .map(|(i, section)| (section.sh_addr, i));
        let mut located = alloc::collect(located);
        located.sort_unstable();
        let contents = alloc::collect(sections.iter().map(|_| OnceLock::new()));
        let inflated = file.len().saturating_mul(MAX_INFLATED_RATIO);
        let inflated = inflated.clamp(MAX_INFLATED_SMALL, MAX_SECTION_SIZE);
        Ok(Self {
            read: Budget::new("sections of an image", file.len()),
            inflated: Budget::new("inflated sections of an image", inflated),
            file,
            header,
            sections,
            located,
            contents,
            debug: OnceLock::new(),
        })
    }

    /// The file on disk.
    pub fn file(&self) -> &RegularFile {
        self.file.file()
    }

    /// Takes what this file lacks from `debug`: symbols, debugging information, and bytes of loaded
    /// sections. The caller has made sure that both are of one build. Only the first one is used.
    pub fn set_debug(&self, debug: Arc<Self>) {
        let _ = self.debug.set(debug);
    }

    /// Its debug file.
    pub fn debug(&self) -> Option<&Arc<Self>> {
        self.debug.get()
    }

    /// 32 or 64 bits.
    pub fn word(&self) -> Word {
        self.header.word
    }

    /// `e_machine`.
    pub fn machine(&self) -> u16 {
        self.header.machine
    }

    /// All sections, in file order.
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

    /// The first section of this name. One with debugging information may be named `.zdebug_*`.
    ///
    /// If this file has no contents for the section, it is the debug file's.
    pub fn section(&self, name: &str) -> Option<Section<'_>> {
        let named = |name: &str| self.sections().find(|section| section.name() == name);
        let own =
            named(name).or_else(|| named(&format!(".zdebug_{}", name.strip_prefix(".debug_")?)));
        let has_bytes = |section: &Section<'_>| section.header.sh_type != SHT_NOBITS;
        match (own, self.debug()) {
            (Some(own), Some(_)) if has_bytes(&own) => Some(own),
            (own, Some(debug)) => debug.section(name).filter(has_bytes).or(own),
            (own, None) => own,
        }
    }

    /// The bytes of the section of this name.
    pub fn data(&self, name: &str) -> Result<&[u8]> {
        let absent = |why: &str| {
            let path = self.file().path().display();
            Error::Absent(format!("{path}: {why} {name}"))
        };
        let section = self.section(name).ok_or_else(|| absent("no section"))?;
        section
            .data()
            .ok_or_else(|| absent("the file has no bytes of section"))
    }

    /// The symbol table and its string table.
    pub fn symbol_table(&self) -> Option<(Section<'_>, Section<'_>)> {
        let symbols = self
            .sections()
            .find(|section| section.header.sh_type == SHT_SYMTAB);
        let Some(symbols) = symbols else {
            return self.debug()?.symbol_table();
        };
        let index = usize::try_from(symbols.header.sh_link).ok()?;
        let strings = Section {
            image: self,
            index,
            header: self.sections.get(index)?,
        };
        Some((symbols, strings))
    }

    /// The letters that nm shows for local symbols, by the numbers of their sections.
    pub fn section_letters(&self) -> Vec<u8> {
        let is_table = |section: &SectionHeader| section.sh_type == SHT_SYMTAB;
        if let (false, Some(debug)) = (self.sections.iter().any(is_table), self.debug()) {
            return debug.section_letters();
        }
        // `objcopy --only-keep-debug` and kernels that were stripped of their code.
        let is_without_bytes = self
            .sections()
            .any(|section| section.is_only_in_memory() && has_code(section.header));
        let letter = |header| {
            let name = self.name(header).unwrap_or_default();
            letter(name, header, is_without_bytes)
        };
        alloc::collect(self.sections.iter().map(letter))
    }

    /// `len` bytes at a link-time address, which must be within one section.
    pub fn read(&self, address: VirtAddr, len: u64) -> Result<Vec<u8>> {
        self.find(address, len).ok_or_else(|| {
            Error::Absent(format!(
                "{}: no section has {len:#x} bytes at {address} in the file",
                self.file().path().display()
            ))
        })
    }

    /// The address ranges of the loaded sections of a kernel or hypervisor, ascending; those less than
    /// `gap` bytes apart are joined. Excludes sections at address 0 (the zero-based per-cpu template
    /// of Linux on x86_64, all sections of a module).
    pub fn spans(&self, gap: u64) -> Vec<Range<VirtAddr>> {
        let mut spans: Vec<Range<VirtAddr>> = Vec::new();
        for &(start, i) in self.located.iter().filter(|(start, _)| *start != 0) {
            let size = self.sections.get(i).map_or(0, |section| section.sh_size);
            let end = start.saturating_add(size);
            match spans.last_mut() {
                Some(last) if start <= last.end.0.saturating_add(gap) => {
                    last.end = last.end.max(VirtAddr(end));
                }
                _ => alloc::push(&mut spans, VirtAddr(start)..VirtAddr(end)),
            }
        }
        spans
    }

    /// The build id.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.sections
            .iter()
            .enumerate()
            .filter(|(_, header)| header.sh_type == SHT_NOTE && !is_compressed(header))
            .filter(|(_, header)| header.sh_size <= MAX_BUILD_ID_SECTION_SIZE)
            .take(MAX_BUILD_ID_SECTIONS)
            .filter_map(|(i, header)| Some((header, self.content(i)?)))
            .flat_map(|(header, bytes)| Notes::new(bytes, header.sh_offset).map_while(Result::ok))
            .find(|note| note.name == b"GNU" && note.kind == NT_GNU_BUILD_ID)
            .map(|note| note.desc)
    }

    fn find(&self, address: VirtAddr, len: u64) -> Option<Vec<u8>> {
        let (offset, held) = self.place(address)?;
        if len > held {
            return None;
        }
        self.file.copy(offset, len).ok()
    }

    /// The offset in the file of a link-time address, and how many bytes the section has from there on.
    fn place(&self, address: VirtAddr) -> Option<(u64, u64)> {
        let above = self.located.partition_point(|&(at, _)| at <= address.0);
        let &(at, i) = self.located.get(above.checked_sub(1)?)?;
        let header = self.sections.get(i)?;
        let start = address.0.checked_sub(at)?;
        let held = header.sh_size.checked_sub(start)?;
        if header.sh_type == SHT_NOBITS {
            return None;
        }
        Some((header.sh_offset.checked_add(start)?, held))
    }

    /// Fills `buf` with the bytes at a link-time address, from one or more sections. A gap of less than a page
    /// between two sections reads as zeros, which is what the linker writes there. Returns false if no
    /// section of the file has bytes there.
    pub(crate) fn fill(&self, address: VirtAddr, buf: &mut [u8]) -> bool {
        let mut done = 0;
        let mut padding = 0;
        let wanted = buf.len();
        while done < wanted {
            let Some(at) = address.0.checked_add(done as u64).map(VirtAddr) else {
                return false;
            };
            let rest = buf.get_mut(done..).unwrap_or_default();
            match self.place(at) {
                Some((offset, held)) if held > 0 => {
                    let n = usize::try_from(held).unwrap_or(usize::MAX).min(rest.len());
                    let part = rest.get_mut(..n).unwrap_or_default();
                    if self.file.read_at(offset, part).is_err() {
                        return false;
                    }
                    done += n;
                    padding = 0;
                }
                _ => {
                    let next = self.located.partition_point(|&(start, _)| start <= at.0);
                    let next = self.located.get(next).map_or(u64::MAX, |&(start, _)| start);
                    let n = usize::try_from(next - at.0)
                        .unwrap_or(usize::MAX)
                        .min(rest.len());
                    padding += n;
                    if padding >= PAGE_SIZE || padding == wanted {
                        return false;
                    }
                    rest.get_mut(..n).unwrap_or_default().fill(0);
                    done += n;
                }
            }
        }
        true
    }

    fn name(&self, header: &SectionHeader) -> Option<&str> {
        let index = usize::try_from(self.header.shstrndx).ok()?;
        let bytes = self.content(index)?.get(header.sh_name..)?;
        let bytes = bytes.get(..MAX_SECTION_NAME).unwrap_or(bytes);
        std::str::from_utf8(bytes.split(|&byte| byte == 0).next()?).ok()
    }

    fn content(&self, index: usize) -> Option<&Bytes> {
        let header = self.sections.get(index)?;
        let read = || self.load(header, self.is_zdebug(index));
        self.contents.get(index)?.get_or_init(read).as_ref()
    }

    /// Whether it is a section of compressed debugging information by its name.
    fn is_zdebug(&self, index: usize) -> bool {
        // The names themselves have none that could be looked up while they are read.
        usize::try_from(self.header.shstrndx).is_ok_and(|names| names != index)
            && self
                .sections
                .get(index)
                .and_then(|header| self.name(header))
                .is_some_and(|name| name.starts_with(".zdebug_"))
    }

    /// Reads a section from the file.
    fn load(&self, header: &SectionHeader, is_zdebug: bool) -> Option<Bytes> {
        if !is_readable(header) {
            return None;
        }
        // Sections of a valid file do not overlap, so they never exceed the budget.
        self.read.reserve(header.sh_size).ok()?;
        let bytes = Bytes::read(&*self.file, header.sh_offset, header.sh_size).ok()?;
        if is_zdebug && inflate::zdebug(&bytes).is_some() {
            return inflate::inflate_zdebug(&bytes, &self.inflated).map(Bytes::from);
        }
        if !is_compressed(header) {
            return Some(bytes);
        }
        inflate::inflate(&bytes, self.header.ctx(), &self.inflated).map(Bytes::from)
    }
}

/// The letter that nm shows for local symbols of a section (binutils' bfd_decode_symclass). A file
/// without the contents of its sections has SHT_NOBITS for all of them; the letter is then that of the full file.
fn letter(name: &str, header: &SectionHeader, is_without_bytes: bool) -> u8 {
    let has = |flag: u32| header.sh_flags & u64::from(flag) != 0;
    let is_zero = || !is_without_bytes || name.contains("bss") || name.contains("brk");
    match header.sh_type {
        SHT_NULL => b'?',
        _ if !has(SHF_ALLOC) && name.starts_with(".debug") => b'N',
        _ if !has(SHF_ALLOC) => b'n',
        _ if has(SHF_EXECINSTR) => b't',
        _ if !has(SHF_WRITE) && (header.sh_type != SHT_NOBITS || is_without_bytes) => b'r',
        SHT_NOBITS if is_zero() => b'b',
        _ => b'd',
    }
}

fn has_code(header: &SectionHeader) -> bool {
    header.sh_flags & u64::from(SHF_EXECINSTR) != 0
}

/// Whether the file has bytes of a section, and not too many.
fn is_readable(header: &SectionHeader) -> bool {
    header.sh_type != SHT_NOBITS && header.sh_size <= MAX_SECTION_SIZE
}

/// Loaded sections cannot be compressed (gABI).
fn is_compressed(header: &SectionHeader) -> bool {
    header.sh_flags & u64::from(SHF_COMPRESSED | SHF_ALLOC) == u64::from(SHF_COMPRESSED)
}
