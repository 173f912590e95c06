//! Files, which may be truncated while they are read.
//!
//! - [`RegularFile`]: read by `pread`. For images and symbol maps, whose bytes are kept as copies.
//! - [`MappedFile`]: a mapped file, for dumps. Every read is checked; see [`guard`].
//! - [`Flattened`]: what a file in makedumpfile's flattened format stands for.
//! - [`ZstdFile`]: the contents of a zstd file whose frames can be decompressed one by one.
//! - [`Unpacked`]: what a compressed image stands for; [`Compression`] has the formats.
//! - [`Storage`]: what dump formats need of any.
//!
//! They yield the bytes of the file or an error, never zeros in place of lost bytes.

mod flattened;
mod guard;
mod mapped;
mod storage;
mod unpack;
mod zstd;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::alloc;
use crate::{Error, Result};

pub(crate) use flattened::FIRST_BLOCK;
pub use flattened::{is_flattened, Flattened};
pub use mapped::{prefetched, MappedFile};
pub use storage::Storage;
pub use unpack::{unpack, Compression, Extent, Failure, Size, Unpacked, Why};
pub use zstd::{content_size as zstd_content_size, Decoder as ZstdDecoder, ZstdFile};

/// The chunk size with which copying `len` bytes is fastest.
///
/// From 2 KiB on glibc copies by `rep movsb`, which is very slow on Zen 3 and Zen 4 if the destination
/// is a few bytes further into its page than the source (glibc bug 30994). Memory of a dump starts on
/// a page, and Python's buffers 16 or 32 bytes after one. From 1 MiB on glibc uses non-temporal
/// stores.
pub const fn part(len: usize) -> usize {
    const SHORT: usize = 1 << 10;
    const LONG: usize = 1 << 20;
    if len < LONG {
        SHORT
    } else {
        len
    }
}

/// Why bytes of a file could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The file ends before them, perhaps because it was truncated after it was opened.
    PastEnd,
    /// The error number of the operating system.
    Os(i32),
    /// They cannot be decompressed.
    Corrupt {
        /// Where the compressed bytes are in the file.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A regular file, opened read-only.
#[derive(Debug)]
pub struct RegularFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl RegularFile {
    /// Opens the file at `path`. Fails for pipes, devices, directories and sockets.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io {
            path: path.display().to_string(),
            source,
        };
        // Without O_NONBLOCK opening a pipe waits for its writer; without O_NOCTTY a terminal may
        // become the controlling one. Neither affects regular files.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let kind = metadata.file_type();
        if kind.is_file() {
            return Ok(Self {
                path: path.to_owned(),
                file,
                len: metadata.len(),
            });
        }
        let found = match kind {
            kind if kind.is_dir() => "a directory",
            kind if kind.is_fifo() => "a pipe",
            kind if kind.is_char_device() => "a character device",
            kind if kind.is_block_device() => "a block device",
            kind if kind.is_socket() => "a socket",
            _ => "something else",
        };
        Err(Error::NotRegular {
            path: path.display().to_string(),
            found,
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes when it was opened. Nothing past it is read.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Device, inode, length and times, which differ for other files and after changes. `None` if the
    /// operating system does not report them.
    pub(crate) fn identity(&self) -> Option<[u64; 7]> {
        let metadata = self.file.metadata().ok()?;
        Some([
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime() as u64,
            metadata.mtime_nsec() as u64,
            metadata.ctime() as u64,
            metadata.ctime_nsec() as u64,
        ])
    }

    /// Whether it was empty when it was opened.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buf` with the bytes at `offset`.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let end = offset.saturating_add(buf.len() as u64);
        self.peek(offset, buf)?;
        // If the file is truncated within a page, the rest of that page may be cleared while it is
        // copied; the file has its new length by then.
        match self.file.metadata() {
            Ok(metadata) if metadata.len() < end => Err(ReadError::PastEnd),
            Ok(_) => Ok(()),
            Err(error) => Err(os_error(&error)),
        }
    }

    /// Whether it is shorter than it was when it was opened.
    pub(crate) fn has_shrunk(&self) -> bool {
        let metadata = self.file.metadata();
        metadata.is_ok_and(|metadata| metadata.len() < self.len)
    }

    /// The same as [`RegularFile::read_at`], with one system call instead of two. The bytes are valid
    /// unless the file [has shrunk](RegularFile::has_shrunk) afterwards.
    pub(crate) fn peek(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.check(offset, buf.len() as u64)?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            match self.file.read_at(rest, at) {
                Ok(0) => return Err(ReadError::PastEnd),
                Ok(n) => {
                    at = at.saturating_add(n as u64);
                    rest = rest.get_mut(n..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(os_error(&error)),
            }
        }
        Ok(())
    }

    /// A copy of the `len` bytes at `offset`. Allocates no more memory than the file's length when it
    /// was opened.
    pub fn copy(&self, offset: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        self.check(offset, len)?;
        let mut bytes = zeros(len);
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The number of the `len` bytes at `offset` that were in the file when it was opened.
    pub fn held(&self, offset: u64, len: u64) -> u64 {
        self.len.saturating_sub(offset).min(len)
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), ReadError> {
        if self.held(offset, len) < len {
            return Err(ReadError::PastEnd);
        }
        Ok(())
    }

    /// A failed read of this file as an [`Error`].
    pub fn read_error(&self, offset: u64, error: ReadError) -> Error {
        match error {
            ReadError::PastEnd => self.format_error(offset, "more bytes", "the end of the file"),
            ReadError::Os(errno) => Error::Io {
                path: self.path.display().to_string(),
                source: io::Error::from_raw_os_error(errno),
            },
            ReadError::Corrupt { offset, reason } => self.format_error(
                offset,
                "intact compressed data",
                format!("damage ({reason})"),
            ),
        }
    }

    /// An [`Error::Format`] about this file.
    pub fn format_error(
        &self,
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Format {
            path: self.path.display().to_string(),
            offset,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

fn os_error(error: &io::Error) -> ReadError {
    ReadError::Os(error.raw_os_error().unwrap_or(libc::EIO))
}

/// A zeroed buffer.
fn zeros(len: u64) -> Vec<u8> {
    alloc::filled(0, usize::try_from(len).unwrap_or(usize::MAX))
}
