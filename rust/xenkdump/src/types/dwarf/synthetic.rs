//! Small synthetic DWARF sections for tests.

use super::*;
use crate::elf::Bytes;
use crate::types::{Source, Types};
use std::sync::Arc;

/// Synthetic `.debug_abbrev`, `.debug_info` and `.debug_str`.
#[derive(Clone, Default)]
pub(super) struct Synthetic {
    pub(super) abbrev: Vec<u8>,
    pub(super) info: Vec<u8>,
    strings: Vec<u8>,
}

pub(super) fn leb(mut value: u64) -> Vec<u8> {
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

impl Synthetic {
    /// Adds an abbreviation: code, tag, children flag, (attribute, form) pairs.
    pub(super) fn abbreviation(
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

    /// Adds a DWARF 5 unit with these entries. Returns its offset.
    pub(super) fn unit5(&mut self, kind: dw::DwUt, entries: &[u8]) -> u32 {
        let start = self.info.len() as u32;
        self.info.extend((entries.len() as u32 + 8).to_le_bytes());
        self.info.extend([5, 0, kind.0, 8, 0, 0, 0, 0]);
        self.info.extend(entries);
        start
    }

    /// Adds a DWARF 2 unit for i386.
    pub(super) fn unit2(&mut self, entries: &[u8]) {
        self.info.extend((entries.len() as u32 + 7).to_le_bytes());
        self.info.extend([2, 0, 0, 0, 0, 0, 4]);
        self.info.extend(entries);
    }

    pub(super) fn sections(&self) -> Sections {
        Sections {
            info: self.info.clone().into(),
            abbrev: self.abbrev.clone().into(),
            strings: self.strings.clone().into(),
            line_strings: Bytes::from(Vec::new()),
            string_offsets: Bytes::from(Vec::new()),
            unread: sections::Unread::default(),
        }
    }

    pub(super) fn types(&self, word: Word, cache: Option<cache::File>) -> Types {
        Types {
            layouts: Arc::new(Dwarf::of_sections(self.sections(), word, cache)),
            btf: None,
            source: Source::Dwarf,
            word,
            unusable: None,
        }
    }
}

/// Size of the header of a DWARF 5 unit.
pub(super) const HEADER5: u32 = 12;

/// Two units as written by dwz: a partial unit with base types, and a unit that refers to it.
pub(super) fn modern() -> Synthetic {
    use dw::*;
    let mut synthetic = Synthetic {
        strings: b"\0outer\0".to_vec(),
        ..Synthetic::default()
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
    synthetic.abbreviation(1, DW_TAG_partial_unit, true, &[]);
    synthetic.abbreviation(2, DW_TAG_base_type, false, &[size, encoding, name]);
    synthetic.abbreviation(3, DW_TAG_compile_unit, true, &[]);
    synthetic.abbreviation(4, DW_TAG_structure_type, true, &[outer, size]);
    synthetic.abbreviation(5, DW_TAG_member, false, &[name, there, at]);
    synthetic.abbreviation(6, DW_TAG_member, false, &[here, at]);
    synthetic.abbreviation(7, DW_TAG_union_type, true, &[size]);
    synthetic.abbreviation(8, DW_TAG_member, false, &[name, there, bit_size, bit]);
    synthetic.abbreviation(9, DW_TAG_array_type, true, &[there]);
    synthetic.abbreviation(
        10,
        DW_TAG_subrange_type,
        false,
        &[(DW_AT_upper_bound, DW_FORM_data1)],
    );
    synthetic.abbreviation(11, DW_TAG_member, false, &[name, here, at]);
    synthetic.abbreviation(12, DW_TAG_pointer_type, false, &[here]);
    synthetic.abbreviation(
        13,
        DW_TAG_structure_type,
        false,
        &[name, (DW_AT_declaration, DW_FORM_flag_present)],
    );
    synthetic.abbreviation(14, DW_TAG_enumeration_type, true, &[name, size]);
    synthetic.abbreviation(
        15,
        DW_TAG_enumerator,
        false,
        &[name, (DW_AT_const_value, DW_FORM_sdata)],
    );
    synthetic.abbreviation(16, DW_TAG_typedef, false, &[name, here]);
    synthetic.abbreviation(
        17,
        DW_TAG_subprogram,
        true,
        &[(DW_AT_sibling, DW_FORM_ref4)],
    );
    synthetic.abbreviation(18, DW_TAG_structure_type, true, &[name, size]);
    synthetic.abbrev.push(0);

    let int = HEADER5 + 1;
    synthetic.unit5(
        DW_UT_partial,
        &[1, 2, 4, DW_ATE_signed.0, b'i', b'n', b't', 0, 0],
    );

    // Offsets in the second unit. Forward references are patched later.
    let start = synthetic.info.len() as u32;
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

    // A function with a local struct.
    let function = unit.len();
    put(&mut unit, 17, b"", &[&[0; 4]]);
    put(&mut unit, 18, b"local", &[&[4], &[0]]);
    put(&mut unit, 0, b"", &[]);
    let past = offset(&unit).to_le_bytes();
    unit[function + 1..function + 5].copy_from_slice(&past);

    // A declaration, followed by the definition.
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
    assert_eq!(synthetic.unit5(DW_UT_compile, &unit), start);
    synthetic
}

/// `struct old { int a; unsigned low:3, high:5; }` for i386, as written by gcc 4.
pub(super) fn old() -> Synthetic {
    use dw::*;
    let mut synthetic = Synthetic::default();
    let name = (DW_AT_name, DW_FORM_string);
    let size = (DW_AT_byte_size, DW_FORM_data1);
    let ty = (DW_AT_type, DW_FORM_ref4);
    let at = (DW_AT_data_member_location, DW_FORM_block1);
    let (bit_size, bit) = (
        (DW_AT_bit_size, DW_FORM_data1),
        (DW_AT_bit_offset, DW_FORM_data1),
    );
    synthetic.abbreviation(1, DW_TAG_compile_unit, true, &[]);
    let encoding = (DW_AT_encoding, DW_FORM_data1);
    synthetic.abbreviation(2, DW_TAG_base_type, false, &[size, encoding, name]);
    synthetic.abbreviation(3, DW_TAG_structure_type, true, &[name, size]);
    synthetic.abbreviation(4, DW_TAG_member, false, &[name, ty, at]);
    synthetic.abbreviation(
        5,
        DW_TAG_member,
        false,
        &[name, ty, size, bit_size, bit, at],
    );
    synthetic.abbrev.push(0);
    let mut unit = vec![1];
    let int = 11 + unit.len() as u8;
    unit.extend([2, 4, DW_ATE_unsigned.0, b'u', 0]);
    unit.extend(b"\x03old\0\x08");
    let plus = DW_OP_plus_uconst.0;
    unit.extend([4, b'a', 0, int, 0, 0, 0, 2, plus, 0]);
    unit.extend([5, b'l', 0, int, 0, 0, 0, 4, 3, 29, 2, plus, 4]);
    unit.extend([5, b'h', 0, int, 0, 0, 0, 4, 5, 24, 2, plus, 4]);
    unit.extend([0, 0]);
    synthetic.unit2(&unit);
    synthetic
}

/// `struct old` with `members` bit-fields, all of one array type with `dimensions` dimensions, as
/// written by gcc 4; and `enum state` with 1000 enumerators and no encoding.
pub(super) fn arrays(members: usize, dimensions: usize) -> Synthetic {
    use dw::*;
    let mut synthetic = Synthetic::default();
    let name = (DW_AT_name, DW_FORM_string);
    let size = (DW_AT_byte_size, DW_FORM_data1);
    let ty = (DW_AT_type, DW_FORM_ref4);
    let bits = [DW_AT_bit_size, DW_AT_bit_offset].map(|name| (name, DW_FORM_data1));
    synthetic.abbreviation(1, DW_TAG_compile_unit, true, &[]);
    let encoding = (DW_AT_encoding, DW_FORM_data1);
    synthetic.abbreviation(2, DW_TAG_base_type, false, &[size, encoding, name]);
    synthetic.abbreviation(3, DW_TAG_structure_type, true, &[name, size]);
    synthetic.abbreviation(4, DW_TAG_member, false, &[name, ty, bits[0], bits[1]]);
    synthetic.abbreviation(5, DW_TAG_array_type, true, &[ty]);
    let bound = (DW_AT_upper_bound, DW_FORM_data1);
    synthetic.abbreviation(6, DW_TAG_subrange_type, false, &[bound]);
    synthetic.abbreviation(7, DW_TAG_enumeration_type, true, &[name, size]);
    let value = (DW_AT_const_value, DW_FORM_data1);
    synthetic.abbreviation(8, DW_TAG_enumerator, false, &[name, value]);
    synthetic.abbrev.push(0);
    let mut unit = vec![1];
    let int = 11 + unit.len() as u8;
    unit.extend([2, 4, DW_ATE_unsigned.0, b'u', 0]);
    let array = 11 + unit.len() as u8;
    unit.extend([5, int, 0, 0, 0]);
    unit.extend([6, 0].repeat(dimensions));
    unit.extend(b"\0\x03old\0\x08");
    unit.extend([4, b'm', 0, array, 0, 0, 0, 3, 29].repeat(members));
    unit.extend(b"\0\x07state\0\x04");
    unit.extend([8, b'v', 0, 1].repeat(1000));
    unit.extend([0, 0]);
    synthetic.unit2(&unit);
    synthetic
}

/// Runs all queries and ignores their results.
pub(super) fn run_all_queries(types: &Types) {
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
    let _ = types.number_of("int");
    for id in types.listed().take(100) {
        let _ = (types.describe(id), types.members_of(id), types.stripped(id));
        let _ = (types.enumerators_of(id), types.parameters_of(id));
        let _ = (types.size_of_type(id), types.spelling(id));
        let _ = types.reachable(&[id]);
    }
}
