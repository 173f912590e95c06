//! x86 code: instructions, calls, frame layouts, and the registers that entry code saves.

pub(super) mod call_site;
pub(super) mod code_cache;
pub(super) mod decode;
pub(super) mod frame_layout;
pub(super) mod function_cache;
pub(super) mod leaf;
pub(super) mod pt_regs;
pub(super) mod saved_regs;
pub(super) mod stack_switch;
pub(super) mod tail_call;
