//! A question about types, and the bounds on the work for its answer: types may be hostile.

use super::shape::{Layouts, Shape, TypeId, Work};

/// The longest chain of typedefs, dimensions, pointers or anonymous structs that is followed. Linux
/// needs 8.
pub(super) const MAX_DEPTH: usize = 64;

/// The types and members that are visited for one question. The longest struct of Linux 6.1 has 576
/// members, the longest enum seen 900 enumerators.
pub(super) const MAX_STEPS: usize = 1 << 18;

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
