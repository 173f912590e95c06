//! Many pfns at once.

use super::packed::{
    self, entry, one_extent, pack, within, Summing, Table, View, ASK, BLOCK, SPECIAL, TABLE,
};
use super::runs::At;
use super::table::LeafView;
use super::{Entry, P2m};
use crate::addr::{MachineAddr, Mfn, Pfn};
use crate::memory::Memory;
use crate::status::{Status, NONE};

/// How many are looked up before any is looked at: the misses of a group overlap. A place in one fits
/// in a byte.
const GROUP: usize = 128;

impl<M: Memory<MachineAddr>> P2m<M> {
    /// The mfn of each pfn's frame, [`NONE`] where there is none, and why. What lies past the
    /// shortest of the three is left alone.
    ///
    /// Goes to the P2M's own pages as long as questions are few, and to summaries of those parts of
    /// it that are asked often (see the module `packed`).
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
            if together(view, pfns, out) || scattered(view, pfns, out) {
                status.fill(Status::Ok);
            } else {
                self.mend(pfns, out, status);
                view = self.packed.view();
            }
        }
    }

    /// Goes over a group that does not hold frames only: `out` has the packed entries.
    #[cold]
    fn mend(&self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        let mut leaf: Option<LeafView<'_>> = None;
        for ((pfn, out), status) in pfns.iter().zip(out).zip(status) {
            // A packed entry, and so of 32 bits.
            let packed = out.0 as u32;
            let result = if packed < SPECIAL {
                Ok(*out)
            } else if let Some(status) = packed::status(packed) {
                Err(status)
            } else {
                if leaf.is_none_or(|leaf| !leaf.holds(*pfn)) {
                    leaf = self.leaf_view(*pfn);
                }
                let lent = leaf
                    .map(|leaf| leaf.entry(*pfn))
                    .filter(|_| self.memory().is_intact());
                let entry = lent.unwrap_or_else(|| self.resolve(*pfn));
                self.packed
                    .ask(*pfn, |first, block| self.sum_up(first, block));
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

    /// Pushes all entries of the block that begins with `first`, from the P2M's own pages.
    fn sum_up(&self, first: Pfn, block: &mut Summing) {
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

// The loops below are the engine: slices of one length, and no more in them than it takes.

/// Resolves a group that lies in one extent and holds frames only; false if it does not, and `out` is
/// of no use then.
#[inline]
fn together(view: View<'_>, pfns: &[Pfn], out: &mut [Mfn]) -> bool {
    let (Some(first), Some(last)) = (pfns.first(), pfns.last()) else {
        return true;
    };
    // The last before all of them: of what does not lie together it seldom does.
    if !one_extent(first.0 ^ last.0) {
        return false;
    }
    let summary = view.summary(*first);
    if summary >= TABLE {
        return view
            .table(summary, *first)
            .is_some_and(|table| in_table(table, *first, pfns, out));
    }
    let ahead = u64::from(summary)
        .wrapping_add(within(*first))
        .wrapping_sub(first.0);
    let mut different = 0;
    for (pfn, out) in pfns.iter().zip(out) {
        different |= pfn.0 ^ first.0;
        *out = Mfn(pfn.0.wrapping_add(ahead));
    }
    one_extent(different)
}

/// The same in the table of the extent of `first`.
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

/// Looks up a group. If any of it is no frame, says false, and `out` has the packed entries.
#[inline]
fn scattered(view: View<'_>, pfns: &[Pfn], out: &mut [Mfn]) -> bool {
    // Which have no frame by their summary: without a branch for each, which nothing can foresee.
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
            // It changed meanwhile.
            None => ASK,
        };
        plain &= packed < SPECIAL;
        *out = Mfn(packed.into());
    }
    plain
}
