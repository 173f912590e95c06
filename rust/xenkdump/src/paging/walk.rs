//! Walks one address.

use super::format::Target;
use super::{Flags, Format, Level};
use crate::addr::{MachineAddr, VirtAddr};
use crate::memory::{Fault, Memory};

/// How a virtual address is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its machine address.
    pub machine: MachineAddr,
    /// Size in bytes of the page that maps it.
    pub page_size: u64,
    /// The permissions of the whole walk, and the attributes of the last entry.
    pub flags: Flags,
    /// Level of the last entry: 1 for a 4 KiB page.
    pub level: u8,
}

/// One entry of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Level of the table.
    pub level: u8,
    /// Its machine address.
    pub table: MachineAddr,
    /// Index of the entry in it.
    pub index: u16,
    /// The entry.
    pub entry: u64,
}

impl Step {
    pub(super) fn not_present(self, addr: VirtAddr) -> Fault {
        Fault::NotPresent {
            addr,
            level: self.level,
            table: self.table,
            index: self.index,
            entry: self.entry,
        }
    }

    pub(super) fn reserved(self, addr: VirtAddr) -> Fault {
        Fault::Reserved {
            addr,
            level: self.level,
            table: self.table,
            index: self.index,
            entry: self.entry,
        }
    }
}

/// Walks `addr` from `root` (a cr3: its low bits are ignored) through tables in `mem`.
pub fn walk<M: Memory<MachineAddr> + ?Sized>(
    mem: &M,
    format: &Format,
    root: MachineAddr,
    addr: VirtAddr,
) -> Result<Mapping, Fault> {
    walk_steps(mem, format, root, addr, |_| ())
}

/// [`walk`], and calls `step` with every entry that is read, including the last one.
pub fn walk_steps<M: Memory<MachineAddr> + ?Sized>(
    mem: &M,
    format: &Format,
    root: MachineAddr,
    addr: VirtAddr,
    mut step: impl FnMut(Step),
) -> Result<Mapping, Fault> {
    if !format.is_canonical(addr) {
        return Err(Fault::NonCanonical(addr));
    }
    let mut table = format.root(root);
    let mut above = Format::OPEN;
    for level in format.levels {
        let at = read_step(mem, format, level, table, addr)?;
        step(at);
        match format.target(level, at.entry) {
            Target::Absent => return Err(at.not_present(addr)),
            Target::Reserved => return Err(at.reserved(addr)),
            Target::Page(page) => {
                return Ok(Mapping {
                    machine: MachineAddr(page.0 | addr.0 & (level.span() - 1)),
                    page_size: level.span(),
                    flags: Format::flags(level, above, at.entry),
                    level: level.number,
                })
            }
            Target::Table(next) => {
                above = Format::combine(level, above, at.entry);
                table = next;
            }
        }
    }
    // Unreachable: entries of the last level always map a page.
    Err(Fault::NonCanonical(addr))
}

/// The end of a walk without the last level.
pub(crate) enum Last {
    /// At this table of the last level.
    Table(MachineAddr),
    /// At a large page: the machine address of the byte.
    Page(MachineAddr),
}

/// [`walk`] without the last level.
pub(crate) fn walk_to_last<M: Memory<MachineAddr> + ?Sized>(
    mem: &M,
    format: &Format,
    root: MachineAddr,
    addr: VirtAddr,
) -> Result<Last, Fault> {
    if !format.is_canonical(addr) {
        return Err(Fault::NonCanonical(addr));
    }
    let mut table = format.root(root);
    let above = format
        .levels
        .split_last()
        .map_or(&[][..], |(_, above)| above);
    for level in above {
        let at = read_step(mem, format, level, table, addr)?;
        match format.target(level, at.entry) {
            Target::Absent => return Err(at.not_present(addr)),
            Target::Reserved => return Err(at.reserved(addr)),
            Target::Page(page) => {
                return Ok(Last::Page(MachineAddr(
                    page.0 | addr.0 & (level.span() - 1),
                )))
            }
            Target::Table(next) => table = next,
        }
    }
    Ok(Last::Table(table))
}

fn read_step<M: Memory<MachineAddr> + ?Sized>(
    mem: &M,
    format: &Format,
    level: &Level,
    table: MachineAddr,
    addr: VirtAddr,
) -> Result<Step, Fault> {
    let index = level.index(addr);
    let entry = mem
        .read_word(format.entry_addr(table, index), format.entry)
        .map_err(|_| Fault::NoTable {
            addr,
            level: level.number,
            table,
        })?;
    Ok(Step {
        level: level.number,
        table,
        index,
        entry,
    })
}
