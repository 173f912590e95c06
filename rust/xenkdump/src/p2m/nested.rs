//! Xen's P2M of a translated guest: page tables.
//!
//! Here a page of the P2M is a table of the last level, and its number is that of 2 MiB of memory.

use super::leaf::{Leaf, Origin};
use super::{checked, Entry, Special};
use crate::addr::{MachineAddr, Mfn, VirtAddr, PAGE_SHIFT, PAGE_SIZE};
use crate::memory::Memory;
use crate::paging::{Level, NestedFormat, P2mType, Target};

/// log2 of the entries of a table.
const TABLE_SHIFT: u32 = 9;
pub(super) const TABLE_ENTRIES: u64 = 1 << TABLE_SHIFT;
/// `INVALID_MFN` in an entry: all address bits.
const NO_FRAME: u64 = (1 << (52 - PAGE_SHIFT)) - 1;

/// Decodes an entry that may map a page: of the last level, or absent.
#[inline]
pub(super) fn decode(format: &NestedFormat, raw: u64) -> Entry {
    let invalid = Entry::Special(Special::Invalid);
    let mfn = Mfn((raw >> PAGE_SHIFT) & NO_FRAME);
    let Some(kind) = format.page_type(raw).filter(|_| raw != 0) else {
        return invalid;
    };
    let has_frame = mfn.0 != NO_FRAME;
    let is_mapped = format.is_present(raw) || format.maps_without_permissions;
    match kind {
        P2mType::Invalid => invalid,
        P2mType::MmioDm => Entry::Special(Special::Emulated),
        P2mType::PopulateOnDemand => Entry::Special(Special::PopulateOnDemand),
        P2mType::RamPaged | P2mType::RamPagingIn => Entry::Special(Special::PagedOut),
        // Not mapped any more, but the frame still has its content.
        P2mType::RamPagingOut if has_frame => checked(mfn),
        P2mType::RamPagingOut => Entry::Special(Special::PagedOut),
        _ if !is_mapped || !has_frame => invalid,
        P2mType::RamRw
        | P2mType::RamRo
        | P2mType::RamLogdirty
        | P2mType::RamShared
        | P2mType::IoreqServer => checked(mfn),
        P2mType::MmioDirect => Entry::Special(Special::Mmio(mfn)),
        P2mType::GrantMapRw | P2mType::GrantMapRo => Entry::Special(Special::Grant(mfn)),
        P2mType::MapForeign => Entry::Special(Special::Foreign(mfn)),
        P2mType::RamBroken => Entry::Special(Special::Broken(mfn)),
    }
}

/// The entry `count` pages after one in a large page.
pub(super) fn advance(entry: Entry, count: u64) -> Entry {
    let next = |mfn: Mfn| Mfn(mfn.0.saturating_add(count));
    match entry {
        Entry::Frame(mfn) => checked(next(mfn)),
        Entry::Special(special) => Entry::Special(match special {
            Special::Foreign(mfn) => Special::Foreign(next(mfn)),
            Special::Grant(mfn) => Special::Grant(next(mfn)),
            Special::Mmio(mfn) => Special::Mmio(next(mfn)),
            Special::Broken(mfn) => Special::Broken(next(mfn)),
            other => other,
        }),
    }
}

/// Where the walk to a table of the last level ends.
enum End<'f> {
    /// At the entry of this level.
    Entry(&'f Level, u64),
    /// The table of this level cannot be read.
    Lost(&'f Level),
}

/// Walks to the entry for page `number` at a level of `floor` or higher; `visit` gets the address of
/// each entry.
fn walk<'f, M: Memory<MachineAddr>>(
    mem: &M,
    nested: &'f NestedFormat,
    root: MachineAddr,
    number: u64,
    floor: u8,
    mut visit: impl FnMut(MachineAddr),
) -> Option<End<'f>> {
    let format = &nested.format;
    let addr = VirtAddr(number << (TABLE_SHIFT + PAGE_SHIFT));
    let mut table = root;
    let mut at = None;
    for level in format.levels.iter().filter(|level| level.number >= floor) {
        let slot = format.entry_addr(table, level.index(addr));
        visit(slot);
        let Ok(entry) = mem.read_word(slot, format.entry) else {
            return Some(End::Lost(level));
        };
        at = Some(End::Entry(level, entry));
        match format.target(level, entry) {
            Target::Table(next) => table = next,
            _ => return at,
        }
    }
    at
}

/// Number of the first page after `number` for which another entry of a level is read.
fn after(level: &Level, number: u64) -> u64 {
    let pages = (level.span() >> (TABLE_SHIFT + PAGE_SHIFT)).max(1);
    (number / pages + 1) * pages
}

/// The page with this number.
pub(super) fn leaf<M: Memory<MachineAddr>>(
    mem: &M,
    nested: &NestedFormat,
    root: MachineAddr,
    number: u64,
) -> Leaf {
    if is_past_end(nested, number) {
        return Leaf::Missing { until: u64::MAX };
    }
    let (level, raw) = match walk(mem, nested, root, number, 2, |_| ()) {
        Some(End::Entry(level, raw)) => (level, raw),
        Some(End::Lost(level)) => {
            // The whole table is missing, or only this entry.
            return Leaf::Missing {
                until: after(level, number),
            };
        }
        None => return Leaf::Missing { until: u64::MAX },
    };
    let until = after(level, number);
    match nested.format.target(level, raw) {
        Target::Table(table) => Leaf::Page(table.frame()),
        Target::Page(page) => {
            // Decoded with the address that the level has.
            let within = (number << TABLE_SHIFT) & ((level.span() >> PAGE_SHIFT) - 1);
            match decode(nested, raw & !ADDRESS | page.0) {
                Entry::Special(special) if special.mfn().is_none() => {
                    Leaf::Empty { special, until }
                }
                entry => Leaf::Large {
                    entry: advance(entry, within),
                    until,
                },
            }
        }
        Target::Absent => match decode(nested, raw) {
            Entry::Special(special) if special.mfn().is_none() => Leaf::Empty { special, until },
            // Only entries of the last level map a page without being present.
            _ => Leaf::Empty {
                special: Special::Invalid,
                until,
            },
        },
        Target::Reserved => Leaf::Missing { until },
    }
}

/// Address bits of an entry.
const ADDRESS: u64 = NO_FRAME << PAGE_SHIFT;

/// The origin of the page with this number: the entry that points to it.
pub(super) fn origin<M: Memory<MachineAddr>>(
    mem: &M,
    nested: &NestedFormat,
    root: MachineAddr,
    number: u64,
) -> (Origin, u64) {
    if is_past_end(nested, number) {
        return (Origin::Missing, u64::MAX);
    }
    let mut last = root;
    let end = walk(mem, nested, root, number, 2, |slot| last = slot);
    let Some(End::Entry(level, _) | End::Lost(level)) = end else {
        return (Origin::Missing, u64::MAX);
    };
    if level.number == 2 {
        let table = MachineAddr(last.0 & !(PAGE_SIZE as u64 - 1));
        let until = (number / TABLE_ENTRIES + 1) * TABLE_ENTRIES;
        return if mem.may_hold(table, PAGE_SIZE as u64) {
            (Origin::Table(last), until)
        } else {
            (Origin::Missing, until)
        };
    }
    let until = after(level, number);
    match leaf(mem, nested, root, number) {
        Leaf::Empty { special, .. } => (Origin::Empty(special), until),
        Leaf::Large { .. } => (Origin::Unknown, until),
        _ => (Origin::Missing, until),
    }
}

/// Whether a page is past the last one of a layout.
fn is_past_end(nested: &NestedFormat, number: u64) -> bool {
    number >> (nested.format.width - PAGE_SHIFT - TABLE_SHIFT) != 0
}
