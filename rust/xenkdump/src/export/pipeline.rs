//! Chunks on several threads: read and packed in any order, committed in order, written in any order.
//!
//! The number of chunks in memory is fixed. A thread that is ahead of the others continues until all
//! chunks wait for the first one that is not ready.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::job::{Control, Export, Failure, Lost, Report};
use super::pages::{Chunk, Cursor, Kind};
use crate::{alloc, parallel};

/// Chunks in memory for each thread.
const CHUNKS_PER_THREAD: usize = 4;
/// Pages after which mapped pages of the source are given back: they count as memory of this process.
const RELEASE_PAGES: u64 = 32 << 8;

/// How chunks are written.
pub(super) trait Writer: Sync {
    /// The encoder of a thread.
    type Encoder;
    /// An encoded chunk, made once and used again.
    type Packed: Send;
    /// What is known after each chunk, in order.
    type State: Send;

    fn encoder(&self) -> Self::Encoder;
    fn packed(&self) -> Self::Packed;

    /// Encodes a chunk, in any order; writes it if its place does not depend on those before.
    fn pack(
        &self,
        encoder: &mut Self::Encoder,
        chunk: &Chunk,
        packed: &mut Self::Packed,
    ) -> io::Result<()>;

    /// Decides the place of a chunk, in order.
    fn commit(
        &self,
        state: &mut Self::State,
        chunk: &Chunk,
        packed: &mut Self::Packed,
    ) -> io::Result<()>;

    /// Writes a chunk whose place is decided, in any order.
    fn write(&self, _packed: &Self::Packed) -> io::Result<()> {
        Ok(())
    }
}

/// A chunk and its encoded form.
struct Slot<P> {
    chunk: Chunk,
    packed: P,
}

/// What the threads share.
struct Shared<'r, W: Writer> {
    cursor: Cursor<'r>,
    free: Vec<Slot<W::Packed>>,
    ready: BTreeMap<u64, Slot<W::Packed>>,
    /// The number of the next chunk to commit.
    next: u64,
    state: W::State,
    report: Report,
    lost: Lost,
    since_release: u64,
    failure: Option<io::Error>,
    is_over: bool,
}

struct Pipeline<'p, W: Writer> {
    export: &'p Export<'p>,
    writer: &'p W,
    control: &'p Control,
    shared: Mutex<Shared<'p, W>>,
    changed: Condvar,
}

/// Wakes the other threads if this one unwinds: they may wait for its chunk.
struct OnUnwind<'p, 'q, W: Writer>(&'q Pipeline<'p, W>);

impl<W: Writer> Drop for OnUnwind<'_, '_, W> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(None);
        }
    }
}

/// Writes all pages; returns the final state, the report and the pages that cannot be read.
pub(super) fn run<W: Writer>(
    export: &Export<'_>,
    writer: &W,
    state: W::State,
    control: &Control,
) -> Result<(W::State, Report, Lost), Failure> {
    let threads = export.threads.max(1);
    let slot = |_| Slot {
        chunk: Chunk::new(),
        packed: writer.packed(),
    };
    let pipeline = Pipeline {
        export,
        writer,
        control,
        shared: Mutex::new(Shared {
            cursor: Cursor::new(export.pages),
            free: alloc::collect((0..threads.saturating_mul(CHUNKS_PER_THREAD)).map(slot)),
            ready: BTreeMap::new(),
            next: 0,
            state,
            report: Report::default(),
            lost: Lost::default(),
            since_release: 0,
            failure: None,
            is_over: false,
        }),
        changed: Condvar::new(),
    };
    // One range for each thread, which works until there are no more chunks.
    parallel::ranges(
        threads,
        1,
        threads,
        || writer.encoder(),
        |encoder, _| {
            let _guard = OnUnwind(&pipeline);
            pipeline.work(encoder);
            true
        },
    );
    let mut shared = pipeline
        .shared
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = shared.failure {
        return Err(Failure::Io(error));
    }
    shared.report.is_stopped = control.is_stopped();
    shared.report.first_lost = shared.lost.ranges.first().map(|run| run.first);
    Ok((shared.state, shared.report, shared.lost))
}

impl<'p, W: Writer> Pipeline<'p, W> {
    fn lock(&self) -> MutexGuard<'_, Shared<'p, W>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all threads, with an error or without.
    fn end(&self, error: Option<io::Error>) {
        let mut shared = self.lock();
        shared.is_over = true;
        if shared.failure.is_none() {
            shared.failure = error;
        }
        drop(shared);
        self.changed.notify_all();
    }

    fn work(&self, encoder: &mut W::Encoder) {
        while let Some(slot) = self.next() {
            if let Err(error) = self.process(encoder, slot) {
                self.end(Some(error));
            }
        }
    }

    /// The next chunk, in a slot of its own; `None` at the end. The first chunk that is not committed has
    /// a slot, so that the others do not wait for ever.
    fn next(&self) -> Option<Slot<W::Packed>> {
        let mut shared = self.lock();
        loop {
            if shared.is_over || self.control.is_stopped() {
                return None;
            }
            if let Some(mut slot) = shared.free.pop() {
                let Some(place) = shared.cursor.next() else {
                    shared.free.push(slot);
                    return None;
                };
                slot.chunk.place = place;
                return Some(slot);
            }
            shared = self
                .changed
                .wait(shared)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn process(&self, encoder: &mut W::Encoder, mut slot: Slot<W::Packed>) -> io::Result<()> {
        let place = slot.chunk.place;
        slot.chunk.read(self.export.dump, place);
        self.writer.pack(encoder, &slot.chunk, &mut slot.packed)?;
        let mut committed = self.commit(slot)?;
        for slot in &committed {
            self.writer.write(&slot.packed)?;
        }
        let pages = committed.iter().map(|slot| slot.chunk.place.count as u64);
        self.control.add(pages.sum());
        self.lock().free.append(&mut committed);
        self.changed.notify_all();
        Ok(())
    }

    /// Adds a chunk to those that are ready, and commits all that are next.
    fn commit(&self, slot: Slot<W::Packed>) -> io::Result<Vec<Slot<W::Packed>>> {
        let mut committed = Vec::new();
        let mut guard = self.lock();
        let shared = &mut *guard;
        shared.ready.insert(slot.chunk.place.number, slot);
        while let Some(mut slot) = shared.ready.remove(&shared.next) {
            shared.next += 1;
            for (pfn, kind, _) in slot.chunk.pages() {
                match kind {
                    Kind::Data => shared.report.written += 1,
                    Kind::Zero => shared.report.zero += 1,
                    Kind::Lost => {
                        shared.report.lost += 1;
                        shared.lost.add(pfn);
                    }
                }
            }
            self.writer
                .commit(&mut shared.state, &slot.chunk, &mut slot.packed)?;
            shared.since_release += slot.chunk.place.count as u64;
            alloc::push(&mut committed, slot);
        }
        if shared.since_release >= RELEASE_PAGES {
            shared.since_release = 0;
            drop(guard);
            self.export.host.release();
        }
        Ok(committed)
    }
}
