//! The pages that are exported, in chunks.

use crate::addr::{MachineAddr, PAGE_SHIFT, PAGE_SIZE};
use crate::alloc;
use crate::dump::Dump;
use crate::fault::Fault;
use crate::memory::Memory;
use crate::{Error, Result};

/// Pages of a chunk: it fits into the second-level cache, where it is searched for zeros and compressed.
pub(super) const CHUNK_PAGES: usize = 64;

/// Contiguous pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// The first page frame number.
    pub first: u64,
    /// The number of pages; not 0.
    pub count: u64,
}

impl PageRun {
    /// The page frame number after the last one.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// An error unless the runs are ascending, disjoint and below 2^52 pages.
pub(super) fn check(runs: &[PageRun]) -> Result<()> {
    let mut end = 0;
    for run in runs {
        if run.first < end || run.count == 0 || run.end() > 1 << (64 - PAGE_SHIFT) {
            let (first, count) = (run.first, run.count);
            let text =
                format!("{count} pages at pfn {first:#x} are not a run after the one before");
            return Err(Error::Absent(text));
        }
        end = run.end();
    }
    Ok(())
}

/// The number of pages in all runs.
pub(super) fn total(runs: &[PageRun]) -> u64 {
    runs.iter().map(|run| run.count).sum()
}

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Zero,
    /// It cannot be read.
    Lost,
}

/// The place of a chunk among the pages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The number of the chunk.
    pub number: u64,
    /// The number of its run.
    pub run: u64,
    /// Its first page frame number.
    pub first: u64,
    /// The number of exported pages before it.
    pub position: u64,
    /// Its number of pages.
    pub count: usize,
}

/// Divides runs into chunks; each is within one run.
pub(super) struct Cursor<'r> {
    runs: &'r [PageRun],
    next: Place,
    /// Pages of the run that are done.
    offset: u64,
}

impl<'r> Cursor<'r> {
    pub fn new(runs: &'r [PageRun]) -> Self {
        Self {
            runs,
            next: Place::default(),
            offset: 0,
        }
    }
}

impl Iterator for Cursor<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let run = self.runs.get(self.next.run as usize)?;
        let count = (run.count - self.offset).min(CHUNK_PAGES as u64);
        let place = Place {
            first: run.first + self.offset,
            count: count as usize,
            ..self.next
        };
        self.offset += count;
        self.next.number += 1;
        self.next.position += count;
        if self.offset >= run.count {
            self.offset = 0;
            self.next.run += 1;
        }
        Some(place)
    }
}

/// The bytes of a chunk.
pub(super) struct Chunk {
    pub place: Place,
    data: Vec<u8>,
    kinds: [Kind; CHUNK_PAGES],
}

impl Chunk {
    pub fn new() -> Self {
        Self {
            place: Place::default(),
            data: alloc::filled(0, CHUNK_PAGES * PAGE_SIZE),
            kinds: [Kind::Lost; CHUNK_PAGES],
        }
    }

    /// Reads the pages of `place`.
    pub fn read(&mut self, dump: &Dump, place: Place) {
        self.place = place;
        let data = self
            .data
            .get_mut(..place.count * PAGE_SIZE)
            .unwrap_or_default();
        let at = MachineAddr(place.first << PAGE_SHIFT);
        let whole = dump.read(at, data);
        let pages = data.chunks_exact_mut(PAGE_SIZE).zip(&mut self.kinds);
        for (pfn, (page, kind)) in (place.first..).zip(pages) {
            let read = match &whole {
                Ok(()) => Ok(()),
                Err(_) => dump.read(MachineAddr(pfn << PAGE_SHIFT), page),
            };
            *kind = match read {
                Ok(()) if is_zero(page) => Kind::Zero,
                Ok(()) => Kind::Data,
                Err(Fault::NoMemory { .. }) => {
                    alloc::probe(usize::MAX);
                    Kind::Lost
                }
                Err(_) => Kind::Lost,
            };
        }
    }

    /// The page frame numbers, kinds and contents.
    pub fn pages(&self) -> impl Iterator<Item = (u64, Kind, &[u8])> {
        let pages = self.data.chunks_exact(PAGE_SIZE).zip(self.kinds);
        (self.place.first..)
            .zip(pages.take(self.place.count))
            .map(|(pfn, (page, kind))| (pfn, kind, page))
    }

    /// Contiguous pages with contents, each with the number of pages before them in the chunk.
    pub fn spans(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let kinds = self.kinds.get(..self.place.count).unwrap_or_default();
        let mut at = 0;
        std::iter::from_fn(move || {
            let is_data = |kind: &Kind| *kind == Kind::Data;
            let rest = kinds.get(at..)?;
            let start = at + rest.iter().position(is_data)?;
            let held = kinds.get(start..)?.iter().take_while(|kind| is_data(kind));
            at = start + held.count();
            let bytes = self.data.get(start * PAGE_SIZE..at * PAGE_SIZE)?;
            Some((start as u64, bytes))
        })
    }
}

/// Whether all bytes are 0.
fn is_zero(page: &[u8]) -> bool {
    page.chunks(256)
        .all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn run(first: u64, count: u64) -> PageRun {
        PageRun { first, count }
    }

    #[test]
    fn chunks_are_within_runs() {
        let runs = [run(3, 65), run(100, 1), run(200, 64)];
        let found: Vec<_> = Cursor::new(&runs)
            .map(|place| {
                (
                    place.number,
                    place.run,
                    place.first,
                    place.position,
                    place.count,
                )
            })
            .collect();
        let expected = [
            (0, 0, 3, 0, 64),
            (1, 0, 67, 64, 1),
            (2, 1, 100, 65, 1),
            (3, 2, 200, 66, 64),
        ];
        assert_eq!(found, expected);
        assert_eq!(total(&runs), 130);
    }

    #[test]
    fn runs_are_checked() {
        assert!(check(&[run(0, 1), run(1, 1)]).is_ok());
        for bad in [
            [run(0, 2), run(1, 1)],
            [run(0, 1), run(2, 0)],
            [run(0, 1), run(2, 1 << 52)],
            [run(5, 1), run(2, 1)],
        ] {
            assert!(check(&bad).is_err());
        }
    }

    #[test]
    fn one_byte_is_not_zero() {
        for at in [0, 255, 256, 4095] {
            let mut page = [0; PAGE_SIZE];
            assert!(is_zero(&page));
            page[at] = 1;
            assert!(!is_zero(&page));
        }
    }
}
