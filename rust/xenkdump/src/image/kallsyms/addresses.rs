//! The addresses of the symbols, in the order of the names.

use std::ops::Range;

use super::names::Names;
use super::tokens::Tokens;
use crate::addr::{VirtAddr, Word};
use crate::image::region::{align, Region};
use crate::memory::Memory;

/// One in this number of symbols may be out of order: the linker script moves some.
const DISORDER: usize = 64;

/// The alignment of a kernel's image (`CONFIG_PHYSICAL_ALIGN`).
const ALIGNMENT: u64 = 2 << 20;
/// Bases that are tried if the dump lacks it: the image before the tables has up to 60 MiB.
const MAX_BASES: u64 = 32;

/// The lowest address of kernel memory, with any split of the address space of i386.
fn lowest(word: Word) -> u64 {
    match word {
        Word::W32 => 0x4000_0000,
        Word::W64 => 0xffff_8000_0000_0000,
    }
}

/// How an element encodes an address.
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

/// The forms of offsets from any of these bases.
fn with_base(
    range: Range<u64>,
    bases: impl IntoIterator<Item = u64>,
) -> impl Iterator<Item = (Range<u64>, Form)> {
    bases.into_iter().flat_map(move |base| {
        [Form::AboveBase(base), Form::PerCpu(base)].map(|form| (range.clone(), form))
    })
}

/// What the base may be if the dump lacks it: the image starts at a multiple of 2 MiB, some MiB before
/// its tables.
fn bases(memory: &dyn Memory<VirtAddr>, tables: u64) -> Vec<u64> {
    let last = tables & !(ALIGNMENT - 1);
    let mut byte = [0];
    (0..MAX_BASES)
        .filter_map(|i| last.checked_sub(i * ALIGNMENT))
        .filter(|base| memory.read(VirtAddr(*base), &mut byte).is_ok())
        .collect()
}

/// `kallsyms_addresses` or `kallsyms_offsets`.
pub(super) struct Addresses {
    region: Region,
    form: Form,
    word: Word,
    /// Whether the base is not in the dump, so that it is one that is tried.
    pub is_guess: bool,
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
        // The base at an address, and those to try if the dump lacks it.
        let base = |at: u64| match memory.read_word(VirtAddr(at), word) {
            Ok(base) => (Some(base).filter(|base| *base >= lowest(word)), Vec::new()),
            Err(_) => (None, bases(memory, tokens.start)),
        };
        let mut guesses = Vec::new();
        let mut candidates = Vec::new();
        // Before 6.4 they are before the number of symbols.
        if let Some(base_at) = names.count_at.checked_sub(bytes) {
            if let Some(offsets) = base_at.checked_sub(align(4 * count, bytes)) {
                let (known, tried) = base(base_at);
                candidates.extend(with_base(short(offsets), known));
                guesses.extend(with_base(short(offsets), tried));
            }
        }
        if let Some(start) = names.count_at.checked_sub(bytes * count) {
            candidates.push((start..names.count_at, Form::Absolute));
        }
        // Since then they are after the index of the tokens, which ends aligned.
        let offsets = tokens.end;
        let base_at = align(offsets.wrapping_add(4 * count), bytes);
        let (known, tried) = base(base_at);
        candidates.extend(with_base(short(offsets), known));
        guesses.extend(with_base(short(offsets), tried));
        candidates.push((short(offsets), Form::FromPlace));
        if word == Word::W32 {
            candidates.push((short(offsets), Form::Short));
        }
        let count = names.count;
        let candidates = candidates.into_iter().map(|candidate| (candidate, false));
        let guesses = guesses.into_iter().map(|candidate| (candidate, true));
        candidates
            .chain(guesses)
            .map(move |((range, form), is_guess)| Self {
                region: Region::read(memory, range),
                form,
                word,
                is_guess,
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
