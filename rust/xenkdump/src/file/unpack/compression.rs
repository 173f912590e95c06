//! Compressed data, by the formats in which kernels and files are packed.
//!
//! | format | decoder |
//! |---|---|
//! | gzip | flate2 (zlib-rs) |
//! | bzip2 | bzip2 (libbz2-rs) |
//! | lzma, xz | lzma-rust2, with the x86 filter that kernels use |
//! | LZO | lzokay, inside the container of lzop |
//! | lz4 | lz4_flex; its legacy frames here |
//! | zstd | libzstd, by zstd-safe |
//!
//! All of them are streams. They use memory for the decoder's window, which is limited, and for the output
//! that the caller keeps.

use std::io::{self, BufReader, Read};

use super::{bzip2::Bzip2, lz4_legacy::Lz4Legacy, lzop::Lzop, stream::BlockReader, zstd::Zstd};
use crate::alloc;
use crate::limits::{MAX_IMAGE_DECODER_MEMORY, MAX_UNPACKED_CHUNK};

/// Bytes of a decoder of gzip, and what the allocator asks the system for beyond it. The crate panics
/// if there is no memory for it.
const GZIP_STATE: usize = 512 << 10;
/// Bytes of packed data that are read at once.
const BUFFER: usize = 32 << 10;
/// Bytes of a decoder of LZ4 frames: three blocks of up to 8 MiB, and the window.
const LZ4_BLOCKS: usize = ((3 * 8) << 20) + (64 << 10);

/// A compressed format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The format of LZMA Utils, without a magic number: `.lzma`.
    Lzma,
    /// xz.
    Xz,
    /// LZO in the format of lzop.
    Lzo,
    /// The frames of `lz4 -l`, which Linux uses.
    Lz4Legacy,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// Where the compressed data ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// After one stream; other bytes may follow.
    Stream,
    /// At the end of the data, which may be several streams.
    File,
}

/// Formats by their first bytes.
const MAGICS: [(&[u8], Compression); 8] = [
    (b"\x1f\x8b\x08", Compression::Gzip),
    (b"BZh", Compression::Bzip2),
    (b"\xfd7zXZ\0", Compression::Xz),
    (b"\x89LZO\0\r\n\x1a\n", Compression::Lzo),
    (b"\x02\x21\x4c\x18", Compression::Lz4Legacy),
    (b"\x04\x22\x4d\x18", Compression::Lz4),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    // The properties that all encoders use by default (lc 3, lp 0, pb 2), and the low bytes of the size of
    // the dictionary, a power of two.
    (b"\x5d\0\0", Compression::Lzma),
];

impl Compression {
    /// The format of data that starts so.
    pub fn of(start: &[u8]) -> Option<Self> {
        let known = MAGICS.iter().find(|(magic, _)| start.starts_with(magic));
        known.map(|(_, format)| *format)
    }

    /// All formats, each with the bytes that it starts with.
    pub fn magics() -> impl Iterator<Item = (&'static [u8], Self)> {
        MAGICS.into_iter()
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4Legacy | Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// A reader of the unpacked bytes.
    pub fn decoder<'a>(
        self,
        packed: impl Read + 'a,
        extent: Extent,
    ) -> io::Result<Box<dyn Read + 'a>> {
        let packed = BufReader::with_capacity(BUFFER, packed);
        let is_file = extent == Extent::File;
        Ok(match self {
            Self::Gzip => {
                alloc::probe(GZIP_STATE);
                if is_file {
                    Box::new(flate2::bufread::MultiGzDecoder::new(packed))
                } else {
                    Box::new(flate2::bufread::GzDecoder::new(packed))
                }
            }
            Self::Bzip2 => Box::new(Bzip2::new(packed, is_file)),
            Self::Lzma => Box::new(lzma_rust2::LzmaReader::new_mem_limit(
                packed,
                MAX_IMAGE_DECODER_MEMORY,
                None,
            )?),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
                packed,
                is_file,
                MAX_IMAGE_DECODER_MEMORY,
            )),
            Self::Lzo => Box::new(BlockReader::new(Lzop::new(packed)?)),
            Self::Lz4Legacy => Box::new(BlockReader::new(Lz4Legacy::new(packed, !is_file)?)),
            Self::Lz4 => {
                // The crate aborts without memory for its blocks.
                alloc::probe(LZ4_BLOCKS);
                Box::new(lz4_flex::frame::FrameDecoder::new(packed))
            }
            Self::Zstd => Box::new(Zstd::new(packed, is_file)?),
        })
    }

    /// The first `len` unpacked bytes; all of them if there are fewer.
    pub fn head(self, packed: impl Read, extent: Extent, len: usize) -> Result<Vec<u8>, Failure> {
        let mut out = alloc::with_capacity(len);
        let decoder = self.decoder(packed, extent);
        let read = decoder.and_then(|decoder| decoder.take(len as u64).read_to_end(&mut out));
        read.map_err(|error| Failure {
            unpacked: out.len() as u64,
            why: Why::of(&error),
        })?;
        Ok(out)
    }

    /// All unpacked bytes, at most `limit`. `expected` is how many there will be, if it is known: no
    /// more memory is reserved than that.
    pub fn unpack(
        self,
        packed: impl Read,
        extent: Extent,
        limit: u64,
        expected: u64,
    ) -> Result<Vec<u8>, Failure> {
        let mut out = Vec::new();
        let fail = |out: &Vec<u8>, error: io::Error| Failure {
            unpacked: out.len() as u64,
            why: Why::of(&error),
        };
        let reserve = |out: &mut Vec<u8>, more: u64| {
            alloc::reserve_exact(out, usize::try_from(more).unwrap_or(usize::MAX));
        };
        reserve(&mut out, expected.min(limit));
        let mut decoder = self
            .decoder(packed, extent)
            .map_err(|error| fail(&out, error))?;
        loop {
            let spare = out.capacity() - out.len();
            // One byte more is requested at the end, so that the decoder reaches and verifies the end of the stream.
            if spare == 0 {
                let more = (out.len() as u64 / 2).clamp(1 << 16, MAX_UNPACKED_CHUNK);
                let mut one = [0];
                match read(&mut *decoder, &mut one).map_err(|error| fail(&out, error))? {
                    0 => return Ok(out),
                    _ if out.len() as u64 >= limit => {
                        return Err(Failure {
                            unpacked: limit,
                            why: Why::Limit,
                        })
                    }
                    _ => {
                        reserve(&mut out, more);
                        out.push(one[0]);
                        continue;
                    }
                }
            }
            let at = out.len();
            let most = spare.min(1 << 20);
            out.resize(at + most, 0);
            let buf = out.get_mut(at..).unwrap_or_default();
            match read(&mut *decoder, buf) {
                Ok(n) => {
                    out.truncate(at + n);
                    if n == 0 {
                        return Ok(out);
                    }
                    if out.len() as u64 > limit {
                        return Err(Failure {
                            unpacked: limit,
                            why: Why::Limit,
                        });
                    }
                }
                Err(error) => {
                    out.truncate(at);
                    return Err(fail(&out, error));
                }
            }
        }
    }
}

/// Why data could not be unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The bytes that were unpacked before.
    pub unpacked: u64,
    /// The reason.
    pub why: Why,
}

/// The reason of a [`Failure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The stream is corrupt, or its format is not supported; in words.
    Corrupt(String),
    /// The stream is cut.
    Truncated,
    /// More bytes than allowed.
    Limit,
    /// There is no memory for the decoder, or it would need more than allowed.
    NoMemory,
    /// The file cannot be read.
    Os(i32),
}

impl Why {
    fn of(error: &io::Error) -> Self {
        match (error.raw_os_error(), error.kind()) {
            (Some(errno), _) => Self::Os(errno),
            (_, io::ErrorKind::UnexpectedEof) => Self::Truncated,
            (_, io::ErrorKind::OutOfMemory) => Self::NoMemory,
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n = self.unpacked;
        match &self.why {
            Why::Corrupt(reason) => write!(f, "a corrupt one after {n} bytes ({reason})"),
            Why::Truncated => write!(f, "its end after {n} bytes: it is cut"),
            Why::Limit => write!(f, "one of more than {n} bytes"),
            Why::NoMemory => write!(f, "one for which there is not enough memory"),
            Why::Os(errno) => write!(f, "{}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

fn read(decoder: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match decoder.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
