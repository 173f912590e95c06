//! The unwinder of a kernel, with the tables of its image and its modules.
//!
//! [`crate::unwind`] does not know file formats; this module provides its tables.

use std::ops::Range;
use std::sync::Arc;

use crate::addr::{Address, VirtAddr, Word};
use crate::alloc;
use crate::elf::Bytes;
use crate::fault::Fault;
use crate::image::{Content, Image};
use crate::limits::MAX_TABLE_IN_MEMORY;
use crate::memory::Memory;
use crate::ranges::Ranges;
use crate::symbols::Symbols;
use crate::types::Types;
use crate::unwind::{
    Backtrace, CfiKind, CfiTable, CodeSymbols, Function, Method, OrcDescription, OrcFormat,
    OrcTable, OrcVerdict, Registers, Section, Stack, Unwinder,
};

/// Pairs of symbols that bound the code of Linux and Xen.
const TEXT: [(&str, &str); 3] = [("_stext", "_etext"), ("_text", "_etext"), INIT_TEXT];

/// Sizes of the elements of `.orc_unwind_ip` and of `.orc_unwind`.
const IP_SIZE: usize = 4;
const ROW_SIZE: usize = 6;

const INIT_TEXT: (&str, &str) = ("_sinittext", "_einittext");

/// The parameters of one unwind.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// The registers to start from.
    pub registers: Registers,
    /// The pc is the next instruction to execute, not a return address.
    pub exact: bool,
    /// Ranges known to be stacks.
    pub bounds: &'a [(VirtAddr, VirtAddr)],
    /// The maximum number of frames.
    pub limit: usize,
}

/// The unwinder of a kernel or of Xen.
#[derive(Debug)]
pub struct Tracer {
    unwinder: Unwinder,
    text: Text,
    orc: Orc,
    /// Warnings about tables that cannot be read.
    unreadable: Vec<String>,
}

/// The format of ORC rows.
#[derive(Debug, Default)]
struct Orc {
    header: Option<Vec<u8>>,
    fields: Option<OrcFormat>,
    release: Option<(u32, u32, u32)>,
    /// Determined with the first table: that of the image, if it has one.
    verdict: Option<OrcVerdict>,
}

/// The ranges of code.
#[derive(Debug)]
struct Text {
    image: Vec<Range<VirtAddr>>,
    modules: Ranges<()>,
    init: Option<InitCode>,
}

/// Code that is freed after the boot, by its content in the image.
#[derive(Debug)]
struct InitCode {
    /// Where it was.
    range: Range<VirtAddr>,
    /// Its address in the image.
    link_address: VirtAddr,
    image: Image,
}

impl InitCode {
    /// See [`CodeSymbols::overlay_init_code`].
    fn overlay(&self, addr: VirtAddr, code: &mut [u8]) -> usize {
        let end = addr.0.saturating_add(code.len() as u64);
        let (from, to) = (addr.max(self.range.start).0, end.min(self.range.end.0));
        let Some(length) = to.checked_sub(from).filter(|length| *length > 0) else {
            return 0;
        };
        let at = VirtAddr(self.link_address.0.wrapping_add(from - self.range.start.0));
        let before = (from - addr.0) as usize;
        let part = code.get_mut(before..before + length as usize);
        match (part, self.image.read(at, length)) {
            (Some(part), Ok(bytes)) if bytes.len() == part.len() => {
                part.copy_from_slice(&bytes);
                part.len()
            }
            _ => 0,
        }
    }
}

impl Text {
    fn contains(&self, addr: VirtAddr) -> bool {
        self.image.iter().any(|range| range.contains(&addr)) || self.modules.find(addr).is_some()
    }
}

impl Tracer {
    /// The unwinder of `image`, which runs at the addresses of `symbols`. `release` is that of a Linux
    /// kernel, such as `6.1.0-56-amd64`, and empty for Xen. `methods` restricts the methods. Without an
    /// image (symbols of a map file) there are no tables. The code in `memory` verifies their format.
    pub fn new(
        image: Option<&Image>,
        word: Word,
        memory: &dyn Memory<VirtAddr>,
        symbols: &Symbols,
        types: Option<&Types>,
        release: &str,
        methods: Option<&[Method]>,
    ) -> Self {
        let version = parse_release(release);
        let mut unwinder = if release.is_empty() {
            Unwinder::for_xen(word)
        } else {
            Unwinder::new(word, version)
        };
        if let Some(methods) = methods {
            unwinder.set_methods(methods);
        }
        let slide = symbols.slide();
        let mut tracer = Self {
            unwinder,
            text: Text {
                image: text_of(symbols),
                modules: Ranges::default(),
                init: image.and_then(|image| init_code(image, symbols)),
            },
            orc: Orc {
                release: version,
                ..Orc::default()
            },
            unreadable: Vec::new(),
        };
        if let Some(image) = image {
            let tables = Tables {
                image,
                memory,
                slide,
            };
            tracer.add_cfi(&tables);
            tracer.orc.header = tables
                .read(".orc_header")
                .ok()
                .flatten()
                .map(|content| alloc::copied(&content.bytes));
            tracer.orc.fields = types.and_then(|types| orc_fields(types, version));
            tracer.add_orc_of_image(&tables, symbols);
        }
        tracer
    }

    /// The methods in use, in the order in which they are tried.
    pub fn methods(&self) -> impl Iterator<Item = Method> + '_ {
        self.unwinder.methods()
    }

    /// Warnings about the tables.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        let verdict = self.orc.verdict.iter();
        let unreadable = self.unreadable.iter().map(String::as_str);
        unreadable.chain(verdict.filter_map(|verdict| verdict.warning.as_deref()))
    }

    /// Adds the code of a module. Its return addresses are recognized with and without an ORC table.
    pub fn add_text(&mut self, text: Range<VirtAddr>) {
        self.text.modules.add(text, ());
    }

    /// Adds the ORC table of a module's code, which the kernel keeps sorted in memory.
    pub fn add_module_orc(
        &mut self,
        memory: &dyn Memory<VirtAddr>,
        symbols: &Symbols,
        text: Range<VirtAddr>,
        ip: Vec<u8>,
        ip_address: VirtAddr,
        orc: Vec<u8>,
    ) {
        let tables = (Arc::new(ip) as Section, Arc::new(orc) as Section);
        let code = text.clone();
        self.add_orc(memory, symbols, tables, ip_address, text, |pc| {
            code.contains(&pc)
        });
    }

    /// The content of a section with unwind data.
    fn table(&mut self, tables: &Tables<'_>, name: &str) -> Option<Content> {
        match tables.read(name) {
            Ok(found) => found,
            Err(fault) => {
                self.unreadable.push(format!(
                    "{name} is only in the kernel's memory, where it cannot be read: {fault}"
                ));
                None
            }
        }
    }

    fn add_cfi(&mut self, tables: &Tables<'_>) {
        for (name, kind) in [
            (".debug_frame", CfiKind::DebugFrame),
            (".eh_frame", CfiKind::EhFrame),
        ] {
            if let Some(content) = self.table(tables, name) {
                self.unwinder.add_cfi(CfiTable::new(
                    Arc::new(content.bytes),
                    kind,
                    tables.image.word(),
                    content.address,
                    tables.slide as u64,
                ));
            }
        }
    }

    fn add_orc_of_image(&mut self, tables: &Tables<'_>, symbols: &Symbols) {
        let (Some(ip), Some(orc)) = (
            self.table(tables, ".orc_unwind_ip"),
            self.table(tables, ".orc_unwind"),
        ) else {
            return;
        };
        let text = &self.text.image;
        // Only its own code: otherwise the nearest row below could be the last one of the kernel.
        let range = Range {
            start: text.iter().map(|r| r.start).min().unwrap_or_default(),
            end: text
                .iter()
                .map(|r| r.end)
                .max()
                .unwrap_or(VirtAddr(u64::MAX)),
        };
        // Init code was freed.
        let init = symbols_range(symbols, INIT_TEXT);
        let stays = |pc| !init.as_ref().is_some_and(|init| init.contains(&pc));
        for part in OrcPart::of(ip, orc, tables.slide) {
            let range = part.range(&range);
            self.add_orc(
                tables.memory,
                symbols,
                part.tables,
                part.address,
                range,
                stays,
            );
        }
    }

    /// Adds a table if its format is known. `stays` selects code that is still in memory.
    fn add_orc(
        &mut self,
        memory: &dyn Memory<VirtAddr>,
        symbols: &Symbols,
        (ip, rows): (Section, Section),
        ip_address: VirtAddr,
        code: Range<VirtAddr>,
        stays: impl Fn(VirtAddr) -> bool,
    ) {
        if !self.unwinder.uses_orc() {
            return;
        }
        let any = OrcFormat::of_release(self.orc.release);
        let mut table = OrcTable::new(ip, ip_address, rows, any, (code.start, code.end));
        let has_cfi = self.unwinder.methods().any(|method| method == Method::Cfi);
        let Orc {
            header,
            fields,
            release,
            verdict,
        } = &mut self.orc;
        let verdict = verdict.get_or_insert_with(|| {
            let symbols = Code {
                symbols,
                text: &self.text,
            };
            let description = OrcDescription {
                header: header.as_deref(),
                fields: *fields,
                release: *release,
                has_cfi,
            };
            description.verify(&table, memory, &symbols, stays)
        });
        if let Some(format) = verdict.format {
            table.set_format(format);
            self.unwinder.add_orc(table);
        }
    }

    /// The frames of one stack.
    pub fn trace(
        &self,
        memory: &dyn Memory<VirtAddr>,
        symbols: &Symbols,
        start: Start<'_>,
    ) -> Backtrace {
        let code = Code {
            symbols,
            text: &self.text,
        };
        self.unwinder.unwind(&Stack {
            memory,
            symbols: &code,
            registers: start.registers,
            exact: start.exact,
            bounds: start.bounds,
            limit: start.limit,
        })
    }
}

/// The sections of an image, and the memory of the kernel that runs it.
struct Tables<'a> {
    image: &'a Image,
    memory: &'a dyn Memory<VirtAddr>,
    slide: i64,
}

impl Tables<'_> {
    /// The content of a section; `None` if there is none. That of a section without bytes in the file,
    /// as `objcopy --only-keep-debug` leaves it, is read from memory.
    fn read(&self, name: &str) -> Result<Option<Content>, Fault> {
        if let Some(content) = self.image.content(name) {
            return Ok(Some(content));
        }
        let Image::File(file) = self.image else {
            return Ok(None);
        };
        let section = file
            .section(name)
            .filter(|section| section.is_only_in_memory() && section.size() <= MAX_TABLE_IN_MEMORY);
        let Some(section) = section else {
            return Ok(None);
        };
        let mut bytes = alloc::filled(0, section.size() as usize);
        let address = section.address().raw().wrapping_add_signed(self.slide);
        self.memory.read(VirtAddr(address), &mut bytes)?;
        Ok(Some(Content {
            address: section.address(),
            bytes: bytes.into(),
            holes: Vec::new(),
        }))
    }
}

/// Rows of an ORC table that are all in the dump.
struct OrcPart {
    tables: (Section, Section),
    address: VirtAddr,
    /// The code that they describe; `None` for all that the table has.
    code: Option<Range<VirtAddr>>,
}

impl OrcPart {
    /// A table, divided where rows are missing: a search among them could end at any row.
    fn of(ip: Content, orc: Content, slide: i64) -> Vec<Self> {
        let address = ip.address.raw().wrapping_add_signed(slide);
        if ip.holes.is_empty() && orc.holes.is_empty() {
            return vec![Self {
                tables: (Arc::new(ip.bytes), Arc::new(orc.bytes)),
                address: VirtAddr(address),
                code: None,
            }];
        }
        let rows = (ip.bytes.len() / IP_SIZE).min(orc.bytes.len() / ROW_SIZE);
        let mut missing: Vec<Range<usize>> = Vec::new();
        for (holes, size) in [(&ip.holes, IP_SIZE), (&orc.holes, ROW_SIZE)] {
            let to_rows = |hole: &Range<usize>| hole.start / size..hole.end.div_ceil(size);
            for hole in holes {
                alloc::push(&mut missing, to_rows(hole));
            }
        }
        alloc::push(&mut missing, rows..rows);
        missing.sort_unstable_by_key(|hole| hole.start);
        let mut parts = Vec::new();
        let mut next = 0;
        for hole in missing {
            if next < hole.start.min(rows) {
                let range = next..hole.start.min(rows);
                if let Some(part) = Self::rows(&ip.bytes, &orc.bytes, address, range, rows) {
                    alloc::push(&mut parts, part);
                }
            }
            next = next.max(hole.end);
        }
        parts
    }

    /// The rows `range` of `count`. What follows the last of them is not known.
    fn rows(
        ip: &Bytes,
        orc: &Bytes,
        address: u64,
        range: Range<usize>,
        count: usize,
    ) -> Option<Self> {
        let part = |bytes: &Bytes, size: usize| {
            let part = bytes.get(range.start * size..range.end * size)?;
            Some(Bytes::from(alloc::copied(part)))
        };
        let pc = |row: usize| {
            let at = row * IP_SIZE;
            let distance = i32::from_le_bytes(*ip.get(at..)?.first_chunk()?);
            let at = address.wrapping_add(at as u64);
            Some(VirtAddr(at.wrapping_add_signed(distance.into())))
        };
        let last = match range.end == count {
            true => VirtAddr(u64::MAX),
            false => pc(range.end - 1)?,
        };
        Some(Self {
            tables: (Arc::new(part(ip, IP_SIZE)?), Arc::new(part(orc, ROW_SIZE)?)),
            address: VirtAddr(address.wrapping_add((range.start * IP_SIZE) as u64)),
            code: Some(pc(range.start)?..last),
        })
    }

    /// The part of `code` that they describe.
    fn range(&self, code: &Range<VirtAddr>) -> Range<VirtAddr> {
        match &self.code {
            None => code.clone(),
            Some(own) => own.start.max(code.start)..own.end.min(code.end),
        }
    }
}

/// The symbols and the ranges of code.
struct Code<'a> {
    symbols: &'a Symbols,
    text: &'a Text,
}

impl CodeSymbols for Code<'_> {
    fn function(&self, addr: VirtAddr) -> Option<Function<'_>> {
        let symbol = self.symbols.lookup(addr)?;
        Some(Function {
            name: symbol.name,
            start: symbol.address,
            size: (symbol.size > 0).then_some(symbol.size),
        })
    }

    fn start_of(&self, name: &str) -> Option<VirtAddr> {
        self.symbols.get(name).map(|symbol| symbol.address)
    }

    fn is_text(&self, addr: VirtAddr) -> bool {
        self.text.contains(addr)
    }

    fn overlay_init_code(&self, addr: VirtAddr, code: &mut [u8]) -> usize {
        let init = self.text.init.as_ref();
        init.map_or(0, |init| init.overlay(addr, code))
    }
}

/// The version at the start of a release; missing numbers are 0.
fn parse_release(release: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    let major = numbers.next().filter(|&major| major > 0)?;
    Some((
        major,
        numbers.next().unwrap_or(0),
        numbers.next().unwrap_or(0),
    ))
}

/// The format of ORC rows by their type, which describes the bits but not the register numbers.
fn orc_fields(types: &Types, release: Option<(u32, u32, u32)>) -> Option<OrcFormat> {
    /// Bits of a row before its flags: two i16.
    const FLAGS: u64 = 32;
    let bits = |name: &str| {
        let member = types.member(&format!("orc_entry.{name}")).ok()?;
        let bits = member.bits?;
        let first = (member.offset * 8 + bits.offset).checked_sub(FLAGS)?;
        Some((u8::try_from(first).ok()?, u8::try_from(bits.size).ok()?))
    };
    let (_, type_bits) = bits("type")?;
    let bit = |name| bits(name).map(|(first, _)| first);
    Some(OrcFormat::of_fields(
        type_bits,
        bit("end"),
        bit("signal"),
        release,
    ))
}

fn symbols_range(symbols: &Symbols, (start, end): (&str, &str)) -> Option<Range<VirtAddr>> {
    let at = |name: &str| symbols.get(name).map(|symbol| symbol.address);
    Some(at(start)?..at(end)?).filter(|range| !range.is_empty())
}

/// The init code of a file. What is in memory there once the kernel runs is something else.
fn init_code(image: &Image, symbols: &Symbols) -> Option<InitCode> {
    if matches!(image, Image::Memory(_)) {
        return None;
    }
    let range = symbols_range(symbols, INIT_TEXT)?;
    Some(InitCode {
        link_address: VirtAddr(range.start.0.wrapping_sub(symbols.slide() as u64)),
        range,
        image: image.clone(),
    })
}

fn text_of(symbols: &Symbols) -> Vec<Range<VirtAddr>> {
    TEXT.iter()
        .filter_map(|&names| symbols_range(symbols, names))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The modules' code is found by one search.
    #[test]
    fn many_modules_are_no_trouble() {
        const COUNT: u64 = 100_000;
        let mut tracer = Tracer {
            unwinder: Unwinder::new(Word::W64, Some((6, 1, 0))),
            text: Text {
                image: vec![VirtAddr(0x1000)..VirtAddr(0x2000)],
                modules: Ranges::default(),
                init: None,
            },
            orc: Orc::default(),
            unreadable: Vec::new(),
        };
        let start = |i: u64| VirtAddr(0x1_0000 + i * 0x1000);
        for i in 0..COUNT {
            tracer.text.modules.add(start(i)..start(i + 1), ());
        }
        for i in 0..COUNT {
            assert!(tracer.text.contains(start(i)));
        }
        assert!(tracer.text.contains(VirtAddr(0x1800)));
        assert!(!tracer.text.contains(start(COUNT)));
    }

    #[test]
    fn releases_start_with_their_numbers() {
        assert_eq!(parse_release("6.1.0-56-amd64"), Some((6, 1, 0)));
        assert_eq!(parse_release("2.6.16.13-xen"), Some((2, 6, 16)));
        assert_eq!(parse_release("6.12-rc1"), Some((6, 12, 0)));
        assert_eq!(parse_release(""), None);
        assert_eq!(parse_release("next"), None);
    }
}
