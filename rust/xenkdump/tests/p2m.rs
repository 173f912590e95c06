//! P2Ms of every source and both word sizes, some of them deliberately corrupt.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use proptest::prelude::*;
use xenkdump::addr::{MachineAddr, Mfn, Pfn, PseudoPhysAddr, VirtAddr, Word};
use xenkdump::limits::MAX_P2M_PAGES;
use xenkdump::memory::{Fault, Frames, Memory};
use xenkdump::p2m::{
    Batch, Comparison, Disagreement, Entry, FrameRun, FrameRuns, KindRun, P2m, Physical, Source,
    Special,
};
use xenkdump::paging::{Format, Level, Virtual, X86, X86_64, X86_64_LA57, X86_PAE};
use xenkdump::status::{Status, NONE};
use xenkdump::Error;

const LIST_LIST: Mfn = Mfn(0x10);
const MISSING_FRAMES: Mfn = Mfn(0x11);
const MISSING_PAGE: Mfn = Mfn(0x12);

fn put(mem: &mut Frames, page: Mfn, index: u64, word: Word, value: u64) {
    let at = MachineAddr((page.0 << 12) + index * word.bytes() as u64);
    mem.write(at, &value.to_le_bytes()[..word.bytes()]);
}

fn fill(mem: &mut Frames, page: Mfn, word: Word, value: u64) {
    for index in 0..(4096 / word.bytes()) as u64 {
        put(mem, page, index, word, value);
    }
}

/// A tree as built by pvops, whose unused slots refer to shared pages. `leaves` are the other pages:
/// (number, entries from the page's start).
fn pvops_like(word: Word, leaves: &[(u64, &[u64])]) -> Frames {
    let per_page = (4096 / word.bytes()) as u64;
    let mut mem = Frames::default();
    fill(&mut mem, LIST_LIST, word, MISSING_FRAMES.0);
    fill(&mut mem, MISSING_FRAMES, word, MISSING_PAGE.0);
    fill(&mut mem, MISSING_PAGE, word, word.max());
    for (number, entries) in leaves {
        let frames = Mfn(0x100 + number / per_page);
        if !mem.0.contains_key(&frames) {
            fill(&mut mem, frames, word, MISSING_PAGE.0);
            put(&mut mem, LIST_LIST, number / per_page, word, frames.0);
        }
        let leaf = Mfn(0x1000 + number);
        put(&mut mem, frames, number % per_page, word, leaf.0);
        fill(&mut mem, leaf, word, word.max());
        for (i, entry) in entries.iter().enumerate() {
            put(&mut mem, leaf, i as u64, word, *entry);
        }
    }
    mem
}

#[test]
fn special_entries_are_distinguished() {
    for word in [Word::W32, Word::W64] {
        let top = word.bytes() * 8 - 1;
        let (foreign, identity) = (1 << top, 1 << (top - 1));
        let both = foreign | identity;
        let entries = [0x777, word.max(), foreign | 0x888, identity | 3, both | 4];
        let mem = pvops_like(word, &[(0, &entries)]);
        let p2m = P2m::frame_list(&mem, LIST_LIST, word, None).unwrap();
        let entries: Vec<_> = (0..6).map(|pfn| p2m.resolve(Pfn(pfn))).collect();
        let want = [
            Entry::Frame(Mfn(0x777)),
            Entry::Special(Special::Invalid),
            Entry::Special(Special::Foreign(Mfn(0x888))),
            Entry::Special(Special::Identity(Mfn(3))),
            Entry::Special(Special::Foreign(Mfn(4))),
            Entry::Special(Special::OutOfRange),
        ];
        assert_eq!(entries, want);
        assert_eq!(p2m.len(), 5);
    }
}

/// A small P2M has a table of all entries: it was prepared for as many pfns as a frame list can have.
#[test]
fn lookups_are_prepared_for_the_pfns_in_use() {
    let mem = pvops_like(Word::W64, &[(0, &[0x777, 0x888])]);
    let p2m = P2m::frame_list(&mem, LIST_LIST, Word::W64, None).unwrap();
    let packed = format!("{:?}", p2m);
    assert!(packed.contains("Packed { extents: 1,"), "{packed}");
}

/// The cause of crash issue 78: an invalid entry that was used as a frame.
#[test]
fn frames_above_the_maximum_are_invalid() {
    let entries = [1 << 40, 0x1234_5678_9abc_def0, (1 << 40) - 1];
    let mem = pvops_like(Word::W64, &[(0, &entries)]);
    let p2m = P2m::frame_list(&mem, LIST_LIST, Word::W64, None).unwrap();
    assert_eq!(p2m.resolve(Pfn(0)), Entry::Special(Special::Invalid));
    assert_eq!(p2m.resolve(Pfn(1)), Entry::Special(Special::Invalid));
    assert_eq!(p2m.resolve(Pfn(2)), Entry::Frame(Mfn((1 << 40) - 1)));
}

#[test]
fn sparse_trees_do_not_end_at_their_first_gap() {
    for word in [Word::W32, Word::W64] {
        let per_page = (4096 / word.bytes()) as u64;
        let far = 3 * per_page + 7;
        let mut mem = pvops_like(word, &[(0, &[5]), (far, &[6, 7])]);
        // An unused slot of a classic kernel, between used ones.
        put(&mut mem, LIST_LIST, 1, word, 0);
        let p2m = P2m::frame_list(&mem, LIST_LIST, word, None).unwrap();
        assert_eq!(p2m.len(), far * per_page + 2);
        assert_eq!(p2m.resolve(Pfn(far * per_page + 1)), Entry::Frame(Mfn(7)));
        assert_eq!(p2m.resolve(Pfn(1)), Entry::Special(Special::Invalid));
        let (zero, shared) = (per_page * per_page, 2 * per_page * per_page);
        assert_eq!(p2m.resolve(Pfn(zero)), Entry::Special(Special::NoTable));
        assert_eq!(p2m.resolve(Pfn(shared)), Entry::Special(Special::Invalid));
    }
}

/// Kinds one by one, merged.
fn plain_kinds<M: Memory<MachineAddr>>(p2m: &P2m<M>, pfns: std::ops::Range<u64>) -> Vec<KindRun> {
    let mut runs: Vec<KindRun> = Vec::new();
    for pfn in pfns {
        let kind = p2m.resolve(Pfn(pfn)).kind();
        match runs.last_mut() {
            Some(run) if run.kind == kind => run.count += 1,
            _ => runs.push(KindRun {
                pfn: Pfn(pfn),
                count: 1,
                kind,
            }),
        }
    }
    runs
}

#[test]
fn pfns_are_counted_by_kind() {
    let word = Word::W64;
    let identity = 1 << 62;
    let frames: Vec<u64> = (0..512).map(|i| 0x5000 + i).collect();
    let mixed: Vec<u64> = (0..512)
        .map(|i| if i < 200 { 0x9000 + i } else { identity | i })
        .collect();
    let mut mem = pvops_like(word, &[(0, &frames), (3, &mixed), (600, &frames[..7])]);
    // A page that the dump lacks.
    put(&mut mem, Mfn(0x101), 89, word, 0x7777);
    let pages = 700 * 512 - 5;
    let p2m = P2m::frame_list(&mem, LIST_LIST, word, Some(pages)).unwrap();
    let found = p2m.kinds(Pfn(0), Pfn(u64::MAX), 100);
    assert_eq!(found.next, None);
    assert_eq!(found.runs, plain_kinds(&p2m, 0..pages));
    let count = |kind| -> u64 {
        let runs = found.runs.iter().filter(|run| run.kind == kind);
        runs.map(|run| run.count).sum()
    };
    assert_eq!((count("frame"), count("identity")), (719, 312));
    assert_eq!(count("no table"), 512);
    assert_eq!(count("invalid"), pages - 719 - 312 - 512);
    // In parts, and from and to anywhere.
    for limit in 1..4 {
        let (mut at, mut runs) = (Pfn(100), Vec::new());
        loop {
            let part = p2m.kinds(at, Pfn(3 * 512 + 300), limit);
            assert!(part.runs.len() <= limit);
            runs.extend(part.runs);
            match part.next {
                Some(next) => at = next,
                None => break,
            }
        }
        assert_eq!(runs, plain_kinds(&p2m, 100..3 * 512 + 300));
    }
    assert!(p2m.kinds(Pfn(pages), Pfn(u64::MAX), 9).runs.is_empty());
    let pairs = [(Pfn(3), Mfn(9)), (Pfn(4), Mfn(2)), (Pfn(8), Mfn(7))];
    let pairs = P2m::container(&mem, &pairs, word);
    let found = pairs.kinds(Pfn(0), Pfn(u64::MAX), 100);
    assert_eq!(found.runs, plain_kinds(&pairs, 0..9));
}

#[test]
fn absent_pages_are_missing_not_invalid() {
    let mut mem = pvops_like(Word::W64, &[(0, &[5]), (2, &[6])]);
    put(&mut mem, Mfn(0x100), 2, Word::W64, 0xdead);
    let p2m = P2m::frame_list(&mem, LIST_LIST, Word::W64, None).unwrap();
    assert_eq!(p2m.len(), 3 * 512);
    assert_eq!(p2m.resolve(Pfn(1024)), Entry::Special(Special::NoTable));
}

#[test]
fn invalid_list_addresses_are_rejected() {
    let mem = Frames::default();
    for (mfn, word) in [
        (0, Word::W64),
        (u64::MAX, Word::W64),
        (0xffff_ffff, Word::W32),
    ] {
        let error = P2m::frame_list(&mem, Mfn(mfn), word, None).unwrap_err();
        assert!(matches!(error, Error::Absent(_)), "{error}");
    }
    let error = P2m::frame_list(&mem, Mfn(5), Word::W64, None).unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error}");
}

/// Every slot refers to one page of frames that refers to itself: 2^27 pfns in one page of memory.
#[test]
fn self_referencing_tree_is_bounded() {
    let mut mem = Frames::default();
    fill(&mut mem, LIST_LIST, Word::W64, LIST_LIST.0);
    let p2m = P2m::frame_list(&mem, LIST_LIST, Word::W64, None).unwrap();
    assert_eq!(p2m.len(), 1 << 27);
    assert_eq!(p2m.reverse(LIST_LIST), Some(Pfn(0)));
}

/// A flipped bit in the page that every unused slot refers to.
#[test]
fn present_ranges_are_bounded_by_the_dump() {
    let mut mem = pvops_like(Word::W64, &[(0, &[5]), (1, &[6]), (4, &[7])]);
    put(&mut mem, MISSING_PAGE, 9, Word::W64, u64::MAX - (1 << 20));
    // One that the dump lacks.
    put(&mut mem, Mfn(0x100), 3, Word::W64, 0xdead);
    let p2m = P2m::frame_list(&mem, LIST_LIST, Word::W64, None).unwrap();
    assert_eq!(p2m.len(), (1 << 27) - 502);
    let spans = p2m.spans();
    // The shared page is listed at its first reference.
    assert_eq!(spans, [(Pfn(0), 3 * 512), (Pfn(4 * 512), 512)]);
    let valid = P2m::frame_list(&mem, LIST_LIST, Word::W64, Some(700)).unwrap();
    assert_eq!(valid.spans(), [(Pfn(0), 700)]);
}

/// The address of the arrays and trees in the tests below.
const ARRAY: u64 = 0xffff_c900_0000_0000;

/// Tables that map `pages` (page number from [`ARRAY`] on, frame); their root.
fn map(mem: &mut Frames, pages: &[(u64, Mfn)]) -> MachineAddr {
    let (root, l3, l2) = (Mfn(0x20), Mfn(0x21), Mfn(0x22));
    let word = Word::W64;
    put(mem, root, (ARRAY >> 39) & 0x1ff, word, (l3.0 << 12) | 3);
    put(mem, l3, (ARRAY >> 30) & 0x1ff, word, (l2.0 << 12) | 3);
    for (page, mfn) in pages {
        let l1 = Mfn(0x30 + page / 512);
        put(mem, l2, page / 512, word, (l1.0 << 12) | 3);
        put(mem, l1, page % 512, word, (mfn.0 << 12) | 3);
    }
    MachineAddr(root.0 << 12)
}

#[test]
fn arrays_may_start_inside_a_page_and_have_holes() {
    for word in [Word::W32, Word::W64] {
        let per_page = (4096 / word.bytes()) as u64;
        let mut mem = Frames::default();
        let (first, second, far) = (Mfn(0x50), Mfn(0x60), Mfn(0x70));
        for (page, base) in [(first, 0x1000), (second, 0x2000), (far, 0x3000)] {
            for i in 0..per_page {
                put(&mut mem, page, i, word, base + i);
            }
        }
        let root = map(&mut mem, &[(0, first), (1, second), (700, far)]);
        let space = Virtual::new(&mem, &X86_64, root);
        let start = per_page - 3;
        let array = VirtAddr(ARRAY + start * word.bytes() as u64);
        let p2m = P2m::linear(space, array, word, 800 * per_page, Source::Linear).unwrap();
        assert_eq!(p2m.resolve(Pfn(2)), Entry::Frame(Mfn(0x1000 + start + 2)));
        assert_eq!(p2m.resolve(Pfn(3)), Entry::Frame(Mfn(0x2000)));
        let at_far = Pfn(700 * per_page - start);
        assert_eq!(p2m.resolve(at_far), Entry::Frame(Mfn(0x3000)));
        let before = Pfn(at_far.0 - 1);
        assert_eq!(p2m.resolve(before), Entry::Special(Special::NoTable));
        assert_eq!(p2m.reverse(Mfn(0x3001)), Some(Pfn(at_far.0 + 1)));
        assert_eq!(p2m.reverse(Mfn(0x1000)), None);
        let unaligned = P2m::linear(space, VirtAddr(array.0 + 1), word, 1, Source::Linear);
        assert!(matches!(unaligned, Err(Error::Absent(_))));
        let unmapped = P2m::linear(space, VirtAddr(0), word, 1, Source::Cr3);
        assert!(matches!(unmapped, Err(Error::Memory { .. })));
        let huge = P2m::linear(space, array, word, MAX_P2M_PAGES + 1, Source::Linear);
        assert!(matches!(huge, Err(Error::Absent(_))));
    }
}

/// `p2m_top` of Linux 2.6.27 to 2.6.36 and of 2.6.37 to 3.18.
#[test]
fn trees_of_pointers() {
    let word = Word::W64;
    let mut mem = Frames::default();
    let va = |page: u64| ARRAY + page * 4096;
    let pages = [0, 1, 2, 3].map(|page| (page, Mfn(0x50 + page)));
    let root = map(&mut mem, &pages);
    // Page 0: top; page 1: middle; pages 2 and 3: P2M.
    fill(&mut mem, Mfn(0x52), word, 0xaaa);
    fill(&mut mem, Mfn(0x53), word, 0xbbb);
    for (levels, pointers) in [
        (2, [(0x50, 0, va(2)), (0x50, 1, va(3)), (0x50, 2, 0)]),
        (3, [(0x50, 0, va(1)), (0x51, 0, va(2)), (0x51, 1, va(3))]),
    ] {
        let mut mem = mem.clone();
        for (page, index, pointer) in pointers {
            put(&mut mem, Mfn(page), index, word, pointer);
        }
        let space = Virtual::new(&mem, &X86_64, root);
        let p2m = P2m::pvops_tree(space, VirtAddr(va(0)), levels, word, 3 * 512).unwrap();
        assert_eq!(p2m.resolve(Pfn(511)), Entry::Frame(Mfn(0xaaa)), "{levels}");
        assert_eq!(p2m.resolve(Pfn(512)), Entry::Frame(Mfn(0xbbb)), "{levels}");
        let missing = Entry::Special(Special::NoTable);
        assert_eq!(p2m.resolve(Pfn(1024)), missing, "{levels}");
    }
    let space = Virtual::new(&mem, &X86_64, root);
    assert!(P2m::pvops_tree(space, VirtAddr(va(0)), 4, word, 512).is_err());
    // At most three levels of pages.
    let most = P2m::pvops_tree(space, VirtAddr(va(0)), 3, word, MAX_P2M_PAGES).unwrap();
    assert_eq!(most.len(), 1 << 27);
}

#[test]
fn pairs_of_a_container_are_looked_up() {
    let mut pairs: Vec<_> = (5..2000).map(|pfn| (Pfn(pfn), Mfn(9000 - pfn))).collect();
    pairs.push((Pfn(3000), Mfn(1 << 40)));
    pairs.push((Pfn(1 << 60), Mfn(7)));
    let mem = Frames::default();
    let p2m = P2m::container(&mem, &pairs, Word::W64);
    assert_eq!((p2m.len(), p2m.source()), (3001, Source::Container));
    assert_eq!(p2m.resolve(Pfn(4)), Entry::Special(Special::Invalid));
    assert_eq!(p2m.resolve(Pfn(5)), Entry::Frame(Mfn(8995)));
    assert_eq!(p2m.resolve(Pfn(3000)), Entry::Special(Special::Invalid));
    assert_eq!(p2m.resolve(Pfn(3001)), Entry::Special(Special::OutOfRange));
    assert_eq!(p2m.reverse(Mfn(7001)), Some(Pfn(1999)));
    assert_eq!(p2m.compare(&p2m, 1).unwrap().equal, 3001);
    let short = P2m::container(&mem, &pairs[..1994], Word::W64);
    let got = p2m.compare(&short, 1).unwrap();
    assert_eq!((got.equal, got.past_end), (1999, 1002));
}

#[test]
fn comparison_counts_each_kind() {
    let identity = 1 << 62;
    let ours = pvops_like(
        Word::W64,
        &[(0, &[1, 2, identity | 2, 4, 5]), (1, &[7]), (3, &[6])],
    );
    let mut theirs = pvops_like(Word::W64, &[(0, &[1, 9, u64::MAX, 4]), (3, &[6])]);
    put(&mut theirs, Mfn(0x100), 1, Word::W64, 0);
    let pages = 4 * 512;
    let a = P2m::frame_list(&ours, LIST_LIST, Word::W64, Some(pages)).unwrap();
    let b = P2m::frame_list(&theirs, LIST_LIST, Word::W64, Some(pages - 100)).unwrap();
    let got = a.compare(&b, 2).unwrap();
    assert_eq!((got.different, got.hidden_identity), (2, 1));
    assert_eq!((got.unreadable, got.past_end), (512, 100));
    let counted = got.different + got.hidden_identity + got.unreadable + got.past_end;
    assert_eq!(got.equal + counted, pages);
    let first: Vec<_> = got.first.iter().map(|d| d.pfn).collect();
    assert_eq!(first, [Pfn(1), Pfn(4)]);
    assert_eq!(a.compare(&a, 2).unwrap().equal, pages);
}

#[test]
fn pseudo_physical_memory_goes_through_the_p2m() {
    let mut mem = pvops_like(Word::W64, &[(0, &[0x900, 0x800, u64::MAX])]);
    mem.write(MachineAddr(0x90_0ffe), b"ab");
    mem.write(MachineAddr(0x80_0000), b"cd");
    let p2m = P2m::frame_list(&mem, LIST_LIST, Word::W64, None).unwrap();
    let space = Physical::P2m(Arc::new(p2m));
    let got: [u8; 4] = space.read_bytes(PseudoPhysAddr(0xffe)).unwrap();
    assert_eq!(&got, b"abcd");
    let fault = space.read(PseudoPhysAddr(0x2000), &mut [0]).unwrap_err();
    let special = Special::OutOfRange;
    assert_eq!(
        fault,
        Fault::P2m {
            pfn: Pfn(2),
            special
        }
    );
    let bare = Physical::Bare(&mem);
    assert_eq!(&bare.read_bytes(PseudoPhysAddr(0x80_0000)).unwrap(), b"cd");
}

fn compare_batch<M: Memory<MachineAddr>>(p2m: &P2m<M>, pfns: &[Pfn]) {
    let mut out = vec![Mfn(0); pfns.len()];
    let mut status = vec![Status::Io; pfns.len()];
    p2m.resolve_many(pfns, &mut out, &mut status);
    let numbers: Vec<_> = pfns.iter().map(|pfn| AtomicU64::new(pfn.0)).collect();
    // As a whole, and in parts.
    for part in [pfns.len(), 1000] {
        let mut batch = Batch::default();
        let shared: Vec<_> = pfns.iter().map(|_| AtomicU64::new(0)).collect();
        let mut shared_status = vec![Status::Io; pfns.len()];
        for first in (0..pfns.len()).step_by(part.max(1)) {
            let end = pfns.len().min(first + part);
            let (out, status) = (&shared[first..end], &mut shared_status[first..end]);
            p2m.resolve_shared(&mut batch, &numbers[first..], out, status);
        }
        assert!(shared
            .into_iter()
            .map(AtomicU64::into_inner)
            .eq(out.iter().map(|mfn| mfn.0)));
        assert_eq!(shared_status, status);
    }
    for ((pfn, out), status) in pfns.iter().zip(out).zip(status) {
        let want = match p2m.resolve(*pfn) {
            Entry::Frame(mfn) => (mfn, Status::Ok),
            Entry::Special(special) => (Mfn(NONE), special.into()),
        };
        assert_eq!((out, status), want, "{pfn:?}");
    }
}

/// First without a summary, then with one after many lookups; in sequence and at random.
#[test]
fn batches_agree_with_single_lookups() {
    for word in [Word::W32, Word::W64] {
        let per_page = (4096 / word.bytes()) as u64;
        let top = word.bytes() as u64 * 8 - 1;
        let wide = if word == Word::W64 {
            1 << 33
        } else {
            0xffff_fff1
        };
        let specials = [7, word.max(), (1 << top) | 8, (1 << (top - 1)) | 2, wide, 0];
        let leaf: Vec<u64> = (0..per_page).map(|i| i * 3 + 1).collect();
        // Consecutive frames with one exception, and enough frames for two extents.
        // 64-bit: beyond the largest mfn of a summary. 32-bit: no flag is that low.
        let first = if word == Word::W64 {
            0x7fff_ff00
        } else {
            0x100
        };
        let rising: Vec<u64> = (first..).take(per_page as usize).collect();
        let mut broken = rising.clone();
        broken[100] = 0;
        let mut mem = pvops_like(
            word,
            &[
                (0, &leaf),
                (1, &specials),
                (2, &rising),
                (3, &broken),
                (1030, &leaf),
            ],
        );
        put(&mut mem, Mfn(0x100), 2, word, 0);
        let p2m = P2m::frame_list(&mem, LIST_LIST, word, None).unwrap();
        let first: Vec<_> = (0..4 * per_page + 700).map(Pfn).collect();
        let far: Vec<_> = (1025 * per_page..p2m.len() + 100).map(Pfn).collect();
        let mut mixed: Vec<_> = (0..30_000u64)
            .map(|i| Pfn(i.wrapping_mul(0x9e37_79b9) % (p2m.len() + 50)))
            .collect();
        mixed.extend([Pfn(u64::MAX), Pfn(u64::MAX - 1), Pfn(1 << 36), Pfn(0)]);
        for _ in 0..3 {
            compare_batch(&p2m, &first);
            compare_batch(&p2m, &far);
            compare_batch(&p2m, &mixed);
            compare_batch(&p2m, &mixed[29_900..]);
        }
        let last = (u64::MAX - 599..=u64::MAX).map(Pfn).collect::<Vec<_>>();
        compare_batch(&p2m, &last);
    }
    let pairs: Vec<_> = (5..60_000)
        .map(|pfn| (Pfn(pfn), Mfn(90_000 - pfn)))
        .collect();
    let mem = Frames::default();
    let p2m = P2m::container(&mem, &pairs, Word::W64);
    let all: Vec<_> = (0..60_010).map(Pfn).collect();
    compare_batch(&p2m, &all);
    compare_batch(&p2m, &all);
}

/// P2Ms of extents that are consecutive, scattered and without frames, in different shares, whose
/// lookups use a table of all entries, or summaries, or both in turn while blocks are summarized.
#[test]
fn batches_of_all_shapes_agree_with_single_lookups() {
    const EXTENT: u64 = 512;
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move |end: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end
    };
    // Consecutive and scattered extents of eight; the others have no frames. The last two are larger
    // than what is always in one table.
    for (extents, consecutive, scattered) in [
        (1, 0, 8),
        (320, 4, 1),
        (1030, 8, 0),
        (2049, 3, 4),
        (2100, 0, 8),
        (2100, 7, 1),
    ] {
        let mut pairs = Vec::new();
        for extent in 0..extents {
            let first = random(1 << 30);
            let kind = random(8);
            for pfn in extent * EXTENT..(extent + 1) * EXTENT {
                if kind < consecutive {
                    pairs.push((Pfn(pfn), Mfn(first + pfn % EXTENT)));
                } else if kind < consecutive + scattered && pfn % 511 != 3 {
                    pairs.push((Pfn(pfn), Mfn(random((1 << 32) + 100))));
                }
            }
        }
        let mem = Frames::default();
        let p2m = P2m::container(&mem, &pairs, Word::W64);
        let frames: Vec<_> = pairs.iter().map(|(pfn, _)| *pfn).collect();
        for _ in 0..3 {
            let any: Vec<_> = (0..5003)
                .map(|_| Pfn(random(extents * EXTENT + 9)))
                .collect();
            compare_batch(&p2m, &any);
            let some: Vec<_> = (0..5003)
                .map(|_| frames[random(frames.len() as u64) as usize])
                .collect();
            compare_batch(&p2m, &some);
            let at = random(frames.len() as u64) as usize;
            compare_batch(&p2m, &frames[at..frames.len().min(at + 3001)]);
            compare_batch(&p2m, &[Pfn(u64::MAX), Pfn(0), Pfn(1 << 63), frames[0]]);
        }
    }
}

/// Memory that counts reads, with a given number of pages.
struct Counted<'m> {
    frames: &'m Frames,
    pages: u64,
    reads: AtomicU64,
}

impl<'m> Counted<'m> {
    fn new(frames: &'m Frames, pages: u64) -> Self {
        let reads = AtomicU64::new(0);
        Self {
            frames,
            pages,
            reads,
        }
    }
}

impl Memory<MachineAddr> for Counted<'_> {
    fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Fault> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.frames.read(addr, buf)
    }

    fn next_held(&self, addr: MachineAddr) -> Option<(MachineAddr, MachineAddr)> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.frames.next_held(addr)
    }

    fn pages_held(&self) -> u64 {
        self.pages
    }
}

fn table(mem: &mut Frames, at: u64, entry: impl Fn(u64) -> u64) {
    for index in 0..512 {
        put(mem, Mfn(at), index, Word::W64, entry(index));
    }
}

/// Tables that map 2^27 pages of a list, while the dump has at most one. The work is bounded by
/// the tables that exist.
#[test]
fn list_cost_is_bounded_by_the_dump() {
    const START: u64 = 0xffff_8000_0000_0000;
    let absent = |_| (0xdead << 12) | 3;
    let next = |mfn: u64| move |_| (mfn << 12) | 3;
    let foreign = |_| (1 << 63) | 7;
    for kind in ["large pages", "absent tables", "absent pages", "one page"] {
        let mut mem = Frames::default();
        table(&mut mem, 1, next(2));
        match kind {
            "large pages" => table(&mut mem, 2, |i| ((i + 1) << 30) | 0x83),
            "absent tables" => {
                table(&mut mem, 2, next(3));
                table(
                    &mut mem,
                    3,
                    |i| if i == 0 { (4 << 12) | 3 } else { absent(i) },
                );
                table(&mut mem, 4, absent);
            }
            _ => {
                table(&mut mem, 2, next(3));
                table(&mut mem, 3, next(4));
                table(
                    &mut mem,
                    4,
                    if kind == "one page" {
                        |_| (5 << 12) | 3
                    } else {
                        absent
                    },
                );
                table(&mut mem, 5, foreign);
            }
        }
        let mem = Counted::new(&mem, mem.0.len() as u64);
        let space = Virtual::new(&mem, &X86_64, MachineAddr(1 << 12));
        let open = |start| {
            let array = VirtAddr(START + start);
            Arc::new(P2m::linear(space, array, Word::W64, MAX_P2M_PAGES, Source::Linear).unwrap())
        };
        // The other P2M is split by tables at other positions.
        let (one, other) = (open(0), open(5 * 4096 + 8));
        let spans = if kind == "one page" {
            vec![(Pfn(0), 512)]
        } else {
            vec![]
        };
        assert_eq!(one.spans(), spans, "{kind}");
        assert_eq!(one.reverse(Mfn(7)), None, "{kind}");
        let kinds = one.kinds(Pfn(0), Pfn(u64::MAX), 10);
        assert_eq!(
            kinds.runs,
            [KindRun {
                pfn: Pfn(0),
                count: MAX_P2M_PAGES,
                kind: if kind == "one page" {
                    "foreign"
                } else {
                    "no table"
                },
            }]
        );
        assert_eq!(
            FrameRuns::new(one.clone(), Pfn(0), Pfn(MAX_P2M_PAGES)).next(),
            None,
            "{kind}"
        );
        assert_eq!(
            one.compare(&other, 10).unwrap().equal,
            MAX_P2M_PAGES,
            "{kind}"
        );
        let reads = mem.reads.load(Ordering::Relaxed);
        // Each query makes one walk per table, some of them twice.
        assert!(reads < 40 << 18, "{kind}: {reads} reads");
    }
}

/// A file whose segments map the same bytes to many addresses.
#[test]
fn list_pages_are_bounded_by_the_file() {
    let mut mem = Frames::default();
    let leaves: Vec<_> = (0..100).map(|i| (i, Mfn(0x50 + i))).collect();
    for (i, leaf) in &leaves {
        fill(
            &mut mem,
            *leaf,
            Word::W64,
            if i % 50 == 49 { *i } else { u64::MAX },
        );
    }
    let root = map(&mut mem, &leaves);
    for (pages, known) in [(10, 12), (1000, 100)] {
        let mem = Counted::new(&mem, pages);
        let space = Virtual::new(&mem, &X86_64, root);
        let p2m = P2m::linear(space, VirtAddr(ARRAY), Word::W64, 512 * 100, Source::Cr3);
        let p2m = Arc::new(p2m.unwrap());
        assert_eq!(p2m.spans(), [(Pfn(0), known * 512)]);
        let found = (known == 100).then_some(Pfn(99 * 512));
        assert_eq!(p2m.reverse(Mfn(99)), found);
        let runs = FrameRuns::new(p2m.clone(), Pfn(0), Pfn(p2m.len()));
        assert_eq!(runs.count(), if known == 100 { 1024 } else { 0 });
    }
}

/// Four tables each. All pairs occur.
#[test]
fn table_comparisons_are_bounded_by_the_file() {
    let mut mem = Frames::default();
    for (leaf, value) in [(0x50, 5), (0x51, 6)] {
        fill(&mut mem, Mfn(leaf), Word::W64, value);
    }
    for root in [1, 2] {
        table(&mut mem, root, |_| ((root + 2) << 12) | 3);
        table(&mut mem, root + 2, |_| ((root + 4) << 12) | 3);
        table(&mut mem, root + 4, |i| {
            let number = if root == 1 { i / 4 % 4 } else { i % 4 };
            ((10 * root + number) << 12) | 3
        });
        for i in 0..4 {
            table(&mut mem, 10 * root + i, |j| {
                ((0x50 + j / 511 * (root - 1)) << 12) | 3
            });
        }
    }
    const STRETCH: u64 = 512 * 512;
    for (pages, tables) in [(1, 12), (1000, 16)] {
        let mem = Counted::new(&mem, pages);
        let open = |root: u64| {
            let space = Virtual::new(&mem, &X86_64, MachineAddr(root << 12));
            P2m::linear(
                space,
                VirtAddr(ARRAY),
                Word::W64,
                32 * STRETCH,
                Source::Linear,
            )
            .unwrap()
        };
        let got = open(1).compare(&open(2), 3).unwrap();
        let compared = if tables == 16 { 32 } else { tables };
        assert_eq!(got.different, compared * 512);
        assert_eq!(got.equal, compared * (STRETCH - 512));
        assert_eq!(got.unreadable, (32 - compared) * STRETCH);
        let first: Vec<_> = got.first.iter().map(|d| d.pfn.0).collect();
        assert_eq!(first, [0, 1, 2].map(|i| STRETCH - 512 + i));
    }
}

/// One table each. The halves are paired with those of the other in both orders.
#[test]
fn halves_of_tables_are_not_confused() {
    let mut mem = Frames::default();
    for i in 0..3 {
        fill(&mut mem, Mfn(0x50 + i), Word::W64, 7 + i);
    }
    for (root, halves) in [(1, [0x50, 0x51]), (2, [0x52, 0x50])] {
        table(&mut mem, root, |_| ((root + 2) << 12) | 3);
        table(&mut mem, root + 2, |_| ((root + 4) << 12) | 3);
        table(&mut mem, root + 4, |_| ((root + 6) << 12) | 3);
        table(&mut mem, root + 6, |i| (halves[i as usize / 256] << 12) | 3);
    }
    const STRETCH: u64 = 512 * 512;
    let open = |root: u64, start| {
        let space = Virtual::new(&mem, &X86_64, MachineAddr(root << 12));
        let array = VirtAddr(ARRAY + start);
        P2m::linear(space, array, Word::W64, 10 * STRETCH, Source::Linear).unwrap()
    };
    let comparison = open(1, 0).compare(&open(2, 0), 0).unwrap();
    assert_eq!((comparison.equal, comparison.different), (0, 10 * STRETCH));
    let apart = open(1, 0).compare(&open(2, 256 * 4096), 0).unwrap();
    assert_eq!((apart.equal, apart.different), (5 * STRETCH, 5 * STRETCH));
}

/// One table each. All pairs of eight pages occur, eight times.
#[test]
fn page_comparisons_are_bounded_by_the_file() {
    let mut mem = Frames::default();
    for i in 0..8 {
        fill(&mut mem, Mfn(0x50 + i), Word::W64, 7);
    }
    for root in [1, 2] {
        table(&mut mem, root, |_| ((root + 2) << 12) | 3);
        table(&mut mem, root + 2, |_| ((root + 4) << 12) | 3);
        table(&mut mem, root + 4, |_| ((root + 6) << 12) | 3);
        table(&mut mem, root + 6, |i| {
            let number = if root == 1 { i / 8 % 8 } else { i % 8 };
            ((0x50 + number) << 12) | 3
        });
    }
    for (pages, compared) in [(1, 12), (1000, 512)] {
        let mem = Counted::new(&mem, pages);
        let open = |root: u64| {
            let space = Virtual::new(&mem, &X86_64, MachineAddr(root << 12));
            P2m::linear(space, VirtAddr(ARRAY), Word::W64, 512 * 512, Source::Linear).unwrap()
        };
        let got = open(1).compare(&open(2), 3).unwrap();
        assert_eq!(got.equal, compared * 512);
        assert_eq!(got.unreadable, (512 - compared) * 512);
    }
}

/// The addresses of the lists, by format. 32-bit lists may extend beyond the address space.
fn lists() -> [(&'static Format, u64, Word); 5] {
    [
        (&X86, 0xffc0_0000, Word::W32),
        (&X86_PAE, 0xffa0_0000, Word::W32),
        (&X86_64, ARRAY, Word::W64),
        (&X86_64, ARRAY, Word::W32),
        (&X86_64_LA57, ARRAY, Word::W64),
    ]
}

/// [`P2m::spans`], by single lookups and walks only. The list starts at `start`.
fn plain_spans(p2m: &P2m<&Frames>, space: Virtual<&Frames>, start: u64) -> Vec<(Pfn, u64)> {
    let word = p2m.word().bytes() as u64;
    let (mut seen, mut spans) = (HashSet::new(), Vec::<(Pfn, u64)>::new());
    let mut pfn = 0;
    while pfn < p2m.len() {
        let at = start + pfn * word;
        let count = ((4096 - at % 4096) / word).min(p2m.len() - pfn);
        let found = space.translate(VirtAddr(at)).ok();
        if let Some(found) = found.filter(|at| space.memory().0.contains_key(&at.frame())) {
            if seen.insert(found) {
                match spans.last_mut() {
                    Some((first, n)) if first.0 + *n == pfn => *n += count,
                    _ => spans.push((Pfn(pfn), count)),
                }
            }
        }
        pfn += count;
    }
    spans
}

fn plain_runs(entries: &[Entry]) -> Vec<FrameRun> {
    let mut runs = Vec::<FrameRun>::new();
    for (pfn, entry) in (0..).map(Pfn).zip(entries) {
        let Entry::Frame(mfn) = *entry else { continue };
        match runs.last_mut() {
            Some(run) if run.pfn.0 + run.count == pfn.0 && run.mfn.0 + run.count == mfn.0 => {
                run.count += 1;
            }
            _ => runs.push(FrameRun { pfn, mfn, count: 1 }),
        }
    }
    runs
}

fn plain_comparison(ours: &[Entry], theirs: &[Entry], limit: usize) -> Comparison {
    use Special::{Identity, Invalid, NoTable};
    let mut result = Comparison {
        past_end: ours.len().abs_diff(theirs.len()) as u64,
        ..Comparison::default()
    };
    for (pfn, (ours, theirs)) in (0..)
        .map(Pfn)
        .zip(ours.iter().copied().zip(theirs.iter().copied()))
    {
        let (a, b) = (ours, theirs);
        match (ours, theirs) {
            _ if a == b => result.equal += 1,
            (Entry::Special(Identity(_)), Entry::Special(Invalid))
            | (Entry::Special(Invalid), Entry::Special(Identity(_))) => result.hidden_identity += 1,
            _ => {
                let missing = Entry::Special(NoTable);
                if a == missing || b == missing {
                    result.unreadable += 1;
                } else {
                    result.different += 1;
                }
                if result.first.len() < limit {
                    result.first.push(Disagreement { pfn, ours, theirs });
                }
            }
        }
    }
    result
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A list that is read by table gives the results of single lookups, with tables and pages
    /// that are referenced repeatedly or are absent.
    #[test]
    fn lists_agree_with_single_lookups(
        layout in 0..lists().len(),
        leaves in proptest::collection::vec((0u64..1 << 20, 0u64..6), 6),
        tables in proptest::collection::vec((proptest::collection::vec(0u64..12, 1..7), 1u64..9), 3),
        top in proptest::collection::vec(0u64..8, 4),
        starts in [0u64..1 << 17, 0u64..1 << 17],
        lens in [1u64..900_000, 1u64..900_000],
    ) {
        let (format, base, word) = lists()[layout];
        let mut mem = Frames::default();
        let frame = |mfn: u64| (mfn << 12) | 3;
        let (last, above) = format.levels.split_last().unwrap();
        let (second, chain) = above.split_last().unwrap();
        let entries = |level: &Level| u64::from(level.entries());
        let index = |level: &Level| u64::from(level.index(VirtAddr(base)));
        for (n, level) in (1..).zip(chain) {
            let next = if level.permissions { frame(n + 1) } else { (n + 1) << 12 | 1 };
            put(&mut mem, Mfn(n), index(level), format.entry, next);
        }
        let middle = Mfn(1 + chain.len() as u64);
        for (i, choice) in (index(second)..entries(second)).zip(&top) {
            let entry = match choice {
                0 => 0,
                // An absent table, and a reserved bit.
                1 => frame(0xdead),
                2 if format.entry == Word::W32 => (1 << 21) | 0x83,
                2 => 0x2083,
                // A large page that contains all of these pages, and one that contains none.
                3 => 0x83,
                4 => (1 << 30) | 0x83,
                n => frame(5 + n),
            };
            put(&mut mem, middle, i, format.entry, entry);
        }
        for (n, (pattern, step)) in (10..).zip(&tables) {
            for i in 0..entries(last) {
                let entry = match pattern[(i / step) as usize % pattern.len()] {
                    0 => 0,
                    // 0x40 to 0x47; the last two are absent.
                    leaf @ 1..9 => frame(0x3f + leaf),
                    far => frame(0x8_0000 + far * 1024 + i),
                };
                put(&mut mem, Mfn(n), i, format.entry, entry);
            }
        }
        let flag = 1 << (word.bytes() * 8 - 1);
        for (n, (first, kind)) in (0x40..).zip(&leaves) {
            for i in 0..4096 / word.bytes() as u64 {
                let entry = match kind {
                    0 => first + i,
                    1 => word.max(),
                    2 => (flag >> 1) | i,
                    3 => flag | i,
                    _ if i % 7 == *kind => word.max(),
                    _ => first + i,
                };
                put(&mut mem, Mfn(n), i, word, entry);
            }
        }
        // The limit on comparisons depends on the memory held. These comparisons must not exceed it.
        for n in 0x1_0000..0x1_0400 {
            put(&mut mem, Mfn(n), 0, word, 0);
        }
        let space = Virtual::new(&mem, format, MachineAddr(1 << 12));
        let opened: Vec<_> = (0..2)
            .filter_map(|i| {
                // Aligned to entries, and sometimes to pages.
                let start = if starts[i] % 3 == 0 { starts[i] & !0xfff } else { starts[i] & !7 };
                let start = base + start * 8;
                let p2m = P2m::linear(space, VirtAddr(start), word, lens[i], Source::Linear).ok()?;
                Some((Arc::new(p2m), space, start))
            })
            .collect();
        let mut entries = Vec::new();
        for (p2m, space, start) in &opened {
            prop_assert_eq!(p2m.spans(), plain_spans(p2m, *space, *start));
            let all: Vec<_> = (0..p2m.len()).map(|pfn| p2m.resolve(Pfn(pfn))).collect();
            let runs = FrameRuns::new(p2m.clone(), Pfn(0), Pfn(u64::MAX));
            prop_assert_eq!(runs.collect::<Vec<_>>(), plain_runs(&all));
            for mfn in leaves.iter().flat_map(|(first, _)| [*first, first + 100, first + 511]) {
                let lowest = all.iter().position(|entry| *entry == Entry::Frame(Mfn(mfn)));
                prop_assert_eq!(p2m.reverse(Mfn(mfn)), lowest.map(|i| Pfn(i as u64)));
            }
            entries.push(all);
        }
        if let ([(one, ..), (two, ..)], [ours, theirs]) = (&opened[..], &entries[..]) {
            prop_assert_eq!(one.compare(two, 300_000).unwrap(), plain_comparison(ours, theirs, 300_000));
            prop_assert_eq!(two.compare(one, 5).unwrap(), plain_comparison(theirs, ours, 5));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// If several pfns have the same mfn, the lowest one is returned.
    #[test]
    fn reverse_is_the_inverse_of_resolve(
        entries in proptest::collection::vec(0u64..64, 1..600),
        wide in any::<bool>(),
    ) {
        let word = if wide { Word::W64 } else { Word::W32 };
        let pages = entries.chunks(4096 / word.bytes()).enumerate();
        let leaves: Vec<_> = pages.map(|(i, page)| (i as u64, page)).collect();
        let mem = pvops_like(word, &leaves);
        let p2m = P2m::frame_list(&mem, LIST_LIST, word, None).unwrap();
        for mfn in 0..70 {
            let lowest = entries.iter().position(|e| *e == mfn);
            prop_assert_eq!(p2m.reverse(Mfn(mfn)), lowest.map(|i| Pfn(i as u64)));
        }
    }
}
