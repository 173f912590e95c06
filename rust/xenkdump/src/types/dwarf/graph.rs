//! Types of DWARF one by one.

use std::ops::ControlFlow;

use gimli::constants as dw;

use super::super::kinds::{Encoding, Kind};
use super::super::shape::{self, Graph, Layouts, Listed, Name, Node, Parameter, Shape, TypeId};
use super::{index, Dwarf, Unit};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::{MAX_TYPE_LIST_STEPS, MAX_TYPE_STEPS};

fn encoding(encoding: Option<dw::DwAte>, float: bool) -> Encoding {
    match encoding {
        Some(dw::DW_ATE_boolean) => Encoding::Boolean,
        Some(dw::DW_ATE_signed_char | dw::DW_ATE_unsigned_char | dw::DW_ATE_UTF) => {
            Encoding::Character
        }
        Some(dw::DW_ATE_complex_float) => Encoding::Complex,
        _ if float => Encoding::Float,
        _ => Encoding::Integer,
    }
}

impl Dwarf {
    /// The base types of the first units, as far as the budget goes: a name once.
    fn bases(&self) -> &[TypeId] {
        self.bases.get_or_init(|| {
            let budget = shape::budget(MAX_TYPE_LIST_STEPS);
            let mut found: Vec<(TypeId, Name<'_>)> = Vec::new();
            for &start in &self.index().units {
                let unit = Unit::new(&self.sections, &self.abbreviations, start);
                let Some(unit) = unit.filter(|_| !budget.is_exhausted()) else {
                    continue;
                };
                let Some(root) = unit.root() else { continue };
                let _ = unit.children(root, &budget, &mut |child| {
                    let name = child.name();
                    let is_new = || found.iter().all(|(_, known)| !known.is(name.text()));
                    if child.tag() == dw::DW_TAG_base_type && !name.is_empty() && is_new() {
                        if let Some(at) = child.offset() {
                            alloc::push(&mut found, (TypeId(at.into()), name));
                        }
                    }
                    ControlFlow::Continue(())
                });
            }
            alloc::collect(found.into_iter().map(|(id, _)| id))
        })
    }
}

impl Graph for Dwarf {
    fn node(&self, id: TypeId, budget: &Budget<'_>) -> Option<Node<'_>> {
        let (tag, ate, referred) = self.with(id, budget, |entry| {
            Some((entry.tag(), entry.encoding(), entry.target()))
        })?;
        let mut node = Node {
            kind: Kind::Unknown,
            name: Name::default(),
            size: None,
            signed: false,
            encoding: None,
            target: None,
            count: None,
            union: false,
        };
        match self.shape(id, budget) {
            Shape::Int {
                name, size, signed, ..
            } => {
                (node.kind, node.name, node.size) = (Kind::Int, name, Some(size));
                (node.signed, node.encoding) = (signed, Some(encoding(ate, false)));
            }
            Shape::Float { name, size } => {
                (node.kind, node.name, node.size) = (Kind::Float, name, Some(size));
                (node.signed, node.encoding) = (true, Some(encoding(ate, true)));
            }
            Shape::Pointer { target, size } => {
                (node.kind, node.target, node.size) = (Kind::Pointer, target, Some(size));
            }
            Shape::Array { element, count } => {
                (node.kind, node.target, node.count) = (Kind::Array, Some(element), Some(count));
            }
            Shape::Composite { name, union, size } => {
                let kind = if union { Kind::Union } else { Kind::Struct };
                (node.kind, node.name, node.size) = (kind, name, Some(size));
            }
            Shape::Enum { name, size, signed } => {
                (node.kind, node.name, node.size) = (Kind::Enum, name, Some(size));
                node.signed = signed;
            }
            Shape::Declared { name, union } => {
                (node.kind, node.name, node.union) = (Kind::Forward, name, union);
            }
            Shape::Typedef { name, target } => {
                (node.kind, node.name, node.target) = (Kind::Typedef, name, target);
            }
            Shape::Qualified { target, .. } => {
                node.kind = match tag {
                    dw::DW_TAG_const_type => Kind::Const,
                    dw::DW_TAG_volatile_type => Kind::Volatile,
                    dw::DW_TAG_atomic_type => Kind::Atomic,
                    _ => Kind::Restrict,
                };
                node.target = target;
            }
            Shape::Function => (node.kind, node.target) = (Kind::Prototype, referred),
            Shape::Void { .. } => {
                let (unit, offset) = self.unit(id)?;
                let entry = unit.entry(offset, budget)?;
                node.name = entry.name();
            }
        }
        Some(node)
    }

    fn parameters<'a>(
        &'a self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(Parameter<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some((unit, offset)) = self.unit(id) else {
            return ControlFlow::Continue(());
        };
        unit.children(offset, budget, &mut |child| match child.tag() {
            dw::DW_TAG_formal_parameter => visit(Parameter::Named(child.name(), child.target())),
            dw::DW_TAG_unspecified_parameters => visit(Parameter::Variadic),
            _ => ControlFlow::Continue(()),
        })
    }

    fn variables(
        &self,
        _id: TypeId,
        _budget: &Budget<'_>,
        _visit: &mut dyn FnMut(TypeId, u64, u64) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn find_base(&self, is_it: &dyn Fn(Name<'_>) -> bool) -> Option<TypeId> {
        let budget = shape::budget(MAX_TYPE_STEPS);
        let named = |id: &&TypeId| {
            let found = self.with(**id, &budget, |entry| Some(is_it(entry.name())));
            found == Some(true)
        };
        self.bases().iter().find(named).copied()
    }

    fn listed(&self) -> Listed {
        let names = &self.index().names;
        let mut offsets = alloc::collect(names.iter().map(|(_, offset)| *offset));
        offsets.sort_unstable();
        offsets.dedup();
        // The index has enumerators too, maybe of a second enum of one name.
        let is_named = |offset: &u32| {
            let budget = shape::budget(MAX_TYPE_STEPS);
            let found = self.with(TypeId(u64::from(*offset)), &budget, |entry| {
                let key = index::Key::Type(index::tag(entry.tag())?);
                self.index().find(key, entry.name().text())
            });
            found == Some(*offset)
        };
        let named = offsets.into_iter().filter(is_named);
        Listed::These(alloc::collect(named.map(|at| TypeId(at.into()))))
    }
}
