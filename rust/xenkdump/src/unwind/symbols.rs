//! The interface of a symbol table that the unwinder uses.

use crate::addr::VirtAddr;

/// A function, or other code with a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its first instruction.
    pub start: VirtAddr,
    /// Its size in bytes, if known.
    pub size: Option<u64>,
}

/// Names and bounds of code, by run-time address.
pub trait CodeSymbols: Sync {
    /// The function that contains this instruction, or the nearest one below if sizes are not known.
    fn function(&self, addr: VirtAddr) -> Option<Function<'_>>;

    /// The start of the function with this name.
    fn start_of(&self, name: &str) -> Option<VirtAddr>;

    /// Whether this is in the code of the kernel or of a module.
    fn is_text(&self, addr: VirtAddr) -> bool;
}
