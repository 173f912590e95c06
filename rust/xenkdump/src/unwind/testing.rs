//! Memory and symbols for unit tests.

use std::collections::BTreeMap;

use crate::addr::{Address, MachineAddr, VirtAddr, Word};
use crate::memory::{Fault, Memory};

use super::symbols::{CodeSymbols, Function};

/// Bytes at addresses; bytes that were not written are unreadable.
pub(super) struct Ram {
    word: Word,
    bytes: BTreeMap<u64, u8>,
}

impl Ram {
    pub fn new(word: Word) -> Self {
        Self {
            word,
            bytes: BTreeMap::new(),
        }
    }

    pub fn bytes(&mut self, addr: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.bytes.insert(addr + i as u64, *byte);
        }
    }

    pub fn words(&mut self, addr: u64, words: &[u64]) {
        let width = self.word.bytes();
        for (i, word) in words.iter().enumerate() {
            self.bytes(addr + (i * width) as u64, &word.to_le_bytes()[..width]);
        }
    }
}

impl Memory<VirtAddr> for Ram {
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> Result<(), Fault> {
        for (i, byte) in buf.iter_mut().enumerate() {
            let at = addr.raw().wrapping_add(i as u64);
            *byte = *self
                .bytes
                .get(&at)
                .ok_or(Fault::NoSegment(MachineAddr(at)))?;
        }
        Ok(())
    }
}

/// Functions by ascending address, each up to the next; an empty name means that there is no code.
pub(super) struct Names(pub Vec<(u64, &'static str)>);

impl CodeSymbols for Names {
    fn function(&self, addr: VirtAddr) -> Option<Function<'_>> {
        let after = self.0.partition_point(|(start, _)| *start <= addr.raw());
        let (start, name) = self.0.get(after.checked_sub(1)?)?;
        (!name.is_empty()).then_some(Function {
            name,
            start: VirtAddr(*start),
            size: self.0.get(after).map(|(next, _)| next - start),
        })
    }

    fn start_of(&self, name: &str) -> Option<VirtAddr> {
        let found = self.0.iter().find(|(_, known)| *known == name);
        found.map(|(start, _)| VirtAddr(*start))
    }

    fn is_text(&self, addr: VirtAddr) -> bool {
        self.function(addr).is_some()
    }
}
