//! Sections of call frame information, indexed by function.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, LittleEndian,
    UnwindOffset, UnwindSection,
};

use crate::addr::{Address, VirtAddr, Word};
use crate::alloc;
use crate::budget::Budget;
use crate::limits::{MAX_CIE_SIZE, MAX_FDE_SIZE};
use crate::memory::Memory;
use crate::unwind::registers::Registers;
use crate::unwind::section::Section;
use crate::unwind::step::{Step, Unreadable};

use super::step::{self, Reader};

/// Lookups that search the section itself. Where there is ORC, few frames need this table, and to index
/// all functions takes longer than these searches do.
const SEARCHES: usize = 4;

/// The format of a section.
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
    /// The section's address as linked, to which pointers in `.eh_frame` are relative.
    address: VirtAddr,
    /// The difference between the code's run-time and link-time addresses.
    slide: u64,
    /// The functions, by ascending address; built after some lookups.
    index: OnceLock<Vec<Fde>>,
    lookups: AtomicUsize,
}

/// The entry of a function.
#[derive(Clone, Copy, Debug)]
struct Fde {
    start: u64,
    end: u64,
    offset: usize,
}

impl CfiTable {
    /// A section linked at `address` (0 for `.debug_frame`), for code that runs `slide` bytes above
    /// its link-time address.
    pub fn new(section: Section, kind: CfiKind, word: Word, address: VirtAddr, slide: u64) -> Self {
        Self {
            section,
            kind,
            word,
            address,
            slide,
            index: OnceLock::new(),
            lookups: AtomicUsize::new(0),
        }
    }

    /// The caller of the frame with these registers, whose code is at `lookup`.
    pub(in crate::unwind) fn step(
        &self,
        memory: &dyn Memory<VirtAddr>,
        registers: &Registers,
        lookup: VirtAddr,
        budget: &Budget<'_>,
    ) -> Result<Step, Unreadable> {
        let bytes = (*self.section).as_ref();
        let width = self.word.bytes() as u8;
        let bases = BaseAddresses::default().set_eh_frame(self.address.raw());
        match self.kind {
            CfiKind::DebugFrame => {
                let mut section = DebugFrame::new(bytes, LittleEndian);
                section.set_address_size(width);
                self.step_in(&section, &bases, memory, registers, lookup, budget)
            }
            CfiKind::EhFrame => {
                let mut section = EhFrame::new(bytes, LittleEndian);
                section.set_address_size(width);
                self.step_in(&section, &bases, memory, registers, lookup, budget)
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
        budget: &Budget<'_>,
    ) -> Result<Step, Unreadable>
    where
        S: UnwindSection<Reader<'a>>,
        S::Offset: UnwindOffset<usize> + From<usize>,
    {
        let pc = lookup.raw().wrapping_sub(self.slide) & self.word.max();
        let nearest = self.nearest(section, bases, pc);
        let Some(found) = nearest.filter(|fde| pc < fde.end) else {
            return Ok(Step::Unknown);
        };
        let bytes = (*self.section).as_ref();
        let Ok(fde) =
            section.fde_from_offset(bases, found.offset.into(), |section, bases, offset| {
                cie_at(bytes, section, bases, offset)
            })
        else {
            return Ok(Step::Unknown);
        };
        let length = fde.entry_len() + fde.cie().entry_len();
        if budget.spend(length as u64).is_err() {
            return Ok(Step::Unknown);
        }
        step::step(section, bases, &fde, pc, self.word, memory, registers)
    }
}

impl CfiTable {
    /// The last function that starts at `pc` or before it. Of several with the same start, the last one of
    /// the section.
    fn nearest<'a, S>(&self, section: &S, bases: &BaseAddresses, pc: u64) -> Option<Fde>
    where
        S: UnwindSection<Reader<'a>>,
        S::Offset: UnwindOffset<usize>,
    {
        let is_plain = self.kind == CfiKind::DebugFrame && self.index.get().is_none();
        if is_plain && self.lookups.fetch_add(1, Ordering::Relaxed) < SEARCHES {
            let mut nearest = None;
            let mut start = 0;
            let searched = each_plain_entry((*self.section).as_ref(), self.word, |fde| {
                if (start..=pc).contains(&fde.start) {
                    (nearest, start) = (Some(fde), fde.start);
                }
            });
            if searched.is_some() {
                return nearest;
            }
        }
        let index = self.index.get_or_init(|| self.build_index(section, bases));
        let after = index.partition_point(|fde| fde.start <= pc);
        after.checked_sub(1).and_then(|at| index.get(at)).copied()
    }

    fn build_index<'a, S>(&self, section: &S, bases: &BaseAddresses) -> Vec<Fde>
    where
        S: UnwindSection<Reader<'a>>,
        S::Offset: UnwindOffset<usize>,
    {
        let bytes = (*self.section).as_ref();
        let plain = match self.kind {
            CfiKind::DebugFrame => plain_entries(bytes, self.word),
            CfiKind::EhFrame => None,
        };
        let mut index = plain.unwrap_or_else(|| parsed_entries(bytes, section, bases));
        index.sort_unstable_by_key(|fde| (fde.start, fde.offset));
        index
    }
}

/// The functions of [`each_plain_entry`] in the order of the section.
fn plain_entries(section: &[u8], word: Word) -> Option<Vec<Fde>> {
    let mut index = Vec::new();
    each_plain_entry(section, word, |fde| alloc::push(&mut index, fde))?;
    Some(index)
}

/// Calls `f` with the functions of a `.debug_frame` whose entries are all in the 32-bit format, as in
/// every kernel. Each has the same fields at the same offsets, so that the rest need not be parsed. `None`
/// if an entry has another format.
fn each_plain_entry(section: &[u8], word: Word, mut f: impl FnMut(Fde)) -> Option<()> {
    const IS_CIE: u32 = u32::MAX;
    const IS_64_BIT: u32 = 0xffff_fff0;
    let mut offset = 0;
    while let Some([length, id]) = section.get(offset..).and_then(words) {
        if length >= IS_64_BIT {
            return None;
        }
        // Zeros fill gaps.
        let next = offset + 4 + length as usize;
        if (4..=MAX_FDE_SIZE).contains(&(length as usize)) && id != IS_CIE {
            let entry = section.get(offset + 8..next)?;
            let start = word.get(entry)?;
            let size = word.get(entry.get(word.bytes()..)?)?;
            let fde = Fde {
                start,
                end: start.checked_add(size)?,
                offset,
            };
            f(fde);
        }
        offset = next;
    }
    Some(())
}

fn words(bytes: &[u8]) -> Option<[u32; 2]> {
    let [a, b, c, d, e, f, g, h] = *bytes.first_chunk()?;
    Some([
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ])
}

/// The CIE at `offset`, unless it is too long.
fn cie_at<'a, S>(
    bytes: &[u8],
    section: &S,
    bases: &BaseAddresses,
    offset: S::Offset,
) -> gimli::Result<CommonInformationEntry<Reader<'a>>>
where
    S: UnwindSection<Reader<'a>>,
    S::Offset: UnwindOffset<usize>,
{
    let at = UnwindOffset::into(offset);
    match length_at(bytes, at) {
        Some(length) if length <= MAX_CIE_SIZE => section.cie_from_offset(bases, offset),
        _ => Err(gimli::Error::NotCieId(at as u64)),
    }
}

/// The length of the entry at `offset`, in either format.
fn length_at(section: &[u8], offset: usize) -> Option<u64> {
    let [length, _] = section.get(offset..).and_then(words)?;
    if length != u32::MAX {
        return Some(length.into());
    }
    let [low, high] = section.get(offset.checked_add(4)?..).and_then(words)?;
    Some(u64::from(high) << 32 | u64::from(low))
}

/// Every function that can be parsed. Parsing stops at an invalid length: the start of the next entry
/// is unknown.
fn parsed_entries<'a, S>(bytes: &[u8], section: &S, bases: &BaseAddresses) -> Vec<Fde>
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
        // Consecutive functions usually share a CIE.
        let offset = partial.cie_offset();
        let parsed = partial.parse(|section, bases, wanted| match &last_cie {
            Some((at, cie)) if *at == offset => Ok(Clone::clone(cie)),
            _ => {
                let cie = cie_at(bytes, section, bases, wanted)?;
                last_cie = Some((offset, cie.clone()));
                Ok(cie)
            }
        });
        if let Some(fde) = parsed.ok().filter(|fde| fde.entry_len() <= MAX_FDE_SIZE) {
            if let Some(end) = fde.initial_address().checked_add(fde.len()) {
                let fde = Fde {
                    start: fde.initial_address(),
                    end,
                    offset: fde.offset(),
                };
                alloc::push(&mut index, fde);
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::registers::Reg;
    use crate::unwind::testing::Ram;
    use crate::unwind::x86::function_cache::stack_budget;
    use std::sync::Arc;

    /// A CIE as gcc writes it for i386: the CFA is esp+4, the return address is below it.
    fn debug_frame(functions: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let mut section = entry(&[
            0xff, 0xff, 0xff, 0xff, 1, 0, 1, 0x7c, 8, 0x0c, 4, 4, 0x88, 1, 0, 0,
        ]);
        for (start, size, instructions) in functions {
            let mut fde = vec![0; 4];
            fde.extend_from_slice(&start.to_le_bytes());
            fde.extend_from_slice(&size.to_le_bytes());
            fde.extend_from_slice(instructions);
            section.extend(entry(&fde));
        }
        section
    }

    fn entry(bytes: &[u8]) -> Vec<u8> {
        let mut entry = (bytes.len() as u32).to_le_bytes().to_vec();
        entry.extend_from_slice(bytes);
        entry
    }

    fn step(section: Vec<u8>, pc: u64, registers: &[(Reg, u64)]) -> Step {
        let mut ram = Ram::new(Word::W32);
        ram.words(0xc200_1000, &[0x11, 0x22, 0x33, 0x44, 0x55, 0xc200_1010]);
        let table = CfiTable::new(
            Arc::new(section),
            CfiKind::DebugFrame,
            Word::W32,
            VirtAddr(0),
            0,
        );
        let mut given = Registers::at(VirtAddr(pc), VirtAddr(0xc200_1000));
        for (reg, value) in registers {
            given.set(*reg, *value);
        }
        let budget = stack_budget();
        table.step(&ram, &given, VirtAddr(pc), &budget).unwrap()
    }

    fn found(step: Step, reg: Reg) -> Option<u64> {
        match step {
            Step::Caller(caller) => caller.registers.get(reg),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_interrupted_frame_has_its_saved_cs() {
        // Augmentation "S": eip, cs and eflags were pushed, the CFA is esp+12.
        let mut section = entry(&[
            0xff, 0xff, 0xff, 0xff, 1, b'S', 0, 1, 0x7c, 8, 0x0c, 4, 12, 0x88, 3,
        ]);
        let mut fde = vec![0; 4];
        fde.extend(0xc100_0000_u32.to_le_bytes());
        fde.extend(0x10_u32.to_le_bytes());
        section.extend(entry(&fde));
        let at = |reg| found(step(section.clone(), 0xc100_0004, &[(Reg::Cs, 0x60)]), reg);
        assert_eq!(at(Reg::Ip), Some(0x11));
        assert_eq!(at(Reg::Cs), Some(0x22));
        assert_eq!(at(Reg::Sp), Some(0xc200_100c));
        let call = debug_frame(&[(0xc100_0000, 0x10, &[])]);
        assert_eq!(
            found(step(call, 0xc100_0004, &[(Reg::Cs, 0x60)]), Reg::Cs),
            None
        );
    }

    #[test]
    fn the_caller_s_registers_follow_the_row_of_the_pc() {
        // push %ebx at +1: CFA esp+8, ebx at CFA-8.
        let push_ebx: &[u8] = &[0x41, 0x0e, 8, 0x83, 2];
        let section = debug_frame(&[(0xc100_0100, 0x10, &[]), (0xc100_0000, 0x10, push_ebx)]);
        let at = |pc, reg| {
            found(
                step(section.clone(), pc, &[(Reg::Bx, 9), (Reg::Cx, 8)]),
                reg,
            )
        };
        assert_eq!(at(0xc100_0000, Reg::Ip), Some(0x11));
        assert_eq!(at(0xc100_0000, Reg::Bx), Some(9), "callee-saved");
        assert_eq!(at(0xc100_0000, Reg::Cx), None, "not callee-saved");
        assert_eq!(at(0xc100_0001, Reg::Ip), Some(0x22));
        assert_eq!(at(0xc100_0001, Reg::Sp), Some(0xc200_1008));
        assert_eq!(at(0xc100_0001, Reg::Bx), Some(0x11));
        assert_eq!(at(0xc100_0105, Reg::Ip), Some(0x11));
        for outside in [0xc0ff_ffff, 0xc100_0010, 0xc100_0110] {
            assert!(matches!(step(section.clone(), outside, &[]), Step::Unknown));
        }
    }

    #[test]
    fn an_expression_finds_the_frame_of_an_aligned_stack() {
        // CFA = *(ebp - 4): DW_CFA_def_cfa_expression { breg5 -4; deref }.
        let section = debug_frame(&[(0xc100_0000, 0x10, &[0x0f, 3, 0x75, 0x7c, 0x06])]);
        let pc = 0xc100_0000;
        let caller = step(section.clone(), pc, &[(Reg::Bp, 0xc200_1018)]);
        assert_eq!(found(caller.clone(), Reg::Sp), Some(0xc200_1010));
        assert_eq!(found(caller, Reg::Ip), Some(0x44));
        assert!(
            matches!(step(section, pc, &[]), Step::Unknown),
            "ebp is unknown"
        );
    }

    #[test]
    fn the_plain_and_the_parsed_index_are_equal() {
        let section = debug_frame(&[
            (0xc100_0100, 0x10, &[0, 0]),
            (0xc100_0000, 0x20, &[]),
            (0xc100_0040, 0x30, &[0; 7]),
        ]);
        let plain = plain_entries(&section, Word::W32).unwrap();
        let mut parser = DebugFrame::new(&section, LittleEndian);
        parser.set_address_size(4);
        let parsed = parsed_entries(&section, &parser, &BaseAddresses::default());
        let key = |fde: &Fde| (fde.start, fde.end, fde.offset);
        assert_eq!(
            plain.iter().map(key).collect::<Vec<_>>(),
            parsed.iter().map(key).collect::<Vec<_>>()
        );
        assert_eq!(plain.len(), 3);
    }

    #[test]
    fn the_first_lookups_and_those_in_the_index_find_the_same() {
        // In no order, overlapping, twice the same start, and 0 for code that was discarded.
        let section = debug_frame(&[
            (0xc100_0040, 0x30, &[]),
            (0, 0x10, &[]),
            (0xc100_0000, 0x20, &[]),
            (0xc100_0000, 0x18, &[]),
            (0xc100_0010, 0x04, &[]),
            (0, 0x08, &[]),
        ]);
        let mut parser = DebugFrame::new(&section, LittleEndian);
        parser.set_address_size(4);
        let bases = BaseAddresses::default();
        let lookups = |pc| {
            let bytes = Arc::new(section.clone());
            let table = CfiTable::new(bytes, CfiKind::DebugFrame, Word::W32, VirtAddr(0), 0);
            let found = (0..SEARCHES + 2).map(|_| table.nearest(&parser, &bases, pc));
            let found: Vec<_> = found
                .map(|fde| fde.map(|fde| (fde.end, fde.offset)))
                .collect();
            assert!(table.index.get().is_some());
            found
        };
        let mut distinct = std::collections::BTreeSet::new();
        for pc in (0..0x20).chain(0xc0ff_fff0..0xc100_0080) {
            let found = lookups(pc);
            assert!(
                found.iter().all(|one| *one == found[0]),
                "{pc:#x} {found:?}"
            );
            distinct.insert(found[0]);
        }
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn an_entry_that_is_too_long_is_ignored() {
        let found = |section: &[u8]| match step(section.to_vec(), 0xc100_0000, &[]) {
            Step::Unknown => 0,
            _ => 1,
        };
        // Both indices are tested: an entry in the 64-bit format selects the parser.
        let both = |section: Vec<u8>| {
            let parsed = [&section[..], &[0xff; 4], &[4, 0, 0, 0, 0, 0, 0, 0]].concat();
            (found(&section), found(&parsed))
        };
        let nops = vec![0; MAX_FDE_SIZE - 12];
        assert_eq!(both(debug_frame(&[(0xc100_0000, 0x10, &nops)])), (1, 1));
        let more = vec![0; MAX_FDE_SIZE - 11];
        assert_eq!(both(debug_frame(&[(0xc100_0000, 0x10, &more)])), (0, 0));
        // The augmentation of a signal frame, repeated up to the length limit.
        let augmented = |times| {
            let mut cie = vec![0xff, 0xff, 0xff, 0xff, 1];
            cie.extend(vec![b'S'; times]);
            cie.extend([0, 1, 0x7c, 8, 0x0c, 4, 4, 0x88, 1]);
            let fde = [[0; 4], 0xc100_0000_u32.to_le_bytes(), [0x10, 0, 0, 0]].concat();
            [entry(&cie), entry(&fde)].concat()
        };
        assert_eq!(both(augmented(MAX_CIE_SIZE as usize - 14)), (1, 1));
        assert_eq!(both(augmented(MAX_CIE_SIZE as usize - 13)), (0, 0));
    }

    #[test]
    fn a_truncated_or_64_bit_section_is_parsed() {
        let section = debug_frame(&[(0xc100_0000, 0x20, &[])]);
        assert!(plain_entries(&section[..section.len() - 1], Word::W32).is_none());
        assert!(plain_entries(&[0xff; 12], Word::W32).is_none());
        assert_eq!(
            plain_entries(&[0; 8], Word::W32).map(|index| index.len()),
            Some(0)
        );
    }
}
