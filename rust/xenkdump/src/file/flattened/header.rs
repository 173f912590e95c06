//! Sizes and numbers of headers.

/// Size of the header of the file: signature, type, version, and zeros.
pub(super) const FILE_HEADER: u64 = 4096;
/// Size of the header of a block: offset and size, both int64, most significant byte first.
pub(super) const BLOCK_HEADER: u64 = 16;

/// A number in a header.
pub(super) fn int64(bytes: &[u8], at: usize) -> i64 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| i64::from_be_bytes(*bytes))
}
