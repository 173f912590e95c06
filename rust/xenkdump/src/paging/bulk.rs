//! Many virtual addresses at once.

use super::format::Target;
use super::{Format, Level, Virtual};
use crate::addr::{Address, MachineAddr, VirtAddr, Word, PAGE_SIZE};
use crate::memory::Memory;
use crate::status::{Status, NONE};
use crate::window::Window;

/// How many addresses go down together: their misses overlap.
const CHUNK: usize = 256;
/// log2 of the regions that are remembered, at least and at most.
const FEWEST: u32 = 4;
const MOST: u32 = 16;

type Table = [u8; PAGE_SIZE];

/// What lies above the last table for the addresses of one region: those that share a table of the
/// last level.
#[derive(Clone, Copy)]
enum Reach<'m> {
    /// This table of the last level.
    Table(&'m Table),
    /// No table: a larger page maps all of the region, from here on.
    Page(MachineAddr),
    /// Nothing.
    Fault(Status),
    /// Tables that cannot be lent: each address has to be walked alone.
    Walk,
}

#[derive(Clone, Copy)]
struct Region<'m> {
    key: u64,
    reach: Reach<'m>,
}

/// No region's key: keys lack the bits of the offset.
const NO_KEY: u64 = u64::MAX;

/// Translates batches of addresses for one thread.
///
/// The tables of the last level that were met are remembered, by the part of the address above
/// them, so that most addresses cost one look there and one at their own entry. A batch goes down in
/// chunks and level by level: first it is seen which tables are needed, then all entries are read,
/// then they are looked at; so one miss does not wait for another.
pub struct Translator<'m, M> {
    space: &'m Virtual<M>,
    /// The last two levels of the format.
    directory: &'static Level,
    last: &'static Level,
    regions: Box<[Region<'m>]>,
    /// The same one level up: which table of the last level but one.
    directories: Box<[Region<'m>]>,
    window: Window<'m, MachineAddr>,
}

impl<'m, M: Memory<MachineAddr>> Translator<'m, M> {
    /// For about `expected` addresses.
    pub fn new(space: &'m Virtual<M>, expected: usize) -> Self {
        let bits = expected.max(1).ilog2().saturating_sub(2);
        let empty = |bits: u32| {
            let region = Region {
                key: NO_KEY,
                reach: Reach::Walk,
            };
            vec![region; 1 << bits].into_boxed_slice()
        };
        let levels = space.format().levels;
        let (directory, last) = match levels {
            [.., directory, last] => (directory, last),
            // Every format has two levels or more.
            _ => (&super::X86.levels[0], &super::X86.levels[1]),
        };
        Self {
            space,
            directory,
            last,
            regions: empty(bits.clamp(FEWEST, MOST)),
            directories: empty((bits / 2).clamp(FEWEST, MOST)),
            window: Window::default(),
        }
    }

    /// The machine address that each address leads to, [`NONE`] where there is none, and why. What
    /// lies past the shortest of the three is left alone.
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

    /// A chunk, and once more without the tables that were lent if they proved unsound meanwhile.
    fn checked(&mut self, addrs: &[VirtAddr], out: &mut [MachineAddr], status: &mut [Status]) {
        self.chunk(addrs, out, status);
        if !self.space.memory().lent_soundly() {
            for region in self.regions.iter_mut().chain(&mut self.directories) {
                region.key = NO_KEY;
            }
            self.window = Window::default();
            self.chunk(addrs, out, status);
        }
    }

    fn chunk(&mut self, addrs: &[VirtAddr], out: &mut [MachineAddr], status: &mut [Status]) {
        let mut reaches = [Reach::Walk; CHUNK];
        self.reach(addrs, &mut reaches);
        let mut entries = [0; CHUNK];
        let word = self.space.format().entry;
        for ((entry, addr), reach) in entries.iter_mut().zip(addrs).zip(&reaches) {
            if let Reach::Table(table) = reach {
                *entry = entry_of(table, self.last.index(*addr), word);
            }
        }
        let within = self.directory.span() - 1;
        let results = out.iter_mut().zip(status);
        let found = addrs.iter().zip(&reaches).zip(entries);
        for ((out, status), ((addr, reach), entry)) in results.zip(found) {
            let result = match reach {
                Reach::Table(_) => match Format::target(self.last, entry) {
                    Target::Page(page) => Ok(MachineAddr(page.0 | addr.page_offset() as u64)),
                    Target::Reserved => Err(Status::Reserved),
                    _ => Err(Status::NotPresent),
                },
                Reach::Page(base) => Ok(MachineAddr(base.0 | (addr.0 & within))),
                Reach::Fault(status) => Err(*status),
                Reach::Walk => self.space.translate(*addr).map_err(Status::from),
            };
            (*out, *status) = match result {
                Ok(machine) => (machine, Status::Ok),
                Err(status) => (MachineAddr(NONE), status),
            };
        }
    }

    /// What lies above the last tables, for each address of a chunk.
    #[inline]
    fn reach(&mut self, addrs: &[VirtAddr], reaches: &mut [Reach<'m>; CHUNK]) {
        // Regions that are not known yet: an address of each, and for each address of the chunk
        // which of them is its own (0 is none).
        let mut unknown = [VirtAddr(0); CHUNK];
        let mut count = 0;
        let mut own = [0_u16; CHUNK];
        let mut newest = NO_KEY;
        for ((addr, reach), own) in addrs.iter().zip(reaches.iter_mut()).zip(&mut own) {
            let key = addr.0 >> self.directory.shift;
            let region = slot(&self.regions, key);
            if region.key == key {
                *reach = region.reach;
                continue;
            }
            if key != newest {
                if let Some(unknown) = unknown.get_mut(count) {
                    *unknown = *addr;
                }
                newest = key;
                count += 1;
            }
            // A chunk is short.
            *own = count as u16;
        }
        if count == 0 {
            return;
        }
        let mut found = [Reach::Walk; CHUNK];
        self.explore(unknown.get(..count).unwrap_or_default(), &mut found);
        for (reach, own) in reaches.iter_mut().zip(own) {
            if let Some(found) = usize::from(own).checked_sub(1).and_then(|i| found.get(i)) {
                *reach = *found;
            }
        }
    }

    /// Finds what lies above the last tables, for an address of each region that is not known.
    #[cold]
    fn explore(&mut self, addrs: &[VirtAddr], found: &mut [Reach<'m>; CHUNK]) {
        let space = self.space;
        let word = space.format().entry;
        let mut entries = [0; CHUNK];
        for (addr, reach) in addrs.iter().zip(found.iter_mut()) {
            *reach = self.directory_of(*addr);
        }
        for ((addr, reach), entry) in addrs.iter().zip(found.iter()).zip(&mut entries) {
            if let Reach::Table(table) = reach {
                *entry = entry_of(table, self.directory.index(*addr), word);
            }
        }
        for ((addr, reach), entry) in addrs.iter().zip(found).zip(entries) {
            if let Reach::Table(_) = reach {
                *reach = match Format::target(self.directory, entry) {
                    Target::Absent => Reach::Fault(Status::NotPresent),
                    Target::Reserved => Reach::Fault(Status::Reserved),
                    Target::Page(page) => Reach::Page(page),
                    Target::Table(table) => lend(&mut self.window, space.memory(), table),
                };
            } else if let Reach::Page(page) = reach {
                // A page larger than the region.
                let above = addr.0 & !(self.directory.span() - 1);
                *reach = Reach::Page(MachineAddr(page.0 | (above & (page_span(space) - 1))));
            }
            let key = addr.0 >> self.directory.shift;
            *slot_mut(&mut self.regions, key) = Region { key, reach: *reach };
        }
    }

    /// The table of the last level but one for `addr`, or what stands in its place.
    fn directory_of(&mut self, addr: VirtAddr) -> Reach<'m> {
        let key = addr.0 >> (self.directory.shift + self.directory.bits);
        let known = slot(&self.directories, key);
        if known.key == key {
            return known.reach;
        }
        let reach = upper(self.space, &mut self.window, addr);
        *slot_mut(&mut self.directories, key) = Region { key, reach };
        reach
    }
}

/// Size of the pages that the third level maps, where it maps any.
fn page_span<M: Memory<MachineAddr>>(space: &Virtual<M>) -> u64 {
    let level = space.format().levels.iter().rev().nth(2);
    level.map_or(1, Level::span)
}

/// Walks down to the table of the last level but one.
fn upper<'m, M: Memory<MachineAddr>>(
    space: &'m Virtual<M>,
    window: &mut Window<'m, MachineAddr>,
    addr: VirtAddr,
) -> Reach<'m> {
    let format = space.format();
    if !format.is_canonical(addr) {
        return Reach::Fault(Status::NonCanonical);
    }
    let mut table = space.root();
    let above = format.levels.len().saturating_sub(2);
    for level in format.levels.iter().take(above) {
        let at = format.entry_addr(table, level.index(addr));
        let Ok(entry) = space.memory().read_word(at, format.entry) else {
            return Reach::Fault(Status::NoPageTable);
        };
        match Format::target(level, entry) {
            Target::Absent => return Reach::Fault(Status::NotPresent),
            Target::Reserved => return Reach::Fault(Status::Reserved),
            Target::Page(page) => return Reach::Page(page),
            Target::Table(next) => table = next,
        }
    }
    lend(window, space.memory(), table)
}

fn lend<'m, M: Memory<MachineAddr>>(
    window: &mut Window<'m, MachineAddr>,
    mem: &'m M,
    table: MachineAddr,
) -> Reach<'m> {
    let bytes = window.lend(mem, table, PAGE_SIZE);
    match bytes.and_then(<[u8]>::first_chunk) {
        Some(table) => Reach::Table(table),
        // Missing, or in pieces.
        None => Reach::Walk,
    }
}

#[inline]
fn entry_of(table: &Table, index: u16, word: Word) -> u64 {
    let index = usize::from(index);
    match word {
        Word::W32 => {
            let entries: &[[u8; 4]] = table.as_chunks().0;
            u64::from(u32::from_le_bytes(entries[index % (PAGE_SIZE / 4)]))
        }
        Word::W64 => {
            let entries: &[[u8; 8]] = table.as_chunks().0;
            u64::from_le_bytes(entries[index % (PAGE_SIZE / 8)])
        }
    }
}

/// Where a key is kept, if it is; `regions` is never empty and its length a power of two.
#[inline]
fn place(len: usize, key: u64) -> usize {
    // Fibonacci hashing: neighbours are kept apart, and so are keys that differ in high bits only.
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 40) as usize & (len - 1)
}

#[inline]
fn slot<'a, 'm>(regions: &'a [Region<'m>], key: u64) -> &'a Region<'m> {
    &regions[place(regions.len(), key)]
}

fn slot_mut<'a, 'm>(regions: &'a mut [Region<'m>], key: u64) -> &'a mut Region<'m> {
    &mut regions[place(regions.len(), key)]
}
