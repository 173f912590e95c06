//! Layouts of structs, by name and path, from BTF or from DWARF.
//!
//! - `shape`: what a source of types must tell: names to types, types to shapes.
//! - `question`: a question, and the work that may be done for it.
//! - `query`, `spell`: paths, flattening, sizes, names; the same for both sources.
//! - `btf`, `dwarf`: the sources.
//!
//! Everything is built when it is first asked for.

mod btf;
mod dwarf;
mod query;
mod question;
mod shape;
mod spell;

use std::path::{Path, PathBuf};

use crate::addr::Word;
use crate::elf::{Bytes, Image};
use crate::{Error, Result};
use shape::Layouts;

/// Where layouts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel's own type format.
    Btf,
    /// Debugging information.
    Dwarf,
}

/// What sort of type a member has, typedefs and qualifiers taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A number, a character, a truth value.
    Int,
    /// A floating-point number.
    Float,
    /// A pointer.
    Pointer,
    /// A struct.
    Struct,
    /// A union.
    Union,
    /// An array of any dimensions.
    Array,
    /// An enum.
    Enum,
    /// A function.
    Function,
    /// Nothing, or a type that is only declared.
    Void,
}

impl Kind {
    /// A short name: `int`, `ptr`, `struct`...
    pub fn name(self) -> &'static str {
        match self {
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Pointer => "ptr",
            Kind::Struct => "struct",
            Kind::Union => "union",
            Kind::Array => "array",
            Kind::Enum => "enum",
            Kind::Function => "func",
            Kind::Void => "void",
        }
    }
}

/// Which bits of its bytes a bit-field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Number of its lowest bit, counted from bit 0 of the byte at [`Member::offset`].
    pub offset: u64,
    /// How many bits.
    pub size: u64,
}

/// One member of a struct or union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the outermost struct.
    pub offset: u64,
    /// Its size in bytes; of a bit-field, that of the bytes at `offset` that hold all of it.
    pub size: u64,
    /// Set for a bit-field only: `(little-endian bytes >> offset) & ((1 << size) - 1)`.
    pub bits: Option<Bits>,
    /// Its type as C writes it: `struct list_head`, `const char *`, `u8[16]`.
    pub type_name: String,
    /// What sort of type it has.
    pub kind: Kind,
    /// How many elements an array has, those of all dimensions multiplied.
    pub count: Option<u64>,
    /// Whether it is a signed number; of an array, whether its elements are.
    pub signed: bool,
}

/// Layouts of structs.
pub struct Types {
    layouts: Box<dyn Layouts>,
    source: Source,
    word: Word,
}

impl Types {
    /// The types that an image tells of: its BTF, else its DWARF. `cache` is the folder where
    /// indices of DWARF are kept from one run to the next; `None` keeps none.
    pub fn of_image(image: &Image, cache: Option<&Path>) -> Result<Self> {
        if let Some(section) = image.section(".BTF") {
            if let Some(bytes) = section.bytes() {
                return Self::from_btf(bytes, image.word())
                    .map_err(|malformed| malformed.at(section.offset()).of(image.file()));
            }
        }
        let dwarf = dwarf::Dwarf::new(image, cache.map(Path::to_owned)).ok_or_else(|| {
            let path = image.file().path().display();
            Error::Absent(format!("{path}: neither BTF nor DWARF"))
        })?;
        Ok(Self {
            layouts: Box::new(dwarf),
            source: Source::Dwarf,
            word: image.word(),
        })
    }

    /// The types of some BTF: the content of a section `.BTF`, or what lies between `__start_BTF`
    /// and `__stop_BTF` in a kernel's memory. Offsets in the error count from its start.
    pub fn from_btf(bytes: Bytes, word: Word) -> Result<Self, crate::elf::Malformed> {
        Ok(Self {
            layouts: Box::new(btf::Btf::new(bytes, word)?),
            source: Source::Btf,
            word,
        })
    }

    /// Where they come from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The width of a pointer.
    pub fn word(&self) -> Word {
        self.word
    }

    /// Whether there is a struct, union, enum or typedef of this name. A name may be preceded by
    /// `struct`, `union` or `enum`, here and everywhere else.
    pub fn contains(&self, name: &str) -> bool {
        query::find(&*self.layouts, name).is_some()
    }

    /// Size in bytes.
    pub fn size_of(&self, name: &str) -> Result<u64> {
        query::size_of(&*self.layouts, name)
    }

    /// A member by its path: `task_struct.se.exec_start`. Members of anonymous structs and unions
    /// count as their parent's; `[i]` picks an element of an array, else it is the first that is
    /// descended into. A path of one name describes the type itself.
    pub fn member(&self, path: &str) -> Result<Member> {
        query::member(&*self.layouts, path)
    }

    /// The offset in bytes of the member that [`Types::member`] finds.
    pub fn offset(&self, path: &str) -> Result<u64> {
        self.member(path).map(|member| member.offset)
    }

    /// All members of a struct or union in the order of their declaration, those of anonymous ones
    /// among them.
    pub fn members(&self, name: &str) -> Result<Vec<(String, Member)>> {
        query::members(&*self.layouts, name)
    }

    /// The enumerators of an enum.
    pub fn enumerators(&self, name: &str) -> Result<Vec<(String, i128)>> {
        query::enumerators(&*self.layouts, name)
    }

    /// The value of an enumerator, whatever its enum.
    pub fn enumerator(&self, name: &str) -> Result<i128> {
        self.layouts
            .enumerator(name)
            .ok_or_else(|| Error::Absent(format!("no enumerator {name}")))
    }
}

impl std::fmt::Debug for Types {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Types")
            .field("source", &self.source)
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}

/// The folder of the user's cache: `$XDG_CACHE_HOME/xenkdump_fast`, else `~/.cache/xenkdump_fast`.
pub fn user_cache() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("xenkdump_fast"))
}

fn no_type(name: &str) -> Error {
    Error::Absent(format!("no type {name}"))
}
