//! A question about types, with the work that remains for its answer.

use super::shape::{Layouts, Shape, TypeId, Work};

/// A source of types, and the steps that remain for the answer.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub layouts: &'a dyn Layouts,
    pub work: &'a Work,
}

impl<'a> Question<'a> {
    /// The shape of a type.
    pub fn shape(self, id: TypeId) -> Shape<'a> {
        self.layouts.shape(id, self.work)
    }
}
