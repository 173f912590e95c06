//! Symbols from kallsyms, in the memory of a kernel or in its file, and from a `System.map`.
//!
//! They have neither sizes nor types of symbols. A symbol extends to the next one that is not a label.

use std::ops::Range;
use std::sync::Arc;

use super::labels::{self, Labels};
use super::map;
use super::table::{Binding, Entry, Kind, Table};
use crate::addr::{VirtAddr, Word};
use crate::alloc;
use crate::elf;
use crate::image::kallsyms::Kallsyms;
use crate::image::loaded::Loaded;
use crate::image::MemoryImage;
use crate::memory::Memory;
use crate::Result;

/// A system call without arguments has two names on x86_64; this one is that of 32-bit processes.
const COMPAT: &[u8] = b"__ia32_sys_";

/// The symbols of an image in memory, at their link-time addresses.
pub(super) fn of_memory(image: &MemoryImage) -> Table {
    let memory = Arc::clone(image.memory());
    table(Arc::clone(image.kallsyms()), memory, image.slide())
}

/// The symbols of a stripped file. Fails if it has no kallsyms.
pub(super) fn of_file(file: &Arc<elf::Image>) -> Result<Table> {
    let loaded = Loaded::new(file);
    Ok(table(Arc::new(loaded.kallsyms()?), Arc::new(loaded), 0))
}

/// The symbols of a kernel with this memory, which was moved by `slide` bytes.
fn table(kallsyms: Arc<Kallsyms>, memory: Arc<dyn Memory<VirtAddr> + Send>, slide: i64) -> Table {
    let word = kallsyms.word;
    let slide = slide.wrapping_neg();
    let span = kallsyms.span();
    let linked = move |address: u64| VirtAddr(address.wrapping_add_signed(slide) & word.max());
    let spans = span
        .clone()
        .map(|span| linked(span.start)..linked(span.end));
    let strings = kallsyms.strings.clone();
    let keys = Arc::clone(&kallsyms.keys);
    let gaps = kallsyms.gaps.iter().map(|gap| linked(*gap));
    let gaps = alloc::collect(gaps);
    let table = Table::new(word, strings, spans.into_iter().collect(), move |_| {
        let labels = labels::find(&*memory, &kallsyms);
        entries(
            &kallsyms,
            &labels,
            &span.clone().unwrap_or_default(),
            linked,
        )
    });
    table.with_gaps(gaps).with_keys(keys)
}

/// The index of the first of `addresses` above this one. Symbols are nearly always in order, so that it
/// is at most one after the `last`.
fn above(addresses: &[u64], address: u64, last: usize) -> usize {
    let at = |i: usize| addresses.get(i).copied();
    let is_above = |i: &usize| {
        let below = *i == 0 || at(*i - 1).is_some_and(|at| at <= address);
        below && at(*i).is_none_or(|at| at > address)
    };
    let near = [last, last.saturating_add(1)].into_iter().find(is_above);
    near.unwrap_or_else(|| addresses.partition_point(|at| *at <= address))
}

fn entries(
    kallsyms: &Kallsyms,
    labels: &Labels,
    span: &Range<u64>,
    linked: impl Fn(u64) -> VirtAddr,
) -> Vec<Entry> {
    let addresses = kallsyms.symbols.iter().map(|symbol| symbol.address);
    let mut addresses = alloc::collect(addresses.filter(|at| !labels.contains(*at)));
    addresses.sort_unstable();
    addresses.dedup();
    let mut next = 0;
    let mut entries = alloc::with_capacity(kallsyms.symbols.len());
    for symbol in &kallsyms.symbols {
        let inside = span.start <= symbol.address && symbol.address <= span.end;
        next = above(&addresses, symbol.address, next);
        let size = addresses.get(next).map_or(0, |next| next - symbol.address);
        let (mut kind, mut binding) = map::letter(symbol.letter);
        let is_label = labels.contains(symbol.address);
        if is_label {
            kind = Kind::NoType;
        }
        if kallsyms.word == Word::W64 && kallsyms.has_prefix(symbol, COMPAT) {
            binding = Binding::Local;
        }
        entries.push(Entry {
            // Offsets into the per-CPU areas and constants are not moved.
            address: if inside {
                linked(symbol.address)
            } else {
                VirtAddr(symbol.address)
            },
            size: if is_label { 0 } else { size },
            name: symbol.name,
            kind,
            binding,
            letter: symbol.letter,
            located: false,
        });
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_address_is_found_in_any_order() {
        let addresses = [10, 20, 30, u64::MAX];
        for last in 0..=addresses.len() + 1 {
            for address in [0, 9, 10, 11, 20, 25, 30, 31, u64::MAX - 1, u64::MAX] {
                let wanted = addresses.partition_point(|at| *at <= address);
                assert_eq!(above(&addresses, address, last), wanted, "{address} {last}");
            }
        }
        assert_eq!(above(&[], 5, 0), 0);
    }
}
