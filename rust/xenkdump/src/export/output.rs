//! Files that are written by position.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::job::Failure;
use crate::alloc;

/// Makes the file `size` bytes long: what is not written is a hole.
pub(super) fn resize(file: &File, size: u64) -> Result<(), Failure> {
    Ok(file.set_len(size)?)
}

/// Writes all bytes at an offset.
pub(super) fn write(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Bytes that are written in order: collected, and written by position.
pub(super) struct Appender {
    buffer: Vec<u8>,
    /// The offset of the buffer in the file.
    offset: u64,
}

impl Appender {
    const SIZE: usize = 64 << 10;

    pub fn new(offset: u64) -> Self {
        Self {
            buffer: alloc::with_capacity(Self::SIZE),
            offset,
        }
    }

    pub fn push(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len().saturating_add(bytes.len()) > Self::SIZE {
            self.flush(file)?;
        }
        alloc::extend(&mut self.buffer, bytes);
        Ok(())
    }

    pub fn flush(&mut self, file: &File) -> io::Result<()> {
        write(file, self.offset, &self.buffer)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Little-endian fields of a header.
#[derive(Default)]
pub(super) struct Fields(pub Vec<u8>);

impl Fields {
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// An address, an offset or a size of a format with 32 or 64 bits.
    pub fn word(&mut self, value: u64, is_64: bool) -> &mut Self {
        if is_64 {
            self.u64(value)
        } else {
            self.u32(value as u32)
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        alloc::extend(&mut self.0, bytes);
        self
    }

    /// Zeros up to a length.
    pub fn pad_to(&mut self, len: usize) -> &mut Self {
        while self.0.len() < len {
            alloc::push(&mut self.0, 0);
        }
        self
    }
}
