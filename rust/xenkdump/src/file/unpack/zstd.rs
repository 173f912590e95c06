//! zstd frames as a stream, by libzstd.

use std::io::{self, BufRead, Read};

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::stream::{corrupt, is_at_end};
use crate::limits::MAX_IMAGE_WINDOW_LOG;

/// Frames start with it, those without content with the second, whose lowest four bits are any.
const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;

/// A reader of the unpacked bytes.
pub(super) struct Zstd<R> {
    packed: R,
    context: DCtx<'static>,
    /// Frames after the first are read too.
    all: bool,
    /// Within a frame.
    inside: bool,
    ended: bool,
}

impl<R: BufRead> Zstd<R> {
    /// A decoder of the first frame, or of all.
    pub fn new(packed: R, all: bool) -> io::Result<Self> {
        let no_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context
            .set_parameter(DParameter::WindowLogMax(MAX_IMAGE_WINDOW_LOG))
            .map_err(|_| corrupt("the decoder rejects the limit of its window"))?;
        Ok(Self {
            packed,
            context,
            all,
            inside: true,
            ended: false,
        })
    }

    /// Whether another frame follows.
    fn follows(&mut self) -> io::Result<bool> {
        if !self.all || is_at_end(&mut self.packed)? {
            return Ok(false);
        }
        // If the magic number is split between two buffers, which is rare, the decoder checks it.
        let buffered = self.packed.fill_buf()?.first_chunk();
        let known = buffered.map(|bytes| u32::from_le_bytes(*bytes));
        Ok(known.is_none_or(|magic| magic == MAGIC || magic & !0xf == SKIPPABLE))
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buf.is_empty() {
            if !self.inside && !self.follows()? {
                self.ended = true;
                break;
            }
            let input = self.packed.fill_buf()?;
            let is_end = input.is_empty();
            let mut from = InBuffer::around(input);
            let mut to = OutBuffer::around(&mut *buf);
            let left = self
                .context
                .decompress_stream(&mut to, &mut from)
                .map_err(error)?;
            let (taken, made) = (from.pos(), to.pos());
            self.packed.consume(taken);
            self.inside = left != 0;
            if made > 0 {
                return Ok(made);
            }
            if is_end && self.inside {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}

fn error(code: zstd_safe::ErrorCode) -> io::Error {
    let name = zstd_safe::get_error_name(code);
    io::Error::new(io::ErrorKind::InvalidData, name)
}
