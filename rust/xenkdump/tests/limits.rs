//! Files with excessive sizes and counts. They are sparse and need no disk space.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use xenkdump::addr::MachineAddr;
use xenkdump::dump::Dump;
use xenkdump::image::Image;
use xenkdump::memory::Memory;
use xenkdump::notes::Decoded;
use xenkdump::symbols::Symbols;

/// The CPU time limit of a test, in nanoseconds. All tests but one take 0.1 s.
const MAX_CPU_TIME: u64 = 10_000_000_000;
/// The memory limit of all tests in kB, without mapped files.
const MAX_MEMORY: u64 = 1 << 20;

/// A sparse file, removed on drop.
struct Sparse {
    path: PathBuf,
    file: File,
    started: u64,
}

impl Sparse {
    fn new(name: &str, len: u64) -> Self {
        let path = std::env::temp_dir().join(format!("xenkdump-{}-{name}", std::process::id()));
        let file = File::create(&path).unwrap();
        file.set_len(len).unwrap();
        Self {
            path,
            file,
            started: cpu_time(),
        }
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).unwrap();
    }

    /// An ELF64 header for x86_64.
    fn header(&self, kind: u16, program_headers: u16, sections: (u64, u16, u16)) {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(16, 0);
        for half in [kind, 62, 1, 0] {
            header.extend(half.to_le_bytes());
        }
        header.extend(words(&[0, 64, sections.0]));
        let (count, names) = (sections.1, sections.2);
        for half in [0, 0, 64, 56, program_headers, 64, count, names] {
            header.extend(half.to_le_bytes());
        }
        self.put(0, &header);
    }

    fn program_header(&self, i: u64, kind: u64, rest: [u64; 6]) {
        self.put(64 + 56 * i, &words(&[kind]));
        self.put(72 + 56 * i, &words(&rest));
    }

    /// A section header at the given offset: name and type, then flags to entsize.
    fn section(&self, at: u64, name: u32, kind: u32, rest: [u64; 7]) {
        self.put(at, &words(&[u64::from(name) | u64::from(kind) << 32]));
        self.put(at + 8, &words(&rest));
    }

    fn dump(&self) -> Dump {
        Dump::open(&self.path).unwrap()
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if std::thread::panicking() {
            return;
        }
        assert!(cpu_time() - self.started < MAX_CPU_TIME);
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let anonymous = status.lines().find(|line| line.starts_with("RssAnon"));
        let held = anonymous.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        assert!(held.unwrap() < MAX_MEMORY, "{held:?} kB");
    }
}

/// The CPU time of this thread in nanoseconds.
fn cpu_time() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn warned(dump: &Dump, text: &str) {
    let warnings = dump.warnings();
    assert!(
        warnings.iter().any(|warning| warning.contains(text)),
        "{warnings:?}"
    );
}

#[test]
fn dump_of_the_maximum_memory() {
    let file = Sparse::new("memory", 8192);
    file.header(4, 3, (0, 0, 0));
    // Offset, virtual and physical address, size in the file and in memory, alignment.
    file.program_header(0, 1, [4096, 0, 0, u64::MAX, u64::MAX, 0]);
    file.program_header(1, 1, [u64::MAX - 4095, 0, 1 << 63, 4096, u64::MAX, 0]);
    file.program_header(2, 4, [u64::MAX, 0, 0, u64::MAX, 0, 0]);
    file.put(4096, &[7; 4096]);
    let dump = file.dump();
    warned(&dump, "the file is cut");
    warned(&dump, "PT_NOTE");
    let mut buf = [0; 16];
    assert!(dump.read(MachineAddr(0), &mut buf).is_ok());
    assert_eq!(buf, [7; 16]);
    for at in [4090, 4096, 1 << 40, 1 << 63, u64::MAX - 4096, u64::MAX] {
        assert!(dump.read(MachineAddr(at), &mut buf).is_err(), "{at:#x}");
    }
    assert!(dump.runs(MachineAddr(0)).count() < 4);
}

/// ELF counts more than 65534 program headers in section header 0.
#[test]
fn four_billion_segments() {
    const SECTION: u64 = 1 << 20;
    let file = Sparse::new("segments", 64 + 56 * (1 << 32));
    file.header(4, 0xffff, (SECTION, 1, 0));
    file.put(SECTION + 44, &u32::MAX.to_le_bytes());
    file.program_header(0, 1, [2 << 20, 0, 0x1000, 4096, 4096, 0]);
    // The last segment that is read, and the first that is not.
    file.program_header((1 << 20) - 1, 1, [2 << 20, 0, 0x9000, 4096, 4096, 0]);
    file.program_header(1 << 20, 1, [2 << 20, 0, 0xb000, 4096, 4096, 0]);
    let dump = file.dump();
    warned(
        &dump,
        "of 4294967295 program headers the first 1048576 are read",
    );
    let mut buf = [1; 16];
    assert!(dump.read(MachineAddr(0x1000), &mut buf).is_ok());
    assert!(dump.read(MachineAddr(0x9000), &mut buf).is_ok());
    assert!(dump.read(MachineAddr(0xb000), &mut buf).is_err());
    drop(dump);
    // The same count in a file that ends after them.
    file.file.set_len(SECTION + 64).unwrap();
    warned(&file.dump(), "4294967295 program headers");
    // The same count in a file without a section header.
    file.file.set_len(SECTION).unwrap();
    let error = Dump::open(&file.path).unwrap_err().to_string();
    assert!(error.contains("PN_XNUM"), "{error}");
}

/// The maximum number of segments, all at the same address.
#[test]
fn a_million_overlapping_segments() {
    let file = Sparse::new("overlapping", 64 + 56 * (1 << 20) + 4096);
    file.header(4, 0xffff, (64, 1, 0));
    file.put(64 + 44, &(1u32 << 20).to_le_bytes());
    let mut headers = Vec::new();
    for i in 1..1u64 << 20 {
        let (start, size) = ((i % 1000) << 12, i << 8);
        headers.extend(words(&[1, 4096, 0, start, size, size, 0]));
    }
    file.put(64 + 56, &headers);
    let dump = file.dump();
    let mut buf = [0; 16];
    for at in (0..1u64 << 22).step_by(4000) {
        let _ = dump.read(MachineAddr(at), &mut buf);
    }
    assert!(dump.runs(MachineAddr(0)).count() > 0);
}

#[test]
fn gigabytes_of_notes() {
    let notes: u64 = 64 + 56;
    let file = Sparse::new("notes", notes + (64 << 30));
    file.header(4, 1, (0, 0, 0));
    file.program_header(0, 4, [notes, 0, 0, 64 << 30, 0, 0]);
    // A name and a descriptor of nearly 4 GiB each, all holes, then another note.
    let note = |name: u32, desc: u32| [name, desc, 1].map(u32::to_le_bytes).concat();
    file.put(notes, &note(u32::MAX - 3, 16));
    file.put(notes + (4 << 30) + 24, &note(5, u32::MAX - 3));
    let dump = file.dump();
    warned(&dump, "too many notes");
    assert_eq!(dump.notes().len(), 1);
    assert_eq!(dump.notes()[0].name_size, u32::MAX - 3);
    assert!(dump.notes()[0].name.len() <= 256);
    drop(dump);

    // Unlimited short notes.
    file.put(notes, &note(0, 4).repeat(1 << 20));
    let dump = file.dump();
    warned(&dump, "too many notes");
    assert!(dump.notes().len() <= 1 << 17);

    // One descriptor of 200 MiB is within the limit.
    file.put(notes, &note(0, 200 << 20));
    let dump = file.dump();
    assert_eq!(dump.desc(&dump.notes()[0]).len(), 200 << 20);
}

#[test]
fn notes_after_device_dumps_are_read() {
    let notes: u64 = 64 + 56 * 2;
    let file = Sparse::new("device-dumps", notes + (8 << 30));
    file.header(4, 1, (0, 0, 0));
    file.program_header(0, 4, [notes, 0, 0, 8 << 30, 0, 0]);
    let note = |name: &[u8; 8], desc: u32, kind: u32| {
        let mut bytes = [6, desc, kind].map(u32::to_le_bytes).concat();
        bytes.extend(name);
        bytes
    };
    let mut at = notes;
    for name in [b"eth0", b"gpu0"] {
        file.put(at, &note(b"LINUX\0\0\0", 3 << 30, 0x700));
        file.put(at + 20, name);
        at += 20 + (3 << 30);
    }
    file.put(at, &note(b"CORE\0\0\0\0", 336, 1));
    let dump = file.dump();
    assert_eq!(dump.warnings(), [] as [&str; 0]);
    let [first, second, third] = dump.notes() else {
        panic!("{:?}", dump.notes());
    };
    assert_eq!(dump.decode(first), Decoded::DeviceDump(b"eth0".to_vec()));
    assert_eq!(dump.decode(second), Decoded::DeviceDump(b"gpu0".to_vec()));
    assert!(matches!(dump.decode(third), Decoded::PrStatus(_)));
    drop(dump);

    // Another segment with the same bytes: total note size is limited by the file size.
    file.header(4, 2, (0, 0, 0));
    file.program_header(1, 4, [notes, 0, 0, 7 << 30, 0, 0]);
    let dump = file.dump();
    warned(&dump, "too many notes");
    assert_eq!(dump.notes().len(), 3);
}

#[test]
fn a_symbol_name_of_100_gb() {
    const SIZE: u64 = 100 << 30;
    const STRINGS: u64 = 8 << 20;
    let file = Sparse::new("name", STRINGS + SIZE);
    let names = b"\0.text\0.symtab\0.strtab\0";
    file.put(4096, names);
    file.header(2, 0, (64, 5, 4));
    let text = 0xffff_ffff_8100_0000;
    file.section(64 + 64, 1, 1, [6, text, 8192, 4096, 0, 16, 0]);
    file.section(64 + 128, 7, 2, [0, 0, 0x1000 + 512, 48, 3, 8, 24]);
    file.section(64 + 256, 15, 3, [0, 0, 4096, names.len() as u64, 0, 1, 0]);
    let mut symbol = 1u32.to_le_bytes().to_vec();
    symbol.extend([0x12, 0, 1, 0]);
    symbol.extend(words(&[text, 16]));
    file.put(0x1000 + 512 + 24, &symbol);
    file.put(STRINGS + 1, &vec![b'a'; 4 << 20]);
    for (size, found) in [(SIZE, false), (u64::MAX, false), (16 << 20, true)] {
        file.section(64 + 192, 15, 3, [0, 0, STRINGS, size, 0, 1, 0]);
        let image = Image::open(&file.path).unwrap();
        let Ok(symbols) = Symbols::of_image(&image) else {
            assert!(!found, "{size:#x}");
            continue;
        };
        let symbol = symbols.lookup(xenkdump::addr::VirtAddr(text));
        assert_eq!(symbol.is_some(), found, "{size:#x}");
        // Messages quote only a short part of a long name.
        assert!(symbol.is_none_or(|symbol| symbol.name.len() <= 1024));
    }
}
