//! Two sources of one domain's P2M, held against each other.

use std::collections::HashMap;

use super::directory::Way;
use super::runs::{At, Run, Stretch};
use super::{Entry, P2m, Special};
use crate::addr::{MachineAddr, Pfn};
use crate::budget::Budget;
use crate::limits::{MAX_COMPARISONS_PER_PAGE, MAX_REMEMBERED_COMPARISONS};
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
    /// Cannot be read in one of them, or told by more tables or pages than the dump has.
    pub unreadable: u64,
    /// Truly different.
    pub different: u64,
    /// The first that are unreadable or different, in the order of pfns.
    pub first: Vec<Disagreement>,
}

/// Comparisons already made, with their results.
struct Known {
    tables: HashMap<(Stretch, Stretch), Comparison>,
    /// Recently compared pages: where their entries are, and how many.
    pages: HashMap<(At, At, u64), Comparison>,
    /// Limits on new comparisons.
    table_budget: Budget<'static>,
    page_budget: Budget<'static>,
}

impl<M: Memory<MachineAddr>> P2m<M> {
    /// Compares with `other`, page by page; at most `limit` disagreements are listed.
    ///
    /// Two tables that were compared are not compared again, nor are two pages. In sound P2Ms each
    /// comparison has one that was not met before, but for a few shared ones that say nothing, and
    /// none is cut more than once; so there are no more comparisons than the dump has pages, four
    /// times. Pfns beyond them count as unreadable.
    pub fn compare<N: Memory<MachineAddr>>(&self, other: &P2m<N>, limit: usize) -> Comparison {
        let end = Pfn(self.len().min(other.len()));
        let mut result = Comparison {
            // Counted, not read: one wrong bit makes a frame list of 512 GiB out of one of 1 GiB.
            past_end: self.len().abs_diff(other.len()),
            ..Comparison::default()
        };
        let limit_each = self.max_pages().max(other.max_pages());
        let limit_each = limit_each.saturating_mul(MAX_COMPARISONS_PER_PAGE);
        let mut known = Known {
            tables: HashMap::new(),
            pages: HashMap::new(),
            table_budget: Budget::new("comparisons of P2M tables", limit_each),
            page_budget: Budget::new("comparisons of P2M pages", limit_each),
        };
        let mut at = Pfn(0);
        while at < end {
            let (mut a, mut b) = (self.stretch(at, end), other.stretch(at, end));
            let count = a.count.min(b.count);
            (a.count, b.count) = (count, count);
            let next = Pfn(at.0 + count);
            if let (Err(one), Err(two)) = (a.way, b.way) {
                result.note(at, Entry::Special(one), Entry::Special(two), count, limit);
                at = next;
                continue;
            }
            let room = limit.saturating_sub(result.first.len());
            let before = known.tables.get(&(a, b));
            if let Some(part) = before.filter(|part| part.is_enough(room)) {
                result.add(part);
                at = next;
                continue;
            }
            let keep = a.way != Ok(Way::Own) && b.way != Ok(Way::Own);
            let new = keep && before.is_none();
            if new && known.table_budget.spend(1).is_err() {
                break;
            }
            let (mut part, compared) = self.compare_pages(other, at, next, room, &mut known);
            result.add(&part);
            result.first.append(&mut part.first);
            at = compared;
            if at < next {
                break;
            }
            if keep {
                known.tables.insert((a, b), part);
            }
        }
        result.unreadable += end.0 - at.0;
        result
    }

    /// From `first` to before `end`, page by page; and how far it came.
    fn compare_pages<N: Memory<MachineAddr>>(
        &self,
        other: &P2m<N>,
        first: Pfn,
        end: Pfn,
        limit: usize,
        known: &mut Known,
    ) -> (Comparison, Pfn) {
        let mut result = Comparison::default();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut at = first;
        while at < end {
            let (mut a, mut b) = (self.run(at, end), other.run(at, end));
            let count = a.count.min(b.count).max(1);
            (a.count, b.count) = (count, count);
            let next = Pfn(at.0 + count);
            if let (At::Nowhere(one), At::Nowhere(two)) = (a.at, b.at) {
                result.note(at, Entry::Special(one), Entry::Special(two), count, limit);
                at = next;
                continue;
            }
            let key = (self.held(a), other.held(b), count);
            let room = limit.saturating_sub(result.first.len());
            let before = known.pages.get(&key);
            if let Some(part) = before.filter(|part| part.is_enough(room)) {
                result.add(part);
                at = next;
                continue;
            }
            let page = |at| matches!(at, At::Page(_));
            let new = before.is_none() && (page(key.0) || page(key.1));
            if new && known.page_budget.spend(1).is_err() {
                break;
            }
            self.entries(a, &mut ours);
            other.entries(b, &mut theirs);
            let mut part = Comparison::default();
            // One of them lies in a page: there are no more than fit in it.
            for (pfn, i) in (at.0..).zip(0..count) {
                let (one, two) = (said(a.at, &ours, i), said(b.at, &theirs, i));
                part.note(Pfn(pfn), one, two, 1, room);
            }
            result.add(&part);
            result.first.append(&mut part.first);
            if known.pages.len() >= MAX_REMEMBERED_COMPARISONS {
                known.pages.clear();
            }
            known.pages.insert(key, part);
            at = next;
        }
        (result, at)
    }

    /// Where the entries of a run are that the dump may hold.
    fn held(&self, run: Run) -> At {
        if self.may_hold(run) {
            run.at
        } else if let At::Nowhere(special) = run.at {
            At::Nowhere(special)
        } else {
            At::Nowhere(Special::NoTable)
        }
    }
}

fn said(at: At, entries: &[Entry], i: u64) -> Entry {
    let listed = usize::try_from(i)
        .ok()
        .and_then(|i| entries.get(i).copied());
    match at {
        At::Nowhere(special) => Entry::Special(special),
        _ => listed.unwrap_or(Entry::Special(Special::NoTable)),
    }
}

impl Comparison {
    /// Whether it can stand for another of the same: nothing is to be listed, or has room in a list.
    fn is_enough(&self, room: usize) -> bool {
        room == 0 || (self.unreadable == 0 && self.different == 0)
    }

    /// Takes the counts of a part that lies in both.
    fn add(&mut self, part: &Comparison) {
        self.equal += part.equal;
        self.hidden_identity += part.hidden_identity;
        self.unreadable += part.unreadable;
        self.different += part.different;
    }

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
            _ if is(Special::NoTable) => self.unreadable += count,
            _ => self.different += count,
        }
        if self.first.len() < limit {
            self.first.push(Disagreement { pfn, ours, theirs });
        }
    }
}
