//! Decompresses zstd data in pieces, in the order of the file.

use zstd_safe::{DCtx, InBuffer, OutBuffer};

use crate::limits::MAX_ZSTD_WINDOW_LOG;

/// A decoder of one or more frames.
#[derive(Debug)]
pub struct Decoder {
    context: Context,
    /// The last frame has not ended.
    within_frame: bool,
}

/// `DCtx` has no `Debug`.
struct Context(DCtx<'static>);

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

impl Decoder {
    /// A decoder at the start of a file; `None` if there is no memory for it.
    pub fn new() -> Option<Self> {
        let mut context = DCtx::try_create()?;
        let window = zstd_safe::DParameter::WindowLogMax(MAX_ZSTD_WINDOW_LOG);
        context.set_parameter(window).ok()?;
        Some(Self {
            context: Context(context),
            within_frame: false,
        })
    }

    /// Decompresses `input` into `output`, until one of them is at its end: the numbers of bytes that were
    /// taken and given. The error is that of the library.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), String> {
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(output);
        loop {
            let (taken, given) = (from.pos(), to.pos());
            let result = self.context.0.decompress_stream(&mut to, &mut from);
            let hint = result.map_err(|code| zstd_safe::get_error_name(code).to_owned())?;
            let is_idle = from.pos() == taken && to.pos() == given;
            if !is_idle {
                self.within_frame = hint != 0;
            }
            // At the end of a frame it returns, whatever follows.
            if is_idle || to.pos() == to.capacity() || (from.pos() == input.len() && hint == 0) {
                return Ok((from.pos(), to.pos()));
            }
        }
    }

    /// Whether what was decompressed so far ends with a whole frame.
    pub fn is_at_end(&self) -> bool {
        !self.within_frame
    }
}

/// The size of the contents of the first frame, if its header says it. Skippable frames have none.
pub fn content_size(start: &[u8]) -> Option<u64> {
    let size = zstd_safe::get_frame_content_size(start).ok().flatten();
    size.filter(|size| *size > 0)
}
