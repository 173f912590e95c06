//! Many pfns at once.

use super::packed::{self, pack, Entries, Filling, ASK, BLOCK_SHIFT, ENTRIES, SPECIAL};
use super::runs::At;
use super::table::LeafView;
use super::{Entry, P2m};
use crate::addr::{MachineAddr, Mfn, Pfn};
use crate::memory::Memory;
use crate::status::{Status, NONE};

/// How many are looked up before any is looked at: the misses of a chunk overlap.
/// Short batches take the short form.
const CHUNK: usize = 512;
const SHORT: usize = 16;

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
            if len <= SHORT {
                self.chunk::<SHORT>(pfns, out, status);
            } else {
                self.chunk::<CHUNK>(pfns, out, status);
            }
        }
    }

    #[inline]
    fn chunk<const N: usize>(&mut self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        if rising(pfns) {
            return self.run(pfns, out, status);
        }
        let mut packed = [[0; 4]; N];
        if self.view.is_empty() {
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
        self.unpack(&packed, pfns, out, status);
    }

    /// Writes out the packed entries of some pfns.
    #[inline]
    fn unpack(&mut self, packed: &[[u8; 4]], pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        let mut plain = true;
        for (out, packed) in out.iter_mut().zip(packed) {
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

    /// Resolves pfns that rise one by one: from a block, or else from page to page of the P2M.
    fn run(&mut self, mut pfns: &[Pfn], mut out: &mut [Mfn], mut status: &mut [Status]) {
        while let (Some(first), Some(last)) = (pfns.first().copied(), pfns.last()) {
            let block = match self.view.get(number(first)) {
                Some(block) => *block,
                None => self.p2m.blocks().get(number(first)),
            };
            let count = if let Some(block) = block {
                let rest = block.get(index(first)..).unwrap_or_default();
                let count = rest.len().min(pfns.len());
                let (packed, pfns) = (&rest[..count], &pfns[..count]);
                self.unpack(packed, pfns, &mut out[..count], &mut status[..count]);
                count
            } else if let Some(leaf) = self.p2m.leaf_view(first) {
                let count = leaf.holds_from(first, last.0.saturating_add(1)).max(1);
                // Who reads a P2M from end to end needs no copy of it: it is as quick from its pages.
                if count < SHORT {
                    self.ask(first);
                }
                let frames = leaf.frames(first, &mut out[..count]);
                if frames && self.p2m.memory().lent_soundly() {
                    status[..count].fill(Status::Ok);
                } else {
                    out[..count].fill(Mfn(ASK.into()));
                    self.mend(&pfns[..count], &mut out[..count], &mut status[..count]);
                }
                count
            } else {
                out.fill(Mfn(ASK.into()));
                return self.mend(pfns, out, status);
            };
            pfns = &pfns[count..];
            out = &mut out[count..];
            status = &mut status[count..];
        }
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
                // Neighbours in one page of the P2M count as one question.
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

/// Whether pfns rise one by one.
#[inline]
fn rising(pfns: &[Pfn]) -> bool {
    let (Some(first), Some(last)) = (pfns.first(), pfns.last()) else {
        return false;
    };
    // The last before all of them: what does not rise seldom ends where it should.
    if first.0.checked_add(pfns.len() as u64 - 1) != Some(last.0) {
        return false;
    }
    let mut different = 0;
    for (i, pfn) in pfns.iter().enumerate() {
        different |= pfn.0 ^ first.0.wrapping_add(i as u64);
    }
    different == 0
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
