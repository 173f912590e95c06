//! Targets for files: dumps and images.

use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;
use std::sync::Arc;

use xenkdump::addr::{MachineAddr, VirtAddr};
use xenkdump::dump::{Dump, Run};
use xenkdump::elf::{self, Notes};
use xenkdump::file::{MappedFile, Storage, ZstdFile};
use xenkdump::image::Image;
use xenkdump::limits::MAX_ZSTD_FRAME_SIZE;
use xenkdump::lines::Lines;
use xenkdump::memory::Memory;
use xenkdump::notes::decode;
use xenkdump::p2m::{Entry, P2m};
use xenkdump::symbols::Symbols;
use xenkdump::tracer::Tracer;
use xenkdump::types::Types;

use super::Input;

/// A file in memory, and a path that opens it.
pub(super) fn file(bytes: &[u8]) -> (std::fs::File, PathBuf) {
    // SAFETY: the name is a C string; the descriptor is new, and owned by the `File` alone.
    let file = unsafe {
        let fd = libc::memfd_create(c"hostile".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0);
        std::fs::File::from_raw_fd(fd)
    };
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    (file, path)
}

/// Opens a dump of any container and queries everything once.
pub fn dump(bytes: &[u8]) {
    let (_file, path) = file(bytes);
    let dump = match Dump::open(&path) {
        Ok(dump) => dump,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(dump.warnings().len() <= 65);
    // Blocks of a flattened file that is cut may be lost, and so may frames of one of zstd.
    let is_zstd = dump.format().starts_with("zstd-compressed");
    let is_flattened = is_zstd || dump.format().starts_with("flattened");
    for note in dump.notes() {
        assert!(
            is_flattened || note.desc_size == 0 || dump.desc(note).len() as u64 == note.desc_size
        );
        let _ = format!("{:?}", dump.decode(note));
    }
    let mut buf = [0; 5000];
    let runs: Vec<_> = dump.runs(MachineAddr(0)).take(100).collect();
    assert!(runs.is_empty() || dump.memory_held() > 0 || dump.decodes_pages());
    // A descriptor of 24 bytes may be that of a page.
    let most = if dump.decodes_pages() {
        4096 / 24 + 1
    } else {
        1
    };
    let size = dump.file_size() + u64::from(is_flattened) * (dump.file_size() + (1 << 20));
    // The seek table has at least eight bytes for each frame.
    let size = if is_zstd {
        (size / 8 + 1) * (MAX_ZSTD_FRAME_SIZE + (1 << 20))
    } else {
        size
    };
    assert!(dump.memory_held() <= size * most);
    for Run { start: first, last } in runs {
        let can_read = [first, last].map(|at| dump.read(at, &mut buf[..1]).is_ok());
        // The bitmap of a compressed dump does not tell which pages are intact.
        assert!(dump.decodes_pages() || is_flattened || can_read == [true; 2]);
        let _ = dump.read(first, &mut buf);
        let _ = dump.read(last, &mut buf);
        // Borrowed bytes equal the bytes that are read. Not all memory can be borrowed.
        let borrowed = dump.borrow(first);
        let len = borrowed.len().min(buf.len());
        if len > 0 {
            assert!(dump.read(first, &mut buf[..len]).is_ok());
            assert_eq!(buf[..len], borrowed[..len]);
        }
    }
    for segment in dump.segments().iter().take(100) {
        let end = segment.start.0.wrapping_add(segment.memory_size);
        for at in [end.wrapping_sub(1), end, segment.start.0.wrapping_sub(1)] {
            let _ = dump.read(MachineAddr(at), &mut buf[..16]);
        }
    }
    let _ = dump.read(MachineAddr(u64::MAX), &mut buf);
    let _ = (
        dump.vcpu_contexts(),
        dump.shared_info(),
        dump.auto_translated(),
    );
    if let Some(pairs) = dump.container_p2m() {
        assert!(pairs.is_sorted_by(|a, b| a.0 < b.0));
        let p2m = P2m::container(&dump, pairs, dump.word());
        for (pfn, mfn) in pairs.iter().take(50) {
            if let Entry::Frame(found) = p2m.resolve(*pfn) {
                assert_eq!(found, *mfn);
                assert!(p2m.reverse(found).is_some());
            }
        }
    }
}

/// The sections of `xl dump-core` with valid headers. [`dump`] covers corrupt ones.
pub fn sections(bytes: &[u8]) {
    let mut input = Input(bytes);
    let index = match input.byte() & 1 {
        0 => ".xen_p2m",
        _ => ".xen_pfn",
    };
    let pieces: [_; 4] = std::array::from_fn(|_| input.piece());
    dump(&elf_of(&[
        (".note.Xen", pieces[0]),
        (index, pieces[1]),
        (".xen_prstatus", pieces[2]),
        (".xen_shared_info", pieces[3]),
        (".xen_pages", input.0),
    ]));
}

/// A kdump-compressed dump with valid headers, of one file or split, by itself or flattened. [`dump`]
/// covers corrupt headers.
pub fn kdump(bytes: &[u8]) {
    let mut input = Input(bytes);
    let choice = input.byte();
    let (ram, present) = (input.piece(), input.piece());
    let (notes, descriptors) = (input.piece(), input.piece());
    let file = kdump_of(choice, [ram, present, notes, descriptors], input.0);
    if choice & 0x40 == 0 {
        dump(&file);
    } else {
        dump(&flattened_of(&file, choice));
    }
}

/// A dump of one bitmap block. The parts are cut to their places.
pub fn kdump_of(choice: u8, parts: [&[u8]; 4], pages: &[u8]) -> Vec<u8> {
    const PAGE: usize = 4096;
    let mut file = vec![0; 5 * PAGE];
    let is_64 = choice & 1 == 0;
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(
        0,
        if choice & 2 == 0 {
            b"KDUMP   "
        } else {
            b"DISKDUMP"
        },
    );
    let version = choice >> 2 & 7;
    put(8, &[version]);
    put(12 + 4 * 65, if is_64 { b"x86_64" } else { b"i686\0\0" });
    let (status, word) = if is_64 { (424, 8) } else { (412, 4) };
    let status_bits = if choice & 0x80 == 0 { 0u32 } else { 9 };
    for (i, number) in [status_bits, 4096, 2, 2, 4096 * 8].into_iter().enumerate() {
        put(status + 4 * i, &number.to_le_bytes());
    }
    let split = u32::from(choice & 0x20 != 0);
    put(PAGE + word, &31u32.to_le_bytes());
    put(PAGE + word + 4, &split.to_le_bytes());
    put(PAGE + word + 8, &5u32.to_le_bytes());
    put(PAGE + 2 * word + 8, &600u32.to_le_bytes());
    let regions = PAGE + 3 * word + 8;
    for (i, size) in [40u32, parts[2].len() as u32, 16].into_iter().enumerate() {
        put(regions + i * (8 + word), &(PAGE as u32 + 256).to_le_bytes());
        put(regions + i * (8 + word) + 8, &size.to_le_bytes());
    }
    let numbers = regions + 3 * (8 + word);
    for (i, number) in [5u64, 600, 4096 * 8].into_iter().enumerate() {
        put(numbers + 8 * i, &number.to_le_bytes());
    }
    let notes = parts[2].len().min(2 * PAGE - 256);
    put(PAGE + 256, &parts[2][..notes]);
    for (i, part) in parts[..2].iter().enumerate() {
        put((3 + i) * PAGE, &part[..part.len().min(PAGE)]);
    }
    file.extend(parts[3]);
    file.extend(pages);
    file
}

/// A zstd file: frames of what the input has last, after frames and a seek table that the input gives.
pub fn zstd(bytes: &[u8]) {
    let mut input = Input(bytes);
    let choice = input.byte();
    let (table, frames) = (input.piece(), input.piece());
    let file = zstd_of(choice, table, frames, input.0);
    dump(&file);
    let (_file, path) = self::file(&file);
    let mapped = MappedFile::open(&path).unwrap();
    let obstacle = ZstdFile::obstacle(&mapped);
    let Ok(opened) = ZstdFile::open(mapped, 4096) else {
        assert!(obstacle.is_some_and(|text| !text.is_empty()));
        return;
    };
    assert_eq!(obstacle, None);
    let len = opened.len();
    assert!(len > 0);
    assert!(opened.read_at(len, &mut [0]).is_err());
    for at in [0, 100, 511, 512, len / 2, len.saturating_sub(40)] {
        let mut parts = [[0; 40]; 2];
        let size = 40.min(len.saturating_sub(at)) as usize;
        let read = parts
            .each_mut()
            .map(|part| opened.read_at(at, &mut part[..size]).is_ok());
        assert_eq!(read[0], read[1]);
        assert_eq!(parts[0][..size], parts[1][..size]);
    }
}

/// A zstd file. `choice` says whether the frames have sizes and checksums, and whether there is a table: the
/// right one with `changes` (pairs of an offset and a byte), or what the input gives.
pub fn zstd_of(choice: u8, changes: &[u8], frames: &[u8], contents: &[u8]) -> Vec<u8> {
    let mut context = zstd_safe::CCtx::create();
    for parameter in [
        zstd_safe::CParameter::ContentSizeFlag(choice & 1 != 0),
        zstd_safe::CParameter::ChecksumFlag(choice & 2 != 0),
    ] {
        context.set_parameter(parameter).unwrap();
    }
    let mut out = frames.to_vec();
    let mut entries = Vec::new();
    for part in contents.chunks(512) {
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(part.len()));
        context.compress2(&mut frame, part).unwrap();
        out.extend(&frame);
        entries.extend((frame.len() as u32).to_le_bytes());
        entries.extend((part.len() as u32).to_le_bytes());
    }
    if choice & 4 == 0 {
        return out;
    }
    let mut table = if choice & 8 == 0 {
        let count = entries.len() as u32 / 8;
        entries.extend(count.to_le_bytes());
        entries.push(0);
        entries.extend(0x8f92_eab1_u32.to_le_bytes());
        for change in changes.chunks_exact(2) {
            if let Some(byte) = entries.get_mut(usize::from(change[0])) {
                *byte ^= change[1];
            }
        }
        entries
    } else {
        changes.to_vec()
    };
    out.extend(0x184d_2a5e_u32.to_le_bytes());
    out.extend((table.len() as u32).to_le_bytes());
    out.append(&mut table);
    out
}

/// A flattened file: blocks that overlap, in an order that depends on `choice`.
pub fn flattened_of(file: &[u8], choice: u8) -> Vec<u8> {
    let mut out = b"makedumpfile\0\0\0\0".to_vec();
    out.extend([1u64.to_be_bytes(), 1u64.to_be_bytes()].concat());
    out.resize(4096, 0);
    let size = 1000 + usize::from(choice) * 10;
    let mut starts: Vec<_> = (0..file.len()).step_by(900).collect();
    if choice & 4 != 0 {
        starts.reverse();
    }
    for start in starts {
        let block = &file[start..file.len().min(start + size)];
        out.extend((start as u64).to_be_bytes());
        out.extend((block.len() as u64).to_be_bytes());
        out.extend(block);
    }
    if choice & 8 == 0 {
        out.extend([0xff; 16]);
    }
    out
}

/// Notes of a section or segment, each parsed as every kind.
pub fn notes(bytes: &[u8]) {
    for note in Notes::new(bytes, 0x1000).map_while(Result::ok) {
        for (name, kind) in [
            (note.name, note.kind),
            (b"CORE", 1),
            (b"Xen", 0x100_0001),
            (b"Xen", 0x100_0002),
            (b"Xen Domanin-0 CR3", 0x1000_0001),
            (b"VMCOREINFO", 0),
            (b"VMCOREINFO_XEN", 0),
            (b"QEMU", 0),
            (b"Xen", 0x200_0001),
            (b"Xen", 0x200_0003),
        ] {
            let _ = format!("{:?}", decode(name, kind, note.desc));
        }
    }
}

/// A compressed image, or a kernel as it is booted: what is unpacked is an image.
pub fn packed_image(bytes: &[u8]) {
    let (_file, path) = file(bytes);
    let first = xenkdump::image::head(&path, 64).unwrap();
    assert!(first.len() <= 64);
    match Image::open(&path) {
        Ok(Image::File(image)) => {
            let most = (bytes.len() as u64) * 64 + (16 << 20);
            let held: u64 = image
                .sections()
                .take(200)
                .map(|s| s.data().map_or(0, <[u8]>::len) as u64)
                .sum();
            assert!(held <= most);
            let _ = Symbols::of_image(&Image::File(image));
        }
        Ok(Image::Memory(_)) => unreachable!("a file"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// An image: sections, symbols, unwind tables, types.
pub fn image(bytes: &[u8]) {
    let (_file, path) = file(bytes);
    let Ok(image) = elf::Image::open(&path) else {
        return;
    };
    let mut names = Vec::new();
    for section in image.sections().take(200) {
        let _ = (section.size(), section.address(), section.offset());
        names.push(section.name().to_owned());
        let _ = section.data();
    }
    for name in names.iter().take(50) {
        let _ = image.data(name);
    }
    let _ = image.build_id();
    let spans = image.spans(1 << 20);
    assert!(spans.is_sorted_by(|a, b| a.end <= b.start));
    let image = Image::from(image);
    let Ok(symbols) = Symbols::of_image(&image) else {
        return;
    };
    for span in spans.iter().take(8) {
        for addr in [
            span.start,
            span.end,
            VirtAddr(span.start.0.wrapping_add(0x123)),
        ] {
            let _ = image.read(addr, 16);
            // A name with invalid UTF-8 is shown in part, and cannot be looked up.
            let _ = symbols.lookup(addr).map(|symbol| symbols.get(symbol.name));
            let _ = symbols.nearest(addr);
        }
    }
    let _ = (symbols.get("_stext"), symbols.all("_etext"), symbols.len());
    let _ = symbols.with_slide(-0x1000).lookup(VirtAddr(u64::MAX));
    let types = Types::of_image(&image, None).ok();
    if let Some(types) = &types {
        super::tables::query(types);
    }
    let word = image.word();
    let _ = Tracer::new(
        Some(&Arc::new(image)),
        word,
        &super::Ram::new(0xffff_ffff_8100_0000, bytes),
        &symbols,
        types.as_ref(),
        "6.1.0",
        None,
    );
}

/// An image with DWARF only.
pub fn dwarf(bytes: &[u8]) {
    let mut input = Input(bytes);
    let abbrev = input.piece();
    let strings = input.piece();
    let offsets = input.piece();
    let file = elf_of(&[
        (".debug_abbrev", abbrev),
        (".debug_str", strings),
        (".debug_line_str", strings),
        (".debug_str_offsets", offsets),
        (".debug_info", input.0),
    ]);
    image_types(&file);
}

/// The source lines of an image.
pub fn lines(bytes: &[u8]) {
    let _ = found_lines(bytes);
}

/// The number of addresses with a source line.
pub fn found_lines(bytes: &[u8]) -> usize {
    let mut input = Input(bytes);
    let strings = input.piece();
    let abbrev = input.piece();
    let info = input.piece();
    let (_file, path) = file(&elf_of(&[
        (".text", &[0x90; 64]),
        (".debug_line_str", strings),
        (".debug_str", strings),
        (".debug_abbrev", abbrev),
        (".debug_info", info),
        (".debug_line", input.0),
    ]));
    let image = Image::open(&path).unwrap();
    let Ok(lines) = Lines::of_image(&image) else {
        return 0;
    };
    let addresses: Vec<_> = (0..80)
        .map(|at| VirtAddr(0xffff_ffff_8100_0000 + at))
        .collect();
    let found = lines.find(&addresses);
    assert_eq!(found.len(), addresses.len());
    // What is not in the image has no line, and one address has the same as many.
    for (address, line) in addresses.iter().zip(&found) {
        assert!(line.is_none() || address.0 < 0xffff_ffff_8100_0040);
    }
    for (address, line) in addresses.iter().zip(&found).step_by(16) {
        let alone = lines.find(std::slice::from_ref(address));
        assert_eq!(alone.first(), Some(line));
    }
    let _ = lines.is_incomplete();
    found.iter().flatten().count()
}

fn image_types(bytes: &[u8]) {
    let (_file, path) = file(bytes);
    let image = Image::open(&path).unwrap();
    if let Ok(types) = Types::of_image(&image, None) {
        super::tables::query(&types);
    }
}

/// An ELF64 file of these sections.
pub fn elf_of(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut names = vec![0];
    let mut contents = Vec::new();
    let mut headers = vec![[0u64; 8]];
    let start = 64 + 64 * (sections.len() + 2);
    for (i, (name, bytes)) in sections.iter().enumerate() {
        // A symbol table is followed by its strings.
        let (kind, link) = match *name {
            ".symtab" => (2, i as u64 + 2),
            name if name.starts_with(".note") => (7, 0),
            _ => (1, 0),
        };
        let offset = (start + contents.len()) as u64;
        // Two fields per number: sh_name and sh_type, sh_link and sh_info.
        headers.push([
            names.len() as u64 | kind << 32,
            2 * u64::from(name.starts_with(".text")),
            0xffff_ffff_8100_0000 * u64::from(name.starts_with(".text")),
            offset,
            bytes.len() as u64,
            link,
            1,
            0,
        ]);
        names.extend(name.as_bytes());
        names.push(0);
        contents.extend(*bytes);
    }
    headers.push([
        3 << 32,
        0,
        0,
        (start + contents.len()) as u64,
        names.len() as u64,
        0,
        1,
        0,
    ]);
    contents.extend(names);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    // An executable. A core file has a note and no text.
    let core = sections.iter().any(|(name, _)| *name == ".note.Xen");
    file[16] = if core { 4 } else { 2 };
    file[18] = 62;
    file[40] = 64;
    file[52] = 64;
    file[54] = 56;
    file[58] = 64;
    file[60] = (sections.len() + 2) as u8;
    file[62] = (sections.len() + 1) as u8;
    for field in headers.iter().flatten() {
        file.extend(field.to_le_bytes());
    }
    file.extend(contents);
    file
}
