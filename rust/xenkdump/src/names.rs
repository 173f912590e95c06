//! A hash table from names to indices, built in one pass.

use std::hash::{BuildHasher, Hash};
use std::sync::LazyLock;

use foldhash::quality::RandomState;

use crate::alloc;
use crate::limits::MAX_SYMBOL_NAME;

/// Finds candidates for a name. Uses four bytes per bucket and four bytes per name.
///
/// Buckets are chained: many symbols may have the same name, and insertion must remain linear on
/// hostile files.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    heads: Vec<u32>,
    next: Vec<u32>,
}

/// The end of a chain.
const END: u32 = u32::MAX;

/// A random seed, so that no file can be constructed to cause collisions.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The hash of a name, valid for all [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u32);

impl Key {
    pub fn of(name: impl Hash) -> Self {
        Self(SEED.hash_one(name) as u32)
    }

    /// The key of the string at `offset` of `strings` up to the first blank or control character. Takes
    /// a third of the time of finding its end and hashing it.
    pub fn of_text(strings: &[u8], offset: u32) -> Self {
        const WORD: usize = size_of::<u64>();
        static SEEDS: LazyLock<[u64; 2]> = LazyLock::new(|| [0, 1].map(|i: u8| SEED.hash_one(i)));
        let [mut hash, factor] = *SEEDS;
        let mut add = |word: [u8; WORD]| {
            let word = u64::from_le_bytes(word);
            let ends = blanks(word);
            // What is below the first of them.
            let text = word & ((ends & ends.wrapping_neg()).wrapping_sub(1) >> 7);
            let text = if ends == 0 { word } else { text };
            let product = u128::from(hash ^ text) * u128::from(factor | 1);
            hash = (product as u64) ^ (product >> 64) as u64;
            (ends != 0).then_some(Self(hash as u32))
        };
        let (words, rest) = rest(strings, offset).as_chunks();
        for word in words {
            if let Some(key) = add(*word) {
                return key;
            }
        }
        // The zeros end it.
        let mut last = [0; WORD];
        last[..rest.len()].copy_from_slice(rest);
        add(last).unwrap_or(Self(0))
    }
}

/// The upper bit of the first byte of `word` that is at most a blank, and perhaps of later ones.
fn blanks(word: u64) -> u64 {
    const ALL: u64 = u64::MAX / 0xff;
    word.wrapping_sub(ALL * (b' ' as u64 + 1)) & !word & (ALL * 0x80)
}

/// Keys that are compared at once.
const KEYS: usize = 64;

/// The indices of all keys that equal `wanted`.
pub(crate) fn positions(keys: &[Key], wanted: Key) -> impl Iterator<Item = usize> + use<'_> {
    // Most have none of them, which takes a few instructions for vectors.
    let has = move |keys: &[Key]| {
        keys.iter()
            .fold(false, |found, key| found | (*key == wanted))
    };
    let pieces = (0..).step_by(KEYS).zip(keys.chunks(KEYS));
    let found = pieces.filter(move |(_, piece)| has(piece));
    found.flat_map(move |(start, piece)| {
        let numbered = (start..).zip(piece);
        numbered.filter_map(move |(i, key)| (*key == wanted).then_some(i))
    })
}

impl Names {
    /// Builds the table from names (or any hashable keys) with their indices. Indices must be unique
    /// and below `len`.
    pub fn in_order(len: usize, names: impl Iterator<Item = (u32, impl Hash)>) -> Self {
        Self::with_keys(len, names.map(|(i, name)| (i, Key::of(name))))
    }

    /// Like [`Names::in_order`], from the keys of the names.
    pub fn with_keys(len: usize, names: impl Iterator<Item = (u32, Key)>) -> Self {
        let mut this = Self {
            heads: alloc::filled(END, len.next_power_of_two()),
            next: alloc::filled(END, len),
        };
        for (i, key) in names {
            let bucket = this.bucket(key);
            let head = std::mem::replace(&mut this.heads[bucket], i);
            if let Some(next) = this.next.get_mut(i as usize) {
                *next = head;
            }
        }
        this
    }

    /// The indices of names that may equal `name`, the last one added first.
    pub fn candidates<N: Hash>(&self, name: N) -> impl Iterator<Item = usize> + use<'_, N> {
        self.with_key(Key::of(name))
    }

    /// Like [`Names::candidates`], by the key of the name.
    pub fn with_key(&self, key: Key) -> impl Iterator<Item = usize> + use<'_> {
        let link = |i: u32| (i != END).then_some(i);
        let first = self.heads.get(self.bucket(key)).copied().and_then(link);
        std::iter::successors(first, move |i| {
            self.next.get(*i as usize).copied().and_then(link)
        })
        .map(|i| i as usize)
    }

    fn bucket(&self, key: Key) -> usize {
        key.0 as usize & (self.heads.len() - 1)
    }
}

/// FNV-1a on 8-byte words, with additional mixing. Must not change: it is stored in cached indices.
pub(crate) fn hash(name: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut chunks = name.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.try_into().map_or(0, u64::from_le_bytes);
        hash = (hash ^ word).wrapping_mul(PRIME);
        hash ^= hash >> 32;
    }
    for byte in chunks.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    hash ^ (hash >> 29)
}

/// At most `MAX_SYMBOL_NAME` bytes of `strings` from `offset`.
pub(crate) fn rest(strings: &[u8], offset: u32) -> &[u8] {
    let rest = strings.get(offset as usize..).unwrap_or_default();
    rest.get(..MAX_SYMBOL_NAME).unwrap_or(rest)
}

/// Bytes of a string that are examined at once.
const VECTOR: usize = 16;

/// The string at `offset` of `strings`, up to the first byte for which `ends` is true.
pub(crate) fn string(strings: &[u8], offset: u32, ends: impl Fn(u8) -> bool) -> &[u8] {
    let rest = rest(strings, offset);
    // By vectors, and to the byte in the last one.
    let has_end = |chunk: &&[u8]| chunk.iter().fold(false, |found, byte| found | ends(*byte));
    let whole = rest
        .chunks_exact(VECTOR)
        .take_while(|chunk| !has_end(chunk))
        .count()
        * VECTOR;
    let tail = rest.get(whole..).unwrap_or_default();
    let end = tail.iter().position(|byte| ends(*byte));
    rest.get(..end.map_or(rest.len(), |end| whole + end))
        .unwrap_or_default()
}

/// Whether [`string`] at `offset` equals `wanted`. Does not scan longer strings to their end.
pub(crate) fn is_string(
    strings: &[u8],
    offset: u32,
    wanted: &[u8],
    ends: impl Fn(u8) -> bool,
) -> bool {
    let rest = strings.get(offset as usize..).unwrap_or_default();
    let Some((name, after)) = rest.split_at_checked(wanted.len()) else {
        return false;
    };
    let ended = after.first().is_none_or(|byte| ends(*byte)) || name.len() == MAX_SYMBOL_NAME;
    name == wanted && ended && name.len() <= MAX_SYMBOL_NAME && !name.iter().any(|byte| ends(*byte))
}

/// The name of a symbol at `offset` of a string table.
pub(crate) fn of_symbol(strings: &[u8], offset: u32) -> &[u8] {
    string(strings, offset, ends_symbol)
}

/// Whether `byte` ends the name of a symbol: NUL in an ELF file and in kallsyms, a newline or a blank in
/// a map.
pub(crate) fn ends_symbol(byte: u8) -> bool {
    byte <= b' '
}

/// The text of a name, up to the first invalid UTF-8.
pub(crate) fn text(name: &[u8]) -> &str {
    name.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All names have the same FNV hash for any initial value.
    #[test]
    fn hash_collisions_cannot_be_forced() {
        let halves = [
            [*b"abcdefgh", *b"ijklmnop"],
            [*b"abcdefg\xe8", *b"ijk\xecmno\xf0"],
        ];
        let names: Vec<Vec<u8>> = (0..1024_usize)
            .map(|i| {
                (0..10)
                    .flat_map(|bit| halves[i >> bit & 1].concat())
                    .collect()
            })
            .collect();
        assert!(names.iter().all(|name| hash(name) == hash(&names[0])));
        let table = Names::in_order(names.len(), (0..).zip(names.iter().map(Vec::as_slice)));
        for (i, name) in names.iter().enumerate() {
            assert!(table.candidates(name).any(|found| found == i));
            assert!(table.candidates(name).count() < 32);
        }
    }

    #[test]
    fn all_positions_of_a_key_are_found() {
        for len in [0, 1, KEYS - 1, KEYS, KEYS + 1, 5 * KEYS + 3] {
            let keys: Vec<Key> = (0..len as u32).map(|i| Key(i * i % 7)).collect();
            for wanted in 0..8 {
                let all = (0..len).filter(|i| keys[*i] == Key(wanted));
                let all: Vec<usize> = all.collect();
                assert_eq!(positions(&keys, Key(wanted)).collect::<Vec<_>>(), all);
            }
        }
    }

    #[test]
    fn the_key_of_a_text_is_that_of_its_copy() {
        let text = [
            &b"a\0ab b abcdefgh\0abcdefghi\nabcdefg\0\xff\x80\x7f\x21 "[..],
            &[b'x'; MAX_SYMBOL_NAME + 1],
        ]
        .concat();
        let mut keys = std::collections::HashMap::new();
        for offset in 0..=text.len() as u32 + 1 {
            let name = string(&text, offset, |byte| byte <= b' ');
            let Key(key) = Key::of_text(&text, offset);
            assert_eq!(key, Key::of_text(name, 0).0, "{offset}");
            assert_eq!(key, *keys.entry(name.to_vec()).or_insert(key), "{offset}");
        }
        let all: std::collections::HashSet<_> = keys.values().collect();
        assert!(all.len() + 2 > keys.len(), "they differ");
    }

    #[test]
    fn is_string_agrees_with_string() {
        let strings = [b"\0name\0names\0a b", &[b'x'; MAX_SYMBOL_NAME + 1][..]].concat();
        let ends = |byte| byte <= b' ';
        for offset in (0..=strings.len()).chain([usize::MAX]) {
            let offset = offset as u32;
            let there = string(&strings, offset, ends);
            let limit = [b'x'; MAX_SYMBOL_NAME + 1];
            for wanted in [
                &b"name"[..],
                b"names",
                b"",
                b"a",
                b"a b",
                b"b",
                &limit,
                &limit[1..],
            ] {
                let same = is_string(&strings, offset, wanted, ends);
                assert_eq!(same, there == wanted, "{offset} {wanted:?}");
            }
        }
    }
}
