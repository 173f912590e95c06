//! A translated guest (HVM, PVH) of a host's dump as a dump of its own.

use std::fmt;
use std::sync::Arc;

use super::container::{Container, Headers, HeldMemory, Run};
use super::note::Note;
use super::warnings::Warnings;
use super::Dump;
use crate::addr::MachineAddr;
use crate::fault::Fault;
use crate::memory::{Memory, Page};

/// The memory of a guest of a host: what the guest takes for machine addresses are its physical ones.
pub(super) struct Guest<M> {
    headers: Headers,
    memory: M,
    memory_held: u64,
    file_size: u64,
    decodes_pages: bool,
}

impl<M> Guest<M> {
    /// `memory` is the guest's in the dump `host`, and has `size` bytes.
    pub fn new(host: &Dump, memory: M, size: u64) -> Self {
        Self {
            headers: Headers {
                format: host.container.headers().format,
                machine_type: host.machine_type(),
                word: host.word(),
                // Those of the host are not about the guest.
                notes: Vec::new(),
                warnings: Warnings::default(),
            },
            memory,
            memory_held: size.min(host.memory_held()),
            file_size: host.file_size(),
            decodes_pages: host.decodes_pages(),
        }
    }
}

impl<M> fmt::Debug for Guest<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}

impl<M: Memory<MachineAddr> + Send> Container for Guest<M> {
    fn headers(&self) -> &Headers {
        &self.headers
    }

    fn descriptor(&self, _note: &Note, _size: u64) -> Option<Vec<u8>> {
        None
    }

    fn file_size(&self) -> u64 {
        self.file_size
    }

    fn memory_held(&self) -> u64 {
        self.memory_held
    }

    fn memory_size(&self) -> u64 {
        self.memory_held
    }

    fn auto_translated(&self) -> bool {
        true
    }
}

impl<M: Memory<MachineAddr> + Send> HeldMemory for Guest<M> {
    fn next_run(&self, addr: MachineAddr) -> Option<Run> {
        let (start, last) = self.memory.next_held(addr)?;
        Some(Run { start, last })
    }

    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        self.memory.read(addr, buf)
    }

    fn borrow(&self, addr: MachineAddr) -> &[u8] {
        self.memory.borrow(addr)
    }

    fn borrow_around(&self, addr: MachineAddr) -> (MachineAddr, &[u8]) {
        self.memory.borrow_around(addr)
    }

    fn is_intact(&self) -> bool {
        self.memory.is_intact()
    }

    fn decodes_pages(&self) -> bool {
        self.decodes_pages
    }

    fn pages_kept(&self) -> usize {
        self.memory.pages_kept()
    }

    fn page(&self, addr: MachineAddr) -> Option<Arc<Page>> {
        self.memory.page(addr)
    }
}
