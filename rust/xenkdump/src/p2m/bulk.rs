//! Batches of pfns.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;

use super::gather::{Sink, Source, LOOK_UP, SPECIAL};
use super::packed::{self, pack, Summary, View, BLOCK};
use super::runs::At;
use super::table::LeafView;
use super::{Entry, P2m};
use crate::addr::{MachineAddr, Mfn, Pfn};
use crate::memory::Memory;
use crate::status::{Status, NONE};

/// The number of pfns that are looked up together, so that their cache misses overlap.
const GROUP: usize = 1024;
/// The number of pfns that are looked up together if some of them may not be frames.
const SMALL_GROUP: usize = 128;

impl<M: Memory<MachineAddr>> P2m<M> {
    /// The mfn of each pfn, or [`NONE`], with its status. Elements past the shortest of the three
    /// slices are not touched.
    ///
    /// The first lookups read the P2M's own pages; parts with many lookups are summarized (see the
    /// module `packed`).
    pub fn resolve_many(&self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        self.resolve_groups(pfns, Cell::from_mut(out).as_slice_of_cells(), status);
    }

    /// [`P2m::resolve_many`] of numbers that others may change meanwhile. Each mfn is that of a number
    /// that was in `pfns` during the call, or some number that another thread has written to `out`.
    pub fn resolve_shared(&self, pfns: &[AtomicU64], out: &[AtomicU64], status: &mut [Status]) {
        self.resolve_groups(pfns, out, status);
    }

    fn resolve_groups<I: Source, O: Sink>(&self, pfns: &[I], out: &[O], status: &mut [Status]) {
        let groups = pfns
            .chunks(GROUP)
            .zip(out.chunks(GROUP))
            .zip(status.chunks_mut(GROUP));
        let mut view = self.packed.view();
        for ((pfns, out), status) in groups {
            let len = pfns.len().min(out.len()).min(status.len());
            let (Some(pfns), Some(out), Some(status)) =
                (pfns.get(..len), out.get(..len), status.get_mut(..len))
            else {
                return;
            };
            if view.resolve(pfns, out) < SPECIAL {
                status.fill(Status::Ok);
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

    /// Resolves a small group in copies: numbers that others may change are not read twice.
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
        let (Some(copies), Some(entries)) =
            (copies.get(..pfns.len()), entries.get_mut(..pfns.len()))
        else {
            return;
        };
        self.resolve_entries(view, copies, entries, status);
        for (out, entry) in out.iter().zip(entries) {
            out.set(entry.0);
        }
    }

    /// Resolves a group in which not all entries are frames.
    fn resolve_entries<'p>(
        &'p self,
        view: &mut View<'p>,
        pfns: &[Pfn],
        out: &mut [Mfn],
        status: &mut [Status],
    ) {
        let worst = view.resolve(pfns, Cell::from_mut(&mut *out).as_slice_of_cells());
        if worst == LOOK_UP {
            self.look_up(pfns, out, status);
            *view = self.packed.view();
            return;
        }
        // Without branches on entries, which are unpredictable.
        for (out, status) in out.iter_mut().zip(status) {
            // Packed entries have 32 bits.
            let packed = out.0 as u32;
            *status = packed::status(packed).unwrap_or_default();
            *out = if packed < SPECIAL { *out } else { Mfn(NONE) };
        }
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
