//! From mfn back to pfn.

use super::{Entry, P2m};
use crate::addr::{MachineAddr, Mfn, Pfn};
use crate::memory::Memory;

/// Every frame of a P2M, sorted by mfn.
///
/// Made from the P2M itself, so what it answers is true by it. The hypervisor's own table, the M2P,
/// is not used: a guest may write what it likes there.
#[derive(Debug, Default)]
pub(super) struct Reverse(Vec<(Mfn, Pfn)>);

impl Reverse {
    pub(super) fn build<M: Memory<MachineAddr>>(p2m: &P2m<M>) -> Self {
        let end = Pfn(p2m.len());
        let mut pairs = Vec::new();
        let mut entries = Vec::new();
        // A page that is named twice says the same twice: the lowest pfns win, and a hostile tree
        // gains no memory by naming one page everywhere.
        let mut seen = std::collections::HashSet::new();
        let mut at = Pfn(0);
        while at < end {
            let run = p2m.run(at, end);
            if seen.insert(run.at) {
                p2m.entries(run, &mut entries);
                for (i, entry) in entries.iter().enumerate() {
                    if let Entry::Frame(mfn) = entry {
                        pairs.push((*mfn, Pfn(at.0 + i as u64)));
                    }
                }
            }
            at = Pfn(at.0 + run.count.max(1));
        }
        pairs.sort_unstable();
        pairs.dedup_by_key(|pair| pair.0);
        Self(pairs)
    }

    pub(super) fn get(&self, mfn: Mfn) -> Option<Pfn> {
        let i = self.0.binary_search_by_key(&mfn, |pair| pair.0).ok()?;
        self.0.get(i).map(|pair| pair.1)
    }
}
