//! The files of a dump: one, or the parts of a split one.

use std::path::Path;

use super::bitmap::{Bitmap, Present};
use super::header::{matches, Header};
use crate::addr::PAGE_SIZE;
use crate::dump::files;
use crate::dump::warnings::Warnings;
use crate::file::{MappedFile, ReadError, Storage};
use crate::limits::{MAX_DIRECTORY_ENTRIES, MAX_DUMP_PARTS};
use crate::Result;

/// Size of a page descriptor: offset, size, flags, and flags of the page that nothing sets.
pub(super) const DESCRIPTOR: usize = 24;
/// Size of a page and of a block.
pub(super) const PAGE: u64 = PAGE_SIZE as u64;
/// Pages at the end of a file that are examined to find out whether the file is truncated.
const LAST_PAGES: u64 = 256;

/// The descriptor of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub offset: u64,
    pub size: u32,
    pub flags: u32,
}

impl Descriptor {
    /// By its first bytes in the file.
    pub fn of(bytes: &[u8; 16]) -> Self {
        let bytes = u128::from_le_bytes(*bytes);
        Self {
            offset: bytes as u64,
            size: (bytes >> 64) as u32,
            flags: (bytes >> 96) as u32,
        }
    }
}

/// One file.
#[derive(Debug)]
pub(super) struct Part {
    pub storage: Box<dyn Storage>,
    pub header: Header,
    /// The pages of the machine. `None` if the file has one bitmap only.
    pub ram: Option<Bitmap>,
    /// The pages that were written, to this file or to another part.
    pub bits: Bitmap,
    /// Those that this file has.
    pub present: Present,
    /// Offset of the first page descriptor.
    descriptors: u64,
}

impl Part {
    pub fn open(storage: Box<dyn Storage>) -> Result<Self> {
        if !matches(&storage) {
            let expected = "a kdump-compressed dump, as the other files of a split dump are";
            return Err(storage.file().format_error(0, expected, "another format"));
        }
        let header = Header::read(&storage)?;
        let bitmaps = header.bitmaps;
        // Older files have one bitmap.
        let of_all_pages = header.max_mapnr.div_ceil(8).next_multiple_of(PAGE);
        let has_both = bitmaps.size >= of_all_pages.saturating_mul(2);
        let size = if has_both {
            bitmaps.size / 2
        } else {
            bitmaps.size
        };
        let bitmap = |offset: u64| {
            let held = storage.held(offset, size).saturating_mul(8);
            Bitmap {
                offset,
                pages: header.max_mapnr.min(held),
            }
        };
        let first = bitmap(bitmaps.offset);
        let bits = if has_both {
            bitmap(bitmaps.offset + size)
        } else {
            first
        };
        let (start, end) = header.split.unwrap_or((0, u64::MAX));
        Ok(Self {
            ram: has_both.then_some(first),
            bits,
            present: Present::new(bits, start, end),
            descriptors: bitmaps.offset + bitmaps.size,
            header,
            storage,
        })
    }

    pub fn descriptor_offset(&self, number: u64) -> u64 {
        self.descriptors
            .saturating_add(number.saturating_mul(DESCRIPTOR as u64))
    }

    pub fn descriptor(&self, number: u64) -> Result<Descriptor, ReadError> {
        let mut bytes = [0; 16];
        self.storage
            .read_at(self.descriptor_offset(number), &mut bytes)?;
        Ok(Descriptor::of(&bytes))
    }

    /// How many descriptors there may be in the file.
    pub fn descriptors_in_file(&self) -> u64 {
        self.storage.len().saturating_sub(self.descriptors) / DESCRIPTOR as u64
    }

    /// Warns of what is missing.
    pub fn warn(&self, warnings: &mut Warnings) {
        let name = self.storage.file().path().display();
        let Header {
            version, max_mapnr, ..
        } = self.header;
        if self.header.is_newer() {
            warnings.push(format!(
                "{name}: header version {version} is not known and is read as version 6"
            ));
        }
        if self.header.is_incomplete {
            warnings.push(format!(
                "{name}: the dump is incomplete: the program that wrote it stopped before the end"
            ));
        }
        if self.bits.pages < max_mapnr {
            warnings.push(format!(
                "{name}: the file is cut within its bitmaps: all memory is lost"
            ));
        } else if let Some(missing) = self.missing_bytes() {
            warnings.push(format!(
                "{name}: the file is cut: its last page would end {missing} bytes past its end ({} \
                 bytes)",
                self.storage.len()
            ));
        }
    }

    /// The number of descriptors, from the offset of the first page's data; `None` if that is not known.
    ///
    /// makedumpfile and QEMU store the data of pages directly after the last descriptor. The first data is
    /// that of the first page, or the page of zeros that all pages of zeros share.
    fn count_by_data(&self) -> Option<u64> {
        let data = self.descriptor(0).ok()?.offset;
        let size = data.checked_sub(self.descriptors)?;
        let sizes = [Some(size), size.checked_sub(PAGE)];
        let mut whole = sizes.into_iter().flatten();
        let size = whole.find(|size| *size > 0 && size.is_multiple_of(DESCRIPTOR as u64))?;
        Some(size / DESCRIPTOR as u64)
    }

    /// What is wrong with the bitmap, if its pages were counted already: a bit more or less moves all
    /// pages after it to the descriptors of others.
    pub fn wrong_count(&self) -> Option<String> {
        let set = self.present.counted()?;
        let count = self.count_by_data().filter(|count| *count != set)?;
        Some(format!(
            "{}: the bitmap has {set} pages, but there are {count} descriptors of pages: a bit is wrong, \
             and the memory after it may be that of other pages",
            self.storage.file().path().display()
        ))
    }

    /// How many bytes before the end of the last page's data the file ends. No bit needs to be counted
    /// for this.
    fn missing_bytes(&self) -> Option<u64> {
        if self.header.is_incomplete || self.present.range().is_empty() {
            return None;
        }
        let data = self.descriptor(0).ok()?.offset;
        let count = self.count_by_data()?;
        if count > self.bits.pages {
            return None;
        }
        // All pages of zeros share their data.
        let last = (count.saturating_sub(LAST_PAGES)..count).map(|number| {
            let last = self.descriptor(number).ok()?;
            Some(last.offset.saturating_add(last.size.into()))
        });
        let end = last.map(|end| end.unwrap_or(data)).max()?;
        end.checked_sub(self.storage.len())
            .filter(|missing| *missing > 0)
    }
}

/// Fails unless the parts are those of one dump.
pub(super) fn check(parts: &[Part]) -> Result<()> {
    let Some((first, others)) = parts.split_first() else {
        return Ok(());
    };
    for part in others {
        let file = part.storage.file();
        let of_one = first.header.split.is_some() && part.header.split.is_some();
        if !of_one || part.header.identity != first.header.identity {
            let other = first.storage.file().path().display();
            let expected = format!("a part of the same split dump as {other}");
            return Err(file.format_error(0, expected, "another dump"));
        }
    }
    Ok(())
}

/// Warns of pages that none of the parts has, or several, and removes parts without pages of their own.
/// They must be sorted by range.
pub(super) fn join(parts: &mut Vec<Part>, warnings: &mut Warnings) {
    let mut known = 0;
    parts.retain(|part| {
        let range = part.present.range();
        if range.start > known {
            warn_of(known, range.start, warnings);
        }
        let is_double = range.start < known && !range.is_empty();
        if is_double {
            let name = part.storage.file().path().display();
            warnings.push(format!(
                "{name}: another part of the split dump has the same pages"
            ));
        }
        let has_own = range.end > known;
        known = known.max(range.end);
        has_own || !is_double
    });
    let pages = parts.iter().map(|part| part.bits.pages).min().unwrap_or(0);
    if known < pages {
        warn_of(known, pages, warnings);
    }
}

fn warn_of(from: u64, to: u64, warnings: &mut Warnings) {
    warnings.push(format!(
        "a part of the split dump is missing: pages {from:#x} to {:#x} are in no file",
        to - 1
    ));
}

/// What the parts of the split dump have in common that the file at `path` is a part of; `None` if it is
/// none. Only headers are read.
pub(in crate::dump) fn split_identity(path: &Path) -> Option<Vec<u8>> {
    let file = MappedFile::open(path).ok()?;
    if !matches(&file) {
        return None;
    }
    let header = Header::read(&file).ok()?;
    header.split.map(|_| header.identity)
}

/// Adds the other parts of a split dump, which are looked for in the folder of the first one.
pub(super) fn add_siblings(parts: &mut Vec<Part>, warnings: &mut Warnings) {
    // If one part is compressed as a whole, so are the others: each would have to be decompressed.
    let is_split = |part: &&Part| part.header.split.is_some() && !part.storage.is_decoded();
    let Some(first) = parts.first().filter(is_split) else {
        return;
    };
    let (path, identity) = (first.storage.file().path(), first.header.identity.clone());
    let Some(folder) = path.parent() else {
        return;
    };
    let folder = if folder.as_os_str().is_empty() {
        ".".as_ref()
    } else {
        folder
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let entries = entries.take(MAX_DIRECTORY_ENTRIES).filter_map(Result::ok);
    // Opening a device or a FIFO may have side effects.
    let regular = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut paths: Vec<_> = regular.map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        if !files::may_be_kdump(&path) {
            continue;
        }
        let Ok(part) = files::open(&path, 0).and_then(|file| Part::open(file.file.boxed())) else {
            continue;
        };
        let range = part.present.range();
        // The first one itself is in the folder, too.
        let overlaps = |other: &Part| {
            let other = other.present.range();
            range.start < other.end && other.start < range.end
        };
        let is_other = part.header.split.is_some() && part.header.identity == identity;
        if !is_other || range.is_empty() {
            continue;
        }
        if let Some(other) = parts.iter().find(|other| overlaps(other)) {
            let other = other.storage.file().path();
            if other.file_name() != path.file_name() {
                warnings.push(format!(
                    "{} and {} are the same part of a split dump: the first is read",
                    other.display(),
                    path.display()
                ));
            }
            continue;
        }
        if parts.len() >= MAX_DUMP_PARTS {
            warnings.push(format!(
                "of the parts of the split dump {MAX_DUMP_PARTS} are read"
            ));
            return;
        }
        parts.push(part);
    }
}
