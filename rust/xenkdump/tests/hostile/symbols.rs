//! Targets for symbol lookups by name and by address.

use xenkdump::addr::VirtAddr;
use xenkdump::image::Image;
use xenkdump::symbols::Symbols;

use super::files::file;
use super::{elf_of, Input};

const TEXT: u64 = 0xffff_ffff_8100_0000;

/// The symbols of an image, of a map, and of a module of either.
pub fn symtab(bytes: &[u8]) {
    let mut input = Input(bytes);
    let choice = input.byte();
    let strings = input.piece();
    let kernel = match choice % 4 {
        0 | 1 => {
            let sections: [(&str, &[u8]); 3] = [
                (".text", &[0x90; 4096]),
                (".symtab", input.0),
                (".strtab", strings),
            ];
            let (_file, path) = file(&elf_of(&sections));
            Image::open(&path).and_then(|image| Symbols::of_image(&image))
        }
        2 => {
            let (_file, path) = file(input.0);
            Symbols::from_map(&path)
        }
        _ => {
            let (_file, path) = file(b"c0100000 T _text\nc0200000 T _end\n");
            Symbols::from_map(&path)
        }
    };
    let Ok(mut kernel) = kernel else { return };
    if choice & 1 == 1 {
        let start = kernel.get("_text").map_or(TEXT, |text| text.address.0);
        let end = VirtAddr(start.wrapping_add(0x2000));
        let (symtab, strtab) = (input.0.to_vec(), strings.to_vec());
        kernel.add_module("a_module", VirtAddr(start), end, symtab, strtab);
    }
    query(&kernel, strings, input.0);
    query(&kernel.with_slide(-0x1000), strings, input.0);
}

fn query(symbols: &Symbols, strings: &[u8], numbers: &[u8]) {
    let names = strings
        .split(|byte| *byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok());
    for name in names.take(32).chain(["_text", "_end", ""]) {
        let all = symbols.all(name);
        assert!(all.len() <= symbols.len());
        assert!(all.iter().all(|symbol| symbol.name == name));
        match symbols.get(name) {
            Some(symbol) => assert!(all.contains(&symbol)),
            None => assert!(all.is_empty()),
        }
    }
    // The link-time address: a slide may wrap an address around 2^64.
    let link = |at: VirtAddr| at.0.wrapping_add_signed(-symbols.slide()) & symbols.word().max();
    let words = numbers
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    for addr in words.take(64).chain((0..64).map(|i| TEXT + 24 * i)) {
        let at = VirtAddr(addr);
        let (found, nearest) = (symbols.lookup(at), symbols.nearest(at));
        // `lookup` finds a symbol exactly if `nearest` finds one at or below the address.
        assert_eq!(found.is_some(), nearest.is_some());
        for symbol in found.into_iter().chain(nearest) {
            assert!(link(symbol.address) <= link(at), "{symbol:?} for {at:?}");
        }
        if let (Some(found), Some(nearest)) = (found, nearest) {
            assert!(link(found.address) <= link(nearest.address));
        }
    }
}
