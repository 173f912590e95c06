//! A mapped file with checked reads.

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{compiler_fence, fence, Ordering};

use super::guard::Guard;
use super::{part, zeros, ReadError, RegularFile};
use crate::Result;

/// A file mapped read-only.
///
/// Reads return checked copies ([`MappedFile::read_at`]) or borrow unchecked bytes
/// ([`MappedFile::borrow`]), which callers validate with [`MappedFile::is_intact`] afterwards. Once a
/// page could not be paged in, the mapping is no longer used: reads use `pread`, which reports exactly
/// which bytes are left.
///
/// A file that is truncated within a page reads as zeros from there to the end of that page, without a
/// signal. But all later pages are gone, including the last one. So the last page is a guard page: it
/// is mapped, its bytes are not used, and it is touched after every read of other pages.
///
/// If the file cannot be mapped (unusual file system), is no longer than a page, or would take most of
/// the address space that a limit leaves (`ulimit -v`), all reads use `pread`.
#[derive(Debug)]
pub struct MappedFile {
    file: RegularFile,
    guard: Option<Guard>,
    map: Option<memmap2::MmapRaw>,
    /// Length of the part that is read through the mapping: all pages but the last.
    usable: usize,
}

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = RegularFile::open(path)?;
        let len = usize::try_from(file.len()).unwrap_or(0);
        let usable = len.saturating_sub(1) & !(page_size() - 1);
        let map = (usable > 0 && fits_address_space(file.len()))
            .then(|| {
                let mut options = memmap2::MmapOptions::new();
                options.len(len).map_raw_read_only(&file.file).ok()
            })
            .flatten();
        let guard = map
            .as_ref()
            .and_then(|map| Guard::watch(map.as_ptr() as usize, map.len()));
        // Without the guard, a SIGBUS would kill the process.
        let map = guard.as_ref().and(map);
        Ok(Self {
            file,
            guard,
            map,
            usable,
        })
    }

    /// Fills `buf` with the bytes at `offset`, checked.
    #[inline]
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if let Some(from) = self.pointer(offset, buf.len() as u64) {
            let copy = |at: usize, part: &mut [u8]| {
                let from = from.wrapping_add(at);
                // SAFETY: `pointer` returns a range of the length of `buf` within the mapping, which
                // lives as long as `self` and is readable throughout: `guard` replaces pages that
                // cannot be paged in. `buf` is memory of this process, so the two do not overlap. The
                // bytes may change during the copy (by another process, or by `guard`), so no
                // reference to them is created.
                unsafe { std::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), part.len()) };
            };
            // Words of a fixed size are copied without a call.
            if let Ok(word) = <&mut [u8; 8]>::try_from(&mut *buf) {
                copy(0, word);
            } else if let Ok(word) = <&mut [u8; 4]>::try_from(&mut *buf) {
                copy(0, word);
            } else {
                let size = part(buf.len());
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

    /// `N` bytes at `offset`.
    #[inline]
    pub fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// A copy of the `len` bytes at `offset`.
    pub fn copy(&self, offset: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        self.file.check(offset, len)?;
        let mut bytes = zeros(len)?;
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The `len` bytes at `offset`, or fewer, without a copy and without a check. Empty if they cannot
    /// be borrowed; they may still be readable.
    ///
    /// Results computed from them are valid only if [`MappedFile::is_intact`] is true *afterwards*. If
    /// not, nothing can be borrowed any more, and the work has to be repeated.
    #[inline]
    pub(crate) fn borrow(&self, offset: u64, len: u64) -> &[u8] {
        let len = len.min((self.usable as u64).saturating_sub(offset));
        let Some(from) = self.pointer(offset, len).filter(|_| !self.is_lost()) else {
            return &[];
        };
        // SAFETY: as in `read_at`. The bytes may change under the reference if another process writes
        // to the dump, as with every mapped file: any value of them is valid.
        unsafe { std::slice::from_raw_parts(from, len as usize) }
    }

    /// Whether no page of the mapping was lost so far. Valid for all reads before the call.
    #[inline]
    pub(crate) fn is_intact(&self) -> bool {
        // When a truncation becomes visible in the page where the file now ends, the kernel has
        // already unmapped the later pages (truncate_pagecache()); loads stay in order.
        after_loads();
        if let Some(map) = &self.map {
            // SAFETY: `usable` is less than the mapping's length; otherwise as in `read_at`. Volatile,
            // as it is read for its side effect, not for the byte.
            let _ = unsafe { map.as_ptr().add(self.usable).read_volatile() };
        }
        // The handler, in whatever thread, sets the flag before it replaces the pages.
        after_loads();
        !self.is_lost()
    }

    /// Maps the pages of a range at once, which takes less time than a fault for each.
    pub(crate) fn populate(&self, offset: u64, len: u64) {
        if let Some((map, at, len)) = self.pages(offset, len) {
            // Linux before 5.14 does not know it; then there is a fault for every few pages.
            let _ = map.advise_range(memmap2::Advice::PopulateRead, at, len);
        }
    }

    /// Unmaps the pages of a range until they are used again.
    pub(crate) fn release(&self, offset: u64, len: u64) {
        if let Some((map, at, len)) = self.pages(offset, len) {
            // SAFETY: the range is within the mapping, which is of a file and read-only: the next access
            // to a page maps it again, with the same bytes. The same holds for the zeros of `guard`.
            let _ =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, at, len) };
        }
    }

    /// The mapping, and the pages in it that have bytes of a range: their offset and length.
    fn pages(&self, offset: u64, len: u64) -> Option<(&memmap2::MmapRaw, usize, usize)> {
        let map = self.map.as_ref()?;
        let end = offset.saturating_add(len).min(self.usable as u64);
        let start = offset & !(page_size() as u64 - 1);
        // Within the mapping, so both fit.
        (start < end).then(|| (map, start as usize, (end - start) as usize))
    }

    #[inline]
    fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_lost)
    }

    /// The address of the range in the mapping; `None` if it must be read with `pread`.
    #[inline]
    fn pointer(&self, offset: u64, len: u64) -> Option<*const u8> {
        let map = self.map.as_ref()?;
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        if end > self.usable {
            return None;
        }
        // Within the mapping, so the sum cannot wrap.
        Some(map.as_ptr().wrapping_add(start))
    }
}

/// A barrier: earlier loads are completed before later ones. No instruction on x86.
#[inline]
fn after_loads() {
    compiler_fence(Ordering::SeqCst);
    fence(Ordering::Acquire);
}

/// Whether, after mapping `len` bytes, at least `len` bytes of address space remain. With less, later
/// allocations could fail, which usually aborts the process.
fn fits_address_space(len: u64) -> bool {
    let read = |name| std::fs::read_to_string(name).unwrap_or_default();
    let limits = read("/proc/self/limits");
    let mut lines = limits.lines();
    let soft = lines.find_map(|line| {
        line.strip_prefix("Max address space")?
            .split_whitespace()
            .next()
    });
    let Some(limit) = soft.and_then(|soft| soft.parse::<u64>().ok()) else {
        // Unlimited or unknown.
        return true;
    };
    let pages = read("/proc/self/statm")
        .split(' ')
        .next()
        .and_then(|pages| pages.parse().ok());
    let used = pages.map_or(0, |pages: u64| pages.saturating_mul(page_size() as u64));
    len <= limit.saturating_sub(used) / 2
}

/// Page size of this machine.
fn page_size() -> usize {
    // SAFETY: only returns a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // 64 KiB is the largest (arm64, ppc64), and safe for smaller ones.
    usize::try_from(size)
        .ok()
        .filter(|size| size.is_power_of_two())
        .unwrap_or(1 << 16)
}

/// For the path, the length and errors.
impl Deref for MappedFile {
    type Target = RegularFile;

    fn deref(&self) -> &RegularFile {
        &self.file
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // The guard must be dropped before the addresses can be reused.
        self.guard = None;
    }
}
