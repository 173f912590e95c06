//! A domain's P2M.

use std::sync::OnceLock;

use super::directory::{Directory, Leaf};
use super::leaves::Leaves;
use super::reverse::Reverse;
use super::{Entry, Source, Special};
use crate::addr::{MachineAddr, Mfn, Pfn, VirtAddr, Word, PAGE_SHIFT, PAGE_SIZE};
use crate::memory::Memory;
use crate::paging::Virtual;
use crate::{Error, Result};

/// The largest P2M that is believed: 256 TiB of pages, sixteen times Xen's largest host.
pub const MAX_PAGES: u64 = 1 << 36;

/// Machine addresses have 52 bits on every x86; an entry that names a frame above them is garbage.
const MFN_LIMIT: u64 = 1 << (52 - PAGE_SHIFT);

/// A domain's pfn to mfn table, read where it lies in machine memory.
///
/// Safe to share between threads; what is learnt on the way (where its pages are) is kept.
#[derive(Debug)]
pub struct P2m<M> {
    mem: M,
    source: Source,
    word: Word,
    pages: u64,
    entries: Entries,
    /// Entries of the first page that lie before pfn 0's: an array need not start on a page.
    bias: u64,
    pub(super) reverse: OnceLock<Reverse>,
}

/// Where the entries are.
#[derive(Debug)]
enum Entries {
    /// In pages of the guest's own.
    Pages {
        directory: Directory,
        leaves: Leaves,
    },
    /// In a list of those that name a frame, ascending by pfn.
    Pairs(Box<[(Pfn, Mfn)]>),
}

/// Entries that follow each other and lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first one's pfn.
    pub first: Pfn,
    /// How many.
    pub count: u64,
    /// Where they are.
    pub at: At,
}

/// Where the entries of a [`Run`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// In machine memory, from here on.
    Page(MachineAddr),
    /// In the list of pairs, from this one on.
    Pairs(usize),
    /// Nowhere, and all of them say so.
    Nowhere(Special),
}

impl<M: Memory<MachineAddr>> P2m<M> {
    /// The frame-list tree below the page `list_list`, of a guest with this word size.
    ///
    /// `pages` is the guest's `max_pfn` where that is known. Otherwise the tree ends at its last
    /// entry that is not all ones; unused slots may be 0 or name shared pages of all ones, so
    /// neither ends it.
    ///
    /// Fails with [`Error::Absent`] where `list_list` is 0 (the guest had not set it up yet) or
    /// all ones (it publishes a linear list only), and where that page is not in `mem`.
    pub fn frame_list(mem: M, list_list: Mfn, word: Word, pages: Option<u64>) -> Result<Self> {
        if list_list.0 == 0 {
            let text = "the domain had not set up its P2M frame list (its mfn is 0)";
            return Err(Error::Absent(text.into()));
        }
        // A 32-bit guest on 64-bit Xen says all ones in 32 bits.
        if list_list.0 == u64::MAX || list_list.0 == word.max() {
            let text =
                "the domain has no P2M frame list (its mfn is all ones): it has a linear list";
            return Err(Error::Absent(text.into()));
        }
        let mut page = [0; PAGE_SIZE];
        let addr = list_list
            .addr()
            .ok_or_else(|| Error::Absent(format!("no frame has mfn {:#x}", list_list.0)))?;
        mem.read(addr, &mut page).map_err(|fault| Error::Memory {
            what: "P2M frame-list list".into(),
            fault,
        })?;
        let per_page = (PAGE_SIZE / word.bytes()) as u64;
        let capacity = per_page.pow(3);
        let directory = Directory::FrameList { list_list, word };
        let mut p2m = Self::new(
            mem,
            Source::FrameList,
            directory,
            word,
            pages.unwrap_or(capacity).min(capacity),
            0,
        )?;
        if pages.is_none() {
            p2m.pages = p2m.last_used();
        }
        Ok(p2m)
    }

    /// The array of `pages` entries at `array` in `space`: one that a guest publishes, or its
    /// kernel's own ([`Source::Linear`], [`Source::Cr3`]).
    ///
    /// Fails where the array is not aligned to its entries, or is not mapped at all.
    pub fn linear(
        space: Virtual<M>,
        array: VirtAddr,
        word: Word,
        pages: u64,
        source: Source,
    ) -> Result<Self> {
        let bytes = word.bytes() as u64;
        let within = array.0 & (PAGE_SIZE as u64 - 1);
        if !within.is_multiple_of(bytes) {
            let text = format!("no P2M can start at {array}: it is not aligned to {bytes} bytes");
            return Err(Error::Absent(text));
        }
        space.walk(array).map_err(|fault| Error::Memory {
            what: "start of the P2M".into(),
            fault,
        })?;
        let directory = Directory::Linear {
            format: space.format(),
            root: space.root(),
            base: VirtAddr(array.0 - within),
        };
        Self::new(
            space.into_memory(),
            source,
            directory,
            word,
            pages,
            within / bytes,
        )
    }

    /// The kernel's own tree of pointers, `levels` deep (2 or 3, the P2M pages being the last).
    ///
    /// `top` is the address of the topmost array's first element: with two levels that of the
    /// symbol `p2m_top`; with three levels the symbol is a pointer to it.
    pub fn pvops_tree(
        space: Virtual<M>,
        top: VirtAddr,
        levels: u8,
        word: Word,
        pages: u64,
    ) -> Result<Self> {
        if !(2..=3).contains(&levels) {
            let text = format!("a P2M tree of {levels} levels: Linux had some of 2 and of 3");
            return Err(Error::Absent(text));
        }
        space.walk(top).map_err(|fault| Error::Memory {
            what: "top of the P2M tree".into(),
            fault,
        })?;
        let directory = Directory::Pointers {
            format: space.format(),
            root: space.root(),
            top,
            levels,
            word,
        };
        Self::new(
            space.into_memory(),
            Source::PvopsTree,
            directory,
            word,
            pages,
            0,
        )
    }

    fn new(
        mem: M,
        source: Source,
        directory: Directory,
        word: Word,
        pages: u64,
        bias: u64,
    ) -> Result<Self> {
        if pages > MAX_PAGES {
            let text = format!("a P2M of {pages} pages is beyond belief (limit {MAX_PAGES})");
            return Err(Error::Absent(text));
        }
        let per_page = (PAGE_SIZE / word.bytes()) as u64;
        let entries = Entries::Pages {
            directory,
            leaves: Leaves::new((pages + bias).div_ceil(per_page)),
        };
        Ok(Self {
            mem,
            source,
            word,
            pages,
            entries,
            bias,
            reverse: OnceLock::new(),
        })
    }

    /// The P2M that a container itself lists: pairs ascending by pfn, no pfn twice. `word` is the
    /// guest's.
    pub fn container(mem: M, pairs: &[(Pfn, Mfn)], word: Word) -> Self {
        let pairs: Box<[_]> = pairs
            .iter()
            .copied()
            .filter(|(pfn, _)| pfn.0 < MAX_PAGES)
            .collect();
        Self {
            mem,
            source: Source::Container,
            word,
            pages: pairs.last().map_or(0, |(pfn, _)| pfn.0 + 1),
            entries: Entries::Pairs(pairs),
            bias: 0,
            reverse: OnceLock::new(),
        }
    }

    /// Where it was found.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The guest's word size: that of an entry.
    pub fn word(&self) -> Word {
        self.word
    }

    /// How many pfns it has.
    pub fn len(&self) -> u64 {
        self.pages
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// The machine memory it lies in.
    pub fn memory(&self) -> &M {
        &self.mem
    }

    /// What it says of `pfn`. An entry that names no possible frame (above 52 address bits) is
    /// [`Special::Invalid`].
    pub fn resolve(&self, pfn: Pfn) -> Entry {
        if pfn.0 >= self.pages {
            return Entry::Special(Special::OutOfRange);
        }
        let (directory, leaves) = match &self.entries {
            Entries::Pages { directory, leaves } => (directory, leaves),
            Entries::Pairs(pairs) => {
                let found = pairs
                    .binary_search_by_key(&pfn, |(pfn, _)| *pfn)
                    .ok()
                    .and_then(|i| pairs.get(i));
                return found.map_or(Entry::Special(Special::Invalid), |(_, mfn)| {
                    believable(*mfn)
                });
            }
        };
        let index = pfn.0 + self.bias;
        let number = index / self.per_page();
        let leaf = leaves
            .get(number, || directory.leaf(&self.mem, number))
            .and_then(Mfn::addr);
        let Some(leaf) = leaf else {
            return Entry::Special(Special::NoTable);
        };
        let at = leaf.0 + (index % self.per_page()) * self.word.bytes() as u64;
        match self.mem.read_word(MachineAddr(at), self.word) {
            Ok(raw) => decode(raw, self.word),
            Err(_) => Entry::Special(Special::NoTable),
        }
    }

    /// Whose frame `mfn` is: the lowest pfn that the P2M maps to it. The first question reads the
    /// whole P2M.
    pub fn reverse(&self, mfn: Mfn) -> Option<Pfn> {
        self.reverse.get_or_init(|| Reverse::build(self)).get(mfn)
    }

    fn per_page(&self) -> u64 {
        (PAGE_SIZE / self.word.bytes()) as u64
    }

    /// The entries that lie together from `first` on, up to `end` at most. Never none if
    /// `first < end`. Learns nothing, so that reading all of a P2M costs no memory.
    pub(super) fn run(&self, first: Pfn, end: Pfn) -> Run {
        let run = |at, count| Run { first, count, at };
        if first.0 >= self.pages {
            let count = end.0.saturating_sub(first.0);
            return run(At::Nowhere(Special::OutOfRange), count);
        }
        let wanted = end.0.min(self.pages).saturating_sub(first.0);
        match &self.entries {
            Entries::Pages { directory, .. } => {
                let per_page = self.per_page();
                let index = first.0 + self.bias;
                let (number, slot) = (index / per_page, index % per_page);
                let missing = At::Nowhere(Special::NoTable);
                match directory.leaf(&self.mem, number) {
                    Leaf::Page(mfn) => run(
                        mfn.addr().map_or(missing, |addr| {
                            At::Page(MachineAddr(addr.0 + slot * self.word.bytes() as u64))
                        }),
                        wanted.min(per_page - slot),
                    ),
                    Leaf::Missing { until } => {
                        let left = until.saturating_mul(per_page).saturating_sub(index);
                        run(missing, wanted.min(left))
                    }
                }
            }
            Entries::Pairs(pairs) => {
                let i = pairs.partition_point(|(pfn, _)| *pfn < first);
                let rest = pairs.get(i..).unwrap_or_default();
                let together = rest
                    .iter()
                    .zip(first.0..)
                    .take(PAGE_SIZE / 8)
                    .take_while(|((pfn, _), want)| pfn.0 == *want)
                    .count() as u64;
                if together > 0 {
                    return run(At::Pairs(i), wanted.min(together));
                }
                let next = rest.first().map_or(u64::MAX, |(pfn, _)| pfn.0);
                let gap = wanted.min(next.saturating_sub(first.0));
                run(At::Nowhere(Special::Invalid), gap)
            }
        }
    }

    /// The entries of a run, in `out`, which is emptied first. Of a run that is nowhere there are
    /// none.
    pub(super) fn entries(&self, run: Run, out: &mut Vec<Entry>) {
        out.clear();
        let count = usize::try_from(run.count).unwrap_or(0);
        match (run.at, &self.entries) {
            (At::Page(at), _) => {
                let mut page = [0; PAGE_SIZE];
                let len = count.saturating_mul(self.word.bytes());
                let Some(bytes) = page.get_mut(..len) else {
                    return;
                };
                if self.mem.read(at, bytes).is_err() {
                    out.resize(count, Entry::Special(Special::NoTable));
                    return;
                }
                out.extend(
                    bytes
                        .chunks_exact(self.word.bytes())
                        .filter_map(|bytes| self.word.get(bytes))
                        .map(|raw| decode(raw, self.word)),
                );
            }
            (At::Pairs(i), Entries::Pairs(pairs)) => out.extend(
                pairs
                    .iter()
                    .skip(i)
                    .take(count)
                    .map(|(_, mfn)| believable(*mfn)),
            ),
            _ => {}
        }
    }

    /// One more than the last pfn whose entry is not all ones.
    fn last_used(&self) -> u64 {
        let (mut at, mut used) = (0, 0);
        let mut entries = Vec::new();
        // Whether a page of the P2M says anything, by mfn: pvops fills the tree with one that does
        // not, and a hostile tree may name one page a million times.
        let mut last_in = std::collections::HashMap::new();
        while at < self.pages {
            let run = self.run(Pfn(at), Pfn(self.pages));
            if let At::Page(page) = run.at {
                let last = *last_in.entry(page).or_insert_with(|| {
                    self.entries(run, &mut entries);
                    let invalid = Entry::Special(Special::Invalid);
                    // A page that cannot be read is missing, not empty.
                    let last = entries.iter().rposition(|entry| *entry != invalid);
                    last.map_or(0, |last| last as u64 + 1)
                });
                if last > 0 {
                    used = at + last;
                }
            }
            at += run.count.max(1);
        }
        used
    }
}

/// Decodes an entry; a frame that cannot be is none.
#[inline]
pub(super) fn decode(raw: u64, word: Word) -> Entry {
    match Entry::decode(raw, word) {
        Entry::Frame(mfn) => believable(mfn),
        entry => entry,
    }
}

#[inline]
fn believable(mfn: Mfn) -> Entry {
    if mfn.0 < MFN_LIMIT {
        Entry::Frame(mfn)
    } else {
        Entry::Special(Special::Invalid)
    }
}
