//! What is broken about a dump, each thing said once, and no more of them than one can read.

/// So many are kept; a hostile file may give cause for millions.
const LIMIT: usize = 64;

/// Warnings in the order they came up.
#[derive(Debug, Default)]
pub(super) struct Warnings(Vec<String>);

impl Warnings {
    pub fn push(&mut self, warning: impl Into<String>) {
        if self.0.len() < LIMIT {
            self.0.push(warning.into());
        } else if self.0.len() == LIMIT {
            self.0.push("and more of that kind".into());
        }
    }

    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}
