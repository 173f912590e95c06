//! Reads the headers of all blocks.
//!
//! Each header gives the offset of the next one. Any block may overwrite an earlier one, so all headers
//! have to be read before the first byte of the original file is known. Headers that are close together
//! are read through the mapping, some MiB at a time. If all blocks so far had one size, several threads
//! continue at the offsets that follow from this size. A thread's result is used only if the chain of
//! blocks from the start leads to its first block.

use std::sync::{Mutex, PoisonError};

use super::header::{int64, BLOCK_HEADER, FILE_HEADER};
use super::run::Run;
use crate::alloc;
use crate::file::{ReadError, Storage};
use crate::limits::MAX_FLATTENED_RUNS;
use crate::parallel;

/// Bytes of the file that one thread scans at a time.
const SEGMENT: u64 = 32 << 20;
/// Segments that are scanned at a time, for each thread.
const SEGMENTS: usize = 4;
/// Threads that are used at most: the rest of the work, mapping the file, is not faster with more.
const MAX_THREADS: usize = 8;
/// Times that the place of a block may be guessed wrongly.
const MAX_MISSES: usize = 8;
/// Bytes that are mapped at a time.
const WINDOW: u64 = 2 << 20;
/// The largest distance of headers that are read through the mapping. Otherwise most of what would be
/// mapped, and perhaps read from the disk, is not needed.
const CLOSE: u64 = 16 << 10;
/// Headers at this distance before the mapping is used.
const MIN_CLOSE: usize = 64;

/// How the headers end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With the end mark.
    Mark,
    /// The file ends before that.
    Cut,
    /// With an offset and a size that no block has.
    Corrupt(i64, i64),
    /// There are too many.
    TooMany,
    Failed(ReadError),
}

/// Blocks in the order of the file.
#[derive(Debug)]
pub(super) struct Scan {
    pub runs: Vec<Run>,
    /// The offset of the header after them.
    pub at: u64,
    /// `None` if more follow.
    end: Option<End>,
}

/// The blocks of a file, and how they end.
pub(super) fn scan(storage: &impl Storage) -> (Scan, End) {
    let threads = parallel::available().min(MAX_THREADS);
    loop {
        let (scan, end) = scan_all(storage, threads, SEGMENT);
        // If not, nothing can be borrowed any more.
        if storage.is_intact() {
            return (scan, end);
        }
    }
}

fn scan_all(storage: &impl Storage, threads: usize, segment_len: u64) -> (Scan, End) {
    let mut all = Scan {
        runs: Vec::new(),
        at: FILE_HEADER,
        end: None,
    };
    let mut misses = 0;
    loop {
        let next = segment(storage, all.at, segment_len);
        if let Some(end) = all.append(next) {
            return (all, end);
        }
        let stride = all.runs.last().and_then(Run::stride);
        let Some(stride) = stride.filter(|_| threads > 1 && misses < MAX_MISSES) else {
            continue;
        };
        // A block as long as that is a segment by itself.
        let len = segment_len.next_multiple_of(stride);
        let left = storage.len().saturating_sub(all.at) / len;
        let count =
            usize::try_from(left).map_or(SEGMENTS * threads, |left| left.min(SEGMENTS * threads));
        let found: Vec<Mutex<Option<Scan>>> = (0..count).map(|_| Mutex::default()).collect();
        let first = all.at;
        let work = |(): &mut (), range: std::ops::Range<usize>| {
            for number in range {
                let at = first + number as u64 * len;
                let Some(slot) = found.get(number) else {
                    continue;
                };
                let part = segment(storage, at, len);
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
            }
            true
        };
        parallel::ranges(count, 1, threads, || (), work);
        for (number, slot) in found.into_iter().enumerate() {
            let part = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
            if all.at != first + number as u64 * len {
                misses += 1;
                break;
            }
            let Some(part) = part else { break };
            if let Some(end) = all.append(part) {
                return (all, end);
            }
        }
    }
}

impl Scan {
    /// Adds the blocks that follow; returns how the headers end, if they do.
    fn append(&mut self, next: Scan) -> Option<End> {
        for run in next.runs {
            if !push(&mut self.runs, run) {
                return Some(End::TooMany);
            }
        }
        self.at = next.at;
        next.end
    }
}

/// Adds a block or a run; false if there are too many.
fn push(runs: &mut Vec<Run>, run: Run) -> bool {
    if runs.last_mut().is_some_and(|last| last.extend(&run)) {
        return true;
    }
    if runs.len() >= MAX_FLATTENED_RUNS {
        return false;
    }
    alloc::push(runs, run);
    true
}

/// The blocks whose headers are in `len` bytes.
fn segment(storage: &impl Storage, first: u64, len: u64) -> Scan {
    let until = first.saturating_add(len);
    let mut headers = Headers::new(storage);
    let mut runs = Vec::new();
    let mut at = first;
    let end = loop {
        if at >= until {
            break None;
        }
        let header = match headers.read(at) {
            Ok(header) => header,
            Err(ReadError::PastEnd) => break Some(End::Cut),
            Err(error) => break Some(End::Failed(error)),
        };
        let (start, len) = (int64(&header, 0), int64(&header, 8));
        if start == -1 {
            break Some(End::Mark);
        }
        let place = u64::try_from(start).ok().zip(u64::try_from(len).ok());
        // makedumpfile writes no empty block. A hole in the file would be millions of them.
        let Some((start, len)) = place.filter(|(_, len)| *len > 0) else {
            break Some(End::Corrupt(start, len));
        };
        let data = at.saturating_add(BLOCK_HEADER);
        let held = storage.held(data, len);
        // Both are below 2^63: their sum cannot wrap.
        if held > 0 && !push(&mut runs, Run::of_block(start, data, held)) {
            break Some(End::TooMany);
        }
        at = data.saturating_add(len);
    };
    Scan { runs, at, end }
}

/// Reads headers, each after the one before.
struct Headers<'s, S: Storage> {
    storage: &'s S,
    /// What is mapped.
    window: std::ops::Range<u64>,
    last: u64,
    /// How many of the last headers were close to the one before.
    close: usize,
}

impl<'s, S: Storage> Headers<'s, S> {
    fn new(storage: &'s S) -> Self {
        Self {
            storage,
            window: 0..0,
            last: 0,
            close: 0,
        }
    }

    fn read(&mut self, at: u64) -> Result<[u8; BLOCK_HEADER as usize], ReadError> {
        self.close = if at - self.last <= CLOSE {
            self.close + 1
        } else {
            0
        };
        self.last = at;
        if at >= self.window.end && self.close >= MIN_CLOSE {
            self.release();
            self.window = at..at.saturating_add(WINDOW);
            self.storage.populate(at, WINDOW);
        }
        if self.window.contains(&at) {
            if let Some(header) = self.storage.borrow(at, BLOCK_HEADER).first_chunk() {
                return Ok(*header);
            }
        }
        // Not from the mapping: that would read the pages around each header too, and count as this
        // process's memory.
        let mut header = [0; BLOCK_HEADER as usize];
        self.storage.peek(at, &mut header)?;
        Ok(header)
    }

    fn release(&self) {
        let len = self.window.end - self.window.start;
        if len > 0 {
            self.storage.release(self.window.start, len);
        }
    }
}

impl<S: Storage> Drop for Headers<'_, S> {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{MappedFile, RegularFile};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A flattened file in memory. Counts its headers that are read.
    #[derive(Debug)]
    struct Bytes {
        bytes: Vec<u8>,
        file: RegularFile,
        reads: AtomicUsize,
    }

    impl Bytes {
        /// Blocks by offset and size, and the end mark.
        fn of(blocks: &[(u64, u64)]) -> Self {
            let mut bytes = vec![0; FILE_HEADER as usize];
            for (start, len) in blocks {
                bytes.extend([start.to_be_bytes(), len.to_be_bytes()].concat());
                // Contents that look like headers of other blocks.
                let fill = [0, 0, 0, 0, 0, 0, 0, 7];
                bytes.extend(fill.iter().cycle().take(*len as usize));
            }
            bytes.extend([0xff; 16]);
            Self {
                bytes,
                file: RegularFile::open("/proc/self/exe".as_ref()).unwrap(),
                reads: AtomicUsize::new(0),
            }
        }
    }

    impl Storage for Bytes {
        fn file(&self) -> &RegularFile {
            &self.file
        }

        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let bytes = self.bytes.get(offset as usize..);
            let bytes = bytes.and_then(|bytes| bytes.get(..buf.len()));
            buf.copy_from_slice(bytes.ok_or(ReadError::PastEnd)?);
            Ok(())
        }
    }

    fn follow(start: u64, len: u64, count: u64) -> impl Iterator<Item = (u64, u64)> {
        (0..count).map(move |i| (start + i * len, len))
    }

    #[test]
    fn threads_find_the_same_blocks() {
        let cases: [Vec<(u64, u64)>; 5] = [
            follow(0, 100, 20_000).collect(),
            // Another size after that, so that the guesses are wrong; and an offset of its own.
            follow(0, 100, 5_000)
                .chain([(7, 24)])
                .chain(follow(600_000, 100, 3_000))
                .chain(follow(1 << 40, 8, 9_000))
                .chain(follow(50, 100, 5_000))
                .collect(),
            // Shorter last blocks of each run.
            (0..9_000).map(|i| (i * 99, 99 + i % 2)).collect(),
            (0..3_000).map(|i| (i * 64, 1 + i % 64)).collect(),
            vec![],
        ];
        for blocks in cases {
            let bytes = Bytes::of(&blocks);
            let (expected, end) = scan_all(&bytes, 1, 4096);
            assert_eq!(end, End::Mark);
            let alone = bytes.reads.swap(0, Ordering::Relaxed);
            assert_eq!(alone, blocks.len() + 1);
            for threads in [2, 5] {
                for len in [1000, 30_000, 100_000] {
                    let (found, end) = scan_all(&bytes, threads, len);
                    assert_eq!(
                        (&found.runs, found.at, end),
                        (&expected.runs, expected.at, End::Mark)
                    );
                    // Wrong guesses cost little.
                    let reads = bytes.reads.swap(0, Ordering::Relaxed);
                    let wasted = MAX_MISSES * SEGMENTS * threads * (len as usize / 24 + 2);
                    assert!(reads <= alone + wasted, "{reads} of {alone}");
                }
            }
        }
    }

    #[test]
    fn ends() {
        let blocks: Vec<_> = follow(0, 100, 20_000).collect();
        let mut bytes = Bytes::of(&blocks);
        let at = FILE_HEADER as usize + 15_000 * 116;
        bytes.bytes[at..at + 8].fill(0x80);
        let corrupt = i64::from_be_bytes([0x80; 8]);
        for threads in [1, 4] {
            let (found, end) = scan_all(&bytes, threads, 10_000);
            assert_eq!((found.at, end), (at as u64, End::Corrupt(corrupt, 100)));
            assert_eq!(found.runs.last().unwrap().end, 1_500_000);
        }
        bytes.bytes.truncate(at + 8);
        for threads in [1, 4] {
            let (found, end) = scan_all(&bytes, threads, 10_000);
            assert_eq!((found.at, end), (at as u64, End::Cut));
        }
    }

    #[test]
    fn a_mapped_file() {
        let blocks: Vec<_> = follow(0, 4096, 3_000).chain([(0, 64)]).collect();
        let bytes = Bytes::of(&blocks);
        let path = std::env::temp_dir().join(format!("xenkdump-scan-{}", std::process::id()));
        std::fs::write(&path, &bytes.bytes).unwrap();
        let file = MappedFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (expected, _) = scan_all(&bytes, 1, 4096);
        for threads in [1, 3] {
            let (found, end) = scan_all(&file, threads, 2 << 20);
            assert_eq!((&found.runs, end), (&expected.runs, End::Mark));
        }
        assert!(file.is_intact());
    }
}
