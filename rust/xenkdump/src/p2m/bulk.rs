//! Batches of pfns.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;

use super::gather::{self, Sink, Source, LOOK_UP, SPECIAL};
use super::packed::{self, pack, Summary, View, BLOCK, STATUSES};
use super::runs::At;
use super::table::LeafView;
use super::{Entry, P2m};
use crate::addr::{MachineAddr, Mfn, Pfn};
use crate::memory::Memory;
use crate::status::{Status, NONE};

/// The number of pfns that are looked up together, so that their cache misses overlap.
const GROUP: usize = 512;
/// The number of pfns that are looked up together if some of them are not summarized.
const SMALL_GROUP: usize = 128;

/// What a thread knows about a batch of pfns.
#[derive(Debug, Default)]
pub struct Batch {
    /// Whether the last group had pfns without a frame. It is a hint.
    had_holes: bool,
}

impl Batch {
    /// Resolves a group, and returns the largest packed entry. If that is [`LOOK_UP`], the group has to be
    /// looked up in the P2M itself.
    #[inline]
    fn resolve<I: Source, O: Sink>(
        &mut self,
        view: View<'_>,
        pfns: &[I],
        out: &[O],
        status: &mut [Status],
    ) -> u32 {
        // First without statuses, which is faster, unless this group probably has pfns without a frame, too.
        if !self.had_holes {
            let worst = view.resolve(pfns, out);
            if worst < SPECIAL {
                status.fill(Status::Ok);
                return worst;
            }
        }
        let worst = view.decoded(pfns, out, status);
        self.had_holes = worst >= SPECIAL;
        worst
    }
}

impl<M: Memory<MachineAddr>> P2m<M> {
    /// The mfn of each pfn, or [`NONE`], with its status. Elements past the shortest of the three
    /// slices are not touched.
    ///
    /// The first lookups read the P2M's own pages; parts with many lookups are summarized (see the
    /// module `packed`).
    pub fn resolve_many(&self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        let out = Cell::from_mut(out).as_slice_of_cells();
        self.resolve_groups(&mut Batch::default(), pfns, out, status);
    }

    /// [`P2m::resolve_many`] of numbers that others may change meanwhile. Each mfn is that of a number
    /// that was in `pfns` during the call, or some number that another thread has written to `out`.
    /// pfns past the end of `out` are those that are looked up next in the batch.
    pub fn resolve_shared(
        &self,
        batch: &mut Batch,
        pfns: &[AtomicU64],
        out: &[AtomicU64],
        status: &mut [Status],
    ) {
        self.resolve_groups(batch, pfns, out, status);
    }

    fn resolve_groups<I: Source, O: Sink>(
        &self,
        batch: &mut Batch,
        pfns: &[I],
        out: &[O],
        status: &mut [Status],
    ) {
        let mut view = self.packed.view();
        let mut rest = pfns;
        for (out, status) in out.chunks(GROUP).zip(status.chunks_mut(GROUP)) {
            let len = rest.len().min(out.len()).min(status.len());
            let (Some(out), Some(status)) = (out.get(..len), status.get_mut(..len)) else {
                return;
            };
            let pfns = rest;
            rest = rest.get(len..).unwrap_or_default();
            let worst = batch.resolve(view, pfns, out, status);
            if worst != LOOK_UP {
                continue;
            }
            let groups = pfns
                .chunks(SMALL_GROUP)
                .zip(out.chunks(SMALL_GROUP))
                .zip(status.chunks_mut(SMALL_GROUP));
            for ((pfns, out), status) in groups {
                self.resolve_copies(&mut view, pfns, out, status);
            }
        }
    }

    /// Resolves a small group, some of whose entries may not be summarized, in copies: numbers that
    /// others may change are not read twice.
    fn resolve_copies<'p, I: Source, O: Sink>(
        &'p self,
        view: &mut View<'p>,
        pfns: &[I],
        out: &[O],
        status: &mut [Status],
    ) {
        let (mut copies, mut entries) = ([Pfn(0); SMALL_GROUP], [Mfn(0); SMALL_GROUP]);
        for (copy, pfn) in copies.iter_mut().zip(pfns) {
            *copy = Pfn(pfn.get());
        }
        let (Some(copies), Some(entries)) = (copies.get(..out.len()), entries.get_mut(..out.len()))
        else {
            return;
        };
        let cells = Cell::from_mut(&mut *entries).as_slice_of_cells();
        if view.resolve(copies, cells) != LOOK_UP {
            gather::decode(cells, out, status, &STATUSES);
            return;
        }
        self.look_up(copies, entries, status);
        *view = self.packed.view();
        gather::copy(Cell::from_mut(entries).as_slice_of_cells(), out);
    }

    /// Finishes a group of which not all entries are summarized: `out` has the packed entries.
    #[cold]
    fn look_up(&self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        let mut leaf: Option<LeafView<'_>> = None;
        for ((pfn, out), status) in pfns.iter().zip(out).zip(status) {
            // Packed entries have 32 bits.
            let packed = out.0 as u32;
            let result = if packed < SPECIAL {
                Ok(*out)
            } else if let Some(status) = packed::status(packed) {
                Err(status)
            } else {
                if leaf.is_none_or(|leaf| !leaf.holds(*pfn)) {
                    leaf = self.leaf_view(*pfn);
                }
                let borrowed = leaf
                    .map(|leaf| leaf.entry(*pfn))
                    .filter(|_| self.memory().is_intact());
                let entry = borrowed.unwrap_or_else(|| self.resolve(*pfn));
                self.packed
                    .count_lookup(*pfn, |first, block| self.summarize(first, block));
                match entry {
                    Entry::Frame(mfn) => Ok(mfn),
                    Entry::Special(special) => Err(special.into()),
                }
            };
            (*out, *status) = match result {
                Ok(mfn) => (mfn, Status::Ok),
                Err(status) => (Mfn(NONE), status),
            };
        }
    }

    /// Summarizes the block that starts at `first` from the P2M's own pages.
    fn summarize(&self, first: Pfn, block: &mut Summary) {
        let end = Pfn(first.0 + BLOCK);
        let mut at = first;
        while at < end {
            let run = self.run(at, end);
            if let At::Nowhere(special) = run.at {
                let packed = pack(Entry::Special(special));
                (0..run.count).for_each(|_| block.push(packed));
            } else {
                self.for_each_entry(run, |entry| block.push(pack(entry)));
            }
            at = Pfn(at.0 + run.count.max(1));
        }
    }
}
