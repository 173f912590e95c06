//! An unwinder put together from what a kernel's image and its modules hold.
//!
//! [`crate::unwind`] knows no file format; this is where its tables come from.

use std::ops::Range;
use std::sync::Arc;

use crate::addr::{Address, VirtAddr, Word};
use crate::elf::Image;
use crate::memory::Memory;
use crate::ranges::Ranges;
use crate::symbols::Symbols;
use crate::types::Types;
use crate::unwind::{
    Backtrace, CfiKind, CfiTable, CodeSymbols, Function, Method, OrcDescription, OrcFormat,
    OrcTable, OrcVerdict, Registers, Section, Stack, Unwinder,
};

/// Pairs of symbols that bound code: Linux's, and Xen's.
const TEXT: [(&str, &str); 3] = [("_stext", "_etext"), ("_text", "_etext"), INIT_TEXT];

const INIT_TEXT: (&str, &str) = ("_sinittext", "_einittext");

/// What one stack is unwound with; the rest is the kernel's.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// Where to start.
    pub registers: Registers,
    /// The pc is where execution stands, not a return address.
    pub exact: bool,
    /// Ranges known to be stacks.
    pub bounds: &'a [(VirtAddr, VirtAddr)],
    /// The most frames wanted.
    pub limit: usize,
}

/// A kernel's, or Xen's, unwinder.
#[derive(Debug)]
pub struct Tracer {
    unwinder: Unwinder,
    text: Text,
    orc: Orc,
}

/// How the rows of ORC are read.
#[derive(Debug, Default)]
struct Orc {
    header: Option<Vec<u8>>,
    fields: Option<OrcFormat>,
    release: Option<(u32, u32, u32)>,
    /// Decided with the first table, which is the image's if that has one.
    verdict: Option<OrcVerdict>,
}

/// Where code lies.
#[derive(Debug)]
struct Text {
    image: Vec<Range<VirtAddr>>,
    modules: Ranges<()>,
}

impl Text {
    fn contains(&self, addr: VirtAddr) -> bool {
        self.image.iter().any(|range| range.contains(&addr)) || self.modules.find(addr).is_some()
    }
}

impl Tracer {
    /// The unwinder of `image`, which runs where `symbols` say. `release` is that of a Linux
    /// kernel, such as `6.1.0-56-amd64`; empty for Xen. `methods` limits it to some. Where there are
    /// but symbols (a map file), there are no tables, and `word` is all that is known. The code in
    /// `memory` verifies the format of the tables.
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
            },
            orc: Orc {
                release: version,
                ..Orc::default()
            },
        };
        if let Some(image) = image {
            add_cfi(&mut tracer.unwinder, image, slide);
            tracer.orc.header = image
                .section(".orc_header")
                .and_then(|section| Some(section.data()?.to_vec()));
            tracer.orc.fields = types.and_then(|types| orc_fields(types, version));
            tracer.add_orc_of_image(image, memory, symbols);
        }
        tracer
    }

    /// The methods in use, the best first.
    pub fn methods(&self) -> impl Iterator<Item = Method> + '_ {
        self.unwinder.methods()
    }

    /// What is missing or odd.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.orc
            .verdict
            .iter()
            .filter_map(|verdict| verdict.warning.as_deref())
    }

    /// Adds a module's code and its ORC tables, which lie in the kernel's memory in order already.
    pub fn add_module(
        &mut self,
        memory: &dyn Memory<VirtAddr>,
        symbols: &Symbols,
        text: Range<VirtAddr>,
        ip: Vec<u8>,
        ip_address: VirtAddr,
        orc: Vec<u8>,
    ) {
        self.text.modules.add(text.clone(), ());
        if !ip.is_empty() {
            let tables = (Arc::new(ip) as Section, Arc::new(orc) as Section);
            let code = text.clone();
            self.add_orc(memory, symbols, tables, ip_address, text, |pc| {
                code.contains(&pc)
            });
        }
    }

    fn add_orc_of_image(
        &mut self,
        image: &Image,
        memory: &dyn Memory<VirtAddr>,
        symbols: &Symbols,
    ) {
        let (Some(ip), Some(orc)) = (
            image.section(".orc_unwind_ip"),
            image.section(".orc_unwind"),
        ) else {
            return;
        };
        let (Some(ip_bytes), Some(orc_bytes)) = (ip.bytes(), orc.bytes()) else {
            return;
        };
        let address = VirtAddr(ip.address().raw().wrapping_add_signed(symbols.slide()));
        let text = &self.text.image;
        // Its own code only: the nearest row below a module's code would be the kernel's last.
        let range = Range {
            start: text.iter().map(|r| r.start).min().unwrap_or_default(),
            end: text
                .iter()
                .map(|r| r.end)
                .max()
                .unwrap_or(VirtAddr(u64::MAX)),
        };
        // Code of the start was freed.
        let init = symbols_range(symbols, INIT_TEXT);
        let stays = |pc| !init.as_ref().is_some_and(|init| init.contains(&pc));
        let tables = (
            Arc::new(ip_bytes) as Section,
            Arc::new(orc_bytes) as Section,
        );
        self.add_orc(memory, symbols, tables, address, range, stays);
    }

    /// Adds tables if their format is known. `stays`: code that is still in memory.
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

/// The symbols of code, and where code lies.
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
}

/// The numbers at the start of a release; missing ones are 0.
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

/// The format of ORC rows by the type that describes them. It tells the bits, not the numbers of
/// registers.
fn orc_fields(types: &Types, release: Option<(u32, u32, u32)>) -> Option<OrcFormat> {
    /// Bits of the row before its flags: two i16.
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

fn text_of(symbols: &Symbols) -> Vec<Range<VirtAddr>> {
    TEXT.iter()
        .filter_map(|&names| symbols_range(symbols, names))
        .collect()
}

fn add_cfi(unwinder: &mut Unwinder, image: &Image, slide: i64) {
    for (name, kind) in [
        (".debug_frame", CfiKind::DebugFrame),
        (".eh_frame", CfiKind::EhFrame),
    ] {
        let Some(section) = image.section(name) else {
            continue;
        };
        let Some(bytes) = section.bytes() else {
            continue;
        };
        unwinder.add_cfi(CfiTable::new(
            Arc::new(bytes),
            kind,
            image.word(),
            section.address(),
            slide as u64,
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether code of theirs lies somewhere is one search.
    #[test]
    fn many_modules_are_no_trouble() {
        const COUNT: u64 = 100_000;
        let mut tracer = Tracer {
            unwinder: Unwinder::new(Word::W64, Some((6, 1, 0))),
            text: Text {
                image: vec![VirtAddr(0x1000)..VirtAddr(0x2000)],
                modules: Ranges::default(),
            },
            orc: Orc::default(),
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
