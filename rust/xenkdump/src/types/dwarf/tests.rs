//! Against small DWARF written here by hand.

use super::*;
use crate::elf::Bytes;
use crate::types::{Bits, Kind, Source, Types};

/// A forged `.debug_abbrev`, `.debug_info` and `.debug_str`.
#[derive(Clone, Default)]
struct Forged {
    abbrev: Vec<u8>,
    info: Vec<u8>,
    strings: Vec<u8>,
}

fn leb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        bytes.push(if value == 0 { byte } else { byte | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

impl Forged {
    /// Adds an abbreviation: code, tag, whether there are children, attributes and forms.
    fn abbreviation(
        &mut self,
        code: u8,
        tag: dw::DwTag,
        children: bool,
        attributes: &[(dw::DwAt, dw::DwForm)],
    ) {
        self.abbrev.extend(leb(code.into()));
        self.abbrev.extend(leb(tag.0.into()));
        self.abbrev.push(children.into());
        for (name, form) in attributes {
            self.abbrev.extend(leb(name.0.into()));
            self.abbrev.extend(leb(form.0.into()));
        }
        self.abbrev.extend([0, 0]);
    }

    /// Adds a unit of DWARF 5 with these entries; gives where it starts.
    fn unit5(&mut self, kind: dw::DwUt, entries: &[u8]) -> u32 {
        let start = self.info.len() as u32;
        self.info.extend((entries.len() as u32 + 8).to_le_bytes());
        self.info.extend([5, 0, kind.0, 8, 0, 0, 0, 0]);
        self.info.extend(entries);
        start
    }

    /// Adds a unit of DWARF 2 of an i386.
    fn unit2(&mut self, entries: &[u8]) {
        self.info.extend((entries.len() as u32 + 7).to_le_bytes());
        self.info.extend([2, 0, 0, 0, 0, 0, 4]);
        self.info.extend(entries);
    }

    fn types(&self, word: Word, cache: Option<cache::File>) -> Types {
        let sections = Sections {
            info: self.info.clone().into(),
            abbrev: self.abbrev.clone().into(),
            strings: self.strings.clone().into(),
            line_strings: Bytes::from(Vec::new()),
            string_offsets: Bytes::from(Vec::new()),
        };
        Types {
            layouts: Box::new(Dwarf::of_sections(sections, word, cache)),
            source: Source::Dwarf,
            word,
        }
    }
}

/// Size of the header of a unit of DWARF 5.
const HEADER5: u32 = 12;

/// Two units as dwz leaves them: base types in a partial unit, and one that refers to it.
fn modern() -> Forged {
    use dw::*;
    let mut forged = Forged {
        strings: b"\0outer\0".to_vec(),
        ..Forged::default()
    };
    let name = (DW_AT_name, DW_FORM_string);
    let size = (DW_AT_byte_size, DW_FORM_data1);
    let here = (DW_AT_type, DW_FORM_ref4);
    let there = (DW_AT_type, DW_FORM_ref_addr);
    let at = (DW_AT_data_member_location, DW_FORM_data1);
    let bit_size = (DW_AT_bit_size, DW_FORM_data1);
    let bit = (DW_AT_data_bit_offset, DW_FORM_data1);
    let encoding = (DW_AT_encoding, DW_FORM_data1);
    let outer = (DW_AT_name, DW_FORM_strp);
    forged.abbreviation(1, DW_TAG_partial_unit, true, &[]);
    forged.abbreviation(2, DW_TAG_base_type, false, &[size, encoding, name]);
    forged.abbreviation(3, DW_TAG_compile_unit, true, &[]);
    forged.abbreviation(4, DW_TAG_structure_type, true, &[outer, size]);
    forged.abbreviation(5, DW_TAG_member, false, &[name, there, at]);
    forged.abbreviation(6, DW_TAG_member, false, &[here, at]);
    forged.abbreviation(7, DW_TAG_union_type, true, &[size]);
    forged.abbreviation(8, DW_TAG_member, false, &[name, there, bit_size, bit]);
    forged.abbreviation(9, DW_TAG_array_type, true, &[there]);
    forged.abbreviation(
        10,
        DW_TAG_subrange_type,
        false,
        &[(DW_AT_upper_bound, DW_FORM_data1)],
    );
    forged.abbreviation(11, DW_TAG_member, false, &[name, here, at]);
    forged.abbreviation(12, DW_TAG_pointer_type, false, &[here]);
    forged.abbreviation(
        13,
        DW_TAG_structure_type,
        false,
        &[name, (DW_AT_declaration, DW_FORM_flag_present)],
    );
    forged.abbreviation(14, DW_TAG_enumeration_type, true, &[name, size]);
    forged.abbreviation(
        15,
        DW_TAG_enumerator,
        false,
        &[name, (DW_AT_const_value, DW_FORM_sdata)],
    );
    forged.abbreviation(16, DW_TAG_typedef, false, &[name, here]);
    forged.abbreviation(
        17,
        DW_TAG_subprogram,
        true,
        &[(DW_AT_sibling, DW_FORM_ref4)],
    );
    forged.abbreviation(18, DW_TAG_structure_type, true, &[name, size]);
    forged.abbrev.push(0);

    let int = HEADER5 + 1;
    forged.unit5(
        DW_UT_partial,
        &[1, 2, 4, DW_ATE_signed.0, b'i', b'n', b't', 0, 0],
    );

    // Offsets in the second unit, patched in where they are needed before they are known.
    let start = forged.info.len() as u32;
    let mut unit = vec![3];
    let offset = |unit: &Vec<u8>| HEADER5 + unit.len() as u32;
    let put = |unit: &mut Vec<u8>, code: u8, name: &[u8], rest: &[&[u8]]| {
        unit.push(code);
        unit.extend(name);
        if !name.is_empty() {
            unit.push(0);
        }
        for part in rest {
            unit.extend(*part);
        }
    };
    let int4 = int.to_le_bytes();

    // A function with a struct of its own, which is nobody else's.
    let function = unit.len();
    put(&mut unit, 17, b"", &[&[0; 4]]);
    put(&mut unit, 18, b"local", &[&[4], &[0]]);
    put(&mut unit, 0, b"", &[]);
    let past = offset(&unit).to_le_bytes();
    unit[function + 1..function + 5].copy_from_slice(&past);

    // A declaration, then the definition.
    put(&mut unit, 13, b"late", &[]);
    put(&mut unit, 18, b"late", &[&[4]]);
    put(&mut unit, 5, b"x", &[&int4, &[0]]);
    put(&mut unit, 0, b"", &[]);
    // int [2][3]
    let array = offset(&unit).to_le_bytes();
    put(&mut unit, 9, b"", &[&int4, &[10, 1], &[10, 2], &[0]]);
    // union { int a; int b; }
    let union = offset(&unit).to_le_bytes();
    put(&mut unit, 7, b"", &[&[4]]);
    put(&mut unit, 5, b"a", &[&int4, &[0]]);
    put(&mut unit, 5, b"b", &[&int4, &[0]]);
    put(&mut unit, 0, b"", &[]);
    // enum state { down = -1, up = 1 };
    let state = offset(&unit).to_le_bytes();
    put(&mut unit, 14, b"state", &[&[4]]);
    put(&mut unit, 15, b"down", &[&[0x7f]]);
    put(&mut unit, 15, b"up", &[&[1]]);
    put(&mut unit, 0, b"", &[]);
    // struct outer { int first; union { ... }; int low:3, high:5; int grid[2][3];
    //                struct outer *next; enum state state; };
    let outer = offset(&unit).to_le_bytes();
    put(&mut unit, 4, b"", &[&1_u32.to_le_bytes(), &[56]]);
    put(&mut unit, 5, b"first", &[&int4, &[0]]);
    put(&mut unit, 6, b"", &[&union, &[4]]);
    put(&mut unit, 8, b"low", &[&int4, &[3], &[64]]);
    put(&mut unit, 8, b"high", &[&int4, &[5], &[67]]);
    put(&mut unit, 11, b"grid", &[&array, &[12]]);
    let next = unit.len() + 6;
    put(&mut unit, 11, b"next", &[&[0; 4], &[40]]);
    put(&mut unit, 11, b"state", &[&state, &[48]]);
    put(&mut unit, 0, b"", &[]);
    let pointer = offset(&unit).to_le_bytes();
    put(&mut unit, 12, b"", &[&outer]);
    put(&mut unit, 16, b"outer_t", &[&outer]);
    put(&mut unit, 0, b"", &[]);
    unit[next..next + 4].copy_from_slice(&pointer);
    assert_eq!(forged.unit5(DW_UT_compile, &unit), start);
    forged
}

/// struct old { int a; unsigned low:3, high:5; } of an i386, as gcc 4 wrote it.
fn old() -> Forged {
    use dw::*;
    let mut forged = Forged::default();
    let name = (DW_AT_name, DW_FORM_string);
    let size = (DW_AT_byte_size, DW_FORM_data1);
    let ty = (DW_AT_type, DW_FORM_ref4);
    let at = (DW_AT_data_member_location, DW_FORM_block1);
    let (bit_size, bit) = (
        (DW_AT_bit_size, DW_FORM_data1),
        (DW_AT_bit_offset, DW_FORM_data1),
    );
    forged.abbreviation(1, DW_TAG_compile_unit, true, &[]);
    let encoding = (DW_AT_encoding, DW_FORM_data1);
    forged.abbreviation(2, DW_TAG_base_type, false, &[size, encoding, name]);
    forged.abbreviation(3, DW_TAG_structure_type, true, &[name, size]);
    forged.abbreviation(4, DW_TAG_member, false, &[name, ty, at]);
    forged.abbreviation(
        5,
        DW_TAG_member,
        false,
        &[name, ty, size, bit_size, bit, at],
    );
    forged.abbrev.push(0);
    let mut unit = vec![1];
    let int = 11 + unit.len() as u8;
    unit.extend([2, 4, DW_ATE_unsigned.0, b'u', 0]);
    unit.extend(b"\x03old\0\x08");
    let plus = DW_OP_plus_uconst.0;
    unit.extend([4, b'a', 0, int, 0, 0, 0, 2, plus, 0]);
    unit.extend([5, b'l', 0, int, 0, 0, 0, 4, 3, 29, 2, plus, 4]);
    unit.extend([5, b'h', 0, int, 0, 0, 0, 4, 5, 24, 2, plus, 4]);
    unit.extend([0, 0]);
    forged.unit2(&unit);
    forged
}

#[test]
fn members_are_found_across_units() {
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
fn dimensions_are_kept_apart() {
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
fn enums_tell_their_sign() {
    let types = modern().types(Word::W64, None);
    let values = types.enumerators("state").unwrap();
    assert_eq!(values, [("down".into(), -1), ("up".into(), 1)]);
    assert_eq!(types.enumerator("up").unwrap(), 1);
    assert!(types.member("outer.state").unwrap().signed);
    assert!(types.enumerator("state").is_err());
}

#[test]
fn declarations_and_local_types_are_passed_over() {
    let types = modern().types(Word::W64, None);
    assert_eq!(types.size_of("late").unwrap(), 4);
    assert!(!types.contains("local"));
    assert!(!types.contains("union outer"));
    assert!(types.contains("struct outer"));
}

/// DWARF 2 and 3 count a bit-field's bits from the top of its unit, and put locations in blocks.
#[test]
fn bits_of_old_compilers_count_from_the_top() {
    let types = old().types(Word::W32, None);
    let bits = |path| types.member(path).unwrap().bits.unwrap();
    assert_eq!(types.offset("old.l").unwrap(), 4);
    assert_eq!(bits("old.l"), Bits { offset: 0, size: 3 });
    assert_eq!(bits("old.h"), Bits { offset: 3, size: 5 });
}

/// Asks whatever can be asked.
fn ask(types: &Types) {
    for name in ["outer", "outer_t", "late", "old", "state", "struct late"] {
        let _ = types.size_of(name);
        let _ = types.members(name);
        let _ = types.enumerators(name);
    }
    for path in [
        "outer.grid[1][1]",
        "outer.b",
        "outer.high",
        "outer.next",
        "old.h",
    ] {
        let _ = types.member(path);
    }
    let _ = types.enumerator("up");
}

#[test]
fn no_change_of_a_byte_does_harm() {
    for forged in [modern(), old()] {
        for bits in [0x01, 0x80, 0xff] {
            for at in 0..forged.info.len() {
                let mut broken = forged.clone();
                broken.info[at] ^= bits;
                ask(&broken.types(Word::W64, None));
            }
            for at in 0..forged.abbrev.len() {
                let mut broken = forged.clone();
                broken.abbrev[at] ^= bits;
                ask(&broken.types(Word::W64, None));
            }
        }
        for len in 0..forged.info.len() {
            let mut cut = forged.clone();
            cut.info.truncate(len);
            ask(&cut.types(Word::W64, None));
        }
    }
}

fn folder(name: &str) -> PathBuf {
    let name = format!("xenkdump-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

#[test]
fn an_index_outlives_its_run() {
    let forged = modern();
    let folder = folder("kept");
    let file = || cache::File::new(folder.clone(), b"build-id", &forged.info);
    ask(&forged.types(Word::W64, file()));
    let paths: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
    assert_eq!(paths.len(), 1);
    let loaded = file().unwrap().load(forged.info.len()).unwrap();
    let sections = Dwarf::of_sections(
        Sections {
            info: forged.info.clone().into(),
            abbrev: forged.abbrev.clone().into(),
            strings: forged.strings.clone().into(),
            line_strings: Vec::new().into(),
            string_offsets: Vec::new().into(),
        },
        Word::W64,
        None,
    );
    assert_eq!(loaded, *sections.index());
    assert_eq!(
        forged.types(Word::W64, file()).size_of("outer").unwrap(),
        56
    );
    // Another image's index is not taken for this one's.
    let other = cache::File::new(folder.clone(), b"build-id", &forged.info[1..]);
    assert!(other.unwrap().load(forged.info.len()).is_none());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_broken_index_is_as_good_as_none() {
    let forged = modern();
    let folder = folder("broken");
    let file = || cache::File::new(folder.clone(), b"build-id", &forged.info);
    ask(&forged.types(Word::W64, file()));
    let path = folder.join("6275696c642d6964.dwarf");
    let sound = std::fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut broken = sound.clone();
        broken[at] ^= 0x11;
        std::fs::write(&path, &broken).unwrap();
        assert!(file().unwrap().load(forged.info.len()).is_none(), "{at}");
        std::fs::write(&path, &sound[..at]).unwrap();
        assert!(file().unwrap().load(forged.info.len()).is_none(), "{at}");
    }
    // It is built anew.
    let types = forged.types(Word::W64, file());
    assert_eq!(types.size_of("outer").unwrap(), 56);
    assert_eq!(std::fs::read(&path).unwrap(), sound);
    std::fs::remove_dir_all(folder).unwrap();
}

/// What a sound-looking file says is checked against the entries.
#[test]
fn an_index_that_lies_is_found_out() {
    let forged = modern();
    let folder = folder("lying");
    let file = || cache::File::new(folder.clone(), b"build-id", &forged.info);
    let types = forged.types(Word::W64, file());
    ask(&types);
    let mut index = file().unwrap().load(forged.info.len()).unwrap();
    for shift in 0..forged.info.len() as u32 {
        for (_, offset) in &mut index.names {
            *offset = shift;
        }
        file().unwrap().store(&index);
        let types = forged.types(Word::W64, file());
        ask(&types);
        assert!(types.size_of("outer").is_err() || types.size_of("late").is_err());
    }
    std::fs::remove_dir_all(folder).unwrap();
}
