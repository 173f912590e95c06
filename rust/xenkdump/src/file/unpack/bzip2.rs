//! bzip2 as a stream. Unlike the crate's reader, this one distinguishes lack of memory from corrupt data.

use std::io::{self, BufRead, Read};

use ::bzip2::{Decompress, Status};

use super::stream::{corrupt, is_at_end};
use crate::alloc;

/// Bytes of a decoder, without the memory for its block, and what the allocator asks the system for
/// beyond it. The crate panics if there is no memory for it.
const DECODER: usize = 512 << 10;

/// A reader of the unpacked bytes.
pub(super) struct Bzip2<R> {
    packed: R,
    decoder: Decompress,
    /// Streams after the first are read too.
    all: bool,
    /// At the end of a stream.
    ended: bool,
}

impl<R: BufRead> Bzip2<R> {
    /// A decoder of the first stream, or of all.
    pub fn new(packed: R, all: bool) -> Self {
        Self {
            packed,
            decoder: decoder(),
            all,
            ended: false,
        }
    }
}

fn decoder() -> Decompress {
    alloc::probe(DECODER);
    Decompress::new(false)
}

impl<R: BufRead> Read for Bzip2<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !buf.is_empty() {
            if self.ended {
                if !self.all || is_at_end(&mut self.packed)? {
                    break;
                }
                self.decoder = decoder();
                self.ended = false;
            }
            let input = self.packed.fill_buf()?;
            let (before_in, before_out) = (self.decoder.total_in(), self.decoder.total_out());
            let status = self.decoder.decompress(input, buf);
            let taken = (self.decoder.total_in() - before_in) as usize;
            let made = (self.decoder.total_out() - before_out) as usize;
            let is_end = input.is_empty();
            self.packed.consume(taken);
            match status.map_err(|_| corrupt("bzip2: invalid data"))? {
                Status::MemNeeded => return Err(io::ErrorKind::OutOfMemory.into()),
                Status::StreamEnd => self.ended = true,
                _ if is_end && made == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
            if made > 0 {
                return Ok(made);
            }
        }
        Ok(0)
    }
}
