//! Targets for page tables, P2Ms and type information.

use std::sync::Arc;

use xenkdump::addr::{MachineAddr, Mfn, Pfn, VirtAddr, Word};
use xenkdump::elf::Bytes;
use xenkdump::memory::{Fault, Memory};
use xenkdump::p2m::{self, Entry, P2m, Source};
use xenkdump::paging::{Format, NestedFormat, Translator, Virtual};
use xenkdump::space::bare::{self, Altered, Bare, FrameTable};
use xenkdump::space::{Batch, Space, Tables};
use xenkdump::status::{Status, NONE};
use xenkdump::types::Types;

use super::{Input, Ram};

const FORMATS: [&str; 4] = ["x86", "x86-pae", "x86_64", "x86_64-la57"];

fn format(byte: u8) -> &'static Format {
    Format::by_name(FORMATS[usize::from(byte) % FORMATS.len()]).unwrap()
}

/// Walks addresses one by one and in a batch, and lists the mappings.
pub fn walk(bytes: &[u8]) {
    let mut input = Input(bytes);
    let format = format(input.byte());
    let root = MachineAddr(input.number());
    let mut addrs: Vec<_> = (0..8).map(|_| VirtAddr(input.number())).collect();
    addrs.extend([
        VirtAddr(0),
        VirtAddr(u64::MAX),
        VirtAddr(0xffff_8000_0000_0000),
    ]);
    let first = addrs[0].0;
    addrs.extend((0..64).map(|i| VirtAddr(first.wrapping_add(i << 12))));
    let ram = Ram::new(0, input.0);
    let space = Virtual::new(&ram, format, root);

    let mut alone = Vec::new();
    for addr in &addrs {
        let before = ram.reads();
        alone.push(space.translate(*addr));
        assert!(
            ram.reads() - before <= 5,
            "a walk reads one entry per level"
        );
    }
    let mut machine = vec![MachineAddr(0); addrs.len()];
    let mut status = vec![Status::Ok; addrs.len()];
    Translator::new(&space, 1000).translate(&addrs, &mut machine, &mut status);
    for ((alone, machine), status) in alone.iter().zip(machine).zip(status) {
        match alone {
            Ok(found) => assert_eq!((machine, status), (*found, Status::Ok)),
            Err(fault) => {
                assert_eq!(machine, MachineAddr(NONE));
                assert_eq!(status, Status::from(*fault));
            }
        }
    }

    let before = ram.reads();
    let items = space
        .mapped(VirtAddr(0), VirtAddr(u64::MAX))
        .take(500)
        .count() as u64;
    let bound = (items + 2) * (5 * ram.pages() + 10) * 2;
    let reads = ram.reads() - before;
    assert!(
        reads <= bound,
        "{reads} reads for {items} items in {} pages",
        ram.pages()
    );
}

/// Opens a P2M of any source and queries it.
pub fn p2m(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (kind, choice) = (input.byte(), input.byte());
    let word = if choice & 1 == 0 {
        Word::W64
    } else {
        Word::W32
    };
    let format = format(choice >> 1);
    let (root, at) = (MachineAddr(input.number()), VirtAddr(input.number()));
    // Mostly few pages, because reverse lookups list all of them.
    let pages = input.number();
    let pages = (pages % (1 << 21)) >> (pages >> 60);
    let mut pfns: Vec<_> = (0..6).map(|_| Pfn(input.number())).collect();
    pfns.extend((0..100).map(|i| Pfn(i * 17)));
    pfns.extend((0..100).map(|i| Pfn(pages.wrapping_sub(1).wrapping_sub(i))));
    let ram = Ram::new(0, input.0);
    let space = Virtual::new(&ram, format, root);
    let p2m = match kind % 5 {
        0 => P2m::frame_list(&ram, Mfn(root.0), word, (choice & 8 == 0).then_some(pages)),
        1 => P2m::linear(space, at, word, pages, Source::Linear),
        2 => P2m::pvops_tree(space, at, 2, word, pages),
        3 => P2m::pvops_tree(space, at, 3, word, pages),
        _ => {
            let mut pairs: Vec<_> = input
                .0
                .chunks_exact(16)
                .map(|pair| {
                    (
                        Pfn(Word::W64.get(pair).unwrap() >> 40),
                        Mfn(Word::W64.get(&pair[8..]).unwrap()),
                    )
                })
                .collect();
            pairs.sort_unstable();
            pairs.dedup_by_key(|(pfn, _)| *pfn);
            Ok(P2m::container(&ram, &pairs, word))
        }
    };
    let Ok(p2m) = p2m else { return };
    let opening = ram.reads();
    assert!(
        opening <= 4096 + 8 * (ram.pages() + 2),
        "{opening} reads to open"
    );

    let alone: Vec<_> = pfns.iter().map(|pfn| p2m.resolve(*pfn)).collect();
    let walked = ram.reads() - opening;
    // At most one walk for a directory entry at each level.
    assert!(
        walked <= pfns.len() as u64 * 24,
        "{walked} reads for {} pfns",
        pfns.len()
    );
    // Twice: the second run uses cached parts.
    for _ in 0..2 {
        let mut mfns = vec![Mfn(0); pfns.len()];
        let mut status = vec![Status::Ok; pfns.len()];
        p2m.resolve_many(&pfns, &mut mfns, &mut status);
        for (i, alone) in alone.iter().enumerate() {
            match alone {
                Entry::Frame(mfn) => {
                    assert_eq!((mfns[i], status[i]), (*mfn, Status::Ok));
                    assert!(mfn.addr().is_some(), "{mfn:?} is not a frame");
                }
                Entry::Special(special) => {
                    assert_eq!((mfns[i], status[i]), (Mfn(NONE), Status::from(*special)));
                }
            }
        }
    }
    let _ = p2m.compare(&p2m, 10);
    for entry in alone.iter().take(20) {
        if let Entry::Frame(mfn) = entry {
            let found = p2m.reverse(*mfn);
            assert_eq!(found.map(|pfn| p2m.resolve(pfn)), Some(*entry));
        }
    }
    let _: Result<[u8; 1], _> = Memory::<MachineAddr>::read_bytes(&ram, MachineAddr(0));
}

/// Opens Xen's page tables of a translated guest, and walks the guest's page tables in its memory.
pub fn nested(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (choice, paging) = (input.byte(), format(input.byte()));
    let layout = NestedFormat::ALL[usize::from(choice) % 4];
    let (root, cr3) = (Mfn(input.number()), MachineAddr(input.number()));
    let mut pfns: Vec<_> = (0..6).map(|_| Pfn(input.number())).collect();
    pfns.extend((0..100).map(|i| Pfn(i * 17)));
    let ram = Ram::new(0, input.0);
    let held = Held(&ram);
    let Ok(p2m) = P2m::nested(held, root, layout) else {
        return;
    };
    let pages = ram.pages() + 2;
    // Each level of a table is read once. Absent ones are remembered only up to the number of pages: others
    // take a read for each entry of the tables.
    let is_bounded =
        |reads: u64, missed: u64| reads - missed <= 5 * pages && missed <= 5 * 512 * pages;
    let (opening, missed) = (ram.reads(), ram.missed());
    assert!(
        is_bounded(opening, missed),
        "{opening} reads to open, {missed} of them of absent tables"
    );

    let alone: Vec<_> = pfns.iter().map(|pfn| p2m.resolve(*pfn)).collect();
    let walked = ram.reads() - opening;
    assert!(walked <= pfns.len() as u64 * 6, "{walked} reads");
    for _ in 0..2 {
        let mut mfns = vec![Mfn(0); pfns.len()];
        let mut status = vec![Status::Ok; pfns.len()];
        p2m.resolve_many(&pfns, &mut mfns, &mut status);
        for (i, alone) in alone.iter().enumerate() {
            let expected = match alone {
                Entry::Frame(mfn) => (*mfn, Status::Ok),
                Entry::Special(special) => (Mfn(NONE), Status::from(*special)),
            };
            assert_eq!((mfns[i], status[i]), expected);
        }
    }
    for pfn in &pfns {
        let mut steps = 0;
        let _ = p2m.walk_nested(*pfn, |_| steps += 1);
        assert!(steps <= 5);
    }
    let (before, missed) = (ram.reads(), ram.missed());
    assert!(p2m.tables(10_000).len() as u64 <= pages);
    assert!(is_bounded(ram.reads() - before, ram.missed() - missed));
    // Only in small P2Ms: a table that is its own child takes seconds.
    if p2m.len() <= 1 << 21 {
        let _ = p2m.spans();
        let _ = p2m.compare(&p2m, 10);
        for entry in alone.iter().take(20) {
            if let Entry::Frame(mfn) = entry {
                if let Some(pfn) = p2m.reverse(*mfn) {
                    assert_eq!(p2m.resolve(pfn), *entry);
                }
            }
        }
    }

    let p2m = Arc::new(p2m);
    let space = Space::Virtual(Virtual::new(Tables::Guest(p2m), paging, cr3));
    let addrs: Vec<_> = pfns.iter().map(|pfn| pfn.0.wrapping_mul(0x1234)).collect();
    let mut machine = vec![MachineAddr(0); addrs.len()];
    let mut status = vec![Status::Ok; addrs.len()];
    Batch::new(&space, 1000).translate(&addrs, &mut machine, &mut status);
    for ((addr, machine), status) in addrs.iter().zip(machine).zip(status) {
        match space.translate(*addr) {
            Ok(found) => assert_eq!((machine, status), (found, Status::Ok)),
            Err(fault) => assert_eq!((machine, status), (MachineAddr(NONE), fault.into())),
        }
    }
    let _ = space.find(b"abc", 0, u64::MAX, 4, 1 << 16);
    let Space::Virtual(space) = &space else {
        unreachable!()
    };
    let (mut next, mut at) = (0, Some(MachineAddr(0)));
    while let Some((start, last)) = at.and_then(|at| space.memory().next_held(at)) {
        assert!(start <= last);
        at = last.0.checked_add(1).map(MachineAddr);
        next += 1;
        if next == 20 {
            break;
        }
    }
}

/// Shows a PV domain as a bare machine: its page tables and its P2M are any bytes, and so is the frame
/// table. Memory is the same however it is read.
pub fn bare(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (choice, format) = (input.byte(), format(input.byte()));
    let roots: Vec<_> = (0..3).map(|_| MachineAddr(input.number())).collect();
    let (base, size) = (VirtAddr(input.number()), input.number());
    let type_info = input.number();
    let at = MachineAddr(input.number());
    let mut pairs: Vec<_> = (0..16)
        .map(|_| {
            let pair = input.number();
            (Pfn(pair >> 32), Mfn(pair & 0xffff_ffff))
        })
        .collect();
    pairs.sort_unstable();
    pairs.dedup_by_key(|(pfn, _)| *pfn);
    let ram = Ram::new(0, input.0);
    let held = Held(&ram);
    let p2m = Arc::new(P2m::container(held, &pairs, Word::W64));
    let table = FrameTable {
        memory: Virtual::new(held, format, roots[0]),
        base,
        frames: if choice & 1 == 0 { 1 << 20 } else { u64::MAX },
        size: if choice & 2 == 0 { size % 64 } else { size },
        type_info: if choice & 4 == 0 {
            type_info % 64
        } else {
            type_info
        },
        word: [Word::W64, Word::W32][usize::from(choice >> 3 & 1)],
    };
    let before = ram.reads();
    let found = bare::find(&p2m, format, &roots, Some(&table));
    // A table that is only partly there is read entry by entry. A page has at most 128 of them.
    let bound = 1025 * 128 * (pairs.len() as u64 + 3);
    assert!(ram.reads() - before <= bound);
    assert!(found.tables.len() <= pairs.len());
    assert!(found.tables.is_sorted_by_key(|(pfn, _)| *pfn));
    let altered = [Altered {
        at: MachineAddr(at.0 & !7),
        value: 0x1122_3344_5566_7788,
        size: 8,
    }];
    let made = |tables| Bare::new(Tables::Guest(p2m.clone()), format, tables, &altered);
    let memory = made(&found);

    for (pfn, _) in pairs.iter().take(8) {
        let Some(start) = pfn.addr() else { continue };
        let mut whole = [0; 4096];
        let fresh = made(&found);
        if memory.read(MachineAddr(start.0), &mut whole).is_err() {
            continue;
        }
        let (mut done, mut parts) = (0, [0; 4096]);
        while done < 4096 {
            let len = (done * 7 % 61 + 1).min(4096 - done);
            let at = MachineAddr(start.0 + done as u64);
            fresh.read(at, &mut parts[done..done + len]).unwrap();
            done += len;
        }
        assert!(parts == whole, "a page read in parts");
        let borrowed = memory.borrow(MachineAddr(start.0 + 100));
        assert!(borrowed.is_empty() || borrowed == &whole[100..]);
        let entries = found.tables.iter().find(|(known, _)| known == pfn);
        if entries.is_some() && format.entry == Word::W64 && found.parts.is_empty() {
            for entry in whole.chunks_exact(8).filter_map(|raw| Word::W64.get(raw)) {
                let pfn = Pfn((entry & 0x000f_ffff_ffff_f000) >> 12);
                let is_own = pairs.iter().any(|(own, _)| *own == pfn);
                let is_altered = entry == altered[0].value;
                assert!(
                    entry & 1 == 0 || is_own || is_altered,
                    "{entry:#x} is foreign"
                );
            }
        }
    }

    let space = Space::Virtual(Virtual::new(Tables::Machine(&memory), format, roots[1]));
    let addrs: Vec<_> = (0..64).map(|i| base.0.wrapping_add(i << 12)).collect();
    let mut machine = vec![MachineAddr(0); addrs.len()];
    let mut status = vec![Status::Ok; addrs.len()];
    Batch::new(&space, 1000).translate(&addrs, &mut machine, &mut status);
    for ((addr, machine), status) in addrs.iter().zip(machine).zip(status) {
        match space.translate(*addr) {
            Ok(found) => assert_eq!((machine, status), (found, Status::Ok)),
            Err(fault) => assert_eq!((machine, status), (MachineAddr(NONE), fault.into())),
        }
    }
    for (first, count) in p2m::held(&p2m).unwrap() {
        assert!(count > 0);
        let last = Pfn(first.0 + count - 1).addr().unwrap();
        memory.read(MachineAddr(last.0), &mut [0; 4096]).unwrap();
    }
}

/// Memory that has no more pages than bytes.
#[derive(Clone, Copy)]
struct Held<'a>(&'a Ram<'a>);

impl Memory<MachineAddr> for Held<'_> {
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        self.0.read(addr, buf)
    }

    fn borrow(&self, addr: MachineAddr) -> &[u8] {
        self.0.borrow(addr)
    }

    fn next_held(&self, addr: MachineAddr) -> Option<(MachineAddr, MachineAddr)> {
        self.0.next_held(addr)
    }

    fn pages_held(&self) -> u64 {
        self.0.pages()
    }
}

/// Queries everything in BTF.
pub fn btf(bytes: &[u8]) {
    for word in [Word::W64, Word::W32] {
        if let Ok(types) = Types::from_btf(Bytes::from(bytes.to_vec()), word) {
            query(&types);
        }
    }
}

/// Queries everything in the BTF of a module, which continues `base`.
pub fn split_btf(base: &Types, bytes: &[u8]) {
    if let Ok(types) = base.split(Bytes::from(bytes.to_vec())) {
        query(&types);
    }
}

pub fn query(types: &Types) {
    for name in [
        "task_struct",
        "struct a",
        "b",
        "union c",
        "enum d",
        "e",
        "list_head",
        "long",
        "",
    ] {
        let _ = types.contains(name);
        let _ = types.size_of(name);
        let _ = types.members(name);
        let _ = types.enumerators(name);
        let _ = types.enumerator(name);
    }
    for path in [
        "task_struct.se.exec_start",
        "a.x",
        "b.y[3].z",
        "c.d.e.f.g",
        "task_struct.tasks.next",
        "a.x[18446744073709551615]",
        ".",
        "a..b",
        "a[]",
    ] {
        let _ = types.member(path);
        let _ = types.offset(path);
    }
}
