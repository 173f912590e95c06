//! What a source of types must tell.

use std::ops::ControlFlow;

/// A type within its source: the id that BTF gives it, the offset of its entry in `.debug_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TypeId(pub u64);

/// The name spaces of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Struct,
    Union,
    Enum,
    Typedef,
}

impl Tag {
    /// All, in the order in which a bare name is looked up.
    pub const ALL: [Tag; 4] = [Tag::Struct, Tag::Union, Tag::Typedef, Tag::Enum];
}

/// What a type is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'a> {
    /// `void`, or a type that its source does not hold.
    Void { name: &'a str },
    /// A struct or a union that is only declared.
    Declared { name: &'a str, union: bool },
    /// A number. `bits` is what BTF before Linux 5.0 says of a bit-field: first bit and width.
    Int {
        name: &'a str,
        size: u64,
        signed: bool,
        bits: Option<(u64, u64)>,
    },
    /// A floating-point number.
    Float { name: &'a str, size: u64 },
    /// A pointer.
    Pointer { target: Option<TypeId>, size: u64 },
    /// One dimension or several of an array.
    Array { element: TypeId, count: u64 },
    /// A struct or a union. Anonymous ones have an empty name.
    Composite {
        name: &'a str,
        union: bool,
        size: u64,
    },
    /// An enum.
    Enum {
        name: &'a str,
        size: u64,
        signed: bool,
    },
    /// Another name.
    Typedef {
        name: &'a str,
        target: Option<TypeId>,
    },
    /// `const`, `volatile` and the like; empty for those that C does not write.
    Qualified {
        word: &'static str,
        target: Option<TypeId>,
    },
    /// A function.
    Function,
}

/// A member as its source tells of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    /// Empty for an anonymous struct or union.
    pub name: &'a str,
    pub ty: TypeId,
    /// Bits from the start of the struct.
    pub bit_offset: u64,
    /// Width of a bit-field.
    pub bit_size: Option<u64>,
}

/// A source of types. No method panics, whatever the bytes; types may form cycles in hostile ones,
/// so that whoever follows them must count steps.
pub(super) trait Layouts: Send + Sync {
    /// The complete type of this name.
    fn find(&self, tag: Tag, name: &str) -> Option<TypeId>;

    /// What a type is.
    fn shape(&self, id: TypeId) -> Shape<'_>;

    /// Calls `visit` with each member of a struct or union, until it breaks.
    fn fields<'a>(
        &'a self,
        id: TypeId,
        visit: &mut dyn FnMut(Field<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()>;

    /// Calls `visit` with each enumerator of an enum.
    fn enumerators<'a>(&'a self, id: TypeId, visit: &mut dyn FnMut(&'a str, i128));

    /// The value of an enumerator of any enum.
    fn enumerator(&self, name: &str) -> Option<i128>;
}
