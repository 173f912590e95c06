//! A kernel's table of symbols, in memory behind page tables.

use xenkdump::addr::{MachineAddr, VirtAddr, Word, PAGE_SIZE};
use xenkdump::image::{Image, MemoryImage, Place};
use xenkdump::memory::Frames;
use xenkdump::paging::{Format, Virtual};
use xenkdump::space::Tables;
use xenkdump::symbols::Symbols;
use xenkdump::types::Types;

/// Where the bytes are mapped.
pub const BASE: u64 = 0xffff_ffff_8100_0000;
const ROOT: u64 = 0x10_0000;
const FIRST: u64 = 0x20_0000;
/// Pages behind one table.
const PAGES: usize = 512;

/// kallsyms as since Linux 6.4, without compression, then a banner and an empty BTF. `offset` gets the
/// number of a symbol, and where the banner is, and returns where the symbol is from [`BASE`] on.
pub fn kallsyms_of(names: &[impl AsRef<[u8]>], offset: impl Fn(usize, u32) -> u32) -> Vec<u8> {
    let mut table = vec![0x90; 64];
    table.extend((names.len() as u64).to_le_bytes());
    let start = table.len();
    let mut marks: Vec<u32> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let name = name.as_ref();
        if i % 256 == 0 {
            marks.push((table.len() - start) as u32);
        }
        table.push(name.len() as u8);
        table.extend(name);
    }
    table.resize(table.len().next_multiple_of(8), 0);
    table.extend(marks.iter().flat_map(|mark| mark.to_le_bytes()));
    table.resize(table.len().next_multiple_of(8), 0);
    // Unused bytes have empty tokens.
    let mut index: Vec<u16> = Vec::new();
    let mut tokens = Vec::new();
    for byte in 0..=255u8 {
        index.push(tokens.len() as u16);
        tokens.extend(Some(byte).filter(u8::is_ascii_graphic));
        tokens.push(0);
    }
    table.extend(&tokens);
    table.resize(table.len().next_multiple_of(8), 0);
    table.extend(index.iter().flat_map(|at| at.to_le_bytes()));
    let offsets_end = (table.len() + 4 * names.len()).next_multiple_of(8);
    let after = offsets_end as u32 + 8;
    for i in 0..names.len() {
        table.extend(offset(i, after).to_le_bytes());
    }
    table.resize(offsets_end, 0);
    table.extend(BASE.to_le_bytes());
    table.extend(b"Linux version 6.4.0 #1\n\0");
    table.extend([0x9f, 0xeb, 1, 0, 24, 0, 0, 0]);
    table.extend([0; 16]);
    table
}

/// The bytes are the memory of a kernel's image from [`BASE`] on.
pub fn kallsyms(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(PAGES * PAGE_SIZE)];
    let mut frames = Frames::default();
    let table = |frames: &mut Frames, at: u64, index: u64, entry: u64| {
        frames.write(MachineAddr(at + index * 8), &(entry | 0x67).to_le_bytes());
    };
    for (level, shift) in [39, 30, 21].into_iter().enumerate() {
        let at = ROOT + 0x1000 * level as u64;
        table(&mut frames, at, BASE >> shift & 511, at + 0x1000);
    }
    for (i, page) in bytes.chunks(PAGE_SIZE).enumerate() {
        let at = FIRST + (i * PAGE_SIZE) as u64;
        table(&mut frames, ROOT + 0x3000, i as u64, at);
        frames.write(MachineAddr(at), page);
    }
    let format = Format::by_name("x86_64").unwrap();
    let space = Virtual::new(Tables::Machine(frames), format, MachineAddr(ROOT));
    for (word, token_table) in [(Word::W64, None), (Word::W32, Some(VirtAddr(BASE)))] {
        let place = Place {
            ranges: vec![(VirtAddr(BASE), VirtAddr(BASE + 0xff_ffff))],
            token_table,
        };
        let Ok(image) = MemoryImage::find(&space, "memory", word, &place) else {
            continue;
        };
        let image = image.with_variables(vec![(b"added".to_vec(), BASE)]);
        let image = Image::Memory(image.with_slide(0x1000).into());
        for section in image.sections() {
            let _ = (image.content(&section.name), image.data(&section.name));
        }
        let _ = (image.losses(), image.build_id());
        let symbols = Symbols::of_image(&image).unwrap();
        let _ = (symbols.get("_text"), symbols.all("linux_banner"));
        let _ = symbols.lookup(VirtAddr(BASE + 0x100));
        if let Ok(types) = Types::of_image(&image, None) {
            super::tables::query(&types);
        }
    }
}
