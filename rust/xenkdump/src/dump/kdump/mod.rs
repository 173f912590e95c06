//! kdump-compressed dumps, as makedumpfile and QEMU write them, and the older format of diskdump.
//!
//! After the headers there are two bitmaps: the pages of the machine, and those among them whose data
//! the file has. For each of the latter, by ascending page number, there is a descriptor: offset, size
//! and compression of its data. A split dump has several files, each with the data of a range of pages.
//!
//! Finding a page takes the same time for any size of dump ([`bitmap`]); decompressed pages
//! are cached ([`PageCache`]). Pages that are stored uncompressed are read from the file.

mod bitmap;
mod codec;
mod header;
mod parts;
mod pass;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::container::{Container, Headers, HeldMemory, Run};
use super::note::{Note, NoteReader};
use super::page_cache::{PageCache, Use};
use super::run_map::fault as storage_fault;
use super::warnings::Warnings;
use crate::addr::{Address, MachineAddr, Pfn, PAGE_SIZE};
use crate::fault::{DumpLevel, Fault};
use crate::file::Storage;
use crate::memory::{for_each_page, Page};
use crate::Result;

use bitmap::Present;
pub(super) use parts::split_identity;
use parts::{Part, PAGE};
use pass::{corrupt, Data, Pass, Place};

pub(in crate::dump) use header::matches;

/// The files of a dump.
#[derive(Debug)]
struct Kdump {
    headers: Headers,
    /// By ascending range of pages.
    parts: Vec<Part>,
    /// The part with the notes.
    notes_in: usize,
    level: DumpLevel,
    /// The page after the last one of the machine.
    max_mapnr: u64,
    is_incomplete: bool,
    memory_held: OnceLock<u64>,
    memory_size: OnceLock<u64>,
    cache: PageCache,
    /// Pages that were decompressed so far.
    decoded: AtomicU64,
}

/// Opens a dump of one file, or a part of a split dump. The other parts are searched for in its directory.
pub(super) fn open<S: Storage + 'static>(
    storage: S,
    cache_size: usize,
) -> Result<Box<dyn Container>> {
    let mut warnings = Warnings::default();
    let first = Part::open(Box::new(storage))?;
    let mut parts = vec![first];
    parts::add_siblings(&mut parts, &mut warnings);
    of_parts(parts, warnings, cache_size)
}

/// Opens a split dump of these files, in any order. Others are not looked for.
pub(super) fn open_all(
    files: Vec<Box<dyn Storage>>,
    cache_size: usize,
) -> Result<Box<dyn Container>> {
    let parts = files.into_iter().map(Part::open).collect::<Result<_>>()?;
    of_parts(parts, Warnings::default(), cache_size)
}

fn of_parts(
    mut parts: Vec<Part>,
    mut warnings: Warnings,
    cache_size: usize,
) -> Result<Box<dyn Container>> {
    parts::check(&parts)?;
    // Of parts that start at the same page, the longest comes first.
    parts.sort_unstable_by_key(|part| {
        let range = part.present.range();
        (range.start, std::cmp::Reverse(range.end))
    });
    for part in &parts {
        part.warn(&mut warnings);
    }
    parts::join(&mut parts, &mut warnings);
    // makedumpfile writes the notes into each part.
    let notes_in = parts
        .iter()
        .position(|part| part.header.notes.size > 0)
        .unwrap_or(0);
    let Some(Part {
        storage, header, ..
    }) = parts.get(notes_in)
    else {
        return Err(crate::Error::Absent("no file was given".into()));
    };
    let headers = Headers {
        format: match (header.is_diskdump, header.split) {
            (true, _) => "diskdump-compressed dump",
            (false, None) => "kdump-compressed dump",
            (false, Some(_)) => "split kdump-compressed dump",
        },
        machine_type: header.machine_type,
        word: header.word,
        notes: notes(storage, header, &mut warnings),
        warnings,
    };
    let most = parts.iter().map(Part::descriptors_in_file);
    let most = most.fold(0, u64::saturating_add);
    Ok(Box::new(Kdump {
        headers,
        notes_in,
        level: DumpLevel(header.level),
        max_mapnr: header.max_mapnr,
        is_incomplete: parts.iter().any(|part| part.header.is_incomplete),
        memory_held: OnceLock::new(),
        memory_size: OnceLock::new(),
        cache: PageCache::new(cache_size, most),
        decoded: AtomicU64::new(0),
        parts,
    }))
}

/// The notes, and the regions outside of them that have the contents of notes.
fn notes(storage: &impl Storage, header: &header::Header, warnings: &mut Warnings) -> Vec<Note> {
    let mut reader = NoteReader::new(storage);
    reader.read(header.notes.offset, header.notes.size, warnings);
    let known = |notes: &[Note], name: &[u8]| notes.iter().any(|note| note.name == name);
    // Since version 4 it is also in the notes, unless makedumpfile took it from elsewhere (-x, -i).
    if !known(&reader.notes, b"VMCOREINFO") {
        reader.add(
            b"VMCOREINFO",
            0,
            header.vmcoreinfo.offset,
            header.vmcoreinfo.size,
            warnings,
        );
    }
    if !known(&reader.notes, b"ERASEINFO") {
        reader.add(
            b"ERASEINFO",
            0,
            header.eraseinfo.offset,
            header.eraseinfo.size,
            warnings,
        );
    }
    reader.notes
}

impl Kdump {
    /// Reads bytes that are not entirely cached. Pages of a read of more than one page are not cached, because
    /// such a read is a pass over memory.
    #[cold]
    #[inline(never)]
    fn read_pages(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        let is_long = buf.len() > PAGE_SIZE;
        let pages = (addr.page_offset() + buf.len()).div_ceil(PAGE_SIZE);
        let mut pass = Pass::new(pages);
        let read = for_each_page(addr, buf, |at, bytes| {
            if is_long && self.cache.get(Pfn(at.frame().0), at.page_offset(), bytes) {
                return Ok(());
            }
            self.load(at, bytes, is_long, &mut pass)
        });
        self.decoded.fetch_add(pass.decoded, Ordering::Relaxed);
        read
    }

    /// Reads a part of a page that is not cached. Unless the read is a part of a longer one, the page is
    /// cached then.
    fn load<'a>(
        &'a self,
        addr: MachineAddr,
        buf: &mut [u8],
        is_long: bool,
        pass: &mut Pass<'a>,
    ) -> Result<(), Fault> {
        let (codec, packed, offset) = match self.data(addr, pass)? {
            Data::Stored(part, offset) => {
                let from = offset.checked_add(addr.page_offset() as u64);
                let from = from.ok_or(corrupt(addr, offset, "an offset without bound"))?;
                let read = part.storage.read_at(from, buf);
                return read.map_err(|error| storage_fault(addr, from, error));
            }
            Data::Packed {
                codec,
                bytes,
                offset,
            } => (codec, bytes, offset),
        };
        let corrupt = |reason| corrupt(addr, offset, reason);
        if buf.len() == PAGE_SIZE && is_long {
            return codec::decompress(codec, packed, buf).map_err(corrupt);
        }
        let page = unpacked(codec, packed).map_err(corrupt)?;
        let bytes = page.get(addr.page_offset()..).unwrap_or_default();
        if let Some(bytes) = bytes.get(..buf.len()) {
            buf.copy_from_slice(bytes);
        }
        let usage = if buf.len() == PAGE_SIZE {
            Use::Whole
        } else {
            Use::Part
        };
        self.cache.put(Pfn(addr.frame().0), page, usage);
        Ok(())
    }

    /// What the files have of the page of an address.
    fn data<'a, 'p>(
        &'a self,
        addr: MachineAddr,
        pass: &'p mut Pass<'a>,
    ) -> Result<Data<'a, 'p>, Fault> {
        pass.data(addr, self.is_incomplete, |pfn| self.locate(addr, pfn))
    }

    fn locate(&self, addr: MachineAddr, pfn: u64) -> Result<Place<'_>, Fault> {
        let after = self
            .parts
            .partition_point(|part| part.present.range().start <= pfn);
        // Empty parts may start at the same page.
        let before = self.parts.get(..after).unwrap_or_default().iter();
        let part = before
            .rev()
            .find(|part| part.present.range().contains(&pfn));
        let Some(part) = part else {
            return Err(self.absence(addr, pfn));
        };
        let rank = part.present.rank(&part.storage, pfn);
        match rank.map_err(|error| storage_fault(addr, part.bits.offset, error))? {
            Some(number) => Ok(Place { part, pfn, number }),
            None => Err(self.absence(addr, pfn)),
        }
    }

    /// Why a page is in none of the files.
    #[cold]
    fn absence(&self, addr: MachineAddr, pfn: u64) -> Fault {
        let Some(part) = self.parts.first().filter(|_| pfn < self.max_mapnr) else {
            return Fault::NoSegment(addr);
        };
        // The bitmaps of each part are those of the whole dump.
        let ask = |bits: bitmap::Bitmap| {
            let has = bits.has(&part.storage, pfn);
            has.map_err(|error| storage_fault(addr, bits.offset, error))
        };
        if pfn >= part.bits.pages {
            // The file ends within its bitmaps.
            let offset = part.bits.offset.saturating_add(pfn / 8);
            return Fault::Truncated { addr, offset };
        }
        match ask(part.bits) {
            Ok(true) => return Fault::MissingPart(addr),
            Ok(false) => {}
            Err(fault) => return fault,
        }
        match part.ram.map(ask) {
            Some(Ok(true)) => Fault::Filtered {
                addr,
                level: self.level,
            },
            Some(Err(fault)) => fault,
            _ => Fault::NoSegment(addr),
        }
    }
}

/// A page to be kept.
fn unpacked(codec: codec::Codec, packed: &[u8]) -> Result<Arc<Page>, &'static str> {
    let mut page = Arc::new([0; PAGE_SIZE]);
    if let Some(page) = Arc::get_mut(&mut page) {
        codec::decompress(codec, packed, page)?;
    }
    Ok(page)
}

impl Container for Kdump {
    fn dump_level(&self) -> Option<i32> {
        self.level.0
    }

    fn headers(&self) -> &Headers {
        &self.headers
    }

    fn descriptor(&self, note: &Note, size: u64) -> Option<Vec<u8>> {
        let part = self.parts.get(self.notes_in)?;
        part.storage.copy(note.desc_offset, size).ok()
    }

    fn file_size(&self) -> u64 {
        let sizes = self.parts.iter().map(|part| part.storage.file().len());
        sizes.fold(0, u64::saturating_add)
    }

    fn memory_held(&self) -> u64 {
        *self.memory_held.get_or_init(|| {
            let mut known = 0;
            let pages = self.parts.iter().map(|part| {
                let range = part.present.range();
                let own = if range.start < known {
                    // Other parts have the first pages.
                    Present::new(part.bits, known, range.end).count(&part.storage)
                } else {
                    part.present.count(&part.storage)
                };
                known = known.max(range.end);
                let set = own.unwrap_or(0);
                // A page without a descriptor cannot be read.
                set.min(part.descriptors_in_file())
            });
            pages.fold(0, u64::saturating_add).saturating_mul(PAGE)
        })
    }

    fn memory_size(&self) -> u64 {
        *self.memory_size.get_or_init(|| {
            let counted = self.parts.first().and_then(|part| {
                let bits = part.ram.unwrap_or(part.bits);
                bits.count(&part.storage).ok()
            });
            counted.unwrap_or(self.max_mapnr).saturating_mul(PAGE)
        })
    }

    fn late_warnings(&self) -> Vec<String> {
        let parts = self.parts.iter();
        parts.filter_map(Part::wrong_count).collect()
    }
}

impl HeldMemory for Kdump {
    fn next_run(&self, addr: MachineAddr) -> Option<Run> {
        let pfn = addr.frame().0;
        let runs = self
            .parts
            .iter()
            .filter_map(|part| part.present.run(&part.storage, pfn).ok().flatten());
        let (first, last) = runs.min()?;
        Some(Run {
            start: MachineAddr((first * PAGE).max(addr.0)),
            last: MachineAddr(last * PAGE + (PAGE - 1)),
        })
    }

    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        // Most reads are of one page that is cached.
        let in_page = buf.len() <= PAGE_SIZE - addr.page_offset();
        if in_page && self.cache.get(Pfn(addr.frame().0), addr.page_offset(), buf) {
            return Ok(());
        }
        self.read_pages(addr, buf)
    }

    fn pages_decoded(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    fn decodes_pages(&self) -> bool {
        true
    }

    fn pages_kept(&self) -> usize {
        self.cache.capacity()
    }

    fn page(&self, addr: MachineAddr) -> Option<Arc<Page>> {
        let pfn = Pfn(addr.frame().0);
        if let Some(page) = self.cache.hold(pfn) {
            return Some(page);
        }
        let mut pass = Pass::new(1);
        let Ok(Data::Packed { codec, bytes, .. }) = self.data(addr, &mut pass) else {
            return None;
        };
        let page = unpacked(codec, bytes);
        self.decoded.fetch_add(1, Ordering::Relaxed);
        let page = page.ok()?;
        self.cache.put(pfn, page.clone(), Use::Part);
        Some(page)
    }
}
