//! The stream of libxc, versions 2 and 3 (Xen 4.6 on): the memory and the vCPUs of a domain.
//!
//! Layout: Xen's `docs/specs/libxc-migration-stream.pandoc`.

use super::super::container::DomainKind;
use super::contents::Contents;
use super::cursor::{Cursor, Record};
use super::list;
use super::pages::{Content, PFN_BITS};
use crate::addr::{Pfn, Word, PAGE_SHIFT, PAGE_SIZE};
use crate::file::Storage;
use crate::notes::save;
use crate::Result;

/// `IHDR_MARKER`, then `IHDR_ID`: "XENF".
pub(super) const MAGIC: [u8; 12] = *b"\xff\xff\xff\xff\xff\xff\xff\xffXENF";
/// Size of the image header and the domain header.
const HEADERS: u64 = 40;

const END: u32 = 0;
const PAGE_DATA: u32 = 1;
const X86_PV_INFO: u32 = 2;
const X86_PV_P2M_FRAMES: u32 = 3;
const X86_PV_VCPU_BASIC: u32 = 4;
const SHARED_INFO: u32 = 7;
const HVM_CONTEXT: u32 = 9;
const VERIFY: u32 = 0xd;
const CHECKPOINT: u32 = 0xe;
/// The last type that is known.
const X86_MSR_POLICY: u32 = 0x12;

/// Where the stream stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// After its last record.
    End,
    /// After a checkpoint; more may follow.
    Checkpoint,
    /// At the end of the file.
    Truncated,
}

/// The state of a reader of the records.
#[derive(Debug)]
pub(super) struct Stream {
    /// Memory is sent again, for comparison only.
    is_verifying: bool,
}

impl Stream {
    /// Reads both headers; `None` if the file ends within them.
    pub fn open<S: Storage>(
        cursor: &mut Cursor<'_, S>,
        contents: &mut Contents<'_, S>,
    ) -> Result<Option<Self>> {
        let file = contents.storage.file();
        let at = cursor.at;
        let Some(header) = cursor.take::<{ HEADERS as usize }>()? else {
            return Ok(None);
        };
        let big = |from: usize| header.get(from..).and_then(<[u8]>::first_chunk);
        let little = |from| big(from).map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let big = |from| big(from).map_or(0, |bytes| u32::from_be_bytes(*bytes));
        if !header.starts_with(&MAGIC) {
            let start = header.get(..MAGIC.len()).unwrap_or_default();
            let found = crate::elf::header::hex(start);
            return Err(file.format_error(at, "the image header of a libxc stream", found));
        }
        let (version, options) = (big(12), big(16) >> 16);
        if !(2..=3).contains(&version) {
            let found = format!("version {version}");
            return Err(file.format_error(at, "a libxc stream of version 2 or 3", found));
        }
        if options & 1 != 0 {
            return Err(file.format_error(at, "a little-endian libxc stream", "a big-endian one"));
        }
        contents.kind = match little(24) {
            1 => DomainKind::Pv,
            2 => DomainKind::Translated,
            other => {
                let expected = "an x86 PV (1) or x86 HVM (2) domain";
                return Err(file.format_error(at + 24, expected, format!("type {other}")));
            }
        };
        let page_shift = little(28) & 0xffff;
        if page_shift != PAGE_SHIFT {
            let found = format!("2^{page_shift} bytes");
            return Err(file.format_error(at + 28, "pages of 4096 bytes", found));
        }
        let body = super::cursor::Range {
            offset: at,
            size: HEADERS,
        };
        contents.list(save::HEADER, 0, body);
        Ok(Some(Self {
            is_verifying: false,
        }))
    }

    /// Reads records up to the end or the next checkpoint.
    pub fn read<S: Storage>(
        &mut self,
        cursor: &mut Cursor<'_, S>,
        contents: &mut Contents<'_, S>,
    ) -> Result<Stop> {
        while let Some(record) = cursor.record()? {
            if record.kind == PAGE_DATA {
                if !self.is_verifying {
                    page_data(&record, contents)?;
                }
            } else {
                contents.list(save::LIBXC, record.kind, record.body);
            }
            if !record.is_whole {
                return Ok(Stop::Truncated);
            }
            match record.kind {
                END => return Ok(Stop::End),
                CHECKPOINT => {
                    contents.commit()?;
                    return Ok(Stop::Checkpoint);
                }
                VERIFY => self.is_verifying = true,
                _ => keep(&record, contents)?,
            }
        }
        Ok(Stop::Truncated)
    }
}

/// Takes what describes the domain from a whole record.
fn keep<S: Storage>(record: &Record, contents: &mut Contents<'_, S>) -> Result<()> {
    let body = record.body;
    let mut cursor = Cursor {
        storage: contents.storage,
        at: body.offset,
    };
    let mut short = |least: u64| {
        let is_short = body.size < least;
        if is_short {
            contents.warnings.push(format!(
                "the record of type {:#x} at offset {:#x} is too short ({} bytes): it is ignored",
                record.kind, body.offset, body.size
            ));
        }
        is_short
    };
    match record.kind {
        X86_PV_INFO if !short(2) => {
            if let Some([width, levels]) = cursor.take()? {
                contents.word = match (width, levels) {
                    (4, 3) => Word::W32,
                    (8, 4) => Word::W64,
                    _ => {
                        contents.warnings.push(format!(
                            "X86_PV_INFO has an unknown guest: width {width}, {levels} levels of page \
                             tables; it is taken for a 64-bit one"
                        ));
                        Word::W64
                    }
                };
            }
        }
        X86_PV_P2M_FRAMES if !short(8) => {
            if let (Some(_), Some(last)) = (cursor.u32()?, cursor.u32()?) {
                contents.end = Some(Pfn(u64::from(last) + 1));
            }
        }
        X86_PV_VCPU_BASIC if !short(8) => {
            if let (Some(id), Some(context)) = (cursor.u32()?, body.after(8)) {
                contents.vcpu(id, context);
            }
        }
        SHARED_INFO if !short(PAGE_SIZE as u64) => contents.state.shared_info = Some(body),
        HVM_CONTEXT => contents.state.hvm_context = Some(body),
        kind if record.is_mandatory() && kind > X86_MSR_POLICY => {
            // Xen refuses to restore such a stream.
            contents.warnings.push(format!(
                "the record at offset {:#x} has the unknown type {kind:#x} and is mandatory: what it \
                 says about the domain is lost",
                body.offset
            ));
        }
        _ => {}
    }
    Ok(())
}

const BROKEN: u64 = 0xd;
const XALLOC: u64 = 0xe;
const XTAB: u64 = 0xf;

/// What the stream has of a page of this type (`XEN_DOMCTL_PFINFO_*`, shifted) that is listed `times` times
/// in a row: ordinary pages, and page tables of four levels, which may be pinned, are at `next`, and the
/// last copy is the valid one. `None` if the type is unknown.
pub(super) fn content(kind: u64, times: u64, next: &mut u64) -> Option<Content> {
    const SIZE: u64 = PAGE_SIZE as u64;
    match kind {
        0..=4 | 9..=0xc => {
            let offset = next.saturating_add(times.saturating_sub(1).saturating_mul(SIZE));
            *next = offset.saturating_add(SIZE);
            Some(Content::At(offset))
        }
        BROKEN | XALLOC => Some(Content::Empty),
        XTAB => Some(Content::Gone),
        _ => None,
    }
}

/// Adds the pages of a record, which the end of the file may have cut.
fn page_data<S: Storage>(record: &Record, contents: &mut Contents<'_, S>) -> Result<()> {
    let body = record.body;
    let mut cursor = Cursor {
        storage: contents.storage,
        at: body.offset,
    };
    let count = match cursor.take::<8>()? {
        Some([a, b, c, d, ..]) if body.size >= 8 => u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => return Ok(()),
    };
    let header = 8 + 8 * count;
    if header > body.size {
        contents.warnings.push(format!(
            "PAGE_DATA at offset {:#x} has {count} pages in {} bytes: they are lost, older copies may be \
             shown",
            body.offset, body.size
        ));
        return Ok(());
    }
    let mut at = body.offset.saturating_add(header);
    let mut unknown = None;
    for_each_pfn(&mut cursor, count, |kind, pfn, times| {
        let content = content(kind, times, &mut at).unwrap_or_else(|| {
            unknown = Some(kind);
            Content::Empty
        });
        contents.page(pfn, content)
    })?;
    let size = at - body.offset;
    if unknown.is_none() && size == body.size {
        return Ok(());
    }
    // Which bytes belong to which page is not known. Earlier copies are not valid any more.
    let why = match unknown {
        Some(kind) => format!("the unknown page type {kind:#x}"),
        None => format!("{} bytes instead of {size}", body.size),
    };
    contents.warnings.push(format!(
        "PAGE_DATA at offset {:#x} has {why}: its {count} pages are lost",
        body.offset
    ));
    cursor.at = body.offset + 8;
    for_each_pfn(&mut cursor, count, |_, pfn, _| {
        contents.page(pfn, Content::Empty)
    })
}

/// Calls `f` with the type and the number of each page of the list at the cursor, as far as the file has
/// it, and how often it is repeated.
fn for_each_pfn<S: Storage>(
    cursor: &mut Cursor<'_, S>,
    count: u64,
    mut f: impl FnMut(u64, u64, u64) -> Result<()>,
) -> Result<()> {
    let each = |word: u64, times| f(word >> 60, word & ((1 << PFN_BITS) - 1), times);
    list::for_each_number(cursor, Word::W64, count, each)?;
    Ok(())
}
