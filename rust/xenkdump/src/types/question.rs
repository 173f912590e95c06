//! A query about types, with its remaining budget.

use super::shape::{Layouts, Shape, TypeId};
use crate::budget::Budget;

/// A source of types, and the remaining budget.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub layouts: &'a dyn Layouts,
    pub budget: &'a Budget<'a>,
}

impl<'a> Question<'a> {
    /// The shape of a type.
    pub fn shape(self, id: TypeId) -> Shape<'a> {
        self.layouts.shape(id, self.budget)
    }
}
