//! x86 code: what its instructions do to a stack.

pub(super) mod decode;
