//! Opens P2Ms by each source.

use std::collections::HashSet;
use std::sync::OnceLock;

use super::directory::Directory;
use super::leaf::Leaf;
use super::leaves::Leaves;
use super::packed::Packed;
use super::table::{Coding, Entries};
use super::{Entry, P2m, Source, Special};
use crate::addr::{MachineAddr, Mfn, Pfn, VirtAddr, Word, PAGE_SIZE};
use crate::alloc;
use crate::limits::MAX_P2M_PAGES;
use crate::memory::Memory;
use crate::paging::Virtual;
use crate::{Error, Result};

impl<M: Memory<MachineAddr>> P2m<M> {
    /// The frame-list tree at the page `list_list`, of a guest with this word size.
    ///
    /// `pages` is the guest's `max_pfn` if known. Otherwise the tree ends at its last entry that is
    /// not all ones: unused slots are 0 or refer to shared pages of all ones, and used ones may
    /// follow them.
    ///
    /// Fails with [`Error::Absent`] if `list_list` is 0 (the guest had not set it up yet) or all
    /// ones (it publishes a linear list only), and if that page is not in `mem`.
    pub fn frame_list(mem: M, list_list: Mfn, word: Word, pages: Option<u64>) -> Result<Self> {
        if list_list.0 == 0 {
            let text = "the domain had not set up its P2M frame list (its mfn is 0)";
            return Err(Error::Absent(text.into()));
        }
        // All ones in 32 bits for a 32-bit guest on 64-bit Xen.
        if list_list.0 == u64::MAX || list_list.0 == word.max() {
            let text =
                "the domain has no P2M frame list (its mfn is all ones): it has a linear list";
            return Err(Error::Absent(text.into()));
        }
        let mut page = [0; PAGE_SIZE];
        let addr = list_list
            .addr()
            .ok_or_else(|| Error::Absent(format!("no frame has mfn {:#x}", list_list.0)))?;
        mem.read(addr, &mut page).map_err(|fault| Error::Memory {
            what: "P2M frame-list list".into(),
            fault,
        })?;
        let per_page = (PAGE_SIZE / word.bytes()) as u64;
        let capacity = per_page.pow(3);
        let directory = Directory::FrameList { list_list, word };
        let mut p2m = Self::new(
            mem,
            Source::FrameList,
            directory,
            word,
            pages.unwrap_or(capacity).min(capacity),
            0,
        )?;
        if pages.is_none() {
            let used = p2m.last_used();
            p2m.set_pages(used);
        }
        Ok(p2m)
    }

    /// The array of `pages` entries at `array` in `space`, either published by the guest
    /// ([`Source::Linear`]) or its kernel's own ([`Source::Cr3`]).
    ///
    /// Fails if the array is not aligned to its entries, or its start is not mapped.
    pub fn linear(
        space: Virtual<M>,
        array: VirtAddr,
        word: Word,
        pages: u64,
        source: Source,
    ) -> Result<Self> {
        let bytes = word.bytes() as u64;
        let within = array.0 & (PAGE_SIZE as u64 - 1);
        if !within.is_multiple_of(bytes) {
            let text = format!("no P2M can start at {array}: it is not aligned to {bytes} bytes");
            return Err(Error::Absent(text));
        }
        space.walk(array).map_err(|fault| Error::Memory {
            what: "start of the P2M".into(),
            fault,
        })?;
        let directory = Directory::Linear {
            format: *space.format(),
            root: space.root(),
            base: VirtAddr(array.0 - within),
        };
        Self::new(
            space.into_memory(),
            source,
            directory,
            word,
            pages,
            within / bytes,
        )
    }

    /// The kernel's own tree of pointers, with `levels` levels (2 or 3). The last level consists of the
    /// P2M pages.
    ///
    /// `top` is the address of the topmost array: with two levels that of the symbol `p2m_top`; with
    /// three levels the symbol is a pointer to it.
    ///
    /// `pages` is limited to the capacity of three levels of pages. Trees of two levels had far fewer
    /// (`CONFIG_XEN_MAX_DOMAIN_MEMORY`, 32 GiB).
    pub fn pvops_tree(
        space: Virtual<M>,
        top: VirtAddr,
        levels: u8,
        word: Word,
        pages: u64,
    ) -> Result<Self> {
        if !(2..=3).contains(&levels) {
            let text = format!("a P2M tree of {levels} levels: Linux has only used 2 and 3");
            return Err(Error::Absent(text));
        }
        space.walk(top).map_err(|fault| Error::Memory {
            what: "top of the P2M tree".into(),
            fault,
        })?;
        let directory = Directory::Pointers {
            format: *space.format(),
            root: space.root(),
            top,
            levels,
            word,
        };
        let capacity = ((PAGE_SIZE / word.bytes()) as u64).pow(3);
        let mut p2m = Self::new(
            space.into_memory(),
            Source::PvopsTree,
            directory,
            word,
            pages,
            0,
        )?;
        p2m.set_pages(pages.min(capacity));
        Ok(p2m)
    }

    /// Sets the number of pfns, for which lookups are prepared.
    fn set_pages(&mut self, pages: u64) {
        self.pages = pages;
        self.packed = Packed::new(pages);
    }

    fn new(
        mem: M,
        source: Source,
        directory: Directory,
        word: Word,
        pages: u64,
        bias: u64,
    ) -> Result<Self> {
        if pages > MAX_P2M_PAGES {
            let text = format!("a P2M of {pages} pages is too large (limit {MAX_P2M_PAGES})");
            return Err(Error::Absent(text));
        }
        let per_page = (PAGE_SIZE / word.bytes()) as u64;
        let entries = Entries::Pages {
            directory,
            leaves: Leaves::new((pages + bias).div_ceil(per_page)),
        };
        Ok(Self {
            mem,
            source,
            word,
            coding: Coding::Word(word),
            pages,
            entries,
            bias,
            packed: Packed::new(pages),
            reverse: OnceLock::new(),
        })
    }

    /// A container's own P2M: pairs ascending by pfn, each pfn once. `word` is the guest's.
    pub fn container(mem: M, pairs: &[(Pfn, Mfn)], word: Word) -> Self {
        let pairs = pairs.iter().copied();
        let pairs = alloc::collect(pairs.filter(|(pfn, _)| pfn.0 < MAX_P2M_PAGES));
        let pages = pairs.last().map_or(0, |(pfn, _)| pfn.0 + 1);
        Self {
            mem,
            source: Source::Container,
            word,
            coding: Coding::Word(word),
            pages,
            entries: Entries::Pairs(pairs.into_boxed_slice()),
            bias: 0,
            packed: Packed::new(pages),
            reverse: OnceLock::new(),
        }
    }

    /// One more than the last pfn whose entry is not all ones. Searched from the end: most of a tree
    /// is unused and refers to a few pages.
    fn last_used(&self) -> u64 {
        let Entries::Pages { directory, .. } = &self.entries else {
            return self.pages;
        };
        // Pages of frames and of entries without a valid entry. pvops fills the tree with one of
        // each, and a hostile tree may refer to one page a million times.
        let (mut empty_frames, mut empty) = (HashSet::new(), HashSet::new());
        let mut entries = Vec::new();
        let per_page = self.per_page();
        for slot in (0..per_page).rev() {
            let frames = directory.frames(&self.mem, slot);
            if frames.is_none_or(|frames| empty_frames.contains(&frames)) {
                continue;
            }
            for number in (slot * per_page..(slot + 1) * per_page).rev() {
                let Leaf::Page(leaf) = directory.leaf(&self.mem, number) else {
                    continue;
                };
                if empty.contains(&leaf) {
                    continue;
                }
                let first = Pfn(number * per_page);
                self.entries(self.run(first, Pfn(first.0 + per_page)), &mut entries);
                let invalid = Entry::Special(Special::Invalid);
                // Unreadable entries are not invalid: their page counts as used.
                if let Some(last) = entries.iter().rposition(|entry| *entry != invalid) {
                    return first.0 + last as u64 + 1;
                }
                alloc::insert(&mut empty, leaf);
            }
            if let Some(frames) = frames {
                alloc::insert(&mut empty_frames, frames);
            }
        }
        0
    }
}
