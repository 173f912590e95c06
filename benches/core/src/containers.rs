//! A whole compressed dump in sequence, compared with its decoder alone.
//!
//! `containers TURNS CORES NAME=FILE...` writes a line of JSON for each pair, which
//! `benches/pairing.py` describes. The decoder alone decompresses the same pages, in the order of the
//! file, from the mapped file into a buffer of the same size: no look-up, no check of the file, no cache.
//! On two threads it is the limit of what the machine allows: two virtual cores may be one core.
//!
//! `containers --count ours|decoder FILE` reads some of the pages in `counted`, where callgrind collects
//! instructions, and prints how many.

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
/// One of this number of pieces is counted under callgrind, which is slow.
const COUNTED: usize = 16;

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
    fn new() -> Self {
        Self {
            zlib: flate2::Decompress::new(true),
            zstd: zstd_safe::DCtx::create(),
        }
    }

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

/// The same pages as each of the pieces, by their number in the file.
fn divided<'p>(pieces: &[(u64, usize)], mut pages: &'p [Stored]) -> Vec<&'p [Stored]> {
    let mut found = vec![];
    for (_, len) in pieces {
        let (part, rest) = pages.split_at(len / PAGE);
        found.push(part);
        pages = rest;
    }
    assert!(pages.is_empty());
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

/// Decodes everything, divided in the same way.
fn decode_all(file: &[u8], pieces: &[&[Stored]], threads: usize) {
    let make = || (Bare::new(), vec![0; PIECE]);
    parallel::ranges(pieces.len(), 1, threads, make, |(bare, buffer), range| {
        for pages in &pieces[range] {
            for (page, out) in pages.iter().zip(buffer.chunks_exact_mut(PAGE)) {
                bare.decode(file, page, out);
            }
            black_box(&buffer[0]);
        }
        true
    });
}

/// Nanoseconds per page: elapsed, and of CPU time of all threads.
fn clock(pages: usize, call: impl FnOnce()) -> [f64; 2] {
    let (start, cpu) = (Instant::now(), cpu_ns());
    call();
    let times = [start.elapsed().as_nanos() as f64, cpu_ns() - cpu];
    times.map(|time| time / pages as f64)
}

/// The file, mapped by itself.
fn mapped(path: &Path) -> memmap2::Mmap {
    let file = std::fs::File::open(path).unwrap();
    // SAFETY: the file does not change meanwhile.
    unsafe { memmap2::Mmap::map(&file) }.unwrap()
}

/// Opened anew: no page is in the cache.
fn opened(path: &Path) -> Dump {
    Dump::open_with(&[path.to_owned()], &Options::default()).unwrap()
}

fn measure(name: &str, path: &Path, turns: usize, cores: usize) {
    let file = mapped(path);
    let pages = stored(&file);
    let of_decoder = divided(&pieces(&opened(path)), &pages);
    let counts: Vec<_> = [1, 2].into_iter().filter(|count| *count <= cores).collect();
    let mut ours = vec![vec![]; counts.len()];
    let mut theirs = vec![vec![]; counts.len()];
    for turn in 0..=turns {
        // All four right after each other, so that other load affects all.
        for (i, threads) in counts.iter().enumerate() {
            let dump = opened(path);
            let of_dump = pieces(&dump);
            let space = Space::Machine(&dump);
            let read = clock(pages.len(), || read_all(&space, &of_dump, *threads));
            let decoded = clock(pages.len(), || decode_all(&file, &of_decoder, *threads));
            // The first turn fills the page cache and starts threads.
            if turn > 0 {
                ours[i].push(read);
                theirs[i].push(decoded);
            }
        }
    }
    let print = |ours: (&str, &[[f64; 2]]), theirs: (&str, &[[f64; 2]]), wanted| {
        for (i, time) in ["elapsed", "CPU"].into_iter().enumerate() {
            let of = |times: &[[f64; 2]]| times.iter().map(|time| time[i]).collect::<Vec<_>>();
            let wanted: [Option<f64>; 2] = wanted;
            let line = json!({
                "what": format!("a whole dump in sequence, {name}, {time} time"),
                "ours": ours.0,
                "theirs": theirs.0,
                "elements": pages.len(),
                "ours_ns": of(ours.1),
                "theirs_ns": of(theirs.1),
                "wanted": wanted[i],
            });
            println!("{line}");
        }
    };
    let (one, two) = ("1 thread", "2 threads");
    let (bare_one, bare_two) = (
        "the decoder alone, 1 thread",
        "the decoder alone, 2 threads",
    );
    // With one thread both times are the same on an idle machine.
    print((one, &ours[0]), (bare_one, &theirs[0]), [None, Some(0.9)]);
    if counts.len() > 1 {
        print((two, &ours[1]), (bare_one, &theirs[0]), [Some(1.8), None]);
        print((two, &ours[1]), (one, &ours[0]), [None, None]);
        print((two, &ours[1]), (bare_two, &theirs[1]), [None, None]);
        print((bare_two, &theirs[1]), (bare_one, &theirs[0]), [None, None]);
    }
}

/// The function that callgrind collects, by its name.
#[inline(never)]
#[no_mangle]
fn counted(work: &mut dyn FnMut()) {
    work();
}

/// Reads some pieces in `counted`.
fn count(who: &str, path: &Path) {
    let file = mapped(path);
    let pages = stored(&file);
    let dump = opened(path);
    let all = pieces(&dump);
    let some: Vec<_> = all.iter().copied().step_by(COUNTED).collect();
    let of_decoder = divided(&all, &pages);
    let of_decoder: Vec<_> = of_decoder.into_iter().step_by(COUNTED).collect();
    let space = Space::Machine(&dump);
    let mut run: Box<dyn FnMut()> = match who {
        "ours" => Box::new(|| read_all(&space, &some, 1)),
        _ => Box::new(|| decode_all(&file, &of_decoder, 1)),
    };
    // This makes the decoders.
    run();
    counted(&mut *run);
    println!("{}", some.iter().map(|(_, len)| len / PAGE).sum::<usize>());
}

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [option, who, path] if option == "--count" => count(who, Path::new(path)),
        [turns, cores, files @ ..] => {
            let [turns, cores] = [turns, cores].map(|arg| arg.parse().expect("a number"));
            for arg in files {
                let (name, path) = arg.split_once('=').expect("NAME=FILE");
                measure(name, Path::new(path), turns, cores);
            }
        }
        _ => panic!("containers TURNS CORES NAME=FILE... or --count ours|decoder FILE"),
    }
}
