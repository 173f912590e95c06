use super::synthetic::{arrays, modern, old, run_all_queries, Synthetic, HEADER5};
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

/// `modern` with the version of its second unit changed.
#[test]
fn units_of_unknown_versions_are_reported() {
    let synthetic = modern();
    let all = synthetic.types(Word::W64, None);
    assert!(all.contains("outer"));
    assert_eq!(all.warnings(), [""; 0]);
    // The last unit has the structs, the first the base types.
    let second = 4 + u32::from_le_bytes(synthetic.info[..4].try_into().unwrap()) as usize;
    let mut later = synthetic.clone();
    later.info[second + 4] = 6;
    let types = later.types(Word::W64, None);
    assert!(!types.contains("outer"));
    assert_eq!(
        types.warnings(),
        ["DWARF: 1 units have the unknown version 6; their types are missing"]
    );
    // The units after it are found.
    later.info[second + 4] = 5;
    later.info[4] = 6;
    let types = later.types(Word::W64, None);
    assert!(types.contains("outer"));
    assert_eq!(types.member("outer.first").unwrap().size, 0);
    assert_eq!(types.warnings().len(), 1);
}

/// A form that gimli does not know has no known size.
#[test]
fn unknown_forms_are_reported() {
    use dw::*;
    const UNKNOWN: DwForm = DwForm(0x77);
    let name = (DW_AT_name, DW_FORM_string);
    let of = |member: &[(DwAt, DwForm)], entries: &[u8]| {
        let mut synthetic = Synthetic::default();
        synthetic.abbreviation(1, DW_TAG_compile_unit, true, &[]);
        synthetic.abbreviation(
            2,
            DW_TAG_base_type,
            false,
            &[(DW_AT_byte_size, DW_FORM_data1)],
        );
        synthetic.abbreviation(
            3,
            DW_TAG_structure_type,
            true,
            &[
                name,
                (DW_AT_byte_size, DW_FORM_data1),
                (DW_AT_sibling, DW_FORM_ref1),
            ],
        );
        synthetic.abbreviation(4, DW_TAG_member, false, member);
        synthetic.abbreviation(5, DW_TAG_typedef, false, &[name]);
        synthetic.abbrev.push(0);
        let mut all = vec![1, 2, 4];
        // The sibling is the typedef that follows.
        let sibling = HEADER5 as u8 + 3 + 5 + entries.len() as u8 + 1;
        all.extend([3, b's', 0, 8, sibling]);
        all.extend(entries);
        all.extend([0, 5, b't', 0, 0]);
        synthetic.unit5(DW_UT_compile, &all);
        synthetic.types(Word::W64, None)
    };
    let here = (DW_AT_type, DW_FORM_ref1);
    let at = (DW_AT_data_member_location, DW_FORM_data1);
    let member = [4, b'm', 0, HEADER5 as u8 + 1, 4];
    let sound = of(&[name, here, at], &member);
    assert_eq!(sound.member("s.m").unwrap().offset, 4);
    assert!(sound.contains("t"));
    assert_eq!(sound.warnings(), [""; 0]);
    for member in [
        &[name, here, (DW_AT_data_member_location, UNKNOWN)][..],
        // A location that needs an address.
        &[name, here, (DW_AT_data_member_location, DW_FORM_exprloc)],
    ] {
        let types = of(member, &[4, b'm', 0, HEADER5 as u8 + 1, 1, 0x96]);
        assert!(types.contains("t"));
        assert!(types.member("s.m").is_err());
        assert_eq!(
            types.warnings(),
            ["DWARF: members of some structs are encoded in an unknown way; they are missing"]
        );
    }
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

#[test]
fn types_are_a_graph() {
    let types = modern().types(Word::W64, None);
    let listed: Vec<_> = types
        .listed()
        .map(|id| types.describe(id).unwrap())
        .collect();
    let names: Vec<_> = listed
        .iter()
        .map(|ty| (ty.kind.name(), ty.name.as_str()))
        .collect();
    let expected = [
        ("struct", "late"),
        ("enum", "state"),
        ("struct", "outer"),
        ("typedef", "outer_t"),
    ];
    assert_eq!(names, expected);
    let outer = types.number_of("struct outer").unwrap();
    let members = types.members_of(outer).unwrap();
    let places: Vec<_> = members
        .iter()
        .map(|member| (member.name.as_str(), member.bit_offset, member.bit_size))
        .collect();
    assert_eq!(
        places,
        [
            ("first", 0, None),
            ("", 32, None),
            ("low", 64, Some(3)),
            ("high", 67, Some(5)),
            ("grid", 96, None),
            ("next", 320, None),
            ("state", 384, None)
        ]
    );
    // Each dimension is a type of its own.
    let grid = types.describe(members[4].ty).unwrap();
    let row = types.describe(grid.target.unwrap()).unwrap();
    assert_eq!((grid.count, row.count), (Some(2), Some(3)));
    assert_ne!(grid.id, row.id);
    let int = types.number_of("int").unwrap();
    assert_eq!(row.target, Some(int));
    let int = types.describe(int).unwrap();
    assert_eq!(
        (int.kind.name(), int.size, int.signed),
        ("int", Some(4), true)
    );
    let next = types.describe(members[5].ty).unwrap();
    assert_eq!((next.size, next.target), (Some(8), Some(outer)));
    let state = types.enumerators_of(members[6].ty).unwrap();
    assert_eq!(state, [("down".into(), -1), ("up".into(), 1)]);
    let alias = types.number_of("outer_t").unwrap();
    assert_eq!(types.stripped(alias).unwrap(), Some(outer));
    assert_eq!(types.size_of_type(alias).unwrap(), Some(56));
    let reached = types.reachable(&[alias]).unwrap();
    assert!(reached.contains(&int.id) && reached.contains(&next.id));
    assert!(types.number_of("local").is_err());
    assert!(types.describe(super::TypeId(u64::MAX)).is_err());
}
