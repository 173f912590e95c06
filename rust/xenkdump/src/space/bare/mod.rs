//! The memory of a PV domain as that of a bare machine.
//!
//! Page tables of a PV guest hold mfns. Here they hold pfns, as if the guest had built them on a machine
//! of its own: pages that are tables are rewritten when they are read, all others are passed through.
//! Entries that lead to frames of others (Xen's, foreign ones) are absent.

mod index;
mod search;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use super::Tables;
use crate::addr::{Address, MachineAddr, Mfn, Pfn, PAGE_SIZE};
use crate::alloc;
use crate::limits::MAX_REWRITTEN_TABLES;
use crate::memory::{for_each_page, Fault, Memory};
use crate::p2m::{Entry, P2m};
use crate::paging::{Format, Level, Target};

use index::PageIndex;
pub use search::{find, FrameTable, PageTables};

type Page = [u8; PAGE_SIZE];

/// Bytes that differ from memory, at a physical address. They are within a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Altered {
    /// The physical address.
    pub at: MachineAddr,
    /// The value, little-endian.
    pub value: u64,
    /// Its size in bytes: at most 8.
    pub size: usize,
}

/// The memory of a PV domain as that of a bare machine: a [`MachineAddr`] is a physical address of the
/// domain.
#[derive(Debug)]
pub struct Bare<M> {
    memory: Tables<M>,
    format: Format,
    /// The pages that are not passed through, and the level of each; 0 for one that is no table.
    index: PageIndex,
    levels: Vec<u8>,
    /// Tables that do not fill their page, by pfn: the parts of 32 bytes that are tables (PAE, level 3).
    parts: HashMap<Pfn, u128>,
    altered: Vec<Altered>,
    /// Rewritten pages, as far as they were read.
    rewritten: Vec<OnceLock<Box<Page>>>,
    count: AtomicU64,
}

impl<M: Memory<MachineAddr> + Send> Bare<M> {
    /// `memory` is the domain's, by its physical addresses; `tables` are in it.
    pub fn new(
        memory: Tables<M>,
        format: &Format,
        tables: &PageTables,
        altered: &[Altered],
    ) -> Self {
        let mut levels: HashMap<Pfn, u8> = HashMap::new();
        for (pfn, level) in &tables.tables {
            alloc::insert_at(&mut levels, *pfn, *level);
        }
        for word in altered {
            alloc::entry(&mut levels, Pfn(word.at.frame().0));
        }
        let mut pages = alloc::collect(levels);
        pages.sort_unstable();
        let (index, kept) = PageIndex::new(&pages);
        let levels = alloc::collect(pages.iter().take(kept).map(|(_, level)| *level));
        let mut rewritten = alloc::with_capacity(kept);
        rewritten.resize_with(kept, OnceLock::new);
        Self {
            memory,
            format: *format,
            index,
            levels,
            parts: tables.parts.clone(),
            altered: alloc::copied(altered),
            rewritten,
            count: AtomicU64::new(0),
        }
    }

    /// The position of a page among those that are not passed through.
    #[inline]
    fn special(&self, addr: MachineAddr) -> Option<usize> {
        self.index.get(Pfn(addr.frame().0))
    }

    /// The level of the table in a page, if it is one.
    fn level(&self, position: usize) -> Option<&'static Level> {
        let number = *self.levels.get(position)?;
        level(&self.format, number)
    }

    /// A page that is not passed through, as a whole; `None` if a part of it cannot be read, or if too
    /// many are kept.
    fn page(&self, position: usize, addr: MachineAddr) -> Option<&Page> {
        let cell = self.rewritten.get(position)?;
        if let Some(page) = cell.get() {
            return Some(page);
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= MAX_REWRITTEN_TABLES {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let start = MachineAddr(addr.0 & !(PAGE_SIZE as u64 - 1));
        let mut page = Box::new([0; PAGE_SIZE]);
        if self.memory.read(start, &mut page[..]).is_err() {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.alter(position, start, &mut page[..]);
        if cell.set(page).is_err() {
            // Another thread was faster.
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        cell.get().map(|page| &**page)
    }

    /// Rewrites the bytes that were read at `at`, all in one page: whole entries if it is a table.
    fn alter(&self, position: usize, at: MachineAddr, bytes: &mut [u8]) {
        if let Some(level) = self.level(position) {
            let parts = self.parts.get(&Pfn(at.frame().0)).copied();
            let size = self.format.entry.bytes();
            let mut offset = at.page_offset();
            for raw in bytes.chunks_exact_mut(size) {
                let is_table = parts.is_none_or(|parts| parts >> (offset / 32) & 1 != 0);
                offset += size;
                let Some(entry) = self.format.entry.get(raw).filter(|_| is_table) else {
                    continue;
                };
                let new = self.entry(level, entry).to_le_bytes();
                raw.copy_from_slice(new.get(..size).unwrap_or_default());
            }
        }
        for word in &self.altered {
            let value = word.value.to_le_bytes();
            for (i, byte) in value.iter().enumerate().take(word.size) {
                let at = (word.at.0.wrapping_add(i as u64)).wrapping_sub(at.0);
                if let Some(slot) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                    *slot = *byte;
                }
            }
        }
    }

    /// An entry with the pfn in place of the mfn; 0 if it leads to no page of the domain.
    fn entry(&self, level: &Level, entry: u64) -> u64 {
        let own = match self.format.target(level, entry) {
            // What the kernel keeps in absent entries are no mfns.
            Target::Absent => return entry,
            Target::Reserved => None,
            Target::Table(table) => self.table(level, table),
            Target::Page(page) if level.number == 1 => self.own(page.frame()),
            Target::Page(page) => self.large(level, page),
        };
        own.and_then(Pfn::addr)
            .and_then(|addr| self.format.redirect(level, entry, MachineAddr(addr.0)))
            .unwrap_or(0)
    }

    fn p2m(&self) -> Option<&P2m<M>> {
        self.memory.p2m().map(|p2m| &**p2m)
    }

    fn own(&self, mfn: Mfn) -> Option<Pfn> {
        self.p2m()?.reverse(mfn)
    }

    /// The pfn of a table below one of `level`. Xen maps tables of higher levels in a place of its own
    /// ("linear page tables"): an entry that leads back to one is Xen's. A page that is no table here
    /// would hold mfns.
    fn table(&self, level: &Level, table: MachineAddr) -> Option<Pfn> {
        let pfn = self.own(table.frame())?;
        let number = *self.levels.get(self.index.get(pfn)?)?;
        (1..level.number).contains(&number).then_some(pfn)
    }

    /// The first pfn of a large page of level 2, if its frames have consecutive pfns. No Xen lets a PV
    /// guest map larger ones.
    fn large(&self, level: &Level, page: MachineAddr) -> Option<Pfn> {
        let p2m = self.p2m().filter(|_| level.number == 2)?;
        let (mfn, pages) = (page.frame(), level.span() / PAGE_SIZE as u64);
        let first = p2m.reverse(mfn)?;
        let is_own = |i| p2m.resolve(Pfn(first.0 + i)) == Entry::Frame(Mfn(mfn.0 + i));
        (first.0 % pages == 0 && (1..pages).all(is_own)).then_some(first)
    }

    /// Reads a part of a page that is not passed through.
    fn read_special(&self, position: usize, at: MachineAddr, part: &mut [u8]) -> Result<(), Fault> {
        let offset = at.page_offset();
        if let Some(page) = self.page(position, at) {
            let bytes = page.get(offset..).unwrap_or_default();
            part.copy_from_slice(bytes.get(..part.len()).unwrap_or_default());
            return Ok(());
        }
        // Whole entries, if it is a table.
        let size = self
            .level(position)
            .map_or(1, |_| self.format.entry.bytes());
        let (start, end) = (
            offset / size * size,
            (offset + part.len()).next_multiple_of(size),
        );
        let mut copy = [0; PAGE_SIZE];
        let bytes = copy.get_mut(start..end).unwrap_or_default();
        let first = MachineAddr(at.0 - (offset - start) as u64);
        self.memory.read(first, bytes)?;
        self.alter(position, first, bytes);
        let bytes = copy.get(offset..).unwrap_or_default();
        part.copy_from_slice(bytes.get(..part.len()).unwrap_or_default());
        Ok(())
    }
}

/// The level of this number.
fn level(format: &Format, number: u8) -> Option<&'static Level> {
    format.levels.iter().find(|level| level.number == number)
}

impl<M: Memory<MachineAddr> + Send> Memory<MachineAddr> for Bare<M> {
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        for_each_page(addr, buf, |at, part| match self.special(at) {
            None => self.memory.read(at, part),
            Some(position) => self.read_special(position, at, part),
        })
    }

    /// At most a page.
    #[inline]
    fn borrow(&self, addr: MachineAddr) -> &[u8] {
        let offset = addr.page_offset();
        match self.special(addr) {
            None => {
                let bytes = self.memory.borrow(addr);
                bytes.get(..PAGE_SIZE - offset).unwrap_or(bytes)
            }
            Some(position) => {
                let page = self.page(position, addr);
                page.and_then(|page| page.get(offset..)).unwrap_or_default()
            }
        }
    }

    #[inline]
    fn borrow_around(&self, addr: MachineAddr) -> (MachineAddr, &[u8]) {
        let page = MachineAddr(addr.0 & !(PAGE_SIZE as u64 - 1));
        match self.borrow(page) {
            // The dump may hold a part of the page.
            [] => (addr, self.borrow(addr)),
            bytes => (page, bytes),
        }
    }

    #[inline]
    fn is_intact(&self) -> bool {
        self.memory.is_intact()
    }

    fn next_held(&self, addr: MachineAddr) -> Option<(MachineAddr, MachineAddr)> {
        self.memory.next_held(addr)
    }

    fn pages_held(&self) -> u64 {
        self.memory.pages_held()
    }
}
