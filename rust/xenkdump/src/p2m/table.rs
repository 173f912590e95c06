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
    directory: Directory,
    /// Entries of the first page that lie before pfn 0's: an array need not start on a page.
    bias: u64,
    leaves: Leaves,
    pub(super) reverse: OnceLock<Reverse>,
}

/// Entries that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// How many.
    pub count: u64,
    /// Where the first one stands; `None` where there is no page for them.
    pub at: Option<MachineAddr>,
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
        Ok(Self {
            mem,
            source,
            word,
            pages,
            directory,
            bias,
            leaves: Leaves::new((pages + bias).div_ceil(per_page)),
            reverse: OnceLock::new(),
        })
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
        let index = pfn.0 + self.bias;
        let number = index / self.per_page();
        let leaf = self
            .leaves
            .get(number, || self.directory.leaf(&self.mem, number))
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

    /// The entries that lie together from `first` on, up to `end` at most (which lies within the
    /// P2M). Never empty if `first < end`. Learns nothing, so that reading all of a P2M costs no
    /// memory.
    pub(super) fn run(&self, first: Pfn, end: Pfn) -> Run {
        let per_page = self.per_page();
        let index = first.0.saturating_add(self.bias);
        let (number, slot) = (index / per_page, index % per_page);
        let wanted = end.0.saturating_sub(first.0);
        match self.directory.leaf(&self.mem, number) {
            Leaf::Page(mfn) => Run {
                count: wanted.min(per_page - slot),
                at: mfn
                    .addr()
                    .map(|addr| MachineAddr(addr.0 + slot * self.word.bytes() as u64)),
            },
            Leaf::Missing { until } => Run {
                count: wanted.min(until.saturating_mul(per_page).saturating_sub(index)),
                at: None,
            },
        }
    }

    /// The entries of a run, in `out`, which is emptied first.
    pub(super) fn entries(&self, run: Run, out: &mut Vec<Entry>) {
        out.clear();
        let mut page = [0; PAGE_SIZE];
        let bytes = usize::try_from(run.count)
            .ok()
            .and_then(|count| count.checked_mul(self.word.bytes()))
            .and_then(|len| page.get_mut(..len));
        let (Some(at), Some(bytes)) = (run.at, bytes) else {
            return;
        };
        if self.mem.read(at, bytes).is_err() {
            return;
        }
        out.extend(
            bytes
                .chunks_exact(self.word.bytes())
                .filter_map(|bytes| self.word.get(bytes))
                .map(|raw| decode(raw, self.word)),
        );
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
            if let Some(page) = run.at {
                let last = *last_in.entry(page).or_insert_with(|| {
                    self.entries(run, &mut entries);
                    let invalid = Entry::Special(Special::Invalid);
                    match entries.iter().rposition(|entry| *entry != invalid) {
                        Some(last) => last as u64 + 1,
                        // A page that cannot be read is missing, not empty.
                        None if entries.is_empty() => run.count,
                        None => 0,
                    }
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

#[inline]
pub(super) fn decode(raw: u64, word: Word) -> Entry {
    match Entry::decode(raw, word) {
        Entry::Frame(mfn) if mfn.0 >= MFN_LIMIT => Entry::Special(Special::Invalid),
        entry => entry,
    }
}
