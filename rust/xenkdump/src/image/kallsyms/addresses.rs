//! The addresses of the symbols, in the order of the names.

use super::names::Names;
use super::tokens::Tokens;
use crate::addr::{VirtAddr, Word};
use crate::image::region::{align, Region};
use crate::memory::Memory;

/// One in so many symbols may be out of order: those that the linker script moves.
const DISORDER: usize = 64;

/// The lowest address of kernel memory, with any split of the address space of i386.
fn lowest(word: Word) -> u64 {
    match word {
        Word::W32 => 0x4000_0000,
        Word::W64 => 0xffff_8000_0000_0000,
    }
}

/// How an element stands for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A word that is the address.
    Absolute,
    /// 4 bytes, unsigned, above a base.
    AboveBase(u64),
    /// 4 bytes, signed: the address of a per-CPU or absolute symbol; others are below -1, from a base
    /// down (`CONFIG_KALLSYMS_ABSOLUTE_PERCPU`).
    PerCpu(u64),
    /// 4 bytes, signed, from its own place.
    FromPlace,
    /// 4 bytes that are the address, on i386 without `CONFIG_RELOCATABLE`.
    Short,
}

/// `kallsyms_addresses` or `kallsyms_offsets`.
pub(super) struct Addresses {
    region: Region,
    form: Form,
    word: Word,
}

impl Addresses {
    /// What may be the addresses of these names, the likeliest first. Numbers of one form may ascend
    /// in another one too.
    pub fn candidates<'a>(
        memory: &'a dyn Memory<VirtAddr>,
        tokens: &Tokens,
        names: &Names,
        word: Word,
    ) -> impl Iterator<Item = Self> + use<'a> {
        let count = names.count as u64;
        let bytes = word.bytes() as u64;
        let short = |start: u64| start..start.wrapping_add(4 * count);
        let base = |at: u64| {
            let base = memory.read_word(VirtAddr(at), word).ok();
            base.filter(|base| *base >= lowest(word))
        };
        let mut candidates = Vec::new();
        // Before 6.4 they are before the number of symbols.
        if let Some(base_at) = names.count_at.checked_sub(bytes) {
            let offsets = base_at.checked_sub(align(4 * count, bytes));
            if let (Some(offsets), Some(base)) = (offsets, base(base_at)) {
                candidates.push((short(offsets), Form::AboveBase(base)));
                candidates.push((short(offsets), Form::PerCpu(base)));
            }
        }
        if let Some(start) = names.count_at.checked_sub(bytes * count) {
            candidates.push((start..names.count_at, Form::Absolute));
        }
        // Since then they are after the index of the tokens, which ends aligned.
        let offsets = tokens.end;
        let base_at = align(offsets.wrapping_add(4 * count), bytes);
        if let Some(base) = base(base_at) {
            candidates.push((short(offsets), Form::AboveBase(base)));
            candidates.push((short(offsets), Form::PerCpu(base)));
        }
        candidates.push((short(offsets), Form::FromPlace));
        if word == Word::W32 {
            candidates.push((short(offsets), Form::Short));
        }
        let count = names.count;
        candidates
            .into_iter()
            .map(move |(range, form)| Self {
                region: Region::read(memory, range),
                form,
                word,
            })
            .filter(move |addresses| addresses.are_sorted(count))
    }

    /// The address of symbol `i`; `None` if it is missing.
    pub fn get(&self, i: usize) -> Option<u64> {
        let size = match self.form {
            Form::Absolute => self.word.bytes(),
            _ => 4,
        };
        let at = self.region.start.wrapping_add((i * size) as u64);
        let value = self.region.number(at, size)?;
        let signed = i64::from(value as u32 as i32);
        let address = match self.form {
            Form::Absolute | Form::Short => value,
            Form::AboveBase(base) => base.wrapping_add(value),
            Form::PerCpu(_) if signed >= 0 => value,
            Form::PerCpu(base) => base.wrapping_sub(1).wrapping_add_signed(-signed),
            Form::FromPlace => at.wrapping_add_signed(signed),
        };
        Some(address & self.word.max())
    }

    /// Whether the addresses ascend, and most of them are the kernel's.
    fn are_sorted(&self, count: usize) -> bool {
        let lowest = lowest(self.word);
        let (mut last, mut disorder, mut present, mut own) = (0, 0, 0, 0);
        for address in (0..count).filter_map(|i| self.get(i)) {
            disorder += usize::from(address < last);
            own += usize::from(address >= lowest);
            present += 1;
            last = address;
        }
        // A form that is wrong makes a half of them descend.
        present > 0 && disorder <= present / DISORDER && own > present / 2
    }
}
