//! The ranges that page tables map.

use std::collections::HashSet;

use super::format::Target;
use super::{Flags, Format, Level, Step};
use crate::addr::{MachineAddr, VirtAddr, PAGE_SIZE};
use crate::alloc;
use crate::memory::{Fault, Memory};

/// Pages of one size and one set of flags that are contiguous in both addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedRange {
    /// The first virtual address.
    pub addr: VirtAddr,
    /// Its machine address.
    pub machine: MachineAddr,
    /// Length in bytes.
    pub len: u64,
    /// Size of the pages in bytes.
    pub page_size: u64,
    /// [`Flags::ATTRIBUTES`] of the pages.
    pub flags: Flags,
}

impl MappedRange {
    /// Extends the range by `next` if it is adjacent.
    fn join(&mut self, next: &MappedRange) -> bool {
        let joins = self.addr.0.checked_add(self.len) == Some(next.addr.0)
            && self.machine.0.checked_add(self.len) == Some(next.machine.0)
            && self.page_size == next.page_size
            && self.flags == next.flags;
        if joins {
            // Both end within the address space: the last address fits in 64 bits.
            self.len = self.len.saturating_add(next.len);
        }
        joins
    }
}

/// A table that is being read.
struct Open {
    /// Address of the table.
    table: MachineAddr,
    bytes: Box<[u8; PAGE_SIZE]>,
    /// Index of the next entry, and of the last one in the requested range.
    next: u16,
    last: u16,
    /// The combined permissions of the levels above.
    above: Flags,
    /// The address that entry 0 maps, before sign extension.
    base: u64,
    /// The first entry that cannot be read, if the dump holds only a part of the table.
    lost: Option<u16>,
    /// The requested range covers the whole table, and no page was found so far.
    empty: bool,
}

/// The ranges that page tables map, in ascending order; see [`super::Virtual::mapped`].
///
/// A table that is not in the dump yields an `Err` in place of its ranges. A table of which the dump
/// holds a part yields an `Err` in place of the first entry that cannot be read. Ranges are found on
/// demand. The work between two items is bounded by the size of memory even if tables map themselves
/// at every level: a table below which nothing is mapped is read once, and its fault is reported once.
pub struct Mapped<M> {
    mem: M,
    format: Format,
    /// Tables from the root down to the current one; empty before the start and at the end.
    open: Vec<Open>,
    spare: Vec<Box<[u8; PAGE_SIZE]>>,
    root: Option<MachineAddr>,
    /// First and last requested address, before sign extension.
    requested: (u64, u64),
    /// Tables below which nothing is mapped, with their levels.
    empty: HashSet<(u8, MachineAddr)>,
    pending: Option<MappedRange>,
    fault: Option<Fault>,
}

impl<M: Memory<MachineAddr>> Mapped<M> {
    pub(super) fn new(
        mem: M,
        format: Format,
        root: MachineAddr,
        first: VirtAddr,
        last: VirtAddr,
    ) -> Self {
        let requested = requested(&format, first, last);
        Self {
            mem,
            format,
            open: alloc::with_capacity(format.levels.len()),
            spare: Vec::new(),
            root: requested.map(|_| format.root(root)),
            requested: requested.unwrap_or_default(),
            empty: HashSet::new(),
            pending: None,
            fault: None,
        }
    }

    /// Opens a table of the level at `depth`.
    fn enter(&mut self, depth: usize, table: MachineAddr, above: Flags, base: u64) {
        let Some(level) = self.format.levels.get(depth) else {
            return;
        };
        if self.empty.contains(&(level.number, table)) {
            return;
        }
        let mut bytes = self.spare.pop().unwrap_or_else(|| Box::new([0; PAGE_SIZE]));
        let size = usize::from(level.entries()) * self.format.entry.bytes();
        let Some(part) = bytes.get_mut(..size) else {
            return;
        };
        let next = level.index(VirtAddr(base.max(self.requested.0)));
        let end = base | (level.span() - 1) | ((u64::from(level.entries()) - 1) << level.shift);
        let last = level.index(VirtAddr(end.min(self.requested.1)));
        let mut lost = None;
        if self.mem.read(table, part).is_err() {
            if !self.mem.may_hold(table, size as u64) {
                self.fault = Some(Fault::NoTable {
                    addr: self.format.canonical(base.max(self.requested.0)),
                    level: level.number,
                    table,
                });
                self.spare.push(bytes);
                return;
            }
            // The dump holds a part of the table: return the same entries as single walks.
            lost = read_in_part(&self.mem, table, part, self.format.entry.bytes())
                .filter(|index| (next..=last).contains(index))
                .min();
        }
        self.open.push(Open {
            table,
            bytes,
            next,
            last,
            above,
            base,
            lost,
            empty: next == 0 && last == level.entries() - 1,
        });
    }

    /// Marks all open tables as not empty.
    fn found(&mut self) {
        for open in &mut self.open {
            open.empty = false;
        }
    }

    /// Reads the next entry of the lowest open table; returns the page if it maps one.
    fn advance(&mut self) -> Option<MappedRange> {
        let depth = self.open.len().checked_sub(1)?;
        let level = self.format.levels.get(depth)?;
        let open = self.open.last_mut()?;
        if open.next > open.last {
            self.leave(level);
            return None;
        }
        let index = open.next;
        open.next += 1;
        let (table, above) = (open.table, open.above);
        let base = open.base | u64::from(index) << level.shift;
        if open.lost == Some(index) {
            self.fault = Some(Fault::NoTable {
                addr: self.format.canonical(base.max(self.requested.0)),
                level: level.number,
                table,
            });
            return None;
        }
        let at = usize::from(index) * self.format.entry.bytes();
        let entry = open
            .bytes
            .get(at..)
            .and_then(|bytes| self.format.entry.get(bytes))?;
        match self.format.target(level, entry) {
            Target::Absent => None,
            Target::Reserved => {
                let step = Step {
                    level: level.number,
                    table,
                    index,
                    entry,
                };
                self.fault = Some(step.reserved(self.format.canonical(base)));
                None
            }
            Target::Table(next) => {
                let above = Format::combine(level, above, entry);
                self.enter(depth + 1, next, above, base);
                None
            }
            Target::Page(page) => {
                self.found();
                let skipped = self.requested.0.saturating_sub(base);
                let last = (base | (level.span() - 1)).min(self.requested.1);
                Some(MappedRange {
                    addr: self.format.canonical(base + skipped),
                    machine: MachineAddr(page.0 + skipped),
                    len: last - (base + skipped) + 1,
                    page_size: level.span(),
                    flags: Format::flags(level, above, entry).and(Flags::ATTRIBUTES),
                })
            }
        }
    }

    fn leave(&mut self, level: &Level) {
        if let Some(open) = self.open.pop() {
            if open.empty {
                alloc::insert(&mut self.empty, (level.number, open.table));
            }
            self.spare.push(open.bytes);
        }
    }
}

impl<M: Memory<MachineAddr>> Iterator for Mapped<M> {
    type Item = Result<MappedRange, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(root) = self.root.take() {
            self.enter(0, root, Format::OPEN, 0);
        }
        loop {
            if self.fault.is_some() {
                // The range before the fault is returned first.
                if let Some(range) = self.pending.take() {
                    return Some(Ok(range));
                }
                return self.fault.take().map(Err);
            }
            if self.open.is_empty() {
                return self.pending.take().map(Ok);
            }
            let Some(range) = self.advance() else {
                continue;
            };
            let joined = self.pending.as_mut().is_some_and(|p| p.join(&range));
            if !joined {
                if let Some(done) = self.pending.replace(range) {
                    return Some(Ok(done));
                }
            }
        }
    }
}

/// Reads the entries of `size` bytes of a table that can be read, and clears the others; returns their
/// indices.
fn read_in_part(
    mem: &impl Memory<MachineAddr>,
    table: MachineAddr,
    bytes: &mut [u8],
    size: usize,
) -> impl Iterator<Item = u16> {
    let end = bytes.len();
    let offset = |addr: u64| usize::try_from(addr - table.0).map_or(end, |at| at.min(end));
    let mut gaps = Vec::new();
    let mut at = 0;
    while at < end {
        let next = mem.next_held(MachineAddr(table.0 + at as u64));
        let (from, to) = next.map_or((end, end), |(start, last)| {
            (offset(start.0), offset(last.0.saturating_add(1)))
        });
        gaps.push(at..from);
        let run = bytes.get_mut(from..to).unwrap_or_default();
        if mem.read(MachineAddr(table.0 + from as u64), run).is_err() {
            // The file was truncated since it was opened, or has an I/O error.
            for entry in (from / size * size..to).step_by(size) {
                let range = entry..entry + size;
                let slot = bytes.get_mut(range.clone()).unwrap_or_default();
                if mem.read(MachineAddr(table.0 + entry as u64), slot).is_err() {
                    gaps.push(range);
                }
            }
        }
        at = to;
    }
    gaps.retain(|gap| !gap.is_empty());
    for gap in &mut gaps {
        *gap = gap.start / size * size..gap.end.next_multiple_of(size);
        bytes.get_mut(gap.clone()).unwrap_or_default().fill(0);
    }
    gaps.into_iter()
        .flat_map(move |gap| gap.step_by(size))
        .filter_map(move |at| u16::try_from(at / size).ok())
}

/// The requested range before sign extension; `None` if it has no canonical address.
fn requested(format: &Format, first: VirtAddr, last: VirtAddr) -> Option<(u64, u64)> {
    let mask = u64::MAX >> (64 - format.width);
    // The last address before and the first one after the non-canonical hole.
    let (hole, after) = if format.sign_extended {
        (mask >> 1, !(mask >> 1))
    } else {
        (mask, u64::MAX)
    };
    let first = match first.0 {
        low if low <= hole => low,
        high if format.sign_extended => high.max(after) & mask,
        _ => return None,
    };
    let last = match last.0 {
        high if format.sign_extended && high >= after => high & mask,
        low => low.min(hole),
    };
    (first <= last).then_some((first, last))
}
