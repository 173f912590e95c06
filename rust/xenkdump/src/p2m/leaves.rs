//! Remembers where the pages of a P2M lie.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use super::directory::Leaf;
use crate::addr::Mfn;

const CHUNK: usize = 512;

/// Filled as questions come; memory grows with what was asked for.
#[derive(Debug)]
pub(super) struct Leaves {
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

/// What a slot holds before its leaf was looked for, and where there is none; mfns are kept plus 2.
const UNKNOWN: u64 = 0;
const MISSING: u64 = 1;

impl Leaves {
    /// For `count` leaves. The caller bounds it.
    pub(super) fn new(count: u64) -> Self {
        let chunks = usize::try_from(count).unwrap_or(0).div_ceil(CHUNK);
        Self {
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The frame of leaf `number`, looked up by `find` the first time. Two threads may both look:
    /// they find the same.
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
