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
    Backtrace, CfiKind, CfiTable, CodeSymbols, Function, Method, OrcFormat, OrcTable, Registers,
    Stack, Unwinder,
};

/// Pairs of symbols that bound code: Linux's, and Xen's.
const TEXT: [(&str, &str); 3] = [
    ("_stext", "_etext"),
    ("_text", "_etext"),
    ("_sinittext", "_einittext"),
];

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
    /// but symbols (a map file), there are no tables, and `word` is all that is known.
    pub fn new(
        image: Option<&Image>,
        word: Word,
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
        let slide = symbols.slide();
        let text = text_of(symbols);
        if let Some(image) = image {
            if let Some(format) = orc_format(image, types, version) {
                unwinder.set_orc_format(format);
            }
            add_orc(&mut unwinder, image, slide, &text);
            add_cfi(&mut unwinder, image, slide);
        }
        if let Some(methods) = methods {
            unwinder.set_methods(methods);
        }
        let text = Text {
            image: text,
            modules: Ranges::default(),
        };
        Self { unwinder, text }
    }

    /// The methods in use, the best first.
    pub fn methods(&self) -> impl Iterator<Item = Method> + '_ {
        self.unwinder.methods()
    }

    /// Adds a module's code and its ORC tables, which lie in the kernel's memory in order already.
    pub fn add_module(
        &mut self,
        text: Range<VirtAddr>,
        ip: Vec<u8>,
        ip_address: VirtAddr,
        orc: Vec<u8>,
    ) {
        if !ip.is_empty() {
            let format = self.unwinder.orc_format();
            let (ip, orc) = (Arc::new(ip), Arc::new(orc));
            let range = (text.start, text.end);
            self.unwinder
                .add_orc(OrcTable::new(ip, ip_address, orc, format, range));
        }
        self.text.modules.add(text, ());
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

/// How ORC rows are to be read: by the type that describes them, else by the header that
/// identifies them; `None` leaves it to the release.
fn orc_format(
    image: &Image,
    types: Option<&Types>,
    release: Option<(u32, u32, u32)>,
) -> Option<OrcFormat> {
    /// Bits of the row before its flags: two i16.
    const FLAGS: u64 = 32;
    let bits = |name: &str| {
        let member = types?.member(&format!("orc_entry.{name}")).ok()?;
        let bits = member.bits?;
        let first = (member.offset * 8 + bits.offset).checked_sub(FLAGS)?;
        Some((u8::try_from(first).ok()?, u8::try_from(bits.size).ok()?))
    };
    if let Some((_, type_bits)) = bits("type") {
        let bit = |name| bits(name).map(|(first, _)| first);
        return Some(OrcFormat::of_fields(
            type_bits,
            bit("end"),
            bit("signal"),
            release,
        ));
    }
    OrcFormat::of_header(image.section(".orc_header")?.data()?)
}

fn text_of(symbols: &Symbols) -> Vec<Range<VirtAddr>> {
    let at = |name: &str| symbols.get(name).map(|symbol| symbol.address);
    TEXT.iter()
        .filter_map(|&(start, end)| Some(at(start)?..at(end)?))
        .filter(|range| !range.is_empty())
        .collect()
}

fn add_orc(unwinder: &mut Unwinder, image: &Image, slide: i64, text: &[Range<VirtAddr>]) {
    let (Some(ip), Some(orc)) = (
        image.section(".orc_unwind_ip"),
        image.section(".orc_unwind"),
    ) else {
        return;
    };
    let (Some(ip_bytes), Some(orc_bytes)) = (ip.bytes(), orc.bytes()) else {
        return;
    };
    let format = unwinder.orc_format();
    let address = VirtAddr(ip.address().raw().wrapping_add_signed(slide));
    // Its own code only: the nearest row below a module's code would be the kernel's last.
    let range = (
        text.iter().map(|r| r.start).min().unwrap_or_default(),
        text.iter()
            .map(|r| r.end)
            .max()
            .unwrap_or(VirtAddr(u64::MAX)),
    );
    unwinder.add_orc(OrcTable::new(
        Arc::new(ip_bytes),
        address,
        Arc::new(orc_bytes),
        format,
        range,
    ));
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
        };
        let start = |i: u64| VirtAddr(0x1_0000 + i * 0x1000);
        for i in 0..COUNT {
            tracer.add_module(start(i)..start(i + 1), Vec::new(), start(i), Vec::new());
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
