//! Compares two sources of one domain's P2M.

use std::collections::{HashMap, TryReserveError};

use super::runs::{At, Run, Stretch};
use super::{Entry, P2m, Special};
use crate::addr::{MachineAddr, Pfn};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::{MAX_COMPARISONS_PER_PAGE, MAX_REMEMBERED_COMPARISONS};
use crate::memory::Memory;

/// A pfn with different entries in two P2Ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The pfn.
    pub pfn: Pfn,
    /// The entry in the first P2M.
    pub ours: Entry,
    /// The entry in the second P2M.
    pub theirs: Entry,
}

/// The result of a comparison. The counts cover every pfn that either P2M has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The same in both.
    pub equal: u64,
    /// Identity in one, invalid in the other. pvops kernels do this on purpose: in the frame-list
    /// tree, which is for tools, pages of identity entries are all ones.
    pub hidden_identity: u64,
    /// Past the end of one of the P2Ms; not listed.
    pub past_end: u64,
    /// Unreadable in one of the P2Ms, or beyond the limit on comparisons.
    pub unreadable: u64,
    /// Different otherwise.
    pub different: u64,
    /// The first unreadable or different entries, by ascending pfn.
    pub first: Vec<Disagreement>,
}

/// Completed comparisons, with their results.
struct ComparisonCache {
    tables: HashMap<(Stretch, Stretch), Comparison>,
    /// Recently compared pages: where their entries are, and how many.
    pages: HashMap<(At, At, u64), Comparison>,
    /// Limits on new comparisons.
    table_budget: Budget<'static>,
    page_budget: Budget<'static>,
}

impl<M: Memory<MachineAddr>> P2m<M> {
    /// Compares with `other`, page by page; at most `limit` disagreements are listed. Fails if
    /// there is no memory for the list.
    ///
    /// Each pair of tables or pages is compared once; at most four times the dump's pages
    /// ([`MAX_COMPARISONS_PER_PAGE`]). Pfns beyond count as unreadable.
    pub fn compare<N: Memory<MachineAddr>>(
        &self,
        other: &P2m<N>,
        limit: usize,
    ) -> Result<Comparison, TryReserveError> {
        let end = Pfn(self.len().min(other.len()));
        let mut result = Comparison {
            // The excess is not read: one wrong bit can enlarge a frame list from 1 GiB to 512 GiB.
            past_end: self.len().abs_diff(other.len()),
            ..Comparison::default()
        };
        let limit_each = self.max_pages().max(other.max_pages());
        let limit_each = limit_each.saturating_mul(MAX_COMPARISONS_PER_PAGE);
        let mut cache = ComparisonCache {
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
            if let (Err(one), Err(two)) = (a.origin, b.origin) {
                result.note(at, Entry::Special(one), Entry::Special(two), count, limit)?;
                at = next;
                continue;
            }
            let unlisted = limit.saturating_sub(result.first.len());
            let before = cache.tables.get(&(a, b));
            if let Some(part) = before.filter(|part| part.is_enough(unlisted)) {
                result.add(part);
                at = next;
                continue;
            }
            let keep = a.is_shared() && b.is_shared();
            let new = keep && before.is_none();
            if new && cache.table_budget.spend(1).is_err() {
                break;
            }
            let (mut part, compared) = self.compare_pages(other, at, next, unlisted, &mut cache)?;
            result.add(&part);
            result.first.try_reserve(part.first.len())?;
            result.first.append(&mut part.first);
            at = compared;
            if at < next {
                break;
            }
            if keep {
                alloc::insert_at(&mut cache.tables, (a, b), part);
            }
        }
        result.unreadable += end.0 - at.0;
        Ok(result)
    }

    /// Compares the pfns in `first..end`. Also returns the pfn where it stopped.
    fn compare_pages<N: Memory<MachineAddr>>(
        &self,
        other: &P2m<N>,
        first: Pfn,
        end: Pfn,
        limit: usize,
        cache: &mut ComparisonCache,
    ) -> Result<(Comparison, Pfn), TryReserveError> {
        let mut result = Comparison::default();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut at = first;
        while at < end {
            let (mut a, mut b) = (self.run(at, end), other.run(at, end));
            let count = a.count.min(b.count).max(1);
            (a.count, b.count) = (count, count);
            let next = Pfn(at.0 + count);
            if let (At::Nowhere(one), At::Nowhere(two)) = (a.at, b.at) {
                result.note(at, Entry::Special(one), Entry::Special(two), count, limit)?;
                at = next;
                continue;
            }
            let key = (self.held(a), other.held(b), count);
            if key.0 == key.1 && matches!(key.0, At::Large(_)) {
                result.equal += count;
                at = next;
                continue;
            }
            let unlisted = limit.saturating_sub(result.first.len());
            let before = cache.pages.get(&key);
            if let Some(part) = before.filter(|part| part.is_enough(unlisted)) {
                result.add(part);
                at = next;
                continue;
            }
            let counts = |at| matches!(at, At::Page(_) | At::Large(_));
            let new = before.is_none() && (counts(key.0) || counts(key.1));
            // A large page counts as the pages of a P2M whose place it takes.
            let cost = count.div_ceil(self.per_page());
            if new && cache.page_budget.spend(cost).is_err() {
                break;
            }
            self.entries(a, &mut ours);
            other.entries(b, &mut theirs);
            let mut part = Comparison::default();
            // One of them is in a page, which limits the count.
            for (pfn, i) in (at.0..).zip(0..count) {
                let (one, two) = (entry(a.at, &ours, i), entry(b.at, &theirs, i));
                part.note(Pfn(pfn), one, two, 1, unlisted)?;
            }
            result.add(&part);
            result.first.try_reserve(part.first.len())?;
            result.first.append(&mut part.first);
            if cache.pages.len() >= MAX_REMEMBERED_COMPARISONS {
                cache.pages.clear();
            }
            alloc::insert_at(&mut cache.pages, key, part);
            at = next;
        }
        Ok((result, at))
    }

    /// The location of the entries of a run; [`At::Nowhere`] if the dump holds none of them.
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

/// Entry `i` of a run. `entries` are its entries, unless it is [`At::Nowhere`].
fn entry(at: At, entries: &[Entry], i: u64) -> Entry {
    let listed = usize::try_from(i)
        .ok()
        .and_then(|i| entries.get(i).copied());
    match at {
        At::Nowhere(special) => Entry::Special(special),
        _ => listed.unwrap_or(Entry::Special(Special::NoTable)),
    }
}

impl Comparison {
    /// Whether a cached result can be reused: it has nothing to list, or the list is full.
    fn is_enough(&self, unlisted: usize) -> bool {
        unlisted == 0 || (self.unreadable == 0 && self.different == 0)
    }

    /// Adds the counts of a part.
    fn add(&mut self, part: &Comparison) {
        self.equal += part.equal;
        self.hidden_identity += part.hidden_identity;
        self.unreadable += part.unreadable;
        self.different += part.different;
    }

    fn note(
        &mut self,
        pfn: Pfn,
        ours: Entry,
        theirs: Entry,
        count: u64,
        limit: usize,
    ) -> Result<(), TryReserveError> {
        use Entry::Special as S;
        let is = |special| ours == S(special) || theirs == S(special);
        match (ours, theirs) {
            _ if ours == theirs => {
                self.equal += count;
                return Ok(());
            }
            (S(Special::Identity(_)), S(Special::Invalid))
            | (S(Special::Invalid), S(Special::Identity(_))) => {
                self.hidden_identity += count;
                return Ok(());
            }
            _ if is(Special::NoTable) => self.unreadable += count,
            _ => self.different += count,
        }
        let unlisted = limit.saturating_sub(self.first.len());
        let listed = usize::try_from(count).unwrap_or(usize::MAX).min(unlisted);
        self.first.try_reserve(listed)?;
        let pfns = (pfn.0..).map(Pfn).take(listed);
        self.first
            .extend(pfns.map(|pfn| Disagreement { pfn, ours, theirs }));
        Ok(())
    }
}
