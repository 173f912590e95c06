//! Batches of pfns.

use super::packed::{
    self, entry, one_extent, pack, within, Summary, Table, View, BLOCK, LOOK_UP, SPECIAL, TABLE,
};
use super::runs::At;
use super::table::LeafView;
use super::{Entry, P2m};
use crate::addr::{MachineAddr, Mfn, Pfn};
use crate::memory::Memory;
use crate::status::{Status, NONE};

/// The number of pfns that are looked up together, so that their cache misses overlap. An index into a
/// group fits in a byte.
const GROUP: usize = 128;

impl<M: Memory<MachineAddr>> P2m<M> {
    /// The mfn of each pfn, or [`NONE`], with its status. Elements past the shortest of the three
    /// slices are not touched.
    ///
    /// The first lookups read the P2M's own pages; parts with many lookups are summarized (see the
    /// module `packed`).
    pub fn resolve_many(&self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        let groups = pfns
            .chunks(GROUP)
            .zip(out.chunks_mut(GROUP))
            .zip(status.chunks_mut(GROUP));
        let mut view = self.packed.view();
        for ((pfns, out), status) in groups {
            let len = pfns.len().min(out.len()).min(status.len());
            let (Some(pfns), Some(out), Some(status)) =
                (pfns.get(..len), out.get_mut(..len), status.get_mut(..len))
            else {
                return;
            };
            if in_one_extent(view, pfns, out) || scattered(view, pfns, out) {
                status.fill(Status::Ok);
            } else {
                self.finish(pfns, out, status);
                view = self.packed.view();
            }
        }
    }

    /// Finishes a group in which not all entries are frames: `out` has the packed entries.
    #[cold]
    fn finish(&self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
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

// The loops below are hot: they use slices of equal length and avoid unpredictable branches.

/// Resolves a group that is in one extent and has only frames. False otherwise, and `out` is
/// unspecified.
#[inline]
fn in_one_extent(view: View<'_>, pfns: &[Pfn], out: &mut [Mfn]) -> bool {
    let (Some(first), Some(last)) = (pfns.first(), pfns.last()) else {
        return true;
    };
    // Check the last pfn first: it rejects most scattered groups.
    if !one_extent(first.0 ^ last.0) {
        return false;
    }
    let summary = view.summary(*first);
    if summary >= TABLE {
        return view
            .table(summary, *first)
            .is_some_and(|table| in_table(table, *first, pfns, out));
    }
    let distance = u64::from(summary)
        .wrapping_add(within(*first))
        .wrapping_sub(first.0);
    let mut different = 0;
    for (pfn, out) in pfns.iter().zip(out) {
        different |= pfn.0 ^ first.0;
        *out = Mfn(pfn.0.wrapping_add(distance));
    }
    one_extent(different)
}

/// [`in_one_extent`] with the table of the extent of `first`.
fn in_table(table: &Table, first: Pfn, pfns: &[Pfn], out: &mut [Mfn]) -> bool {
    let (mut different, mut plain) = (0, true);
    for (pfn, out) in pfns.iter().zip(out) {
        let packed = entry(table, *pfn);
        different |= pfn.0 ^ first.0;
        plain &= packed < SPECIAL;
        *out = Mfn(packed.into());
    }
    plain && one_extent(different)
}

/// Looks up a group. False if any entry is not a frame, and `out` has the packed entries.
#[inline]
fn scattered(view: View<'_>, pfns: &[Pfn], out: &mut [Mfn]) -> bool {
    // Collects those whose summary is not a frame, without an unpredictable branch for each.
    let mut listed = [0_u8; GROUP];
    let (mut count, mut i) = (0_usize, 0_u8);
    for (pfn, out) in pfns.iter().zip(out.iter_mut()) {
        let summary = view.summary(*pfn);
        *out = Mfn(u64::from(summary).wrapping_add(within(*pfn)));
        listed[count % GROUP] = i;
        count = count.wrapping_add(usize::from(summary >= TABLE));
        i = i.wrapping_add(1);
    }
    let mut plain = true;
    for i in listed.iter().take(count) {
        let i = usize::from(*i);
        let (Some(pfn), Some(out)) = (pfns.get(i), out.get_mut(i)) else {
            continue;
        };
        let summary = view.summary(*pfn);
        let packed = match view.table(summary, *pfn) {
            Some(table) => entry(table, *pfn),
            None if summary >= SPECIAL => summary,
            // The summary was written after the first look.
            None => LOOK_UP,
        };
        plain &= packed < SPECIAL;
        *out = Mfn(packed.into());
    }
    plain
}
