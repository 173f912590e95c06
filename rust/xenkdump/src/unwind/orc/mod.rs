//! ORC: the unwind tables of x86_64 Linux since 4.14.

pub(super) mod format;
pub(super) mod step;
pub(super) mod table;
pub(super) mod verify;
