//! Tests against small synthetic BTF.

use super::*;
use crate::limits::MAX_TYPE_DEPTH;
use crate::types::graph::{self, Encoding, Place};
use crate::types::question::Question;
use crate::types::{query, shape};
use crate::types::{Bits, Kind, Types};

/// A builder of synthetic BTF.
#[derive(Default)]
struct Synthetic {
    types: Vec<u8>,
    strings: Vec<u8>,
    last: u32,
}

impl Synthetic {
    /// Adds a type. Returns its ID. `info` is the number of members and `kind_flag`.
    fn add(&mut self, name: &str, kind: u32, info: (u32, bool), value: u32, tail: &[u32]) -> u32 {
        let (count, flag) = info;
        let words = [
            self.name(name),
            kind << 24 | count | u32::from(flag) << 31,
            value,
        ];
        for word in words.iter().chain(tail) {
            self.types.extend(word.to_le_bytes());
        }
        self.last += 1;
        self.last
    }

    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// The members of a struct: name, type, offset in bits (with the width of a bit-field in the top 8
    /// bits).
    fn members(&mut self, members: &[(&str, u32, u32)]) -> Vec<u32> {
        let words = members.iter();
        words
            .flat_map(|&(name, ty, offset)| [self.name(name), ty, offset])
            .collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [HEADER as u32, 0, types, types, strings] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}

const NONE: (u32, bool) = (0, false);
/// Signed, 32 bits.
const INT32: u32 = 1 << 24 | 32;

/// BTF with all kinds, and a struct that uses most of them.
fn synthetic() -> Vec<u8> {
    let mut f = Synthetic::default();
    let int = f.add("int", INT, NONE, 4, &[INT32]);
    let byte = f.add("u8", INT, NONE, 1, &[8]);
    // A bit-field as in BTF before Linux 5.0: 3 bits at bit 2.
    let legacy = f.add("int", INT, NONE, 4, &[2 << 16 | 3]);
    let text = f.add("", ARRAY, NONE, 0, &[byte, int, 16]);
    let members = f.members(&[("a", int, 0), ("b", byte, 0)]);
    let union = f.add("", UNION, (2, false), 4, &members);
    let fields = f.members(&[
        ("first", int, 0),
        ("", union, 32),
        ("low", int, 64 | 3 << 24),
        ("high", int, 67 | 5 << 24),
        ("text", text, 96),
        ("next", 7, 256),
        ("state", 10, 320),
    ]);
    let outer = f.add("outer", STRUCT, (7, true), 48, &fields);
    assert_eq!(f.add("", PTR, NONE, 8, &[]), outer + 1);
    f.add("", CONST, NONE, 9, &[]);
    f.add("outer_t", TYPEDEF, NONE, outer, &[]);
    let values = [f.name("down"), -1_i32 as u32, f.name("up"), 1];
    f.add("state", ENUM, (2, true), 4, &values);
    let values = [f.name("huge"), 0, 1];
    f.add("wide", ENUM64, (1, false), 8, &values);
    f.add("gone", FWD, (0, true), 0, &[]);
    f.add("", VOLATILE, NONE, int, &[]);
    f.add("", RESTRICT, NONE, int, &[]);
    let proto = f.add("", FUNC_PROTO, (1, false), 0, &[0, int]);
    f.add("call", FUNC, NONE, proto, &[]);
    f.add("per_cpu", VAR, NONE, int, &[1]);
    f.add(".data..percpu", DATASEC, (1, false), 4, &[17, 0, 4]);
    f.add("double", FLOAT, NONE, 8, &[]);
    f.add("tag", DECL_TAG, NONE, outer, &[0]);
    f.add("user", TYPE_TAG, NONE, int, &[]);
    let old = f.members(&[("plain", int, 0), ("bits", legacy, 32)]);
    f.add("old", STRUCT, (2, false), 8, &old);
    f.bytes()
}

fn types(bytes: Vec<u8>) -> Types {
    Types::from_btf(bytes.into(), Word::W64).unwrap()
}

#[test]
fn all_kinds_are_read() {
    let types = types(synthetic());
    let member = |path| types.member(path).unwrap();
    assert_eq!(types.size_of("outer").unwrap(), 48);
    assert_eq!(member("outer.b").offset, 4);
    let text = member("outer_t.text");
    assert_eq!((text.offset, text.size, text.count), (12, 16, Some(16)));
    assert_eq!(member("outer.text[3]").offset, 15);
    let next = member("outer.next");
    assert_eq!((next.kind, next.size), (Kind::Pointer, 8));
    assert_eq!(next.type_name, "const outer_t *");
    assert_eq!(types.enumerators("state").unwrap()[0], ("down".into(), -1));
    assert_eq!(types.enumerator("huge").unwrap(), 1 << 32);
    assert_eq!(types.members("outer").unwrap().len(), 8);
    // The last type is only found if all others are parsed.
    assert!(types.contains("old"));
    // Names of functions, variables and declared structs are not type names.
    for name in ["call", "per_cpu", "gone", "int"] {
        assert!(!types.contains(name), "{name}");
    }
}

#[test]
fn bit_fields_before_and_since_linux_5_0() {
    let types = types(synthetic());
    let bits = |path| {
        let member = types.member(path).unwrap();
        (member.offset, member.size, member.bits)
    };
    let expected = |offset, size| Some(Bits { offset, size });
    assert_eq!(bits("outer.low"), (8, 4, expected(0, 3)));
    assert_eq!(bits("outer.high"), (8, 4, expected(3, 5)));
    assert_eq!(bits("old.bits"), (4, 4, expected(2, 3)));
    assert_eq!(bits("old.plain"), (0, 4, None));
}

/// For a bit-field that crosses storage units in a packed struct, only the bytes that contain it are
/// read.
#[test]
fn packed_bit_fields_stay_within_the_struct() {
    let mut f = Synthetic::default();
    let int = f.add("int", INT, NONE, 4, &[INT32]);
    let members = f.members(&[("a", int, 5 << 24), ("b", int, 30 | 6 << 24)]);
    f.add("packed", STRUCT, (2, true), 5, &members);
    let short = f.members(&[("c", int, 2 | 3 << 24)]);
    f.add("short", STRUCT, (1, true), 1, &short);
    let types = types(f.bytes());
    let member = |path| types.member(path).unwrap();
    let b = member("packed.b");
    assert_eq!((b.offset, b.size), (3, 2));
    assert_eq!(b.bits, Some(Bits { offset: 6, size: 6 }));
    let c = member("short.c");
    assert_eq!((c.offset, c.size), (0, 1));
    assert_eq!(c.bits, Some(Bits { offset: 2, size: 3 }));
}

#[test]
fn the_first_of_two_types_with_one_name_is_found() {
    let mut f = Synthetic::default();
    f.add("twin", STRUCT, NONE, 4, &[]);
    f.add("twin", STRUCT, NONE, 8, &[]);
    f.add("twin", TYPEDEF, NONE, 2, &[]);
    assert_eq!(types(f.bytes()).size_of("twin").unwrap(), 4);
}

#[test]
fn cycles_terminate() {
    let mut f = Synthetic::default();
    f.add("ring", TYPEDEF, NONE, 2, &[]);
    f.add("", CONST, NONE, 1, &[]);
    let own = f.members(&[("", 3, 0), ("", 3, 8), ("", 3, 16)]);
    f.add("self", STRUCT, (3, false), 8, &own);
    f.add("endless", ARRAY, NONE, 0, &[4, 0, u32::MAX]);
    let member = f.members(&[("all", 4, 0)]);
    f.add("holder", STRUCT, (1, false), 8, &member);
    f.add("", PTR, NONE, 6, &[]);
    let member = f.members(&[("p", 6, u32::MAX)]);
    f.add("pointers", STRUCT, (1, false), 8, &member);
    let types = types(f.bytes());
    assert!(types.size_of("ring").is_err());
    assert!(types.member("ring.x").is_err());
    assert!(types.member("self.x").is_err());
    assert!(types.members("self").is_err());
    assert_eq!(types.member("holder.all").unwrap().size, 0);
    assert_eq!(types.member("pointers.p").unwrap().size, 8);
}

/// Alternating typedefs and arrays share one depth limit.
#[test]
fn the_cost_of_a_chain_is_linear() {
    let mut f = Synthetic::default();
    let int = f.add("int", INT, NONE, 4, &[INT32]);
    let mut ty = int;
    for _ in 0..MAX_TYPE_DEPTH {
        for _ in 0..MAX_TYPE_DEPTH - 2 {
            ty = f.add("again", TYPEDEF, NONE, ty, &[]);
        }
        ty = f.add("", ARRAY, NONE, 0, &[ty, int, 1]);
    }
    let members = f.members(&[("m", ty, 0); 1000]);
    f.add("holder", STRUCT, (1000, false), 4, &members);
    let types = types(f.bytes());
    let budget = shape::budget(MAX_TYPE_DEPTH);
    let layouts = &*types.layouts;
    let question = Question {
        layouts,
        budget: &budget,
    };
    assert_eq!(query::size(question, TypeId(ty.into())), None);
    assert!(!budget.is_exhausted());
    // 64 * 64 steps for each member would exceed the budget.
    let members = types.members("holder").unwrap();
    assert_eq!((members.len(), members[0].1.kind), (1000, Kind::Array));
}

/// An anonymous struct that is a member several times is charged each time.
#[test]
fn members_are_limited() {
    let long = "n".repeat(1023);
    let mut f = Synthetic::default();
    let int = f.add("int", INT, NONE, 4, &[INT32]);
    let name = f.name(&long);
    let of = |f: &mut Synthetic, count: u32, name: u32, ty: u32| {
        let words = [name, ty, 0].repeat(count as usize);
        f.add("", STRUCT, (count, false), 4, &words)
    };
    let wide = of(&mut f, 65535, name, int);
    let few = of(&mut f, 4000, name, int);
    for (name, ty, count) in [("wide", wide, 4), ("long", few, 1), ("some", few, 16)] {
        let members = f.members(&vec![("", ty, 0); count]);
        f.add(name, STRUCT, (count as u32, false), 4, &members);
    }
    f.add("huge", ENUM, (4000, false), 4, &[name, 1].repeat(4000));
    let types = types(f.bytes());
    // Exceeds the budget for one member.
    let error = types.member("wide.m").unwrap_err().to_string();
    assert!(error.contains("more types and members"), "{error}");
    assert_eq!(types.member(&format!("wide.{long}")).unwrap().size, 4);
    let error = types.member("some.m").unwrap_err().to_string();
    assert!(error.contains("there is none"), "{error}");
    // More than 4 MiB of names.
    assert!(types.members("wide").is_err());
    assert!(types.members("some").is_err());
    assert!(types.enumerators("huge").is_err() && types.members("long").is_err());
}

/// Structs and enums larger than any in a kernel.
#[test]
fn large_structs_are_read() {
    let mut f = Synthetic::default();
    let int = f.add("int", INT, NONE, 4, &[INT32]);
    let names: Vec<_> = (0..20_000).map(|i| format!("member_{i}")).collect();
    let members: Vec<_> = names.iter().map(|name| (name.as_str(), int, 0)).collect();
    let members = f.members(&members);
    f.add("large", STRUCT, (20_000, false), 4, &members);
    let values: Vec<_> = names.iter().flat_map(|name| [f.name(name), 7]).collect();
    f.add("values", ENUM, (20_000, false), 4, &values);
    let types = types(f.bytes());
    assert_eq!(types.members("large").unwrap().len(), 20_000);
    assert_eq!(types.enumerators("values").unwrap().len(), 20_000);
    assert!(types.member("large.member_19999").is_ok());
}

#[test]
fn invalid_btf_is_rejected() {
    let error_offset = |bytes: &[u8]| {
        let bytes: Bytes = bytes.to_vec().into();
        Types::from_btf(bytes, Word::W64).unwrap_err().offset
    };
    assert_eq!(error_offset(b""), 0);
    assert_eq!(error_offset(&[0xeb, 0x9f]), 0);
    assert_eq!(error_offset(&[0x9f, 0xeb, 1]), 0);
    let mut short = synthetic();
    short[4] = 20;
    assert_eq!(error_offset(&short), 4);
    let mut long = synthetic();
    long[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(error_offset(&long), 8);
}

/// `synthetic` with a later version or flags, and its warnings; `None` if it is rejected.
fn of_later(version: u8, flags: u8, edit: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<String>> {
    let mut bytes = synthetic();
    (bytes[2], bytes[3]) = (version, flags);
    edit(&mut bytes);
    let types = Types::from_btf(bytes.into(), Word::W64).ok()?;
    assert!(types.contains("old"));
    assert_eq!(types.member("outer.text").unwrap().offset, 12);
    Some(types.warnings())
}

#[test]
fn unknown_versions_and_flags_are_verified() {
    assert_eq!(of_later(1, 0, |_| ()), Some(vec![]));
    for (version, flags, what) in [
        (2, 0, "version 2"),
        (1, 4, "flags 0x4"),
        (9, 1, "version 9"),
    ] {
        let warning = format!("unknown BTF {what}: all types fit the known version");
        assert_eq!(of_later(version, flags, |_| ()), Some(vec![warning]));
        // The second type's name is past the end of the strings.
        let damage = |bytes: &mut Vec<u8>| bytes[HEADER + 16..HEADER + 20].fill(0xff);
        assert_eq!(of_later(version, flags, damage), None);
    }
}

/// Types of `kinds` unknown kinds, with data of this size, before a struct.
fn with_unknown(kinds: u32, tail: impl Fn(u32) -> Vec<u32>) -> Vec<u8> {
    let mut f = Synthetic::default();
    let int = f.add("int", INT, NONE, 4, &[INT32]);
    for kind in 0..kinds {
        for count in [1, 3, 2] {
            f.add("new", 20 + kind, (count, false), 4, &tail(count));
        }
    }
    let members = f.members(&[("a", int, 0), ("b", int, 32), ("new", 2, 64)]);
    let after = f.add("after", STRUCT, (3, false), 16, &members);
    // Members that fill a struct, and others that refer to types by number.
    let byte = f.add("u8", INT, NONE, 1, &[8]);
    let long = f.add("u64", INT, NONE, 8, &[64]);
    let members = f.members(&[("a", after, 0), ("b", long, 128), ("c", byte, 192)]);
    f.add("packed", STRUCT, (3, false), 25, &members);
    let proto = f.add("", FUNC_PROTO, (1, false), 0, &[0, int]);
    f.add("call", FUNC, NONE, proto, &[]);
    f.bytes()
}

#[test]
fn the_size_of_an_unknown_kind_is_found_by_trying() {
    let tails: [&dyn Fn(u32) -> Vec<u32>; 6] = [
        &|_| vec![],
        &|_| vec![7],
        &|_| vec![7; 4],
        &|count| vec![0x7777_7777; count as usize],
        &|count| vec![0x7777_7777; 3 * count as usize],
        &|count| vec![0x7777_7777; 4 * count as usize],
    ];
    for (i, tail) in tails.iter().enumerate() {
        for kinds in 1..=2 {
            let types = types(with_unknown(kinds, tail));
            assert_eq!(types.size_of("after").unwrap(), 16, "tail {i}");
            assert_eq!(types.member("after.b").unwrap().offset, 4);
            // What it is is not known.
            assert_eq!(types.member("after.new").unwrap().size, 0);
            let names = ["kind 20", "kind 20 and kind 21"][kinds as usize - 1];
            let warning =
                format!("unknown {names}: the size was found by trying, and all types fit");
            assert_eq!(types.warnings(), [warning]);
        }
    }
}

#[test]
fn types_that_cannot_be_read_to_the_end_are_rejected() {
    let rejected = |bytes: Vec<u8>| Types::from_btf(bytes.into(), Word::W64).is_err();
    // A size that is no multiple of the count; more unknown kinds than are tried.
    assert!(rejected(with_unknown(1, |count| vec![
        0x7777_7777;
        1 + count as usize
    ])));
    assert!(rejected(with_unknown(3, |_| vec![])));
    // The last type is truncated.
    let mut f = Synthetic::default();
    f.add("int", INT, NONE, 4, &[INT32]);
    f.add("int", INT, NONE, 4, &[]);
    assert!(rejected(f.bytes()));
}

/// Bits of the info that are reserved in Linux 7.3 may become part of the count.
#[test]
fn reserved_bits_are_verified() {
    let mut f = Synthetic::default();
    let int = f.add("int", INT, NONE, 4, &[INT32]);
    let words = [f.name("m"), int, 0].repeat(70_000);
    f.add("wide", STRUCT, (70_000, false), 4, &words);
    f.add("after", STRUCT, NONE, 4, &[]);
    let types = types(f.bytes());
    assert!(types.contains("after"));
    assert_eq!(types.size_of("wide").unwrap(), 4);
    assert!(types.warnings()[0].starts_with("unknown bits"));
    let mut f = Synthetic::default();
    f.add("odd", STRUCT, (1 << 17, false), 4, &[]);
    let rejected = Types::from_btf(f.bytes().into(), Word::W64).is_err();
    assert!(rejected);
}

/// Wrong candidates cost few steps; those of a hostile file end with the budget.
#[test]
fn the_search_for_sizes_is_bounded() {
    let mut f = Synthetic::default();
    // Many candidates fit until shortly before the end.
    f.add("new", 20, NONE, 0, &[]);
    for _ in 0..200_000 {
        f.add("", PTR, NONE, 0, &[]);
    }
    for kind in 21..=26 {
        f.add("new", kind, NONE, 0, &[]);
    }
    let start = std::time::Instant::now();
    assert!(Types::from_btf(f.bytes().into(), Word::W64).is_err());
    assert!(start.elapsed().as_secs() < 20);
}

#[test]
fn corrupt_bytes_do_not_panic() {
    let valid = synthetic();
    let query = |bytes: &[u8]| {
        let Ok(types) = Types::from_btf(bytes.to_vec().into(), Word::W64) else {
            return;
        };
        for name in ["outer", "outer_t", "old", "state", "wide"] {
            let _ = types.size_of(name);
            let _ = types.members(name);
            let _ = types.enumerators(name);
        }
        for path in ["outer.text[1]", "outer.b", "outer.high", "old.bits"] {
            let _ = types.member(path);
        }
        let _ = types.enumerator("huge");
        for id in types.listed().take(100) {
            let _ = (types.describe(id), types.members_of(id), types.stripped(id));
            let _ = (types.enumerators_of(id), types.parameters_of(id));
            let _ = (types.variables_of(id), types.size_of_type(id));
            let _ = (types.spelling(id), types.reachable(&[id]));
        }
    };
    for at in 0..valid.len() {
        for bits in [0x01, 0x04, 0x80, 0xff] {
            let mut corrupt = valid.clone();
            corrupt[at] ^= bits;
            query(&corrupt);
        }
        query(&valid[..at]);
    }
}

/// The first type with a name is found without visiting the others.
#[test]
fn the_first_of_many_types_with_one_name_is_found() {
    let mut f = Synthetic::default();
    for size in 1..=2000 {
        f.add("same", STRUCT, NONE, size, &[]);
        f.add("same", TYPEDEF, NONE, 1, &[]);
    }
    let btf = Btf::new(f.bytes().into(), Word::W64, None).unwrap();
    assert_eq!(btf.find(Tag::Struct, "same"), Some(TypeId(1)));
    assert_eq!(btf.find(Tag::Typedef, "same"), Some(TypeId(2)));
    assert_eq!(btf.find(Tag::Union, "same"), None);
    let names = &btf.index.names;
    for (tag, expected) in [(Tag::Struct, 0), (Tag::Typedef, 1)] {
        let first = names.candidates((tag, &b"same"[..])).next();
        assert_eq!(first, Some(expected));
    }
}

/// BTF that continues `base`, whose types `add` adds; the first of them gets the ID in its argument.
fn split(base: &[u8], add: impl FnOnce(&mut Synthetic, u32)) -> Vec<u8> {
    let of = Btf::new(base.to_vec().into(), Word::W64, None).unwrap();
    let mut f = Synthetic {
        // The names are behind those of the base, without an empty one.
        strings: of.strings().to_vec(),
        last: of.len() as u32,
        ..Synthetic::default()
    };
    add(&mut f, of.len() as u32 + 1);
    f.strings.drain(..of.strings().len());
    f.bytes()
}

#[test]
fn types_of_a_module_continue_those_of_the_kernel() {
    let base = synthetic();
    let kernel = types(base.clone());
    let module = split(&base, |f, first| {
        // It has structs of the kernel, and redefines one.
        let fields = f.members(&[("inner", 6, 0), ("own", first + 1, 48 * 8)]);
        assert_eq!(f.add("driver", STRUCT, (2, false), 56, &fields), first);
        f.add("", PTR, NONE, first, &[]);
        let fields = f.members(&[("new", 1, 32)]);
        f.add("old", STRUCT, (1, false), 16, &fields);
        let values = [f.name("sideways"), 7];
        f.add("direction", ENUM, (1, false), 4, &values);
    });
    let module = kernel.split(module.into()).unwrap();
    assert_eq!(module.source(), kernel.source());
    let own = module.member("driver.own").unwrap();
    assert_eq!(
        (own.offset, own.type_name.as_str()),
        (48, "struct driver *")
    );
    assert_eq!(module.size_of("driver").unwrap(), 56);
    assert_eq!(module.enumerator("sideways").unwrap(), 7);
    assert_eq!(module.enumerator("up").unwrap(), 1);
    assert_eq!(
        module.offset("outer.text").unwrap(),
        kernel.offset("outer.text").unwrap()
    );
    // Its own definition comes first.
    assert_eq!(
        (
            module.size_of("old").unwrap(),
            kernel.size_of("old").unwrap()
        ),
        (16, 8)
    );
    assert_eq!(module.variable("per_cpu").unwrap(), "int");
    assert!(!kernel.contains("driver"));
    // It is no base itself.
    assert!(module.split(base.into()).is_err());
}

#[test]
fn types_of_a_module_of_another_kernel_are_rejected() {
    let base = synthetic();
    let module = split(&base, |f, first| {
        let fields = f.members(&[("inner", 6, 0), ("own", first + 1, 48 * 8)]);
        f.add("driver", STRUCT, (2, false), 56, &fields);
        f.add("", PTR, NONE, first, &[]);
    });
    assert!(types(base).split(module.clone().into()).is_ok());
    let mut other = Synthetic::default();
    other.add("int", INT, NONE, 4, &[INT32]);
    let error = types(other.bytes()).split(module.into()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("types that do not fit the known base"),
        "{error}"
    );
}

/// Each type of `synthetic` by its number.
#[test]
fn types_are_a_graph() {
    let types = types(synthetic());
    let of = |name: &str| types.describe(types.number_of(name).unwrap()).unwrap();
    let ids: Vec<_> = types.listed().collect();
    assert_eq!(
        (ids[0], ids.len()),
        (TypeId(1), types.listed().size_hint().0)
    );
    let kinds: Vec<_> = ids
        .iter()
        .map(|id| types.describe(*id).unwrap().kind.name())
        .collect();
    assert_eq!(
        kinds.join(" "),
        "int int int array union struct ptr const typedef enum enum64 fwd volatile restrict \
         func_proto func var datasec float decl_tag type_tag struct"
    );
    let void = types.describe(TypeId(0)).unwrap();
    assert_eq!((void.kind.name(), void.name.as_str()), ("void", "void"));
    assert!(types.describe(TypeId(ids.len() as u64 + 1)).is_err());
    assert!(types.describe(TypeId(u64::MAX)).is_err());

    let outer = of("struct outer");
    assert_eq!((outer.size, outer.keyword), (Some(48), Some("struct")));
    let members = types.members_of(outer.id).unwrap();
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
            ("text", 96, None),
            ("next", 256, None),
            ("state", 320, None)
        ]
    );
    let text = types.describe(members[4].ty).unwrap();
    assert_eq!((text.count, text.size), (Some(16), None));
    assert_eq!(types.size_of_type(text.id).unwrap(), Some(16));
    assert_eq!(types.describe(text.target.unwrap()).unwrap().name, "u8");
    // The pointer leads back.
    let next = types.describe(members[5].ty).unwrap();
    assert_eq!(types.spelling(next.id).unwrap(), "const outer_t *");
    let target = types.stripped(next.target.unwrap()).unwrap();
    assert_eq!(target, Some(outer.id));

    // Bit-fields before Linux 5.0.
    let old = types.members_of(of("old").id).unwrap();
    assert_eq!((old[1].bit_offset, old[1].bit_size), (34, Some(3)));
    let int = of("int");
    assert_eq!(
        (int.kind, int.size, int.signed),
        (graph::Kind::Int, Some(4), true)
    );
    assert!(!of("u8").signed);
    assert_eq!(of("double").encoding, Some(Encoding::Float));
    let values = types.enumerators_of(of("state").id).unwrap();
    assert_eq!(values, [("down".into(), -1), ("up".into(), 1)]);
    let proto = types.parameters_of(TypeId(15)).unwrap();
    assert_eq!(proto.named, [(String::new(), Some(TypeId(1)))]);
    assert!(!proto.variadic);
    let places = types.variables_of(TypeId(18)).unwrap();
    let place = Place {
        variable: TypeId(17),
        offset: 0,
        size: 4,
    };
    assert_eq!(places, [place]);
    assert_eq!(types.number_of_variable("per_cpu").unwrap(), TypeId(1));
    let gone = types.describe(TypeId(12)).unwrap();
    assert_eq!(
        (gone.kind, gone.keyword),
        (graph::Kind::Forward, Some("union"))
    );
}

#[test]
fn variadic_functions_and_base_types_are_told() {
    let mut f = Synthetic::default();
    let int = f.add("int", INT, NONE, 4, &[INT32]);
    let flag = f.add("_Bool", INT, NONE, 1, &[4 << 24 | 8]);
    let letter = f.add("char", INT, NONE, 1, &[3 << 24 | 8]);
    let name = f.name("format");
    let proto = f.add("", FUNC_PROTO, (2, false), int, &[name, letter, 0, 0]);
    let types = types(f.bytes());
    let found = types.parameters_of(TypeId(proto.into())).unwrap();
    let format = ("format".to_owned(), Some(TypeId(letter.into())));
    assert_eq!((found.named, found.variadic), (vec![format], true));
    let encoding = |id: u32| types.describe(TypeId(id.into())).unwrap().encoding;
    assert_eq!(encoding(int), Some(Encoding::Integer));
    assert_eq!(encoding(flag), Some(Encoding::Boolean));
    assert_eq!(encoding(letter), Some(Encoding::Character));
}

#[test]
fn integers_are_found_by_any_spelling() {
    let mut f = Synthetic::default();
    let names = [
        "int",
        "unsigned int",
        "long unsigned int",
        "long long int",
        "short int",
        "signed char",
        "char",
    ];
    for name in names {
        f.add(name, INT, NONE, 4, &[INT32]);
    }
    let types = types(f.bytes());
    for (name, expected) in [
        ("unsigned long", Some("long unsigned int")),
        ("unsigned long int", Some("long unsigned int")),
        ("long long", Some("long long int")),
        ("unsigned", Some("unsigned int")),
        ("short", Some("short int")),
        ("signed", Some("int")),
        ("char", Some("char")),
        ("signed char", Some("signed char")),
        ("long", None),
        ("unsigned char", None),
        ("unsigned long double", None),
    ] {
        let found = types.number_of(name).ok();
        let found = found.map(|id| types.describe(id).unwrap().name);
        assert_eq!(found.as_deref(), expected, "{name}");
    }
}

#[test]
fn cycles_are_visited_once() {
    let mut f = Synthetic::default();
    // A typedef of itself, and two structs with pointers to each other.
    f.add("ring", TYPEDEF, NONE, 1, &[]);
    f.add("", PTR, NONE, 5, &[]);
    f.add("", PTR, NONE, 4, &[]);
    let member = f.members(&[("b", 2, 0)]);
    f.add("a", STRUCT, (1, false), 8, &member);
    let member = f.members(&[("a", 3, 0)]);
    f.add("b", STRUCT, (1, false), 8, &member);
    let member = f.members(&[("", 6, 0)]);
    f.add("self", STRUCT, (1, false), 8, &member);
    let types = types(f.bytes());
    assert!(types.stripped(TypeId(1)).is_err());
    assert_eq!(types.size_of_type(TypeId(1)).unwrap(), None);
    let reached = |id| types.reachable(&[TypeId(id)]).unwrap();
    assert_eq!(reached(1), [TypeId(1)]);
    assert_eq!(reached(4), [4, 2, 5, 3].map(TypeId));
    assert_eq!(reached(6), [TypeId(6)]);
    let all = [TypeId(1), TypeId(4), TypeId(1)];
    assert_eq!(types.reachable(&all).unwrap(), [1, 4, 2, 5, 3].map(TypeId));
    // One that does not exist.
    assert!(types.reachable(&[TypeId(7)]).is_err());
}

#[test]
fn the_graph_of_a_module_continues_that_of_the_kernel() {
    let base = synthetic();
    let kernel = types(base.clone());
    let module = split(&base, |f, first| {
        let fields = f.members(&[("inner", 6, 0), ("own", first + 1, 48 * 8)]);
        f.add("driver", STRUCT, (2, false), 56, &fields);
        f.add("", PTR, NONE, first, &[]);
        f.add("s64", INT, NONE, 8, &[1 << 24 | 64]);
    });
    let module = kernel.split(module.into()).unwrap();
    let kernels = kernel.listed().count() as u64;
    assert_eq!(module.listed().count() as u64, kernels + 3);
    let driver = module.number_of("struct driver").unwrap();
    assert_eq!(driver, TypeId(kernels + 1));
    let members = module.members_of(driver).unwrap();
    assert_eq!(members[0].ty, kernel.number_of("outer").unwrap());
    let own = module.number_of("s64").unwrap();
    assert_eq!(
        (own, kernel.number_of("s64").is_err()),
        (TypeId(kernels + 3), true)
    );
    assert_eq!(module.number_of("int").unwrap(), TypeId(1));
}

/// The parts of one type are limited.
#[test]
fn the_parts_of_a_type_are_limited() {
    let long = "n".repeat(1023);
    let mut f = Synthetic::default();
    let int = f.add("int", INT, NONE, 4, &[INT32]);
    let name = f.name(&long);
    let wide = f.add(
        "wide",
        STRUCT,
        (65535, false),
        4,
        &[name, int, 0].repeat(65535),
    );
    let proto = f.add(
        "",
        FUNC_PROTO,
        (65535, false),
        0,
        &[name, int].repeat(65535),
    );
    let types = types(f.bytes());
    let error = types.members_of(TypeId(wide.into())).unwrap_err();
    assert!(
        error.to_string().contains("more parts than the limit"),
        "{error}"
    );
    assert!(types.parameters_of(TypeId(proto.into())).is_err());
    assert!(types.reachable(&[TypeId(wide.into())]).is_err());
}
