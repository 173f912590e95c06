//! Paths, flattening and sizes, the same for every source of types.

use std::ops::ControlFlow;

use super::question::Question;
use super::shape::{self, charge, Field, Layouts, Shape, Tag, TypeId};
use super::{no_type, spell, Bits, Kind, Member};
use crate::alloc;
use crate::limits::{MAX_TYPE_DEPTH, MAX_TYPE_LIST_STEPS, MAX_TYPE_STEPS};
use crate::{Error, Result};

/// The steps charged for each member or enumerator in a list of all, in addition to the bytes of its
/// names.
const STEPS_PER_RESULT: usize = 64;

/// Runs a query about `what` within `steps` steps.
fn run<T>(
    layouts: &dyn Layouts,
    what: &str,
    steps: usize,
    answer: impl FnOnce(Question<'_>) -> Result<T>,
) -> Result<T> {
    let budget = shape::budget(steps);
    let answer = answer(Question {
        layouts,
        budget: &budget,
    });
    if budget.is_exhausted() {
        let what = format!("{what}: more types and members than the limit");
        return Err(Error::Absent(what));
    }
    answer
}

/// The type with this name, which may be preceded by `struct`, `union` or `enum`.
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

/// The size in bytes of the type with this name.
pub(super) fn size_of(layouts: &dyn Layouts, name: &str) -> Result<u64> {
    let id = find(layouts, name).ok_or_else(|| no_type(name))?;
    run(layouts, name, MAX_TYPE_STEPS, |question| {
        size(question, id).ok_or_else(|| Error::Absent(format!("type {name} has no size")))
    })
}

/// The type of a global variable, in C syntax.
pub(super) fn variable(layouts: &dyn Layouts, name: &str) -> Result<String> {
    let id = layouts.variable(name);
    let id = id.ok_or_else(|| Error::Absent(format!("no variable {name}")))?;
    run(layouts, name, MAX_TYPE_STEPS, |question| {
        Ok(spell::name(question, id))
    })
}

/// The size in bytes of a type; `None` if it has none.
pub(super) fn size(question: Question<'_>, id: TypeId) -> Option<u64> {
    resolve(question, id)?.size()
}

/// A type with typedefs and qualifiers removed, and its element type with dimensions removed too.
struct Resolved<'a> {
    shape: Shape<'a>,
    /// `None` if the chain of types is too long.
    element: Option<(TypeId, Shape<'a>)>,
    /// The number of elements in all dimensions together; 1 if it is not an array.
    count: Option<u64>,
}

impl Resolved<'_> {
    fn size(&self) -> Option<u64> {
        let size = match self.element?.1 {
            Shape::Int { size, .. }
            | Shape::Float { size, .. }
            | Shape::Pointer { size, .. }
            | Shape::Composite { size, .. }
            | Shape::Enum { size, .. } => size,
            Shape::Void { .. }
            | Shape::Declared { .. }
            | Shape::Function
            | Shape::Array { .. }
            | Shape::Typedef { .. }
            | Shape::Qualified { .. } => return None,
        };
        size.checked_mul(self.count?)
    }
}

fn resolve(question: Question<'_>, mut id: TypeId) -> Option<Resolved<'_>> {
    let (mut array, mut count) = (None, Some(1_u64));
    for _ in 0..MAX_TYPE_DEPTH {
        let shape = match question.shape(id) {
            Shape::Typedef { target, .. } | Shape::Qualified { target, .. } => match target {
                Some(target) => {
                    id = target;
                    continue;
                }
                None => Shape::VOID,
            },
            shape @ Shape::Array {
                element,
                count: more,
            } => {
                array = array.or(Some(shape));
                count = count.and_then(|count| count.checked_mul(more));
                id = element;
                continue;
            }
            shape => shape,
        };
        return Some(Resolved {
            shape: array.unwrap_or(shape),
            element: Some((id, shape)),
            count,
        });
    }
    array.map(|shape| Resolved {
        shape,
        element: None,
        count: None,
    })
}

/// Removes typedefs and qualifiers from a type.
fn bare(question: Question<'_>, mut id: TypeId) -> Option<(TypeId, Shape<'_>)> {
    for _ in 0..MAX_TYPE_DEPTH {
        match question.shape(id) {
            Shape::Typedef { target, .. } | Shape::Qualified { target, .. } => match target {
                Some(target) => id = target,
                None => return Some((id, Shape::VOID)),
            },
            shape => return Some((id, shape)),
        }
    }
    None
}

/// The member at the end of a path.
pub(super) fn member(layouts: &dyn Layouts, path: &str) -> Result<Member> {
    let (root, steps) = path
        .split_once('.')
        .map_or((path, None), |(a, b)| (a, Some(b)));
    let id = find(layouts, root).ok_or_else(|| no_type(root))?;
    let steps = steps.into_iter().flat_map(|steps| steps.split('.'));
    run(layouts, path, MAX_TYPE_STEPS, |question| {
        descend(question, path, id, steps)
    })
}

fn descend<'a>(
    question: Question<'_>,
    path: &str,
    mut ty: TypeId,
    steps: impl Iterator<Item = &'a str>,
) -> Result<Member> {
    let mut place = Place::default();
    for step in steps {
        let absent = |why: &str| Error::Absent(format!("no member {path}: {step}: {why}"));
        let (name, indices) = subscripts(step).ok_or_else(|| absent("not a member's name"))?;
        let owner = resolve(question, ty).and_then(|resolved| resolved.element);
        let (owner, shape) = owner.ok_or_else(|| absent("its owner's type is invalid"))?;
        match shape {
            Shape::Composite { size, .. } => place.limit = place.offset().checked_add(size),
            Shape::Pointer { .. } => return Err(absent("its owner is a pointer")),
            _ => return Err(absent("its owner is not a struct or union")),
        }
        let field = field(question, owner, name).ok_or_else(|| absent("there is none"))?;
        place = place
            .step(&field)
            .ok_or_else(|| absent("its offset overflows"))?;
        ty = field.ty;
        for index in indices {
            let (element, at) =
                element(question, ty, index).ok_or_else(|| absent("no such element"))?;
            ty = element;
            place.bit_offset = at
                .checked_mul(8)
                .and_then(|bits| place.bit_offset.checked_add(bits))
                .ok_or_else(|| absent("its offset overflows"))?;
        }
    }
    Ok(describe(question, ty, place))
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
fn element(question: Question<'_>, id: TypeId, index: u64) -> Option<(TypeId, u64)> {
    let Shape::Array { element, count } = bare(question, id)?.1 else {
        return None;
    };
    // A flexible array member: its length is not part of its type.
    if index >= count && count > 0 {
        return None;
    }
    Some((element, size(question, element)?.checked_mul(index)?))
}

/// The member with this name, also in anonymous members; its offset is relative to `owner`.
fn field<'a>(question: Question<'a>, owner: TypeId, name: &str) -> Option<Field<'a>> {
    let mut found = None;
    let _ = flatten(question, owner, &mut |field| {
        if field.name.is(name) {
            found = Some(field);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    found
}

/// Calls `visit` with all named members of a struct or union. Anonymous members are replaced by their
/// members.
fn flatten<'a>(
    question: Question<'a>,
    owner: TypeId,
    visit: &mut dyn FnMut(Field<'a>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    flatten_at(question, owner, 0, MAX_TYPE_DEPTH, visit)
}

fn flatten_at<'a>(
    question: Question<'a>,
    owner: TypeId,
    base: u64,
    depth: usize,
    visit: &mut dyn FnMut(Field<'a>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let Question { layouts, budget } = question;
    layouts.fields(owner, budget, &mut |field| {
        let Some(bit_offset) = base.checked_add(field.bit_offset) else {
            return ControlFlow::Continue(());
        };
        if !field.name.is_empty() {
            return visit(Field {
                bit_offset,
                ..field
            });
        }
        match bare(question, field.ty) {
            Some((inner, Shape::Composite { .. })) if depth > 0 => {
                flatten_at(question, inner, bit_offset, depth - 1, visit)
            }
            // An anonymous bit-field is padding.
            _ => ControlFlow::Continue(()),
        }
    })
}

/// A position within the outermost struct.
#[derive(Clone, Copy, Default)]
struct Place {
    bit_offset: u64,
    bit_size: Option<u64>,
    /// The end of the innermost struct, in bytes.
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

fn describe(question: Question<'_>, ty: TypeId, place: Place) -> Member {
    let resolved = resolve(question, ty);
    let shape = resolved.as_ref().map(|resolved| resolved.shape);
    let (kind, count) = match shape {
        Some(Shape::Int { .. }) => (Kind::Int, None),
        Some(Shape::Float { .. }) => (Kind::Float, None),
        Some(Shape::Pointer { .. }) => (Kind::Pointer, None),
        Some(Shape::Composite { union: false, .. }) => (Kind::Struct, None),
        Some(Shape::Composite { union: true, .. }) => (Kind::Union, None),
        Some(Shape::Enum { .. }) => (Kind::Enum, None),
        Some(Shape::Function) => (Kind::Function, None),
        Some(Shape::Array { .. }) => (Kind::Array, resolved.as_ref().and_then(|all| all.count)),
        _ => (Kind::Void, None),
    };
    let signed = matches!(
        resolved.as_ref().and_then(|all| all.element),
        Some((
            _,
            Shape::Int { signed: true, .. } | Shape::Enum { signed: true, .. }
        ))
    );
    let size = resolved.as_ref().and_then(Resolved::size).unwrap_or(0);
    // BTF before Linux 5.0 describes a bit-field in its integer type.
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
        type_name: spell::name(question, ty),
        kind,
        count,
        signed,
    }
}

/// The bytes to read for a bit-field: the unit of its declared type that contains it, as a compiler
/// would load it. If it crosses units (a packed struct) or the unit exceeds the struct, only the bytes
/// that contain it.
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

/// All members of a struct or union.
pub(super) fn members(layouts: &dyn Layouts, name: &str) -> Result<Vec<(String, Member)>> {
    let id = find(layouts, name).ok_or_else(|| no_type(name))?;
    run(layouts, name, MAX_TYPE_LIST_STEPS, |question| {
        let Some((id, Shape::Composite { size, .. })) = bare(question, id) else {
            return Err(Error::Absent(format!(
                "type {name} is not a struct or union"
            )));
        };
        let mut members = Vec::new();
        let _ = flatten(question, id, &mut |field| {
            let place = Place {
                bit_offset: field.bit_offset,
                bit_size: field.bit_size,
                limit: Some(size),
            };
            let name = field.name.text();
            let member = describe(question, field.ty, place);
            let bytes = name.len() + member.type_name.len();
            charge(question.budget, STEPS_PER_RESULT + bytes)?;
            alloc::push(&mut members, (name.to_owned(), member));
            ControlFlow::Continue(())
        });
        Ok(members)
    })
}

/// The enumerators of an enum.
pub(super) fn enumerators(layouts: &dyn Layouts, name: &str) -> Result<Vec<(String, i128)>> {
    run(layouts, name, MAX_TYPE_LIST_STEPS, |question| {
        let id = find(layouts, name)
            .filter(|&id| !matches!(question.shape(id), Shape::Composite { .. }))
            .or_else(|| layouts.find(Tag::Enum, name))
            .ok_or_else(|| no_type(name))?;
        let Some((id, Shape::Enum { .. })) = bare(question, id) else {
            return Err(Error::Absent(format!("type {name} is not an enum")));
        };
        let mut all = Vec::new();
        let _ = layouts.enumerators(id, question.budget, &mut |name, value| {
            let name = name.text();
            charge(question.budget, STEPS_PER_RESULT + name.len())?;
            alloc::push(&mut all, (name.to_owned(), value));
            ControlFlow::Continue(())
        });
        Ok(all)
    })
}
