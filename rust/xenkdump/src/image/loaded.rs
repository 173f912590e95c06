//! The loaded sections of an ELF file, as the memory of a kernel that does not run yet.
//!
//! The kernel in a `vmlinuz`, and a stripped `vmlinux`, have no symbol table, but the kernel's own one.

use std::sync::Arc;

use memchr::memmem;

use super::exports;
use super::kallsyms::{Kallsyms, Searchable, Searched};
use crate::addr::VirtAddr;
use crate::alloc;
use crate::elf;
use crate::memory::{Fault, Memory};
use crate::{Error, Result};

/// Bytes that are searched at once.
const PIECE: usize = 1 << 20;
/// Sections closer than this are searched as one.
const GAP: u64 = 4096;

/// The memory of an image.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    image: Arc<elf::Image>,
}

impl Loaded {
    pub fn new(image: &Arc<elf::Image>) -> Self {
        Self {
            image: Arc::clone(image),
        }
    }

    /// The symbols in the kernel's own table, at their link-time addresses.
    pub fn kallsyms(&self) -> Result<Kallsyms> {
        let word = self.image.word();
        let spans = self.image.spans(GAP);
        let last = |end: VirtAddr| end.0.checked_sub(1).map(VirtAddr);
        let ranges = spans
            .iter()
            .filter_map(|span| Some((span.start, last(span.end)?)));
        let ranges = alloc::collect(ranges);
        let mut kallsyms = Kallsyms::find(self, word, &ranges, None).map_err(|reason| {
            let path = self.image.file().path().display();
            Error::Absent(format!("{path}: no symbol table, and {reason}"))
        })?;
        kallsyms.add_exports(|between| exports::find(self, word, between));
        Ok(kallsyms)
    }
}

impl Memory<VirtAddr> for Loaded {
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> Result<(), Fault> {
        if self.image.fill(addr, buf) {
            Ok(())
        } else {
            Err(Fault::NotInImage(addr))
        }
    }
}

impl Searchable for Loaded {
    fn first(&self, needle: &[u8], between: (VirtAddr, VirtAddr), most: u64) -> Option<Searched> {
        let (first, last) = between;
        let (mut at, mut bytes) = (first, 0);
        while at <= last && bytes < most {
            let len = (last.0 - at.0).saturating_add(1).min(PIECE as u64);
            // The needle may cross the end of the piece.
            let overlap = needle.len().saturating_sub(1) as u64;
            let region = super::region::Region::read(
                self,
                at.0..at.0.saturating_add(len).saturating_add(overlap),
            );
            bytes += len;
            let next = at.0.checked_add(len).map(VirtAddr);
            if let Some(found) = memmem::find(&region.bytes, needle) {
                let place = VirtAddr(at.0 + found as u64);
                return Some(Searched {
                    place: Some(place),
                    bytes,
                    next: place.0.checked_add(1).map(VirtAddr),
                });
            }
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(Searched {
            place: None,
            bytes,
            next: (at <= last).then_some(at),
        })
    }
}
