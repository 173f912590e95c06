//! The page walkers, compared with an independent one written for each format.

use proptest::prelude::*;
use xenkdump::addr::{MachineAddr, VirtAddr};
use xenkdump::memory::{Fault, Frames, Memory};
use xenkdump::paging::{
    walk, walk_steps, Flags, Format, Mapping, Translator, Virtual, X86, X86_64, X86_64_LA57,
    X86_PAE,
};
use xenkdump::status::{Status, NONE};

const ROOT: MachineAddr = MachineAddr(0x1000);

/// The translation of `va` and its page size, by a simple walk for each format.
fn reference_walk(mem: &Frames, name: &str, root: u64, va: u64) -> Option<(u64, u64)> {
    let quad = |at: u64| mem.read_u64(MachineAddr(at)).ok();
    let address = 0x000f_ffff_ffff_f000;
    let entry = |table: u64, shift: u32| {
        quad(table + ((va >> shift) & 0x1ff) * 8).filter(|entry| entry & 1 == 1)
    };
    // The levels from the page directory down, which PAE and 64-bit formats share.
    let directory = |table: u64| {
        let e = entry(table, 21)?;
        if e & 0x80 != 0 {
            let fine = e & 0x1f_e000 == 0;
            return fine.then_some(((e & 0x000f_ffff_ffe0_0000) | (va & 0x1f_ffff), 2 << 20));
        }
        let e = entry(e & address, 12)?;
        Some(((e & address) | (va & 0xfff), 4096))
    };
    let pointers = |table: u64| {
        let e = entry(table, 30)?;
        if e & 0x80 != 0 {
            let fine = e & 0x3fff_e000 == 0;
            return fine.then_some(((e & 0x000f_ffff_c000_0000) | (va & 0x3fff_ffff), 1 << 30));
        }
        directory(e & address)
    };
    let plain = |table: u64, shift: u32| entry(table, shift).filter(|e| e & 0x80 == 0);
    match name {
        "x86" => {
            if va >> 32 != 0 {
                return None;
            }
            let long = |at: u64| mem.read_u32(MachineAddr(at)).ok().map(u64::from);
            let e = long((root & !0xfff) + (va >> 22) * 4).filter(|e| e & 1 == 1)?;
            if e & 0x80 != 0 {
                let high = ((e >> 13) & 0xff) << 32;
                let fine = e & (1 << 21) == 0;
                return fine.then_some((high | (e & 0xffc0_0000) | (va & 0x3f_ffff), 4 << 20));
            }
            let e = long((e & !0xfff) + ((va >> 12) & 0x3ff) * 4).filter(|e| e & 1 == 1)?;
            Some(((e & !0xfff) | (va & 0xfff), 4096))
        }
        "x86-pae" => {
            if va >> 32 != 0 {
                return None;
            }
            let e = quad((root & !0x1f) + (va >> 30) * 8).filter(|e| e & 1 == 1)?;
            directory(e & address)
        }
        "x86_64" => {
            if ((va as i64) << 16) >> 16 != va as i64 {
                return None;
            }
            pointers(plain(root & address, 39)? & address)
        }
        _ => {
            if ((va as i64) << 7) >> 7 != va as i64 {
                return None;
            }
            pointers(plain(plain(root & address, 48)? & address, 39)? & address)
        }
    }
}

/// Mostly valid tables: an entry is absent, refers to one of a few frames, or is random. Tables may be
/// shared, map themselves or lead out of memory.
fn tables() -> impl Strategy<Value = Frames> {
    let entry = prop_oneof![
        2 => Just(0u64),
        8 => (0u64..8, any::<u16>(), any::<bool>()).prop_map(|(frame, flags, nx)| {
            (frame << 12) | u64::from(flags & 0xf7f) | 1 | (u64::from(nx) << 63)
        }),
        2 => any::<u32>().prop_map(|address| (u64::from(address) & !0x1fff) | 0x81),
        1 => any::<u64>().prop_map(|address| (address & !0x3fff_f000) | 0x81),
        1 => any::<u64>(),
    ];
    // Eight frames; in each, eight entries repeated, so that every index hits one of them.
    proptest::collection::vec(entry, 64).prop_map(|entries| {
        let mut mem = Frames::default();
        for (frame, entries) in entries.chunks_exact(8).enumerate() {
            let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
            mem.write(MachineAddr((frame as u64) << 12), &bytes.repeat(64));
        }
        mem
    })
}

fn address(format: &'static Format) -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..8u8).prop_map(move |(raw, choice)| {
        let unused = 64 - format.width;
        match choice {
            // Usually not canonical.
            0 => raw,
            _ if format.sign_extended => (((raw << unused) as i64) >> unused) as u64,
            _ => (raw << unused) >> unused,
        }
    })
}

fn any_format() -> impl Strategy<Value = &'static Format> {
    proptest::sample::select(Format::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn walks_agree_with_the_reference(
        mem in tables(),
        (format, va) in any_format().prop_flat_map(|f| (Just(f), address(f))),
        root in 0u64..0x8000,
    ) {
        let got = walk(&mem, format, MachineAddr(root), VirtAddr(va))
            .ok()
            .map(|m| (m.machine.0, m.page_size));
        prop_assert_eq!(got, reference_walk(&mem, format.name, root, va), "{} {:#x}", format.name, va);
    }

    /// A batch gives the results of single walks, in any order, even if tables cannot be borrowed.
    #[test]
    fn batches_agree_with_walks(
        mem in tables(),
        (format, bases) in any_format().prop_flat_map(|f| {
            (Just(f), proptest::collection::vec(address(f), 1..20))
        }),
        picks in proptest::collection::vec((any::<u16>(), 0u64..1 << 23), 1..700),
        root in 0u64..8,
        borrowable in any::<bool>(),
    ) {
        let addrs: Vec<_> = picks
            .iter()
            .map(|(base, offset)| {
                VirtAddr(bases[usize::from(*base) % bases.len()].wrapping_add(*offset))
            })
            .collect();
        let root = MachineAddr(root << 12);
        if borrowable {
            compare_batch(&Virtual::new(&mem, format, root), &addrs)?;
        } else {
            compare_batch(&Virtual::new(NotBorrowable(&mem), format, root), &addrs)?;
        }
    }

    /// The ranges cover exactly the addresses that single walks can translate.
    #[test]
    fn ranges_agree_with_walks(
        mem in tables(),
        (format, first) in any_format().prop_flat_map(|f| (Just(f), address(f))),
        pages in 1u64..2000,
        root in 0u64..8,
    ) {
        let first = first & !0xfff;
        let last = first.saturating_add(pages * 4096 - 1);
        let space = Virtual::new(&mem, format, MachineAddr(root << 12));
        compare_ranges(&space, first, last)?;
    }

    /// The same with partly present tables: any parts of eight frames, also inside entries.
    #[test]
    fn ranges_of_truncated_tables_agree_with_walks(
        frames in tables(),
        (format, first) in any_format().prop_flat_map(|f| (Just(f), address(f))),
        pages in 1u64..2000,
        root in 0u64..8,
        mut ends in proptest::collection::vec(0u64..0x8000, 1..40),
    ) {
        ends.sort_unstable();
        ends.dedup();
        let first = first & !0xfff;
        let last = first.saturating_add(pages * 4096 - 1);
        let space = Virtual::new(Truncated { frames, ends }, format, MachineAddr(root << 12));
        compare_ranges(&space, first, last)?;
    }

    /// Encrypted memory: the bit may be set in cr3 and in entries of every level, or not.
    #[test]
    fn encryption_bit_is_not_part_of_an_address(
        plain in tables(),
        bits in proptest::collection::vec(any::<bool>(), 64),
        format in proptest::sample::select(vec![&X86_PAE, &X86_64, &X86_64_LA57]),
        pages in 1u64..2000,
        root in 0u64..8,
        bit in proptest::sample::select(vec![47, 51]),
    ) {
        let mask = 1u64 << bit;
        let (mut cleared, mut encrypted) = (Frames::default(), Frames::default());
        for (mfn, frame) in &plain.0 {
            for (at, entry) in (mfn.0 << 12..).step_by(8).zip(frame.as_chunks::<8>().0) {
                let entry = u64::from_le_bytes(*entry) & !mask;
                let set = if bits[(at as usize / 8) % 64] { mask } else { 0 };
                cleared.write(MachineAddr(at), &entry.to_le_bytes());
                encrypted.write(MachineAddr(at), &(entry | set).to_le_bytes());
            }
        }
        let format = format.with_encryption(mask).unwrap();
        let root = root << 12;
        let space = Virtual::new(&encrypted, &format, MachineAddr(root | mask));
        compare_ranges(&space, 0, pages * 4096 - 1)?;
        let addrs: Vec<_> = (0..pages).map(|page| VirtAddr(page * 4096)).collect();
        compare_batch(&space, &addrs)?;
        for addr in addrs {
            let got = space.walk(addr).ok().map(|m| (m.machine.0, m.page_size));
            prop_assert_eq!(got, reference_walk(&cleared, format.name, root, addr.0));
        }
    }
}

#[test]
fn an_encryption_bit_is_one_address_bit() {
    for mask in [0, 1, 1 << 31, 3 << 47, 1 << 52, 1 << 63] {
        assert_eq!(X86_64.with_encryption(mask), None, "{mask:#x}");
    }
    assert_eq!(X86.with_encryption(1 << 47), None);
}

fn compare_ranges<M: Memory<MachineAddr>>(
    space: &Virtual<M>,
    first: u64,
    last: u64,
) -> Result<(), TestCaseError> {
    let mut at = first;
    let mut ranges = space
        .mapped(VirtAddr(first), VirtAddr(last))
        .filter_map(Result::ok)
        .peekable();
    while at <= last {
        while ranges.next_if(|r| r.addr.0 + (r.len - 1) < at).is_some() {}
        let range = ranges.peek().filter(|r| r.addr.0 <= at);
        let got = range.map(|r| (r.machine.0 + (at - r.addr.0), r.page_size, r.flags));
        let want = space.walk(VirtAddr(at)).ok();
        let want = want.map(|m| (m.machine.0, m.page_size, m.flags.and(Flags::ATTRIBUTES)));
        prop_assert_eq!(got, want, "{} {:#x}", space.format().name, at);
        match at.checked_add(4096) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(())
}

/// Memory that holds every second of the ranges between `ends`.
struct Truncated {
    frames: Frames,
    ends: Vec<u64>,
}

impl Memory<MachineAddr> for Truncated {
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        let before = self.ends.partition_point(|end| *end <= addr.0);
        match self.ends.get(before) {
            Some(end) if before % 2 == 1 && addr.0 + buf.len() as u64 <= *end => {
                self.frames.read(addr, buf)
            }
            _ => Err(Fault::NoSegment(addr)),
        }
    }

    fn next_held(&self, addr: MachineAddr) -> Option<(MachineAddr, MachineAddr)> {
        let mut runs = self.ends.chunks_exact(2);
        let run = runs.find(|run| run[0] < run[1] && addr.0 < run[1])?;
        Some((MachineAddr(run[0].max(addr.0)), MachineAddr(run[1] - 1)))
    }
}

/// Memory that cannot be borrowed, only read.
struct NotBorrowable<'a>(&'a Frames);

impl Memory<MachineAddr> for NotBorrowable<'_> {
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        self.0.read(addr, buf)
    }
}

fn compare_batch<M: Memory<MachineAddr>>(
    space: &Virtual<M>,
    addrs: &[VirtAddr],
) -> Result<(), TestCaseError> {
    let mut out = vec![MachineAddr(0); addrs.len()];
    let mut status = vec![Status::Io; addrs.len()];
    Translator::new(space, addrs.len()).translate(addrs, &mut out, &mut status);
    for ((addr, out), status) in addrs.iter().zip(out).zip(status) {
        let want = match space.translate(*addr) {
            Ok(machine) => (machine, Status::Ok),
            Err(fault) => (MachineAddr(NONE), fault.into()),
        };
        prop_assert_eq!((out, status), want, "{} {}", space.format().name, addr);
    }
    Ok(())
}

fn put64(mem: &mut Frames, table: u64, index: u64, entry: u64) {
    mem.write(MachineAddr(table + index * 8), &entry.to_le_bytes());
}

fn put32(mem: &mut Frames, table: u64, index: u64, entry: u32) {
    mem.write(MachineAddr(table + index * 4), &entry.to_le_bytes());
}

#[test]
fn pse_36_and_its_reserved_bit() {
    let mut mem = Frames::default();
    // Bits 13 to 20 are address bits 32 to 39.
    put32(
        &mut mem,
        ROOT.0,
        1,
        0x0040_0000 | (0b1010_0101 << 13) | 0x81,
    );
    put32(&mut mem, ROOT.0, 2, 0x0080_0000 | (1 << 21) | 0x81);
    let got = walk(&mem, &X86, ROOT, VirtAddr(0x0040_1234)).unwrap();
    assert_eq!(got.machine, MachineAddr(0xa5_0040_1234));
    assert_eq!((got.page_size, got.level), (4 << 20, 2));
    let fault = walk(&mem, &X86, ROOT, VirtAddr(0x0080_0000)).unwrap_err();
    assert!(matches!(
        fault,
        Fault::Reserved {
            level: 2,
            index: 2,
            ..
        }
    ));
}

#[test]
fn pae_root_is_aligned_to_32_bytes_and_its_entries_flags_are_ignored() {
    let mut mem = Frames::default();
    let root = ROOT.0 + 0x7e0;
    // Accessed (emulated processors), all permission flags (32-bit guests of 64-bit Xen), PS.
    for (slot, flags) in [(0, 0x01), (1, 0x27), (2, 0xe7), (3, 0xffe)] {
        put64(&mut mem, root, slot, 0x2000 | flags);
    }
    put64(&mut mem, 0x2000, 0, 0x3000 | 0x3);
    put64(&mut mem, 0x3000, 5, 0x7_0000_0000 | 0x3);
    for slot in 0..3 {
        let va = VirtAddr((slot << 30) | 0x5678);
        let got = walk(&mem, &X86_PAE, MachineAddr(root + 0x18), va).unwrap();
        assert_eq!(got.machine, MachineAddr(0x7_0000_0678));
        // The missing write bit of the pointer has no effect.
        assert_eq!(got.flags, Flags(0x3));
    }
    let fault = walk(&mem, &X86_PAE, MachineAddr(root), VirtAddr(0xc000_0000)).unwrap_err();
    let table = MachineAddr(0x17e0);
    let want = Fault::NotPresent {
        addr: VirtAddr(0xc000_0000),
        level: 3,
        table,
        index: 3,
        entry: 0x2ffe,
    };
    assert_eq!(fault, want);
}

#[test]
fn permissions_are_combined_over_all_levels() {
    let mut mem = Frames::default();
    put64(&mut mem, ROOT.0, 0, 0x2000 | 0x7);
    put64(&mut mem, 0x2000, 0, 0x3000 | 0x5 | (1 << 63));
    put64(&mut mem, 0x3000, 0, 0x4000 | 0x3);
    put64(&mut mem, 0x4000, 0, 0x5000 | 0x80 | 0x67);
    let mut steps = Vec::new();
    let show = |s: xenkdump::paging::Step| steps.push((s.level, s.table.0));
    let got = walk_steps(&mem, &X86_64, ROOT, VirtAddr(0xabc), show).unwrap();
    let want = Mapping {
        machine: MachineAddr(0x5abc),
        page_size: 4096,
        flags: Flags((1 << 63) | 0x61 | (1 << 12)),
        level: 1,
    };
    assert_eq!(got, want);
    assert_eq!(steps, [(4, 0x1000), (3, 0x2000), (2, 0x3000), (1, 0x4000)]);
    let names: Vec<_> = got.flags.names().collect();
    assert_eq!(names, ["PRESENT", "ACCESSED", "DIRTY", "PAT", "NX"]);
}

#[test]
fn a_fault_has_the_address_of_the_absent_table() {
    let mut mem = Frames::default();
    put64(&mut mem, ROOT.0, 511, 0x9000 | 0x3);
    let addr = VirtAddr(0xffff_ffff_8000_0000);
    let fault = walk(&mem, &X86_64_LA57, ROOT, addr).unwrap_err();
    let table = MachineAddr(0x9000);
    assert_eq!(
        fault,
        Fault::NoTable {
            addr,
            level: 4,
            table
        }
    );
}

#[test]
fn reads_cross_pages_and_stop_at_the_first_that_is_missing() {
    let mut mem = Frames::default();
    put64(&mut mem, ROOT.0, 0, 0x2000 | 0x3);
    put64(&mut mem, 0x2000, 0, 0x3000 | 0x3);
    put64(&mut mem, 0x3000, 0, 0x4000 | 0x3);
    put64(&mut mem, 0x4000, 0, 0x6000 | 0x3);
    put64(&mut mem, 0x4000, 1, 0x5000 | 0x3);
    mem.write(MachineAddr(0x6ffe), b"ab");
    mem.write(MachineAddr(0x5000), b"cd");
    let space = Virtual::new(&mem, &X86_64, ROOT);
    let got: [u8; 4] = space.read_bytes(VirtAddr(0xffe)).unwrap();
    assert_eq!(&got, b"abcd");
    let fault = space.read(VirtAddr(0x1ffe), &mut [0; 4]).unwrap_err();
    let addr = VirtAddr(0x2000);
    assert!(matches!(fault, Fault::NotPresent { addr: at, level: 1, .. } if at == addr));
    let last = VirtAddr(u64::MAX);
    assert!(space.read(last, &mut [0; 2]).is_err());
}

/// A table whose entries all lead back to it would map 2^36 pages. The work is bounded by the
/// requested range.
#[test]
fn self_mapping_tables_are_walked_lazily() {
    let mut mem = Frames::default();
    for index in 0..512 {
        put64(&mut mem, ROOT.0, index, ROOT.0 | 0x3);
    }
    let space = Virtual::new(&mem, &X86_64, ROOT);
    let all = space.mapped(VirtAddr(0), VirtAddr(u64::MAX));
    let some: Vec<_> = all.take(1000).map(Result::unwrap).collect();
    assert_eq!(some[999].addr, VirtAddr(999 << 12));
    assert_eq!(some[999].machine, ROOT);
}

/// Tables that lead to an empty table 2^27 times: it is read once.
#[test]
fn empty_tables_are_read_once() {
    let mut mem = Frames::default();
    for table in [0x1000, 0x2000, 0x3000] {
        for index in 0..512 {
            put64(&mut mem, table, index, (table + 0x1000) | 0x3);
        }
    }
    put64(&mut mem, 0x4000, 0, 0);
    let space = Virtual::new(&mem, &X86_64, ROOT);
    assert_eq!(space.mapped(VirtAddr(0), VirtAddr(u64::MAX)).count(), 0);
}

/// Tables that refer to one absent table, or one reserved entry, 2^27 or 2^36 times. It is reported
/// 512 times.
#[test]
fn errors_below_a_table_are_reported_once() {
    for (format, depth) in [(&X86_64, 3), (&X86_64_LA57, 4)] {
        for entry in [0xdead_0000_0003, 0x0020_2083] {
            let mut mem = Frames::default();
            for table in (1..=depth).map(|i| i << 12) {
                for index in 0..512 {
                    let last = table == depth << 12;
                    let next = if last { entry } else { (table + 0x1000) | 3 };
                    put64(&mut mem, table, index, next);
                }
            }
            let space = Virtual::new(&mem, format, ROOT);
            let all: Vec<_> = space.mapped(VirtAddr(0), VirtAddr(u64::MAX)).collect();
            assert_eq!(all.len(), 512, "{} {entry:#x}", format.name);
            assert!(all.iter().all(Result::is_err));
        }
    }
}

#[test]
fn ranges_join_across_tables_and_split_at_the_hole() {
    let mut mem = Frames::default();
    for slot in [255, 256] {
        put64(&mut mem, ROOT.0, slot, 0x2000 | 0x3);
    }
    // 1 GiB pages of machine memory 0 to 512 GiB.
    for index in 0..512 {
        put64(&mut mem, 0x2000, index, (index << 30) | 0x83);
    }
    let space = Virtual::new(&mem, &X86_64, ROOT);
    let (low, high) = (0x7f80_0000_1000, 0xffff_8000_0000_0000);
    let ranges: Vec<_> = space
        .mapped(VirtAddr(low), VirtAddr(high + 0xfff))
        .map(|range| range.map(|r| (r.addr.0, r.machine.0, r.len, r.page_size)))
        .collect();
    let whole = (512 << 30) - 0x1000;
    assert_eq!(
        ranges,
        [
            Ok((low, 0x1000, whole, 1 << 30)),
            Ok((high, 0, 0x1000, 1 << 30))
        ]
    );
}
