//! Types as a graph: each type with its parts and the types that it refers to.
//!
//! Types may form cycles, in sound files too: a struct has a pointer to itself. What follows them must
//! limit its depth, or visit each type once, as [`Types::reachable`] does. All questions about one
//! type have a budget.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::question::Question;
use super::shape::{self, charge, Layouts, Listed, Parameter as Part, Shape};
use super::{query, spell, Types};
use crate::alloc;
use crate::limits::{MAX_GRAPH_TYPES, MAX_TYPE_DEPTH, MAX_TYPE_LIST_STEPS, MAX_TYPE_STEPS};
use crate::{Error, Result};

pub use super::kinds::{Encoding, Kind};
pub use super::shape::TypeId;

/// A type without its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// Its number in its source.
    pub id: TypeId,
    /// Its kind.
    pub kind: Kind,
    /// Its name; empty if it has none.
    pub name: String,
    /// The size in bytes. `None` for types without a size, and for those whose size is another type's
    /// (typedefs, arrays): see [`Types::size_of_type`].
    pub size: Option<u64>,
    /// Whether it is a signed number, or an enum with signed values.
    pub signed: bool,
    /// What the bits of a number mean.
    pub encoding: Option<Encoding>,
    /// The type that it refers to: that of a pointer's target, of an array's elements, the return type
    /// of a prototype, the prototype of a function. `None` for `void`, and if its kind has none.
    pub target: Option<TypeId>,
    /// The number of elements of an array; 0 if its extent is not known.
    pub count: Option<u64>,
    /// The keyword of a struct, a union, an enum, or of what is declared.
    pub keyword: Option<&'static str>,
}

/// A member of a struct or union, which may be anonymous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Empty for an anonymous struct or union.
    pub name: String,
    /// Its type.
    pub ty: TypeId,
    /// Bits from the start of the struct.
    pub bit_offset: u64,
    /// The width of a bit-field.
    pub bit_size: Option<u64>,
}

/// The parameters of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The name, which may be empty, and the type of each.
    pub named: Vec<(String, Option<TypeId>)>,
    /// Whether `...` follows.
    pub variadic: bool,
}

/// A variable of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The variable.
    pub variable: TypeId,
    /// Its offset from the start of the section, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// The types of a source in order. See [`Types::listed`].
#[derive(Clone, Debug)]
pub struct Ids {
    next: u64,
    last: u64,
    these: Vec<TypeId>,
}

impl Ids {
    /// These types, in this order.
    pub fn of(these: Vec<TypeId>) -> Self {
        Self {
            next: 1,
            last: these.len() as u64,
            these,
        }
    }
}

impl Iterator for Ids {
    type Item = TypeId;

    fn next(&mut self) -> Option<TypeId> {
        if self.next > self.last {
            return None;
        }
        let at = self.next;
        self.next += 1;
        match usize::try_from(at - 1) {
            Ok(index) if !self.these.is_empty() => self.these.get(index).copied(),
            _ => Some(TypeId(at)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.last + 1).saturating_sub(self.next) as usize;
        (left, Some(left))
    }
}

/// An integer type of C by the words of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Integer {
    longs: u8,
    short: bool,
    unsigned: bool,
    /// `char` with `signed` is not `char`.
    char: Option<bool>,
}

impl Integer {
    fn named(name: &str) -> Option<Self> {
        let (mut found, mut char, mut signed) = (Self::default(), false, false);
        for word in name.split(' ') {
            match word {
                "long" => found.longs = found.longs.saturating_add(1),
                "short" => found.short = true,
                "unsigned" => found.unsigned = true,
                "signed" => signed = true,
                "char" => char = true,
                "int" => {}
                _ => return None,
            }
        }
        found.char = char.then_some(signed);
        Some(found)
    }
}

/// The steps charged for each part of a type, in addition to the bytes of its name.
const STEPS_PER_PART: usize = 16;

impl Types {
    fn no_number(id: TypeId) -> Error {
        Error::Absent(format!("no type number {}", id.0))
    }

    /// Runs a question about a type within a budget.
    fn ask<T>(&self, id: TypeId, steps: usize, ask: impl FnOnce(Question<'_>) -> T) -> Result<T> {
        let budget = shape::budget(steps);
        let layouts: &dyn Layouts = &*self.layouts;
        let answer = ask(Question {
            layouts,
            budget: &budget,
        });
        if budget.is_exhausted() {
            let what = format!("type number {}: more parts than the limit", id.0);
            return Err(Error::Absent(what));
        }
        Ok(answer)
    }

    /// The types of the source: all of BTF with its base, by number; of DWARF each named struct, union,
    /// enum and typedef once, in the order of the file. Others are reached from these.
    pub fn listed(&self) -> Ids {
        match self.layouts.listed() {
            Listed::UpTo(last) => Ids {
                next: 1,
                last,
                these: Vec::new(),
            },
            Listed::These(these) => Ids::of(these),
        }
    }

    /// The number of the type with this name: of a struct, a union, an enum, a typedef, which may have
    /// its keyword before it, or of a base type, in any of the spellings that C allows: `unsigned long`
    /// is `long unsigned int`.
    pub fn number_of(&self, name: &str) -> Result<TypeId> {
        let layouts = &*self.layouts;
        query::find(layouts, name)
            .or_else(|| layouts.find_base(&|other| other.is(name)))
            .or_else(|| {
                let integer = Integer::named(name)?;
                layouts.find_base(&|other| Integer::named(other.text()) == Some(integer))
            })
            .ok_or_else(|| super::no_type(name))
    }

    /// The type of a global variable.
    pub fn number_of_variable(&self, name: &str) -> Result<TypeId> {
        let found = self.layouts.variable(name);
        found.ok_or_else(|| Error::Absent(format!("no variable {name}")))
    }

    /// The type with this number.
    pub fn describe(&self, id: TypeId) -> Result<Type> {
        let node = self.ask(id, MAX_TYPE_STEPS, |question| {
            self.layouts.node(id, question.budget)
        })?;
        let node = node.ok_or_else(|| Self::no_number(id))?;
        let keyword = match node.kind {
            Kind::Struct => Some("struct"),
            Kind::Union => Some("union"),
            Kind::Enum | Kind::Enum64 => Some("enum"),
            Kind::Forward if node.union => Some("union"),
            Kind::Forward => Some("struct"),
            _ => None,
        };
        Ok(Type {
            id,
            kind: node.kind,
            name: node.name.text().to_owned(),
            size: node.size,
            signed: node.signed,
            encoding: node.encoding,
            target: node.target,
            count: node.count,
            keyword,
        })
    }

    /// The members of a struct or union, in the order of their declaration. Anonymous structs and unions
    /// are members themselves.
    pub fn members_of(&self, id: TypeId) -> Result<Vec<Member>> {
        self.ask(id, MAX_TYPE_LIST_STEPS, |question| {
            let Question { layouts, budget } = question;
            let mut members = Vec::new();
            let _ = layouts.fields(id, budget, &mut |field| {
                let name = field.name.text();
                charge(budget, STEPS_PER_PART + name.len())?;
                // BTF before Linux 5.0 describes a bit-field in its integer type.
                let (bit_offset, bit_size) = match (field.bit_size, question.shape(field.ty)) {
                    (
                        None,
                        Shape::Int {
                            bits: Some((first, width)),
                            ..
                        },
                    ) => (field.bit_offset.saturating_add(first), Some(width)),
                    (bit_size, _) => (field.bit_offset, bit_size),
                };
                let member = Member {
                    name: name.to_owned(),
                    ty: field.ty,
                    bit_offset,
                    bit_size,
                };
                alloc::push(&mut members, member);
                ControlFlow::Continue(())
            });
            members
        })
    }

    /// The enumerators of an enum.
    pub fn enumerators_of(&self, id: TypeId) -> Result<Vec<(String, i128)>> {
        self.ask(id, MAX_TYPE_LIST_STEPS, |Question { layouts, budget }| {
            let mut all = Vec::new();
            let _ = layouts.enumerators(id, budget, &mut |name, value| {
                let name = name.text();
                charge(budget, STEPS_PER_PART + name.len())?;
                alloc::push(&mut all, (name.to_owned(), value));
                ControlFlow::Continue(())
            });
            all
        })
    }

    /// The parameters of a prototype.
    pub fn parameters_of(&self, id: TypeId) -> Result<Parameters> {
        self.ask(id, MAX_TYPE_LIST_STEPS, |Question { budget, .. }| {
            let mut found = Parameters::default();
            let _ = self.layouts.parameters(id, budget, &mut |part| {
                match part {
                    Part::Variadic => found.variadic = true,
                    Part::Named(name, ty) => {
                        let name = name.text();
                        charge(budget, STEPS_PER_PART + name.len())?;
                        alloc::push(&mut found.named, (name.to_owned(), ty));
                    }
                }
                ControlFlow::Continue(())
            });
            found
        })
    }

    /// The variables of a section.
    pub fn variables_of(&self, id: TypeId) -> Result<Vec<Place>> {
        self.ask(id, MAX_TYPE_LIST_STEPS, |Question { budget, .. }| {
            let mut found = Vec::new();
            let mut visit = |variable, offset, size| {
                charge(budget, STEPS_PER_PART)?;
                let place = Place {
                    variable,
                    offset,
                    size,
                };
                alloc::push(&mut found, place);
                ControlFlow::Continue(())
            };
            let _ = self.layouts.variables(id, budget, &mut visit);
            found
        })
    }

    /// The size of a type in bytes, also of a typedef or an array. `None` if it has none.
    pub fn size_of_type(&self, id: TypeId) -> Result<Option<u64>> {
        self.ask(id, MAX_TYPE_STEPS, |question| query::size(question, id))
    }

    /// The name of a type as C writes it: `const char *`.
    pub fn spelling(&self, id: TypeId) -> Result<String> {
        self.ask(id, MAX_TYPE_STEPS, |question| spell::name(question, id))
    }

    /// The type without typedefs and qualifiers; `None` is `void`. Fails if they are a chain without an
    /// end.
    pub fn stripped(&self, id: TypeId) -> Result<Option<TypeId>> {
        let mut at = id;
        for _ in 0..MAX_TYPE_DEPTH {
            let ty = self.describe(at)?;
            if ty.kind != Kind::Typedef && !ty.kind.is_qualifier() {
                return Ok(Some(at));
            }
            match ty.target {
                Some(target) => at = target,
                None => return Ok(None),
            }
        }
        let what = format!("type number {}: typedefs without an end", id.0);
        Err(Error::Absent(what))
    }

    /// These types and all that can be reached from them, each once, nearest first. Fails if there are
    /// more than `MAX_GRAPH_TYPES`.
    pub fn reachable(&self, from: &[TypeId]) -> Result<Vec<TypeId>> {
        let mut found = Vec::new();
        let mut known = HashSet::new();
        let mut add = |found: &mut Vec<TypeId>, id: TypeId| {
            if known.insert(id) {
                alloc::push(found, id);
            }
        };
        for &id in from {
            add(&mut found, id);
        }
        let mut next = 0;
        while let Some(&id) = found.get(next) {
            next += 1;
            if found.len() > MAX_GRAPH_TYPES {
                let what = format!("more than {MAX_GRAPH_TYPES} types");
                return Err(Error::Absent(what));
            }
            let ty = self.describe(id)?;
            ty.target.into_iter().for_each(|id| add(&mut found, id));
            match ty.kind {
                Kind::Struct | Kind::Union => {
                    for member in self.members_of(id)? {
                        add(&mut found, member.ty);
                    }
                }
                Kind::Prototype => {
                    let parameters = self.parameters_of(id)?.named;
                    for (_, id) in parameters {
                        id.into_iter().for_each(|id| add(&mut found, id));
                    }
                }
                Kind::Section => {
                    for place in self.variables_of(id)? {
                        add(&mut found, place.variable);
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }
}
