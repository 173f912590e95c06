//! Reads a whole P2M, by runs of contiguous entries.

use std::collections::HashSet;

use super::leaf::{Leaf, Origin};
use super::reverse::Frames;
use super::table::{decode, Coding, Entries};
use super::{checked, nested, Entry, P2m, Special};
use crate::addr::{MachineAddr, Mfn, Pfn, Word, PAGE_SIZE};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::{MAX_LARGE_FRAMES, MAX_LARGE_FRAMES_PER_PAGE};
use crate::memory::Memory;

/// Contiguous entries of consecutive pfns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first pfn.
    pub first: Pfn,
    /// Number of entries.
    pub count: u64,
    /// The location of the entries.
    pub at: At,
}

/// The location of the entries of a [`Run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// In machine memory, from this address.
    Page(MachineAddr),
    /// In the list of pairs, from this index.
    Pairs(usize),
    /// In an entry of a large page: the first one. The frames of the others follow.
    Large(Entry),
    /// Not stored: all of them are this special entry.
    Nowhere(Special),
}

/// Entries of consecutive pfns whose pages have one origin. Equal stretches have equal entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stretch {
    /// The origin, or the special entry that all of them are.
    pub origin: Result<Origin, Special>,
    /// Index of the first one in its page.
    slot: u64,
    /// Number of entries.
    pub count: u64,
}

impl Stretch {
    /// Whether the same entries can occur elsewhere.
    pub fn is_shared(&self) -> bool {
        self.origin != Ok(Origin::Unknown)
    }
}

impl<M: Memory<MachineAddr>> P2m<M> {
    /// Ascending (first, count) ranges of pfns whose P2M page is in the dump; each page once.
    ///
    /// Limited by the memory that the dump holds: a frame-list tree of pvops refers to the same page
    /// of invalid entries many times, and one wrong bit can enlarge the tree from 1 GiB to 512 GiB.
    pub fn spans(&self) -> Vec<(Pfn, u64)> {
        let mut spans: Vec<(Pfn, u64)> = Vec::new();
        for run in self.runs() {
            // If the first entry of a page is not in the dump, the page is taken to be missing.
            if matches!(run.at, At::Page(at) if self.mem.read_word(at, self.word).is_err()) {
                continue;
            }
            match spans.last_mut() {
                Some((first, count)) if first.0 + *count == run.first.0 => *count += run.count,
                _ => alloc::push(&mut spans, (run.first, run.count)),
            }
        }
        spans
    }

    /// All runs with an entry that the dump may hold, by ascending pfn. Pages and tables that occur
    /// many times are visited once: the work is bounded by the dump, not by the claimed number of
    /// pfns.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let end = Pfn(self.pages);
        let (table_budget, page_budget) = (self.budget("P2M tables"), self.budget("P2M pages"));
        let large_budget = self.large_budget();
        let (mut tables, mut pages) = (HashSet::new(), HashSet::new());
        let (mut at, mut until) = (Pfn(0), Pfn(0));
        std::iter::from_fn(move || {
            while at < end {
                if at >= until {
                    let stretch = self.stretch(at, end);
                    until = Pfn(at.0 + stretch.count);
                    match stretch.origin {
                        Ok(Origin::Unknown) => {}
                        Ok(_) if alloc::insert(&mut tables, stretch) => {
                            if table_budget.spend(1).is_err() {
                                break;
                            }
                        }
                        _ => {
                            at = until;
                            continue;
                        }
                    }
                }
                let run = self.run(at, end);
                at = Pfn(at.0 + run.count.max(1));
                let is_page = matches!(run.at, At::Page(_));
                if !self.may_hold(run) || (is_page && !alloc::insert(&mut pages, run.at)) {
                    continue;
                }
                if is_page && page_budget.spend(1).is_err() {
                    break;
                }
                if matches!(run.at, At::Large(_)) && large_budget.spend(run.count).is_err() {
                    break;
                }
                return Some(run);
            }
            at = end;
            None
        })
    }

    /// Upper limit on the number of tables, and of pages, of a P2M: each takes a page of memory. The
    /// first and the last table may be visited twice, in part.
    pub(super) fn max_pages(&self) -> u64 {
        self.mem.pages_held().saturating_add(2)
    }

    /// A budget of [`P2m::max_pages`].
    pub(super) fn budget(&self, name: &'static str) -> Budget<'static> {
        Budget::new(name, self.max_pages())
    }

    /// A budget of frames in large pages, of which a few tables can map any number.
    pub(super) fn large_budget(&self) -> Budget<'static> {
        let limit = self
            .mem
            .pages_held()
            .saturating_mul(MAX_LARGE_FRAMES_PER_PAGE);
        Budget::new("frames of large pages", limit.max(MAX_LARGE_FRAMES))
    }

    /// Whether the dump may hold any of the entries of a run.
    pub(super) fn may_hold(&self, run: Run) -> bool {
        match run.at {
            At::Page(at) => {
                let size = run.count.saturating_mul(self.word.bytes() as u64);
                self.mem.may_hold(at, size)
            }
            At::Pairs(_) | At::Large(_) => true,
            At::Nowhere(_) => false,
        }
    }

    /// The entries at the start of `first..end` whose pages have one origin. At least one if
    /// `first < end`.
    pub(super) fn stretch(&self, first: Pfn, end: Pfn) -> Stretch {
        let Entries::Pages { directory, .. } = &self.entries else {
            let run = self.run(first, end);
            let origin = match run.at {
                At::Nowhere(special) => Err(special),
                _ => Ok(Origin::Unknown),
            };
            let count = run.count.max(1);
            return Stretch {
                origin,
                slot: 0,
                count,
            };
        };
        let per_page = self.per_page();
        let index = first.0 + self.bias;
        let (origin, until) = directory.origin(&self.mem, index / per_page);
        let left = until.saturating_mul(per_page).saturating_sub(index);
        Stretch {
            origin: match origin {
                Origin::Missing => Err(Special::NoTable),
                Origin::Empty(special) => Err(special),
                origin => Ok(origin),
            },
            slot: index % per_page,
            count: end.0.saturating_sub(first.0).min(left).max(1),
        }
    }

    /// The contiguous entries at the start of `first..end`. At least one if `first < end`. Does not
    /// fill the cache of pages, so that reading a whole P2M takes no memory.
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
                let left = |until: u64| until.saturating_mul(per_page).saturating_sub(index);
                match directory.leaf(&self.mem, number) {
                    Leaf::Page(mfn) => run(
                        mfn.addr().map_or(missing, |addr| {
                            At::Page(MachineAddr(addr.0 + slot * self.word.bytes() as u64))
                        }),
                        wanted.min(per_page - slot),
                    ),
                    Leaf::Missing { until } => run(missing, wanted.min(left(until))),
                    Leaf::Large { entry, until } => {
                        let first = nested::advance(entry, slot);
                        run(At::Large(first), wanted.min(left(until)))
                    }
                    Leaf::Empty { special, until } => {
                        run(At::Nowhere(special), wanted.min(left(until)))
                    }
                }
            }
            Entries::Pairs(pairs) => {
                let i = pairs.partition_point(|(pfn, _)| *pfn < first);
                let rest = pairs.get(i..).unwrap_or_default();
                let contiguous = rest
                    .iter()
                    .zip(first.0..)
                    .take(PAGE_SIZE / 8)
                    .take_while(|((pfn, _), want)| pfn.0 == *want)
                    .count() as u64;
                if contiguous > 0 {
                    return run(At::Pairs(i), wanted.min(contiguous));
                }
                let next = rest.first().map_or(u64::MAX, |(pfn, _)| pfn.0);
                let gap = wanted.min(next.saturating_sub(first.0));
                run(At::Nowhere(Special::Invalid), gap)
            }
        }
    }

    /// Replaces `out` by the entries of a run; none if the run is nowhere.
    pub(super) fn entries(&self, run: Run, out: &mut Vec<Entry>) {
        out.clear();
        self.for_each_entry(run, |entry| out.push(entry));
    }

    /// Calls `f` with the entries of a run in order; never if the run is nowhere.
    #[inline]
    pub(super) fn for_each_entry(&self, run: Run, mut f: impl FnMut(Entry)) {
        let count = usize::try_from(run.count).unwrap_or(0);
        match (run.at, &self.entries) {
            (At::Page(at), _) => {
                let len = count.saturating_mul(self.word.bytes());
                let mut copy = [0; PAGE_SIZE];
                // A checked copy, because callers keep results; its cost is negligible.
                let bytes = copy.get_mut(..len).unwrap_or_default();
                if self.mem.read(at, bytes).is_err() {
                    if !self.may_hold(run) {
                        let missing = Entry::Special(Special::NoTable);
                        (0..run.count).for_each(|_| f(missing));
                        return;
                    }
                    // The dump holds a part of the page: return the same entries as single lookups.
                    for i in 0..run.count {
                        let entry = MachineAddr(at.0 + i * self.word.bytes() as u64);
                        f(match self.mem.read_word(entry, self.word) {
                            Ok(raw) => self.coding.decode(raw),
                            Err(_) => Entry::Special(Special::NoTable),
                        });
                    }
                    return;
                }
                match self.coding {
                    Coding::Word(Word::W32) => bytes
                        .as_chunks()
                        .0
                        .iter()
                        .for_each(|raw| f(decode(u32::from_le_bytes(*raw).into(), Word::W32))),
                    Coding::Word(Word::W64) => bytes
                        .as_chunks()
                        .0
                        .iter()
                        .for_each(|raw| f(decode(u64::from_le_bytes(*raw), Word::W64))),
                    Coding::Nested(format) => bytes
                        .as_chunks()
                        .0
                        .iter()
                        .for_each(|raw| f(nested::decode(format, u64::from_le_bytes(*raw)))),
                }
            }
            (At::Large(first), _) => (0..run.count).for_each(|i| f(nested::advance(first, i))),
            (At::Pairs(i), Entries::Pairs(pairs)) => pairs
                .iter()
                .skip(i)
                .take(count)
                .for_each(|(_, mfn)| f(checked(*mfn))),
            _ => {}
        }
    }
}

impl<M: Memory<MachineAddr>> Frames for P2m<M> {
    fn pages(&self) -> u64 {
        self.pages
    }

    /// Pages that occur twice are visited once: they would only repeat the same mfns with higher pfns.
    fn for_each_frame(&self, mut f: impl FnMut(Mfn, Pfn)) {
        for run in self.runs() {
            let mut pfn = run.first;
            self.for_each_entry(run, |entry| {
                if let Entry::Frame(mfn) = entry {
                    f(mfn, pfn);
                }
                pfn = Pfn(pfn.0 + 1);
            });
        }
    }
}
