//! Types from BTF, the BPF Type Format of Linux (Documentation/bpf/btf.rst), kinds 0 to 19.
//!
//! The BTF of a module is split: its numbers of types and offsets of strings continue those of the
//! kernel's, its base.
//!
//! Versions, flags and kinds that are not known are verified (`format`); BTF that cannot be read to
//! its end is rejected, because a type that seems to be missing is taken for one that the kernel lacks.

mod format;
mod graph;
mod kinds;
#[cfg(test)]
mod tests;

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, OnceLock};

use super::shape::{charge, Field, Layouts, Name, Shape, Tag, TypeId};
use crate::addr::Word;
use crate::alloc;
use crate::budget::Budget;
use crate::elf::{Bytes, Malformed};
use crate::names::Names;
use format::{Base, Data, Format};
use kinds::*;

const MAGIC: u16 = 0xeb9f;
/// Size of the header of version 1.
const HEADER: usize = 24;

/// Parsed BTF.
pub(super) struct Btf {
    /// What it continues.
    base: Option<Arc<Btf>>,
    bytes: Bytes,
    types: Range<usize>,
    strings: Range<usize>,
    word: Word,
    format: Format,
    index: Index,
    /// Its integers and floating-point numbers, which the index lacks.
    bases: OnceLock<Vec<TypeId>>,
    /// What is not known, and was verified.
    warning: Option<String>,
}

/// Type offsets and a hash of type names, both in the order of the types. ID 0 (`void`) is in neither.
struct Index {
    /// The offset of each type from the start of the type section.
    offsets: Vec<u32>,
    /// The IDs of named complete structs, unions, enums and typedefs.
    named: Vec<u32>,
    names: Names,
}

impl Btf {
    /// `base` is what the BTF of a module continues; it must have no base itself.
    pub fn new(bytes: Bytes, word: Word, base: Option<Arc<Btf>>) -> Result<Self, Malformed> {
        let end = |bytes: &[u8]| format!("the end of the BTF ({} bytes)", bytes.len());
        if !bytes.starts_with(&MAGIC.to_le_bytes()) {
            let found = bytes.get(..2).unwrap_or_default();
            return Err(Malformed::new(0, "BTF (9f eb)", format!("{found:02x?}")));
        }
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(Malformed::new(0, "a BTF header", end(&bytes)));
        };
        let unknown = match (header[2], header[3]) {
            (1, 0) => None,
            (1, flags) => Some(format!("unknown BTF flags {flags:#x}")),
            (version, _) => Some(format!("unknown BTF version {version}")),
        };
        if (u32_at(header, 4).unwrap_or(0) as usize) < HEADER {
            return Err(Malformed::new(4, "the size of a BTF header", end(&bytes)));
        }
        // Offsets are relative to the end of the header. Later versions may have a larger header.
        let range = |at: usize| {
            let start = (u32_at(header, 4)? as usize).checked_add(u32_at(header, at)? as usize)?;
            let range = start..start.checked_add(u32_at(header, at + 4)? as usize)?;
            bytes.get(range.clone()).map(|_| range)
        };
        let section = |at: usize, what: &str| {
            range(at).ok_or_else(|| {
                Malformed::new(at as u64, format!("offset and size of {what}"), end(&bytes))
            })
        };
        let types = section(8, "the types")?;
        let strings = section(16, "the strings")?;
        let contents = |range: &Range<usize>| bytes.get(range.clone()).unwrap_or_default();
        let data = Data {
            types: contents(&types),
            strings: contents(&strings),
            base: base.as_deref().map(|base| base as &dyn Base),
        };
        let reading = format::read(data, unknown).map_err(|problem| {
            let at = types.start.saturating_add(problem.at) as u64;
            Malformed::new(at, "BTF types", problem.found)
        })?;
        let (named, names) = names(data, &reading);
        let index = Index {
            offsets: reading.offsets,
            named,
            names,
        };
        Ok(Self {
            types,
            strings,
            word,
            format: reading.format,
            index,
            bases: OnceLock::new(),
            warning: reading.warning,
            base,
            bytes,
        })
    }

    /// Whether it is the BTF of a module.
    pub fn is_split(&self) -> bool {
        self.base.is_some()
    }

    /// The number of types of its base.
    fn inherited(&self) -> usize {
        self.base.as_ref().map_or(0, |base| base.len())
    }

    /// The IDs of its own types.
    fn own(&self) -> impl Iterator<Item = TypeId> {
        let first = self.inherited() as u64;
        (first + 1..=first + self.len() as u64).map(TypeId)
    }

    fn get(&self, id: TypeId) -> Option<Type<'_>> {
        let index = usize::try_from(id.0.checked_sub(1)?).ok()?;
        let Some(own) = index.checked_sub(self.inherited()) else {
            return self.base.as_ref()?.get(id);
        };
        let offset = *self.index.offsets.get(own)?;
        let types = self.bytes.get(self.types.clone())?;
        self.format.at(types, offset)
    }

    fn name(&self, offset: u32) -> Name<'_> {
        let inherited = self.base.as_ref().map_or(&[][..], |base| base.strings());
        match (offset as usize).checked_sub(inherited.len()) {
            // Less than the offset.
            Some(own) => Name::new(self.strings(), own as u32),
            None => Name::new(inherited, offset),
        }
    }

    fn enumerators_of<'a>(&'a self, ty: Type<'a>) -> impl Iterator<Item = (Name<'a>, i128)> {
        let wide = ty.kind == ENUM64;
        let values = matches!(ty.kind, ENUM | ENUM64).then_some(ty.tail);
        values
            .unwrap_or_default()
            .chunks_exact(if wide { 12 } else { 8 })
            .filter_map(move |chunk| {
                let low = u32_at(chunk, 4)?;
                let high = if wide { u32_at(chunk, 8)? } else { 0 };
                let value = u64::from(low) | u64::from(high) << 32;
                let value = match (wide, ty.flag) {
                    (false, false) => i128::from(low),
                    (false, true) => i128::from(low as i32),
                    (true, false) => i128::from(value),
                    (true, true) => i128::from(value as i64),
                };
                Some((self.name(u32_at(chunk, 0)?), value))
            })
    }
}

/// Its own types and strings.
impl Base for Btf {
    fn len(&self) -> usize {
        self.index.offsets.len()
    }

    fn strings(&self) -> &[u8] {
        self.bytes.get(self.strings.clone()).unwrap_or_default()
    }

    fn ty(&self, id: u32) -> Option<Type<'_>> {
        self.get(TypeId(id.into()))
    }
}

impl Layouts for Btf {
    fn find(&self, tag: Tag, name: &str) -> Option<TypeId> {
        let index = &self.index;
        let ids = index.names.candidates((tag, name.as_bytes()));
        let own = ids
            .filter_map(|i| index.named.get(i))
            .map(|&id| TypeId(id.into()))
            .find(|&id| {
                self.get(id)
                    .is_some_and(|ty| tag_of(ty.kind) == Some(tag) && self.name(ty.name).is(name))
            });
        own.or_else(|| self.base.as_ref()?.find(tag, name))
    }

    fn shape(&self, id: TypeId, budget: &Budget<'_>) -> Shape<'_> {
        if charge(budget, 1).is_break() {
            return Shape::BROKEN;
        }
        if id.0 == 0 {
            return Shape::VOID;
        }
        let Some(ty) = self.get(id) else {
            return Shape::BROKEN;
        };
        let name = self.name(ty.name);
        let size = u64::from(ty.value);
        let target = (ty.value != 0).then_some(TypeId(ty.value.into()));
        let qualified = |word| Shape::Qualified { word, target };
        match ty.kind {
            INT => {
                let encoding = u32_at(ty.tail, 0).unwrap_or(0);
                let (first, width) = (u64::from(encoding >> 16 & 0xff), u64::from(encoding & 0xff));
                let partial = first != 0 || width != size.saturating_mul(8);
                Shape::Int {
                    name,
                    size,
                    signed: encoding >> 24 & 1 != 0,
                    bits: partial.then_some((first, width)),
                }
            }
            PTR => Shape::Pointer {
                target,
                size: self.word.bytes() as u64,
            },
            ARRAY => match (u32_at(ty.tail, 0), u32_at(ty.tail, 8)) {
                (Some(element), Some(count)) => Shape::Array {
                    element: TypeId(element.into()),
                    count: count.into(),
                },
                _ => Shape::BROKEN,
            },
            STRUCT | UNION => Shape::Composite {
                name,
                union: ty.kind == UNION,
                size,
            },
            ENUM | ENUM64 => Shape::Enum {
                name,
                size,
                signed: ty.flag,
            },
            TYPEDEF => Shape::Typedef { name, target },
            VOLATILE => qualified("volatile"),
            CONST => qualified("const"),
            RESTRICT | TYPE_TAG => qualified(""),
            FLOAT => Shape::Float { name, size },
            FUNC | FUNC_PROTO => Shape::Function,
            FWD => Shape::Declared {
                name,
                union: ty.flag,
            },
            _ => Shape::BROKEN,
        }
    }

    fn fields<'a>(
        &'a self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(Field<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(ty) = self.get(id).filter(|ty| matches!(ty.kind, STRUCT | UNION)) else {
            return ControlFlow::Continue(());
        };
        for member in ty.tail.chunks_exact(12) {
            charge(budget, 1)?;
            let word = |at| u32_at(member, at).unwrap_or(0);
            let (name, target, offset) = (word(0), word(4), word(8));
            // With `kind_flag` set, the top 8 bits are the width of a bit-field.
            let (bit_offset, width) = if ty.flag {
                (offset & 0xff_ffff, offset >> 24)
            } else {
                (offset, 0)
            };
            visit(Field {
                name: self.name(name),
                ty: TypeId(target.into()),
                bit_offset: bit_offset.into(),
                bit_size: (width != 0).then_some(width.into()),
            })?;
        }
        ControlFlow::Continue(())
    }

    fn variable(&self, name: &str) -> Option<TypeId> {
        let own = self
            .own()
            .filter_map(|id| self.get(id))
            .find(|ty| ty.kind == VAR && self.name(ty.name).is(name));
        own.map(|ty| TypeId(ty.value.into()))
            .or_else(|| self.base.as_ref()?.variable(name))
    }

    fn enumerators<'a>(
        &'a self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(Name<'a>, i128) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some(ty) = self.get(id) {
            for (name, value) in self.enumerators_of(ty) {
                charge(budget, 1)?;
                visit(name, value)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn warnings(&self) -> Vec<String> {
        let base = self.base.iter().flat_map(|base| base.warnings());
        base.chain(self.warning.iter().cloned()).collect()
    }

    fn enumerator(&self, name: &str) -> Option<i128> {
        let own = self
            .own()
            .filter_map(|id| self.get(id))
            .flat_map(|ty| self.enumerators_of(ty))
            .find(|(candidate, _)| candidate.is(name));
        own.map(|(_, value)| value)
            .or_else(|| self.base.as_ref()?.enumerator(name))
    }
}

/// The tag of types of a kind that can be looked up by name.
fn tag_of(kind: u32) -> Option<Tag> {
    match kind {
        STRUCT => Some(Tag::Struct),
        UNION => Some(Tag::Union),
        ENUM | ENUM64 => Some(Tag::Enum),
        TYPEDEF => Some(Tag::Typedef),
        _ => None,
    }
}

/// The IDs of the named types, and their names.
fn names(data: Data<'_>, reading: &format::Reading) -> (Vec<u32>, Names) {
    let mut named = Vec::new();
    let mut found: Vec<(Tag, &[u8])> = Vec::new();
    let first = data.base.map_or(0, |base| base.len());
    for (i, &offset) in reading.offsets.iter().enumerate() {
        let ty = reading.format.at(data.types, offset);
        let Some(ty) = ty.filter(|ty| ty.name != 0) else {
            continue;
        };
        let id = u32::try_from(first.saturating_add(i + 1));
        if let (Some(tag), Ok(id)) = (tag_of(ty.kind), id) {
            alloc::push(&mut named, id);
            alloc::push(&mut found, (tag, data.string(ty.name)));
        }
    }
    // `Names` yields the last one added first, so that the first type of a name is found first.
    let order = found.iter().enumerate().rev();
    let names = Names::in_order(found.len(), order.map(|(i, key)| (i as u32, *key)));
    (named, names)
}
