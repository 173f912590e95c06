//! Opens Xen's P2M of a translated guest.

use std::collections::HashSet;
use std::sync::OnceLock;

use super::directory::Directory;
use super::leaves::Leaves;
use super::nested::{decode, TABLE_ENTRIES};
use super::packed::Packed;
use super::table::{Coding, Entries};
use super::{Entry, P2m, Source, Special};
use crate::addr::{MachineAddr, Mfn, Pfn, VirtAddr, Word, PAGE_SHIFT, PAGE_SIZE};
use crate::alloc;
use crate::limits::MAX_P2M_PAGES;
use crate::memory::{Fault, Memory};
use crate::paging::{walk_steps, NestedFormat, P2mType, Step, Target};
use crate::{Error, Result};

/// Page tables that are read once each. Their number is limited: each page of the memory held at each
/// level, and the same number of tables that the dump does not hold.
struct Tables<'m, M> {
    mem: &'m M,
    read: HashSet<(usize, MachineAddr)>,
    absent: HashSet<MachineAddr>,
}

impl<'m, M: Memory<MachineAddr>> Tables<'m, M> {
    fn new(mem: &'m M) -> Self {
        Self {
            mem,
            read: HashSet::new(),
            absent: HashSet::new(),
        }
    }

    /// Reads a table; false if it is absent, or was read before at this level.
    fn read(&mut self, depth: usize, table: MachineAddr, page: &mut [u8; PAGE_SIZE]) -> bool {
        if self.read.contains(&(depth, table)) || self.absent.contains(&table) {
            return false;
        }
        if self.mem.read(table, page).is_ok() {
            return alloc::insert(&mut self.read, (depth, table));
        }
        // Further ones are looked up again for each entry that refers to them.
        if (self.absent.len() as u64) < self.mem.pages_held() {
            alloc::insert(&mut self.absent, table);
        }
        false
    }
}

/// The tables below `root` that can be read, each level of a table once, in the order of a walk; `f`
/// gets their address and level and decides whether to go on.
fn for_each_table<M: Memory<MachineAddr>>(
    mem: &M,
    nested: &NestedFormat,
    root: MachineAddr,
    mut f: impl FnMut(MachineAddr, u8) -> bool,
) {
    let format = &nested.format;
    let mut tables = Tables::new(mem);
    let mut open = vec![(0, root)];
    while let Some((depth, table)) = open.pop() {
        let Some(level) = format.levels.get(depth) else {
            continue;
        };
        let mut page = [0; PAGE_SIZE];
        if !tables.read(depth, table, &mut page) {
            continue;
        }
        if !f(table, level.number) {
            return;
        }
        if level.number == 1 {
            continue;
        }
        // At most the entries of one table of each level are open.
        let (entries, _) = page.as_chunks();
        for raw in entries.iter().rev() {
            if let Target::Table(next) = format.target(level, u64::from_le_bytes(*raw)) {
                alloc::push(&mut open, (depth + 1, next));
            }
        }
    }
}

/// One more than the last pfn that is not invalid, searched from the end; each level of a table is
/// read once.
fn end_of<M: Memory<MachineAddr>>(mem: &M, nested: &NestedFormat, root: MachineAddr) -> u64 {
    last_in(nested, 0, root, &mut Tables::new(mem)).map_or(0, |last| last + 1)
}

/// The last pfn below a table that is not invalid, relative to the first; `None` if there is none, as in
/// all tables that were read before.
fn last_in<M: Memory<MachineAddr>>(
    nested: &NestedFormat,
    depth: usize,
    table: MachineAddr,
    tables: &mut Tables<'_, M>,
) -> Option<u64> {
    let level = nested.format.levels.get(depth)?;
    let mut page = [0; PAGE_SIZE];
    if !tables.read(depth, table, &mut page) {
        return None;
    }
    let span = level.span() >> PAGE_SHIFT;
    let (entries, _) = page.as_chunks();
    for (index, raw) in entries.iter().enumerate().rev() {
        let raw = u64::from_le_bytes(*raw);
        let first = index as u64 * span;
        if level.number == 1 {
            if decode(nested, raw) != Entry::Special(Special::Invalid) {
                return Some(first);
            }
            continue;
        }
        match nested.format.target(level, raw) {
            Target::Table(next) => {
                if let Some(last) = last_in(nested, depth + 1, next, tables) {
                    return Some(first + last);
                }
            }
            Target::Page(_) => return Some(first + span - 1),
            Target::Absent if decode(nested, raw) != Entry::Special(Special::Invalid) => {
                return Some(first + span - 1)
            }
            Target::Absent | Target::Reserved => {}
        }
    }
    None
}

impl<M: Memory<MachineAddr>> P2m<M> {
    /// The page tables at `root`. Fails if that page is not in `mem`, or if nothing is mapped.
    ///
    /// Pfns from [`MAX_P2M_PAGES`] on are ignored: no guest has that many.
    pub fn nested(mem: M, root: Mfn, format: &'static NestedFormat) -> Result<Self> {
        let addr = root
            .addr()
            .ok_or_else(|| Error::Absent(format!("no frame has mfn {:#x}", root.0)))?;
        mem.read(addr, &mut [0; PAGE_SIZE])
            .map_err(|fault| Error::Memory {
                what: "root of the nested page tables".into(),
                fault,
            })?;
        let pages = end_of(&mem, format, addr).min(MAX_P2M_PAGES);
        if pages == 0 {
            let text = format!("the tables at mfn {:#x} map no page", root.0);
            return Err(Error::Absent(text));
        }
        let directory = Directory::Nested { format, root: addr };
        let entries = Entries::Pages {
            directory,
            leaves: Leaves::new(pages.div_ceil(TABLE_ENTRIES)),
        };
        Ok(Self {
            mem,
            source: Source::Nested,
            word: Word::W64,
            coding: Coding::Nested(format),
            pages,
            entries,
            bias: 0,
            packed: Packed::new(pages),
            reverse: OnceLock::new(),
        })
    }

    fn as_nested(&self) -> Option<(&'static NestedFormat, MachineAddr)> {
        match self.entries {
            Entries::Pages {
                directory: Directory::Nested { format, root },
                ..
            } => Some((format, root)),
            _ => None,
        }
    }

    /// The layout of its page tables; `None` if it has none.
    pub fn nested_format(&self) -> Option<&'static NestedFormat> {
        self.as_nested().map(|(format, _)| format)
    }

    /// The frames of its page tables that can be read, the first `limit` ones; empty if it has none.
    pub fn tables(&self, limit: usize) -> Vec<Mfn> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        if let Some((format, root)) = self.as_nested() {
            for_each_table(&self.mem, format, root, |table, _| {
                if found.len() < limit && alloc::insert(&mut seen, table) {
                    alloc::push(&mut found, table.frame());
                }
                found.len() < limit
            });
        }
        found
    }

    /// Calls `step` with the entries that a walk of its page tables reads for a pfn. The result is
    /// Xen's type of the page, if the entry has one.
    pub fn walk_nested(&self, pfn: Pfn, mut step: impl FnMut(Step)) -> Option<P2mType> {
        let (nested, root) = self.as_nested()?;
        let addr = pfn.addr()?;
        let mut last = None;
        let walked = walk_steps(&self.mem, &nested.format, root, VirtAddr(addr.0), |at| {
            last = Some(at.entry);
            step(at);
        });
        match walked {
            Ok(_) | Err(Fault::NotPresent { .. }) => last
                .filter(|raw| *raw != 0)
                .and_then(|raw| nested.page_type(raw)),
            Err(_) => None,
        }
    }
}
