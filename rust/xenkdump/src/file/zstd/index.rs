//! Where the frames of a zstd file are, and their sizes.
//!
//! The seekable format (contrib/seekable_format of zstd) has a table of the frames in a skippable frame
//! at the end. Without it, the headers of all frames and blocks are followed, as long as each frame says
//! how large its contents are: a file that was compressed as one frame is given up at its first header.

use crate::alloc;
use crate::file::{MappedFile, ReadError, Storage};
use crate::limits::{MAX_ZSTD_BLOCKS, MAX_ZSTD_FRAMES, MAX_ZSTD_FRAME_SIZE};

const MAGIC: u32 = 0xfd2f_b528;
/// Of skippable frames, with any last four bits.
const SKIPPABLE: u32 = 0x184d_2a50;
/// Of the skippable frame with the seek table.
const SEEK_TABLE: u32 = 0x184d_2a5e;
/// The last bytes of a seek table.
const SEEKABLE: u32 = 0x8f92_eab1;
/// Size of the header of a skippable frame: magic number, size of what follows.
const SKIPPABLE_HEADER: u64 = 8;
/// Size of the end of a seek table: number of frames, flags, magic number.
const FOOTER: u64 = 9;
/// Entries of the seek table that are read at once.
const CHUNK: u64 = 1 << 12;

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Offset in the file.
    pub at: u64,
    pub packed_len: u64,
    /// Offset of its contents.
    pub start: u64,
    pub len: u64,
    /// Of its contents.
    pub checksum: Option<u32>,
}

/// The frames of a file.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The end of each frame, in the file and of its contents. Both ascend.
    ends: Vec<(u64, u64)>,
    /// Of each frame, if the file has them.
    checksums: Vec<u32>,
    /// The most memory that a frame takes while it is decompressed.
    max_frame_memory: u64,
}

/// Whether a frame may start with this number.
pub(super) fn is_magic(number: u32) -> bool {
    number == MAGIC || number & !0xf == SKIPPABLE
}

impl Index {
    /// Reads the seek table, or else the headers of all frames. If that does not suffice to read the file
    /// in place, the error says why.
    pub fn read(file: &MappedFile) -> Result<Self, String> {
        let index = match Self::of_seek_table(file)? {
            Some(index) => index,
            None => Self::of_headers(file)?,
        };
        if index.len() == 0 {
            return Err("it has no contents".into());
        }
        Ok(index)
    }

    /// The size of the contents.
    pub fn len(&self) -> u64 {
        self.ends.last().map_or(0, |(_, end)| *end)
    }

    pub fn max_frame_memory(&self) -> usize {
        usize::try_from(self.max_frame_memory).unwrap_or(usize::MAX)
    }

    /// The number of the frame with a byte of the contents, and the frame.
    pub fn find(&self, offset: u64) -> Option<(u64, Frame)> {
        let number = self.ends.partition_point(|(_, end)| *end <= offset);
        let (at_end, end) = *self.ends.get(number)?;
        let before = number.checked_sub(1).and_then(|i| self.ends.get(i));
        let (at, start) = before.copied().unwrap_or_default();
        let frame = Frame {
            at,
            packed_len: at_end - at,
            start,
            len: end - start,
            checksum: self.checksums.get(number).copied(),
        };
        Some((number as u64, frame))
    }

    fn push(&mut self, packed_len: u64, len: u64) -> Result<(), String> {
        if len > MAX_ZSTD_FRAME_SIZE {
            return Err(format!(
                "it has a frame of {len} bytes, and at most {MAX_ZSTD_FRAME_SIZE} are read in place"
            ));
        }
        // Frames without contents are never read.
        if len > 0 {
            let bound = zstd_safe::compress_bound(len as usize) as u64;
            if packed_len > bound.saturating_mul(2) {
                return Err(format!(
                    "it has a frame of {packed_len} bytes with {len} bytes of contents"
                ));
            }
            self.max_frame_memory = self.max_frame_memory.max(packed_len + len);
        }
        if self.ends.len() >= MAX_ZSTD_FRAMES {
            return Err(format!(
                "it has more frames than the {} that are read in place",
                self.ends.len()
            ));
        }
        let (at, start) = self.ends.last().copied().unwrap_or_default();
        let ends = at.checked_add(packed_len).zip(start.checked_add(len));
        alloc::push(&mut self.ends, ends.ok_or("its sizes have no bound")?);
        Ok(())
    }

    /// Reads the seek table at the end of the file; `None` if there is none.
    fn of_seek_table(file: &MappedFile) -> Result<Option<Self>, String> {
        let len = MappedFile::len(file);
        let Some(footer_at) = len.checked_sub(FOOTER) else {
            return Ok(None);
        };
        let Ok(footer) = file.array::<{ FOOTER as usize }>(footer_at) else {
            return Ok(None);
        };
        if word(&footer, 5) != SEEKABLE {
            return Ok(None);
        }
        let (count, flags) = (u64::from(word(&footer, 0)), footer.get(4).copied());
        let flags = flags.unwrap_or(0);
        // The last two bits have no meaning, the others are reserved.
        if flags & 0x7c != 0 {
            return Err(format!("its seek table has the unknown flags {flags:#x}"));
        }
        let has_checksums = flags & 0x80 != 0;
        let wrong = || "its seek table does not match the file".to_owned();
        let entry_size = if has_checksums { 12 } else { 8 };
        // Below 2^36.
        let table = count * entry_size;
        let frame_at = footer_at
            .checked_sub(table + SKIPPABLE_HEADER)
            .ok_or_else(wrong)?;
        let header = file.array::<8>(frame_at).map_err(|_| wrong())?;
        let (magic, size) = (word(&header, 0), u64::from(word(&header, 4)));
        if magic != SEEK_TABLE || size != table + FOOTER {
            return Err(wrong());
        }
        if count > MAX_ZSTD_FRAMES as u64 {
            return Err(format!(
                "it has {count} frames, and at most {MAX_ZSTD_FRAMES} are read in place"
            ));
        }
        let mut index = Self::default();
        let mut at = frame_at + SKIPPABLE_HEADER;
        while at < footer_at {
            let part = (footer_at - at).min(CHUNK * entry_size);
            let bytes = file.copy(at, part).map_err(|_| wrong())?;
            for entry in bytes.chunks_exact(entry_size as usize) {
                index.push(word(entry, 0).into(), word(entry, 4).into())?;
                if has_checksums {
                    alloc::push(&mut index.checksums, word(entry, 8));
                }
            }
            at += part;
        }
        // The frames are all that is before the table.
        if index.ends.last().map_or(0, |(end, _)| *end) != frame_at {
            return Err(wrong());
        }
        Ok(Some(index))
    }

    /// Follows the headers of frames and blocks.
    fn of_headers(file: &MappedFile) -> Result<Self, String> {
        let mut index = Self::default();
        let mut blocks = 0;
        let (mut start, mut at) = (0, 0);
        // Not from the mapping: that would read the pages around each header, too.
        let number = |at| {
            let mut bytes = [0; 4];
            let read = file.peek(at, &mut bytes);
            read.map(|()| u32::from_le_bytes(bytes))
        };
        let cut = |_| "its last frame is cut or corrupt".to_owned();
        while at < MappedFile::len(file) {
            let magic = number(at).map_err(cut)?;
            if magic & !0xf == SKIPPABLE {
                // Belongs to the next frame: the decoder skips it.
                let size = number(at + 4).map_err(cut)?;
                at = at.saturating_add(SKIPPABLE_HEADER + u64::from(size));
                if file.held(at, 1) == 0 {
                    // The last one. Nothing comes after it that has contents.
                    index.push(at - start, 0)?;
                    start = at;
                }
                continue;
            }
            if magic != MAGIC {
                return Err("it has other data after its last frame".into());
            }
            let header = FrameHeader::read(file, at)?;
            let Some(len) = header.len else {
                return Err("its frames do not say how large their contents are".into());
            };
            at += header.size;
            loop {
                blocks += 1;
                if blocks > MAX_ZSTD_BLOCKS {
                    return Err("it has no seek table".into());
                }
                // Three bytes; the fourth one is the block's, or the checksum's.
                let mut bytes = [0; 4];
                let three = bytes
                    .first_chunk_mut::<3>()
                    .map(|three| file.peek(at, three));
                three.transpose().map_err(cut)?;
                let block = u32::from_le_bytes(bytes);
                let size = match block >> 1 & 3 {
                    // A byte that is repeated.
                    1 => 1,
                    3 => return Err(cut(ReadError::PastEnd)),
                    _ => u64::from(block >> 3),
                };
                at += 3 + size;
                if block & 1 != 0 {
                    break;
                }
            }
            at += header.checksum_size;
            if at > MappedFile::len(file) {
                return Err(cut(ReadError::PastEnd));
            }
            index.push(at - start, len)?;
            start = at;
        }
        Ok(index)
    }
}

/// What the header of a frame says.
struct FrameHeader {
    /// Of the header.
    size: u64,
    /// Of the contents.
    len: Option<u64>,
    checksum_size: u64,
}

impl FrameHeader {
    fn read(file: &MappedFile, at: u64) -> Result<Self, String> {
        // 18 bytes at most. A frame with less is followed by blocks.
        let held = file.held(at, 18) as usize;
        let mut bytes = [0; 18];
        let read = bytes.get_mut(..held).map(|part| file.peek(at, part));
        let descriptor = bytes.get(4).copied().unwrap_or(0);
        let single_segment = descriptor >> 5 & 1;
        let window = u64::from(1 - single_segment);
        let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied();
        let content_size = match (descriptor >> 6, single_segment) {
            (0, single) => u64::from(single),
            (1, _) => 2,
            (2, _) => 4,
            _ => 8,
        };
        let len = zstd_safe::get_frame_content_size(bytes.get(..held).unwrap_or_default());
        match (read, len, dictionary) {
            (Some(Ok(())), Ok(len), Some(0)) => Ok(Self {
                size: 5 + window + content_size,
                len,
                // The flag is 4, and the checksum has four bytes.
                checksum_size: u64::from(descriptor & 4),
            }),
            (Some(Ok(())), Ok(_), Some(_)) => Err("it needs a dictionary".into()),
            _ => Err("its last frame is cut or corrupt".into()),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
