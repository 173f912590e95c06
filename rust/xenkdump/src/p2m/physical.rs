//! Pseudo-physical memory.

use std::sync::Arc;

use super::{Entry, P2m};
use crate::addr::{Address, MachineAddr, PseudoPhysAddr};
use crate::memory::{for_each_page, Fault, Memory};

/// The physical memory of a guest.
#[derive(Clone, Debug)]
pub enum Physical<M> {
    /// A domain, through its P2M.
    P2m(Arc<P2m<M>>),
    /// A host without Xen: pseudo-physical and machine addresses are the same.
    Bare(M),
}

impl<M: Memory<MachineAddr>> Physical<M> {
    /// The machine memory below.
    pub fn memory(&self) -> &M {
        match self {
            Physical::P2m(p2m) => p2m.memory(),
            Physical::Bare(mem) => mem,
        }
    }

    /// The machine address of `addr`; see [`P2m::translate`].
    pub fn translate(&self, addr: PseudoPhysAddr) -> Result<MachineAddr, Fault> {
        match self {
            Physical::P2m(p2m) => p2m.translate(addr),
            Physical::Bare(_) => Ok(MachineAddr(addr.0)),
        }
    }
}

impl<M: Memory<MachineAddr>> P2m<M> {
    /// The machine address of `addr`. Only frames of the domain have one: foreign and identity entries
    /// are faults, like invalid entries.
    pub fn translate(&self, addr: PseudoPhysAddr) -> Result<MachineAddr, Fault> {
        let pfn = addr.frame();
        match self.resolve(pfn) {
            // Addresses of P2M frames are below 2^52.
            Entry::Frame(mfn) => mfn
                .addr()
                .map(|frame| MachineAddr(frame.0 | addr.page_offset() as u64))
                .ok_or(Fault::P2m {
                    pfn,
                    special: super::Special::Invalid,
                }),
            Entry::Special(special) => Err(Fault::P2m { pfn, special }),
        }
    }
}

impl<M: Memory<MachineAddr> + Send> Memory<PseudoPhysAddr> for Physical<M> {
    fn read(&self, addr: PseudoPhysAddr, buf: &mut [u8]) -> Result<(), Fault> {
        match self {
            Physical::Bare(mem) => mem.read(MachineAddr(addr.0), buf),
            Physical::P2m(p2m) => for_each_page(addr, buf, |at, part| {
                p2m.memory().read(p2m.translate(at)?, part)
            }),
        }
    }
}
