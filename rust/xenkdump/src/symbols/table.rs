//! The symbols of one file or module, sorted by address and hashed by name.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

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

/// All symbols by address; at one address, the best last.
struct Sorted {
    entries: Vec<Entry>,
    /// Of their names.
    keys: Vec<Key>,
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
    /// The keys of the names that the source yields, if they are known.
    keys: Option<Arc<Vec<Key>>>,
    sorted: OnceLock<Sorted>,
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
            keys: None,
            sorted: OnceLock::new(),
            names: OnceLock::new(),
            lookups: AtomicUsize::new(0),
        }
    }

    /// The same table with gaps: addresses, ascending, behind which no symbol before them reaches.
    pub fn with_gaps(self, gaps: Vec<VirtAddr>) -> Self {
        Self { gaps, ..self }
    }

    /// The same table with the keys of all names, in the order of the source.
    pub fn with_keys(self, keys: Arc<Vec<Key>>) -> Self {
        let keys = Some(keys);
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
        let Sorted { entries, keys } = self.sorted();
        let mut found = Vec::new();
        for i in names::positions(keys, key) {
            if found.len() == MAX_SCANNED {
                return None;
            }
            found.push(i);
        }
        found.sort_unstable_by_key(|i| {
            let entry = entries.get(*i);
            entry.map(|entry| (Reverse(entry.class()), entry.address, Reverse(*i)))
        });
        Some(found)
    }

    /// Whether lookups by name use the hash table.
    fn is_hashed(&self) -> bool {
        self.names.get().is_some() || self.lookups.load(Ordering::Relaxed) >= SCANS
    }

    /// Symbol number `i`, if it has this name.
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
        self.entries().get(i).map(|entry| self.found(entry))
    }

    /// Whether the table is sorted.
    pub fn is_sorted(&self) -> bool {
        self.sorted.get().is_some()
    }

    /// Whether what the next lookup by name needs is built.
    pub fn is_named(&self) -> bool {
        match self.is_hashed() {
            true => self.names.get().is_some(),
            false => self.is_sorted(),
        }
    }

    /// Builds what the next lookup by name needs.
    pub fn build_names(&self) {
        match self.is_hashed() {
            true => _ = self.names(),
            false => _ = self.sorted(),
        }
    }

    /// The hash table of all names.
    fn names(&self) -> &Names {
        self.names
            .get_or_init(|| Names::with_keys(self.len(), self.worst_first()))
    }

    /// The numbers and keys of all symbols. For each name the best symbol is last: [`Names`] yields
    /// the last one added first.
    pub fn worst_first(&self) -> impl Iterator<Item = (u32, Key)> + use<'_> {
        let Sorted { entries, keys } = self.sorted();
        let mut classes: [Vec<u32>; 9] = Default::default();
        let mut end = entries.len();
        for same in entries.chunk_by(|a, b| a.address == b.address).rev() {
            end -= same.len();
            for (i, entry) in (end..).zip(same) {
                if let (Some(class), Ok(i)) = (classes.get_mut(entry.class()), i.try_into()) {
                    alloc::push(class, i);
                }
            }
        }
        let numbers = classes.into_iter().flatten();
        numbers.filter_map(|i| Some((i, *keys.get(i as usize)?)))
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
        let entries = span.map_or(&[][..], |span| {
            let entries = self.entries();
            let to = entries.partition_point(|entry| entry.address <= address);
            let from = entries.partition_point(|entry| entry.address < span.start);
            entries.get(from..to).unwrap_or_default()
        });
        entries.iter().rev()
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

    /// All symbols by address; at one address, the best last.
    fn entries(&self) -> &[Entry] {
        &self.sorted().entries
    }

    fn sorted(&self) -> &Sorted {
        self.sorted.get_or_init(|| {
            let mut entries = (self.source)(&self.strings);
            for entry in &mut entries {
                // The end is included: symbols such as `_end` mark the end of a span.
                let span = self.span(entry.address);
                entry.located = span.is_some_and(|span| entry.address <= span.end);
            }
            let known = self.keys.as_ref().map(|keys| &keys[..]);
            let keys = match known.filter(|keys| keys.len() == entries.len()) {
                Some(keys) => alloc::copied(keys),
                // In the order of the source, in which names are near each other.
                None => alloc::collect(entries.iter().map(|entry| {
                    let name = names::of_symbol(&self.strings, entry.name);
                    Key::of(name)
                })),
            };
            sort(entries, keys)
        })
    }
}

/// Sorts symbols, and the keys of their names.
fn sort(mut entries: Vec<Entry>, mut keys: Vec<Key>) -> Sorted {
    let mut items = Vec::new();
    let item = |number: u32, entry: &Entry| Item {
        address: entry.address.0,
        rank: entry.rank(),
        number,
    };
    let numbered = (0..=u32::MAX).zip(&entries);
    if entries.is_sorted_by_key(|entry| entry.address) {
        // As in kallsyms. Only those at one address are to be sorted, each in the place of another.
        let at = |i: usize| entries.get(i).map(|entry| entry.address);
        for (number, entry) in numbered {
            let i = number as usize;
            let before = i.checked_sub(1).and_then(at);
            if before == Some(entry.address) || at(i + 1) == Some(entry.address) {
                alloc::push(&mut items, item(number, entry));
            }
        }
    } else {
        items = alloc::collect(numbered.map(|(number, entry)| item(number, entry)));
    }
    let places = alloc::collect(items.iter().map(|item| item.number as usize));
    let order = order::by_address(items);
    let numbers = || order.iter().map(|number| *number as usize);
    let moved = alloc::collect(numbers().filter_map(|i| entries.get(i).copied()));
    let moved_keys = alloc::collect(numbers().filter_map(|i| keys.get(i).copied()));
    if moved.len() == entries.len() {
        return Sorted {
            entries: moved,
            keys: moved_keys,
        };
    }
    for (place, (entry, key)) in places.into_iter().zip(moved.into_iter().zip(moved_keys)) {
        if let (Some(to), Some(key_to)) = (entries.get_mut(place), keys.get_mut(place)) {
            (*to, *key_to) = (entry, key);
        }
    }
    Sorted { entries, keys }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("word", &self.word)
            .field("spans", &self.spans)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn symbols_are_sorted_in_any_order_of_the_source(
            mut symbols in prop::collection::vec((0..12_u64, 0..2_u64, any::<bool>()), 0..80),
            in_order in any::<bool>(),
        ) {
            if in_order {
                symbols.sort_by_key(|(address, ..)| *address);
            }
            let entry = |(name, &(address, size, is_code)): (u32, &(u64, u64, bool))| Entry {
                address: VirtAddr(address << 60),
                size,
                name,
                kind: if is_code { Kind::Func } else { Kind::Object },
                binding: Binding::Local,
                letter: b't',
                located: false,
            };
            let entries: Vec<Entry> = (0..).zip(&symbols).map(entry).collect();
            let mut wanted = entries.clone();
            wanted.sort_by_key(|entry| (entry.address, entry.rank(), std::cmp::Reverse(entry.name)));
            let keys = entries.iter().map(|entry| Key::of(entry.name)).collect();
            let sorted = sort(entries, keys);
            let names = |entries: &[Entry]| entries.iter().map(|entry| entry.name).collect::<Vec<_>>();
            prop_assert_eq!(names(&sorted.entries), names(&wanted));
            let keys: Vec<Key> = wanted.iter().map(|entry| Key::of(entry.name)).collect();
            prop_assert_eq!(sorted.keys, keys);
        }
    }
}
