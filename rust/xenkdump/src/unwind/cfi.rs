//! DWARF call frame information: `.debug_frame` and `.eh_frame`.

use std::sync::OnceLock;

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EndianSlice, LittleEndian, UnwindOffset,
    UnwindSection,
};

use crate::addr::{Address, VirtAddr, Word};
use crate::memory::Memory;

use super::cfi_step;
use super::orc::Section;
use super::registers::Registers;
use super::step::{Step, Unreadable};

pub(super) type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Which of the two shapes a section has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CfiKind {
    /// `.debug_frame`.
    DebugFrame,
    /// `.eh_frame`.
    EhFrame,
}

/// A section of call frame information.
pub struct CfiTable {
    section: Section,
    kind: CfiKind,
    word: Word,
    /// Where the section lies, as linked: `.eh_frame` counts from there.
    address: VirtAddr,
    /// How much higher the code runs than it was linked.
    slide: u64,
    /// The functions, by ascending address; made when first asked for.
    index: OnceLock<Vec<Fde>>,
}

/// One function's entry.
#[derive(Clone, Copy, Debug)]
struct Fde {
    start: u64,
    end: u64,
    offset: usize,
}

impl CfiTable {
    /// A section linked to lie at `address` (0 for `.debug_frame`), for code that runs `slide`
    /// bytes higher than linked.
    pub fn new(section: Section, kind: CfiKind, word: Word, address: VirtAddr, slide: u64) -> Self {
        Self {
            section,
            kind,
            word,
            address,
            slide,
            index: OnceLock::new(),
        }
    }

    /// The caller of the frame with these registers, whose code is at `lookup`.
    pub(super) fn step(
        &self,
        memory: &dyn Memory<VirtAddr>,
        registers: &Registers,
        lookup: VirtAddr,
    ) -> Result<Step, Unreadable> {
        let bytes = (*self.section).as_ref();
        let width = self.word.bytes() as u8;
        let bases = BaseAddresses::default().set_eh_frame(self.address.raw());
        match self.kind {
            CfiKind::DebugFrame => {
                let mut section = DebugFrame::new(bytes, LittleEndian);
                section.set_address_size(width);
                self.step_in(&section, &bases, memory, registers, lookup)
            }
            CfiKind::EhFrame => {
                let mut section = EhFrame::new(bytes, LittleEndian);
                section.set_address_size(width);
                self.step_in(&section, &bases, memory, registers, lookup)
            }
        }
    }

    fn step_in<'a, S>(
        &self,
        section: &S,
        bases: &BaseAddresses,
        memory: &dyn Memory<VirtAddr>,
        registers: &Registers,
        lookup: VirtAddr,
    ) -> Result<Step, Unreadable>
    where
        S: UnwindSection<Reader<'a>>,
        S::Offset: UnwindOffset<usize> + From<usize>,
    {
        let pc = lookup.raw().wrapping_sub(self.slide) & self.word.max();
        let index = self.index.get_or_init(|| build_index(section, bases));
        let after = index.partition_point(|fde| fde.start <= pc);
        let Some(found) = after
            .checked_sub(1)
            .and_then(|at| index.get(at))
            .filter(|fde| pc < fde.end)
        else {
            return Ok(Step::Unknown);
        };
        let Ok(fde) =
            section.fde_from_offset(bases, found.offset.into(), UnwindSection::cie_from_offset)
        else {
            return Ok(Step::Unknown);
        };
        cfi_step::step(section, bases, &fde, pc, self.word, memory, registers)
    }
}

/// Every function that can be parsed, in order. What comes after a broken length is lost: nothing
/// tells where the next entry would begin.
fn build_index<'a, S>(section: &S, bases: &BaseAddresses) -> Vec<Fde>
where
    S: UnwindSection<Reader<'a>>,
    S::Offset: UnwindOffset<usize>,
{
    let mut index = Vec::new();
    let mut entries = section.entries(bases);
    let mut last_cie = None;
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        // Functions in a row mostly share what they have in common.
        let offset = partial.cie_offset();
        let parsed = partial.parse(|section, bases, wanted| match &last_cie {
            Some((at, cie)) if *at == offset => Ok(Clone::clone(cie)),
            _ => {
                let cie = section.cie_from_offset(bases, wanted)?;
                last_cie = Some((offset, cie.clone()));
                Ok(cie)
            }
        });
        if let Ok(fde) = parsed {
            if let Some(end) = fde.initial_address().checked_add(fde.len()) {
                index.push(Fde {
                    start: fde.initial_address(),
                    end,
                    offset: fde.offset(),
                });
            }
        }
    }
    index.sort_unstable_by_key(|fde| fde.start);
    index
}

impl std::fmt::Debug for CfiTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CfiTable")
            .field("kind", &self.kind)
            .field("address", &self.address)
            .field("slide", &self.slide)
            .finish_non_exhaustive()
    }
}
