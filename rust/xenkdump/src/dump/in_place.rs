//! Memory that a dump has as plain bytes in one file.

use std::fmt;

use super::container::{HeldMemory, Run};
use super::run_map::RunMap;
use crate::addr::MachineAddr;
use crate::fault::Fault;
use crate::file::Storage;

/// A dump that has its memory as plain bytes in one file, where a [`RunMap`] finds them.
pub(super) trait InPlace: fmt::Debug + Send + Sync {
    /// The file.
    fn storage(&self) -> &impl Storage;

    /// Where the file has which machine address.
    fn map(&self) -> &RunMap;
}

impl<T: InPlace> HeldMemory for T {
    fn next_run(&self, addr: MachineAddr) -> Option<Run> {
        self.map().next_run(addr)
    }

    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        self.map().read(self.storage(), addr, buf)
    }

    fn borrow(&self, addr: MachineAddr) -> &[u8] {
        self.map().borrow(self.storage(), addr)
    }

    fn borrow_around(&self, addr: MachineAddr) -> (MachineAddr, &[u8]) {
        self.map().borrow_around(self.storage(), addr)
    }

    fn is_intact(&self) -> bool {
        self.storage().is_intact()
    }

    fn release(&self) {
        self.storage().release(0, self.storage().len());
    }

    fn decodes_pages(&self) -> bool {
        self.storage().is_decoded()
    }
}
