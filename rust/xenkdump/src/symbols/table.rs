//! The symbols of one file or module, sorted by address and hashed by name.

use std::ops::Range;
use std::sync::OnceLock;

use crate::addr::{VirtAddr, Word};
use crate::alloc;
use crate::elf::Bytes;
use crate::limits::MAX_LABELS;
use crate::names::{self, Key, Names};

use super::order::{self, Item};

/// What a symbol names. Ordered by preference among aliases, best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A label, or unknown.
    NoType,
    /// Data.
    Object,
    /// Code.
    Func,
}

/// The binding of a symbol. Ordered by preference among aliases, best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Binding {
    /// Global, but another definition precedes it.
    Weak,
    /// Within one file.
    Local,
    /// Global.
    Global,
}

impl Kind {
    /// A short name: `func`, `object` or `notype`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::NoType => "notype",
            Kind::Object => "object",
            Kind::Func => "func",
        }
    }
}

impl Binding {
    /// A short name: `weak`, `local` or `global`.
    pub fn name(self) -> &'static str {
        match self {
            Binding::Weak => "weak",
            Binding::Local => "local",
            Binding::Global => "global",
        }
    }
}

/// One symbol, as given by its source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub address: VirtAddr,
    pub size: u64,
    /// The offset of the name in the string table.
    pub name: u32,
    pub kind: Kind,
    pub binding: Binding,
    /// The letter that nm shows for it.
    pub letter: u8,
    /// Whether the address is within the image, so that the slide applies. False for constants and
    /// offsets into the per-CPU areas.
    pub located: bool,
}

/// The name at `offset` of a string table.
fn name(strings: &[u8], offset: u32) -> &[u8] {
    names::string(strings, offset, ends_name)
}

/// Whether `byte` ends a name: NUL in an ELF file, a newline or a blank in a map.
fn ends_name(byte: u8) -> bool {
    byte <= b' '
}

impl Entry {
    /// The preference among symbols at one address, best highest.
    fn rank(&self) -> u8 {
        u8::from(self.size > 0) << 4 | (self.kind as u8) << 2 | self.binding as u8
    }

    /// The preference among symbols with one name, best highest. Ties go to the lowest address.
    fn class(&self) -> usize {
        self.binding as usize * 3 + self.kind as usize
    }
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub name: &'a str,
    pub address: VirtAddr,
    pub size: u64,
    pub kind: Kind,
    pub binding: Binding,
    pub letter: u8,
    pub located: bool,
}

type Source = Box<dyn Fn(&[u8]) -> Vec<Entry> + Send + Sync>;

/// All symbols, in the order of their source.
struct Sorted {
    entries: Vec<Entry>,
    /// Their numbers by address; at one address, the best last.
    order: Vec<u32>,
}

impl Sorted {
    fn get(&self, number: u32) -> Option<&Entry> {
        self.entries.get(number as usize)
    }

    /// The address of a symbol; its numbers are those of `order`.
    fn address(&self, number: u32) -> VirtAddr {
        self.get(number).map_or(VirtAddr(0), |entry| entry.address)
    }
}

/// The symbols of one file or module.
pub(super) struct Table {
    word: Word,
    strings: Bytes,
    /// The valid address ranges, ascending and disjoint. Lookups by address outside of them fail.
    spans: Vec<Range<VirtAddr>>,
    /// Addresses from which on, up to the next symbol, others may be that are not known. Ascending.
    gaps: Vec<VirtAddr>,
    source: Source,
    sorted: OnceLock<Sorted>,
    names: OnceLock<Names>,
}

impl Table {
    /// A table that reads `source` on first use.
    pub fn new(
        word: Word,
        strings: Bytes,
        spans: Vec<Range<VirtAddr>>,
        source: impl Fn(&[u8]) -> Vec<Entry> + Send + Sync + 'static,
    ) -> Self {
        Self {
            word,
            strings,
            spans,
            gaps: Vec::new(),
            source: Box::new(source),
            sorted: OnceLock::new(),
            names: OnceLock::new(),
        }
    }

    /// The same table with gaps: addresses, ascending, behind which no symbol before them reaches.
    pub fn with_gaps(self, gaps: Vec<VirtAddr>) -> Self {
        Self { gaps, ..self }
    }

    pub fn word(&self) -> Word {
        self.word
    }

    pub fn len(&self) -> usize {
        self.sorted().entries.len()
    }

    /// The symbols with this name, whose key is `key`: by binding, then code before data, then by
    /// address.
    pub fn named<'a, 'n>(
        &'a self,
        wanted: &'n str,
        key: Key,
    ) -> impl Iterator<Item = Found<'a>> + use<'a, 'n> {
        let found = self.names().with_key(key);
        found.filter_map(|i| self.get(i, wanted))
    }

    /// Symbol number `i` of the source, if it has this name.
    pub fn get(&self, i: usize, name: &str) -> Option<Found<'_>> {
        let entry = self.sorted().entries.get(i)?;
        names::is_string(&self.strings, entry.name, name.as_bytes(), ends_name)
            .then(|| self.found(entry))
    }

    /// Symbol number `i`, by address.
    pub fn number(&self, i: usize) -> Option<Found<'_>> {
        let sorted = self.sorted();
        let entry = sorted.get(*sorted.order.get(i)?)?;
        Some(self.found(entry))
    }

    /// Whether the table is sorted.
    pub fn is_sorted(&self) -> bool {
        self.sorted.get().is_some()
    }

    /// Whether the hash table of names is built.
    pub fn is_named(&self) -> bool {
        self.names.get().is_some()
    }

    /// The hash table of all names.
    pub fn names(&self) -> &Names {
        self.names
            .get_or_init(|| Names::with_keys(self.len(), self.worst_first()))
    }

    /// The numbers and keys of all symbols. For each name the best symbol is last: [`Names`] yields
    /// the last one added first.
    pub fn worst_first(&self) -> impl Iterator<Item = (u32, Key)> + use<'_> {
        let sorted = self.sorted();
        // In the order of the source, in which names are near each other.
        let keys = sorted.entries.iter();
        let keys = alloc::collect(keys.map(|entry| Key::of_text(&self.strings, entry.name)));
        let mut classes: [Vec<u32>; 9] = Default::default();
        let address = |number: &u32| sorted.address(*number);
        for same in sorted.order.chunk_by(|a, b| address(a) == address(b)).rev() {
            for number in same {
                let class = sorted.get(*number).map(Entry::class);
                if let Some(class) = class.and_then(|class| classes.get_mut(class)) {
                    alloc::push(class, *number);
                }
            }
        }
        let numbers = classes.into_iter().flatten();
        numbers.filter_map(move |i| Some((i, *keys.get(i as usize)?)))
    }

    /// The innermost symbol whose size covers `address`.
    pub fn covering(&self, address: VirtAddr) -> Option<Found<'_>> {
        self.below(address)
            .take(MAX_LABELS)
            .find(|entry| address.0 - entry.address.0 < entry.size)
            .filter(|entry| !self.has_gap(entry.address, address))
            .map(|entry| self.found(entry))
    }

    /// The nearest symbol at or below `address`, within the same span.
    pub fn nearest(&self, address: VirtAddr) -> Option<Found<'_>> {
        self.below(address)
            .next()
            .filter(|entry| !self.has_gap(entry.address, address))
            .map(|entry| self.found(entry))
    }

    /// Whether there may be another symbol behind the one at `symbol`, up to `address`.
    fn has_gap(&self, symbol: VirtAddr, address: VirtAddr) -> bool {
        let before = self.gaps.partition_point(|gap| *gap <= address);
        let last = before.checked_sub(1).and_then(|last| self.gaps.get(last));
        last.is_some_and(|gap| *gap > symbol)
    }

    /// The symbols at or below `address` in its span, nearest and best first.
    fn below(&self, address: VirtAddr) -> impl Iterator<Item = &Entry> {
        let span = self.span(address).filter(|span| address < span.end);
        let sorted = self.sorted();
        let numbers = span.map_or(&[][..], |span| {
            let order = &sorted.order;
            let to = order.partition_point(|&number| sorted.address(number) <= address);
            let from = order.partition_point(|&number| sorted.address(number) < span.start);
            order.get(from..to).unwrap_or_default()
        });
        let numbers = numbers.iter().rev();
        numbers.filter_map(|&number| sorted.get(number))
    }

    /// The last span that starts at or below `address`.
    fn span(&self, address: VirtAddr) -> Option<&Range<VirtAddr>> {
        let above = self.spans.partition_point(|span| span.start <= address);
        self.spans.get(above.checked_sub(1)?)
    }

    fn found(&self, entry: &Entry) -> Found<'_> {
        Found {
            name: names::text(name(&self.strings, entry.name)),
            address: entry.address,
            size: entry.size,
            kind: entry.kind,
            binding: entry.binding,
            letter: entry.letter,
            located: entry.located,
        }
    }

    fn sorted(&self) -> &Sorted {
        self.sorted.get_or_init(|| {
            let mut entries = (self.source)(&self.strings);
            // The end is included: symbols such as `_end` mark the end of a span.
            let is_within = |span: &Range<VirtAddr>, at| span.start <= at && at <= span.end;
            let mut last = None::<&Range<VirtAddr>>;
            for entry in &mut entries {
                if !last.is_some_and(|span| is_within(span, entry.address)) {
                    last = self.span(entry.address);
                }
                entry.located = last.is_some_and(|span| is_within(span, entry.address));
            }
            // Symbols whose numbers do not fit are not found.
            entries.truncate(u32::MAX as usize);
            let items = entries.iter().enumerate().map(|(number, entry)| Item {
                address: entry.address.0,
                rank: entry.rank(),
                number: number as u32,
            });
            let order = order::by_address(items);
            Sorted { entries, order }
        })
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("word", &self.word)
            .field("spans", &self.spans)
            .finish_non_exhaustive()
    }
}
