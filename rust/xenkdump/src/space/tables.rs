//! The memory that page tables address.

use std::sync::Arc;

use crate::addr::{Address, MachineAddr, Pfn, PseudoPhysAddr, PAGE_SHIFT, PAGE_SIZE};
use crate::limits::MAX_SKIPPED_RUNS;
use crate::memory::{for_each_page, Fault, Memory};
use crate::p2m::{FrameRuns, P2m};

/// The memory whose addresses are in page tables.
///
/// What a translated guest (HVM, PVH) takes for machine addresses are its physical ones. So under
/// [`Tables::Guest`] a [`MachineAddr`] is an address of the guest's machine; [`Tables::machine`]
/// yields the host's.
#[derive(Clone, Debug)]
pub enum Tables<M> {
    /// Machine memory: without Xen, and of PV guests.
    Machine(M),
    /// The physical memory of a translated guest.
    Guest(Arc<P2m<M>>),
}

impl<M: Memory<MachineAddr>> Tables<M> {
    /// The machine memory below.
    #[inline]
    pub fn memory(&self) -> &M {
        match self {
            Tables::Machine(mem) => mem,
            Tables::Guest(p2m) => p2m.memory(),
        }
    }

    /// The P2M of a translated guest.
    pub fn p2m(&self) -> Option<&Arc<P2m<M>>> {
        match self {
            Tables::Machine(_) => None,
            Tables::Guest(p2m) => Some(p2m),
        }
    }

    /// The machine address of an address in the tables.
    pub fn machine(&self, addr: MachineAddr) -> Result<MachineAddr, Fault> {
        match self {
            Tables::Machine(_) => Ok(addr),
            Tables::Guest(p2m) => p2m.translate(PseudoPhysAddr(addr.0)),
        }
    }
}

impl<M: Memory<MachineAddr> + Send> Memory<MachineAddr> for Tables<M> {
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        match self {
            Tables::Machine(mem) => mem.read(addr, buf),
            Tables::Guest(p2m) => for_each_page(addr, buf, |at, part| {
                p2m.memory().read(self.machine(at)?, part)
            }),
        }
    }

    /// Of a guest's memory at most a page.
    #[inline]
    fn borrow(&self, addr: MachineAddr) -> &[u8] {
        match self {
            Tables::Machine(mem) => mem.borrow(addr),
            Tables::Guest(p2m) => {
                let Ok(machine) = self.machine(addr) else {
                    return &[];
                };
                let bytes = p2m.memory().borrow(machine);
                bytes.get(..PAGE_SIZE - addr.page_offset()).unwrap_or(bytes)
            }
        }
    }

    #[inline]
    fn borrow_around(&self, addr: MachineAddr) -> (MachineAddr, &[u8]) {
        match self {
            Tables::Machine(mem) => mem.borrow_around(addr),
            Tables::Guest(_) => {
                let page = MachineAddr(addr.0 & !(PAGE_SIZE as u64 - 1));
                match self.borrow(page) {
                    // The dump may hold a part of the page.
                    [] => (addr, self.borrow(addr)),
                    bytes => (page, bytes),
                }
            }
        }
    }

    #[inline]
    fn is_intact(&self) -> bool {
        self.memory().is_intact()
    }

    fn next_held(&self, addr: MachineAddr) -> Option<(MachineAddr, MachineAddr)> {
        let p2m = match self {
            Tables::Machine(mem) => return mem.next_held(addr),
            Tables::Guest(p2m) => p2m,
        };
        let mem = p2m.memory();
        let pfn = PseudoPhysAddr(addr.0).frame();
        let mut searched = addr.0;
        let mut runs = FrameRuns::new(p2m.clone(), pfn, Pfn(u64::MAX));
        for _ in 0..MAX_SKIPPED_RUNS {
            let run = runs.next()?;
            let (start, machine) = (run.pfn.addr()?, run.mfn.addr()?);
            let skipped = addr.0.saturating_sub(start.0);
            // The last byte, from the start of the run.
            let last = (run.count << PAGE_SHIFT).saturating_sub(1);
            let held = mem.next_held(MachineAddr(machine.0.saturating_add(skipped)));
            if let Some((from, to)) = held {
                let (from, to) = (from.0 - machine.0, (to.0 - machine.0).min(last));
                if from <= to {
                    return Some((MachineAddr(start.0 + from), MachineAddr(start.0 + to)));
                }
            }
            searched = start.0.saturating_add(last);
        }
        // All beyond may be held.
        Some((MachineAddr(searched.checked_add(1)?), MachineAddr(u64::MAX)))
    }

    fn pages_held(&self) -> u64 {
        self.memory().pages_held()
    }
}
