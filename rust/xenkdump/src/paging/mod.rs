//! Virtual to machine addresses.
//!
//! A page-table layout is data ([`Format`]), read by one generic walker ([`walk`]). Tables hold machine
//! addresses, as on a host without Xen and in every PV guest, so a walk needs no P2M. Those of a
//! translated guest hold its physical addresses, which it takes for machine addresses: for them the
//! walker's memory is the guest's ([`crate::space::Tables`]). Its own P2M is in page tables too
//! ([`NestedFormat`]).
//!
//! The walker assumes that `CR4.PSE` and `EFER.NXE` are set and that physical addresses have 52 bits.
//! An entry is a mapping only if its present bit is set: what Linux or Xen keep in the other bits of
//! an absent entry (`PROT_NONE`, swap, grants) is ignored.

mod bulk;
mod format;
mod mapped;
mod nested;
mod space;
mod walk;

pub use bulk::Translator;
pub(crate) use format::Target;
pub use format::{Flags, Format, Level, Page, X86, X86_64, X86_64_LA57, X86_PAE};
pub use mapped::{Mapped, MappedRange};
pub use nested::{NestedFormat, P2mType, EPT, EPT_5, NPT, NPT_5};
pub use space::Virtual;
pub use walk::{walk, walk_steps, Mapping, Step};
pub(crate) use walk::{walk_to_last, Last};
