//! Budgets: upper limits on the work or the memory that one purpose may take.
//!
//! A dump may be corrupt or hostile: a few pages can describe a million tables, each of which leads
//! to the same bytes. Whatever follows such descriptions has a [`Budget`], charges it for each step
//! and stops when a charge is refused:
//!
//! ```
//! use xenkdump::budget::{Budget, Exhausted};
//!
//! fn sum(list: &[u64], budget: &Budget<'_>) -> Result<u64, Exhausted> {
//!     let mut sum = 0;
//!     for item in list {
//!         budget.spend(1)?;
//!         sum += item;
//!     }
//!     Ok(sum)
//! }
//!
//! let all = Budget::new("lists", 4);
//! assert_eq!(sum(&[1, 2, 3], &all), Ok(6));
//! // A nested budget has a limit of its own and charges the outer one too.
//! let error = sum(&[1, 2, 3], &all.nested("short list", 2)).unwrap_err();
//! assert_eq!(error.to_string(), "budget for lists exhausted (limit 4)");
//! ```
//!
//! Limits that do not depend on the dump are constants of [`crate::limits`]. Those that do are
//! scaled by the amount of memory that the dump holds
//! ([`Memory::pages_held`](crate::memory::Memory::pages_held)), never by the length of its file or
//! by what its headers claim.

use std::sync::atomic::{AtomicU64, Ordering};

/// A budget was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("budget for {name} exhausted (limit {limit})")]
pub struct Exhausted {
    /// The budget's name.
    pub name: &'static str,
    /// Its limit.
    pub limit: u64,
}

/// An amount of work or memory that may be used for one purpose.
///
/// What is counted (steps, pages, bytes) is up to its user. It can be shared by threads.
#[derive(Debug)]
pub struct Budget<'p> {
    name: &'static str,
    limit: u64,
    /// [`REFUSED`] once a charge was refused.
    spent: AtomicU64,
    /// Charged as well.
    outer: Option<&'p Budget<'p>>,
}

/// The state of an exhausted budget; no limit is as large.
const REFUSED: u64 = u64::MAX;

impl Budget<'_> {
    /// A budget of `limit` units.
    pub fn new(name: &'static str, limit: u64) -> Self {
        Self {
            name,
            limit: limit.min(REFUSED - 1),
            spent: AtomicU64::new(0),
            outer: None,
        }
    }

    /// A budget for a part of this one's purpose. What is spent of it is spent of this one too.
    pub fn nested(&self, name: &'static str, limit: u64) -> Budget<'_> {
        Budget {
            outer: Some(self),
            ..Budget::new(name, limit)
        }
    }

    /// Charges `amount`. If that is more than remains the charge is refused, and so is every later
    /// one: the work is to end here.
    #[inline]
    pub fn spend(&self, amount: u64) -> Result<(), Exhausted> {
        if !self.charge(amount) {
            self.spent.store(REFUSED, Ordering::Relaxed);
            return Err(self.exhausted());
        }
        self.outer.map_or(Ok(()), |outer| outer.spend(amount))
    }

    /// Charges `amount` if as much remains. Where [`Budget::spend`] ends the work, this one only
    /// refuses one item: smaller ones may still fit.
    #[inline]
    pub fn reserve(&self, amount: u64) -> Result<(), Exhausted> {
        // The outer budget first: there is no way to give back what was charged.
        self.outer.map_or(Ok(()), |outer| outer.reserve(amount))?;
        self.charge(amount)
            .then_some(())
            .ok_or_else(|| self.exhausted())
    }

    #[inline]
    fn charge(&self, amount: u64) -> bool {
        let charged = |spent: u64| spent.checked_add(amount).filter(|all| *all <= self.limit);
        self.spent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged)
            .is_ok()
    }

    #[cold]
    fn exhausted(&self) -> Exhausted {
        Exhausted {
            name: self.name,
            limit: self.limit,
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How much was spent: all of it, once a charge was refused.
    pub fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed).min(self.limit)
    }

    /// How much may still be spent.
    pub fn remaining(&self) -> u64 {
        let own = self.limit - self.spent();
        self.outer.map_or(own, |outer| own.min(outer.remaining()))
    }

    /// Whether [`Budget::spend`] refused a charge, of this budget or of an outer one.
    pub fn is_exhausted(&self) -> bool {
        self.spent.load(Ordering::Relaxed) == REFUSED
            || self.outer.is_some_and(Budget::is_exhausted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_charge_ends_the_work() {
        let budget = Budget::new("steps", 3);
        assert_eq!((budget.spend(2), budget.remaining()), (Ok(()), 1));
        let error = budget.spend(2).unwrap_err();
        assert_eq!(
            (error, budget.name()),
            (
                Exhausted {
                    name: "steps",
                    limit: 3
                },
                "steps"
            )
        );
        assert!(budget.is_exhausted() && budget.spend(0).is_err());
        assert_eq!((budget.spent(), budget.remaining()), (3, 0));
    }

    #[test]
    fn all_of_it_may_be_spent() {
        let budget = Budget::new("steps", 3);
        assert!(budget.spend(3).is_ok() && budget.spend(0).is_ok());
        assert!(!budget.is_exhausted() && budget.remaining() == 0);
        let endless = Budget::new("steps", u64::MAX);
        assert!(endless.spend(u64::MAX - 1).is_ok() && endless.spend(1).is_err());
    }

    #[test]
    fn a_refused_reservation_leaves_the_rest() {
        let budget = Budget::new("bytes", 10);
        assert!(budget.reserve(8).is_ok() && budget.reserve(u64::MAX).is_err());
        assert!(budget.reserve(2).is_ok() && budget.reserve(1).is_err());
        assert!(!budget.is_exhausted() && budget.spent() == 10);
    }

    #[test]
    fn a_nested_budget_charges_the_outer_one() {
        let outer = Budget::new("dump", 10);
        let first = outer.nested("first", 4);
        assert!(first.spend(3).is_ok() && first.spend(3).is_err());
        assert!(first.is_exhausted() && !outer.is_exhausted());
        assert_eq!(outer.spent(), 3);
        let second = outer.nested("second", 100);
        assert_eq!(second.remaining(), 7);
        assert_eq!(second.spend(8).unwrap_err().name, "dump");
        assert!(second.is_exhausted() && outer.is_exhausted());
    }

    #[test]
    fn threads_share_it() {
        let budget = Budget::new("steps", 10_000);
        let count = || (0..4000).filter(|_| budget.reserve(1).is_ok()).count();
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(total, 10_000);
    }
}
