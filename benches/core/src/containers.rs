//! A whole compressed dump in sequence, compared with its decoder alone.
//!
//! `containers TURNS CORES NAME=FILE...` writes a line of JSON for each pair, which
//! `benches/pairing.py` describes. The decoder alone decompresses the same pages, in the order of the
//! file, from the mapped file into a buffer of the same size: no look-up, no check of the file, no cache.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use xenkdump::addr::MachineAddr;
use xenkdump::dump::{Dump, Options};
use xenkdump::parallel;
use xenkdump::space::{Batch, Space};
use xenkdump_benches::cpu_ns;

const PAGE: usize = 4096;
/// Bytes that a thread reads at once, as in the extension.
const PIECE: usize = 1 << 20;

/// A page's data in the file.
struct Stored {
    offset: usize,
    size: usize,
    flags: u32,
}

/// The descriptors of a kdump-compressed file, by its headers.
fn stored(file: &[u8]) -> Vec<Stored> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    // The header of x86_64: sizes are counted in blocks.
    let (sub_blocks, bitmap_blocks) = (word(432), word(436));
    let bitmap = (1 + sub_blocks) * PAGE;
    let second = &file[bitmap + bitmap_blocks / 2 * PAGE..][..bitmap_blocks / 2 * PAGE];
    let count: usize = second.iter().map(|byte| byte.count_ones() as usize).sum();
    let descriptors = file[bitmap + bitmap_blocks * PAGE..].chunks_exact(24);
    descriptors
        .take(count)
        .map(|raw| Stored {
            offset: u64::from_le_bytes(raw[..8].try_into().unwrap()) as usize,
            size: u32::from_le_bytes(raw[8..12].try_into().unwrap()) as usize,
            flags: u32::from_le_bytes(raw[12..16].try_into().unwrap()),
        })
        .collect()
}

/// The same decoders as the reader's, each with the state that it keeps.
struct Bare {
    zlib: flate2::Decompress,
    zstd: zstd_safe::DCtx<'static>,
}

impl Bare {
    fn decode(&mut self, file: &[u8], page: &Stored, out: &mut [u8]) {
        let packed = &file[page.offset..page.offset + page.size];
        match page.flags {
            0 => out.copy_from_slice(packed),
            1 => {
                self.zlib.reset(true);
                let finish = flate2::FlushDecompress::Finish;
                self.zlib.decompress(packed, out, finish).unwrap();
            }
            2 => _ = lzokay::decompress::decompress(packed, out).unwrap(),
            4 => _ = snap::raw::Decoder::new().decompress(packed, out).unwrap(),
            0x20 => _ = self.zstd.decompress(out, packed).unwrap(),
            flags => panic!("flags {flags:#x}"),
        }
    }
}

/// All runs of memory of a dump, in pieces.
fn pieces(dump: &Dump) -> Vec<(u64, usize)> {
    let mut found = vec![];
    for run in dump.runs(MachineAddr(0)) {
        let size = run.last.0 - run.start.0 + 1;
        let starts = (0..size).step_by(PIECE);
        found.extend(starts.map(|at| (run.start.0 + at, PIECE.min((size - at) as usize))));
    }
    found
}

/// Reads everything as `AddressSpace.readinto` does.
fn read_all(space: &Space<&Dump>, pieces: &[(u64, usize)], threads: usize) {
    let make = || (Batch::new(space, PIECE / PAGE), vec![0; PIECE]);
    let whole = parallel::ranges(pieces.len(), 1, threads, make, |(batch, buffer), range| {
        for (addr, len) in &pieces[range] {
            batch.fill(*addr, &mut buffer[..*len]).unwrap();
            black_box(&buffer[0]);
        }
        true
    });
    assert!(whole);
}

/// Nanoseconds per page: elapsed, and of CPU time of all threads.
fn clock(pages: usize, call: impl FnOnce()) -> [f64; 2] {
    let (start, cpu) = (Instant::now(), cpu_ns());
    call();
    let times = [start.elapsed().as_nanos() as f64, cpu_ns() - cpu];
    times.map(|time| time / pages as f64)
}

fn measure(name: &str, path: &Path, turns: usize, cores: usize) {
    let file = std::fs::File::open(path).unwrap();
    // SAFETY: the file does not change meanwhile.
    let file = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    let pages = stored(&file);
    let mut bare = Bare {
        zlib: flate2::Decompress::new(true),
        zstd: zstd_safe::DCtx::create(),
    };
    let mut buffer = vec![0; PIECE];
    for (threads, wanted) in [(1, 0.9), (2, 1.8)] {
        if threads > cores {
            continue;
        }
        let (mut ours, mut theirs) = (vec![], vec![]);
        for turn in 0..=turns {
            // Opened anew: no page is in the cache.
            let dump = Dump::open_with(&[path.to_owned()], &Options::default()).unwrap();
            let pieces = pieces(&dump);
            let space = Space::Machine(&dump);
            let read = clock(pages.len(), || read_all(&space, &pieces, threads));
            let decoded = clock(pages.len(), || {
                for pages in pages.chunks(PIECE / PAGE) {
                    for (page, out) in pages.iter().zip(buffer.chunks_exact_mut(PAGE)) {
                        bare.decode(&file, page, out);
                    }
                    black_box(&buffer[0]);
                }
            });
            // The first turn fills the page cache.
            if turn > 0 {
                ours.push(read);
                theirs.push(decoded);
            }
        }
        // With one thread both are the same on an idle machine.
        for (i, time) in ["elapsed", "CPU"].into_iter().enumerate() {
            let of = |times: &[[f64; 2]]| times.iter().map(|time| time[i]).collect::<Vec<_>>();
            let is_judged = (threads == 1) == (time == "CPU");
            let line = json!({
                "what": format!("a whole dump in sequence, {name}, {time} time"),
                "ours": format!("{threads} thread{}", if threads == 1 { "" } else { "s" }),
                "theirs": "the decoder alone, 1 thread",
                "elements": pages.len(),
                "ours_ns": of(&ours),
                "theirs_ns": of(&theirs),
                "wanted": is_judged.then_some(wanted),
            });
            println!("{line}");
        }
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = || args.next().and_then(|arg| arg.parse().ok());
    let (Some(turns), Some(cores)) = (number(), number()) else {
        panic!("containers TURNS CORES NAME=FILE...");
    };
    for arg in args {
        let (name, path) = arg.split_once('=').expect("NAME=FILE");
        measure(name, Path::new(path), turns, cores);
    }
}
