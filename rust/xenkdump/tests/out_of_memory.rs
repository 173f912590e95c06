//! Allocations that fail: each large one in turn, of files that make many of them.
//!
//! Tables and lists whose size comes from the input are made by `alloc`. An ordinary allocation among
//! the large ones would end this process.

mod hostile;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xenkdump::addr::{MachineAddr, Mfn, Pfn, VirtAddr, Word};
use xenkdump::alloc;
use xenkdump::dump::Dump;
use xenkdump::image::{head, Image, MemoryImage};
use xenkdump::limits::MAX_SMALL_ALLOCATION;
use xenkdump::lines::Lines;
use xenkdump::memory::Memory;
use xenkdump::p2m::{self, P2m, Source};
use xenkdump::paging::{Format, Virtual};
use xenkdump::space::bare::{self, Bare, FrameTable};
use xenkdump::space::{Links, Space, Tables};
use xenkdump::symbols::{Cursor, Symbols};
use xenkdump::types::Types;

/// The system's allocator, of which one large allocation can be made to fail.
struct Failing;

static ARMED: AtomicBool = AtomicBool::new(false);
/// The number of large allocations so far, and of the one that fails.
static SEEN: AtomicUsize = AtomicUsize::new(0);
static FAILS: AtomicUsize = AtomicUsize::new(usize::MAX);

fn fails(size: usize) -> bool {
    size >= MAX_SMALL_ALLOCATION
        && ARMED.load(Ordering::SeqCst)
        && SEEN.fetch_add(1, Ordering::SeqCst) == FAILS.load(Ordering::SeqCst)
}

// SAFETY: memory is that of `System`; null is a valid result.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as for the caller.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > layout.size() && fails(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as for the caller.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// One test at a time, as other tests make large allocations too.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `work` with allocation number `n` failing; whether that was an error, and how many there were.
fn run(n: usize, work: &impl Fn()) -> (bool, usize) {
    SEEN.store(0, Ordering::SeqCst);
    FAILS.store(n, Ordering::SeqCst);
    ARMED.store(true, Ordering::SeqCst);
    let result = alloc::catch(work);
    ARMED.store(false, Ordering::SeqCst);
    (result.is_err(), SEEN.load(Ordering::SeqCst))
}

/// Each large allocation of `work` may fail; at least `errors` of them are errors, others only make the
/// work slower.
fn check(errors: usize, work: impl Fn()) {
    let (failed, count) = run(usize::MAX, &work);
    assert!(!failed && count >= errors, "{count} large allocations");
    let failed = (0..count).filter(|n| run(*n, &work).0).count();
    assert!(failed >= errors, "{failed} of {count} are errors");
    // Nothing is left behind.
    assert!(!run(usize::MAX, &work).0);
}

/// A file with these contents, removed on drop.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, contents: &[u8]) -> Self {
        let name = format!("xenkdump-oom-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn words(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// An ELF core file with segments: machine address and contents.
fn vmcore(segments: &[(u64, &[u8])]) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    for half in [4_u16, 62, 1, 0] {
        header.extend(half.to_le_bytes());
    }
    header.extend(words([0, 64, 0]));
    for half in [0_u16, 0, 64, 56, segments.len() as u16, 64, 0, 0] {
        header.extend(half.to_le_bytes());
    }
    let mut at = (64 + 56 * segments.len()) as u64;
    let mut contents = Vec::new();
    for (start, bytes) in segments {
        header.extend(words([
            1,
            at,
            *start,
            *start,
            bytes.len() as u64,
            bytes.len() as u64,
            0,
        ]));
        at += bytes.len() as u64;
        contents.extend_from_slice(bytes);
    }
    header.extend(contents);
    header
}

#[test]
fn segments() {
    let _turn = turn();
    // They overlap, so that they are cut.
    let page = [0xa5; 24];
    let segments: Vec<_> = (0..20_000).map(|i| (i * 16, &page[..])).collect();
    let bytes = vmcore(&segments);
    let file = Temporary::new("segments", &bytes);
    check(5, || {
        let dump = Dump::open(&file.0).unwrap();
        assert!(dump.memory_held() > 0);
    });
}

#[test]
fn lime_ranges() {
    let _turn = turn();
    let mut bytes = Vec::new();
    for i in 0..10_000 {
        bytes.extend(words([0x1_4c69_4d45, i * 4096, i * 4096 + 15, 0, 0, 0]));
    }
    let file = Temporary::new("lime", &bytes);
    check(4, || {
        assert!(Dump::open(&file.0).is_ok());
    });
}

#[test]
fn flattened_blocks() {
    let _turn = turn();
    let inside = vmcore(&[(0, &[1; 4096])]);
    let mut bytes = b"makedumpfile\0\0\0\0".to_vec();
    for number in [1_u64, 1] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.resize(4096, 0);
    // Two bytes each, of which the next block replaces one.
    for (at, byte) in inside.iter().enumerate() {
        for number in [at as u64, 2] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend([*byte, 0]);
    }
    for number in [u64::MAX; 2] {
        bytes.extend(number.to_be_bytes());
    }
    let file = Temporary::new("flattened", &bytes);
    check(2, || {
        assert!(Dump::open(&file.0).is_ok());
    });
}

#[test]
fn zstd_in_place() {
    let _turn = turn();
    let contents: Vec<u8> = (0..3_u32 << 20).map(|i| (i >> 9) as u8).collect();
    let bytes = vmcore(&[(0, &contents)]);
    // Frames of 512 bytes: without a table, and with one.
    for choice in [1, 1 | 4] {
        let file = Temporary::new("zstd", &hostile::zstd_of(choice, &[], &[], &bytes));
        check(5, || {
            let dump = Dump::open(&file.0).unwrap();
            let mut part = [0; 512];
            for at in (0..contents.len()).step_by(512) {
                dump.read(MachineAddr(at as u64), &mut part).unwrap();
                assert_eq!(part[100], contents[at]);
            }
        });
    }
}

#[test]
fn decoders_of_pages() {
    let _turn = turn();
    let page: Vec<u8> = (0..4096_u32).map(|i| (i >> 5) as u8).collect();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&page).unwrap();
    let zlib = zlib.finish().unwrap();
    let mut zstd = Vec::with_capacity(zstd_safe::compress_bound(page.len()));
    zstd_safe::compress(&mut zstd, &page, 1).unwrap();
    for (flags, packed) in [(1_u32, zlib), (0x20, zstd)] {
        // The only page, after its descriptor.
        let mut descriptor = words([5 * 4096 + 24]);
        descriptor.extend(
            [packed.len() as u32, flags, 0, 0]
                .map(u32::to_le_bytes)
                .concat(),
        );
        let parts = [&[1][..], &[1], &[], &descriptor];
        let contents = hostile::kdump_of(6 << 2, parts, &packed);
        let file = Temporary::new("decoder", &contents);
        check(1, || {
            // Each thread has decoders of its own.
            let read = std::thread::scope(|scope| {
                let read = scope.spawn(|| {
                    let dump = Dump::open(&file.0).unwrap();
                    let mut bytes = [0; 4096];
                    dump.read(MachineAddr(0), &mut bytes).unwrap();
                    assert_eq!(bytes[..], page[..]);
                });
                read.join()
            });
            if let Err(payload) = read {
                std::panic::resume_unwind(payload);
            }
        });
    }
}

/// A record of libxc's stream.
fn record(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut record = kind.to_le_bytes().to_vec();
    record.extend((body.len() as u32).to_le_bytes());
    record.extend(body);
    record.resize(record.len().next_multiple_of(8), 0);
    record
}

/// libxc's stream of a domain: 1 is PV, 2 is HVM.
fn saved(kind: u32, records: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"\xff\xff\xff\xff\xff\xff\xff\xffXENF".to_vec();
    file.extend(3_u32.to_be_bytes());
    file.resize(24, 0);
    for number in [kind, 12, 4, 17] {
        file.extend(number.to_le_bytes());
    }
    file.extend(records.concat());
    file.extend(record(0, &[]));
    file
}

/// PAGE_DATA without contents, of every second pfn.
fn pages(first: u64) -> Vec<u8> {
    let count = 20_000;
    let pfns = (0..count).map(|i| 0xd << 60 | (first + 2 * i));
    record(1, &words([count].into_iter().chain(pfns)))
}

#[test]
fn saved_domains() {
    let _turn = turn();
    let mut pv: Vec<_> = (0..600_u64)
        .map(|id| record(4, &[words([id]), vec![0; 5168]].concat()))
        .collect();
    // Before and after a checkpoint.
    pv.extend([pages(0), record(0xe, &[]), pages(100)]);
    let cpu = |id: u16| {
        let mut entry = Vec::new();
        for half in [2, id, 1024, 0] {
            entry.extend(half.to_le_bytes());
        }
        entry.resize(8 + 1024, 0);
        entry
    };
    let context: Vec<u8> = (0..600).flat_map(cpu).collect();
    let hvm = [pages(0), record(9, &context)];
    for (kind, records) in [(1, &pv[..]), (2, &hvm)] {
        let file = Temporary::new("saved", &saved(kind, records));
        check(6, || {
            let dump = Dump::open(&file.0).unwrap();
            assert_eq!(dump.vcpu_contexts().len(), 600);
        });
    }
}

#[test]
fn kallsyms_in_memory() {
    let _turn = turn();
    let first = ["T_text", "T_etext", "Rlinux_banner", "D__start_BTF"].map(String::from);
    let others = (0..30_000).map(|i| format!("Tsymbol_{i:05}"));
    let names: Vec<_> = first.into_iter().chain(others).collect();
    let bytes = hostile::kallsyms_of(&names, |i, banner| match i {
        0 => 0,
        1 => 32,
        2 => banner,
        3 => banner + 24,
        i => banner + 24 + i as u32,
    });
    check(20, || hostile::kallsyms(&bytes));
    // Without one of the tokens, of the names, of the offsets.
    for lost in [0x40_000, 0x80_000] {
        let mut bytes = bytes.clone();
        bytes.truncate(lost);
        let _ = run(usize::MAX, &|| hostile::kallsyms(&bytes));
    }
}

#[test]
fn system_maps() {
    let _turn = turn();
    let lines =
        (0..40_000).map(|i| format!("{:016x} T symbol_{i}\n", 0xffff_ffff_8100_0000_u64 + i));
    let text: String = lines.collect();
    let file = Temporary::new("system-map", text.as_bytes());
    check(6, || {
        let image = MemoryImage::of_map(&file.0).unwrap();
        let image = image.with_variables(vec![(b"added".to_vec(), 1 << 63)]);
        let symbols = Symbols::of_image(&Image::Memory(image.into())).unwrap();
        assert_eq!(symbols.len(), 40_001);
        assert!(symbols.get("symbol_7").is_some());
    });
}

/// A file in the compressions for which there are encoders; without LZ4 frames, for whose decoder memory
/// is only probed.
fn packed(contents: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(contents).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(contents).unwrap();
    let mut zstd = Vec::with_capacity(zstd_safe::compress_bound(contents.len()));
    zstd_safe::compress(&mut zstd, contents, 1).unwrap();
    let mut legacy = 0x184c_2102_u32.to_le_bytes().to_vec();
    let block = lz4_flex::block::compress(contents);
    legacy.extend((block.len() as u32).to_le_bytes());
    legacy.extend(block);
    // A block that is stored, without its checksum.
    let header =
        "894c5a4f000d0a1a0a1040 20a0 0940 0105 00000000 000081a4 00000000 00000000 00 00000000";
    let mut lzo = hostile::packed::bytes(&header.replace(' ', ""));
    lzo.extend([(contents.len() as u32).to_be_bytes(); 2].concat());
    lzo.extend(contents);
    lzo.extend([0; 4]);
    vec![
        ("gzip", gzip.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("lz4", legacy),
        ("lzo", lzo),
        ("zstd", zstd),
    ]
}

#[test]
fn compressed_images() {
    let _turn = turn();
    let mut contents = b"\x7fELF\x02\x01\x01".to_vec();
    contents.resize(16, 0);
    for half in [2_u16, 62, 1, 0] {
        contents.extend(half.to_le_bytes());
    }
    contents.extend(words([0, 0, 0]));
    for half in [0_u16, 0, 64, 56, 0, 64, 0, 0] {
        contents.extend(half.to_le_bytes());
    }
    contents.extend((0..300_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8));
    let size = contents.len() as u32;
    for (name, stream) in packed(&contents) {
        let kernel = hostile::packed::bzimage(name, stream.clone(), size, 0x020f);
        for bytes in [stream, kernel] {
            let file = Temporary::new("packed", &bytes);
            eprintln!("{name}, {} bytes", bytes.len());
            check(1, || match Image::open(&file.0) {
                Ok(_) => {}
                // As MemoryError, too.
                Err(xenkdump::Error::Io { source, .. }) => {
                    assert_eq!(source.raw_os_error(), Some(libc::ENOMEM));
                    alloc::probe(usize::MAX);
                }
                Err(error) => panic!("{name}: {error}"),
            });
        }
    }
    // The others, whose decoders have large dictionaries.
    for (name, digits) in hostile::packed::SEEDS {
        let file = Temporary::new("packed", &hostile::packed::bytes(digits));
        eprintln!("{name}");
        check(0, || {
            let _ = (Image::open(&file.0), head(&file.0, 64));
        });
    }
}

#[test]
fn symbol_maps() {
    let _turn = turn();
    let lines =
        (0..40_000).map(|i| format!("{:016x} T symbol_{i}\n", 0xffff_8000_0000_0000_u64 + i));
    let text: String = lines.collect();
    let file = Temporary::new("map", text.as_bytes());
    check(6, || {
        let symbols = Symbols::from_map(&file.0).unwrap();
        assert!(symbols.get("symbol_7").is_some());
        assert!(symbols.lookup(VirtAddr(0xffff_8000_0000_0007)).is_some());
        assert_eq!(symbols.len(), 40_000);
        assert!(symbols.next(&mut Cursor::default()).is_some());
    });
}

#[test]
fn symbols_of_modules() {
    let _turn = turn();
    // Elf64_Sym of functions, all with the name "f".
    let symbols = (1..20_000_u64).flat_map(|i| [1 | 2 << 32 | 1 << 48, i * 16, 16]);
    let symtab = words(symbols);
    let file = Temporary::new(
        "modules",
        b"ffffffff81000000 T _text\nffffffff82000000 T _end\n",
    );
    let symbols = Symbols::from_map(&file.0).unwrap();
    check(5, || {
        let mut symbols = symbols.clone();
        let (symtab, strtab) = (alloc::copied(&symtab), b"\0f\0".to_vec());
        symbols.add_module("module", VirtAddr(0), VirtAddr(1 << 30), symtab, strtab);
        assert!(symbols.get("f").is_some());
        assert_eq!(symbols.all("f").len(), 4096);
    });
}

#[test]
fn source_lines() {
    let _turn = turn();
    // Programs of version 4, each for one address of .text. What gimli allocates for their files is
    // small: it cannot fail.
    let program = |number: u64| {
        let files = b"a\0\0\0\0".repeat(8);
        let opcodes = [1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0];
        let header = [&opcodes[..], &files[..], &[0]].concat();
        let text = 0xffff_ffff_8100_0000 + number;
        let rows = [&[0, 9, 2][..], &text.to_le_bytes(), &[1, 2, 1, 0, 1, 1]].concat();
        let size = 6 + header.len() as u32 + rows.len() as u32;
        let start = [&size.to_le_bytes()[..], &[4, 0]].concat();
        let header_size = (header.len() as u32).to_le_bytes();
        [start, header_size.to_vec(), header, rows].concat()
    };
    let lines: Vec<u8> = (0..2100).flat_map(program).collect();
    let text = [0x90; 4096];
    let file = hostile::elf_of(&[(".text", &text), (".debug_line", &lines)]);
    let file = Temporary::new("lines", &file);
    check(5, || {
        let image = Image::open(&file.0).unwrap();
        let lines = Lines::of_image(&image).unwrap();
        let addresses = [VirtAddr(0xffff_ffff_8100_0001); 20_000];
        let found = lines.find(&addresses);
        assert_eq!(found[0].as_ref().unwrap().line, 1);
    });
}

#[test]
fn types() {
    let _turn = turn();
    // Structs without members: name, kind 4, size.
    let types = (0..20_000_u32).flat_map(|_| [1, 4 << 24, 8]);
    let types: Vec<u8> = types.flat_map(u32::to_le_bytes).collect();
    let strings = b"\0name\0";
    let mut btf = vec![0x9f, 0xeb, 1, 0];
    for number in [24, 0, types.len(), types.len(), strings.len()] {
        btf.extend((number as u32).to_le_bytes());
    }
    btf.extend(&types);
    btf.extend(strings);
    check(5, || {
        let types = Types::from_btf(alloc::copied(&btf).into(), Word::W64).unwrap();
        assert_eq!(types.size_of("name").unwrap(), 8);
    });
}

/// Page tables from 0x1000 on that map `count` pages from address 0 on to the machine pages from 0x10000
/// on, which have `contents`.
fn mapped(contents: &[u8]) -> Vec<u8> {
    let pages = contents.len() as u64 / 4096;
    let leaf = words((0..512).map(|i| if i < pages { 0x10000 + i * 4096 + 3 } else { 0 }));
    let above = |next: u64| words((0..512).map(|i| if i == 0 { next | 3 } else { 0 }));
    let (top, three, two) = (above(0x2000), above(0x3000), above(0x4000));
    vmcore(&[
        (0x1000, &top),
        (0x2000, &three),
        (0x3000, &two),
        (0x4000, &leaf),
        (0x10000, contents),
    ])
}

#[test]
fn p2ms() {
    let _turn = turn();
    // Frames in an order in which no two are consecutive, and every second pfn is invalid.
    let entry = |pfn: u64| match pfn % 2 {
        0 => pfn.wrapping_mul(0x9e37_79b9) & 0xfff_ffff,
        _ => u64::MAX,
    };
    let pages = 64 * 512;
    let bytes = mapped(&words((0..pages).map(entry)));
    let file = Temporary::new("p2m", &bytes);
    check(8, || {
        let dump = Arc::new(Dump::open(&file.0).unwrap());
        let format = Format::by_name("x86_64").unwrap();
        let space = Virtual::new(dump, format, MachineAddr(0x1000));
        let p2m = P2m::linear(space, VirtAddr(0), Word::W64, pages, Source::Linear).unwrap();
        assert_eq!(p2m.reverse(Mfn(entry(4))), Some(Pfn(4)));
        assert_eq!(
            p2m.kinds(Pfn(0), Pfn(pages), 1 << 20).runs.len() as u64,
            pages
        );
        assert!(!p2m.spans().is_empty());
    });
}

#[test]
fn bare_views() {
    let _turn = turn();
    // A table of level 4, eight of level 3, and 4096 of level 2 that the dump does not hold.
    let level_4 = words((0..512).map(|i| if i < 8 { (i + 2) << 12 | 7 } else { 0 }));
    let level_3 = words((0..8 * 512).map(|i| (i + 0x100) << 12 | 7));
    let bytes = vmcore(&[(0x1000, &level_4), (0x2000, &level_3)]);
    let file = Temporary::new("bare", &bytes);
    let own: Vec<_> = (1..10).chain(0x100..0x1100).collect();
    let pairs: Vec<_> = own.iter().map(|mfn| (Pfn(mfn * 2), Mfn(*mfn))).collect();
    check(8, || {
        let dump = Arc::new(Dump::open(&file.0).unwrap());
        let format = Format::by_name("x86_64").unwrap();
        let p2m = Arc::new(P2m::container(dump.clone(), &pairs, Word::W64));
        let none: Option<&FrameTable<Virtual<Arc<Dump>>>> = None;
        let found = bare::find(&p2m, format, &[MachineAddr(0x1000)], none);
        assert_eq!(found.tables.len(), own.len());
        assert_eq!(found.unreadable, 4096);
        let memory = Bare::new(Tables::Guest(p2m.clone()), format, &found, &[]);
        assert_eq!(memory.read_u64(MachineAddr(0x2000)), Ok(0x4007));
        assert_eq!(p2m::held(&p2m).unwrap().len(), 9);
    });
}

#[test]
fn lists() {
    let _turn = turn();
    // Each node is 16 bytes after the one before; the last one links to the head.
    let nodes = 20_000_u64;
    let links = words((0..nodes).flat_map(|i| [(i + 1) % nodes * 16, 0]));
    let bytes = vmcore(&[(0, &links)]);
    let file = Temporary::new("lists", &bytes);
    check(4, || {
        let dump = Arc::new(Dump::open(&file.0).unwrap());
        let space = Space::Machine(dump);
        let found = space.lists(&[0], Links::Circular, Word::W64, usize::MAX);
        assert_eq!(found[0].nodes.len() as u64, nodes - 1);
    });
}

#[test]
fn sections_of_images() {
    let _turn = turn();
    // Many sections, all of which are loaded.
    let count = 20_000_u64;
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    for half in [2_u16, 62, 1, 0] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(words([0, 0, 64]));
    for half in [0_u16, 0, 64, 56, 0, 64, count as u16, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for i in 0..count {
        // sh_name and sh_type PROGBITS, SHF_ALLOC, address, offset, size.
        bytes.extend(words([1 << 32, 2, i * (8 << 20), 64, 64, 0, 0, 0]));
    }
    let file = Temporary::new("image", &bytes);
    check(4, || {
        let image = xenkdump::elf::Image::open(&file.0).unwrap();
        assert!(image.spans(0).len() > 1000);
        let _ = Image::File(image.into()).sections();
    });
}
