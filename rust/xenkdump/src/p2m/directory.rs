//! Where the pages of a P2M lie, by source.

use crate::addr::{MachineAddr, Mfn, VirtAddr, Word, PAGE_SIZE};
use crate::memory::{Fault, Memory};
use crate::paging::{walk, Format};

/// How a P2M was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A dom0 root: the array that a kernel's own pointer names, walked page by page
    /// (`phys_to_machine_mapping` before pvops, `xen_p2m_addr` from Linux 3.19 on).
    Cr3,
    /// The frame-list tree: `pfn_to_mfn_frame_list_list` of CRASH_INFO or shared_info.
    FrameList,
    /// The linear list that a guest publishes in shared_info: `p2m_vaddr` under `p2m_cr3`.
    Linear,
    /// The kernel's own tree of pointers, `p2m_top`: two levels in Linux 2.6.27 to 2.6.36, three in
    /// 2.6.37 to 3.18.
    PvopsTree,
    /// The pairs that a container itself lists (xl dump-core's `.xen_p2m`).
    Container,
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
        ]
        .into_iter()
        .find(|source| source.name() == name)
    }
}

/// A page of a P2M.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// It is this frame.
    Page(Mfn),
    /// There is none, nor for the leaves after it up to this one.
    Missing {
        /// Number of the next leaf that is worth a look.
        until: u64,
    },
}

/// What is needed to find the pages of a P2M.
#[derive(Clone, Copy, Debug)]
pub(super) enum Directory {
    /// A page of mfns of pages of mfns of P2M pages.
    FrameList { list_list: Mfn, word: Word },
    /// An array at a virtual address (its page's).
    Linear {
        format: &'static Format,
        root: MachineAddr,
        base: VirtAddr,
    },
    /// Arrays of pointers to arrays of pointers to P2M pages.
    Pointers {
        format: &'static Format,
        root: MachineAddr,
        top: VirtAddr,
        levels: u8,
        word: Word,
    },
}

impl Directory {
    /// The page of frames in a slot of a frame-list tree.
    pub(super) fn frames<M: Memory<MachineAddr>>(&self, mem: &M, slot: u64) -> Option<Mfn> {
        match *self {
            Directory::FrameList { list_list, word } => mfn_in(mem, list_list, slot, word),
            _ => None,
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
                let page = number
                    .checked_mul(PAGE_SIZE as u64)
                    .and_then(|offset| base.0.checked_add(offset));
                let Some(page) = page else {
                    return Leaf::Missing { until: u64::MAX };
                };
                page_at(mem, format, root, VirtAddr(page), number)
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
                    let Some(middle) = pointer(mem, format, root, top, number / per_page, word)
                    else {
                        return Leaf::Missing {
                            until: (number / per_page + 1) * per_page,
                        };
                    };
                    (table, index) = (middle, number % per_page);
                }
                match pointer(mem, format, root, table, index, word) {
                    Some(page) => match page_at(mem, format, root, page, number) {
                        Leaf::Page(leaf) => Leaf::Page(leaf),
                        Leaf::Missing { .. } => next,
                    },
                    None => next,
                }
            }
        }
    }
}

/// The mfn at `index` of a page of mfns. Unused slots are 0 in classic kernels; a page that is not
/// there or an mfn that none can be are no better.
fn mfn_in<M: Memory<MachineAddr>>(mem: &M, page: Mfn, index: u64, word: Word) -> Option<Mfn> {
    let at = page.addr()?.0.checked_add(index * word.bytes() as u64)?;
    let mfn = mem.read_word(MachineAddr(at), word).ok()?;
    (mfn != 0 && mfn != word.max() && Mfn(mfn).addr().is_some()).then_some(Mfn(mfn))
}

/// The frame that holds the page at `addr`; a page that is not aligned is none.
fn page_at<M: Memory<MachineAddr>>(
    mem: &M,
    format: &Format,
    root: MachineAddr,
    addr: VirtAddr,
    number: u64,
) -> Leaf {
    let page = PAGE_SIZE as u64;
    match walk(mem, format, root, addr) {
        Ok(mapping) if mapping.machine.0 % page == 0 => Leaf::Page(mapping.machine.frame()),
        // Nothing else below the same entry is mapped: a list with holes is passed over quickly.
        Err(Fault::NotPresent { level, .. } | Fault::Reserved { level, .. }) => {
            let span = format
                .levels
                .iter()
                .find(|l| l.number == level)
                .map_or(page, |l| l.span());
            let left = span - (addr.0 & (span - 1));
            Leaf::Missing {
                until: number.saturating_add((left / page).max(1)),
            }
        }
        _ => Leaf::Missing { until: number + 1 },
    }
}

/// A pointer out of an array of them; null is none.
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
