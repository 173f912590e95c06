//! The frames that were decompressed last.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock};

use crate::alloc;
use crate::file::ReadError;

/// Frames that are kept at most. The memory for them is limited by their size.
const MAX_SLOTS: usize = 4096;

/// Decompressed frames by number, within a budget of memory.
///
/// A frame is decompressed in its slot, while the slot is locked: threads that need it wait, and no more
/// frames than there are slots are in memory, however many threads read.
#[derive(Debug)]
pub(super) struct FrameCache {
    slots: Vec<RwLock<Slot>>,
    directory: Mutex<Directory>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The frame in `bytes`, which the directory may have reassigned since.
    frame: Option<u64>,
    bytes: Vec<u8>,
}

/// Which slot is for which frame.
#[derive(Debug, Default)]
struct Directory {
    slots: HashMap<u64, usize>,
    /// Of each slot: its frame, and when it was used.
    uses: Vec<(u64, u64)>,
    clock: u64,
}

impl Directory {
    /// The slot for a frame: its own, a free one, or the one that was not used for longest.
    fn assign(&mut self, frame: u64, count: usize) -> usize {
        self.clock += 1;
        let slot = match self.slots.get(&frame) {
            Some(slot) => *slot,
            None if self.uses.len() < count => {
                alloc::push(&mut self.uses, (frame, 0));
                self.uses.len() - 1
            }
            None => {
                let oldest = self.uses.iter().enumerate().min_by_key(|(_, used)| used.1);
                let (slot, old) = oldest.map_or((0, frame), |(slot, used)| (slot, used.0));
                self.slots.remove(&old);
                slot
            }
        };
        alloc::insert_at(&mut self.slots, frame, slot);
        if let Some(used) = self.uses.get_mut(slot) {
            *used = (frame, self.clock);
        }
        slot
    }
}

impl FrameCache {
    /// For up to `budget` bytes of frames that take up to `size` bytes each. At least one is kept.
    pub fn new(budget: usize, size: usize) -> Self {
        let count = (budget / size.max(1)).clamp(1, MAX_SLOTS);
        Self {
            slots: alloc::collect(std::iter::repeat_with(RwLock::default).take(count)),
            directory: Mutex::default(),
        }
    }

    /// Calls `take` with the bytes of a frame. If it is not here, `load` fills them first.
    pub fn with(
        &self,
        frame: u64,
        load: impl FnOnce(&mut Vec<u8>) -> Result<(), ReadError>,
        take: impl FnOnce(&[u8]),
    ) -> Result<(), ReadError> {
        let slot = {
            let mut directory = self
                .directory
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            directory.assign(frame, self.slots.len())
        };
        let slot = self.slots.get(slot).ok_or(ReadError::Os(libc::ENOMEM))?;
        {
            let slot = slot.read().unwrap_or_else(PoisonError::into_inner);
            if slot.frame == Some(frame) {
                take(&slot.bytes);
                return Ok(());
            }
        }
        let mut slot = slot.write().unwrap_or_else(PoisonError::into_inner);
        if slot.frame != Some(frame) {
            // Whatever fails, the old frame is gone.
            slot.frame = None;
            load(&mut slot.bytes)?;
            slot.frame = Some(frame);
        }
        take(&slot.bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn read(cache: &FrameCache, frame: u64, loads: &AtomicUsize) -> u8 {
        let mut found = 0;
        let load = |bytes: &mut Vec<u8>| {
            loads.fetch_add(1, Ordering::Relaxed);
            *bytes = vec![frame as u8; 10];
            Ok(())
        };
        let result = cache.with(frame, load, |bytes| found = bytes[9]);
        assert_eq!(result, Ok(()));
        found
    }

    #[test]
    fn keeps_what_was_used_last() {
        let (cache, loads) = (FrameCache::new(35, 10), AtomicUsize::new(0));
        for frame in [0, 1, 2, 0, 3, 0, 2] {
            assert_eq!(read(&cache, frame, &loads), frame as u8);
        }
        // 3 replaced 1.
        assert_eq!(loads.load(Ordering::Relaxed), 4);
        read(&cache, 1, &loads);
        assert_eq!(loads.load(Ordering::Relaxed), 5);
        assert_eq!(cache.slots.len(), 3);
    }

    #[test]
    fn a_frame_that_fails_is_not_kept() {
        let (cache, loads) = (FrameCache::new(0, 10), AtomicUsize::new(0));
        read(&cache, 7, &loads);
        let error = ReadError::Os(5);
        assert_eq!(cache.with(8, |_| Err(error), |_| ()), Err(error));
        assert_eq!(cache.with(8, |_| Err(error), |_| ()), Err(error));
        assert_eq!(read(&cache, 7, &loads), 7);
        assert_eq!(loads.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn threads_get_the_frame_that_they_want() {
        let (cache, loads) = (FrameCache::new(20, 10), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for seed in 0..4_u64 {
                let (cache, loads) = (&cache, &loads);
                scope.spawn(move || {
                    for i in 0..2000 {
                        let frame = (i * 7 + seed * 13) % 5;
                        assert_eq!(read(cache, frame, loads), frame as u8);
                    }
                });
            }
        });
    }
}
