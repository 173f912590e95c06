use std::sync::Arc;

use super::*;
use crate::addr::{VirtAddr, Word};
use crate::memory::Frames;
use crate::paging::{walk, Virtual, X86, X86_64, X86_PAE};

/// A domain whose pfns are its mfns and 0x100, with memory of single frames.
struct Host {
    frames: Frames,
    mfns: Vec<u64>,
}

const MOVED: u64 = 0x100;

impl Host {
    fn new(mfns: impl IntoIterator<Item = u64>) -> Self {
        let mut frames = Frames::default();
        let mfns: Vec<_> = mfns.into_iter().collect();
        for mfn in &mfns {
            frames.write(MachineAddr(mfn << 12), &[0]);
        }
        Self { frames, mfns }
    }

    fn set(&mut self, table: u64, index: u64, entry: u64) {
        self.frames.write(
            MachineAddr((table << 12) | (index * 8)),
            &entry.to_le_bytes(),
        );
    }

    fn p2m(&self) -> Arc<P2m<Frames>> {
        let pairs: Vec<_> = self
            .mfns
            .iter()
            .map(|mfn| (Pfn(mfn + MOVED), Mfn(*mfn)))
            .collect();
        Arc::new(P2m::container(self.frames.clone(), &pairs, Word::W64))
    }

    fn walked(&self, format: &Format, roots: &[u64]) -> (Bare<Frames>, PageTables) {
        let none: Option<&FrameTable<Virtual<Frames>>> = None;
        let roots: Vec<_> = roots.iter().map(|root| MachineAddr(*root)).collect();
        let found = find(&self.p2m(), format, &roots, none);
        (
            Bare::new(Tables::Guest(self.p2m()), format, &found, &[]),
            found,
        )
    }
}

fn entry(memory: &Bare<Frames>, table: u64, index: u64) -> u64 {
    let at = MachineAddr(((table + MOVED) << 12) | (index * 8));
    memory.read_u64(at).unwrap()
}

#[test]
fn linear_page_tables_and_foreign_entries_are_absent() {
    let mut host = Host::new(1..=6);
    host.set(1, 0, 2 << 12 | 7);
    // Xen's: the table itself, and a frame of the host.
    host.set(1, 258, 1 << 12 | 0x63);
    host.set(1, 260, 0x999 << 12 | 0x63);
    host.set(2, 0, 3 << 12 | 7);
    host.set(3, 0, 4 << 12 | 7);
    // A page, with no-execute and software bits; a foreign one; one that is not present.
    host.set(4, 0, 1 << 63 | 5 << 12 | 0xe67);
    host.set(4, 1, 0x999 << 12 | 7);
    host.set(4, 2, 0x999 << 12 | 0x100);
    // The tables are pages, too.
    host.set(4, 3, 1 << 12 | 5);
    let (memory, found) = host.walked(&X86_64, &[1 << 12 | 0xfff]);
    let levels: Vec<_> = found
        .tables
        .iter()
        .map(|(pfn, level)| (pfn.0 - MOVED, *level))
        .collect();
    assert_eq!(levels, [(1, 4), (2, 3), (3, 2), (4, 1)]);
    assert_eq!(entry(&memory, 1, 0), 0x102 << 12 | 7);
    assert_eq!(entry(&memory, 1, 258), 0);
    assert_eq!(entry(&memory, 1, 260), 0);
    assert_eq!(entry(&memory, 4, 0), 1 << 63 | 0x105 << 12 | 0xe67);
    assert_eq!(entry(&memory, 4, 1), 0);
    assert_eq!(entry(&memory, 4, 2), 0x999 << 12 | 0x100);
    assert_eq!(entry(&memory, 4, 3), 0x101 << 12 | 5);
    let mapping = walk(&memory, &X86_64, MachineAddr(0x101 << 12), VirtAddr(0x123)).unwrap();
    assert_eq!(mapping.machine, MachineAddr(0x105_123));
    // Rewritten pages can be borrowed, but only as a whole page.
    let table = MachineAddr(0x101 << 12);
    assert_eq!(memory.borrow_around(MachineAddr(table.0 + 8)).0, table);
    assert_eq!(
        memory.borrow(table)[..8],
        (0x102_u64 << 12 | 7).to_le_bytes()
    );
    assert_eq!(memory.borrow(MachineAddr(0x105_ff0)).len(), 16);
}

#[test]
fn large_pages_need_consecutive_pfns() {
    let mut host = Host::new((1..8).chain(0x400..0x600));
    host.set(1, 0, 2 << 12 | 7);
    host.set(2, 0, 3 << 12 | 7);
    host.set(2, 1, 0x4000_0000 | 0xe7);
    host.set(3, 0, 0x40_0000 | 0xe7);
    host.set(3, 1, 0x60_0000 | 0xe7);
    let (memory, _) = host.walked(&X86_64, &[1 << 12]);
    // The first pfn is not aligned.
    assert_eq!(entry(&memory, 3, 0), 0);
    assert_eq!(entry(&memory, 3, 1), 0);
    assert_eq!(entry(&memory, 2, 1), 0);

    let pairs: Vec<_> = (1..8)
        .map(|mfn| (Pfn(mfn), Mfn(mfn)))
        .chain((0..512).map(|i| (Pfn(0x800 + i), Mfn(0x400 + i))))
        .collect();
    for (pairs, expected) in [(&pairs[..], 0x80_00e7), (&pairs[..pairs.len() - 1], 0)] {
        let p2m = Arc::new(P2m::container(host.frames.clone(), pairs, Word::W64));
        let none: Option<&FrameTable<Virtual<Frames>>> = None;
        let found = find(&p2m, &X86_64, &[MachineAddr(1 << 12)], none);
        let memory = Bare::new(Tables::Guest(p2m), &X86_64, &found, &[]);
        assert_eq!(memory.read_u64(MachineAddr(3 << 12)), Ok(expected));
    }
}

#[test]
fn small_tables_share_a_page_with_data() {
    let mut host = Host::new(1..=6);
    // Two tables of four entries; what is beside them looks like one.
    host.set(1, 4, 2 << 12 | 1);
    host.set(1, 12, 3 << 12 | 1);
    host.set(1, 8, 4 << 12 | 1);
    host.set(2, 0, 5 << 12 | 7);
    let (memory, found) = host.walked(&X86_PAE, &[0x1020, 0x1060]);
    assert_eq!(found.parts.get(&Pfn(0x101)), Some(&0b1010));
    assert_eq!(entry(&memory, 1, 4), 0x102 << 12 | 1);
    assert_eq!(entry(&memory, 1, 12), 0x103 << 12 | 1);
    assert_eq!(entry(&memory, 1, 8), 4 << 12 | 1);
    assert_eq!(entry(&memory, 2, 0), 0x105 << 12 | 7);
}

#[test]
fn entries_of_four_bytes() {
    let mut host = Host::new(1..=4);
    host.set(1, 0, 0x999_067 << 32 | 2 << 12 | 0x67);
    host.set(2, 0, 3 << 12 | 0x67);
    let (memory, found) = host.walked(&X86, &[1 << 12]);
    assert_eq!(found.tables, [(Pfn(0x101), 2), (Pfn(0x102), 1)]);
    assert_eq!(entry(&memory, 1, 0), 0x102 << 12 | 0x67);
    // A part of an entry.
    let mut byte = [0];
    memory.read(MachineAddr(0x102_001), &mut byte).unwrap();
    assert_eq!(byte[0], 0x30);
    memory.read(MachineAddr(0x102_002), &mut byte).unwrap();
    assert_eq!(byte[0], 0x10);
    // A pfn of more than 20 bits does not fit.
    assert_eq!(
        X86.redirect(&X86.levels[1], 0x3067, MachineAddr(1 << 32)),
        None
    );
    assert_eq!(
        X86.redirect(&X86.levels[0], 0xe7, MachineAddr(0x12_ffc0_0000)),
        Some(0xffc0_00e7 | 0x12 << 13)
    );
}

/// A frame table at the virtual address 0, one page for 128 frames, whose types are of `bits` bits.
fn typed(bits: u32, types: &[(u64, u64, u64)]) -> (Host, FrameTable<Virtual<Frames>>) {
    let mut host = Host::new(1..=9);
    host.set(1, 0, 2 << 12 | 7);
    host.set(2, 0, 3 << 12 | 7);
    host.set(3, 0, 4 << 12 | 7);
    // Xen's tables and its frame table.
    let mut xen = Host::new([0x50, 0x51, 0x52, 0x53, 0x54]);
    for table in 0x50..0x54 {
        xen.set(table, 0, (table + 1) << 12 | 7);
    }
    for (mfn, kind, count) in types {
        let info = kind << (64 - bits) | count | 1 << 40;
        xen.set(0x54, mfn * 4 + 2, info);
    }
    let table = FrameTable {
        memory: Virtual::new(xen.frames, &X86_64, MachineAddr(0x50 << 12)),
        base: VirtAddr(0),
        frames: 0x1000,
        size: 32,
        type_info: 16,
        word: Word::W64,
    };
    (host, table)
}

const SOUND: [(u64, u64, u64); 8] = [
    (1, 4, 1),
    (2, 3, 1),
    (3, 2, 9),
    (4, 1, 1),
    // Only the frame table has this one. The others are no tables, or not in use.
    (5, 4, 1),
    (6, 7, 1),
    (7, 4, 0),
    (8, 5, 1),
];

#[test]
fn the_frame_table_has_more_than_the_walk() {
    for bits in [3, 4] {
        let (host, table) = typed(bits, &SOUND);
        let found = find(&host.p2m(), &X86_64, &[MachineAddr(1 << 12)], Some(&table));
        assert_eq!((found.walked, found.typed), (4, Some(5)), "{bits} bits");
        assert_eq!((found.conflicts, found.untyped, found.unread), (0, 0, 0));
        let levels: Vec<_> = found
            .tables
            .iter()
            .map(|(pfn, level)| (pfn.0, *level))
            .collect();
        assert_eq!(
            levels,
            [(0x101, 4), (0x102, 3), (0x103, 2), (0x104, 1), (0x105, 4)]
        );
    }
}

#[test]
fn contradictions_are_counted() {
    let mut types = SOUND;
    types[3] = (4, 2, 1);
    let (host, table) = typed(3, &types);
    let found = find(&host.p2m(), &X86_64, &[MachineAddr(1 << 12)], Some(&table));
    assert_eq!((found.conflicts, found.untyped), (1, 0));
    types[3] = (4, 7, 1);
    let (host, table) = typed(3, &types);
    let found = find(&host.p2m(), &X86_64, &[MachineAddr(1 << 12)], Some(&table));
    assert_eq!((found.conflicts, found.untyped), (0, 1));
    // It is a table nevertheless.
    assert!(found.tables.contains(&(Pfn(0x104), 1)));
}

#[test]
fn a_frame_table_of_another_layout_is_not_used() {
    let (host, table) = typed(3, &SOUND);
    let roots = [MachineAddr(1 << 12)];
    for (size, type_info) in [
        (24, 16),
        (32, 8),
        (32, 24),
        (32, 1 << 40),
        (0, 0),
        (u64::MAX, 0),
    ] {
        let other = FrameTable {
            size,
            type_info,
            ..table.clone()
        };
        let found = find(&host.p2m(), &X86_64, &roots, Some(&other));
        assert_eq!(
            (found.typed, found.tables.len()),
            (None, 4),
            "{size} {type_info}"
        );
    }
    // Without a walk nothing verifies the layout.
    let found = find(
        &host.p2m(),
        &X86_64,
        &[MachineAddr(0x999 << 12)],
        Some(&table),
    );
    assert_eq!(
        (found.typed, found.tables.len(), found.foreign_roots),
        (None, 0, 1)
    );
    // Elements past the end of the table.
    let short = FrameTable {
        frames: 5,
        ..table.clone()
    };
    let found = find(&host.p2m(), &X86_64, &roots, Some(&short));
    assert_eq!((found.typed, found.unread), (Some(4), 5));
}

#[test]
fn tables_of_a_page_that_is_cut() {
    let mut host = Host::new(1..=4);
    host.set(1, 0, 2 << 12 | 7);
    let (_, found) = host.walked(&X86_64, &[1 << 12]);
    assert_eq!((found.tables.len(), found.unreadable), (2, 0));
    host.frames.0.remove(&Mfn(2));
    let (memory, found) = host.walked(&X86_64, &[1 << 12]);
    assert_eq!((found.tables.len(), found.unreadable), (2, 1));
    assert!(memory.read_u64(MachineAddr(0x102 << 12)).is_err());
    assert_eq!(entry(&memory, 1, 0), 0x102 << 12 | 7);
}

#[test]
fn held_pages() {
    let host = Host::new([1, 2, 5, 6, 7]);
    let mut frames = host.frames.clone();
    frames.0.remove(&Mfn(6));
    let pairs: Vec<_> = [(10, 1), (11, 2), (12, 7), (20, 5), (21, 6), (22, 9)]
        .map(|(pfn, mfn)| (Pfn(pfn), Mfn(mfn)))
        .into();
    let p2m = Arc::new(P2m::container(frames, &pairs, Word::W64));
    let expected = vec![(Pfn(10), 3), (Pfn(20), 1)];
    assert_eq!(crate::p2m::held(&p2m), Some(expected));
}
