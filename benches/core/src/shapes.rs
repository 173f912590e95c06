//! P2Ms of different shapes, compared with a table of 32 bits for each pfn that is prefetched.
//!
//! `shapes TURNS ABOUT...` reads the notes that `benches/shapes.py` writes, and prints a line of JSON
//! for each pair. The table is the fastest that a lookup at random can be: no checks, half of the
//! memory of an mfn, and a prefetch so that cache misses overlap.

use std::hint::black_box;
use std::sync::Arc;

use serde_json::{json, Value};
use xenkdump::addr::{Mfn, Pfn, Word};
use xenkdump::dump::Dump;
use xenkdump::p2m::{Entry, P2m};
use xenkdump::status::Status;
use xenkdump_benches::{cpu_ns, Order};

const LIST: usize = 1 << 20;
const BATCHES: [usize; 3] = [4_096, 65_536, 1 << 22];
/// Lookups between a prefetch and its load.
const AHEAD: usize = 32;
/// Calls per turn. The fastest one counts.
const CALLS: usize = 2;

fn main() {
    let mut args = std::env::args().skip(1);
    let turns = args.next().and_then(|turns| turns.parse().ok());
    let turns = turns.expect("shapes TURNS ABOUT...");
    for path in args {
        let about = std::fs::read(&path).unwrap();
        measure(turns, &serde_json::from_slice(&about).unwrap());
    }
}

fn measure(turns: usize, about: &Value) {
    let number = |key: &str| about[key].as_u64().unwrap();
    let dump = Arc::new(Dump::open(about["path"].as_str().unwrap().as_ref()).unwrap());
    let p2m = P2m::frame_list(dump, Mfn(number("frame_list")), Word::W64, None).unwrap();
    let (unit, pages) = (number("unit"), number("pages"));
    // Entries that are foreign or identity have an mfn, too, but a batch reports them.
    let mfns: Vec<_> = (0..unit)
        .map(|pfn| match p2m.resolve(Pfn(pfn)) {
            Entry::Frame(mfn) => Some(mfn),
            Entry::Special(_) => None,
        })
        .collect();
    let present: Vec<_> = (0..unit)
        .filter(|pfn| mfns[*pfn as usize].is_some())
        .collect();
    // The low bits of INVALID for what has no frame, which is not looked up.
    let narrow = |pfn| mfns[(pfn % unit) as usize].map_or(u32::MAX, |mfn| mfn.0 as u32);
    let table: Vec<u32> = (0..pages).map(narrow).collect();
    let repeated = (pages / unit).max(1);
    for order in [Order::Random, Order::Sequential] {
        for batch in BATCHES {
            let count = batch.max(LIST);
            let each = present.len() as u64;
            let numbers = order.numbers(each * repeated, count).into_iter();
            let pfns: Vec<_> = numbers
                .map(|n| Pfn(n / each * unit + present[(n % each) as usize]))
                .collect();
            let mut out = vec![Mfn(0); batch];
            let mut status = vec![Status::Ok; batch];
            let mut theirs = vec![0_u32; batch];
            let mut ours_ns = Vec::new();
            let mut theirs_ns = Vec::new();
            for turn in 0..=turns {
                let one = clock(count, || {
                    for pfns in pfns.chunks(batch) {
                        p2m.resolve_many(pfns, &mut out, &mut status);
                        black_box(&out);
                    }
                });
                let other = clock(count, || {
                    for pfns in pfns.chunks(batch) {
                        gather(&table, pfns, &mut theirs);
                        black_box(&theirs);
                    }
                });
                // The first turn summarizes the P2M.
                if turn > 0 {
                    ours_ns.push(one);
                    theirs_ns.push(other);
                }
            }
            assert!(status.iter().all(|status| *status == Status::Ok));
            assert!(out.iter().zip(&theirs).all(|(a, b)| a.0 == u64::from(*b)));
            let (shape, size) = (&about["shape"], &about["size"]);
            let line = json!({
                "what": format!(
                    "P2M shape: {}, {}, {}",
                    shape.as_str().unwrap(),
                    size.as_str().unwrap(),
                    order.name()
                ),
                "ours": format!("the core, 1 thread, batches of {}", thousands(batch)),
                "theirs": "a prefetched table, 32 bits",
                "elements": batch,
                "ours_ns": ours_ns,
                "theirs_ns": theirs_ns,
            });
            println!("{line}");
        }
    }
}

/// The CPU time of the fastest of several calls after an untimed one, by element.
fn clock(count: usize, mut call: impl FnMut()) -> f64 {
    call();
    let times = (0..CALLS).map(|_| {
        let start = cpu_ns();
        call();
        (cpu_ns() - start) / count as f64
    });
    times.fold(f64::MAX, f64::min)
}

/// Looks pfns up in a table without any check.
fn gather(table: &[u32], pfns: &[Pfn], out: &mut [u32]) {
    for (i, (pfn, out)) in pfns.iter().zip(out).enumerate() {
        #[cfg(target_arch = "x86_64")]
        if let Some(next) = pfns.get(i + AHEAD) {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            // SAFETY: a prefetch does not access memory.
            unsafe {
                _mm_prefetch(
                    table.as_ptr().wrapping_add(next.0 as usize).cast(),
                    _MM_HINT_T0,
                )
            };
        }
        // SAFETY: the pfns are below the number of the table's entries.
        *out = unsafe { *table.get_unchecked(pfn.0 as usize) };
    }
}

/// A number with commas, as in the pairs from Python.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
