//! A cache of the frames of P2M pages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use super::leaf::Leaf;
use super::Entry;
use crate::addr::Mfn;
use crate::alloc;

const CHUNK: usize = 512;

/// Filled on demand; memory grows with what was looked up.
#[derive(Debug)]
pub(super) struct Leaves {
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

/// Values of slots that were not looked up yet, or have no page. Other values are the mfn plus 2.
const UNKNOWN: u64 = 0;
const MISSING: u64 = 1;
/// Set if the mfn is the first frame of a large page, and not the frame of this page.
const LARGE: u64 = 1 << 63;

impl Leaves {
    /// For `count` pages. The caller limits it.
    pub(super) fn new(count: u64) -> Self {
        let chunks = usize::try_from(count).unwrap_or(0).div_ceil(CHUNK);
        Self {
            chunks: alloc::collect((0..chunks).map(|_| OnceLock::new())).into_boxed_slice(),
        }
    }

    /// Page `number`, found by `find` on first use. Two threads may both call `find`, with the same
    /// result.
    #[inline]
    pub(super) fn get(&self, number: u64, find: impl FnOnce() -> Leaf) -> Leaf {
        let missing = Leaf::Missing { until: number + 1 };
        let slot = usize::try_from(number).ok().and_then(|number| {
            let chunk = self
                .chunks
                .get(number / CHUNK)?
                .get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(UNKNOWN)).collect());
            chunk.get(number % CHUNK)
        });
        let Some(slot) = slot else {
            return missing;
        };
        match slot.load(Ordering::Relaxed) {
            UNKNOWN => {
                let found = find();
                // An mfn has 52 bits at most.
                let kept = match found {
                    Leaf::Page(mfn) => mfn.0.saturating_add(2),
                    Leaf::Missing { .. } => MISSING,
                    Leaf::Large {
                        entry: Entry::Frame(mfn),
                        ..
                    } => mfn.0.saturating_add(2) | LARGE,
                    // Rarely looked up.
                    Leaf::Large { .. } | Leaf::Empty { .. } => UNKNOWN,
                };
                slot.store(kept, Ordering::Relaxed);
                found
            }
            MISSING => missing,
            kept if kept & LARGE != 0 => Leaf::Large {
                entry: Entry::Frame(Mfn((kept & !LARGE) - 2)),
                until: number + 1,
            },
            kept => Leaf::Page(Mfn(kept - 2)),
        }
    }
}
