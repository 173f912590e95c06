//! Members of structs at many addresses: each page of a struct is located once.

use std::hint::black_box;
use std::ops::Range;

use super::bulk::{put_all, Batch, Rows, CHUNK};
use super::layout::{Layout, Member};
use super::Space;
use crate::addr::{Address, MachineAddr, VirtAddr, PAGE_SIZE};
use crate::alloc;
use crate::memory::{Fault, Memory};
use crate::status::{Status, NONE};

/// Parts of members that are read together; one page of a struct may have any number of them.
const PARTS: usize = 2048;

/// The destination of [`Batch::read_members`]. Members come with their numbers in the layout.
pub trait Members {
    /// Copies `bytes` to offset `at` of a member.
    fn put(&mut self, row: usize, member: &(Member, usize), at: usize, bytes: &[u8]);
    /// A part of a member cannot be read; others may have been copied, or will be. The parts of a row
    /// fail by ascending offset.
    fn fail(&mut self, row: usize, member: &(Member, usize), status: Status);
}

/// The bytes of a member that are in one page.
#[derive(Clone, Copy)]
struct Part {
    row: usize,
    /// The position of the member.
    member: usize,
    /// From the start of the member.
    at: usize,
    /// From the start of the page.
    start: usize,
    len: usize,
}

/// The bytes of a page that are needed, and the first of its parts.
#[derive(Clone, Copy, Default)]
struct Needed {
    part: usize,
    start: usize,
    end: usize,
}

/// The next part.
#[derive(Clone, Copy, Default)]
struct Cursor {
    row: usize,
    member: usize,
    at: usize,
}

/// The pages of a chunk, with the parts of members in them.
struct Chunk {
    pages: [u64; CHUNK],
    needed: [Needed; CHUNK],
    count: usize,
    parts: Vec<Part>,
    /// Members past the end of the address space: row and position.
    outside: Vec<(usize, usize)>,
}

impl Chunk {
    fn new() -> Self {
        Self {
            pages: [0; CHUNK],
            needed: [Needed::default(); CHUNK],
            count: 0,
            parts: alloc::with_capacity(PARTS),
            outside: Vec::new(),
        }
    }

    /// Adds parts from `next` on, until the chunk is full; returns the part after them.
    fn fill(&mut self, addrs: &[u64], layout: &Layout, mut next: Cursor) -> Cursor {
        self.count = 0;
        self.parts.clear();
        self.outside.clear();
        while let Some(addr) = addrs.get(next.row) {
            let mut last = None;
            while let Some((member, _)) = layout.members.get(next.member) {
                if next.at >= member.size {
                    (next.member, next.at) = (next.member + 1, 0);
                    continue;
                }
                let offset = member.offset.checked_add(next.at as u64);
                let Some(at) = offset.and_then(|offset| addr.checked_add(offset)) else {
                    alloc::push(&mut self.outside, (next.row, next.member));
                    (next.member, next.at) = (next.member + 1, 0);
                    continue;
                };
                let start = VirtAddr(at).page_offset();
                let page = at - start as u64;
                if self.parts.len() == PARTS || self.outside.len() == PARTS {
                    return next;
                }
                if last != Some(page) {
                    let slots = self.pages.get_mut(self.count);
                    let Some((slot, needed)) = slots.zip(self.needed.get_mut(self.count)) else {
                        return next;
                    };
                    *slot = page;
                    *needed = Needed {
                        part: self.parts.len(),
                        start,
                        end: start,
                    };
                    self.count += 1;
                    last = Some(page);
                }
                let len = (PAGE_SIZE - start).min(member.size - next.at);
                if let Some(needed) = self.needed.get_mut(self.count - 1) {
                    needed.end = needed.end.max(start + len);
                }
                self.parts.push(Part {
                    row: next.row,
                    member: next.member,
                    at: next.at,
                    start,
                    len,
                });
                next.at += len;
            }
            next = Cursor {
                row: next.row + 1,
                ..Cursor::default()
            };
        }
        next
    }

    /// The numbers of the parts in page number `i`.
    fn numbers(&self, i: usize) -> Range<usize> {
        let start = self.needed.get(i).map_or(0, |needed| needed.part);
        let following = self.needed.get(i + 1).filter(|_| i + 1 < self.count);
        start..following.map_or(self.parts.len(), |needed| needed.part)
    }

    /// The parts in page number `i`.
    fn parts_of(&self, i: usize) -> &[Part] {
        self.parts.get(self.numbers(i)).unwrap_or_default()
    }
}

impl<M: Memory<MachineAddr> + Send> Batch<'_, M> {
    /// Reads members of the structs at `addrs`, whose rows are those from number `first` on.
    pub fn read_members(
        &mut self,
        addrs: &[u64],
        layout: &Layout,
        first: usize,
        into: &mut impl Members,
    ) {
        let mut chunk = Chunk::new();
        let mut failed = Vec::new();
        let mut next = Cursor::default();
        while next.row < addrs.len() {
            next = chunk.fill(addrs, layout, next);
            self.checked(|this| this.read_parts(&chunk, layout, first, into, &mut failed));
            failed.sort_unstable_by_key(|(part, _)| *part);
            let parts = failed.drain(..).filter_map(|(i, status)| {
                let part = chunk.parts.get(i)?;
                Some((part.row, part.member, status))
            });
            let outside = chunk.outside.iter();
            let outside = outside.map(|(row, member)| (*row, *member, Status::Wraps));
            for (row, member, status) in parts.chain(outside) {
                if let Some(member) = layout.members.get(member) {
                    into.fail(first + row, member, status);
                }
            }
        }
    }

    /// Reads members of the structs at `addrs` into rows. A row with an unreadable byte is cleared, and
    /// its status is the reason for the first such member by offset.
    pub fn read_packed(
        &mut self,
        addrs: &[u64],
        layout: &Layout,
        first: usize,
        rows: &mut impl Rows,
        status: &mut [Status],
    ) {
        status.fill(Status::Ok);
        let mut others = [0; CHUNK];
        let chunks = addrs.chunks(CHUNK).zip(status.chunks_mut(CHUNK));
        for ((addrs, status), first) in chunks.zip((first..).step_by(CHUNK)) {
            let left =
                self.checked(|this| this.read_in_page(addrs, layout, first, rows, &mut others));
            let others = others.get(..left).unwrap_or_default();
            if others.is_empty() {
                continue;
            }
            let mut places = [0; CHUNK];
            for (place, row) in places.iter_mut().zip(others) {
                *place = addrs.get(*row).copied().unwrap_or_default();
            }
            let places = places.get(..left).unwrap_or_default();
            let mut packed = Packed {
                rows,
                first,
                others,
                status,
            };
            self.read_members(places, layout, 0, &mut packed);
            for row in others {
                if status.get(*row) != Some(&Status::Ok) {
                    rows.clear(first + row);
                }
            }
        }
    }

    /// Reads those structs of a chunk whose members are in one page that can be borrowed. The rows of the
    /// others go to `others`; returns their number.
    fn read_in_page(
        &mut self,
        addrs: &[u64],
        layout: &Layout,
        first: usize,
        rows: &mut impl Rows,
        others: &mut [usize; CHUNK],
    ) -> usize {
        if layout.runs.is_empty() {
            return 0;
        }
        if layout.span > PAGE_SIZE {
            for (row, slot) in others.iter_mut().enumerate().take(addrs.len()) {
                *slot = row;
            }
            return addrs.len();
        }
        let mut starts = [0; CHUNK];
        let mut outside = false;
        for (start, addr) in starts.iter_mut().zip(addrs) {
            let (sum, wraps) = addr.overflowing_add(layout.start);
            *start = sum;
            outside |= wraps;
        }
        let starts = starts.get(..addrs.len()).unwrap_or_default();
        let mut machine = [MachineAddr(0); CHUNK];
        let mut status = [Status::Ok; CHUNK];
        let status = status.get_mut(..addrs.len()).unwrap_or_default();
        self.chunk(starts, &mut machine, status);
        let mut found: [&[u8]; CHUNK] = [&[]; CHUNK];
        let mut whole = self.locate(&machine, status, layout.span, &mut found);
        if outside {
            whole = false;
            for ((found, start), addr) in found.iter_mut().zip(starts).zip(addrs) {
                if start < addr {
                    *found = &[];
                }
            }
        }
        let found = found.get(..addrs.len()).unwrap_or_default();
        // Run by run, not row by row: the size of a run is tested once.
        for run in &layout.runs {
            let from = (run.offset - layout.start) as usize;
            put_all(rows, (first, run.place), found, from, run.size);
        }
        if whole {
            return 0;
        }
        let mut left = 0;
        for (row, _) in found.iter().enumerate().filter(|(_, it)| it.is_empty()) {
            if let Some(slot) = others.get_mut(left) {
                *slot = row;
                left += 1;
            }
        }
        left
    }

    /// Copies the parts of a chunk. The numbers of those that cannot be read go to `failed`.
    fn read_parts(
        &mut self,
        chunk: &Chunk,
        layout: &Layout,
        first: usize,
        into: &mut impl Members,
        failed: &mut Vec<(usize, Status)>,
    ) {
        failed.clear();
        let mut machine = [MachineAddr(0); CHUNK];
        let mut status = [Status::Ok; CHUNK];
        let pages = chunk.pages.get(..chunk.count).unwrap_or_default();
        let status = status.get_mut(..pages.len()).unwrap_or_default();
        self.chunk(pages, &mut machine, status);
        // Find all pages, then touch the parts, then copy: see `read_chunk`.
        let mut found: [&[u8]; CHUNK] = [&[]; CHUNK];
        let results = found.iter_mut().zip(&mut machine).zip(&*status);
        for (((found, machine), status), needed) in results.zip(&chunk.needed) {
            if *status == Status::Ok {
                machine.0 = machine.0.wrapping_add(needed.start as u64);
                let memory = self.space.memory();
                let borrowed = self
                    .window
                    .borrow(memory, *machine, needed.end - needed.start);
                *found = borrowed.unwrap_or_default();
            }
        }
        let mut touched = 0;
        for (i, (found, needed)) in found
            .iter()
            .zip(&chunk.needed)
            .enumerate()
            .take(pages.len())
        {
            for part in chunk.parts_of(i) {
                touched ^= found.get(part.start - needed.start).unwrap_or(&0);
            }
        }
        black_box(touched);
        let mut copied = [0; CHUNK];
        let mut count = 0;
        let results = found.iter().zip(&*status).zip(&chunk.needed);
        for (i, ((found, status), needed)) in results.enumerate() {
            if found.len() == needed.end - needed.start {
                for part in chunk.parts_of(i) {
                    put(part, found, needed, layout, first, into);
                }
            } else if *status != Status::Ok {
                for number in chunk.numbers(i) {
                    alloc::push(failed, (number, *status));
                }
            } else if let Some(slot) = copied.get_mut(count) {
                *slot = i;
                count += 1;
            }
        }
        if count > 0 {
            let copied = copied.get_mut(..count).unwrap_or_default();
            self.copy_parts((chunk, &machine), copied, layout, first, into, failed);
        }
    }

    /// Reads the parts in pages that cannot be borrowed, by ascending machine address.
    #[cold]
    fn copy_parts(
        &self,
        (chunk, machine): (&Chunk, &[MachineAddr; CHUNK]),
        indices: &mut [usize],
        layout: &Layout,
        first: usize,
        into: &mut impl Members,
        failed: &mut Vec<(usize, Status)>,
    ) {
        let at = |i: usize| machine.get(i).copied().unwrap_or(MachineAddr(NONE));
        indices.sort_unstable_by_key(|i| at(*i));
        let memory = self.space.memory();
        let mut page = [0; PAGE_SIZE];
        for &mut i in indices {
            let Some(needed) = chunk.needed.get(i) else {
                continue;
            };
            let bytes = page.get_mut(..needed.end - needed.start);
            let Some(bytes) = bytes else { continue };
            let whole = memory.read(at(i), bytes).is_ok();
            for (part, number) in chunk.parts_of(i).iter().zip(chunk.numbers(i)) {
                if whole {
                    put(part, bytes, needed, layout, first, into);
                    continue;
                }
                // Read one by one: some succeed, and the others get their own reasons.
                let from = part.start - needed.start;
                let one = bytes.get_mut(from..from + part.len).unwrap_or_default();
                match memory.read(MachineAddr(at(i).0.wrapping_add(from as u64)), one) {
                    Ok(()) => put(part, bytes, needed, layout, first, into),
                    Err(fault) => alloc::push(failed, (number, fault.into())),
                }
            }
        }
    }
}

#[inline]
fn put(
    part: &Part,
    found: &[u8],
    needed: &Needed,
    layout: &Layout,
    first: usize,
    into: &mut impl Members,
) {
    let from = part.start - needed.start;
    let bytes = found.get(from..from + part.len);
    if let Some((bytes, member)) = bytes.zip(layout.members.get(part.member)) {
        into.put(first + part.row, member, part.at, bytes);
    }
}

/// Some rows of a chunk, with all members of a struct.
struct Packed<'a, R> {
    rows: &'a mut R,
    /// The number of the chunk's first row.
    first: usize,
    /// The rows in the chunk.
    others: &'a [usize],
    status: &'a mut [Status],
}

impl<R: Rows> Members for Packed<'_, R> {
    #[inline]
    fn put(&mut self, row: usize, member: &(Member, usize), at: usize, bytes: &[u8]) {
        if let Some(row) = self.others.get(row) {
            self.rows.put(self.first + row, member.0.place + at, bytes);
        }
    }

    fn fail(&mut self, row: usize, _member: &(Member, usize), status: Status) {
        let row = self.others.get(row);
        if let Some(slot) = row.and_then(|row| self.status.get_mut(*row)) {
            if *slot == Status::Ok {
                *slot = status;
            }
        }
    }
}

impl<M: Memory<MachineAddr> + Send> Space<M> {
    /// Why a member of the struct at `addr` cannot be read, the first one by offset; `None` if all can.
    pub fn fault_of(&self, addr: u64, layout: &Layout) -> Option<Fault> {
        let members = layout.members.iter();
        members
            .filter(|(member, _)| member.size > 0)
            .find_map(|(member, _)| match addr.checked_add(member.offset) {
                Some(at) => self.pieces(at, member.size, |_, _| ()).err(),
                None => Some(Fault::Wraps {
                    addr,
                    len: member.offset.saturating_add(member.size as u64),
                }),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Frames;

    /// Rows of bytes.
    struct Kept {
        bytes: Vec<u8>,
        size: usize,
    }

    impl Rows for Kept {
        fn put(&mut self, row: usize, at: usize, bytes: &[u8]) {
            let start = row * self.size + at;
            self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        }

        fn clear(&mut self, row: usize) {
            self.bytes[row * self.size..][..self.size].fill(0);
        }
    }

    fn byte(at: u64) -> u8 {
        (at ^ at >> 8 ^ at >> 12) as u8
    }

    /// Eight pages from 0x1000 on, without the fifth.
    fn memory() -> Space<Frames> {
        let mut frames = Frames::default();
        for page in (1..9).filter(|page| *page != 5) {
            let bytes: Vec<_> = (0..0x1000).map(|i| byte(page * 0x1000 + i)).collect();
            frames.write(MachineAddr(page * 0x1000), &bytes);
        }
        Space::Machine(frames)
    }

    fn read(addrs: &[u64], members: &[(u64, usize)]) -> (Vec<Vec<u8>>, Vec<Status>) {
        let space = memory();
        let layout = Layout::packed(members.iter().copied()).unwrap();
        let mut rows = Kept {
            bytes: vec![0xee; layout.row() * addrs.len()],
            size: layout.row(),
        };
        let mut status = vec![Status::Io; addrs.len()];
        let mut batch = Batch::new(&space, addrs.len());
        batch.read_packed(addrs, &layout, 0, &mut rows, &mut status);
        for (addr, status) in addrs.iter().zip(&status) {
            let fault = space.fault_of(*addr, &layout).map(Status::from);
            assert_eq!(fault.unwrap_or_default(), *status, "{addr:#x}");
        }
        let rows = rows.bytes.chunks(layout.row().max(1));
        (rows.map(<[u8]>::to_vec).collect(), status)
    }

    #[test]
    fn members_in_any_order_across_pages() {
        // The last one overlaps the first and is longer than a page.
        let members = [(0x1800, 8), (0, 4), (0xffc, 8), (4, 0), (2, 0x1100)];
        let addrs: Vec<_> = (0..40).map(|i| 0x1000 + i * 37).collect();
        let (rows, status) = read(&addrs, &members);
        assert_eq!(status, vec![Status::Ok; addrs.len()]);
        for (addr, row) in addrs.iter().zip(&rows) {
            let places = members
                .iter()
                .flat_map(|(offset, size)| (0..*size as u64).map(move |i| byte(addr + offset + i)));
            assert!(row.iter().copied().eq(places), "{addr:#x}");
        }
    }

    #[test]
    fn a_row_with_a_missing_byte_is_cleared() {
        let members = [(0x1000, 2), (0, 2)];
        let addrs = [
            0x1000,
            0x4000,
            0x5000,
            0x4fff,
            u64::MAX - 1,
            u64::MAX,
            0x7000,
        ];
        let (rows, status) = read(&addrs, &members);
        let (ok, lost) = (Status::Ok, Status::NoSegment);
        assert_eq!(status, [ok, lost, lost, lost, lost, lost, ok]);
        assert_eq!(rows[1], [0; 4]);
        assert_eq!(
            rows[6],
            [byte(0x8000), byte(0x8001), byte(0x7000), byte(0x7001)]
        );
        let (_, status) = read(&[0x1000, u64::MAX], &[(0x10, 2), (0x1000, 0x1_0000)]);
        assert_eq!(status, [lost, Status::Wraps]);
    }

    #[test]
    fn more_members_and_pages_than_a_chunk_has() {
        let members: Vec<_> = (0..3000).map(|i| (i % 0x1000, 1)).collect();
        let (rows, status) = read(&[0x1000, 0x2001, 0x4800], &members);
        assert_eq!(status, [Status::Ok, Status::Ok, Status::NoSegment]);
        for (addr, row) in [0x1000, 0x2001].iter().zip(&rows) {
            let places = members.iter().map(|(offset, _)| byte(addr + offset));
            assert!(row.iter().copied().eq(places));
        }
        let members: Vec<_> = (0..CHUNK as u64 + 9).map(|i| (i % 3 * 0x1000, 1)).collect();
        let addrs = vec![0x1001; CHUNK + 1];
        let (rows, status) = read(&addrs, &members);
        assert_eq!(status, vec![Status::Ok; CHUNK + 1]);
        assert_eq!(rows.first(), rows.last());
        assert_eq!(rows[0][..3], [byte(0x1001), byte(0x2001), byte(0x3001)]);
    }
}
