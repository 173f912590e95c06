//! A file whose contents are unpacked in memory.

mod bzip2;
mod compression;
mod lz4_legacy;
mod lzop;
mod stream;
mod zstd;

use std::io::{self, Read};

use super::{ReadError, RegularFile, Storage};
use crate::{Error, Result};

pub use compression::{Compression, Extent, Failure, Why};

/// The unpacked contents of a compressed file, or of a compressed part of it.
#[derive(Debug)]
pub struct Unpacked {
    file: RegularFile,
    bytes: Vec<u8>,
}

/// A part of a file, read from its start to its end.
struct Part<'a> {
    file: &'a RegularFile,
    at: u64,
    end: u64,
}

impl<'a> Part<'a> {
    /// The bytes from `at` to `end`, or to the end of the file.
    fn new(file: &'a RegularFile, at: u64, end: u64) -> Self {
        let end = end.min(file.len());
        Self { file, at, end }
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.end.saturating_sub(self.at);
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(buf.len());
        let buf = buf.get_mut(..len).unwrap_or_default();
        match self.file.read_at(self.at, buf) {
            Ok(()) => {
                self.at += len as u64;
                Ok(len)
            }
            Err(ReadError::PastEnd) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(ReadError::Os(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Err(error @ ReadError::Corrupt { .. }) => Err(io::Error::other(format!("{error:?}"))),
        }
    }
}

impl Unpacked {
    /// `bytes` are the unpacked contents of `file`.
    pub fn new(file: RegularFile, bytes: Vec<u8>) -> Self {
        Self { file, bytes }
    }
}

/// How much of a stream is unpacked.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// This number of bytes from the start; all of them if there are fewer.
    Head(usize),
    /// All bytes: an error if there are more than `most`. `expected` are expected.
    All {
        /// The limit.
        most: u64,
        /// The expected size, for which memory is reserved; 0 if it is not known.
        expected: u64,
    },
}

/// Unpacks the part of a file from `start` to `end`.
pub fn unpack(
    file: &RegularFile,
    compression: Compression,
    (start, end): (u64, u64),
    extent: Extent,
    size: Size,
) -> Result<Vec<u8>> {
    let part = Part::new(file, start, end);
    let unpacked = match size {
        Size::Head(len) => compression.head(part, extent, len),
        Size::All { most, expected } => compression.unpack(part, extent, most, expected),
    };
    unpacked.map_err(|failure| match failure {
        Failure {
            why: Why::Os(errno),
            ..
        } => file.read_error(start, ReadError::Os(errno)),
        Failure {
            why: Why::NoMemory, ..
        } => Error::Io {
            path: file.path().display().to_string(),
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        },
        failure => {
            let expected = format!("an intact {} stream", compression.name());
            file.format_error(start, expected, failure.to_string())
        }
    })
}

impl Storage for Unpacked {
    fn file(&self) -> &RegularFile {
        &self.file
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let held = usize::try_from(offset)
            .ok()
            .and_then(|at| self.bytes.get(at..at.checked_add(buf.len())?));
        buf.copy_from_slice(held.ok_or(ReadError::PastEnd)?);
        Ok(())
    }
}
