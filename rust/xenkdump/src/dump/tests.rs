//! `xl dump-core` files, on small synthetic ones.

use super::container::HeldMemory;
use super::*;
use crate::limits::MAX_DUMP_CORE_NAME;
use crate::Error;
use std::path::PathBuf;

/// A file of two pages of domain memory, as xl lays it out.
struct Synthetic {
    context: Vec<u8>,
    index: Vec<u64>,
    index_name: &'static str,
    entry_size: u64,
}

impl Synthetic {
    fn pv() -> Self {
        let mut context = vec![0; CONTEXT_SIZE_64 as usize];
        context[648..656].copy_from_slice(&0xffff_ffff_8100_1234u64.to_le_bytes());
        context[656..658].copy_from_slice(&0xe033u16.to_le_bytes());
        context[5008..5016].copy_from_slice(&0x1234_5000u64.to_le_bytes());
        Self {
            context,
            index: vec![0, 0x77, 1, 0x55],
            index_name: ".xen_p2m",
            entry_size: 16,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.with_pages(2)
    }

    fn with_pages(&self, count: usize) -> Vec<u8> {
        let mut names = vec![0];
        let mut sections = Vec::new();
        let mut body = vec![0u8; 64 + 64 * 7];
        let index: Vec<u8> = self.index.iter().flat_map(|v| v.to_le_bytes()).collect();
        let pages: Vec<u8> = (0..count)
            .flat_map(|i| vec![if i == 0 { 0xaa } else { 0xbb }; PAGE_SIZE])
            .collect();
        let note = [4u32, 0, 0x200_0000, 0x006e_6558];
        let note = note
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>();
        let contents: [(&str, u32, &[u8], u64, u64); 5] = [
            (".note.Xen", 7, &note, 0, 0),
            (
                ".xen_prstatus",
                1,
                &self.context,
                self.context.len() as u64,
                8,
            ),
            (".xen_shared_info", 1, &[0xcc; PAGE_SIZE], 4096, 8),
            (".xen_pages", 1, &pages, 4096, 4096),
            (self.index_name, 1, &index, self.entry_size, 8),
        ];
        for (name, kind, bytes, entry, align) in contents {
            sections.push((names.len(), kind, body.len(), bytes.len(), entry, align));
            names.extend(name.as_bytes());
            names.push(0);
            body.extend(bytes);
        }
        sections.push((0, 3, body.len(), names.len(), 0, 0));
        body.extend(names);

        body[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        for (at, value) in [
            (16, 4u16),
            (18, 62),
            (52, 64),
            (54, 56),
            (58, 64),
            (60, 7),
            (62, 6),
        ] {
            body[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        body[40] = 64;
        for (i, (name, kind, offset, size, entry, align)) in sections.into_iter().enumerate() {
            let at = 64 + 64 * (i + 1);
            body[at..at + 4].copy_from_slice(&(name as u32).to_le_bytes());
            body[at + 4..at + 8].copy_from_slice(&kind.to_le_bytes());
            for (field, value) in [
                (24, offset as u64),
                (32, size as u64),
                (48, align),
                (56, entry),
            ] {
                body[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        body
    }

    fn open(bytes: &[u8], name: &str) -> Result<Dump> {
        let path: PathBuf =
            std::env::temp_dir().join(format!("xenkdump-dumpcore-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("the temporary folder is writable");
        let dump = Dump::open(&path);
        let _ = std::fs::remove_file(&path);
        dump
    }
}

#[test]
fn a_pv_domain_is_read_by_machine_frame() {
    let dump = Synthetic::open(&Synthetic::pv().bytes(), "pv").expect("it is sound");
    assert_eq!(dump.format(), "xl dump-core");
    assert_eq!(dump.warnings(), &[] as &[String]);
    let mut byte = [0];
    assert_eq!(dump.read(MachineAddr(0x77fff), &mut byte), Ok(()));
    assert_eq!(byte, [0xaa]);
    assert_eq!(dump.read(MachineAddr(0x55000), &mut byte), Ok(()));
    assert_eq!(byte, [0xbb]);
    assert_eq!(
        dump.read(MachineAddr(0x56000), &mut byte),
        Err(Fault::NoSegment(MachineAddr(0x56000)))
    );
    assert_eq!(
        dump.container_p2m(),
        Some(&[(Pfn(0), Mfn(0x77)), (Pfn(1), Mfn(0x55))][..])
    );
    assert!(!dump.auto_translated());
    assert_eq!(dump.shared_info().map(<[u8]>::len), Some(PAGE_SIZE));
    assert_eq!(dump.memory_held(), 2 * PAGE_SIZE as u64);
    let runs: Vec<_> = dump.runs(MachineAddr(0x55800)).collect();
    let run = |start, last| Run {
        start: MachineAddr(start),
        last: MachineAddr(last),
    };
    assert_eq!(runs, [run(0x55800, 0x55fff), run(0x77000, 0x77fff)]);
    let contexts = dump.vcpu_contexts();
    assert_eq!(contexts.len(), 1);
    assert_eq!(
        contexts[0].registers.get("rip"),
        Some(0xffff_ffff_8100_1234)
    );
    assert_eq!(contexts[0].registers.get("cs"), Some(0xe033));
    assert_eq!(contexts[0].root, MachineAddr(0x1234_5000));
}

/// Neither section is truncated, but one has fewer pages than the other.
#[test]
fn pages_and_their_index_are_compared() {
    let mut gone = Synthetic::pv();
    gone.index.extend([u64::MAX, u64::MAX]);
    for (synthetic, pages, warning) in [
        (Synthetic::pv(), 2, None),
        (gone, 3, None),
        (
            Synthetic::pv(),
            1,
            Some(".xen_pages has 1 pages, its index 2 entries: the last entries have no page"),
        ),
        (
            Synthetic::pv(),
            3,
            Some(
                ".xen_pages has 3 pages, its index 2 entries: which pages the last ones are is not \
                 known",
            ),
        ),
    ] {
        let dump = Synthetic::open(&synthetic.with_pages(pages), "short").expect("it is sound");
        let warnings = dump.warnings();
        let warnings: Vec<_> = warnings.iter().map(String::as_str).collect();
        assert_eq!(warnings, Vec::from_iter(warning));
        let held = dump.read(MachineAddr(0x55000), &mut [0]);
        assert_eq!(held.is_ok(), pages > 1);
    }
}

#[test]
fn a_32_bit_context_has_a_folded_cr3() {
    let mut context = vec![0; CONTEXT_SIZE_32 as usize];
    context[548..552].copy_from_slice(&0xc010_1234u32.to_le_bytes());
    context[2728..2732].copy_from_slice(&0x2345_6001u32.to_le_bytes());
    let synthetic = Synthetic {
        context,
        ..Synthetic::pv()
    };
    let dump = Synthetic::open(&synthetic.bytes(), "pv32").expect("it is sound");
    let contexts = dump.vcpu_contexts();
    assert_eq!(contexts[0].word, Word::W32);
    assert_eq!(contexts[0].registers.get("eip"), Some(0xc010_1234));
    assert_eq!(contexts[0].cr[3], 0x2345_6001);
    assert_eq!(contexts[0].root, MachineAddr(0x1_2345_6000));
}

#[test]
fn a_translated_domain_is_its_own_machine() {
    let synthetic = Synthetic {
        index: vec![8, 3],
        index_name: ".xen_pfn",
        entry_size: 8,
        ..Synthetic::pv()
    };
    let dump = Synthetic::open(&synthetic.bytes(), "hvm").expect("it is sound");
    assert!(dump.auto_translated());
    assert_eq!(dump.container_p2m(), Some(&[][..]));
    let mut byte = [0];
    assert_eq!(dump.read(MachineAddr(0x3fff), &mut byte), Ok(()));
    assert_eq!(byte, [0xbb]);
}

#[test]
fn a_cut_file_gives_what_it_still_has() {
    let bytes = Synthetic::pv().bytes();
    for len in 0..bytes.len() {
        let Ok(dump) = Synthetic::open(&bytes[..len], "cut") else {
            continue;
        };
        if dump.format() != "xl dump-core" {
            // Too short to detect the format.
            assert!(len < 64 + 64 * 7);
            continue;
        }
        let found = dump.vcpu_contexts().len();
        assert!(found == 1 || len < 512 + 16 + CONTEXT_SIZE_64 as usize);
        assert!(!dump.warnings().is_empty(), "cut to {len}");
        let _ = dump.read(MachineAddr(0x77000), &mut [0; 8]);
    }
}

#[test]
fn any_byte_of_the_headers_may_be_wrong() {
    let bytes = Synthetic::pv().bytes();
    for at in 0..512 + 16 {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut broken = bytes.clone();
            broken[at] = value;
            match Synthetic::open(&broken, "mutated") {
                Ok(dump) => {
                    dump.vcpu_contexts();
                    dump.container_p2m();
                    let _ = dump.read(MachineAddr(0x55ff8), &mut [0; 16]);
                }
                Err(error) => assert!(matches!(error, Error::Format { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn files_of_other_formats_are_named() {
    for (bytes, found) in [
        (&b"QEVM\0\0\0\x03"[..], "51 45 56 4d"),
        (b"", "an empty file"),
    ] {
        let error = Synthetic::open(bytes, "other").unwrap_err().to_string();
        assert!(error.contains("ELF vmcore"), "{error}");
        assert!(error.ends_with(found), "{error}");
    }
}

/// Names without an end, that each of the sections may lead to.
#[test]
fn names_of_sections_are_cut() {
    assert_eq!(xl_core::name_in(b".xen_p2m\0.xen_pages"), b".xen_p2m");
    assert_eq!(xl_core::name_in(b".xen_p2m"), b".xen_p2m");
    assert_eq!(xl_core::name_in(&[b'a'; 1 << 16]).len(), MAX_DUMP_CORE_NAME);
}

/// A container without memory that counts what it is asked for.
#[derive(Debug, Default)]
struct Counting {
    headers: Option<container::Headers>,
    asked: std::sync::Arc<[std::sync::atomic::AtomicUsize; 2]>,
}

impl Container for Counting {
    fn headers(&self) -> &container::Headers {
        self.asked[0].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.headers.as_ref().unwrap()
    }

    fn descriptor(&self, _note: &Note, _size: u64) -> Option<Vec<u8>> {
        None
    }

    fn file_size(&self) -> u64 {
        0
    }

    fn memory_held(&self) -> u64 {
        0
    }

    fn memory_size(&self) -> u64 {
        0
    }
}

impl HeldMemory for Counting {
    fn next_run(&self, _addr: MachineAddr) -> Option<Run> {
        None
    }

    fn read(&self, addr: MachineAddr, _buf: &mut [u8]) -> std::result::Result<(), Fault> {
        Err(Fault::NoSegment(addr))
    }

    fn release(&self) {
        self.asked[1].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn counting() -> (Dump, std::sync::Arc<[std::sync::atomic::AtomicUsize; 2]>) {
    let container = Counting {
        headers: Some(container::Headers {
            format: "test",
            machine_type: 62,
            word: Word::W64,
            notes: Vec::new(),
            warnings: warnings::Warnings::default(),
        }),
        ..Counting::default()
    };
    let asked = container.asked.clone();
    let dump = Dump {
        path: PathBuf::new(),
        container: Box::new(container),
        format: String::new(),
        warnings: Vec::new(),
        encryption_mask: OnceLock::new(),
        unreleased: AtomicUsize::new(0),
    };
    (dump, asked)
}

#[test]
fn the_notes_are_read_for_the_encryption_mask_once() {
    let (dump, asked) = counting();
    for _ in 0..100 {
        assert_eq!(dump.encryption_mask(), 0);
    }
    assert_eq!(asked[0].load(Ordering::Relaxed), 1);
}

#[test]
fn mapped_pages_are_released_after_scattered_reads() {
    let (dump, asked) = counting();
    for _ in 0..10 * MAX_UNRELEASED_READS / 64 {
        dump.count_reads(64);
    }
    assert_eq!(asked[1].load(Ordering::Relaxed), 10);
    dump.count_reads(usize::MAX);
    assert_eq!(asked[1].load(Ordering::Relaxed), 11);
}
