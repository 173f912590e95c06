//! A mapped file with checked reads.

use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
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
    mapping: Option<Mapping>,
}

/// The mapping of a file.
#[derive(Debug)]
struct Mapping {
    /// Without it, a SIGBUS would kill the process. It is dropped first, before the addresses can be
    /// reused.
    guard: Guard,
    map: memmap2::MmapRaw,
    /// Length of the part that is read through the mapping: all pages but the last.
    usable: usize,
}

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = RegularFile::open(path)?;
        let len = usize::try_from(file.len()).unwrap_or(0);
        let usable = len.saturating_sub(1) & !(page_size() - 1);
        let is_mapped = usable > 0 && fits_address_space(file.len());
        let mapping = is_mapped.then(|| Mapping::of(&file, len, usable)).flatten();
        Ok(Self { file, mapping })
    }

    /// Fills `buf` with the bytes at `offset`, checked.
    // Words, which page walks read, are copied without a call.
    #[inline(always)]
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if let Some(mapping) = &self.mapping {
            let is_read = if let Ok(word) = <&mut [u8; 8]>::try_from(&mut *buf) {
                mapping.read_word(offset, word)
            } else if let Ok(word) = <&mut [u8; 4]>::try_from(&mut *buf) {
                mapping.read_word(offset, word)
            } else {
                false
            };
            if is_read {
                return Ok(());
            }
        }
        self.read_any(offset, buf)
    }

    /// The same for any length.
    #[inline(never)]
    fn read_any(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let mapping = self.mapping.as_ref();
        if mapping.is_some_and(|mapping| mapping.read(offset, buf)) {
            return Ok(());
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
        let mut bytes = zeros(len);
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
        let mapping = self.mapping.as_ref();
        mapping.map_or(&[], |mapping| mapping.borrow(offset, len))
    }

    /// Whether no page of the mapping was lost so far. Valid for all reads before the call.
    #[inline]
    pub(crate) fn is_intact(&self) -> bool {
        self.mapping.as_ref().is_none_or(Mapping::is_intact)
    }

    /// See [`Storage::next_data`]. After the last data it is the length of the file.
    ///
    /// [`Storage::next_data`]: super::Storage::next_data
    pub fn next_data(&self, offset: u64) -> u64 {
        let Ok(from) = libc::off_t::try_from(offset) else {
            return offset;
        };
        // SAFETY: only moves the position of the descriptor, which nothing uses: all reads are by `pread`
        // or through the mapping.
        let found = unsafe { libc::lseek(self.file.file.as_raw_fd(), from, libc::SEEK_DATA) };
        match u64::try_from(found) {
            Ok(data) => data.max(offset),
            // There is no data after it.
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => {
                offset.max(self.file.len())
            }
            // Holes are not known.
            Err(_) => offset,
        }
    }

    /// See [`Storage::populate`].
    pub(crate) fn populate(&self, offset: u64, len: u64) {
        if let Some(mapping) = &self.mapping {
            mapping.populate(offset, len);
        }
    }

    /// See [`Storage::release`].
    pub(crate) fn release(&self, offset: u64, len: u64) {
        if let Some(mapping) = &self.mapping {
            mapping.release(offset, len);
        }
    }
}

impl Mapping {
    fn of(file: &RegularFile, len: usize, usable: usize) -> Option<Self> {
        let mut options = memmap2::MmapOptions::new();
        let map = options.len(len).map_raw_read_only(&file.file).ok()?;
        Some(Self {
            guard: Guard::watch(map.as_ptr() as usize, map.len())?,
            map,
            usable,
        })
    }

    /// Fills `word`; false if it must be read with `pread`.
    #[inline(always)]
    fn read_word<const N: usize>(&self, offset: u64, word: &mut [u8; N]) -> bool {
        let Some(from) = self.pointer(offset, N as u64) else {
            return false;
        };
        self.copy(from, word);
        self.is_intact()
    }

    /// The same for any length.
    fn read(&self, offset: u64, buf: &mut [u8]) -> bool {
        let Some(from) = self.pointer(offset, buf.len() as u64) else {
            return false;
        };
        let size = part(buf.len());
        for (i, part) in buf.chunks_mut(size).enumerate() {
            self.copy(from.wrapping_add(i * size), part);
        }
        self.is_intact()
    }

    /// Copies a part of a range that [`Mapping::pointer`] returned.
    #[inline(always)]
    fn copy(&self, from: *const u8, part: &mut [u8]) {
        // SAFETY: `pointer` returns a range within the mapping, and this is a part of it. The mapping
        // lives as long as `self` and is readable throughout: `guard` replaces pages that cannot be
        // paged in. `part` is memory of this process, so the two do not overlap. The bytes may change
        // during the copy (by another process, or by `guard`), so no reference to them is created.
        unsafe { std::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), part.len()) };
    }

    /// Maps the pages of a range at once, which takes less time than a fault for each.
    fn populate(&self, offset: u64, len: u64) {
        if let Some((at, len)) = self.pages(offset, len) {
            // Linux before 5.14 does not know it; then there is a fault for every few pages.
            let _ = self
                .map
                .advise_range(memmap2::Advice::PopulateRead, at, len);
        }
    }

    /// Unmaps the pages of a range until they are used again.
    fn release(&self, offset: u64, len: u64) {
        if let Some((at, len)) = self.pages(offset, len) {
            // SAFETY: the range is within the mapping, which is of a file and read-only: the next access
            // to a page maps it again, with the same bytes. The same holds for the zeros of `guard`.
            let _ = unsafe {
                self.map
                    .unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, at, len)
            };
        }
    }

    /// The pages that have bytes of a range: their offset and length.
    fn pages(&self, offset: u64, len: u64) -> Option<(usize, usize)> {
        let end = offset.saturating_add(len).min(self.usable as u64);
        let start = offset & !(page_size() as u64 - 1);
        // Within the mapping, so both fit.
        (start < end).then(|| (start as usize, (end - start) as usize))
    }

    #[inline]
    fn borrow(&self, offset: u64, len: u64) -> &[u8] {
        let len = len.min((self.usable as u64).saturating_sub(offset));
        let Some(from) = self.pointer(offset, len).filter(|_| !self.guard.is_lost()) else {
            return &[];
        };
        // SAFETY: as in `copy`. The bytes may change under the reference if another process writes
        // to the dump, as with every mapped file: any value of them is valid.
        unsafe { std::slice::from_raw_parts(from, len as usize) }
    }

    #[inline]
    fn is_intact(&self) -> bool {
        // When a truncation becomes visible in the page where the file now ends, the kernel has
        // already unmapped the later pages (truncate_pagecache()); loads stay in order.
        after_loads();
        // SAFETY: `usable` is less than the mapping's length; otherwise as in `copy`. Volatile, as it
        // is read for its side effect, not for the byte.
        let _ = unsafe { self.map.as_ptr().add(self.usable).read_volatile() };
        // The handler, in whatever thread, sets the flag before it replaces the pages.
        after_loads();
        !self.guard.is_lost()
    }

    /// The address of the range in the mapping; `None` if it must be read with `pread`.
    #[inline]
    fn pointer(&self, offset: u64, len: u64) -> Option<*const u8> {
        let last_start = (self.usable as u64).checked_sub(len)?;
        // Within the mapping, so neither the conversion nor the sum can overflow.
        (offset <= last_start).then(|| self.map.as_ptr().wrapping_add(offset as usize))
    }
}

/// The bytes that a cache line has at least.
const LINE: usize = 64;
/// How many objects ahead one is prefetched. A processor has 10 to 16 cache misses in progress; with many
/// more ahead, the copies, which have cache misses of their own, would wait for all of them.
const AHEAD: usize = 32;

/// Objects in scattered memory, in this order, for a loop that reads `len` bytes at offset `from` of each.
/// The memory of those ahead is prefetched, so that cache and TLB misses overlap.
#[inline(always)]
pub fn prefetched<'f, 'm>(
    objects: &'f [&'m [u8]],
    from: usize,
    len: usize,
) -> impl Iterator<Item = &'m [u8]> + use<'f, 'm> {
    for first in objects.iter().take(AHEAD) {
        prefetch(first, from, len);
    }
    objects.iter().enumerate().map(move |(i, object)| {
        if let Some(ahead) = objects.get(i.wrapping_add(AHEAD)) {
            prefetch(ahead, from, len);
        }
        *object
    })
}

/// Starts to load the cache lines of the first and the last of these bytes. Unlike a load it does not wait
/// for the memory, and has no fault.
#[inline(always)]
fn prefetch(object: &[u8], from: usize, len: usize) {
    let start = object.as_ptr().wrapping_add(from);
    prefetch_line(start);
    if start as usize % LINE + len > LINE {
        prefetch_line(start.wrapping_add(len.saturating_sub(1)));
    }
}

#[inline(always)]
fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        // SAFETY: whatever the address, a prefetch changes nothing that the program can see: where there is
        // no memory, or where the file was truncated, it does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_prefetched_in_order_wherever_they_are() {
        let memory: Vec<_> = (0..=255).collect();
        let objects: Vec<&[u8]> = (0..3 * AHEAD)
            .map(|i| match i % 4 {
                0 => &[],
                1 => &memory[255..],
                _ => &memory[i..],
            })
            .collect();
        for count in [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, objects.len()] {
            let some = &objects[..count];
            // Past the end of them, and in no memory at all.
            for from in [0, 1, 300, 1 << 46, usize::MAX] {
                for len in [0, 1, 8, LINE, LINE + 1, 1 << 46] {
                    assert!(prefetched(some, from, len).eq(some.iter().copied()));
                }
            }
        }
    }
}
