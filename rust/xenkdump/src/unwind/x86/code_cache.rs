//! Cached results of code analysis.

use super::frame_layout::FrameLayouts;
use super::function_cache::FunctionCache;
use super::tail_call::TailJumps;

/// Results of code analysis, for all stacks of a kernel.
#[derive(Debug, Default)]
pub(in crate::unwind) struct CodeCache {
    pub layouts: FunctionCache<FrameLayouts>,
    pub tail_jumps: FunctionCache<TailJumps>,
}
