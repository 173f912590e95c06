//! The names of types in C syntax.

use super::question::Question;
use super::shape::{Shape, TypeId};
use crate::limits::MAX_TYPE_DEPTH;

/// A type's name in C syntax.
pub(super) fn name(question: Question<'_>, mut id: TypeId) -> String {
    let mut front = String::new();
    // The part after the name: `*` and dimensions.
    let mut back = String::new();
    for _ in 0..MAX_TYPE_DEPTH {
        let (tag, name) = match question.shape(id) {
            Shape::Pointer { target, .. } => {
                match target.map(|target| question.shape(target)) {
                    Some(Shape::Array { .. }) => back.insert_str(0, " (*)"),
                    Some(Shape::Function) => back.insert_str(0, "(*)()"),
                    _ if back.starts_with(" *") => back.insert(1, '*'),
                    _ => back.insert_str(0, " *"),
                }
                match target {
                    Some(target) => id = target,
                    None => return format!("{front}void{back}"),
                }
                continue;
            }
            Shape::Array { element, count } => {
                // The outermost dimension comes first, here and in C.
                back.push_str(&format!("[{count}]"));
                id = element;
                continue;
            }
            Shape::Qualified { word, target } => {
                // In front of the name, whether it qualifies the pointer or its target.
                if !word.is_empty() {
                    front.push_str(word);
                    front.push(' ');
                }
                match target {
                    Some(target) => id = target,
                    None => return format!("{front}void{back}"),
                }
                continue;
            }
            Shape::Function => return format!("{front}func {back}").trim_end().to_owned(),
            Shape::Composite { name, union, .. } | Shape::Declared { name, union } => {
                (if union { "union" } else { "struct" }, name)
            }
            Shape::Enum { name, .. } => ("enum", name),
            Shape::Int { name, .. }
            | Shape::Float { name, .. }
            | Shape::Typedef { name, .. }
            | Shape::Void { name } => ("", name),
        };
        let name = match (tag, name.text()) {
            ("", name) => name.to_owned(),
            (tag, "") => format!("{tag} {{...}}"),
            (tag, name) => format!("{tag} {name}"),
        };
        return format!("{front}{name}{back}");
    }
    "?".into()
}
