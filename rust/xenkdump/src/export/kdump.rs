//! kdump-compressed files, as makedumpfile lays them out: headers, notes, bitmaps, descriptors, pages.
//!
//! The first bitmap has the pages of the machine, the second those in the file, whose descriptors are in
//! the order of their numbers. Bitmaps and descriptors are written as the pages are.

use std::fs::File;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::{Compress, FlushCompress, Status};
use zstd_safe::CCtx;

use super::job::{Control, Export, Failure, Report};
use super::output::{self, Appender, Fields};
use super::pages::{self, Chunk, Kind, PageRun, CHUNK_PAGES};
use super::pipeline::{self, Writer};
use crate::addr::PAGE_SIZE;
use crate::alloc;
use crate::limits::MAX_KDUMP_PAGES;

const SIGNATURE: &[u8] = b"KDUMP   ";
/// With offsets of notes and erased data, and page frame numbers of 64 bits.
const VERSION: u32 = 6;
const UTSNAME_FIELD: usize = 65;
/// Offset of `status`, after `struct timeval`, with 32 and with 64 bits.
const STATUS: [usize; 2] = [412, 424];
/// The size of `struct kdump_sub_header`.
const SUB_HEADER: [u64; 2] = [80, 104];
/// Flags of a descriptor and of the header.
const ZLIB: u32 = 0x1;
const ZSTD: u32 = 0x20;
const DESCRIPTOR: u64 = 24;
/// Pages whose bits are in a block of a bitmap.
const BLOCK_BITS: u64 = PAGE_SIZE as u64 * 8;

/// How pages are compressed, each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Stored,
    /// By zlib at its fastest level, as makedumpfile does.
    Zlib,
    /// By zstd at level 1.
    Zstd,
}

/// The headers of a kdump-compressed file.
#[derive(Clone, Debug)]
pub struct Kdump {
    /// Whether the headers are those of a 64-bit makedumpfile.
    pub is_64: bool,
    /// The compression.
    pub compression: Compression,
    /// `dump_level`.
    pub level: u32,
    /// `utsname`: sysname, nodename, release, version, machine, domainname.
    pub utsname: [Vec<u8>; 6],
    /// The notes.
    pub notes: Vec<u8>,
    /// Offset and size of the text of VMCOREINFO in the notes; size 0 without one.
    pub vmcoreinfo: (u64, u64),
    /// `phys_base`.
    pub phys_base: u64,
    /// `nr_cpus`.
    pub cpus: u32,
}

/// The offsets of the parts of the file.
struct Layout {
    max_mapnr: u64,
    sub_blocks: u64,
    bitmap_blocks: u64,
    /// The second bitmap.
    bitmap: u64,
    descriptors: u64,
    data: u64,
}

/// Writes a kdump-compressed file.
pub(super) fn write(
    export: &Export<'_>,
    kdump: &Kdump,
    file: &File,
    control: &Control,
) -> Result<Report, Failure> {
    let count = pages::total(export.pages);
    let (report, written) = kdump.write_pages(export, file, control, count)?;
    if written == count || report.is_stopped {
        return Ok(report);
    }
    // Some pages cannot be read. Readers take the number of descriptors from where the data starts.
    output::resize(file, 0)?;
    let (report, _) = kdump.write_pages(export, file, control, written)?;
    Ok(report)
}

/// Writes the first bitmap.
fn write_bitmap(file: &File, offset: u64, export: &Export<'_>) -> io::Result<()> {
    let mut bitmap = Bitmap::new(offset);
    for run in export.all_pages {
        bitmap.set_run(file, *run)?;
    }
    bitmap.flush(file)
}

/// A bitmap whose bits are set in ascending order; blocks without a bit are not written.
struct Bitmap {
    offset: u64,
    /// The number of the block in memory.
    number: u64,
    block: Vec<u8>,
}

impl Bitmap {
    fn new(offset: u64) -> Self {
        Self {
            offset,
            number: 0,
            block: alloc::filled(0, PAGE_SIZE),
        }
    }

    fn set(&mut self, file: &File, bit: u64) -> io::Result<()> {
        if bit / BLOCK_BITS != self.number {
            self.flush(file)?;
            self.number = bit / BLOCK_BITS;
        }
        if let Some(byte) = self.block.get_mut((bit % BLOCK_BITS / 8) as usize) {
            *byte |= 1 << (bit % 8);
        }
        Ok(())
    }

    fn set_run(&mut self, file: &File, run: PageRun) -> io::Result<()> {
        let mut bit = run.first;
        while bit < run.end() {
            self.set(file, bit)?;
            bit += 1;
            // Whole bytes, up to the end of the block.
            let whole = (run.end().min(bit.next_multiple_of(BLOCK_BITS)) - bit) / 8;
            if bit.is_multiple_of(8) && !bit.is_multiple_of(BLOCK_BITS) && whole > 0 {
                let start = (bit % BLOCK_BITS / 8) as usize;
                let bytes = self.block.get_mut(start..start + whole as usize);
                bytes.unwrap_or_default().fill(0xff);
                bit += whole * 8;
            }
        }
        Ok(())
    }

    fn flush(&mut self, file: &File) -> io::Result<()> {
        if self.block.iter().any(|byte| *byte != 0) {
            let at = self.offset + self.number * PAGE_SIZE as u64;
            output::write(file, at, &self.block)?;
            self.block.fill(0);
        }
        Ok(())
    }
}

impl Kdump {
    fn size(&self) -> u64 {
        let [small, large] = SUB_HEADER;
        if self.is_64 {
            large
        } else {
            small
        }
    }

    /// Writes a file with `count` descriptors; returns also how many there are.
    fn write_pages(
        &self,
        export: &Export<'_>,
        file: &File,
        control: &Control,
        count: u64,
    ) -> Result<(Report, u64), Failure> {
        let layout = self.layout(export, count)?;
        output::write(file, 0, &self.header(&layout))?;
        output::write(file, PAGE_SIZE as u64, &self.sub_header(&layout))?;
        // What is not written is a hole.
        output::resize(file, layout.data)?;
        write_bitmap(file, (1 + layout.sub_blocks) * PAGE_SIZE as u64, export)?;
        // One page of zeros for all, as of makedumpfile with level 1: they are not excluded. It is stored:
        // readers expect its size before the first page.
        output::write(file, layout.data, &[0; PAGE_SIZE])?;
        let writer = KdumpWriter {
            kdump: self,
            file,
            zero: Page {
                offset: layout.data,
                size: PAGE_SIZE as u32,
                flags: 0,
            },
        };
        let state = State {
            bitmap: Bitmap::new(layout.bitmap),
            descriptors: Appender::new(layout.descriptors),
            written: 0,
            end: layout.data + PAGE_SIZE as u64,
        };
        let (mut state, report, _) = pipeline::run(export, &writer, state, control)?;
        state.bitmap.flush(file)?;
        state.descriptors.flush(file)?;
        output::resize(file, state.end)?;
        Ok((report, state.written))
    }

    fn layout(&self, export: &Export<'_>, count: u64) -> Result<Layout, Failure> {
        let runs = export
            .pages
            .last()
            .into_iter()
            .chain(export.all_pages.last());
        let max_mapnr = runs.map(PageRun::end).max().unwrap_or(0);
        if max_mapnr > MAX_KDUMP_PAGES {
            let text = format!(
                "memory up to {max_mapnr:#x} pages: kdump-compressed files of more than \
                 {MAX_KDUMP_PAGES:#x} are not written"
            );
            return Err(Failure::Limit(text));
        }
        let block = PAGE_SIZE as u64;
        let sub_blocks = (self.size() + self.notes.len() as u64).div_ceil(block);
        let bitmap_blocks = 2 * max_mapnr.div_ceil(BLOCK_BITS);
        let bitmaps = (1 + sub_blocks) * block;
        let descriptors = bitmaps + bitmap_blocks * block;
        // Without a gap: readers take the number of descriptors from it.
        let data = descriptors + count * DESCRIPTOR;
        Ok(Layout {
            max_mapnr,
            sub_blocks,
            bitmap_blocks,
            bitmap: bitmaps + bitmap_blocks / 2 * block,
            descriptors,
            data,
        })
    }

    /// `struct disk_dump_header`.
    fn header(&self, layout: &Layout) -> Vec<u8> {
        let mut out = Fields::default();
        out.bytes(SIGNATURE).u32(VERSION);
        for field in &self.utsname {
            let end = out.0.len() + UTSNAME_FIELD;
            let kept = field.get(..UTSNAME_FIELD - 1).unwrap_or(field);
            out.bytes(kept).pad_to(end);
        }
        let [small, large] = STATUS;
        let status = if self.is_64 { large } else { small };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let time_size = if self.is_64 { 16 } else { 8 };
        out.pad_to(status - time_size)
            .word(now.as_secs(), self.is_64)
            .word(now.subsec_micros().into(), self.is_64);
        out.u32(match self.compression {
            Compression::Stored => 0,
            Compression::Zlib => ZLIB,
            Compression::Zstd => ZSTD,
        });
        out.u32(PAGE_SIZE as u32)
            .u32(layout.sub_blocks as u32)
            .u32(layout.bitmap_blocks as u32)
            .u32(u32::try_from(layout.max_mapnr).unwrap_or(u32::MAX));
        // total_ram_blocks, device_blocks, written_blocks, current_cpu.
        out.u32(0).u32(0).u32(0).u32(0).u32(self.cpus);
        out.0
    }

    /// `struct kdump_sub_header`, and the notes after it.
    fn sub_header(&self, layout: &Layout) -> Vec<u8> {
        let is_64 = self.is_64;
        let notes = PAGE_SIZE as u64 + self.size();
        let (offset, size) = self.vmcoreinfo;
        let vmcoreinfo = if size > 0 { notes + offset } else { 0 };
        let mut out = Fields::default();
        out.word(self.phys_base, is_64).u32(self.level).u32(0);
        // start_pfn and end_pfn of a part of a split file.
        out.word(0, is_64).word(0, is_64);
        out.u64(vmcoreinfo).word(size, is_64);
        out.u64(notes).word(self.notes.len() as u64, is_64);
        // ERASEINFO.
        out.u64(0).word(0, is_64);
        out.u64(0).u64(0).u64(layout.max_mapnr);
        out.bytes(&self.notes);
        out.0
    }
}

/// Where a page is in the file.
#[derive(Clone, Copy, Debug)]
struct Page {
    offset: u64,
    size: u32,
    flags: u32,
}

impl Page {
    /// `struct page_desc`.
    fn descriptor(self) -> [u8; DESCRIPTOR as usize] {
        let mut out = [0; DESCRIPTOR as usize];
        let fields = [
            self.offset,
            u64::from(self.size) | u64::from(self.flags) << 32,
        ];
        for (bytes, field) in out.chunks_exact_mut(8).zip(fields) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        out
    }
}

/// Compresses pages.
enum Encoder {
    Stored,
    Zlib {
        stream: Compress,
        out: Vec<u8>,
    },
    Zstd {
        context: CCtx<'static>,
        out: Vec<u8>,
    },
}

impl Encoder {
    fn new(compression: Compression) -> Self {
        match compression {
            Compression::Stored => Self::Stored,
            Compression::Zlib => Self::Zlib {
                stream: Compress::new(flate2::Compression::fast(), true),
                out: alloc::filled(0, PAGE_SIZE),
            },
            Compression::Zstd => {
                let Some(context) = CCtx::try_create() else {
                    alloc::probe(usize::MAX);
                    return Self::Stored;
                };
                Self::Zstd {
                    context,
                    out: alloc::filled(0, PAGE_SIZE),
                }
            }
        }
    }

    /// The flags of the last page that was compressed.
    fn flags(&self) -> u32 {
        match self {
            Self::Stored => 0,
            Self::Zlib { .. } => ZLIB,
            Self::Zstd { .. } => ZSTD,
        }
    }

    /// The compressed page; the page itself if it does not become smaller.
    fn page<'s>(&'s mut self, page: &'s [u8]) -> &'s [u8] {
        let size = match self {
            Self::Stored => None,
            Self::Zlib { stream, out } => {
                stream.reset();
                let status = stream.compress(page, out, FlushCompress::Finish);
                let ended = matches!(status, Ok(Status::StreamEnd));
                ended.then_some(stream.total_out() as usize)
            }
            Self::Zstd { context, out } => context.compress(out.as_mut_slice(), page, 1).ok(),
        };
        match (size, self) {
            (Some(size), Self::Zlib { out, .. } | Self::Zstd { out, .. }) if size < page.len() => {
                out.get(..size).unwrap_or(page)
            }
            _ => page,
        }
    }
}

/// The compressed pages of a chunk.
struct Packed {
    bytes: Vec<u8>,
    /// In order; the offsets are those in `bytes`.
    pages: Vec<Page>,
    /// The offset of `bytes` in the file.
    offset: u64,
}

struct State {
    bitmap: Bitmap,
    descriptors: Appender,
    /// The number of descriptors.
    written: u64,
    /// The end of the file.
    end: u64,
}

struct KdumpWriter<'w> {
    kdump: &'w Kdump,
    file: &'w File,
    /// The page of zeros.
    zero: Page,
}

impl Writer for KdumpWriter<'_> {
    type Encoder = Encoder;
    type Packed = Packed;
    type State = State;

    fn encoder(&self) -> Encoder {
        Encoder::new(self.kdump.compression)
    }

    fn packed(&self) -> Packed {
        Packed {
            bytes: alloc::with_capacity(CHUNK_PAGES * PAGE_SIZE),
            pages: alloc::with_capacity(CHUNK_PAGES),
            offset: 0,
        }
    }

    fn pack(&self, encoder: &mut Encoder, chunk: &Chunk, packed: &mut Packed) -> io::Result<()> {
        packed.bytes.clear();
        packed.pages.clear();
        let flags = encoder.flags();
        for (_, kind, page) in chunk.pages() {
            if kind == Kind::Data {
                let bytes = encoder.page(page);
                let page = Page {
                    offset: packed.bytes.len() as u64,
                    size: bytes.len() as u32,
                    flags: if bytes.len() < PAGE_SIZE { flags } else { 0 },
                };
                alloc::push(&mut packed.pages, page);
                alloc::extend(&mut packed.bytes, bytes);
            }
        }
        Ok(())
    }

    fn commit(&self, state: &mut State, chunk: &Chunk, packed: &mut Packed) -> io::Result<()> {
        packed.offset = state.end;
        state.end += packed.bytes.len() as u64;
        let mut pages = packed.pages.iter();
        for (pfn, kind, _) in chunk.pages() {
            let page = match kind {
                Kind::Data => pages.next().map(|page| Page {
                    offset: packed.offset + page.offset,
                    ..*page
                }),
                Kind::Zero => Some(self.zero),
                Kind::Lost => None,
            };
            if let Some(page) = page {
                state.bitmap.set(self.file, pfn)?;
                state.descriptors.push(self.file, &page.descriptor())?;
                state.written += 1;
            }
        }
        Ok(())
    }

    fn write(&self, packed: &Packed) -> io::Result<()> {
        output::write(self.file, packed.offset, &packed.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn runs_of_bits_are_set_as_single_bits() {
        let path = std::env::temp_dir().join(format!("xenkdump-{}-bitmap", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(path).unwrap();
        let runs = [(1, 3), (7, 1), (15, 20), (32_760, 17), (98_304, 32_768)];
        let mut expected = vec![0_u8; 5 * PAGE_SIZE];
        let mut bitmap = Bitmap::new(0);
        for (first, count) in runs {
            for bit in first..first + count {
                expected[bit / 8] |= 1 << (bit % 8);
            }
            let run = PageRun {
                first: first as u64,
                count: count as u64,
            };
            bitmap.set_run(&file, run).unwrap();
        }
        bitmap.flush(&file).unwrap();
        file.set_len(expected.len() as u64).unwrap();
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_does_not_become_smaller_is_stored() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005) + 1;
            (state >> 40) as u8
        })
        .take(PAGE_SIZE)
        .collect();
        for compression in [Compression::Stored, Compression::Zlib, Compression::Zstd] {
            let mut encoder = Encoder::new(compression);
            assert_eq!(encoder.page(&noise), noise);
            let is_smaller = encoder.page(&[0; PAGE_SIZE]).len() < PAGE_SIZE;
            assert_eq!(is_smaller, compression != Compression::Stored);
        }
    }
}
