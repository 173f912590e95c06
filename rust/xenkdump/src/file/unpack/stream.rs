//! What the readers of compressed formats have in common.

use std::io::{self, BufRead, Read};

/// Whether no bytes are left.
pub(super) fn is_at_end(packed: &mut impl BufRead) -> io::Result<bool> {
    Ok(packed.fill_buf()?.is_empty())
}

/// `len` bytes; an error if there are fewer. Allocates no more than there are.
pub(super) fn take(packed: &mut impl Read, len: u32, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    if packed.take(len.into()).read_to_end(into)? as u64 == u64::from(len) {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// An error about the contents.
pub(super) fn corrupt(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A compressed format that consists of blocks.
pub(super) trait Blocks {
    /// Unpacks the next block into `block`, which is empty. It remains empty at the end.
    fn next(&mut self, block: &mut Vec<u8>) -> io::Result<()>;
}

/// A reader of the unpacked bytes of blocks.
pub(super) struct BlockReader<B> {
    blocks: B,
    block: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<B: Blocks> BlockReader<B> {
    pub fn new(blocks: B) -> Self {
        Self {
            blocks,
            block: Vec::new(),
            at: 0,
            ended: false,
        }
    }
}

impl<B: Blocks> Read for BlockReader<B> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.block.len() && !self.ended {
            self.at = 0;
            self.block.clear();
            self.blocks.next(&mut self.block)?;
            self.ended = self.block.is_empty();
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at += n;
        Ok(n)
    }
}
