//! The stack scan: return addresses on the stack, and the chain of them that fits the code best.

pub(super) mod candidates;
mod chain;
