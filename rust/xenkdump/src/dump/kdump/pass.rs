//! Reads of consecutive pages: where each is in the file, and its compressed bytes.
//!
//! What follows is read ahead, but no further than the read goes: bits of 64 pages, descriptors, and
//! compressed bytes. Each access to a file is checked, which takes as long as decoding a small page.

use super::codec::Codec;
use super::parts::{Descriptor, Part, DESCRIPTOR, PAGE};
use crate::addr::{MachineAddr, PAGE_SIZE};
use crate::dump::run_map::fault as storage_fault;
use crate::fault::Fault;
use crate::file::ReadError;

/// Descriptors that are read at once, at most.
const AHEAD: usize = 32;
/// Pages of a word of a bitmap.
const WORD: u64 = u64::BITS as u64;

/// Where a page is.
pub(super) struct Place<'a> {
    pub part: &'a Part,
    pub pfn: u64,
    /// How many pages of the part precede it.
    pub number: u64,
}

/// What a file has of a page.
pub(super) enum Data<'a, 'p> {
    /// Its bytes, at this offset.
    Stored(&'a Part, u64),
    Packed {
        codec: Codec,
        bytes: &'p [u8],
        /// Where they are in the file.
        offset: u64,
    },
}

/// The page of an address is corrupt, by what is at `offset` of the file.
pub(super) fn corrupt(addr: MachineAddr, offset: u64, reason: &'static str) -> Fault {
    Fault::Corrupt {
        addr,
        offset,
        reason,
    }
}

/// The state of a read of consecutive pages.
pub(super) struct Pass<'a> {
    /// The place of the page that was read last.
    last: Option<Place<'a>>,
    /// The bits of the pages around it that a word of the bitmap has; `None` if they were not read.
    bits: Option<u64>,
    descriptors: Descriptors,
    packed: Packed,
    /// Pages that are still to be read, at most.
    left: usize,
    /// Pages that were decompressed.
    pub decoded: u64,
}

impl<'a> Pass<'a> {
    /// A read of up to `pages` pages.
    pub fn new(pages: usize) -> Self {
        Self {
            last: None,
            bits: None,
            descriptors: Descriptors {
                bytes: [0; AHEAD * DESCRIPTOR],
                first: 0,
                count: 0,
            },
            packed: Packed {
                bytes: [0; PAGE_SIZE],
                start: 0,
                len: 0,
            },
            left: pages,
            decoded: 0,
        }
    }

    /// Finds the page of an address, by `locate` if it is not the next one, and copies what is compressed.
    /// In an incomplete dump pages may be missing.
    pub fn data(
        &mut self,
        addr: MachineAddr,
        is_incomplete: bool,
        locate: impl FnOnce(u64) -> Result<Place<'a>, Fault>,
    ) -> Result<Data<'a, '_>, Fault> {
        let pfn = addr.frame().0;
        let place = match self.next(pfn) {
            Some(place) => place,
            None => {
                // The page may be in another file.
                (self.bits, self.descriptors.count, self.packed.len) = (None, 0, 0);
                locate(pfn)?
            }
        };
        let Place { part, number, .. } = place;
        self.last = Some(place);
        let wanted = self.left;
        self.left = wanted.saturating_sub(1);
        let at = part.descriptor_offset(number);
        let descriptor = self.descriptors.get(part, number, wanted);
        let descriptor = descriptor.map_err(|error| storage_fault(addr, at, error))?;
        let Descriptor {
            offset,
            size,
            flags,
        } = descriptor;
        let corrupt = |reason| corrupt(addr, if offset == 0 { at } else { offset }, reason);
        if offset == 0 || size == 0 {
            // makedumpfile reserves the descriptors of all pages before it writes any.
            return Err(if is_incomplete {
                Fault::NotWritten(addr)
            } else {
                corrupt("an empty descriptor")
            });
        }
        let Some(codec) = Codec::of(flags).map_err(corrupt)? else {
            if u64::from(size) != PAGE {
                return Err(corrupt("a stored page of another size"));
            }
            return Ok(Data::Stored(part, offset));
        };
        let size = size as usize;
        self.read_packed(part, number, (offset, size), wanted)
            .map_err(|error| storage_fault(addr, offset, error))?;
        let bytes = self.packed.get(offset, size);
        let bytes = bytes.ok_or(corrupt("more than a page"))?;
        self.decoded += 1;
        Ok(Data::Packed {
            codec,
            bytes,
            offset,
        })
    }

    /// Reads the compressed bytes of a page, and those of pages after it that adjoin. Does nothing if they are
    /// known, or if they are more than a page: what does not become smaller is stored.
    fn read_packed(
        &mut self,
        part: &Part,
        number: u64,
        (offset, size): (u64, usize),
        wanted: usize,
    ) -> Result<(), ReadError> {
        if size > PAGE_SIZE || self.packed.get(offset, size).is_some() {
            return Ok(());
        }
        let ahead = self.descriptors.adjacent(number, offset, wanted);
        self.packed.read(part, offset, size, ahead)
    }

    /// The place of page `pfn`, if it is the next one.
    fn next(&mut self, pfn: u64) -> Option<Place<'a>> {
        let Place { part, number, .. } = self.last.take().filter(|last| pfn == last.pfn + 1)?;
        let bits = match self.bits.filter(|_| !pfn.is_multiple_of(WORD)) {
            Some(bits) => bits,
            None => part.present.word(&part.storage, pfn).ok()?,
        };
        self.bits = Some(bits);
        let is_there = bits >> (pfn % WORD) & 1 == 1;
        is_there.then_some(Place {
            part,
            pfn,
            number: number + 1,
        })
    }
}

/// Descriptors of consecutive pages of one file.
struct Descriptors {
    bytes: [u8; AHEAD * DESCRIPTOR],
    /// The number of the first page.
    first: u64,
    count: usize,
}

impl Descriptors {
    /// A descriptor. If it has to be read, others after it are read as well: up to `wanted` with it.
    fn get(&mut self, part: &Part, number: u64, wanted: usize) -> Result<Descriptor, ReadError> {
        if let Some(known) = self.known(number) {
            return Ok(known);
        }
        let count = wanted.min(AHEAD);
        if count > 1 {
            let bytes = self.bytes.get_mut(..count * DESCRIPTOR).unwrap_or_default();
            let read = part.storage.read_at(part.descriptor_offset(number), bytes);
            (self.first, self.count) = (number, if read.is_ok() { count } else { 0 });
        }
        // The file may end after this one.
        match self.known(number) {
            Some(known) => Ok(known),
            None => part.descriptor(number),
        }
    }

    fn known(&self, number: u64) -> Option<Descriptor> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        if index >= self.count {
            return None;
        }
        let bytes = self.bytes.get(index * DESCRIPTOR..)?;
        bytes.first_chunk().map(Descriptor::of)
    }

    /// How many bytes at `offset`, where the data of page `number` is, are those of compressed pages that
    /// adjoin: of `wanted` pages at most, and no more than fit into [`Packed`].
    fn adjacent(&self, number: u64, offset: u64, wanted: usize) -> usize {
        let mut len = 0_usize;
        for next in (number..).take(wanted) {
            let Some(page) = self.known(next) else { break };
            let end = len.saturating_add(page.size as usize);
            let adjoins = page.offset.checked_sub(offset) == Some(len as u64);
            if !adjoins || end > PAGE_SIZE || page.flags == 0 {
                break;
            }
            len = end;
        }
        len
    }
}

/// Compressed bytes, as they are in one file.
struct Packed {
    bytes: [u8; PAGE_SIZE],
    /// Their offset in the file.
    start: u64,
    len: usize,
}

impl Packed {
    fn get(&self, offset: u64, size: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(..self.len)?.get(from..)?.get(..size)
    }

    /// Reads the bytes of a page, and of others after it if `ahead` is more than `size`.
    fn read(
        &mut self,
        part: &Part,
        offset: u64,
        size: usize,
        ahead: usize,
    ) -> Result<(), ReadError> {
        self.len = 0;
        // The file may end after the page.
        let held = usize::try_from(part.storage.held(offset, PAGE)).unwrap_or(0);
        let mut len = ahead.min(held).max(size);
        let bytes = self.bytes.get_mut(..len).unwrap_or_default();
        if let Err(error) = part.storage.read_at(offset, bytes) {
            // What follows the page may be the part that cannot be read.
            let bytes = self.bytes.get_mut(..size).filter(|_| len > size);
            part.storage.read_at(offset, bytes.ok_or(error)?)?;
            len = size;
        }
        (self.start, self.len) = (offset, len);
        Ok(())
    }
}
