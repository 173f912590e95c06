use super::table::SCANS;
use super::*;
use crate::addr::Address;

/// A synthetic table of `Elf64_Sym` and its strings.
#[derive(Default)]
struct Symtab {
    symbols: Vec<u8>,
    strings: Vec<u8>,
}

const FUNC: u8 = 2;
const NOTYPE: u8 = 0;
const GLOBAL: u8 = 0x10;
const GNU_UNIQUE: u8 = 0xa0;
const WEAK: u8 = 0x20;

impl Symtab {
    fn add(&mut self, name: &str, info: u8, value: u64, size: u64) -> &mut Self {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        self.symbols
            .extend((self.strings.len() as u32).to_le_bytes());
        self.symbols.extend([info, 0, 1, 0]);
        self.symbols.extend(value.to_le_bytes());
        self.symbols.extend(size.to_le_bytes());
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        self
    }

    fn table(&self, start: u64, end: u64) -> Table {
        let span = VirtAddr(start)..VirtAddr(end);
        elf::of_module(span, self.symbols.clone(), self.strings.clone(), Word::W64)
    }
}

fn names(symbols: &Symbols, addresses: &[u64]) -> Vec<(String, String)> {
    let name = |symbol: Option<Symbol<'_>>| symbol.map_or("-", |s| s.name).to_owned();
    addresses
        .iter()
        .map(|&at| {
            (
                name(symbols.lookup(VirtAddr(at))),
                name(symbols.nearest(VirtAddr(at))),
            )
        })
        .collect()
}

#[test]
fn covering_symbols_precede_the_nearest() {
    let mut symtab = Symtab::default();
    symtab
        .add("entry", FUNC | GLOBAL, 0x1000, 0x100)
        .add("entry_after_hwframe", NOTYPE | GLOBAL, 0x1080, 0)
        .add("gap", NOTYPE, 0x1200, 0)
        .add("_end", NOTYPE | GLOBAL, 0x2000, 0);
    let symbols = Symbols::new(symtab.table(0x1000, 0x2000));
    let both = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        names(&symbols, &[0xfff, 0x1000, 0x1090, 0x1180, 0x1fff, 0x2000]),
        [
            both("-", "-"),
            both("entry", "entry"),
            both("entry", "entry_after_hwframe"),
            both("entry_after_hwframe", "entry_after_hwframe"),
            both("gap", "gap"),
            both("-", "-"),
        ]
    );
    assert_eq!(symbols.get("_end").unwrap().address, VirtAddr(0x2000));
}

#[test]
fn aliases_are_ordered() {
    let mut symtab = Symtab::default();
    symtab
        .add("label", NOTYPE | GLOBAL, 0x1000, 0)
        .add("weak", FUNC | WEAK, 0x1000, 8)
        .add("global", FUNC | GLOBAL, 0x1000, 8)
        .add("later", FUNC | GLOBAL, 0x1000, 8)
        .add("local", FUNC, 0x1000, 8)
        .add("no_size", FUNC | GLOBAL, 0x1000, 0);
    let symbols = Symbols::new(symtab.table(0x1000, 0x2000));
    assert_eq!(symbols.lookup(VirtAddr(0x1004)).unwrap().name, "global");
    assert_eq!(symbols.nearest(VirtAddr(0x1004)).unwrap().name, "global");
}

#[test]
fn duplicates_are_found_global_first() {
    let mut symtab = Symtab::default();
    symtab
        .add("show", FUNC, 0x1400, 8)
        .add("show", FUNC, 0x1100, 8)
        .add("init", FUNC, 0x1000, 8)
        .add("init", FUNC | GLOBAL, 0x1800, 8);
    let symbols = Symbols::new(symtab.table(0x1000, 0x2000));
    let all: Vec<_> = symbols
        .all("show")
        .iter()
        .map(|s| s.address.raw())
        .collect();
    assert_eq!(all, [0x1100, 0x1400]);
    assert_eq!(symbols.get("show").unwrap().address, VirtAddr(0x1100));
    assert_eq!(symbols.get("init").unwrap().address, VirtAddr(0x1800));
    assert_eq!(symbols.get("absent"), None);
    assert_eq!(symbols.len(), 4);
}

#[test]
fn the_slide_applies_to_the_image_only() {
    let mut symtab = Symtab::default();
    symtab.add("start", FUNC | GLOBAL, 0xffff_ffff_8100_0000, 0x100);
    let symbols = Symbols::new(symtab.table(0xffff_ffff_8100_0000, 0xffff_ffff_8200_0000));
    let mut symbols = symbols.with_slide(0x1e00_0000);
    let mut module = Symtab::default();
    module.add("probe", FUNC, 0xffff_ffff_c000_1000, 0x10).add(
        "elsewhere",
        FUNC,
        0xffff_ffff_d000_1000,
        0x10,
    );
    symbols.add_module(
        "ext4",
        VirtAddr(0xffff_ffff_c000_0000),
        VirtAddr(0xffff_ffff_c000_2000),
        module.symbols,
        module.strings,
    );
    assert_eq!(
        symbols.get("start").unwrap().address,
        VirtAddr(0xffff_ffff_9f00_0000)
    );
    let at = |address| {
        symbols
            .lookup(VirtAddr(address))
            .map(|s| (s.name, s.module))
    };
    assert_eq!(at(0xffff_ffff_9f00_0010), Some(("start", None)));
    assert_eq!(at(0xffff_ffff_8100_0010), None);
    assert_eq!(at(0xffff_ffff_c000_1008), Some(("probe", Some("ext4"))));
    assert_eq!(symbols.get("elsewhere"), None);
}

#[test]
fn symbols_of_a_moved_kernel_share_their_table() {
    let mut symtab = Symtab::default();
    symtab.add("start", FUNC | GLOBAL, 0xffff_ffff_9f00_0000, 0x100);
    let running = Symbols::new(symtab.table(0xffff_ffff_9f00_0000, 0xffff_ffff_a000_0000));
    let linked = running.unmoved(0x1e00_0000);
    assert!(Arc::ptr_eq(&running.image, &linked.image));
    let at = |symbols: &Symbols, name| symbols.get(name).unwrap().address;
    assert_eq!(linked.slide(), 0);
    assert_eq!(at(&linked, "start"), VirtAddr(0xffff_ffff_8100_0000));
    let named = |symbols: &Symbols, at| symbols.lookup(VirtAddr(at)).map(|s| s.name.to_owned());
    let start = Some("start".to_owned());
    assert_eq!(named(&linked, 0xffff_ffff_8100_0010), start);
    assert_eq!(named(&linked, 0xffff_ffff_9f00_0010), None);
    // Another slide than that of the kernel, and twice.
    let moved = linked.with_slide(0x100_0000);
    assert_eq!(moved.slide(), 0x100_0000);
    assert_eq!(at(&moved, "start"), VirtAddr(0xffff_ffff_8200_0000));
    assert_eq!(named(&moved, 0xffff_ffff_8200_0010), start);
    let whole = linked.unmoved(-0x1e00_0000);
    assert_eq!(at(&whole, "start"), VirtAddr(0xffff_ffff_9f00_0000));
}

#[test]
fn addresses_wrap_at_the_word_size() {
    assert_eq!(
        apply_slide(VirtAddr(0xc100_0000), 0x4000_0000, Word::W32),
        VirtAddr(0x100_0000)
    );
    assert_eq!(
        apply_slide(VirtAddr(0x10), -0x20, Word::W32),
        VirtAddr(0xffff_fff0)
    );
    assert_eq!(
        apply_slide(VirtAddr(0x10), i64::MIN, Word::W64),
        VirtAddr(0x8000_0000_0000_0010)
    );
}

/// Linux before 5.2 stores the letter of /proc/kallsyms in `st_info`.
#[test]
fn letters_in_st_info_are_decoded() {
    let mut symtab = Symtab::default();
    symtab
        .add("data", b'd', 0x1000, 0)
        .add("text", b't', 0x1000, 0)
        .add("weak", b'W', 0x1000, 0);
    let symbols = Symbols::new(symtab.table(0x1000, 0x2000));
    assert_eq!(symbols.nearest(VirtAddr(0x1000)).unwrap().name, "text");
}

#[test]
fn truncated_tables_are_read_as_far_as_possible() {
    let mut symtab = Symtab::default();
    symtab
        .add("good", FUNC, 0x1000, u64::MAX)
        .add("cut", FUNC, 0x1100, 4);
    symtab.symbols.extend([0xff; 24 + 7]);
    symtab.strings.truncate(symtab.strings.len() - 2);
    let symbols = Symbols::new(symtab.table(0x1000, u64::MAX));
    assert_eq!(symbols.lookup(VirtAddr(0x10ff)).unwrap().name, "good");
    assert_eq!(symbols.nearest(VirtAddr(0x1100)).unwrap().name, "cu");
    assert_eq!(symbols.lookup(VirtAddr(u64::MAX - 1)).unwrap().name, "good");
}

#[test]
fn many_symbols_with_one_name_are_linear() {
    let mut symtab = Symtab::default();
    symtab.add("same", FUNC, 0x1000, 1);
    symtab.symbols = symtab.symbols.repeat(300_000);
    let symbols = Symbols::new(symtab.table(0x1000, 0x2000));
    assert_eq!(symbols.get("same").unwrap().address, VirtAddr(0x1000));
    assert_eq!(symbols.all("same").len(), MAX_SAME_NAMES);
    assert!(symbols.get("other").is_none());
    assert!(symbols.lookup(VirtAddr(0x1800)).is_some());
}

/// A lookup for one symbol does not visit the others.
#[test]
fn the_best_symbol_with_a_name_is_first() {
    let mut symtab = Symtab::default();
    symtab
        .add("same", FUNC | WEAK, 0x1000, 1)
        .add("same", FUNC, 0x1100, 2)
        .add("same", NOTYPE | GLOBAL, 0x1200, 3)
        .add("same", FUNC | GLOBAL, 0x1500, 4)
        .add("same", FUNC | GLOBAL, 0x1300, 0)
        .add("same", FUNC | GLOBAL, 0x1300, 5)
        .add("same", FUNC | GLOBAL, 0x1400, 6);
    let table = symtab.table(0x1000, 0x2000);
    let (same, other) = (Key::of_text(b"same", 0), Key::of_text(b"other", 0));
    // The last ones use the hash table.
    for lookup in 0..2 * SCANS {
        let sizes: Vec<_> = table.named("same", same).map(|found| found.size).collect();
        assert_eq!(sizes, [5, 0, 6, 4, 3, 2, 1], "{lookup}");
        assert!(table.named("other", other).next().is_none());
    }
}

/// A lookup is one search, not one per module. A clone is one reference count.
#[test]
fn lookups_do_not_depend_on_the_number_of_modules() {
    const COUNT: u64 = 200_000;
    let mut symbols = Symbols::new(Symtab::default().table(0x1000, 0x2000));
    let start = |i: u64| VirtAddr(0x1_0000 + i * 0x1000);
    for i in 0..COUNT {
        symbols.add_module("other", start(i), start(i + 1), Vec::new(), Vec::new());
    }
    let mut symtab = Symtab::default();
    symtab.add("probe", FUNC, start(COUNT).0, 8);
    let (table, names) = (symtab.symbols, symtab.strings);
    symbols.add_module("last", start(COUNT), start(COUNT + 1), table, names);
    for i in 0..=COUNT {
        let copy = symbols.clone();
        let found = copy.lookup(start(i)).map(|found| found.name);
        assert_eq!(found, (i == COUNT).then_some("probe"));
        assert_eq!(copy.get("probe").unwrap().address, start(COUNT));
        assert_eq!(copy.get("absent"), None);
    }
}

#[test]
fn earlier_modules_precede_better_symbols() {
    let mut symbols = Symbols::new(Symtab::default().table(0x1000, 0x2000));
    symbols.add_module("empty", VirtAddr(0), VirtAddr(0), Vec::new(), Vec::new());
    for (name, start, bindings) in [
        ("first", 0x9000, [FUNC | WEAK, FUNC]),
        ("second", 0x8000, [FUNC | GLOBAL, FUNC]),
    ] {
        assert_eq!(symbols.all("same").len() % 2, 0);
        let mut symtab = Symtab::default();
        symtab.add("same", bindings[0], start, 8);
        symtab.add("same", bindings[1], start + 16, 8);
        let (table, names) = (symtab.symbols, symtab.strings);
        symbols.add_module(
            name,
            VirtAddr(start),
            VirtAddr(start + 0x1000),
            table,
            names,
        );
    }
    let best = symbols.get("same").unwrap();
    assert_eq!(
        (best.module, best.address),
        (Some("first"), VirtAddr(0x9010))
    );
    let all = symbols.all("same");
    let all: Vec<_> = all.iter().map(|s| (s.module, s.address.raw())).collect();
    let (first, second) = (Some("first"), Some("second"));
    assert_eq!(
        all,
        [
            (second, 0x8000),
            (second, 0x8010),
            (first, 0x9000),
            (first, 0x9010)
        ]
    );
}

#[test]
fn overlapping_modules_are_resolved_to_the_first() {
    let mut symbols = Symbols::new(Symtab::default().table(0x1000, 0x2000));
    for (name, start) in [("first", 0x8000), ("second", 0x8800)] {
        let mut symtab = Symtab::default();
        symtab.add(name, FUNC, start, 0x1000);
        let (table, names) = (symtab.symbols, symtab.strings);
        symbols.add_module(
            name,
            VirtAddr(start),
            VirtAddr(start + 0x1000),
            table,
            names,
        );
    }
    assert_eq!(symbols.lookup(VirtAddr(0x8900)).unwrap().name, "first");
    assert_eq!(symbols.lookup(VirtAddr(0x9100)), None);
    assert_eq!(symbols.get("second").unwrap().address, VirtAddr(0x8800));
}

/// `STB_GNU_UNIQUE` is a global binding.
#[test]
fn unique_symbols_are_global() {
    let mut symtab = Symtab::default();
    symtab
        .add("local", FUNC, 0x1000, 8)
        .add("unique", FUNC | GNU_UNIQUE, 0x1000, 8);
    let symbols = Symbols::new(symtab.table(0x1000, 0x2000));
    assert_eq!(symbols.lookup(VirtAddr(0x1000)).unwrap().name, "unique");
}

fn map(text: &str) -> Result<Symbols> {
    let name = format!("xenkdump-map-{}-{:x}", std::process::id(), text.len());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).unwrap();
    let symbols = Symbols::from_map(&path);
    std::fs::remove_file(&path).unwrap();
    symbols
}

#[test]
fn maps_are_read() {
    let symbols = map("0000000000000000 D __per_cpu_start\n\
                       0000000000001000 d cpu_data\n\
                       0000000001000000 A phys_startup_64\n\
                       ffffffff81000000 T _text\n\
                       ffffffff81000010 t helper\n\
                       this is no symbol\n\
                       ffffffff82000000 B _end\n")
    .unwrap()
    .with_slide(0x100);
    assert_eq!(symbols.word(), Word::W64);
    assert_eq!(symbols.len(), 6);
    assert_eq!(
        symbols.get("helper").unwrap().address,
        VirtAddr(0xffff_ffff_8100_0110)
    );
    assert_eq!(symbols.get("cpu_data").unwrap().address, VirtAddr(0x1000));
    let at = |address| symbols.lookup(VirtAddr(address)).map(|s| s.name);
    assert_eq!(at(0xffff_ffff_8100_0fff), Some("helper"));
    assert_eq!(at(0xffff_ffff_8200_0100), None);
    assert_eq!(at(0x1100), None);
}

/// Found by fuzzing: only the low half of a 64-bit address was looked up.
#[test]
fn addresses_above_the_word_size_are_not_found() {
    let symbols = map("c0100000 T _text\nc0200000 T _end\n").unwrap();
    for high in [1 << 32, 0xffff_ffff_0000_0000] {
        let names = names(&symbols, &[0xc010_0010, high | 0xc010_0010]);
        assert_eq!(names[0].0, "_text");
        assert_eq!(names[1], ("-".to_owned(), "-".to_owned()));
    }
}

#[test]
fn invalid_maps_are_rejected() {
    for text in ["", "\n", "\x7fELF\x02\x01", "c1000000 T\n", "xyz T name\n"] {
        assert!(map(text).is_err(), "{text:?}");
    }
}

#[test]
fn maps_with_too_many_symbols_are_rejected() {
    let path = std::env::temp_dir().join(format!("xenkdump-endless-{}", std::process::id()));
    std::fs::write(&path, "1 T a\n".repeat(9)).unwrap();
    assert_eq!(map::open_within(&path, 9).unwrap().len(), 9);
    let error = map::open_within(&path, 8).err().unwrap().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(error.ends_with("more than 8 of them"), "{error}");
}

#[test]
fn every_symbol_is_visited() {
    let mut image = Symtab::default();
    image
        .add("b", FUNC | GLOBAL, 0x1100, 8)
        .add("a", FUNC | GLOBAL, 0x1000, 8);
    let mut symbols = Symbols::new(image.table(0x1000, 0x2000)).with_slide(0x10);
    let mut module = Symtab::default();
    module.add("c", FUNC, 0x9000, 8);
    let (symtab, strtab) = (module.symbols, module.strings);
    // A module that is added again is ignored.
    for name in ["first", "second", "first"] {
        let (symtab, strtab) = (symtab.clone(), strtab.clone());
        symbols.add_module(name, VirtAddr(0x9000), VirtAddr(0xa000), symtab, strtab);
    }
    let mut cursor = Cursor::default();
    let found: Vec<_> = std::iter::from_fn(|| symbols.next(&mut cursor)).collect();
    let shown: Vec<_> = found
        .iter()
        .map(|symbol| (symbol.name, symbol.address.0, symbol.module))
        .collect();
    assert_eq!(
        shown,
        [
            ("a", 0x1010, None),
            ("b", 0x1110, None),
            ("c", 0x9000, Some("first")),
            ("c", 0x9000, Some("second")),
        ]
    );
    assert_eq!(found.len(), symbols.len());
    assert!(symbols.next(&mut cursor).is_none());
}

/// What a symbol is does not depend on the one before it.
#[test]
fn symbols_of_different_kinds_may_alternate() {
    const SECTION: u8 = 3;
    let infos = [
        FUNC,
        FUNC | GLOBAL,
        NOTYPE,
        SECTION,
        FUNC | WEAK,
        b'd',
        NOTYPE | GNU_UNIQUE,
        b'T',
    ];
    let mut all = Symtab::default();
    let mut pairs = Vec::new();
    for first in infos {
        for second in infos {
            for info in [first, second] {
                let name = format!("symbol{}", pairs.len());
                all.add(&name, info, 0x1000, 8);
                pairs.push((name, info));
            }
        }
    }
    let all = Symbols::new(all.table(0x1000, 0x2000));
    for (name, info) in pairs {
        let mut one = Symtab::default();
        one.add(&name, info, 0x1000, 8);
        let one = Symbols::new(one.table(0x1000, 0x2000));
        assert_eq!(all.get(&name), one.get(&name), "{name} {info:#x}");
    }
}
