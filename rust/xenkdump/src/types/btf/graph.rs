//! Types of BTF one by one.

use std::ops::ControlFlow;

use super::super::kinds::{Encoding, Kind};
use super::super::shape::{charge, Graph, Layouts, Listed, Name, Node, Parameter, Shape, TypeId};
use super::format::Base;
use super::kinds::*;
use super::Btf;
use crate::alloc;
use crate::budget::Budget;

fn kind(kind: u32) -> Kind {
    match kind {
        INT => Kind::Int,
        PTR => Kind::Pointer,
        ARRAY => Kind::Array,
        STRUCT => Kind::Struct,
        UNION => Kind::Union,
        ENUM => Kind::Enum,
        FWD => Kind::Forward,
        TYPEDEF => Kind::Typedef,
        VOLATILE => Kind::Volatile,
        CONST => Kind::Const,
        RESTRICT => Kind::Restrict,
        FUNC => Kind::Function,
        FUNC_PROTO => Kind::Prototype,
        VAR => Kind::Variable,
        DATASEC => Kind::Section,
        FLOAT => Kind::Float,
        DECL_TAG => Kind::DeclTag,
        TYPE_TAG => Kind::TypeTag,
        ENUM64 => Kind::Enum64,
        _ => Kind::Unknown,
    }
}

/// `BTF_INT_CHAR` and `BTF_INT_BOOL`.
fn encoding(ty: &Type<'_>) -> Option<Encoding> {
    let bits = || u32_at(ty.tail, 0).unwrap_or(0) >> 24;
    match ty.kind {
        INT if bits() & 4 != 0 => Some(Encoding::Boolean),
        INT if bits() & 2 != 0 => Some(Encoding::Character),
        INT => Some(Encoding::Integer),
        FLOAT => Some(Encoding::Float),
        _ => None,
    }
}

impl Btf {
    /// The IDs of its own integers and floating-point numbers. There are about 20.
    pub(super) fn bases(&self) -> &[TypeId] {
        self.bases.get_or_init(|| {
            let is_base = |id: &TypeId| {
                self.get(*id)
                    .is_some_and(|ty| matches!(ty.kind, INT | FLOAT) && ty.name != 0)
            };
            alloc::collect(self.own().filter(is_base))
        })
    }
}

impl Graph for Btf {
    fn node(&self, id: TypeId, budget: &Budget<'_>) -> Option<Node<'_>> {
        charge(budget, 1).is_continue().then_some(())?;
        if id.0 == 0 {
            return Some(Node {
                kind: Kind::Void,
                name: Name::VOID,
                size: None,
                signed: false,
                encoding: None,
                target: None,
                count: None,
                union: false,
            });
        }
        let ty = self.get(id)?;
        let (size, signed, count) = match self.shape(id, budget) {
            Shape::Int { size, signed, .. } | Shape::Enum { size, signed, .. } => {
                (Some(size), signed, None)
            }
            Shape::Float { size, .. } => (Some(size), true, None),
            Shape::Pointer { size, .. } | Shape::Composite { size, .. } => {
                (Some(size), false, None)
            }
            Shape::Array { count, .. } => (None, false, Some(count)),
            _ if ty.kind == DATASEC => (Some(u64::from(ty.value)), false, None),
            _ => (None, false, None),
        };
        let target = match ty.kind {
            ARRAY => u32_at(ty.tail, 0),
            PTR | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FUNC_PROTO | VAR | DECL_TAG
            | TYPE_TAG => Some(ty.value),
            _ => None,
        };
        Some(Node {
            kind: kind(ty.kind),
            name: self.name(ty.name),
            size,
            signed,
            encoding: encoding(&ty),
            target: target.filter(|id| *id != 0).map(|id| TypeId(id.into())),
            count,
            union: ty.kind == FWD && ty.flag,
        })
    }

    fn parameters<'a>(
        &'a self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(Parameter<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(ty) = self.get(id).filter(|ty| ty.kind == FUNC_PROTO) else {
            return ControlFlow::Continue(());
        };
        for parameter in ty.tail.chunks_exact(8) {
            charge(budget, 1)?;
            let word = |at| u32_at(parameter, at).unwrap_or(0);
            visit(match (word(0), word(4)) {
                (0, 0) => Parameter::Variadic,
                (name, 0) => Parameter::Named(self.name(name), None),
                (name, ty) => Parameter::Named(self.name(name), Some(TypeId(ty.into()))),
            })?;
        }
        ControlFlow::Continue(())
    }

    fn variables(
        &self,
        id: TypeId,
        budget: &Budget<'_>,
        visit: &mut dyn FnMut(TypeId, u64, u64) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(ty) = self.get(id).filter(|ty| ty.kind == DATASEC) else {
            return ControlFlow::Continue(());
        };
        for place in ty.tail.chunks_exact(12) {
            charge(budget, 1)?;
            let word = |at| u64::from(u32_at(place, at).unwrap_or(0));
            visit(TypeId(word(0)), word(4), word(8))?;
        }
        ControlFlow::Continue(())
    }

    fn find_base(&self, is_it: &dyn Fn(Name<'_>) -> bool) -> Option<TypeId> {
        let named = |id: &&TypeId| self.get(**id).is_some_and(|ty| is_it(self.name(ty.name)));
        let own = self.bases().iter().find(named).copied();
        own.or_else(|| self.base.as_ref()?.find_base(is_it))
    }

    fn listed(&self) -> Listed {
        Listed::UpTo((self.inherited() + self.len()) as u64)
    }
}
