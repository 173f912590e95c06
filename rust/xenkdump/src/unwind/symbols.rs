//! The interface of a symbol table that the unwinder uses.

use crate::addr::VirtAddr;
use crate::memory::{Fault, Memory};

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

    /// Overwrites the part of `code`, the bytes at `addr`, that is init code, with the content of the
    /// image. Returns the number of these bytes.
    fn overlay_init_code(&self, _addr: VirtAddr, _code: &mut [u8]) -> usize {
        0
    }
}

/// Reads code. Init code is freed after the boot, and other data is in its place: its content is that
/// of the image, if there is one.
pub(super) fn read_code(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    addr: VirtAddr,
    code: &mut [u8],
) -> Result<(), Fault> {
    let read = memory.read(addr, code);
    if symbols.overlay_init_code(addr, code) == code.len() {
        return Ok(());
    }
    read
}
