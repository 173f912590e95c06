//! Virtual memory under one root.

use super::{walk, Format, Mapped, Mapping};
use crate::addr::{MachineAddr, VirtAddr};
use crate::memory::{Fault, Memory};

/// The virtual memory of one set of page tables.
///
/// It has no state and can be shared between threads as `M` can.
#[derive(Clone, Copy, Debug)]
pub struct Virtual<M> {
    mem: M,
    format: Format,
    root: MachineAddr,
}

impl<M: Memory<MachineAddr>> Virtual<M> {
    /// The virtual memory of the page tables at `root` (a cr3; its low bits are ignored) in `mem`.
    pub fn new(mem: M, format: &Format, root: MachineAddr) -> Self {
        Self {
            mem,
            format: *format,
            root: format.root(root),
        }
    }

    /// The machine memory below.
    pub fn memory(&self) -> &M {
        &self.mem
    }

    /// The machine memory below.
    pub fn into_memory(self) -> M {
        self.mem
    }

    /// The layout of the tables.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Address of the topmost table.
    pub fn root(&self) -> MachineAddr {
        self.root
    }

    /// How `addr` is mapped.
    pub fn walk(&self, addr: VirtAddr) -> Result<Mapping, Fault> {
        walk(&self.mem, &self.format, self.root, addr)
    }

    /// The machine address of `addr`.
    pub fn translate(&self, addr: VirtAddr) -> Result<MachineAddr, Fault> {
        self.walk(addr).map(|mapping| mapping.machine)
    }

    /// The mapped ranges from `first` to `last`, both included, in ascending order.
    pub fn mapped(&self, first: VirtAddr, last: VirtAddr) -> Mapped<&M> {
        Mapped::new(&self.mem, self.format, self.root, first, last)
    }
}

impl<M: Memory<MachineAddr>> Virtual<M> {
    /// [`Virtual::mapped`], as an iterator that owns the memory.
    pub fn into_mapped(self, first: VirtAddr, last: VirtAddr) -> Mapped<M> {
        Mapped::new(self.mem, self.format, self.root, first, last)
    }
}

impl<M: Memory<MachineAddr>> Memory<VirtAddr> for Virtual<M> {
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> Result<(), Fault> {
        let wraps = Fault::Wraps {
            addr: addr.0,
            len: buf.len() as u64,
        };
        let mut rest = buf;
        let mut at = addr;
        while !rest.is_empty() {
            let mapping = self.walk(at)?;
            let left = mapping.page_size - (at.0 & (mapping.page_size - 1));
            let n = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let (part, tail) = rest.split_at_mut(n);
            self.mem.read(mapping.machine, part)?;
            rest = tail;
            if !rest.is_empty() {
                at = VirtAddr(at.0.checked_add(n as u64).ok_or(wraps)?);
            }
        }
        Ok(())
    }
}
