//! Warnings about a dump's headers.

use crate::limits::MAX_DUMP_WARNINGS;

/// Warnings in the order in which they arose.
#[derive(Debug, Default)]
pub(super) struct Warnings(Vec<String>);

impl Warnings {
    pub fn push(&mut self, warning: impl Into<String>) {
        if self.0.len() < MAX_DUMP_WARNINGS {
            self.0.push(warning.into());
        } else if self.0.len() == MAX_DUMP_WARNINGS {
            self.0.push("and more of that kind".into());
        }
    }

    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}
