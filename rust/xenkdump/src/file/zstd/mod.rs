//! zstd files whose frames can be decompressed one by one, read in place.
//!
//! A frame is found by its place in the [`Index`], and decompressed as a whole. The last ones used are
//! kept ([`FrameCache`]). Files without an index, or with frames that are too large, have to be unpacked:
//! [`Decoder`] does that in pieces.

mod cache;
mod decoder;
mod index;

use std::cell::RefCell;

use twox_hash::XxHash64;
use zstd_safe::DCtx;

use super::{MappedFile, ReadError, RegularFile, Storage};
use crate::alloc;

use cache::FrameCache;
pub use decoder::{content_size, Decoder};
use index::{Frame, Index};

thread_local! {
    static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// The contents of a zstd file.
#[derive(Debug)]
pub struct ZstdFile {
    file: MappedFile,
    index: Index,
    cache: FrameCache,
}

impl ZstdFile {
    /// Whether a file starts with a frame of zstd. pzstd and others write a skippable one first.
    pub fn matches(storage: &impl Storage) -> bool {
        let mut start = [0; 4];
        storage.read_at(0, &mut start).is_ok() && index::is_magic(u32::from_le_bytes(start))
    }

    /// Why a file cannot be read in place; `None` if it can. Reads its seek table, or the headers of its
    /// frames.
    pub fn obstacle(file: &MappedFile) -> Option<String> {
        Index::read(file).err()
    }

    /// Opens a file that keeps about `cache_size` bytes of decompressed frames; gives it back if it
    /// cannot be read in place.
    pub fn open(file: MappedFile, cache_size: usize) -> Result<Self, MappedFile> {
        match Index::read(&file) {
            Ok(index) => Ok(Self {
                cache: FrameCache::new(cache_size, index.max_frame_memory()),
                file,
                index,
            }),
            Err(_) => Err(file),
        }
    }

    /// Decompresses a frame, and verifies its checksum.
    fn load(&self, frame: &Frame, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
        let corrupt = |reason| ReadError::Corrupt {
            offset: frame.at,
            reason,
        };
        bytes.clear();
        let packed = self.file.copy(frame.at, frame.packed_len)?;
        alloc::reserve_exact(bytes, frame.len as usize);
        bytes.resize(frame.len as usize, 0);
        let unpacked = CONTEXT.with_borrow_mut(|context| {
            if context.is_none() {
                *context = DCtx::try_create();
            }
            let context = context.as_mut().ok_or(ReadError::Os(libc::ENOMEM))?;
            // Also verifies the checksum of the frame, if there is one.
            let unpacked = context.decompress(bytes.as_mut_slice(), &packed);
            unpacked.map_err(|_| corrupt("a zstd frame"))
        })?;
        if unpacked != bytes.len() {
            return Err(corrupt("the size of a zstd frame"));
        }
        // The least significant half of the hash.
        let found = || XxHash64::oneshot(0, bytes) as u32;
        if frame.checksum.is_some_and(|checksum| checksum != found()) {
            return Err(corrupt("the checksum of a zstd frame"));
        }
        Ok(())
    }
}

impl Storage for ZstdFile {
    fn file(&self) -> &RegularFile {
        &self.file
    }

    fn len(&self) -> u64 {
        self.index.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if self.held(offset, buf.len() as u64) < buf.len() as u64 {
            return Err(ReadError::PastEnd);
        }
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let (number, frame) = self.index.find(at).ok_or(ReadError::PastEnd)?;
            let from = (at - frame.start) as usize;
            let len = rest.len().min(frame.len as usize - from);
            let (part, tail) = rest.split_at_mut(len);
            self.cache.with(
                number,
                |bytes| self.load(&frame, bytes),
                |bytes| {
                    if let Some(bytes) = bytes.get(from..from + len) {
                        part.copy_from_slice(bytes);
                    }
                },
            )?;
            rest = tail;
            at += len as u64;
        }
        Ok(())
    }

    fn is_decoded(&self) -> bool {
        true
    }
}
