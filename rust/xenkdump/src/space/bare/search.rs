//! Which pages of a PV domain are page tables.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::level;
use crate::addr::{Address, MachineAddr, Mfn, Pfn, VirtAddr, Word, PAGE_SIZE};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::{MAX_SAMPLED_TABLES, MAX_SMALL_TABLES};
use crate::memory::Memory;
use crate::p2m::{Entry, FrameRuns, P2m};
use crate::paging::{Format, Level, Target};

/// Xen's frame table: an array of `struct page_info`, by mfn.
#[derive(Clone, Copy, Debug)]
pub struct FrameTable<S> {
    /// Xen's virtual memory.
    pub memory: S,
    /// Its address.
    pub base: VirtAddr,
    /// Number of frames.
    pub frames: u64,
    /// Size of an element.
    pub size: u64,
    /// Offset of `u.inuse.type_info`.
    pub type_info: u64,
    /// Size of `type_info`.
    pub word: Word,
}

/// The page tables of a PV domain.
#[derive(Clone, Debug, Default)]
pub struct PageTables {
    /// The pages with their levels, ascending by pfn.
    pub tables: Vec<(Pfn, u8)>,
    /// Tables that do not fill their page, by pfn: the parts of 32 bytes that are tables (PAE, level 3).
    pub parts: HashMap<Pfn, u128>,
    /// How many the walk from the roots found.
    pub walked: u64,
    /// How many the frame table has; `None` if it was not used.
    pub typed: Option<u64>,
    /// How many have another level in the frame table than where the walk found them.
    pub conflicts: u64,
    /// How many are below a table that the frame table has, but are none themselves in it. Xen lets no
    /// table refer to such a page.
    pub untyped: u64,
    /// How many of the walk could not be read.
    pub unreadable: u64,
    /// Roots that are no frames of the domain.
    pub foreign_roots: u64,
    /// Elements of the frame table that could not be read.
    pub unread: u64,
    /// Whether the search ended early, because more tables were found than the dump can hold.
    pub exhausted: bool,
}

/// A table that the walk found.
struct Walked {
    level: u8,
    /// The table with the first entry that leads to it.
    parent: Option<Pfn>,
}

/// Finds the page tables of the domain with this P2M: below the `roots`, and by the frame table.
pub fn find<M, S>(
    p2m: &Arc<P2m<M>>,
    format: &Format,
    roots: &[MachineAddr],
    frame_table: Option<&FrameTable<S>>,
) -> PageTables
where
    M: Memory<MachineAddr>,
    S: Memory<VirtAddr>,
{
    let mut found = PageTables::default();
    let limit = p2m.memory().pages_held().saturating_add(MAX_SMALL_TABLES);
    let walked = walk(p2m, format, roots, limit, &mut found);
    found.walked = walked.len() as u64;
    let typed = frame_table.and_then(|table| typed(p2m, format, table, &walked, limit, &mut found));
    found.typed = typed.as_ref().map(|typed| typed.len() as u64);
    if let Some(typed) = &typed {
        for (pfn, at) in &walked {
            match typed.get(pfn) {
                Some(level) if *level != at.level => found.conflicts += 1,
                Some(_) => {}
                None => {
                    let above = at.parent.and_then(|parent| typed.get(&parent));
                    found.untyped += u64::from(above == Some(&(at.level + 1)));
                }
            }
        }
    }
    let mut levels = typed.unwrap_or_default();
    for (pfn, at) in walked {
        // What Xen verified comes first.
        alloc::insert_missing(&mut levels, pfn, at.level);
    }
    if format.levels.first().is_some_and(is_part) {
        for (pfn, level) in &levels {
            if level_is_part(format, *level) {
                // Xen takes a page for one table, at its start.
                alloc::insert_missing(&mut found.parts, *pfn, 1);
            }
        }
    }
    let is_part_of = |pfn: &Pfn| levels.get(pfn).is_some_and(|n| level_is_part(format, *n));
    found.parts.retain(|pfn, _| is_part_of(pfn));
    found.tables = alloc::collect(levels);
    found.tables.sort_unstable();
    found
}

/// Whether tables of a level are smaller than a page.
fn is_part(level: &Level) -> bool {
    level.bits == 2
}

fn level_is_part(format: &Format, number: u8) -> bool {
    level(format, number).is_some_and(is_part)
}

/// Walks the tables below the roots, one level after the other. A page that is a table of a higher level
/// is no other: Xen's linear page tables lead back to it.
fn walk<M: Memory<MachineAddr>>(
    p2m: &P2m<M>,
    format: &Format,
    roots: &[MachineAddr],
    limit: u64,
    found: &mut PageTables,
) -> HashMap<Pfn, Walked> {
    let budget = Budget::new("page tables", limit);
    let mut walked: HashMap<Pfn, Walked> = HashMap::new();
    let mut seen = HashSet::new();
    let mut tables: Vec<(MachineAddr, Pfn, Option<Pfn>)> = Vec::new();
    for root in roots {
        let root = format.root(*root);
        match p2m.reverse(root.frame()) {
            None => found.foreign_roots += 1,
            Some(pfn) => {
                if alloc::insert(&mut seen, root) {
                    alloc::push(&mut tables, (root, pfn, None));
                }
            }
        }
    }
    for (depth, level) in format.levels.iter().enumerate() {
        let mut below = Vec::new();
        for (table, pfn, parent) in tables {
            if walked
                .get(&pfn)
                .is_some_and(|known| known.level != level.number)
            {
                continue;
            }
            if budget.spend(1).is_err() {
                found.exhausted = true;
                return walked;
            }
            let at = Walked {
                level: level.number,
                parent,
            };
            alloc::insert_missing(&mut walked, pfn, at);
            if is_part(level) {
                *alloc::entry(&mut found.parts, pfn) |= 1 << (table.page_offset() / 32);
            }
            if depth + 1 == format.levels.len() {
                continue;
            }
            let whole = for_each_entry(p2m.memory(), format, level, table, |entry| {
                let Target::Table(next) = format.target(level, entry) else {
                    return;
                };
                if !seen.contains(&next) {
                    if let Some(child) = p2m.reverse(next.frame()) {
                        alloc::insert(&mut seen, next);
                        alloc::push(&mut below, (next, child, Some(pfn)));
                    }
                }
            });
            found.unreadable += u64::from(!whole);
        }
        tables = below;
    }
    walked
}

/// Calls `f` with every entry of a table that can be read; whether all can.
fn for_each_entry<M: Memory<MachineAddr>>(
    mem: &M,
    format: &Format,
    level: &Level,
    table: MachineAddr,
    mut f: impl FnMut(u64),
) -> bool {
    let size = format.entry.bytes();
    let mut copy = [0; PAGE_SIZE];
    let bytes = copy
        .get_mut(..usize::from(level.entries()) * size)
        .unwrap_or_default();
    if mem.read(table, bytes).is_ok() {
        bytes
            .chunks_exact(size)
            .filter_map(|raw| format.entry.get(raw))
            .for_each(f);
        return true;
    }
    for index in 0..level.entries() {
        if let Ok(entry) = mem.read_word(format.entry_addr(table, index), format.entry) {
            f(entry);
        }
    }
    false
}

/// The tables according to the frame table; `None` if its elements do not agree with the walk: Xen's
/// layout is another.
fn typed<M: Memory<MachineAddr>, S: Memory<VirtAddr>>(
    p2m: &Arc<P2m<M>>,
    format: &Format,
    table: &FrameTable<S>,
    walked: &HashMap<Pfn, Walked>,
    limit: u64,
    found: &mut PageTables,
) -> Option<HashMap<Pfn, u8>> {
    let types = table.types(p2m, walked)?;
    let budget = Budget::new("page tables", limit);
    let mut tables = HashMap::new();
    let mut page = [0; PAGE_SIZE];
    for run in FrameRuns::new(p2m.clone(), Pfn(0), Pfn(u64::MAX)) {
        let mut done = 0;
        while done < run.count {
            let (mfn, pfn) = (Mfn(run.mfn.0 + done), Pfn(run.pfn.0 + done));
            let (count, bytes) = table.elements(mfn, run.count - done, &mut page);
            done += count;
            let Some(bytes) = bytes else {
                found.unread += count;
                continue;
            };
            let size = table.size as usize;
            for (element, number) in bytes.chunks_exact(size).zip(pfn.0..) {
                let Some(level) = types.level(table, element).filter(|level| {
                    // The formats have levels without gaps.
                    usize::from(*level) <= format.levels.len()
                }) else {
                    continue;
                };
                if budget.spend(1).is_err() {
                    found.exhausted = true;
                    return Some(tables);
                }
                alloc::insert_at(&mut tables, Pfn(number), level);
            }
        }
    }
    Some(tables)
}

/// The coding of types in `type_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Types {
    /// Width of the type, in the highest bits: 3, or 4 in some versions of Xen.
    bits: u32,
}

impl Types {
    /// The level of the page table that an element describes, if it does and is in use.
    fn level<S>(self, table: &FrameTable<S>, element: &[u8]) -> Option<u8> {
        let at = usize::try_from(table.type_info).ok()?;
        let info = table.word.get(element.get(at..)?)?;
        // The count is in the lowest bits. Xen has flags between it and the type.
        let (width, count) = match table.word {
            Word::W32 => (32, info & 0xffff),
            Word::W64 => (64, info & 0xffff_ffff),
        };
        let kind = info >> (width - self.bits);
        (count != 0 && (1..=4).contains(&kind)).then_some(kind as u8)
    }
}

impl<S: Memory<VirtAddr>> FrameTable<S> {
    /// The elements from that of `mfn` on, at most `count`, within one page of the table. Returns their number
    /// and their bytes; `None` if these cannot be read.
    fn elements<'p>(
        &self,
        mfn: Mfn,
        count: u64,
        page: &'p mut [u8; PAGE_SIZE],
    ) -> (u64, Option<&'p [u8]>) {
        let offset = mfn.0.checked_mul(self.size);
        let addr = offset.and_then(|offset| self.base.checked_add(offset));
        let Some(addr) = addr.filter(|_| mfn.0 < self.frames && self.size > 0) else {
            return (count, None);
        };
        let left = (PAGE_SIZE - addr.page_offset()) as u64;
        let count = (left / self.size)
            .max(1)
            .min(count)
            .min(self.frames - mfn.0);
        // At most a page, and so is an element that is in two of them.
        let bytes = page.get_mut(..count.saturating_mul(self.size) as usize);
        let read = bytes.and_then(|bytes| {
            self.memory.read(addr, bytes).ok()?;
            Some(&*bytes)
        });
        (count, read)
    }

    /// The coding of types that agrees with the walk.
    fn types<M: Memory<MachineAddr>>(
        &self,
        p2m: &P2m<M>,
        walked: &HashMap<Pfn, Walked>,
    ) -> Option<Types> {
        let codings = [Types { bits: 3 }, Types { bits: 4 }];
        let mut equal = [0_usize; 2];
        let mut sampled = 0;
        let mut page = [0; PAGE_SIZE];
        for (pfn, at) in walked.iter().take(MAX_SAMPLED_TABLES) {
            let Entry::Frame(mfn) = p2m.resolve(*pfn) else {
                continue;
            };
            let (_, Some(element)) = self.elements(mfn, 1, &mut page) else {
                continue;
            };
            sampled += 1;
            for (types, equal) in codings.iter().zip(&mut equal) {
                *equal += usize::from(types.level(self, element) == Some(at.level));
            }
        }
        let best = codings
            .into_iter()
            .zip(equal)
            .max_by_key(|(_, equal)| *equal);
        best.filter(|(_, equal)| *equal * 2 > sampled)
            .map(|(types, _)| types)
    }
}
