//! Lookups in vectors agree with single ones.

use super::*;

fn reference(table: &[u32], index: u64) -> u32 {
    let entry = usize::try_from(index).ok().and_then(|i| table.get(i));
    entry.copied().unwrap_or(LOOK_UP)
}

fn atomic(numbers: &[u32]) -> Vec<AtomicU32> {
    numbers.iter().copied().map(AtomicU32::new).collect()
}

/// Numbers below 2000, and some that are out of range.
fn pfns(count: u64) -> Vec<Pfn> {
    let far = [u64::MAX, 1 << 63, 1 << 32, 1 << 61];
    let near = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53;
    let all = (0..count).map(|i| match i % 61 {
        7 => far[i as usize % far.len()],
        _ => near(i).min(1999),
    });
    all.map(Pfn).collect()
}

fn compare(pfns: &[Pfn], want: impl Fn(u64) -> u32, run: impl Fn(&[Pfn], &[Cell<Mfn>]) -> u32) {
    for count in [0, 1, 7, 8, 9, 31, 32, 33, 40, 128, pfns.len()] {
        let pfns = &pfns[..count];
        let mut out = vec![Mfn(7); count];
        let worst = run(pfns, Cell::from_mut(out.as_mut_slice()).as_slice_of_cells());
        let wanted: Vec<_> = pfns.iter().map(|pfn| want(pfn.0)).collect();
        assert!(out
            .iter()
            .map(|mfn| mfn.0)
            .eq(wanted.iter().map(|e| u64::from(*e))));
        assert_eq!(worst, wanted.iter().copied().max().unwrap_or(0));
    }
}

#[test]
fn lookups_agree_with_single_ones() {
    let pfns = pfns(1003);
    for len in [0, 1, 511, 1990, 2000] {
        let table: Vec<_> = (0..len).map(|i: u32| i.wrapping_mul(0x9e37_79b9)).collect();
        let shared = atomic(&table);
        compare(
            &pfns,
            |pfn| reference(&table, pfn),
            |pfns, out| flat(&shared, Pfn(0), pfns, out),
        );
        compare(
            &pfns,
            |pfn| reference(&table, pfn),
            |pfns, out| far(&shared, pfns, out),
        );
        let start = 300;
        compare(
            &pfns,
            |pfn| reference(&table, pfn.wrapping_sub(start)),
            |pfns, out| flat(&shared, Pfn(start), pfns, out),
        );
    }
}

#[test]
fn entries_become_mfns_and_statuses() {
    let kinds: [Status; KINDS] = std::array::from_fn(|i| Status::ALL[i + 1]);
    let near = [0, 1, TABLE, SPECIAL - 1, 15, SPECIAL, LOOK_UP, SPECIAL + 7];
    for count in [0, 1, 7, 8, 9, 16, 100] {
        let entries: Vec<_> = (0..count)
            .map(|i: usize| match i % 3 {
                0 => near[i / 3 % near.len()],
                1 => SPECIAL + i as u32 % KINDS as u32,
                _ => (i as u32).wrapping_mul(0x9e37_79b9),
            })
            .collect();
        let want = |entry: &u32| match entry.checked_sub(SPECIAL) {
            Some(kind) => (NONE, kinds[kind as usize]),
            None => (u64::from(*entry), Status::Ok),
        };
        let want: Vec<_> = entries.iter().map(want).collect();
        let cells = |entries: &[u32]| -> Vec<_> {
            let mfns = entries.iter().map(|entry| Cell::new(Mfn((*entry).into())));
            mfns.collect()
        };
        let (from, other) = (cells(&entries), cells(&vec![3; count]));
        let (table, first) = (atomic(&entries), 7_000);
        let pfns: Vec<_> = (first..).map(Pfn).take(count).collect();
        let (mfns, mut statuses) = (cells(&vec![3; count]), vec![Status::Io; count]);
        let worst = decoded(&table, Pfn(first), (&pfns, &mfns), &mut statuses, &kinds);
        assert_eq!(worst, entries.iter().copied().max().unwrap_or(0));
        let found = mfns.iter().map(|mfn| mfn.get().0).zip(statuses);
        assert!(found.eq(want.iter().copied()));
        // Elsewhere, and where they are.
        for out in [&other, &from] {
            let mut statuses = vec![Status::Io; count];
            decode(&from, out, &mut statuses, &kinds);
            let found = out.iter().map(|mfn| mfn.get().0).zip(statuses);
            assert!(found.eq(want.iter().copied()));
        }
    }
}

#[test]
fn consecutive_frames_are_at_a_distance() {
    let first = Pfn(0x5678);
    for count in [0_usize, 1, 7, 8, 9, 20] {
        // The last one: no pfn is different.
        for odd in 0..=count {
            let mut pfns = vec![first; count];
            let mut want = 0;
            if let Some(pfn) = pfns.get_mut(odd) {
                want = 1 << 63 | 1 << (odd + 9) | 1;
                pfn.0 ^= want;
            }
            let out: Vec<_> = pfns.iter().map(|_| AtomicU64::new(5)).collect();
            assert_eq!(consecutive(u64::MAX - 2, first, &pfns, &out), want);
            let found = out.into_iter().map(AtomicU64::into_inner);
            assert!(found.eq(pfns.iter().map(|pfn| pfn.0.wrapping_sub(3))));
        }
    }
}

#[test]
fn pfns_that_are_looked_up_next_have_no_result() {
    let table = atomic(&[4; 300]);
    let pfns = vec![Pfn(9); 300];
    for count in [0, 1, 200, 236, 237, 300] {
        let out: Vec<_> = (0..300).map(|_| AtomicU64::new(5)).collect();
        far(&table, &pfns, &out[..count]);
        let found = out.into_iter().map(AtomicU64::into_inner);
        let want = (0..300).map(|i| if i < count { 4 } else { 5 });
        assert!(found.eq(want));
    }
}

/// Makes a function that has eight vectors during a lookup and returns them doubled twice: the compiler
/// keeps them in registers that the lookup does not change.
#[cfg(target_arch = "x86_64")]
macro_rules! beside {
    ($name:ident, $table:ident, $pfns:ident, $out:ident, $lookup:expr) => {
        #[target_feature(enable = "avx2")]
        fn $name($table: &[AtomicU32], $pfns: &[Pfn], vectors: &[[u64; 4]; 8]) -> [[u64; 4]; 8] {
            use std::arch::x86_64::{__m256i, _mm256_add_epi64};
            use std::mem::transmute;
            let mut entries = [Mfn(0); 64];
            let $out = Cell::from_mut(entries.as_mut_slice()).as_slice_of_cells();
            // SAFETY: any bits are numbers.
            let vectors = unsafe { transmute::<[[u64; 4]; 8], [__m256i; 8]>(*vectors) };
            let [a, b, c, d, e, f, g, h] = vectors;
            let twice = |vector| _mm256_add_epi64(vector, vector);
            let (a, b, c, d) = (twice(a), twice(b), twice(c), twice(d));
            let (e, f, g, h) = (twice(e), twice(f), twice(g), twice(h));
            $lookup;
            let (a, b, c, d) = (twice(a), twice(b), twice(c), twice(d));
            let (e, f, g, h) = (twice(e), twice(f), twice(g), twice(h));
            // SAFETY: as above.
            unsafe { transmute::<[__m256i; 8], [[u64; 4]; 8]>([a, b, c, d, e, f, g, h]) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
#[test]
fn vectors_of_the_caller_are_kept() {
    beside!(by_table, table, pfns, out, {
        vectors::flat(table, Pfn(0), pfns, out)
    });
    beside!(by_summary, table, pfns, out, {
        vectors::summarized(&table[..1], table, pfns, out)
    });
    beside!(with_statuses, table, pfns, out, {
        vectors::decoded(
            table,
            Pfn(0),
            (pfns, out),
            &mut [Status::Ok; 64],
            &[Status::Io; KINDS],
        )
    });
    beside!(in_place, _table, _pfns, out, {
        vectors::decode(out, out, &mut [Status::Ok; 64], &[Status::Io; KINDS])
    });
    beside!(moved, _table, pfns, out, {
        vectors::consecutive(7, Pfn(0), pfns, out)
    });
    if !is_x86_feature_detected!("avx2") {
        return;
    }
    let (table, pfns) = (atomic(&[5; EXTENT]), [Pfn(0); 64]);
    let numbers = |factor| std::array::from_fn(|i| [i as u64 * factor; 4]);
    // SAFETY: the processor has AVX2.
    let found = unsafe {
        [
            by_table(&table, &pfns, &numbers(1)),
            by_summary(&table, &pfns, &numbers(1)),
            with_statuses(&table, &pfns, &numbers(1)),
            in_place(&table, &pfns, &numbers(1)),
            moved(&table, &pfns, &numbers(1)),
        ]
    };
    assert_eq!(found, [numbers(4); 5]);
}

#[test]
fn summaries_agree_with_single_lookups() {
    let pfns = pfns(1003);
    let table: Vec<_> = (0..4 * EXTENT as u32)
        .map(|i| i.wrapping_mul(0x9e37_79b9))
        .collect();
    for summaries in [
        &[][..],
        &[TABLE],
        &[7000, TABLE, 9],
        &[TABLE, 100, SPECIAL + 2, TABLE],
        &[TABLE - 600, LOOK_UP, TABLE, SPECIAL],
    ] {
        let want = |pfn: u64| match reference(summaries, pfn >> EXTENT_SHIFT) {
            first @ 0..TABLE => first + pfn as u32 % EXTENT as u32,
            TABLE => reference(&table, pfn),
            special => special,
        };
        let (summaries, table) = (atomic(summaries), atomic(&table));
        compare(&pfns, want, |pfns, out| {
            summarized(&summaries, &table, pfns, out)
        });
    }
    // Without a table for all of them.
    let short = atomic(&table[..700]);
    let want = |pfn: u64| match pfn {
        0..700 => table[pfn as usize],
        _ => LOOK_UP,
    };
    let summaries = atomic(&[TABLE, TABLE]);
    compare(&pfns, want, |pfns, out| {
        summarized(&summaries, &short, pfns, out)
    });
}
