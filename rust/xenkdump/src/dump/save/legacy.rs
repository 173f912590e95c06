//! The stream of libxc before version 2 (`xm save`, and xl up to Xen 4.5). It has no header of its own,
//! and its numbers have the word size of the tools.
//!
//! Layout: `xg_save_restore.h` of Xen 3.1 to 4.5, and `convert-legacy-stream` of later ones.

use super::super::container::DomainKind;
use super::super::vcpu_context::{CONTEXT_SIZE_32, CONTEXT_SIZE_64};
use super::contents::Contents;
use super::cursor::Cursor;
use super::libxc::{self, Stop};
use super::list;
use super::pages::Content;
use crate::addr::{Pfn, Word, PAGE_SIZE};
use crate::file::Storage;
use crate::Result;

/// Pages of a batch (`MAX_BATCH_SIZE`).
const MAX_BATCH: u32 = 1024;
/// Bits of a pfn; the type of the page is above them.
const PFN_BITS: u32 = 28;
const XTAB: u64 = 0xf;
/// Bytes of `xen_domctl_ext_vcpucontext`, with the block "extv".
const EXTENDED_CONTEXT: u64 = 128;
/// vCPUs of a domain in any version that wrote this stream (`XC_SR_MAX_VCPUS`).
const MAX_VCPU_ID: u32 = 4095;

// Types of chunks (`XC_SAVE_ID_*`). Positive ones are the number of pages that follow.
const ENABLE_VERIFY_MODE: i32 = -1;
const VCPU_INFO: i32 = -2;
const TSC_INFO: i32 = -7;
const LAST_CHECKPOINT: i32 = -9;
const TOOLSTACK: i32 = -18;

/// What the records for each vCPU consist of.
#[derive(Clone, Copy, Debug, Default)]
struct ContextSizes {
    basic: u64,
    /// What follows it: the extended context, the XSAVE state.
    others: u64,
}

/// How the stream is read.
#[derive(Debug)]
struct Legacy {
    /// Word size of the tools.
    word: Word,
    contexts: ContextSizes,
    /// The vCPUs that are up, in order.
    vcpus: Vec<u32>,
    is_verifying: bool,
    is_last: bool,
}

/// What a part of the stream leads to; `None` is the end of the file.
type Part = Result<Option<()>>;

/// Reads the whole stream.
pub(super) fn read<S: Storage>(
    cursor: &mut Cursor<'_, S>,
    contents: &mut Contents<'_, S>,
) -> Result<Stop> {
    contents.source = "vcpu_guest_context";
    let at = cursor.at;
    let (first, second) = (cursor.u64()?, cursor.u64()?);
    cursor.at = at;
    let (Some(first), Some(second)) = (first, second) else {
        return Ok(Stop::Truncated);
    };
    // The number of pfns is below 2^32.
    let word = if first >> 32 == 0 {
        Word::W64
    } else {
        Word::W32
    };
    let next = match word {
        Word::W64 => second,
        Word::W32 => first >> 32,
    };
    let mut legacy = Legacy {
        word,
        contexts: ContextSizes::default(),
        // Without VCPU_INFO there is one.
        vcpus: vec![0],
        is_verifying: false,
        is_last: false,
    };
    let all_ones = u64::MAX >> (64 - 8 * word.bytes());
    contents.kind = if next == all_ones {
        DomainKind::Pv
    } else {
        DomainKind::Translated
    };
    if contents.kind == DomainKind::Translated && !is_chunk(next as u32) {
        let found = format!("{first:#018x} {second:#018x}");
        let expected = "a stream of Xen 3.1 or newer";
        return Err(contents.storage.file().format_error(at, expected, found));
    }
    Ok(match legacy.domain(cursor, contents)? {
        Some(()) => Stop::End,
        None => Stop::Truncated,
    })
}

/// Whether a number may be the type of the first chunk.
fn is_chunk(number: u32) -> bool {
    (1..=MAX_BATCH).contains(&number) || (-20..0).contains(&(number as i32))
}

impl Legacy {
    fn domain<S: Storage>(
        &mut self,
        cursor: &mut Cursor<'_, S>,
        contents: &mut Contents<'_, S>,
    ) -> Part {
        let Some(pages) = self.number(cursor)? else {
            return Ok(None);
        };
        contents.end = Some(Pfn(pages));
        if contents.kind == DomainKind::Pv && self.guest(cursor, contents, pages)?.is_none() {
            return Ok(None);
        }
        loop {
            if self.body(cursor, contents)?.is_none() {
                return Ok(None);
            }
            let tail = match contents.kind {
                DomainKind::Pv => self.tail_pv(cursor, contents),
                DomainKind::Translated => tail_hvm(cursor, contents),
            };
            if tail?.is_none() {
                return Ok(None);
            }
            // Remus goes on. Versions without LAST_CHECKPOINT have no Remus. QEMU's state follows that
            // of an HVM guest.
            let is_end = cursor.at >= contents.storage.len();
            if self.is_last || is_end || contents.kind == DomainKind::Translated {
                return Ok(Some(()));
            }
            contents.commit()?;
        }
    }

    /// A number of the tools' word size.
    fn number<S: Storage>(&self, cursor: &mut Cursor<'_, S>) -> Result<Option<u64>> {
        match self.word {
            Word::W64 => cursor.u64(),
            Word::W32 => Ok(cursor.u32()?.map(u64::from)),
        }
    }

    /// The extended information, and the list of the P2M's frames.
    fn guest<S: Storage>(
        &mut self,
        cursor: &mut Cursor<'_, S>,
        contents: &mut Contents<'_, S>,
        pages: u64,
    ) -> Part {
        let (Some(_), Some(total)) = (self.number(cursor)?, cursor.u32()?) else {
            return Ok(None);
        };
        let end = cursor.at.saturating_add(total.into());
        while cursor.at < end {
            let (Some(name), Some(size)) = (cursor.take::<4>()?, cursor.u32()?) else {
                return Ok(None);
            };
            let Some(block) = cursor.skip(size.into()) else {
                return Ok(None);
            };
            let mut inside = Cursor {
                storage: contents.storage,
                at: block.offset,
            };
            match &name {
                b"vcpu" => {
                    self.contexts.basic = block.size;
                    contents.word = match block.size {
                        CONTEXT_SIZE_64 => Word::W64,
                        CONTEXT_SIZE_32 => Word::W32,
                        other => {
                            let file = contents.storage.file();
                            let expected = "a vcpu_guest_context of 5168 or 2800 bytes";
                            let found = format!("{other} bytes");
                            return Err(file.format_error(block.offset, expected, found));
                        }
                    };
                }
                b"extv" => self.contexts.others += EXTENDED_CONTEXT,
                b"xcnt" => self.contexts.others += u64::from(inside.u32()?.unwrap_or(0)),
                name => contents.warnings.push(format!(
                    "the extended information at offset {:#x} has the unknown block {:?}: the vCPUs \
                     may be wrong",
                    block.offset,
                    String::from_utf8_lossy(name)
                )),
            }
        }
        if self.contexts.basic == 0 {
            let file = contents.storage.file();
            let expected = "the size of a vcpu_guest_context";
            return Err(file.format_error(cursor.at, expected, "no block \"vcpu\""));
        }
        let per_frame = (PAGE_SIZE / contents.word.bytes()) as u64;
        let frames = pages.div_ceil(per_frame);
        let list = cursor.skip(frames.saturating_mul(self.word.bytes() as u64));
        Ok(list.map(|_| ()))
    }

    /// Chunks up to the one that ends them.
    fn body<S: Storage>(
        &mut self,
        cursor: &mut Cursor<'_, S>,
        contents: &mut Contents<'_, S>,
    ) -> Part {
        while let Some(kind) = cursor.u32()? {
            let at = cursor.at;
            let done = match kind as i32 {
                0 => return Ok(Some(())),
                1.. => self.batch(kind, cursor, contents)?,
                ENABLE_VERIFY_MODE => {
                    self.is_verifying = true;
                    Some(())
                }
                LAST_CHECKPOINT => {
                    self.is_last = true;
                    Some(())
                }
                VCPU_INFO => self.vcpu_info(cursor, contents)?,
                TSC_INFO => cursor.skip(20).map(|_| ()),
                TOOLSTACK => match cursor.u32()? {
                    Some(size) => cursor.skip(size.into()).map(|_| ()),
                    None => None,
                },
                // A word of padding and a number.
                -4 | -3 | -8 | -20..=-14 | -11 | -10 => cursor.skip(12).map(|_| ()),
                other => {
                    let file = contents.storage.file();
                    let expected = "a chunk of a saved domain without compression (Remus, tmem)";
                    return Err(file.format_error(at - 4, expected, format!("type {other}")));
                }
            };
            if done.is_none() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// A batch of pages: their types and numbers, then the contents.
    fn batch<S: Storage>(
        &self,
        count: u32,
        cursor: &mut Cursor<'_, S>,
        contents: &mut Contents<'_, S>,
    ) -> Part {
        if count > MAX_BATCH {
            let file = contents.storage.file();
            let expected = format!("a batch of at most {MAX_BATCH} pages");
            return Err(file.format_error(cursor.at - 4, expected, format!("{count}")));
        }
        let size = u64::from(count) * self.word.bytes() as u64;
        let mut data = cursor.at.saturating_add(size);
        for _ in 0..count {
            let Some(word) = self.number(cursor)? else {
                return Ok(None);
            };
            let (kind, pfn) = ((word >> PFN_BITS) & 0xf, word & ((1 << PFN_BITS) - 1));
            // Pages that could not be mapped have lost their number.
            if kind == XTAB && pfn == 0 {
                continue;
            }
            let Some(content) = libxc::content(kind, 1, &mut data) else {
                let file = contents.storage.file();
                let found = format!("type {kind:#x}");
                return Err(file.format_error(cursor.at, "a known type of page", found));
            };
            if !self.is_verifying {
                contents.page(pfn, content)?;
            }
        }
        cursor.at = data;
        Ok((data <= contents.storage.len()).then_some(()))
    }

    fn vcpu_info<S: Storage>(
        &mut self,
        cursor: &mut Cursor<'_, S>,
        contents: &Contents<'_, S>,
    ) -> Part {
        let Some(last) = cursor.u32()? else {
            return Ok(None);
        };
        if last > MAX_VCPU_ID {
            let file = contents.storage.file();
            let expected = format!("vCPUs up to {MAX_VCPU_ID}");
            return Err(file.format_error(cursor.at - 4, expected, format!("{last}")));
        }
        self.vcpus.clear();
        for word in 0..=last / 64 {
            let Some(map) = cursor.u64()? else {
                return Ok(None);
            };
            let up = (0..64).filter(|bit| map >> bit & 1 != 0);
            self.vcpus.extend(up.map(|bit| word * 64 + bit));
        }
        Ok(Some(()))
    }

    /// The pages that went away, the vCPUs, shared_info.
    fn tail_pv<S: Storage>(
        &self,
        cursor: &mut Cursor<'_, S>,
        contents: &mut Contents<'_, S>,
    ) -> Part {
        let Some(count) = cursor.u32()? else {
            return Ok(None);
        };
        let gone = |pfn, _| contents.page(pfn, Content::Gone);
        if list::for_each_number(cursor, self.word, count.into(), gone)?.is_none() {
            return Ok(None);
        }
        for &id in &self.vcpus {
            let Some(context) = cursor.skip(self.contexts.basic) else {
                return Ok(None);
            };
            contents.vcpu(id, context);
            if cursor.skip(self.contexts.others).is_none() {
                return Ok(None);
            }
        }
        let page = cursor.skip(PAGE_SIZE as u64);
        contents.state.shared_info = page.or(contents.state.shared_info);
        Ok(page.map(|_| ()))
    }
}

/// The pfns of three pages, and Xen's HVM context.
fn tail_hvm<S: Storage>(cursor: &mut Cursor<'_, S>, contents: &mut Contents<'_, S>) -> Part {
    if cursor.skip(24).is_none() {
        return Ok(None);
    }
    let Some(size) = cursor.u32()? else {
        return Ok(None);
    };
    let context = cursor.skip(size.into());
    contents.state.hvm_context = context.or(contents.state.hvm_context);
    Ok(context.map(|_| ()))
}
