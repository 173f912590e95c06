//! A hash of names to indices, built in one pass.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

use crate::limits::MAX_SYMBOL_NAME;

/// Which of many names may be the one that is sought: four bytes a bucket, four bytes a name.
///
/// Buckets are chains, because many symbols may have one name, and a hostile file as many as it
/// likes: filling it is linear all the same.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    heads: Vec<u32>,
    next: Vec<u32>,
}

/// The end of a chain.
const END: u32 = u32::MAX;

/// What a name is hashed with: no file can be made whose names meet in one bucket.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The hash of a name that is sought, for as many [`Names`] as there are.
#[derive(Clone, Copy)]
pub(crate) struct Key(u64);

impl Key {
    pub fn of(name: impl Hash) -> Self {
        Self(SEED.hash_one(name))
    }
}

impl Names {
    /// Hashes names (or names with what else tells them apart) that are given with their indices, each below `len` and given once.
    pub fn in_order(len: usize, names: impl Iterator<Item = (u32, impl Hash)>) -> Self {
        let mut this = Self {
            heads: vec![END; len.next_power_of_two()],
            next: vec![END; len],
        };
        for (i, name) in names {
            let bucket = this.bucket(Key::of(name));
            let head = std::mem::replace(&mut this.heads[bucket], i);
            if let Some(next) = this.next.get_mut(i as usize) {
                *next = head;
            }
        }
        this
    }

    /// The indices of the names that may be `name`, the last given first.
    pub fn candidates<N: Hash>(&self, name: N) -> impl Iterator<Item = usize> + use<'_, N> {
        self.with_key(Key::of(name))
    }

    /// The same, by the name's key.
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

/// FNV-1a on words of 8 bytes, mixed as it goes. Stable: files of indices hold it.
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

/// As much of `strings` from `offset` on as a name may take.
pub(crate) fn rest(strings: &[u8], offset: u32) -> &[u8] {
    let rest = strings.get(offset as usize..).unwrap_or_default();
    rest.get(..MAX_SYMBOL_NAME).unwrap_or(rest)
}

/// The string at `offset` of `strings`, up to the first byte that ends it.
pub(crate) fn string(strings: &[u8], offset: u32, ends: impl Fn(u8) -> bool) -> &[u8] {
    let rest = rest(strings, offset);
    let end = rest.iter().position(|byte| ends(*byte));
    rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
}

/// Whether [`string`] is `wanted` there, without looking for the end of a longer one.
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

/// As text, up to where it stops being UTF-8.
pub(crate) fn text(name: &[u8]) -> &str {
    name.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV's hash is the same for all of them, whatever it starts with.
    #[test]
    fn names_cannot_be_made_to_meet() {
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
    fn a_name_is_itself_only() {
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
