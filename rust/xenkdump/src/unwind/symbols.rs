//! What the unwinder asks of a symbol table.

use crate::addr::VirtAddr;

/// A stretch of code with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its first instruction.
    pub start: VirtAddr,
    /// Its size in bytes, where it is known.
    pub size: Option<u64>,
}

/// Names and bounds of code, at the addresses of the running kernel.
pub trait CodeSymbols: Sync {
    /// The function that this instruction belongs to, or the nearest one below where sizes are not
    /// known.
    fn function(&self, addr: VirtAddr) -> Option<Function<'_>>;

    /// The function of this name.
    fn start_of(&self, name: &str) -> Option<VirtAddr>;

    /// Whether code of the kernel or of a module lies here.
    fn is_text(&self, addr: VirtAddr) -> bool;
}
