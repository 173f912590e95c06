//! What a source of types provides.

use std::ops::ControlFlow;

use super::kinds::{Encoding, Kind};
use crate::budget::Budget;
use crate::names;

/// The budget of one query, in steps: one for each type and each member that is visited. A small
/// hostile file can describe unbounded types.
pub(super) fn budget(limit: usize) -> Budget<'static> {
    Budget::new("types", limit as u64)
}

/// Charges `steps`. Once more are charged than remain, this and all later charges are refused.
pub(super) fn charge(budget: &Budget<'_>, steps: usize) -> ControlFlow<()> {
    match budget.spend(steps as u64) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// A name in the bytes of its source. Its end is found only when it is needed: many types may share a
/// long name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// The name at `offset` of `strings`, up to the next NUL.
    pub fn new(strings: &'a [u8], offset: u32) -> Self {
        Self(names::rest(strings, offset))
    }

    /// `void`.
    pub const VOID: Self = Self(b"void");

    pub fn is_empty(self) -> bool {
        self.0.first().is_none_or(|&byte| byte == 0)
    }

    pub fn is(self, name: &str) -> bool {
        names::is_string(self.0, 0, name.as_bytes(), |byte| byte == 0)
    }

    /// The text, up to the first invalid UTF-8.
    pub fn text(self) -> &'a str {
        names::text(names::string(self.0, 0, |byte| byte == 0))
    }
}

/// Identifies a type within its source: its ID in BTF, or the offset of its entry in `.debug_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(pub u64);

/// The kinds of named types in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tag {
    Struct,
    Union,
    Enum,
    Typedef,
}

impl Tag {
    /// All of them, in the order in which a name without a tag is looked up.
    pub const ALL: [Tag; 4] = [Tag::Struct, Tag::Union, Tag::Typedef, Tag::Enum];
}

/// The shape of a type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'a> {
    /// `void`, or a type that its source lacks.
    Void { name: Name<'a> },
    /// A struct or a union that is only declared.
    Declared { name: Name<'a>, union: bool },
    /// An integer. `bits` is the first bit and width of a bit-field in BTF before Linux 5.0.
    Int {
        name: Name<'a>,
        size: u64,
        signed: bool,
        bits: Option<(u64, u64)>,
    },
    /// A floating-point number.
    Float { name: Name<'a>, size: u64 },
    /// A pointer.
    Pointer { target: Option<TypeId>, size: u64 },
    /// One or more dimensions of an array.
    Array { element: TypeId, count: u64 },
    /// A struct or a union. Anonymous ones have an empty name.
    Composite {
        name: Name<'a>,
        union: bool,
        size: u64,
    },
    /// An enum.
    Enum {
        name: Name<'a>,
        size: u64,
        signed: bool,
    },
    /// A typedef.
    Typedef {
        name: Name<'a>,
        target: Option<TypeId>,
    },
    /// `const`, `volatile` and the like; empty for those without a C spelling.
    Qualified {
        word: &'static str,
        target: Option<TypeId>,
    },
    /// A function.
    Function,
}

/// A member in its source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    /// Empty for an anonymous struct or union.
    pub name: Name<'a>,
    pub ty: TypeId,
    /// The offset from the start of the struct, in bits.
    pub bit_offset: u64,
    /// The width of a bit-field.
    pub bit_size: Option<u64>,
}

/// A source of types. No method panics on hostile input, where types may form cycles: all traversals
/// must charge `budget`. Once it is exhausted, results are empty or invalid.
pub(super) trait Layouts: Send + Sync {
    /// The complete type with this name.
    fn find(&self, tag: Tag, name: &str) -> Option<TypeId>;

    /// The shape of a type.
    fn shape(&self, id: TypeId, budget: &Budget<'_>) -> Shape<'_>;

    /// Calls `visit` with each member of a struct or union, until it breaks.
    fn fields<'a>(
        &'a self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(Field<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()>;

    /// Calls `visit` with each enumerator of an enum.
    fn enumerators<'a>(
        &'a self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(Name<'a>, i128) -> ControlFlow<()>,
    ) -> ControlFlow<()>;

    /// What could not be read so far, and what is not known but was verified.
    fn warnings(&self) -> Vec<String>;

    /// The value of an enumerator of any enum.
    fn enumerator(&self, name: &str) -> Option<i128>;

    /// The type of a global variable.
    fn variable(&self, _name: &str) -> Option<TypeId> {
        None
    }
}

/// A type without its parts, as its source has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    pub kind: Kind,
    pub name: Name<'a>,
    /// Its own size in bytes; `None` if it is that of another type.
    pub size: Option<u64>,
    pub signed: bool,
    pub encoding: Option<Encoding>,
    /// The type that it refers to; `None` is `void`, or none at all.
    pub target: Option<TypeId>,
    /// The number of elements of one dimension of an array.
    pub count: Option<u64>,
    /// Of what a forward declaration declares.
    pub union: bool,
}

/// A parameter of a function. Its name may be empty.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parameter<'a> {
    /// A parameter; without a type it is `void`, which no compiler writes.
    Named(Name<'a>, Option<TypeId>),
    /// `...`
    Variadic,
}

/// The types of a source that can be listed.
pub(super) enum Listed {
    /// Types with consecutive numbers, from 1 to this.
    UpTo(u64),
    /// Types with these numbers.
    These(Vec<TypeId>),
}

/// A source whose types can be followed one by one.
pub(super) trait Graph: Layouts {
    /// A type; `None` if there is none with this number.
    fn node(&self, id: TypeId, budget: &Budget<'_>) -> Option<Node<'_>>;

    /// Calls `visit` with each parameter of a function's type.
    fn parameters<'a>(
        &'a self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(Parameter<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()>;

    /// Calls `visit` with each variable of a section: its number, its offset, its size.
    fn variables(
        &self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(TypeId, u64, u64) -> ControlFlow<()>,
    ) -> ControlFlow<()>;

    /// The first integer or floating-point type whose name `is_it`.
    fn find_base(&self, is_it: &dyn Fn(Name<'_>) -> bool) -> Option<TypeId>;

    /// The types that can be listed: all of BTF, the named ones of DWARF.
    fn listed(&self) -> Listed;
}

impl Shape<'_> {
    /// `void`.
    pub const VOID: Self = Shape::Void { name: Name::VOID };
    /// An invalid type.
    pub const BROKEN: Self = Shape::Void { name: Name(b"?") };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_to_their_end() {
        let strings = b"\0pid\0pidfd\0\xff";
        let name = |offset| Name::new(strings, offset);
        assert!(name(1).is("pid") && name(5).is("pidfd") && name(8).is("fd"));
        for other in ["", "pi", "pidf", "pid\0", "pid\0pidfd"] {
            assert!(!name(1).is(other), "{other}");
        }
        assert!(name(0).is_empty() && name(0).is("") && !name(1).is_empty());
        assert!(name(4).is_empty() && name(99).is_empty());
        assert_eq!((name(1).text(), name(11).text()), ("pid", ""));
        let long = Name::new(b"end without a NUL", 0);
        assert!(long.is("end without a NUL") && !long.is("end"));
    }
}
