//! Virtual memory under one root.

use super::{walk, Format, Mapped, Mapping};
use crate::addr::{MachineAddr, VirtAddr};
use crate::memory::{Fault, Memory};

/// The memory that a root maps.
///
/// It keeps nothing but the root and is as safe to share between threads as `M` is.
#[derive(Clone, Copy, Debug)]
pub struct Virtual<M> {
    mem: M,
    format: &'static Format,
    root: MachineAddr,
}

impl<M: Memory<MachineAddr>> Virtual<M> {
    /// What `root` (a cr3: its low bits are ignored) maps by the tables in `mem`.
    pub fn new(mem: M, format: &'static Format, root: MachineAddr) -> Self {
        Self {
            mem,
            format,
            root: format.root(root),
        }
    }

    /// The machine memory below.
    pub fn memory(&self) -> &M {
        &self.mem
    }

    /// The machine memory below, the root let go.
    pub fn into_memory(self) -> M {
        self.mem
    }

    /// The layout of the tables.
    pub fn format(&self) -> &'static Format {
        self.format
    }

    /// Address of the topmost table.
    pub fn root(&self) -> MachineAddr {
        self.root
    }

    /// Where `addr` leads, and how it is mapped.
    pub fn walk(&self, addr: VirtAddr) -> Result<Mapping, Fault> {
        walk(&self.mem, self.format, self.root, addr)
    }

    /// Where `addr` leads.
    pub fn translate(&self, addr: VirtAddr) -> Result<MachineAddr, Fault> {
        self.walk(addr).map(|mapping| mapping.machine)
    }

    /// What is mapped from `first` to `last`, both included, in rising order.
    pub fn mapped(&self, first: VirtAddr, last: VirtAddr) -> Mapped<&M> {
        Mapped::new(&self.mem, self.format, self.root, first, last)
    }
}

impl<M: Memory<MachineAddr>> Virtual<M> {
    /// [`Virtual::mapped`], as an iterator that holds the memory itself.
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
