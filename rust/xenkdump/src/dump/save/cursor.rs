//! Reads a stream from its start to its end.

use crate::file::{ReadError, Storage};
use crate::Result;

/// A position in a stream. `None` stands for the end of the file.
#[derive(Debug)]
pub(super) struct Cursor<'s, S> {
    pub storage: &'s S,
    /// Offset in the file.
    pub at: u64,
}

impl<'s, S: Storage> Cursor<'s, S> {
    pub fn new(storage: &'s S) -> Self {
        Self { storage, at: 0 }
    }

    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        Ok(self.fill(&mut bytes)?.map(|()| bytes))
    }

    /// Fills `bytes` with the next ones.
    pub fn fill(&mut self, bytes: &mut [u8]) -> Result<Option<()>> {
        match self.storage.read_at(self.at, bytes) {
            Ok(()) => {
                self.at = self.at.saturating_add(bytes.len() as u64);
                Ok(Some(()))
            }
            Err(ReadError::PastEnd) => Ok(None),
            Err(error) => Err(self.storage.file().read_error(self.at, error)),
        }
    }

    /// The next `u32`, least significant byte first.
    pub fn u32(&mut self) -> Result<Option<u32>> {
        Ok(self.take()?.map(u32::from_le_bytes))
    }

    /// The next `u64`, least significant byte first.
    pub fn u64(&mut self) -> Result<Option<u64>> {
        Ok(self.take()?.map(u64::from_le_bytes))
    }

    /// Passes over `len` bytes; `None` if the file ends before or within them.
    pub fn skip(&mut self, len: u64) -> Option<Range> {
        let range = Range {
            offset: self.at,
            size: len,
        };
        self.at = self.at.saturating_add(len);
        (self.at <= self.storage.len()).then_some(range)
    }

    /// The header of a record of the streams v2 and v3, and where its body is.
    pub fn record(&mut self) -> Result<Option<Record>> {
        let Some(header) = self.take::<8>()? else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h] = header;
        let size = u64::from(u32::from_le_bytes([e, f, g, h]));
        let body = Range {
            offset: self.at,
            size,
        };
        self.at = self.at.saturating_add(size.next_multiple_of(8));
        Ok(Some(Record {
            kind: u32::from_le_bytes([a, b, c, d]),
            body,
            is_whole: body.offset.saturating_add(size) <= self.storage.len(),
        }))
    }
}

/// Bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub offset: u64,
    pub size: u64,
}

impl Range {
    /// What follows its first `len` bytes; `None` if it is shorter.
    pub fn after(self, len: u64) -> Option<Self> {
        Some(Self {
            size: self.size.checked_sub(len)?,
            offset: self.offset.saturating_add(len),
        })
    }
}

/// A record of the streams v2 and v3.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub kind: u32,
    pub body: Range,
    /// Whether the file has its whole body.
    pub is_whole: bool,
}

impl Record {
    /// Whether a reader that does not know it must not restore the domain.
    pub fn is_mandatory(&self) -> bool {
        self.kind >> 31 == 0
    }
}
