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
