//! A mapped file, each read of which is checked.

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{compiler_fence, fence, Ordering};

use super::guard::Guard;
use super::{part, zeros, ReadError, RegularFile};
use crate::Result;

/// A file mapped read-only.
///
/// Its bytes leave it as checked copies ([`MappedFile::read_at`]), or are lent unchecked
/// ([`MappedFile::lend`]) to those who check [`MappedFile::is_whole`] when they are done. Once any
/// of them could not be paged in, the mapping is used no more: reads go by `pread` and tell which
/// bytes are still there.
///
/// A file that is cut within a page shows zeros from there to the end of that page, without a
/// signal. But the pages behind it are gone, the last one among them. So the last page is the
/// sentinel: it is mapped, never read from for its bytes, and touched after every read of others.
///
/// Where the file cannot be mapped (an odd file system, no address space left), or is not longer
/// than a page, all reads go by `pread` from the start.
#[derive(Debug)]
pub struct MappedFile {
    file: RegularFile,
    guard: Option<Guard>,
    map: Option<memmap2::MmapRaw>,
    /// Length of what is read from the mapping: all pages but the last.
    served: usize,
}

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = RegularFile::open(path)?;
        let len = usize::try_from(file.len()).unwrap_or(0);
        let served = len.saturating_sub(1) & !(page_size() - 1);
        let map = (served > 0)
            .then(|| {
                let mut options = memmap2::MmapOptions::new();
                options.len(len).map_raw_read_only(&file.file).ok()
            })
            .flatten();
        let guard = map
            .as_ref()
            .and_then(|map| Guard::watch(map.as_ptr() as usize, map.len()));
        // A mapping that nothing watches would kill the process.
        let map = guard.as_ref().and(map);
        Ok(Self {
            file,
            guard,
            map,
            served,
        })
    }

    /// Fills `buf` with the bytes from `offset` on, all of them as the file has them.
    #[inline]
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if let Some(from) = self.pointer(offset, buf.len() as u64) {
            let copy = |at: usize, part: &mut [u8]| {
                let from = from.wrapping_add(at);
                // SAFETY: `pointer` gives as many bytes as `buf` has within the mapping, which lives
                // as long as `self` and is readable throughout: `guard` puts other pages in the
                // place of those that cannot be paged in. `buf` is this process's own memory, so the
                // two do not overlap. The bytes may change while they are copied (by another
                // process, or by `guard`), for which reason no reference to them is made.
                unsafe { std::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), part.len()) };
            };
            let size = part(buf.len());
            if buf.len() <= size {
                copy(0, buf);
            } else {
                for (i, part) in buf.chunks_mut(size).enumerate() {
                    copy(i * size, part);
                }
            }
            if self.is_intact() {
                return Ok(());
            }
        }
        self.file.read_at(offset, buf)
    }

    /// `N` bytes from `offset` on.
    #[inline]
    pub fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// A copy of `len` bytes from `offset` on.
    pub fn copy(&self, offset: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        self.file.check(offset, len)?;
        let mut bytes = zeros(len)?;
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The `len` bytes from `offset` on, or as many of them as can be lent, without a copy and
    /// without a check. That they cannot be lent does not say that they cannot be read.
    ///
    /// What was made of them counts only if [`MappedFile::is_whole`] says so *afterwards*; if not,
    /// nothing will be lent any more, and the work is to be done again.
    #[inline]
    pub(crate) fn borrow(&self, offset: u64, len: u64) -> &[u8] {
        let len = len.min((self.served as u64).saturating_sub(offset));
        let Some(from) = self.pointer(offset, len).filter(|_| !self.is_lost()) else {
            return &[];
        };
        // SAFETY: as in `read_at`. That the bytes may change under the reference, where another
        // process writes to the dump, is what every mapped file has to live with: they are plain
        // bytes, of which any value is valid.
        unsafe { std::slice::from_raw_parts(from, len as usize) }
    }

    /// Whether no byte of the mapping was ever found missing. Reads before the call are covered.
    #[inline]
    pub(crate) fn is_intact(&self) -> bool {
        // Before a cut is seen in the page that it goes through, the kernel has taken away the pages
        // behind it (truncate_pagecache() unmaps first); loads stay in order.
        after_loads();
        if let Some(map) = &self.map {
            // SAFETY: `served` is less than the mapping's length; else as in `read_at`. Volatile,
            // since it is read for what else may happen, not for the byte.
            let _ = unsafe { map.as_ptr().add(self.served).read_volatile() };
        }
        // Be it this thread's handler that raised the flag or another's: it does so before it puts
        // zeros in place.
        after_loads();
        !self.is_lost()
    }

    #[inline]
    fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_lost)
    }

    /// Where to read from the mapping, if it is to be read from.
    #[inline]
    fn pointer(&self, offset: u64, len: u64) -> Option<*const u8> {
        let map = self.map.as_ref()?;
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        if end > self.served {
            return None;
        }
        // Within the mapping, so the sum cannot wrap.
        Some(map.as_ptr().wrapping_add(start))
    }
}

/// Keeps loads before it from being done after those behind it. On x86 this is no instruction.
#[inline]
fn after_loads() {
    compiler_fence(Ordering::SeqCst);
    fence(Ordering::Acquire);
}

/// Bytes of a page of this machine's memory.
fn page_size() -> usize {
    // SAFETY: asks for a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // 64 KiB is the largest there is (arm64, ppc64): safe for any that is smaller.
    usize::try_from(size)
        .ok()
        .filter(|size| size.is_power_of_two())
        .unwrap_or(1 << 16)
}

/// Path, length, errors.
impl Deref for MappedFile {
    type Target = RegularFile;

    fn deref(&self) -> &RegularFile {
        &self.file
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // Before the addresses may be anything else's.
        self.guard = None;
    }
}
