use super::synthetic::{arrays, modern, old, run_all_queries};
use super::*;
use crate::types::{Bits, Kind, Types};

#[test]
fn references_between_units_are_followed() {
    let types = modern().types(Word::W64, None);
    assert_eq!(types.size_of("outer").unwrap(), 56);
    assert_eq!(types.size_of("outer_t").unwrap(), 56);
    let member = |path| types.member(path).unwrap();
    let first = member("outer.first");
    assert_eq!(
        (first.offset, first.size, first.kind, first.signed),
        (0, 4, Kind::Int, true)
    );
    assert_eq!(member("outer.b").offset, 4);
    let high = member("outer.high");
    assert_eq!((high.offset, high.size), (8, 4));
    assert_eq!(high.bits, Some(Bits { offset: 3, size: 5 }));
    let next = member("outer_t.next");
    assert_eq!((next.size, next.type_name.as_str()), (8, "struct outer *"));
    assert_eq!(types.members("outer").unwrap().len(), 8);
}

#[test]
fn array_dimensions_are_separate() {
    let types = modern().types(Word::W64, None);
    let grid = types.member("outer.grid").unwrap();
    assert_eq!(
        (grid.size, grid.count, grid.type_name.as_str()),
        (24, Some(6), "int[2][3]")
    );
    let row = types.member("outer.grid[1]").unwrap();
    assert_eq!((row.offset, row.size, row.count), (24, 12, Some(3)));
    assert_eq!(types.offset("outer.grid[1][2]").unwrap(), 12 + 5 * 4);
    assert!(types.offset("outer.grid[2]").is_err());
    assert!(types.offset("outer.grid[0][0][0]").is_err());
}

#[test]
fn signed_enums_have_negative_values() {
    let types = modern().types(Word::W64, None);
    let values = types.enumerators("state").unwrap();
    assert_eq!(values, [("down".into(), -1), ("up".into(), 1)]);
    assert_eq!(types.enumerator("up").unwrap(), 1);
    assert!(types.member("outer.state").unwrap().signed);
    assert!(types.enumerator("state").is_err());
}

#[test]
fn declarations_and_local_types_are_skipped() {
    let types = modern().types(Word::W64, None);
    assert_eq!(types.size_of("late").unwrap(), 4);
    assert!(!types.contains("local"));
    assert!(!types.contains("union outer"));
    assert!(types.contains("struct outer"));
}

/// In DWARF 2 and 3, the offset of a bit-field is relative to the most significant bit of its storage
/// unit, and locations are blocks.
#[test]
fn bit_fields_of_dwarf_2_are_converted() {
    let types = old().types(Word::W32, None);
    let bits = |path| types.member(path).unwrap().bits.unwrap();
    assert_eq!(types.offset("old.l").unwrap(), 4);
    assert_eq!(bits("old.l"), Bits { offset: 0, size: 3 });
    assert_eq!(bits("old.h"), Bits { offset: 3, size: 5 });
}

/// The number of members of `old`; `None` if `steps` is not enough to count them.
fn members_within(types: &Types, steps: usize) -> Option<usize> {
    let (layouts, budget) = (&*types.layouts, shape::budget(steps));
    let id = layouts.find(Tag::Struct, "old").unwrap();
    let mut members = 0;
    let _ = layouts.fields(id, &budget, &mut |_| {
        members += 1;
        ControlFlow::Continue(())
    });
    (!budget.is_exhausted()).then_some(members)
}

#[test]
fn array_dimensions_are_limited() {
    let types = arrays(1, MAX_ARRAY_DIMENSIONS).types(Word::W32, None);
    let member = types.member("old.m").unwrap();
    assert_eq!(member.bits, Some(Bits { offset: 0, size: 3 }));
    assert_eq!(
        member.type_name,
        format!("u{}", "[1]".repeat(MAX_ARRAY_DIMENSIONS))
    );
    // Resolving each dimension reads all dimensions once.
    let steps = MAX_ARRAY_DIMENSIONS * (MAX_ARRAY_DIMENSIONS + 4);
    assert_eq!(members_within(&types, steps), Some(1));

    // With more dimensions, the size is unknown, and so is the position of the bit-field.
    let types = arrays(100, 20_000).types(Word::W32, None);
    assert_eq!(
        members_within(&types, 100 * (MAX_ARRAY_DIMENSIONS + 4) + 4),
        Some(0)
    );
    assert!(types.member("old.m").is_err());
}

/// The budget includes the cost of resolving the types of members.
#[test]
fn nested_work_shares_the_budget() {
    let types = arrays(100, MAX_ARRAY_DIMENSIONS).types(Word::W32, None);
    let all = 100 * MAX_ARRAY_DIMENSIONS * (MAX_ARRAY_DIMENSIONS + 4);
    assert_eq!(members_within(&types, all), Some(100));
    assert_eq!(members_within(&types, all / 2), None);
    let layouts = &*types.layouts;
    let id = layouts.find(Tag::Enum, "state").unwrap();
    for (steps, enough) in [(1000, false), (1100, true)] {
        let budget = shape::budget(steps);
        layouts.shape(id, &budget);
        assert_eq!(!budget.is_exhausted(), enough);
    }
}

#[test]
fn corrupt_bytes_do_not_panic() {
    for synthetic in [modern(), old()] {
        for bits in [0x01, 0x80, 0xff] {
            for at in 0..synthetic.info.len() {
                let mut corrupt = synthetic.clone();
                corrupt.info[at] ^= bits;
                run_all_queries(&corrupt.types(Word::W64, None));
            }
            for at in 0..synthetic.abbrev.len() {
                let mut corrupt = synthetic.clone();
                corrupt.abbrev[at] ^= bits;
                run_all_queries(&corrupt.types(Word::W64, None));
            }
        }
        for len in 0..synthetic.info.len() {
            let mut cut = synthetic.clone();
            cut.info.truncate(len);
            run_all_queries(&cut.types(Word::W64, None));
        }
    }
}
