//! Struct layouts by name and path, from BTF or from DWARF.
//!
//! - `shape`: what a source of types provides: types by name, shapes of types.
//! - `question`: a query with its remaining budget.
//! - `query`, `spell`: paths, flattening, sizes, names; the same for both sources.
//! - `kinds`: kinds of types.
//! - `graph`: types one by one, with the types that they refer to.
//! - `btf`, `dwarf`: the sources.
//!
//! Indices are built on first use.

mod btf;
mod dwarf;
pub mod graph;
mod kinds;
mod query;
mod question;
mod shape;
mod spell;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::addr::Word;
use crate::elf::Bytes;
use crate::image::Image;
use crate::{Error, Result};
pub(crate) use dwarf::Directories;
use shape::Graph;

/// A source of layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// BTF, the BPF Type Format.
    Btf,
    /// DWARF debugging information.
    Dwarf,
}

/// The kind of a member's type, without typedefs and qualifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// An integer, a character or a boolean.
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
    /// `void`, or a type that is only declared.
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

/// The bits of a bit-field within its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// The position of its lowest bit, from bit 0 of the byte at [`Member::offset`].
    pub offset: u64,
    /// The number of bits.
    pub size: u64,
}

/// A member of a struct or union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the outermost struct.
    pub offset: u64,
    /// Its size in bytes; for a bit-field, that of the bytes at `offset` that contain it.
    pub size: u64,
    /// Set for a bit-field only: `(little-endian bytes >> offset) & ((1 << size) - 1)`.
    pub bits: Option<Bits>,
    /// Its type as C writes it: `struct list_head`, `const char *`, `u8[16]`.
    pub type_name: String,
    /// The kind of its type.
    pub kind: Kind,
    /// The number of elements of an array, in all dimensions together.
    pub count: Option<u64>,
    /// Whether it, or the elements of an array, are signed integers.
    pub signed: bool,
}

/// Layouts of structs.
pub struct Types {
    layouts: Arc<dyn Graph>,
    /// The same, if it is BTF.
    btf: Option<Arc<btf::Btf>>,
    source: Source,
    word: Word,
    /// Why BTF is not used although there is some.
    unusable: Option<String>,
}

impl Types {
    /// The types of an image: its BTF, else its DWARF. `cache` is the directory in which DWARF indices
    /// are cached between runs; `None` disables the cache.
    pub fn of_image(image: &Image, cache: Option<&Path>) -> Result<Self> {
        let mut unusable = None;
        if let Some(content) = image.content(".BTF") {
            match Self::from_btf(content.bytes, image.word()) {
                Ok(types) => return Ok(types),
                Err(malformed) => {
                    let error = match image {
                        Image::File(file) => {
                            let section = file.section(".BTF");
                            let offset = section.map_or(0, |section| section.offset());
                            malformed.at(offset).of(file.file()).to_string()
                        }
                        Image::Memory(_) => malformed.to_string(),
                    };
                    unusable = Some(format!("its BTF is not used: {error}"));
                }
            }
        }
        let dwarf = match image {
            Image::File(file) => dwarf::Dwarf::new(file, cache.map(Path::to_owned)),
            Image::Memory(_) => None,
        };
        let dwarf = dwarf.ok_or_else(|| {
            let why = unusable.as_ref().map_or_else(
                || "neither BTF nor DWARF".to_owned(),
                |why| format!("no DWARF, and {why}"),
            );
            Error::Absent(format!("{}: {why}", image.name()))
        })?;
        Ok(Self {
            layouts: Arc::new(dwarf),
            btf: None,
            source: Source::Dwarf,
            word: image.word(),
            unusable,
        })
    }

    /// The types of BTF data: the section `.BTF`, or the memory between `__start_BTF` and `__stop_BTF`
    /// of a kernel. Offsets in errors are relative to its start.
    pub fn from_btf(bytes: Bytes, word: Word) -> Result<Self, crate::elf::Malformed> {
        Ok(Self::of_btf(btf::Btf::new(bytes, word, None)?, word))
    }

    /// The types of a module, by its BTF: that of these types is the base which it continues, and
    /// whose types it has too. Fails also if it does not fit the base, or if these types are not BTF
    /// of a kernel.
    pub fn split(&self, bytes: Bytes) -> Result<Self> {
        let base = self.btf.as_ref().filter(|btf| !btf.is_split());
        let base = base.ok_or_else(|| {
            let why = "a module's BTF needs that of its kernel, from which it refers to types";
            Error::Absent(why.to_owned())
        })?;
        let btf = btf::Btf::new(bytes, self.word, Some(Arc::clone(base)));
        let btf = btf.map_err(|malformed| Error::Absent(malformed.to_string()))?;
        Ok(Self::of_btf(btf, self.word))
    }

    fn of_btf(btf: btf::Btf, word: Word) -> Self {
        let btf = Arc::new(btf);
        Self {
            layouts: Arc::<btf::Btf>::clone(&btf),
            btf: Some(btf),
            source: Source::Btf,
            word,
            unusable: None,
        }
    }

    /// What could not be read so far, and what is not known but was verified.
    pub fn warnings(&self) -> Vec<String> {
        let own = self.layouts.warnings();
        self.unusable.iter().cloned().chain(own).collect()
    }

    /// Their source.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The width of a pointer.
    pub fn word(&self) -> Word {
        self.word
    }

    /// Whether there is a struct, union, enum or typedef with this name. In all methods a name may be
    /// preceded by `struct`, `union` or `enum`.
    pub fn contains(&self, name: &str) -> bool {
        query::find(&*self.layouts, name).is_some()
    }

    /// The size in bytes.
    pub fn size_of(&self, name: &str) -> Result<u64> {
        query::size_of(&*self.layouts, name)
    }

    /// The type of a global variable, as C writes it. BTF has those of per-CPU variables only; DWARF is
    /// not searched.
    pub fn variable(&self, name: &str) -> Result<String> {
        query::variable(&*self.layouts, name)
    }

    /// A member by its path: `task_struct.se.exec_start`. Members of anonymous structs and unions are
    /// members of their parent. `[i]` selects an element of an array; the default is the first. A path
    /// of one name describes the type itself.
    pub fn member(&self, path: &str) -> Result<Member> {
        query::member(&*self.layouts, path)
    }

    /// The offset in bytes of the member that [`Types::member`] finds.
    pub fn offset(&self, path: &str) -> Result<u64> {
        self.member(path).map(|member| member.offset)
    }

    /// All members of a struct or union in the order of their declaration, including those of anonymous
    /// structs and unions.
    pub fn members(&self, name: &str) -> Result<Vec<(String, Member)>> {
        query::members(&*self.layouts, name)
    }

    /// The enumerators of an enum.
    pub fn enumerators(&self, name: &str) -> Result<Vec<(String, i128)>> {
        query::enumerators(&*self.layouts, name)
    }

    /// The value of an enumerator of any enum.
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

/// The user's cache directory: `$XDG_CACHE_HOME/xenkdump_fast`, else `~/.cache/xenkdump_fast`.
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
