//! The core compared with memflow, and with unchecked loads, in alternation.
//!
//! `pairs TURNS` writes a line of JSON for each pair, which `benches/pairing.py` describes.

use std::hint::black_box;
use std::time::Instant;

use serde_json::json;
use xenkdump::addr::{MachineAddr, VirtAddr};
use xenkdump::file::MappedFile;
use xenkdump::status::Status;
use xenkdump_benches::{Guest, Mapped, Memflow, Order};

const LIST: usize = 1 << 20;
const BATCH: usize = 65_536;
/// Calls per turn. The fastest one counts.
const CALLS: usize = 3;
/// The required speedup of the bulk walk over memflow.
const TIMES: f64 = 2.0;

/// A measurement: names, elements per call, and the target ratio.
struct Pair<'a> {
    what: String,
    ours: &'a str,
    theirs: String,
    elements: usize,
    wanted: Option<f64>,
}

impl Pair<'_> {
    /// Alternates, with the fastest of several calls in each turn. An untimed call before them
    /// warms the caches.
    fn measure(&self, turns: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
        self.take_turns(turns, |pair| [pair.warm(&mut ours), pair.warm(&mut theirs)]);
    }

    /// [`Pair::measure`] for slow or cold calls: one call per turn.
    fn measure_once(&self, turns: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
        self.take_turns(turns, |pair| {
            [pair.clock(&mut ours), pair.clock(&mut theirs)]
        });
    }

    /// The first turn does not count: it fills tables that are filled on demand.
    fn take_turns(&self, turns: usize, mut turn: impl FnMut(&Self) -> [f64; 2]) {
        turn(self);
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..turns).map(|_| turn(self).into()).unzip();
        let line = json!({
            "what": self.what,
            "ours": self.ours,
            "theirs": self.theirs,
            "elements": self.elements,
            "ours_ns": ours,
            "theirs_ns": theirs,
            "wanted": self.wanted,
        });
        println!("{line}");
    }

    fn warm(&self, call: &mut impl FnMut()) -> f64 {
        call();
        let times = (0..CALLS).map(|_| self.clock(call));
        times.fold(f64::MAX, f64::min)
    }

    fn clock(&self, call: &mut impl FnMut()) -> f64 {
        let start = Instant::now();
        call();
        start.elapsed().as_nanos() as f64 / self.elements as f64
    }
}

fn translate(turns: usize, name: &str) {
    let guest = Guest::open(name);
    let mut out = vec![MachineAddr(0); LIST];
    let mut status = vec![Status::Ok; LIST];
    let mut theirs = vec![0; LIST];
    for mapped in guest.spaces() {
        let mut memflow = guest.memflow(&mapped);
        for order in Order::ALL {
            let addrs = guest.addrs(&mapped, order, LIST);
            let batch = best_batch(&mut memflow, &addrs);
            let pair = Pair {
                what: format!("virtual, {}, {name}, {}", mapped.pages, order.name()),
                ours: "a batch, 1 thread",
                theirs: format!("memflow, batches of {batch}"),
                elements: LIST,
                wanted: (!matches!(order, Order::Kernel)).then_some(TIMES),
            };
            pair.measure_once(
                turns,
                || {
                    let results = out.chunks_mut(BATCH).zip(status.chunks_mut(BATCH));
                    for (addrs, (out, status)) in addrs.chunks(BATCH).zip(results) {
                        mapped.translate(addrs, out, status);
                    }
                    black_box((&out, &status));
                },
                || {
                    for (addrs, theirs) in addrs.chunks(batch).zip(theirs.chunks_mut(batch)) {
                        memflow.translate(addrs, theirs);
                    }
                    black_box(&theirs);
                },
            );
            assert!(out.iter().zip(&theirs).all(|(a, b)| a.0 == *b), "{name}");
        }
        cold(turns, name, &guest, &mapped);
    }
}

/// The batch size with which memflow is fastest.
fn best_batch(memflow: &mut Memflow, addrs: &[VirtAddr]) -> usize {
    let some = &addrs[..BATCH];
    let mut out = vec![0; BATCH];
    let mut clock = |batch: usize| {
        let start = Instant::now();
        for (addrs, out) in some.chunks(batch).zip(out.chunks_mut(batch)) {
            memflow.translate(addrs, out);
        }
        start.elapsed()
    };
    clock(BATCH);
    let sizes = [1, 4, 16, 64, 256, 4096, BATCH];
    let best = sizes
        .into_iter()
        .min_by_key(|batch| (0..3).map(|_| clock(*batch)).min());
    best.expect("no batch sizes")
}

/// The first batch after opening: nothing is mapped yet, and no table is cached.
fn cold(turns: usize, name: &str, guest: &Guest, mapped: &Mapped) {
    let addrs = guest.addrs(mapped, Order::Random, BATCH);
    let batch = best_batch(&mut guest.memflow(mapped), &addrs);
    let mut out = vec![MachineAddr(0); BATCH];
    let mut status = vec![Status::Ok; BATCH];
    let mut theirs = vec![0; BATCH];
    let pair = Pair {
        what: format!(
            "virtual, {}, {name}, random, opening included",
            mapped.pages
        ),
        ours: "a batch, 1 thread",
        theirs: format!("memflow, batches of {batch}"),
        elements: BATCH,
        wanted: None,
    };
    pair.measure_once(
        turns,
        || {
            let guest = Guest::open(name);
            let spaces = guest.spaces();
            let same = spaces.iter().find(|other| other.pages == mapped.pages);
            same.unwrap().translate(&addrs, &mut out, &mut status);
            black_box(&out);
        },
        || {
            let mut memflow = guest.memflow(mapped);
            for (addrs, theirs) in addrs.chunks(batch).zip(theirs.chunks_mut(batch)) {
                memflow.translate(addrs, theirs);
            }
            black_box(&theirs);
        },
    );
}

/// The cost of the check on each read of the mapped file.
fn guard(turns: usize) {
    let guest = Guest::open("4g");
    let file = MappedFile::open(&guest.path).unwrap();
    let plain = std::fs::File::open(&guest.path).unwrap();
    // SAFETY: the file does not change meanwhile.
    let plain = unsafe { memmap2::Mmap::map(&plain) }.unwrap();
    // The page tables and the P2M, at the start of the file.
    let pages = 4096;
    for order in [Order::Random, Order::Sequential] {
        let numbers = order.numbers(pages * 512, LIST);
        let offsets: Vec<_> = numbers.into_iter().map(|n| n as usize * 8).collect();
        read::<8>(turns, &file, &plain, &offsets, order);
    }
    let numbers = Order::Random.numbers(pages, LIST / 16);
    let offsets: Vec<_> = numbers.into_iter().map(|n| n as usize * 4096).collect();
    read::<4096>(turns, &file, &plain, &offsets, Order::Random);
}

fn read<const N: usize>(
    turns: usize,
    file: &MappedFile,
    plain: &[u8],
    offsets: &[usize],
    order: Order,
) {
    let pair = Pair {
        what: format!("{N} bytes of the file, {}", order.name()),
        ours: "a checked read",
        theirs: "a slice of a plain mapping".into(),
        elements: offsets.len(),
        wanted: None,
    };
    let mut sums = [0_u64; 2];
    let [ours, theirs] = &mut sums;
    pair.measure(
        turns,
        || {
            let mut bytes = [0; N];
            for offset in offsets {
                file.read_at(*offset as u64, &mut bytes).unwrap();
                *ours = ours.wrapping_add(u64::from(black_box(&bytes)[N - 1]));
            }
        },
        || {
            let mut bytes = [0; N];
            for offset in offsets {
                bytes.copy_from_slice(&plain[*offset..*offset + N]);
                *theirs = theirs.wrapping_add(u64::from(black_box(&bytes)[N - 1]));
            }
        },
    );
    assert_eq!(sums[0], sums[1]);
}

fn main() {
    let turns = std::env::args().nth(1).and_then(|turns| turns.parse().ok());
    let turns = turns.expect("pairs TURNS");
    guard(turns);
    for name in ["4g", "64g", "1t"] {
        translate(turns, name);
    }
}
