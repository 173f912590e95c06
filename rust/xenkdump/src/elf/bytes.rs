//! Bytes that stay valid on their own: part of a mapped file, or memory.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::file::MappedFile;

/// Bytes, cheap to clone. Dereferences to a slice.
#[derive(Clone)]
pub struct Bytes(Kind);

#[derive(Clone)]
enum Kind {
    Mapped(Arc<MappedFile>, Range<usize>),
    Owned(Arc<[u8]>),
}

impl Bytes {
    /// A range of a mapped file; `None` where the file is shorter.
    pub fn mapped(file: &Arc<MappedFile>, offset: u64, size: u64) -> Option<Self> {
        file.range(offset, size)?;
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        Some(Self(Kind::Mapped(Arc::clone(file), start..end)))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Kind::Owned(bytes.into()))
    }
}

impl From<Arc<[u8]>> for Bytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self(Kind::Owned(bytes))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Mapped(file, range) => file.bytes().get(range.clone()).unwrap_or_default(),
            Kind::Owned(bytes) => bytes,
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
