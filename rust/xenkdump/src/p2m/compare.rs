//! Two sources of one domain's P2M, held against each other.

use super::{Entry, P2m, Special};
use crate::addr::{MachineAddr, Pfn};
use crate::memory::Memory;

/// A pfn of which two P2Ms say different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The pfn.
    pub pfn: Pfn,
    /// What the one says.
    pub ours: Entry,
    /// What the other says.
    pub theirs: Entry,
}

/// What came of a comparison. The counts cover every pfn that either P2M has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The same in both.
    pub equal: u64,
    /// Identity in one, invalid in the other. pvops kernels write it so on purpose: the tree for
    /// tools shows pages of identity entries as all ones.
    pub hidden_identity: u64,
    /// Past the end of one of them; not listed.
    pub past_end: u64,
    /// Cannot be read in one of them.
    pub unreadable: u64,
    /// Truly different.
    pub different: u64,
    /// The first that are unreadable or different, in the order of pfns.
    pub first: Vec<Disagreement>,
}

impl<M: Memory<MachineAddr>> P2m<M> {
    /// Compares with `other`, page by page and without keeping anything; at most `limit`
    /// disagreements are listed.
    pub fn compare<N: Memory<MachineAddr>>(&self, other: &P2m<N>, limit: usize) -> Comparison {
        let mut result = Comparison::default();
        let end = Pfn(self.len().max(other.len()));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut at = Pfn(0);
        while at < end {
            let (mut a, mut b) = (bounded(self, at, end), bounded(other, at, end));
            let count = a.count.min(b.count).max(1);
            (a.count, b.count) = (count, count);
            // No page in either. That both name the same page says nothing: they may lie in two
            // dumps.
            let none = a.at.is_none() && b.at.is_none();
            if none && past(self, at) == past(other, at) {
                result.equal += count;
            } else {
                self.entries(a, &mut ours);
                other.entries(b, &mut theirs);
                let mut i = 0;
                while i < count {
                    let pfn = Pfn(at.0 + i);
                    let (one, two) = (said(self, pfn, &ours, i), said(other, pfn, &theirs, i));
                    if ours.is_empty() && theirs.is_empty() {
                        result.note(pfn, one, two, count, limit);
                        break;
                    }
                    result.note(pfn, one, two, 1, limit);
                    i += 1;
                }
            }
            at = Pfn(at.0 + count);
        }
        result
    }
}

/// [`P2m::run`], but within `end` where the P2M itself ends before it.
fn bounded<M: Memory<MachineAddr>>(p2m: &P2m<M>, at: Pfn, end: Pfn) -> super::table::Run {
    let own = Pfn(p2m.len());
    if at < own {
        p2m.run(at, own.min(end))
    } else {
        super::table::Run {
            count: end.0 - at.0,
            at: None,
        }
    }
}

fn past<M: Memory<MachineAddr>>(p2m: &P2m<M>, pfn: Pfn) -> bool {
    pfn.0 >= p2m.len()
}

fn said<M: Memory<MachineAddr>>(p2m: &P2m<M>, pfn: Pfn, entries: &[Entry], i: u64) -> Entry {
    let missing = if past(p2m, pfn) {
        Special::OutOfRange
    } else {
        Special::NoTable
    };
    usize::try_from(i)
        .ok()
        .and_then(|i| entries.get(i).copied())
        .unwrap_or(Entry::Special(missing))
}

impl Comparison {
    fn note(&mut self, pfn: Pfn, ours: Entry, theirs: Entry, count: u64, limit: usize) {
        use Entry::Special as S;
        let is = |special| ours == S(special) || theirs == S(special);
        match (ours, theirs) {
            _ if ours == theirs => {
                self.equal += count;
                return;
            }
            (S(Special::Identity(_)), S(Special::Invalid))
            | (S(Special::Invalid), S(Special::Identity(_))) => {
                self.hidden_identity += count;
                return;
            }
            _ if is(Special::OutOfRange) => {
                self.past_end += count;
                return;
            }
            _ if is(Special::NoTable) => self.unreadable += count,
            _ => self.different += count,
        }
        if self.first.len() < limit {
            self.first.push(Disagreement { pfn, ours, theirs });
        }
    }
}
