//! The symbols of one file or module, by address and by name.
//!
//! What a lookup needs is built when it is first needed: buckets of adjacent addresses, of which those
//! are sorted that are searched; keys of names, and after many lookups a hash table.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::addr::{VirtAddr, Word};
use crate::alloc;
use crate::elf::Bytes;
use crate::limits::MAX_LABELS;
use crate::names::{self, Key, Names};

use super::buckets::Buckets;
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

/// The symbols of one file or module.
pub(super) struct Table {
    word: Word,
    strings: Bytes,
    /// The valid address ranges, ascending and disjoint. Lookups by address outside of them fail.
    spans: Vec<Range<VirtAddr>>,
    /// Start addresses of gaps, ascending: between each and the next symbol, symbols may have been lost.
    gaps: Vec<VirtAddr>,
    source: Source,
    /// All symbols, in the order of their source.
    entries: OnceLock<Vec<Entry>>,
    /// Those within a span.
    buckets: OnceLock<Buckets>,
    /// The numbers of all by address; at one address, the best last.
    order: OnceLock<Vec<u32>>,
    /// The keys of the names, in the order of the source.
    keys: OnceLock<Arc<Vec<Key>>>,
    names: OnceLock<Names>,
    /// How often names were looked up without the hash table.
    lookups: AtomicUsize,
}

/// Lookups by name before the hash table is built. A command makes some tens of them, and to build the
/// table takes the time of some hundreds.
pub(super) const SCANS: usize = 128;
/// Symbols with equal keys that are found without it.
const MAX_SCANNED: usize = 16;

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
            entries: OnceLock::new(),
            buckets: OnceLock::new(),
            order: OnceLock::new(),
            keys: OnceLock::new(),
            names: OnceLock::new(),
            lookups: AtomicUsize::new(0),
        }
    }

    /// A table of symbols that were read.
    pub fn of_entries(
        word: Word,
        strings: Bytes,
        spans: Vec<Range<VirtAddr>>,
        entries: Vec<Entry>,
    ) -> Self {
        let this = Self::new(word, strings, spans, |_| Vec::new());
        let entries = OnceLock::from(this.located(entries));
        Self { entries, ..this }
    }

    /// The same table with gaps: addresses, ascending, behind which no symbol before them reaches.
    pub fn with_gaps(self, gaps: Vec<VirtAddr>) -> Self {
        Self { gaps, ..self }
    }

    /// The same table with the keys of all names, in the order of the source.
    pub fn with_keys(self, keys: Arc<Vec<Key>>) -> Self {
        let keys = OnceLock::from(keys);
        Self { keys, ..self }
    }

    pub fn word(&self) -> Word {
        self.word
    }

    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// The symbols with this name, whose key is `key`: by binding, then code before data, then by
    /// address.
    pub fn named<'a, 'n>(
        &'a self,
        wanted: &'n str,
        key: Key,
    ) -> impl Iterator<Item = Found<'a>> + use<'a, 'n> {
        let scanned = self.scanned(key);
        let hashed = match scanned {
            Some(_) => None,
            None => Some(self.names().with_key(key)),
        };
        let numbers = scanned.into_iter().flatten();
        let numbers = numbers.chain(hashed.into_iter().flatten());
        numbers.filter_map(|i| self.get(i, wanted))
    }

    /// The numbers of the symbols with a key, the best first, without the hash table; `None` if it is
    /// there, or if there have been many lookups.
    fn scanned(&self, key: Key) -> Option<Vec<usize>> {
        if self.is_hashed() {
            return None;
        }
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let entries = self.entries();
        let mut found = Vec::new();
        for i in names::positions(self.keys(), key) {
            if found.len() == MAX_SCANNED {
                return None;
            }
            found.push(i);
        }
        found.sort_unstable_by_key(|i| {
            let entry = entries.get(*i);
            entry.map(|entry| {
                (
                    Reverse(entry.class()),
                    entry.address,
                    Reverse(entry.rank()),
                    *i,
                )
            })
        });
        Some(found)
    }

    /// Whether lookups by name use the hash table.
    fn is_hashed(&self) -> bool {
        self.names.get().is_some() || self.lookups.load(Ordering::Relaxed) >= SCANS
    }

    /// Symbol number `i` of the source, if it has this name.
    pub fn get(&self, i: usize, name: &str) -> Option<Found<'_>> {
        let entry = self.entries().get(i)?;
        names::is_string(
            &self.strings,
            entry.name,
            name.as_bytes(),
            names::ends_symbol,
        )
        .then(|| self.found(entry))
    }

    /// Symbol number `i`, by address.
    pub fn number(&self, i: usize) -> Option<Found<'_>> {
        let number = *self.order().get(i)?;
        Some(self.found(self.entry(number)?))
    }

    /// Whether all symbols are sorted, which [`Table::number`] does.
    pub fn is_sorted(&self) -> bool {
        self.order.get().is_some()
    }

    /// Whether what lookups by address need is built.
    pub fn is_built(&self) -> bool {
        self.buckets.get().is_some()
    }

    /// Builds it.
    pub fn build(&self) {
        self.buckets();
    }

    /// Whether what the next lookup by name needs is built.
    pub fn is_named(&self) -> bool {
        match self.is_hashed() {
            true => self.names.get().is_some(),
            false => self.entries.get().is_some() && self.keys.get().is_some(),
        }
    }

    /// Builds what the next lookup by name needs.
    pub fn build_names(&self) {
        match self.is_hashed() {
            true => _ = self.names(),
            false => _ = self.keys(),
        }
    }

    /// The keys of the names of all symbols.
    fn keys(&self) -> &[Key] {
        let entries = self.entries();
        self.keys.get_or_init(|| {
            // Names that follow each other in the source are near each other.
            let names = entries.iter().map(|entry| entry.name);
            let keys = names.map(|name| Key::of_text(&self.strings, name));
            Arc::new(alloc::collect(keys))
        })
    }

    /// The hash table of all names.
    fn names(&self) -> &Names {
        self.names
            .get_or_init(|| Names::with_keys(self.len(), self.worst_first()))
    }

    /// The numbers and keys of all symbols. For each name the best symbol is last: [`Names`] yields
    /// the last one added first.
    pub fn worst_first(&self) -> impl Iterator<Item = (u32, Key)> + use<'_> {
        let keys = self.keys();
        let mut classes: [Vec<u32>; 9] = Default::default();
        let address = |number: &u32| self.entry(*number).map(|entry| entry.address);
        for same in self.order().chunk_by(|a, b| address(a) == address(b)).rev() {
            for number in same {
                let class = self.entry(*number).map(Entry::class);
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
        let numbers = span.map(|span| {
            let item = |number| self.item(number);
            self.buckets().down(span.start.0, address.0, item)
        });
        let numbers = numbers.into_iter().flatten();
        numbers.filter_map(|number| self.entry(number))
    }

    /// The last span that starts at or below `address`.
    fn span(&self, address: VirtAddr) -> Option<&Range<VirtAddr>> {
        let above = self.spans.partition_point(|span| span.start <= address);
        self.spans.get(above.checked_sub(1)?)
    }

    fn found(&self, entry: &Entry) -> Found<'_> {
        Found {
            name: names::text(names::of_symbol(&self.strings, entry.name)),
            address: entry.address,
            size: entry.size,
            kind: entry.kind,
            binding: entry.binding,
            letter: entry.letter,
            located: entry.located,
        }
    }

    fn entry(&self, number: u32) -> Option<&Entry> {
        self.entries().get(number as usize)
    }

    /// What the order of a symbol depends on.
    fn item(&self, number: u32) -> Item {
        let entry = self.entry(number);
        Item {
            address: entry.map_or(0, |entry| entry.address.0),
            rank: entry.map_or(0, Entry::rank),
            number,
        }
    }

    fn entries(&self) -> &[Entry] {
        let read = || self.located((self.source)(&self.strings));
        self.entries.get_or_init(read)
    }

    /// The symbols, each with whether it is within a span.
    fn located(&self, mut entries: Vec<Entry>) -> Vec<Entry> {
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
        entries
    }

    fn buckets(&self) -> &Buckets {
        let entries = self.entries();
        self.buckets.get_or_init(|| {
            // Lookups by address find symbols within a span only.
            let addresses = entries.iter();
            Buckets::new(addresses.map(|entry| entry.located.then_some(entry.address.0)))
        })
    }

    fn order(&self) -> &[u32] {
        let entries = self.entries();
        self.order.get_or_init(|| {
            let numbers = 0..entries.len() as u32;
            order::by_address(numbers.map(|number| self.item(number)))
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
