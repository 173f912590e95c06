//! The symbol table that a kernel keeps in its memory, `kallsyms` (kernel/kallsyms.c,
//! scripts/kallsyms.c), since Linux 2.6.10.
//!
//! Names are compressed: a byte stands for a token of `kallsyms_token_table`. Its arrays are found by
//! their structure, and none by a symbol, from the token table outwards:
//!
//! - `tokens`: `kallsyms_token_table` and `kallsyms_token_index`, which describe each other.
//! - `names`: `kallsyms_names`, whose blocks of 256 names end where `kallsyms_markers` says, with
//!   `kallsyms_num_syms` before them.
//! - `addresses`: the addresses, in one of the forms of different versions.
//!
//! The order of the arrays in `.rodata`, by version:
//!
//! | since | order |
//! |---|---|
//! | 2.6.10 | addresses, num_syms, names, markers, token_table, token_index |
//! | 4.6 (2213e9a66bb8) | offsets and relative_base in place of addresses |
//! | 4.20 (80ffbaa5b1bd) | num_syms and markers have 4 bytes, not those of a word |
//! | 6.1 (73bbb94466fd) | names of more than 127 tokens have a length of two bytes |
//! | 6.2 (60443c88f3a8) | seqs_of_names between markers and token_table |
//! | 6.4 (404bad70fcf7) | num_syms, names, markers, token_table, token_index, offsets, relative_base, seqs_of_names |
//! | 6.15 | per-CPU symbols are addresses like others |
//! | 7.0 | no relative_base: an offset is relative to its own place |

mod addresses;
mod names;
mod tokens;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::addr::{Address, MachineAddr, VirtAddr, Word};
use crate::alloc;
use crate::budget::Budget;
use crate::elf::Bytes;
use crate::limits::{
    MAX_KALLSYMS_CANDIDATES, MAX_KALLSYMS_CHECKED_NAMES, MAX_KALLSYMS_STRINGS_SIZE,
    MAX_KERNEL_IMAGE_SEARCH,
};
use crate::memory::Memory;
use crate::names::{positions, Key};
use crate::paging::Virtual;
use crate::space::{Space, Tables};
use addresses::Addresses;
use names::Names;
use tokens::Tokens;

/// Letters and digits stand for themselves in every table of tokens.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";

/// Symbols at the start and at the end of an image, in order of preference.
const STARTS: [&str; 4] = ["_text", "_stext", "startup_64", "startup_32"];
const ENDS: [&str; 2] = ["_end", "__brk_limit"];
/// Where the image of x86_64 is mapped from (page_64_types.h). Offsets into the per-CPU areas are below.
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

/// Bytes of a name for each byte of its compressed form, about.
const EXPANSION: usize = 3;

const BANNER: &[u8] = b"Linux version ";
/// Functions whose code shows that the addresses are right, if there is no banner.
const FUNCTIONS: usize = 16;

/// A name of the table.
struct Named {
    /// The number of its symbol.
    number: u32,
    letter: u8,
    /// The offset of its name in [`Kallsyms::strings`].
    name: u32,
    key: Key,
}

/// One symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub address: u64,
    /// The offset of its name in [`Kallsyms::strings`].
    pub name: u32,
    /// The letter that nm shows for it.
    pub letter: u8,
}

/// The symbols of a kernel in memory, at the addresses where it runs, in the order of the table.
#[derive(Debug)]
pub(crate) struct Kallsyms {
    pub word: Word,
    /// Names, each followed by NUL.
    pub strings: Bytes,
    pub symbols: Vec<Symbol>,
    /// The keys of their names.
    pub keys: Arc<Vec<Key>>,
    /// Symbols of which a part is not in the dump.
    pub lost: usize,
    /// Number of symbols that were removed because their addresses are out of order.
    pub misplaced: usize,
    /// Addresses from which on, up to the next symbol, lost symbols may be. Ascending.
    pub gaps: Vec<u64>,
    /// Whether there are exported symbols only, as the table is not in the dump.
    pub only_exports: bool,
}

/// Memory in which a kernel's table of symbols may be.
pub(crate) trait Searchable: Memory<VirtAddr> {
    /// Searches at most `most` bytes of the memory held between two addresses (both inclusive) for the
    /// first `needle`. `None` if the memory cannot be searched.
    fn first(&self, needle: &[u8], between: (VirtAddr, VirtAddr), most: u64) -> Option<Searched>;
}

/// The result of a search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Searched {
    pub place: Option<VirtAddr>,
    /// The bytes that were searched.
    pub bytes: u64,
    /// Where to continue; `None` at the end.
    pub next: Option<VirtAddr>,
}

impl<M: Memory<MachineAddr> + Send + Clone> Searchable for Virtual<Tables<M>> {
    fn first(&self, needle: &[u8], between: (VirtAddr, VirtAddr), most: u64) -> Option<Searched> {
        let space = Space::Virtual(self.clone());
        let (first, last) = between;
        let found = space.find(needle, first.raw(), last.raw(), 1, most)?.ok()?;
        Some(Searched {
            place: found.places.first().copied().map(VirtAddr),
            bytes: found.bytes,
            next: found.next.map(VirtAddr),
        })
    }
}

/// Why no table was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFound {
    #[error("no table of kallsyms tokens in {0} bytes of memory that were searched")]
    Tokens(u64),
    #[error("the table of kallsyms tokens at {0} is not followed by its index")]
    Index(VirtAddr),
    #[error("no kallsyms names belong to the table of tokens at {0}")]
    Names(VirtAddr),
    #[error("no kallsyms addresses belong to the names at {0}")]
    Addresses(VirtAddr),
    #[error("its linux_banner is at {0} by its kallsyms, where the dump has none")]
    Banner(VirtAddr),
    #[error("its kallsyms do not point to code")]
    Code,
}

impl Kallsyms {
    /// The table of the kernel that is mapped in one of `ranges`. `token_table` is its address if
    /// VMCOREINFO has it (since 6.0).
    pub fn find(
        space: &impl Searchable,
        word: Word,
        ranges: &[(VirtAddr, VirtAddr)],
        token_table: Option<VirtAddr>,
    ) -> Result<Self, NotFound> {
        let budget = Budget::new("names of kallsyms", MAX_KALLSYMS_CHECKED_NAMES);
        let mut failure = None;
        if let Some(at) = token_table {
            match Tokens::at(space, at).ok_or(NotFound::Index(at)) {
                Ok(tokens) => match Self::with(space, word, &tokens, &budget) {
                    Ok(found) => return Ok(found),
                    Err(error) => failure = Some(error),
                },
                Err(error) => failure = Some(error),
            }
        }
        let mut remaining = MAX_KERNEL_IMAGE_SEARCH;
        let mut candidates = MAX_KALLSYMS_CANDIDATES;
        for &(first, last) in ranges {
            let mut first = first;
            while remaining > 0 && candidates > 0 {
                let Some(found) = space.first(DIGITS, (first, last), remaining) else {
                    break;
                };
                remaining = remaining.saturating_sub(found.bytes);
                if let Some(place) = found.place {
                    candidates -= 1;
                    let digit = place;
                    let tokens = Tokens::around(space, digit).ok_or(NotFound::Index(digit));
                    match tokens.and_then(|tokens| Self::with(space, word, &tokens, &budget)) {
                        Ok(found) => return Ok(found),
                        Err(error) => failure = Some(error),
                    }
                }
                match found.next {
                    Some(next) if next > first => first = next,
                    _ => break,
                }
            }
        }
        Err(failure.unwrap_or(NotFound::Tokens(MAX_KERNEL_IMAGE_SEARCH - remaining)))
    }

    /// The symbols whose names consist of these tokens.
    fn with(
        memory: &dyn Memory<VirtAddr>,
        word: Word,
        tokens: &Tokens,
        budget: &Budget,
    ) -> Result<Self, NotFound> {
        let names = Names::before(memory, tokens, word, budget)
            .ok_or(NotFound::Names(VirtAddr(tokens.start)))?;
        // Names take two to three times the bytes of their tokens. What is not used is never touched.
        let likely = names.size().saturating_mul(EXPANSION);
        let mut strings = alloc::with_capacity(likely.min(MAX_KALLSYMS_STRINGS_SIZE));
        let mut found = alloc::with_capacity(names.count);
        names.expand(tokens, |symbol| {
            let number = u32::try_from(symbol.number);
            if let (Ok(at), Ok(number)) = (u32::try_from(strings.len()), number) {
                alloc::extend(&mut strings, symbol.name);
                alloc::push(&mut strings, 0);
                // Here, because the name is in the processor's cache.
                let key = Key::of_text(symbol.name, 0);
                found.push(Named {
                    number,
                    letter: symbol.letter,
                    name: at,
                    key,
                });
            }
        });
        let strings = Bytes::from(strings);
        let mut result = Err(NotFound::Addresses(VirtAddr(names.start)));
        for addresses in Addresses::candidates(memory, tokens, &names, word) {
            let mut symbols = alloc::with_capacity(found.len());
            let mut keys = alloc::with_capacity(found.len());
            for named in &found {
                if let Some(address) = addresses.get(named.number as usize) {
                    symbols.push(Symbol {
                        address,
                        name: named.name,
                        letter: named.letter,
                    });
                    keys.push(named.key);
                }
            }
            let lost = names.count - symbols.len();
            let mut gaps = match lost {
                0 => Vec::new(),
                _ => gaps(names.count, &addresses, &found),
            };
            let misplaced = remove_misplaced(&mut symbols, &mut gaps);
            if misplaced > 0 {
                keys = keys_of(&strings, &symbols);
            }
            let table = Self {
                word,
                strings: strings.clone(),
                lost,
                misplaced,
                gaps,
                symbols,
                keys: Arc::new(keys),
                only_exports: false,
            };
            // A base that was guessed is used only if the banner shows that it is right.
            let has_banner = table.get(["linux_banner"]) != [None];
            match table.verify(memory) {
                Ok(true) if has_banner || !addresses.is_guess => return Ok(table),
                _ if addresses.is_guess => {}
                Ok(false) if result.is_err() => result = Ok(table),
                Err(error) if result.is_err() => result = Err(error),
                _ => {}
            }
        }
        result
    }

    /// Exported symbols alone, of a kernel whose own table is not in the dump.
    pub fn of_exports(word: Word, symbols: Vec<(Vec<u8>, u64)>) -> Self {
        let mut table = Self {
            word,
            strings: Vec::new().into(),
            symbols: Vec::new(),
            keys: Arc::default(),
            lost: 0,
            misplaced: 0,
            gaps: Vec::new(),
            only_exports: true,
        };
        table.add(symbols, b'D');
        // What is behind an exported symbol is not known.
        let after = |symbol: &Symbol| symbol.address.saturating_add(1);
        table.gaps = alloc::collect(table.symbols.iter().map(after));
        table.gaps.sort_unstable();
        table
    }

    /// Whether the banner, or functions without one, are where the symbols say. `false` if the dump
    /// lacks the page of the banner.
    fn verify(&self, memory: &dyn Memory<VirtAddr>) -> Result<bool, NotFound> {
        if let [Some(banner)] = self.get(["linux_banner"]) {
            let mut text = [0; BANNER.len()];
            return match memory.read(VirtAddr(banner), &mut text) {
                Ok(()) if text != BANNER => Err(NotFound::Banner(VirtAddr(banner))),
                found => Ok(found.is_ok()),
            };
        }
        let code = self.symbols.iter();
        let code = code.filter(|symbol| symbol.letter.eq_ignore_ascii_case(&b't'));
        let step = (self.symbols.len() / FUNCTIONS).max(1);
        let (mut seen, mut sound) = (0, 0);
        for symbol in code.step_by(step).take(2 * FUNCTIONS) {
            let mut bytes = [0; 8];
            if memory.read(VirtAddr(symbol.address), &mut bytes).is_ok() {
                seen += 1;
                sound += usize::from(bytes != [0; 8] && bytes != [0xff; 8]);
            }
        }
        if sound * 2 > seen {
            Ok(true)
        } else {
            Err(NotFound::Code)
        }
    }

    /// Adds the banner and the exported variables that `find` finds between the code and the init code,
    /// if the table has functions only.
    pub fn add_exports(&mut self, find: impl FnOnce((u64, u64)) -> Vec<(Vec<u8>, u64)>) {
        if let [None, Some(etext), Some(init)] = self.get(["linux_banner", "_etext", "_sinittext"])
        {
            self.add(find((etext, init)), b'D');
        }
    }

    /// A copy.
    pub fn copied(&self) -> Self {
        Self {
            strings: self.strings.clone(),
            symbols: alloc::copied(&self.symbols),
            keys: Arc::clone(&self.keys),
            gaps: alloc::copied(&self.gaps),
            ..*self
        }
    }

    /// Adds symbols from another source, unless there are some of the same name.
    pub fn add(&mut self, others: Vec<(Vec<u8>, u64)>, letter: u8) {
        let mut strings = alloc::copied(&self.strings);
        let mut known = HashSet::new();
        for symbol in &self.symbols {
            alloc::insert(&mut known, self.name(symbol));
        }
        let mut added = Vec::new();
        for (name, address) in others {
            let Ok(at) = u32::try_from(strings.len()) else {
                break;
            };
            if !known.contains(&name[..]) {
                alloc::extend(&mut strings, &name);
                alloc::push(&mut strings, 0);
                let symbol = Symbol {
                    address,
                    name: at,
                    letter,
                };
                alloc::push(&mut added, symbol);
            }
        }
        let mut keys = alloc::copied(&self.keys);
        alloc::extend(&mut keys, &keys_of(&strings, &added));
        alloc::extend(&mut self.symbols, &added);
        self.keys = Arc::new(keys);
        self.strings = strings.into();
    }

    /// The name of a symbol.
    pub fn name(&self, symbol: &Symbol) -> &[u8] {
        let rest = self.strings.get(symbol.name as usize..).unwrap_or_default();
        let end = memchr::memchr(0, rest);
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
    }

    /// The symbols with this name, which has no blanks.
    pub fn named<'a>(&'a self, wanted: &'a [u8]) -> impl Iterator<Item = &'a Symbol> {
        let same = positions(&self.keys, Key::of_text(wanted, 0));
        let found = same.filter_map(|i| self.symbols.get(i));
        found.filter(|symbol| self.is_named(symbol, wanted))
    }

    /// Whether a symbol has this name.
    fn is_named(&self, symbol: &Symbol, wanted: &[u8]) -> bool {
        let rest = self.strings.get(symbol.name as usize..).unwrap_or_default();
        let end = rest.get(wanted.len()).copied().unwrap_or(0);
        end == 0 && rest.get(..wanted.len()) == Some(wanted) && !wanted.contains(&0)
    }

    /// Whether its name starts with these bytes.
    pub fn has_prefix(&self, symbol: &Symbol, prefix: &[u8]) -> bool {
        let rest = self.strings.get(symbol.name as usize..).unwrap_or_default();
        // One comparison of numbers decides nearly always.
        match (rest.first_chunk::<8>(), prefix.first_chunk()) {
            (Some(start), Some(wanted)) if start != wanted => false,
            _ => rest.starts_with(prefix),
        }
    }

    /// From the first address of the image to the one after its last.
    pub fn span(&self) -> Option<Range<u64>> {
        let lowest = match self.word {
            Word::W64 => START_KERNEL_MAP,
            Word::W32 => 0,
        };
        let addresses = || self.symbols.iter().map(|symbol| symbol.address);
        let first = |found: &[Option<u64>]| found.iter().flatten().next().copied();
        // The dump may lack the first symbols.
        let lowest = || addresses().filter(|address| *address >= lowest).min();
        let start = first(&self.get(STARTS)).or_else(lowest)?;
        let end = first(&self.get(ENDS)).filter(|end| *end > start);
        // Exported variables are behind the init code.
        Some(start..end.or_else(|| addresses().max())?)
    }

    /// The same symbols of a kernel that was moved by `slide` bytes. Constants and offsets into the
    /// per-CPU areas are not moved.
    pub fn moved(&self, slide: i64) -> Self {
        let span = self.span().unwrap_or_default();
        let moved = |address: u64| {
            let is_inside = span.start <= address && address <= span.end;
            let slide = if is_inside { slide } else { 0 };
            address.wrapping_add_signed(slide) & self.word.max()
        };
        let symbols = self.symbols.iter().map(|symbol| Symbol {
            address: moved(symbol.address),
            ..*symbol
        });
        Self {
            word: self.word,
            strings: self.strings.clone(),
            symbols: alloc::collect(symbols),
            keys: Arc::clone(&self.keys),
            lost: self.lost,
            misplaced: self.misplaced,
            gaps: alloc::collect(self.gaps.iter().copied().map(moved)),
            only_exports: self.only_exports,
        }
    }

    /// The addresses of the first symbols with these names, which have no blanks.
    pub fn get<const N: usize>(&self, wanted: [&str; N]) -> [Option<u64>; N] {
        wanted.map(|name| {
            let first = self.named(name.as_bytes()).next();
            first.map(|symbol| symbol.address)
        })
    }
}

/// The keys of the names of symbols.
pub(super) fn keys_of(strings: &[u8], symbols: &[Symbol]) -> Vec<Key> {
    let names = symbols.iter().map(|symbol| symbol.name);
    alloc::collect(names.map(|name| Key::of_text(strings, name)))
}

/// Removes the fewest symbols that leave ascending addresses, and adds where they may be to `gaps`. The
/// kernel's build sorts the table, so they are damaged.
fn remove_misplaced(symbols: &mut Vec<Symbol>, gaps: &mut Vec<u64>) -> usize {
    if symbols.is_sorted_by_key(|symbol| symbol.address) {
        return 0;
    }
    // The longest ascending subsequence. `ends` has the last symbol of the best one of each length.
    let address = |i: usize| symbols.get(i).map_or(0, |symbol| symbol.address);
    let mut ends: Vec<usize> = Vec::new();
    let mut before = alloc::filled(None, symbols.len());
    for i in 0..symbols.len() {
        let length = ends.partition_point(|end| address(*end) <= address(i));
        if let (Some(slot), Some(shorter)) = (before.get_mut(i), length.checked_sub(1)) {
            *slot = ends.get(shorter).copied();
        }
        match ends.get_mut(length) {
            Some(end) => *end = i,
            None => alloc::push(&mut ends, i),
        }
    }
    let mut is_kept = alloc::filled(false, symbols.len());
    let mut at = ends.last().copied();
    while let Some(i) = at {
        if let Some(kept) = is_kept.get_mut(i) {
            *kept = true;
        }
        at = before.get(i).copied().flatten();
    }
    let all = symbols.len();
    let (mut last, mut kept) = (0, is_kept.into_iter());
    symbols.retain(|symbol| {
        let is_kept = kept.next().unwrap_or(false);
        if is_kept {
            last = symbol.address;
        } else {
            alloc::push(gaps, last.saturating_add(1));
        }
        is_kept
    });
    gaps.sort_unstable();
    gaps.dedup();
    all - symbols.len()
}

/// Where symbols are lost. A symbol without a name is at its own address; one without an address is
/// somewhere behind the one before it, as the table is sorted.
fn gaps(count: usize, addresses: &Addresses, found: &[Named]) -> Vec<u64> {
    let mut gaps = Vec::new();
    let mut named = found.iter().map(|named| named.number as usize).peekable();
    let mut before = 0;
    for i in 0..count {
        let has_name = named.next_if_eq(&i).is_some();
        match addresses.get(i) {
            Some(address) => {
                before = address;
                if !has_name {
                    alloc::push(&mut gaps, address);
                }
            }
            None => alloc::push(&mut gaps, before.saturating_add(1)),
        }
    }
    gaps.sort_unstable();
    gaps.dedup();
    gaps
}

#[cfg(test)]
mod tests {
    use super::{remove_misplaced, Symbol};

    fn removed(addresses: &[u64]) -> (usize, Vec<u64>, Vec<u64>) {
        let mut symbols: Vec<Symbol> = addresses
            .iter()
            .map(|&address| Symbol {
                address,
                name: 0,
                letter: b'T',
            })
            .collect();
        let mut gaps = Vec::new();
        let count = remove_misplaced(&mut symbols, &mut gaps);
        let kept = symbols.iter().map(|symbol| symbol.address).collect();
        (count, kept, gaps)
    }

    #[test]
    fn symbols_out_of_order_are_removed() {
        let whole = [0, 0, 8, 0x100, 0x100, 0x200];
        assert_eq!(removed(&whole), (0, whole.to_vec(), vec![]));
        // One that is too high, too low, or two of them.
        let expected = |n| (n, vec![0x100, 0x200, 0x300, 0x400]);
        for (addresses, n, gaps) in [
            (&[0x100, 0x9000, 0x200, 0x300, 0x400][..], 1, vec![0x101]),
            (&[0x100, 0x200, 0x8, 0x300, 0x400][..], 1, vec![0x201]),
            (
                &[0x9000, 0x100, 0x200, 0x300, 0x8, 0x400][..],
                2,
                vec![1, 0x301],
            ),
        ] {
            let (count, kept, found) = removed(addresses);
            assert_eq!((count, kept), expected(n));
            assert_eq!(found, gaps);
        }
    }
}
