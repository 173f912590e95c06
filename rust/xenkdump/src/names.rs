//! A hash of names to indices, built in one pass.

/// Which of many names may be the one that is sought: four bytes a bucket, four bytes a name.
///
/// Buckets are chains, because many symbols may have one name, and a hostile file as many as it
/// likes: filling it is linear all the same.
#[derive(Debug)]
pub(crate) struct Names {
    heads: Vec<u32>,
    next: Vec<u32>,
}

/// The end of a chain.
const END: u32 = u32::MAX;

impl Names {
    /// Hashes `names`; those past the first 2^32 - 1 cannot be found.
    pub fn new<'a>(names: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        let mut this = Self {
            heads: vec![END; names.len().next_power_of_two()],
            next: Vec::with_capacity(names.len()),
        };
        for (i, name) in (0..END).zip(names) {
            let bucket = this.bucket(name);
            let head = std::mem::replace(&mut this.heads[bucket], i);
            this.next.push(head);
        }
        this
    }

    /// The indices of the names that may be `name`, the last first.
    pub fn candidates(&self, name: &[u8]) -> impl Iterator<Item = usize> + use<'_> {
        let link = |i: u32| (i != END).then_some(i);
        let first = self.heads.get(self.bucket(name)).copied().and_then(link);
        std::iter::successors(first, move |i| {
            self.next.get(*i as usize).copied().and_then(link)
        })
        .map(|i| i as usize)
    }

    fn bucket(&self, name: &[u8]) -> usize {
        hash(name) as usize & (self.heads.len() - 1)
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

/// The longest name that is believed; longer ones are cut. Many names may point into one endless
/// string. The kernel's own limit (`KSYM_NAME_LEN`) is 512.
const LIMIT: usize = 1024;

/// As much of `strings` from `offset` on as a name may take.
pub(crate) fn rest(strings: &[u8], offset: u32) -> &[u8] {
    let rest = strings.get(offset as usize..).unwrap_or_default();
    rest.get(..LIMIT).unwrap_or(rest)
}

/// The string at `offset` of `strings`, up to the first byte that ends it.
pub(crate) fn string(strings: &[u8], offset: u32, ends: impl Fn(u8) -> bool) -> &[u8] {
    let rest = rest(strings, offset);
    let end = rest.iter().position(|byte| ends(*byte));
    rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
}

/// As text, up to where it stops being UTF-8.
pub(crate) fn text(name: &[u8]) -> &str {
    name.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}
