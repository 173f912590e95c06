//! The fastest that bytes at known offsets of a mapped file can be read at random: no translation, no
//! checks, and as many cache misses at once as prefetches allow.
//!
//! A peer as in `benches/peers.py`: reads a job as JSON from the first line of its input, and prints the
//! first value. For each further line it reads all bytes, and prints the nanoseconds for one offset:
//! the least of [`CALLS`], of CPU time for the line "CPU time", else of elapsed time.

use std::fs::File;
use std::hint::black_box;
use std::io::{stdin, BufRead};
use std::time::Instant;

use memmap2::Mmap;
use serde_json::Value;
use xenkdump_benches::cpu_ns;

/// Reads between a prefetch and its load.
const AHEAD: usize = 32;
/// As in `benches/pairing.py`.
const CALLS: usize = 3;

fn main() {
    let mut lines = stdin().lock().lines();
    let job = lines.next().expect("a job").expect("a line");
    let job: Value = serde_json::from_str(&job).expect("JSON");
    let offsets = job["offsets"].as_array().expect("offsets").iter();
    let offsets: Vec<_> = offsets
        .map(|offset| offset.as_u64().expect("an offset") as usize)
        .collect();
    let file = File::open(job["path"].as_str().expect("a path")).expect("a file");
    // SAFETY: the file does not change meanwhile.
    let mapped = unsafe { Mmap::map(&file) }.expect("a mapping");
    let first = mapped[offsets[0]..].first_chunk().expect("eight bytes");
    println!("{}", u64::from_le_bytes(*first));
    match job["size"].as_u64() {
        Some(8) => serve::<8>(&mapped, &offsets, lines),
        Some(64) => serve::<64>(&mapped, &offsets, lines),
        size => panic!("not a size: {size:?}"),
    }
}

/// Responds to the lines.
fn serve<const N: usize>(
    mapped: &[u8],
    offsets: &[usize],
    lines: impl Iterator<Item = std::io::Result<String>>,
) {
    let room = mapped.len().checked_sub(N).expect("a file");
    assert!(offsets.iter().all(|offset| *offset <= room));
    let mut out = vec![[0; N]; offsets.len()];
    for line in lines {
        let cpu = line.is_ok_and(|line| line.trim() == "CPU time");
        // The first call fills the caches again, and is not timed.
        read(mapped, offsets, &mut out);
        let best = (0..CALLS)
            .map(|_| {
                let start = (Instant::now(), cpu_ns());
                read(mapped, offsets, &mut out);
                if cpu {
                    cpu_ns() - start.1
                } else {
                    start.0.elapsed().as_nanos() as f64
                }
            })
            .fold(f64::MAX, f64::min);
        println!("{}", best / offsets.len() as f64);
    }
}

/// Copies the bytes at all offsets, which are within the mapping.
#[inline(never)]
fn read<const N: usize>(mapped: &[u8], offsets: &[usize], out: &mut [[u8; N]]) {
    let ahead = offsets.get(AHEAD..).unwrap_or_default().iter();
    let ahead = ahead.chain(std::iter::repeat(&0));
    for ((offset, ahead), out) in offsets.iter().zip(ahead).zip(&mut *out) {
        let base = mapped.as_ptr();
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            // SAFETY: a prefetch does not access memory.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(*ahead).cast()) };
        }
        // SAFETY: `serve` has compared all offsets with the length of the mapping.
        *out = unsafe { base.add(*offset).cast::<[u8; N]>().read() };
    }
    black_box(out);
}
