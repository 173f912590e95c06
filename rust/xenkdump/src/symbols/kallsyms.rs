//! Symbols from kallsyms in the memory of a kernel.
//!
//! It has neither sizes nor types of symbols. A symbol extends to the next one that is not a label.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::labels;
use super::map;
use super::table::{Binding, Entry, Kind, Table};
use crate::addr::{VirtAddr, Word};
use crate::image::kallsyms::Kallsyms;
use crate::image::MemoryImage;

/// Symbols at the start and at the end of an image, in order of preference.
const STARTS: [&str; 4] = ["_text", "_stext", "startup_64", "startup_32"];
const ENDS: [&str; 3] = ["_end", "__brk_limit", "_einittext"];
/// Where the image of x86_64 is mapped from (page_64_types.h). Offsets into the per-CPU areas are below.
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// A system call without arguments has two names on x86_64; this one is that of 32-bit processes.
const COMPAT: &[u8] = b"__ia32_sys_";

/// The symbols of an image, at their link-time addresses.
pub(super) fn of_image(image: &MemoryImage) -> Table {
    let kallsyms = Arc::clone(image.kallsyms());
    let word = kallsyms.word;
    let slide = image.slide().wrapping_neg();
    let span = span(&kallsyms);
    let linked = move |address: u64| VirtAddr(address.wrapping_add_signed(slide) & word.max());
    let spans = span
        .clone()
        .map(|span| linked(span.start)..linked(span.end));
    let strings = kallsyms.strings.clone();
    let memory = Arc::clone(image.memory());
    let gaps = kallsyms.gaps.iter().map(|gap| linked(*gap)).collect();
    let table = Table::new(word, strings, spans.into_iter().collect(), move |_| {
        let labels = labels::find(&*memory, &kallsyms);
        entries(
            &kallsyms,
            &labels,
            &span.clone().unwrap_or_default(),
            linked,
        )
    });
    table.with_gaps(gaps)
}

fn entries(
    kallsyms: &Kallsyms,
    labels: &HashSet<u64>,
    span: &Range<u64>,
    linked: impl Fn(u64) -> VirtAddr,
) -> Vec<Entry> {
    let addresses = kallsyms.symbols.iter().map(|symbol| symbol.address);
    let mut addresses: Vec<u64> = addresses.filter(|at| !labels.contains(at)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut entries = Vec::with_capacity(kallsyms.symbols.len());
    for symbol in &kallsyms.symbols {
        let inside = span.start <= symbol.address && symbol.address <= span.end;
        let next = addresses.partition_point(|address| *address <= symbol.address);
        let size = addresses.get(next).map_or(0, |next| next - symbol.address);
        let (mut kind, mut binding) = map::letter(symbol.letter);
        let is_label = labels.contains(&symbol.address);
        if is_label {
            kind = Kind::NoType;
        }
        if kallsyms.word == Word::W64 && kallsyms.name(symbol).starts_with(COMPAT) {
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
            located: false,
        });
    }
    entries
}

/// From the first address of the image to the one after its last.
fn span(kallsyms: &Kallsyms) -> Option<Range<u64>> {
    let lowest = match kallsyms.word {
        Word::W64 => START_KERNEL_MAP,
        Word::W32 => 0,
    };
    let addresses = kallsyms.symbols.iter().map(|symbol| symbol.address);
    let first = |found: &[Option<u64>]| found.iter().flatten().next().copied();
    // The dump may lack the first symbols.
    let lowest = addresses.filter(|address| *address >= lowest).min();
    let start = first(&kallsyms.get(STARTS)).or(lowest)?;
    let end = first(&kallsyms.get(ENDS)).filter(|end| *end > start);
    let last = kallsyms.symbols.iter().map(|s| s.address).max();
    Some(start..end.or(last)?)
}
