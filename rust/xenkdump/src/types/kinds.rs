//! Kinds of types, and what the bits of numbers mean.

/// The kind of a type. The names are those of BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// `void`.
    Void,
    /// An integer, a character or a boolean.
    Int,
    /// A floating-point number.
    Float,
    /// A pointer.
    Pointer,
    /// One dimension of an array.
    Array,
    /// A struct.
    Struct,
    /// A union.
    Union,
    /// An enum.
    Enum,
    /// An enum with values of 64 bits, in BTF.
    Enum64,
    /// A struct or union that is only declared.
    Forward,
    /// A typedef.
    Typedef,
    /// `volatile`.
    Volatile,
    /// `const`.
    Const,
    /// `restrict`.
    Restrict,
    /// `_Atomic`.
    Atomic,
    /// A function, in BTF.
    Function,
    /// The type of a function.
    Prototype,
    /// A variable, in BTF.
    Variable,
    /// A section with its variables, in BTF.
    Section,
    /// An attribute of a type, a member or a function, in BTF.
    DeclTag,
    /// An attribute of a pointer's target, in BTF.
    TypeTag,
    /// One that is not known.
    Unknown,
}

impl Kind {
    /// A short name: `int`, `ptr`, `struct`...
    pub fn name(self) -> &'static str {
        match self {
            Kind::Void => "void",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Pointer => "ptr",
            Kind::Array => "array",
            Kind::Struct => "struct",
            Kind::Union => "union",
            Kind::Enum => "enum",
            Kind::Enum64 => "enum64",
            Kind::Forward => "fwd",
            Kind::Typedef => "typedef",
            Kind::Volatile => "volatile",
            Kind::Const => "const",
            Kind::Restrict => "restrict",
            Kind::Atomic => "atomic",
            Kind::Function => "func",
            Kind::Prototype => "func_proto",
            Kind::Variable => "var",
            Kind::Section => "datasec",
            Kind::DeclTag => "decl_tag",
            Kind::TypeTag => "type_tag",
            Kind::Unknown => "unknown",
        }
    }

    /// Whether it only qualifies the type that it refers to.
    pub fn is_qualifier(self) -> bool {
        matches!(
            self,
            Kind::Volatile | Kind::Const | Kind::Restrict | Kind::Atomic | Kind::TypeTag
        )
    }
}

/// What the bits of a number mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// An integer.
    Integer,
    /// A character, if the source says so. BTF of Linux describes `char` as an integer.
    Character,
    /// A boolean.
    Boolean,
    /// A floating-point number.
    Float,
    /// A complex number.
    Complex,
}

impl Encoding {
    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Integer => "int",
            Encoding::Character => "char",
            Encoding::Boolean => "bool",
            Encoding::Float => "float",
            Encoding::Complex => "complex",
        }
    }
}
