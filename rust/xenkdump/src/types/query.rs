//! Paths, flattening, sizes: questions asked of any source of types.

use std::ops::ControlFlow;

use super::shape::{Field, Layouts, Shape, Tag, TypeId};
use super::{no_type, spell, Bits, Kind, Member};
use crate::{Error, Result};

/// Bounds on what hostile types can make us do: how long a chain of typedefs, pointers or anonymous
/// structs is followed, and how many members are looked at for one question. The kernel's own need
/// 8 and some hundreds.
pub(super) const DEPTH: usize = 64;
const FIELDS: usize = 1 << 20;
/// As how many members an anonymous one counts.
const ANONYMOUS: usize = 256;

/// The type of a name, which may be preceded by `struct`, `union` or `enum`.
pub(super) fn find(layouts: &dyn Layouts, name: &str) -> Option<TypeId> {
    let (tags, name) = match name.split_once(' ') {
        Some(("struct", rest)) => (&[Tag::Struct][..], rest),
        Some(("union", rest)) => (&[Tag::Union][..], rest),
        Some(("enum", rest)) => (&[Tag::Enum][..], rest),
        _ => (&Tag::ALL[..], name),
    };
    let name = name.trim();
    tags.iter().find_map(|&tag| layouts.find(tag, name))
}

/// Size in bytes of a type that has one.
pub(super) fn size(layouts: &dyn Layouts, id: TypeId) -> Option<u64> {
    let (mut id, mut count) = (id, 1_u64);
    for _ in 0..DEPTH {
        let size = match bare(layouts, id)?.1 {
            Shape::Array {
                element,
                count: more,
            } => {
                count = count.checked_mul(more)?;
                id = element;
                continue;
            }
            Shape::Int { size, .. }
            | Shape::Float { size, .. }
            | Shape::Pointer { size, .. }
            | Shape::Composite { size, .. }
            | Shape::Enum { size, .. } => size,
            Shape::Void { .. }
            | Shape::Declared { .. }
            | Shape::Function
            | Shape::Typedef { .. }
            | Shape::Qualified { .. } => return None,
        };
        return size.checked_mul(count);
    }
    None
}

/// A type without typedefs and qualifiers.
fn bare(layouts: &dyn Layouts, mut id: TypeId) -> Option<(TypeId, Shape<'_>)> {
    for _ in 0..DEPTH {
        match layouts.shape(id) {
            Shape::Typedef { target, .. } | Shape::Qualified { target, .. } => match target {
                Some(target) => id = target,
                None => return Some((id, Shape::Void { name: "void" })),
            },
            shape => return Some((id, shape)),
        }
    }
    None
}

/// What a path leads to.
pub(super) fn member(layouts: &dyn Layouts, path: &str) -> Result<Member> {
    let mut steps = path.split('.');
    let root = steps.next().unwrap_or_default();
    let mut ty = find(layouts, root).ok_or_else(|| no_type(root))?;
    let mut place = Place::default();
    for step in steps {
        let absent = |why: &str| Error::Absent(format!("no member {path}: {step}: {why}"));
        let (name, indices) = subscripts(step).ok_or_else(|| absent("not a member's name"))?;
        let owner = elements(layouts, ty);
        let (owner, shape) = owner.ok_or_else(|| absent("its owner's type is broken"))?;
        match shape {
            Shape::Composite { size, .. } => place.limit = place.offset().checked_add(size),
            Shape::Pointer { .. } => return Err(absent("its owner is a pointer")),
            _ => return Err(absent("its owner is no struct or union")),
        }
        let field = field(layouts, owner, name).ok_or_else(|| absent("there is none"))?;
        place = place
            .step(&field)
            .ok_or_else(|| absent("its offset overflows"))?;
        ty = field.ty;
        for index in indices {
            let (element, at) =
                element(layouts, ty, index).ok_or_else(|| absent("no such element"))?;
            ty = element;
            place.bit_offset = at
                .checked_mul(8)
                .and_then(|bits| place.bit_offset.checked_add(bits))
                .ok_or_else(|| absent("its offset overflows"))?;
        }
    }
    Ok(describe(layouts, ty, place))
}

/// `name[1][2]` as name and indices.
fn subscripts(step: &str) -> Option<(&str, impl Iterator<Item = u64> + use<'_>)> {
    let (name, rest) = match step.find('[') {
        Some(at) => step.split_at_checked(at)?,
        None => (step, ""),
    };
    let parse = |part: &str| part.strip_suffix(']')?.parse::<u64>().ok();
    let parts = || rest.split('[').skip(1);
    if name.is_empty() || parts().any(|part| parse(part).is_none()) {
        return None;
    }
    Some((name, parts().filter_map(parse)))
}

/// The type of an array's element and its offset in bytes.
fn element(layouts: &dyn Layouts, id: TypeId, index: u64) -> Option<(TypeId, u64)> {
    let Shape::Array { element, count } = bare(layouts, id)?.1 else {
        return None;
    };
    // An array of no elements ends many a struct; its length is known to the program alone.
    if index >= count && count > 0 {
        return None;
    }
    Some((element, size(layouts, element)?.checked_mul(index)?))
}

/// A type without typedefs, qualifiers and dimensions.
fn elements(layouts: &dyn Layouts, mut id: TypeId) -> Option<(TypeId, Shape<'_>)> {
    for _ in 0..DEPTH {
        match bare(layouts, id)? {
            (_, Shape::Array { element, .. }) => id = element,
            found => return Some(found),
        }
    }
    None
}

/// The member of this name, looked for in anonymous members too; its offset counts from `owner`.
fn field<'a>(layouts: &'a dyn Layouts, owner: TypeId, name: &str) -> Option<Field<'a>> {
    let mut found = None;
    let _ = flatten(layouts, owner, &mut |field| {
        if field.name == name {
            found = Some(field);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    found
}

/// Calls `visit` with all named members of a struct or union, those of anonymous members in place
/// of these.
fn flatten<'a>(
    layouts: &'a dyn Layouts,
    owner: TypeId,
    visit: &mut dyn FnMut(Field<'a>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut budget = FIELDS;
    flatten_at(layouts, owner, 0, DEPTH, &mut budget, visit)
}

fn flatten_at<'a>(
    layouts: &'a dyn Layouts,
    owner: TypeId,
    base: u64,
    depth: usize,
    budget: &mut usize,
    visit: &mut dyn FnMut(Field<'a>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    layouts.fields(owner, &mut |field| {
        spend(budget, 1)?;
        let Some(bit_offset) = base.checked_add(field.bit_offset) else {
            return ControlFlow::Continue(());
        };
        if !field.name.is_empty() {
            return visit(Field {
                bit_offset,
                ..field
            });
        }
        match bare(layouts, field.ty) {
            Some((inner, Shape::Composite { .. })) if depth > 0 => {
                spend(budget, ANONYMOUS)?;
                flatten_at(layouts, inner, bit_offset, depth - 1, budget, visit)
            }
            // An anonymous bit-field is padding.
            _ => ControlFlow::Continue(()),
        }
    })
}

fn spend(budget: &mut usize, cost: usize) -> ControlFlow<()> {
    match budget.checked_sub(cost) {
        Some(rest) => {
            *budget = rest;
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(()),
    }
}

/// Where something is within the outermost struct.
#[derive(Clone, Copy, Default)]
struct Place {
    bit_offset: u64,
    bit_size: Option<u64>,
    /// Where the innermost struct ends, in bytes.
    limit: Option<u64>,
}

impl Place {
    fn offset(&self) -> u64 {
        self.bit_offset / 8
    }

    fn step(self, field: &Field<'_>) -> Option<Self> {
        Some(Self {
            bit_offset: self.bit_offset.checked_add(field.bit_offset)?,
            bit_size: field.bit_size,
            limit: self.limit,
        })
    }
}

fn describe(layouts: &dyn Layouts, ty: TypeId, place: Place) -> Member {
    let shape = bare(layouts, ty).map(|(_, shape)| shape);
    let (kind, count) = match shape {
        Some(Shape::Int { .. }) => (Kind::Int, None),
        Some(Shape::Float { .. }) => (Kind::Float, None),
        Some(Shape::Pointer { .. }) => (Kind::Pointer, None),
        Some(Shape::Composite { union: false, .. }) => (Kind::Struct, None),
        Some(Shape::Composite { union: true, .. }) => (Kind::Union, None),
        Some(Shape::Enum { .. }) => (Kind::Enum, None),
        Some(Shape::Function) => (Kind::Function, None),
        Some(Shape::Array { .. }) => (Kind::Array, count(layouts, ty)),
        _ => (Kind::Void, None),
    };
    let signed = matches!(
        elements(layouts, ty),
        Some((
            _,
            Shape::Int { signed: true, .. } | Shape::Enum { signed: true, .. }
        ))
    );
    let size = size(layouts, ty).unwrap_or(0);
    // BTF before Linux 5.0 tells of a bit-field in the type of its number.
    let (bit_offset, bit_size) = match (shape, place.bit_size) {
        (
            Some(Shape::Int {
                bits: Some((first, width)),
                ..
            }),
            None,
        ) => (place.bit_offset.saturating_add(first), Some(width)),
        (_, bit_size) => (place.bit_offset, bit_size),
    };
    let (offset, size, bits) = match bit_size {
        None => (bit_offset / 8, size, None),
        Some(width) => storage(bit_offset, width, size, place.limit),
    };
    Member {
        offset,
        size,
        bits,
        type_name: spell::name(layouts, ty),
        kind,
        count,
        signed,
    }
}

/// The bytes to read for a bit-field: the unit of its declared type that holds it, as a compiler
/// would load it; where it crosses units (a packed struct) or the unit reaches beyond the struct,
/// just the bytes that hold it.
fn storage(bit_offset: u64, width: u64, unit: u64, limit: Option<u64>) -> (u64, u64, Option<Bits>) {
    let within = |start: u64, size: u64| {
        let first = bit_offset - start * 8;
        let bits = Bits {
            offset: first,
            size: width,
        };
        (start, size, Some(bits))
    };
    let byte = bit_offset / 8;
    if let Some(index) = byte.checked_div(unit) {
        let start = index * unit;
        let end = start.saturating_add(unit);
        let holds = bit_offset.saturating_add(width) <= end.saturating_mul(8);
        if holds && limit.is_none_or(|limit| end <= limit) {
            return within(start, unit);
        }
    }
    let size = (bit_offset % 8).saturating_add(width).div_ceil(8);
    within(byte, size)
}

/// The number of an array's elements, all dimensions multiplied.
fn count(layouts: &dyn Layouts, mut id: TypeId) -> Option<u64> {
    let mut total = 1_u64;
    for _ in 0..DEPTH {
        match bare(layouts, id)?.1 {
            Shape::Array { element, count } => {
                total = total.checked_mul(count)?;
                id = element;
            }
            _ => return Some(total),
        }
    }
    None
}

/// All members of a struct or union.
pub(super) fn members(layouts: &dyn Layouts, name: &str) -> Result<Vec<(String, Member)>> {
    let id = find(layouts, name).ok_or_else(|| no_type(name))?;
    let Some((id, Shape::Composite { size, .. })) = bare(layouts, id) else {
        return Err(Error::Absent(format!("type {name} is no struct or union")));
    };
    let mut members = Vec::new();
    let _ = flatten(layouts, id, &mut |field| {
        let place = Place {
            bit_offset: field.bit_offset,
            bit_size: field.bit_size,
            limit: Some(size),
        };
        members.push((field.name.to_owned(), describe(layouts, field.ty, place)));
        ControlFlow::Continue(())
    });
    Ok(members)
}

/// The enumerators of an enum.
pub(super) fn enumerators(layouts: &dyn Layouts, name: &str) -> Result<Vec<(String, i128)>> {
    let id = find(layouts, name)
        .filter(|&id| !matches!(layouts.shape(id), Shape::Composite { .. }))
        .or_else(|| layouts.find(Tag::Enum, name))
        .ok_or_else(|| no_type(name))?;
    let Some((id, Shape::Enum { .. })) = bare(layouts, id) else {
        return Err(Error::Absent(format!("type {name} is no enum")));
    };
    let mut all = Vec::new();
    layouts.enumerators(id, &mut |name, value| all.push((name.to_owned(), value)));
    Ok(all)
}
