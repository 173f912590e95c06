//! Finds the pages of a P2M, by source.

use super::leaf::{Leaf, Origin};
use super::nested;
use crate::addr::{Address, MachineAddr, Mfn, VirtAddr, Word, PAGE_SIZE};
use crate::memory::{Fault, Memory};
use crate::paging::{walk, walk_to_last, Format, Last, NestedFormat};

/// How a P2M was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The array to which a kernel's own pointer points, under a dom0 root
    /// (`phys_to_machine_mapping` before pvops, `xen_p2m_addr` since Linux 3.19).
    Cr3,
    /// The frame-list tree: `pfn_to_mfn_frame_list_list` of CRASH_INFO or shared_info.
    FrameList,
    /// The linear list that a guest publishes in shared_info: `p2m_vaddr` under `p2m_cr3`.
    Linear,
    /// The kernel's own tree of pointers, `p2m_top`: two levels in Linux 2.6.27 to 2.6.36, three in
    /// 2.6.37 to 3.18.
    PvopsTree,
    /// The pairs that a container lists (`.xen_p2m` of xl dump-core).
    Container,
    /// Xen's own page tables of a translated guest (HVM, PVH).
    Nested,
}

impl Source {
    /// Its name in options and output.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Cr3 => "cr3",
            Source::FrameList => "list",
            Source::Linear => "linear",
            Source::PvopsTree => "pvops-tree",
            Source::Container => "dump-core",
            Source::Nested => "nested",
        }
    }

    /// The source of this name.
    pub fn by_name(name: &str) -> Option<Source> {
        [
            Source::Cr3,
            Source::FrameList,
            Source::Linear,
            Source::PvopsTree,
            Source::Container,
            Source::Nested,
        ]
        .into_iter()
        .find(|source| source.name() == name)
    }
}

/// The data structure that leads to the pages of a P2M.
#[derive(Clone, Copy, Debug)]
pub(super) enum Directory {
    /// A page of mfns of pages of mfns of P2M pages.
    FrameList { list_list: Mfn, word: Word },
    /// An array at a virtual address, which is that of its first page.
    Linear {
        format: Format,
        root: MachineAddr,
        base: VirtAddr,
    },
    /// Arrays of pointers to arrays of pointers to P2M pages.
    Pointers {
        format: Format,
        root: MachineAddr,
        top: VirtAddr,
        levels: u8,
        word: Word,
    },
    /// Page tables, whose last level are the pages.
    Nested {
        format: &'static NestedFormat,
        root: MachineAddr,
    },
}

impl Directory {
    /// The page of mfns in a slot of a frame-list tree.
    pub(super) fn frames<M: Memory<MachineAddr>>(&self, mem: &M, slot: u64) -> Option<Mfn> {
        match *self {
            Directory::FrameList { list_list, word } => mfn_in(mem, list_list, slot, word),
            _ => None,
        }
    }

    /// The origin of the P2M page with this number, and the number of the first page with a different
    /// origin. An origin covers up to one page per entry of a table, so a P2M has few origins, regardless of the
    /// size that it claims.
    pub(super) fn origin<M: Memory<MachineAddr>>(&self, mem: &M, number: u64) -> (Origin, u64) {
        match *self {
            Directory::FrameList { list_list, word } => {
                let per_page = (PAGE_SIZE / word.bytes()) as u64;
                let (slot, index) = (number / per_page, number % per_page);
                if slot >= per_page {
                    return (Origin::Missing, u64::MAX);
                }
                let frames = mfn_in(mem, list_list, slot, word).and_then(Mfn::addr);
                let origin = frames
                    .filter(|frames| mem.may_hold(*frames, PAGE_SIZE as u64))
                    .map_or(Origin::Missing, |frames| {
                        Origin::Table(MachineAddr(frames.0 + index * word.bytes() as u64))
                    });
                (origin, (slot + 1) * per_page)
            }
            Directory::Linear { format, root, base } => {
                let Some(addr) = page_of(base, number) else {
                    return (Origin::Missing, u64::MAX);
                };
                let Some(level) = format.levels.last() else {
                    return (Origin::Missing, u64::MAX);
                };
                let span = level.span() << level.bits;
                let left = span - (addr.0 & (span - 1));
                let until = number.saturating_add(left / PAGE_SIZE as u64);
                match walk_to_last(mem, &format, root, addr) {
                    Ok(Last::Table(table)) => {
                        let size = u64::from(level.entries()) * format.entry.bytes() as u64;
                        let entry = format.entry_addr(table, level.index(addr));
                        let held = mem.may_hold(table, size);
                        (
                            if held {
                                Origin::Table(entry)
                            } else {
                                Origin::Missing
                            },
                            until,
                        )
                    }
                    Ok(Last::Page(page)) if mem.may_hold(page, left) => {
                        (Origin::Contiguous(page), until)
                    }
                    Ok(Last::Page(_)) => (Origin::Missing, until),
                    Err(fault) => (Origin::Missing, next_mapped(&format, addr, number, &fault)),
                }
            }
            // A tree has few pages: see `P2m::pvops_tree`.
            Directory::Pointers { .. } => (Origin::Unknown, u64::MAX),
            Directory::Nested { format, root } => nested::origin(mem, format, root, number),
        }
    }

    /// The P2M page with this number.
    pub(super) fn leaf<M: Memory<MachineAddr>>(&self, mem: &M, number: u64) -> Leaf {
        match *self {
            Directory::FrameList { list_list, word } => {
                let per_page = (PAGE_SIZE / word.bytes()) as u64;
                let (slot, index) = (number / per_page, number % per_page);
                if slot >= per_page {
                    return Leaf::Missing { until: u64::MAX };
                }
                let Some(frames) = mfn_in(mem, list_list, slot, word) else {
                    return Leaf::Missing {
                        until: (slot + 1) * per_page,
                    };
                };
                match mfn_in(mem, frames, index, word) {
                    Some(leaf) => Leaf::Page(leaf),
                    None => Leaf::Missing { until: number + 1 },
                }
            }
            Directory::Linear { format, root, base } => {
                let Some(page) = page_of(base, number) else {
                    return Leaf::Missing { until: u64::MAX };
                };
                page_at(mem, &format, root, page, number)
            }
            Directory::Pointers {
                format,
                root,
                top,
                levels,
                word,
            } => {
                let per_page = (PAGE_SIZE / word.bytes()) as u64;
                let next = Leaf::Missing { until: number + 1 };
                let (mut table, mut index) = (top, number);
                if levels == 3 {
                    let Some(middle) = pointer(mem, &format, root, top, number / per_page, word)
                    else {
                        return Leaf::Missing {
                            until: (number / per_page + 1) * per_page,
                        };
                    };
                    (table, index) = (middle, number % per_page);
                }
                match pointer(mem, &format, root, table, index, word) {
                    Some(page) => match page_at(mem, &format, root, page, number) {
                        Leaf::Page(leaf) => Leaf::Page(leaf),
                        _ => next,
                    },
                    None => next,
                }
            }
            Directory::Nested { format, root } => nested::leaf(mem, format, root, number),
        }
    }
}

/// The mfn at `index` of a page of mfns; `None` if it is unused (0 in classic kernels), out of range
/// or unreadable.
fn mfn_in<M: Memory<MachineAddr>>(mem: &M, page: Mfn, index: u64, word: Word) -> Option<Mfn> {
    let at = page.addr()?.0.checked_add(index * word.bytes() as u64)?;
    let mfn = mem.read_word(MachineAddr(at), word).ok()?;
    (mfn != 0 && mfn != word.max() && Mfn(mfn).addr().is_some()).then_some(Mfn(mfn))
}

/// The address of a page of an array.
fn page_of(base: VirtAddr, number: u64) -> Option<VirtAddr> {
    let offset = number.checked_mul(PAGE_SIZE as u64)?;
    base.0.checked_add(offset).map(VirtAddr)
}

/// The frame of the page at `addr`; missing if it is not page-aligned.
fn page_at<M: Memory<MachineAddr>>(
    mem: &M,
    format: &Format,
    root: MachineAddr,
    addr: VirtAddr,
    number: u64,
) -> Leaf {
    match walk(mem, format, root, addr) {
        Ok(mapping) if mapping.machine.page_offset() == 0 => Leaf::Page(mapping.machine.frame()),
        Err(fault) => Leaf::Missing {
            until: next_mapped(format, addr, number, &fault),
        },
        Ok(_) => Leaf::Missing { until: number + 1 },
    }
}

/// The number of the first page after the one at `addr` that this fault does not cover. Nothing else
/// below the same entry is mapped, so holes of a list are skipped quickly.
fn next_mapped(format: &Format, addr: VirtAddr, number: u64, fault: &Fault) -> u64 {
    let page = PAGE_SIZE as u64;
    let span = match *fault {
        Fault::NotPresent { level, .. }
        | Fault::Reserved { level, .. }
        | Fault::NoTable { level, .. } => {
            let level = format.levels.iter().find(|l| l.number == level);
            level.map_or(page, |level| level.span())
        }
        // No list extends across non-canonical addresses.
        Fault::NonCanonical(_) => return u64::MAX,
        _ => page,
    };
    let left = span - (addr.0 & (span - 1));
    number.saturating_add((left / page).max(1))
}

/// A pointer in an array; `None` for null.
fn pointer<M: Memory<MachineAddr>>(
    mem: &M,
    format: &Format,
    root: MachineAddr,
    array: VirtAddr,
    index: u64,
    word: Word,
) -> Option<VirtAddr> {
    let at = index
        .checked_mul(word.bytes() as u64)
        .and_then(|offset| array.0.checked_add(offset))?;
    let at = walk(mem, format, root, VirtAddr(at)).ok()?.machine;
    let value = mem.read_word(at, word).ok()?;
    (value != 0).then_some(VirtAddr(value))
}
