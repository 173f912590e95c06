//! Shared bytes.

use std::ops::Deref;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::alloc;
use crate::file::{ReadError, Storage};

/// Parts of a file from this size on are read into memory that is mapped.
const MIN_MAPPED: u64 = 256 << 10;

/// Bytes in memory, cheap to clone. Dereferences to a slice.
///
/// A copy of a part of a file, so that later changes of the file have no effect.
#[derive(Clone)]
pub struct Bytes(Arc<Held>);

enum Held {
    Vec(Vec<u8>),
    Mapped(MmapMut),
}

impl Bytes {
    /// A copy of the `len` bytes at `offset` of a file. Allocates no more memory than its length.
    pub(crate) fn read(file: &dyn Storage, offset: u64, len: u64) -> Result<Self, ReadError> {
        if len < MIN_MAPPED {
            return file.copy(offset, len).map(Self::from);
        }
        if file.held(offset, len) < len {
            return Err(ReadError::PastEnd);
        }
        let mut bytes = alloc::mapped(usize::try_from(len).unwrap_or(usize::MAX));
        file.read_at(offset, &mut bytes)?;
        Ok(Self(Arc::new(Held::Mapped(bytes))))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Held::Vec(bytes)))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.0 {
            Held::Vec(bytes) => bytes,
            Held::Mapped(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({} bytes)", self.len())
    }
}
