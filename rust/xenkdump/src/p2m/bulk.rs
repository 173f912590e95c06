//! Many pfns at once.

use super::packed::{self, pack, Entries, Filling, ASK, BLOCK_SHIFT, ENTRIES, SPECIAL};
use super::runs::At;
use super::table::LeafView;
use super::{Entry, P2m};
use crate::addr::{MachineAddr, Mfn, Pfn};
use crate::memory::Memory;
use crate::status::{Status, NONE};

/// How many are looked up before any is looked at: the misses of a chunk overlap.
const CHUNK: usize = 512;

/// Resolves batches of pfns for one thread.
///
/// It goes to the P2M's own pages as long as questions are few or follow each other, and to copies
/// of those parts of the P2M that are asked often (see the module `packed`); a chunk of pfns that
/// rise one by one is copied as it lies there.
pub struct Resolver<'p, M> {
    p2m: &'p P2m<M>,
    /// The blocks that were filled when this was made, if it was worth the while to list them.
    view: Vec<Option<&'p Entries>>,
}

impl<'p, M: Memory<MachineAddr>> Resolver<'p, M> {
    /// For about `expected` questions.
    pub fn new(p2m: &'p P2m<M>, expected: usize) -> Self {
        let blocks = p2m.blocks();
        let view = if expected / 8 >= blocks.len() {
            (0..blocks.len()).map(|i| blocks.get(i)).collect()
        } else {
            Vec::new()
        };
        Self { p2m, view }
    }

    /// The mfn of each pfn's frame, [`NONE`] where there is none, and why. What lies past the
    /// shortest of the three is left alone.
    pub fn resolve(&mut self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        let chunks = pfns
            .chunks(CHUNK)
            .zip(out.chunks_mut(CHUNK))
            .zip(status.chunks_mut(CHUNK));
        for ((pfns, out), status) in chunks {
            let len = pfns.len().min(out.len()).min(status.len());
            let (Some(pfns), Some(out), Some(status)) =
                (pfns.get(..len), out.get_mut(..len), status.get_mut(..len))
            else {
                return;
            };
            self.chunk(pfns, out, status);
        }
    }

    #[inline]
    fn chunk(&mut self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        let mut packed = [[0; 4]; CHUNK];
        let Some(packed) = packed.get_mut(..pfns.len()) else {
            return;
        };
        if let Some(run) = self.rising(pfns) {
            packed.copy_from_slice(run);
        } else if self.view.is_empty() {
            for (packed, pfn) in packed.iter_mut().zip(pfns) {
                let block = self.p2m.blocks().get(number(*pfn));
                *packed = look_up(block, *pfn);
            }
        } else {
            for (packed, pfn) in packed.iter_mut().zip(pfns) {
                let block = self.view.get(number(*pfn)).copied().flatten();
                *packed = look_up(block, *pfn);
            }
        }
        let mut plain = true;
        for (out, packed) in out.iter_mut().zip(&*packed) {
            let value = u32::from_ne_bytes(*packed);
            plain &= value < SPECIAL;
            *out = Mfn(u64::from(value));
        }
        if plain {
            status.fill(Status::Ok);
        } else {
            self.mend(pfns, out, status);
        }
    }

    /// The packed entries of pfns that rise one by one within a filled block.
    #[inline]
    fn rising(&self, pfns: &[Pfn]) -> Option<&'p [[u8; 4]]> {
        let first = *pfns.first()?;
        // The last before all of them: what does not rise seldom ends where it should.
        let last = first.0.checked_add(pfns.len() as u64 - 1)?;
        if pfns.last()?.0 != last || number(first) != number(Pfn(last)) {
            return None;
        }
        let block = match self.view.get(number(first)) {
            Some(block) => *block,
            None => self.p2m.blocks().get(number(first)),
        };
        let start = index(first);
        let run = block?.get(start..start + pfns.len())?;
        let mut different = 0;
        for (i, pfn) in pfns.iter().enumerate() {
            different |= pfn.0 ^ first.0.wrapping_add(i as u64);
        }
        (different == 0).then_some(run)
    }

    /// Goes over a chunk that does not hold frames only: `out` has the packed entries.
    #[cold]
    fn mend(&mut self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        let mut leaf: Option<LeafView<'p>> = None;
        for ((pfn, out), status) in pfns.iter().zip(out).zip(status) {
            // A packed entry, and so of 32 bits.
            let packed = out.0 as u32;
            let result = if packed < SPECIAL {
                Ok(*out)
            } else if let Some(status) = packed::status(packed) {
                Err(status)
            } else {
                // Neighbours of one page of the P2M count as one question: who reads a P2M from
                // end to end needs no copy of it.
                if leaf.is_none_or(|leaf| !leaf.holds(*pfn)) {
                    self.ask(*pfn);
                    leaf = self.p2m.leaf_view(*pfn);
                }
                let lent = leaf
                    .map(|leaf| leaf.entry(*pfn))
                    .filter(|_| self.p2m.memory().lent_soundly());
                let entry = lent.unwrap_or_else(|| self.p2m.resolve(*pfn));
                match entry {
                    Entry::Frame(mfn) => Ok(mfn),
                    Entry::Special(special) => Err(special.into()),
                }
            };
            (*out, *status) = match result {
                Ok(mfn) => (mfn, Status::Ok),
                Err(status) => (Mfn(NONE), status),
            };
        }
    }

    /// Tells a pfn's block that it was asked past, and sees whether it is filled by now.
    fn ask(&mut self, pfn: Pfn) {
        let p2m = self.p2m;
        let block = number(pfn);
        let found = p2m.blocks().ask(block, |filling| fill(p2m, block, filling));
        if let Some(slot) = self.view.get_mut(block) {
            *slot = found;
        }
    }
}

/// The number of a pfn's block.
#[inline]
fn number(pfn: Pfn) -> usize {
    usize::try_from(pfn.0 >> BLOCK_SHIFT).unwrap_or(usize::MAX)
}

/// A pfn's place in its block.
#[inline]
fn index(pfn: Pfn) -> usize {
    pfn.0 as usize % ENTRIES
}

#[inline]
fn look_up(block: Option<&Entries>, pfn: Pfn) -> [u8; 4] {
    block
        .and_then(|block| block.get(index(pfn)))
        .copied()
        .unwrap_or(ASK.to_ne_bytes())
}

/// Fills a block from the P2M's own pages.
fn fill<M: Memory<MachineAddr>>(p2m: &P2m<M>, block: usize, filling: &mut Filling) {
    let first = (block as u64) << BLOCK_SHIFT;
    let end = Pfn(first + ENTRIES as u64);
    let mut at = Pfn(first);
    while at < end {
        let run = p2m.run(at, end);
        let mut slots = filling.from(index(at));
        if let At::Nowhere(special) = run.at {
            let packed = pack(Entry::Special(special)).to_ne_bytes();
            let count = usize::try_from(run.count).unwrap_or(usize::MAX);
            slots.take(count).for_each(|slot| *slot = packed);
        } else {
            p2m.for_each_entry(run, |entry| {
                if let Some(slot) = slots.next() {
                    *slot = pack(entry).to_ne_bytes();
                }
            });
        }
        at = Pfn(at.0 + run.count.max(1));
    }
}
