//! Virtual to machine addresses.
//!
//! A page-table layout is data ([`Format`]), read by one generic walker ([`walk`]). Tables hold machine
//! addresses, as on a host without Xen and in every PV guest, so a walk needs no P2M.
//!
//! The walker assumes that `CR4.PSE` and `EFER.NXE` are set and that physical addresses have 52 bits.
//! An entry is a mapping only if its present bit is set: what Linux or Xen keep in the other bits of
//! an absent entry (`PROT_NONE`, swap, grants) is ignored.

mod bulk;
mod format;
mod mapped;
mod space;
mod walk;

pub use bulk::Translator;
pub use format::{Flags, Format, Level, X86, X86_64, X86_64_LA57, X86_PAE};
pub use mapped::{Mapped, MappedRange};
pub use space::Virtual;
pub use walk::{walk, walk_steps, Mapping, Step};
pub(crate) use walk::{walk_to_last, Last};
