//! DWARF call frame information: `.debug_frame` and `.eh_frame`.

mod step;
pub(super) mod table;
