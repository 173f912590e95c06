//! Bytes by offset, wherever they are stored.

use super::{zeros, MappedFile, ReadError, RegularFile};

/// The bytes of a file, or of one that is stored inside another (flattened, compressed).
pub trait Storage: std::fmt::Debug + Send + Sync {
    /// The file on disk, for its path, its size and error messages.
    fn file(&self) -> &RegularFile;

    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Fills `buf` with the bytes at `offset`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError>;

    /// The `len` bytes at `offset`, or fewer, without a copy. Empty where they cannot be borrowed;
    /// they may still be readable.
    ///
    /// They are not checked: results computed from them are valid only if [`Storage::is_intact`] is
    /// true afterwards.
    #[inline]
    fn borrow(&self, _offset: u64, _len: u64) -> &[u8] {
        &[]
    }

    /// False if a borrowed slice was invalidated: retry with [`Storage::read_at`].
    #[inline]
    fn is_intact(&self) -> bool {
        true
    }

    /// Whether reads decompress more than they return. Batches should then be sorted by offset.
    fn is_decoded(&self) -> bool {
        false
    }

    /// The same as [`Storage::read_at`], for scattered reads of a few bytes, which need not be cached.
    /// The bytes are valid unless the file [has shrunk](RegularFile::has_shrunk) afterwards.
    fn peek(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.read_at(offset, buf)
    }

    /// The first offset at or after `offset` that is not in a hole of the file. `offset` itself if the holes
    /// are not known.
    fn next_data(&self, offset: u64) -> u64 {
        offset
    }

    /// Prepares for [`Storage::borrow`] in a range: brings its pages into memory at once.
    fn populate(&self, _offset: u64, _len: u64) {}

    /// The range is not needed soon: gives back memory that only caches its bytes. Later reads read them
    /// again.
    fn release(&self, _offset: u64, _len: u64) {}

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the `len` bytes at `offset` that exist.
    fn held(&self, offset: u64, len: u64) -> u64 {
        self.len().saturating_sub(offset).min(len)
    }

    /// A copy of the `len` bytes at `offset`. Allocates no more memory than the length of the storage.
    fn copy(&self, offset: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        if self.held(offset, len) < len {
            return Err(ReadError::PastEnd);
        }
        let mut bytes = zeros(len);
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }
}

impl Storage for MappedFile {
    fn file(&self) -> &RegularFile {
        self
    }

    #[inline]
    fn len(&self) -> u64 {
        RegularFile::len(self)
    }

    #[inline]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        MappedFile::read_at(self, offset, buf)
    }

    #[inline]
    fn borrow(&self, offset: u64, len: u64) -> &[u8] {
        MappedFile::borrow(self, offset, len)
    }

    #[inline]
    fn is_intact(&self) -> bool {
        MappedFile::is_intact(self)
    }

    fn peek(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        RegularFile::peek(self, offset, buf)
    }

    fn next_data(&self, offset: u64) -> u64 {
        MappedFile::next_data(self, offset)
    }

    fn populate(&self, offset: u64, len: u64) {
        MappedFile::populate(self, offset, len);
    }

    fn release(&self, offset: u64, len: u64) {
        MappedFile::release(self, offset, len);
    }
}

impl Storage for Box<dyn Storage> {
    fn file(&self) -> &RegularFile {
        (**self).file()
    }

    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        (**self).read_at(offset, buf)
    }

    fn borrow(&self, offset: u64, len: u64) -> &[u8] {
        (**self).borrow(offset, len)
    }

    fn is_intact(&self) -> bool {
        (**self).is_intact()
    }

    fn is_decoded(&self) -> bool {
        (**self).is_decoded()
    }

    fn peek(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        (**self).peek(offset, buf)
    }

    fn next_data(&self, offset: u64) -> u64 {
        (**self).next_data(offset)
    }

    fn populate(&self, offset: u64, len: u64) {
        (**self).populate(offset, len);
    }

    fn release(&self, offset: u64, len: u64) {
        (**self).release(offset, len);
    }
}

impl Storage for RegularFile {
    fn file(&self) -> &RegularFile {
        self
    }

    fn len(&self) -> u64 {
        RegularFile::len(self)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        RegularFile::read_at(self, offset, buf)
    }
}
