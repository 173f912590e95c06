//! A cache of the frames of P2M pages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use super::directory::Leaf;
use crate::addr::Mfn;

const CHUNK: usize = 512;

/// Filled on demand; memory grows with what was looked up.
#[derive(Debug)]
pub(super) struct Leaves {
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

/// Values of slots that were not looked up yet, or have no page. Other values are the mfn plus 2.
const UNKNOWN: u64 = 0;
const MISSING: u64 = 1;

impl Leaves {
    /// For `count` pages. The caller limits it.
    pub(super) fn new(count: u64) -> Self {
        let chunks = usize::try_from(count).unwrap_or(0).div_ceil(CHUNK);
        Self {
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The frame of page `number`, found by `find` on first use. Two threads may both call `find`,
    /// with the same result.
    #[inline]
    pub(super) fn get(&self, number: u64, find: impl FnOnce() -> Leaf) -> Option<Mfn> {
        let number = usize::try_from(number).ok()?;
        let chunk = self
            .chunks
            .get(number / CHUNK)?
            .get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(UNKNOWN)).collect());
        let slot = chunk.get(number % CHUNK)?;
        match slot.load(Ordering::Relaxed) {
            UNKNOWN => {
                let found = match find() {
                    Leaf::Page(mfn) => Some(mfn),
                    Leaf::Missing { .. } => None,
                };
                // An mfn has 52 bits at most.
                slot.store(
                    found.map_or(MISSING, |mfn| mfn.0.saturating_add(2)),
                    Ordering::Relaxed,
                );
                found
            }
            MISSING => None,
            kept => Some(Mfn(kept - 2)),
        }
    }
}
