//! Batches of virtual addresses.

use std::cell::Cell;

use super::format::Target;
use super::{Level, Virtual};
use crate::addr::{MachineAddr, VirtAddr, Word, PAGE_SHIFT, PAGE_SIZE};
use crate::alloc;
use crate::memory::Memory;
use crate::status::{Status, NONE};
use crate::window::Window;

/// The number of addresses that are walked together, so that their cache misses overlap; smaller in
/// short batches.
const CHUNK: usize = 256;
const SHORT: usize = 16;
/// log2 of the number of cached regions.
const MIN_CACHE_SHIFT: u32 = 4;
const MAX_CACHE_SHIFT: u32 = 16;
/// log2 of the number of neighbouring regions whose slots are one after another.
const BLOCK_SHIFT: u32 = 10;

type Table = [u8; PAGE_SIZE];

/// The addresses of one table of the last level, or of one large page.
#[derive(Clone, Copy)]
struct Region<'m> {
    /// The high bits of the addresses.
    key: u64,
    /// Their table.
    table: Option<&'m Table>,
    /// The result if there is no table.
    result: Found,
}

/// Not the key of any region: in keys, the low bits of the address are 0.
const NO_KEY: u64 = u64::MAX;

/// The result for one address: an entry of the last level, masked, or its equivalent. If bit 0 is set,
/// it has an address; with [`Found::LARGE`], that of a large page's region. If bit 0 is clear, the bits
/// from 1 on are a status.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Found(u64);

impl Found {
    const PRESENT: u64 = 1;
    const LARGE: u64 = 1 << 11;
    /// The address has to be walked separately: its tables cannot be borrowed.
    const WALK: Found = Found(0xff << 1);
    /// The region is not in the cache.
    const UNKNOWN: Found = Found(0xfe << 1);

    const fn page(page: MachineAddr) -> Self {
        Self(page.0 | Self::LARGE | Self::PRESENT)
    }

    const fn fault(status: Status) -> Self {
        Self((status as u64) << 1)
    }

    /// Why there is no address; not-present entries have no specific status.
    fn status(self) -> Status {
        match Status::ALL.get((self.0 >> 1) as usize & 0xff) {
            None | Some(Status::Ok) => Status::NotPresent,
            Some(status) => *status,
        }
    }
}

thread_local! {
    /// The memory of the caches of this thread's last [`Translator`], empty. Threads are kept for the next
    /// batch: what each would allocate anew is as large as its second-level cache, and the system would
    /// have to provide it page by page.
    static KEPT: Cell<[Vec<Region<'static>>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// The memory of a cache for regions of other tables.
#[expect(
    clippy::unnecessary_filter_map,
    reason = "it changes the lifetime in the type of the elements"
)]
fn emptied<'a>(mut regions: Vec<Region<'_>>) -> Vec<Region<'a>> {
    regions.clear();
    // The standard library collects elements of equal size where they were.
    regions.into_iter().filter_map(|_| None).collect()
}

/// Translates batches of addresses in one thread.
///
/// Tables of the last level are cached by the high part of the address, so that most addresses cost
/// one lookup there and a read of their own entry. A batch is walked in chunks, level by level: find
/// the tables, read all entries, then decode them. So cache misses overlap.
pub struct Translator<'m, M> {
    space: &'m Virtual<M>,
    /// The last two levels of the format.
    directory: &'static Level,
    last: &'static Level,
    regions: Vec<Region<'m>>,
    /// The same, one level up: tables of the second-to-last level.
    directories: Vec<Region<'m>>,
    window: Window<'m, MachineAddr>,
}

impl<M> Drop for Translator<'_, M> {
    fn drop(&mut self) {
        let used = [&mut self.regions, &mut self.directories].map(std::mem::take);
        // Not at the end of the thread.
        let _ = KEPT.try_with(|kept| {
            let before = kept.take();
            // Two may have been in use at once.
            let larger = |(a, b): (Vec<_>, Vec<_>)| if a.capacity() < b.capacity() { b } else { a };
            let [regions, directories] = used.map(emptied);
            let [regions_before, directories_before] = before;
            kept.set([
                larger((regions, regions_before)),
                larger((directories, directories_before)),
            ]);
        });
    }
}

impl<'m, M: Memory<MachineAddr>> Translator<'m, M> {
    /// For about `expected` addresses.
    pub fn new(space: &'m Virtual<M>, expected: usize) -> Self {
        let bits = expected.max(1).ilog2().saturating_sub(2);
        let empty = |kept: Vec<Region<'static>>, bits: u32| {
            let region = Region {
                key: NO_KEY,
                table: None,
                result: Found::WALK,
            };
            let mut regions = emptied(kept);
            let len = 1 << bits.clamp(MIN_CACHE_SHIFT, MAX_CACHE_SHIFT);
            alloc::reserve_exact(&mut regions, len);
            regions.resize(len, region);
            regions
        };
        let [regions, directories] = KEPT.try_with(Cell::take).unwrap_or_default();
        let levels: &'static [Level] = space.format().levels;
        let (directory, last) = match levels {
            [.., directory, last] => (directory, last),
            // Every format has at least two levels.
            _ => (&super::X86.levels[0], &super::X86.levels[1]),
        };
        Self {
            space,
            directory,
            last,
            regions: empty(regions, bits),
            directories: empty(directories, bits / 2),
            window: Window::default(),
        }
    }

    /// The machine address of each address, or [`NONE`], with its status. Elements past the shortest
    /// of the three slices are not touched.
    pub fn translate(
        &mut self,
        addrs: &[VirtAddr],
        out: &mut [MachineAddr],
        status: &mut [Status],
    ) {
        let chunks = addrs
            .chunks(CHUNK)
            .zip(out.chunks_mut(CHUNK))
            .zip(status.chunks_mut(CHUNK));
        for ((addrs, out), status) in chunks {
            self.checked(addrs, out, status);
        }
    }

    /// Translates a chunk. Repeats it without borrowed tables if they were invalidated meanwhile.
    fn checked(&mut self, addrs: &[VirtAddr], out: &mut [MachineAddr], status: &mut [Status]) {
        self.sized(addrs, out, status);
        if !self.space.memory().is_intact() {
            for region in self.regions.iter_mut().chain(&mut self.directories) {
                region.key = NO_KEY;
            }
            self.window = Window::default();
            self.sized(addrs, out, status);
        }
    }

    /// Translates a chunk with code specialized for its length.
    fn sized(&mut self, addrs: &[VirtAddr], out: &mut [MachineAddr], status: &mut [Status]) {
        if addrs.len() <= SHORT {
            self.chunk::<SHORT>(addrs, out, status);
        } else {
            self.chunk::<CHUNK>(addrs, out, status);
        }
    }

    // The loops below are hot: slices of equal length, slice iterators, and no invariants inside.
    fn chunk<const N: usize>(
        &mut self,
        addrs: &[VirtAddr],
        out: &mut [MachineAddr],
        status: &mut [Status],
    ) {
        let mut tables = [None; N];
        let mut found = [Found::WALK; N];
        self.find_tables(addrs, &mut tables, &mut found);
        // Entries of the last level have no reserved bits and always map a page.
        let encryption = self.space.format().encryption_mask;
        let address = self.last.page.map_or(0, |page| page.address) & !encryption;
        let wanted = address | Found::PRESENT;
        let entries = found.iter_mut().zip(addrs).zip(tables.iter());
        match self.space.format().entry {
            Word::W32 => entries.for_each(|((found, addr), table)| {
                if let Some(table) = table {
                    found.0 = entry_32(table, addr.0 >> PAGE_SHIFT) & wanted;
                }
            }),
            Word::W64 => entries.for_each(|((found, addr), table)| {
                if let Some(table) = table {
                    found.0 = entry_64(table, addr.0 >> PAGE_SHIFT) & wanted;
                }
            }),
        }
        let region = self.directory.span() - 1;
        let mut all = Found::PRESENT;
        for ((out, addr), found) in out.iter_mut().zip(addrs).zip(found.iter()) {
            all &= found.0;
            let within = if found.0 & Found::LARGE != 0 {
                region
            } else {
                PAGE_SIZE as u64 - 1
            };
            *out = MachineAddr((found.0 & address) | (addr.0 & within));
        }
        if all != 0 {
            status.fill(Status::Ok);
            return;
        }
        let results = out.iter_mut().zip(status);
        for ((out, status), (addr, found)) in results.zip(addrs.iter().zip(&found)) {
            let result = match *found {
                Found::WALK => self.space.translate(*addr).map_err(Status::from),
                Found(entry) if entry & Found::PRESENT != 0 => Ok(*out),
                absent => Err(absent.status()),
            };
            (*out, *status) = match result {
                Ok(machine) => (machine, Status::Ok),
                Err(status) => (MachineAddr(NONE), status),
            };
        }
    }

    /// The last-level table for each address of a chunk, or the result if there is none.
    #[inline]
    fn find_tables<const N: usize>(
        &mut self,
        addrs: &[VirtAddr],
        tables: &mut [Option<&'m Table>; N],
        found: &mut [Found; N],
    ) {
        let shift = self.directory.shift;
        let regions = &*self.regions;
        let mut known = true;
        for ((addr, table), found) in addrs.iter().zip(tables.iter_mut()).zip(found.iter_mut()) {
            let key = addr.0 >> shift;
            let region = slot(regions, key);
            if region.key == key {
                (*table, *found) = (region.table, region.result);
            } else {
                *found = Found::UNKNOWN;
                known = false;
            }
        }
        if !known {
            self.fill_cache(addrs, tables, found);
        }
    }

    /// Looks up the regions of a chunk that are not in the cache.
    #[cold]
    fn fill_cache<const N: usize>(
        &mut self,
        addrs: &[VirtAddr],
        tables: &mut [Option<&'m Table>; N],
        found: &mut [Found; N],
    ) {
        let shift = self.directory.shift;
        let unknown = |(addr, found): (&VirtAddr, &Found)| {
            (*found == Found::UNKNOWN).then_some((addr.0 >> shift, *addr))
        };
        // One address per region; neighbouring addresses usually share a region.
        let mut regions = [VirtAddr(0); N];
        let (mut count, mut newest) = (0, NO_KEY);
        for (key, addr) in addrs.iter().zip(found.iter()).filter_map(unknown) {
            if let Some(region) = regions.get_mut(count).filter(|_| key != newest) {
                *region = addr;
                newest = key;
                count += 1;
            }
        }
        self.walk_regions::<N>(regions.get(..count).unwrap_or_default());
        for ((addr, table), found) in addrs.iter().zip(tables.iter_mut()).zip(found.iter_mut()) {
            if *found == Found::UNKNOWN {
                let key = addr.0 >> shift;
                if slot(&self.regions, key).key != key {
                    // Evicted by another region of this chunk.
                    self.walk_regions::<1>(std::slice::from_ref(addr));
                }
                let region = slot(&self.regions, key);
                (*table, *found) = (region.table, region.result);
            }
        }
    }

    /// Walks the regions of at most N addresses, level by level, and caches them.
    fn walk_regions<const N: usize>(&mut self, addrs: &[VirtAddr]) {
        let space = self.space;
        let mut above = [(None, Found::WALK); N];
        for (addr, above) in addrs.iter().zip(above.iter_mut()) {
            *above = self.directory_of(*addr);
        }
        let mut entries = [0; N];
        for ((addr, (table, _)), entry) in addrs.iter().zip(above.iter()).zip(entries.iter_mut()) {
            if let Some(table) = table {
                *entry = match space.format().entry {
                    Word::W32 => entry_32(table, addr.0 >> self.directory.shift),
                    Word::W64 => entry_64(table, addr.0 >> self.directory.shift),
                };
            }
        }
        for ((addr, (table, result)), entry) in addrs.iter().zip(above).zip(entries) {
            let key = addr.0 >> self.directory.shift;
            let (table, result) = match table {
                None => (None, result),
                Some(_) => match space.format().target(self.directory, entry) {
                    Target::Absent => (None, Found::fault(Status::NotPresent)),
                    Target::Reserved => (None, Found::fault(Status::Reserved)),
                    Target::Page(page) => (None, Found::page(page)),
                    Target::Table(table) => borrow(&mut self.window, space.memory(), table),
                },
            };
            *slot_mut(&mut self.regions, key) = Region { key, table, result };
        }
    }

    /// The table of the second-to-last level for `addr`, or the result for its region if there is
    /// none.
    fn directory_of(&mut self, addr: VirtAddr) -> (Option<&'m Table>, Found) {
        let key = addr.0 >> (self.directory.shift + self.directory.bits);
        let known = slot(&self.directories, key);
        let (table, result) = if known.key == key {
            (known.table, known.result)
        } else {
            let (table, result) = upper(self.space, &mut self.window, addr);
            *slot_mut(&mut self.directories, key) = Region { key, table, result };
            (table, result)
        };
        if result.0 & Found::PRESENT == 0 {
            return (table, result);
        }
        // A page larger than the region: the part that covers the region.
        let above = (1 << (self.directory.shift + self.directory.bits)) - self.directory.span();
        (None, Found(result.0 | addr.0 & above))
    }
}

/// Walks down to the table of the second-to-last level.
fn upper<'m, M: Memory<MachineAddr>>(
    space: &'m Virtual<M>,
    window: &mut Window<'m, MachineAddr>,
    addr: VirtAddr,
) -> (Option<&'m Table>, Found) {
    let format = space.format();
    if !format.is_canonical(addr) {
        return (None, Found::fault(Status::NonCanonical));
    }
    let mut table = space.root();
    let above = format.levels.len().saturating_sub(2);
    for level in format.levels.iter().take(above) {
        let at = format.entry_addr(table, level.index(addr));
        let Ok(entry) = space.memory().read_word(at, format.entry) else {
            return (None, Found::fault(Status::NoPageTable));
        };
        match format.target(level, entry) {
            Target::Absent => return (None, Found::fault(Status::NotPresent)),
            Target::Reserved => return (None, Found::fault(Status::Reserved)),
            Target::Page(page) => return (None, Found::page(page)),
            Target::Table(next) => table = next,
        }
    }
    borrow(window, space.memory(), table)
}

fn borrow<'m, M: Memory<MachineAddr>>(
    window: &mut Window<'m, MachineAddr>,
    mem: &'m M,
    table: MachineAddr,
) -> (Option<&'m Table>, Found) {
    let bytes = window.borrow(mem, table, PAGE_SIZE);
    // A table that cannot be borrowed is missing or not contiguous.
    (bytes.and_then(<[u8]>::first_chunk), Found::WALK)
}

/// The 4-byte entry of a table; bits of the index above those of the level are ignored.
#[inline]
fn entry_32(table: &Table, index: u64) -> u64 {
    let entries: &[[u8; 4]] = table.as_chunks().0;
    u32::from_le_bytes(entries[index as usize % (PAGE_SIZE / 4)]).into()
}

/// The same for 8-byte entries.
#[inline]
fn entry_64(table: &Table, index: u64) -> u64 {
    let entries: &[[u8; 8]] = table.as_chunks().0;
    u64::from_le_bytes(entries[index as usize % (PAGE_SIZE / 8)])
}

/// The slot of a key in a cache of `len` regions, a power of two.
#[inline]
fn slot_index(len: usize, key: u64) -> usize {
    // The regions of a block are one after another, so that those in use are in few pages and cache lines.
    // Fibonacci hashing separates blocks, whether they are neighbours or differ in high bits only.
    let block = (key >> BLOCK_SHIFT).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (block >> 40).wrapping_add(key) as usize & (len - 1)
}

#[inline]
fn slot<'a, 'm>(regions: &'a [Region<'m>], key: u64) -> &'a Region<'m> {
    &regions[slot_index(regions.len(), key)]
}

fn slot_mut<'a, 'm>(regions: &'a mut [Region<'m>], key: u64) -> &'a mut Region<'m> {
    &mut regions[slot_index(regions.len(), key)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Frames;
    use crate::paging::X86_64;

    #[test]
    fn caches_are_allocated_once_in_a_thread() {
        let space = Virtual::new(Frames::default(), &X86_64, MachineAddr(0));
        let first = Translator::new(&space, 1 << 20);
        let memory = |of: &Translator<'_, Frames>| {
            let caches = [of.regions.as_ptr(), of.directories.as_ptr()];
            caches.map(|cache| cache.addr())
        };
        let known = memory(&first);
        let again = |expected| {
            let next = Translator::new(&space, expected);
            assert!(next.regions.iter().all(|region| region.key == NO_KEY));
            (next.regions.len(), memory(&next))
        };
        // While the first is in use, another has memory of its own, which does not replace it.
        let (len, other) = again(1 << 10);
        assert_eq!(len, 1 << 8);
        assert_ne!(other, known);
        drop(first);
        assert_eq!(again(1 << 10), (1 << 8, known));
        assert_eq!(again(1 << 20), (1 << MAX_CACHE_SHIFT, known));
    }

    #[test]
    fn slots_of_neighbours_differ() {
        // As many regions as half of the slots: at random they would have 79 % as many slots.
        for bits in MIN_CACHE_SHIFT..=MAX_CACHE_SHIFT {
            let len = 1 << bits;
            for base in [
                0,
                0xffff_8880_0000_0000_u64 >> 21,
                (u64::MAX >> 21) - (len as u64),
            ] {
                let keys = base..base + len as u64 / 2;
                let slots: std::collections::HashSet<_> =
                    keys.map(|key| slot_index(len, key)).collect();
                assert!(
                    slots.len() * 20 > len * 7,
                    "{bits} {base:#x} {}",
                    slots.len()
                );
            }
        }
    }
}
