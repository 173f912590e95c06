//! Virtual to machine addresses.
//!
//! A page-table layout is data ([`Format`]); one generic walker ([`walk`]) reads it. Tables are
//! taken to hold machine addresses, as they do on a bare host and in every PV guest, so no P2M is
//! needed to walk them.
//!
//! The walker knows nothing of processors beyond the tables: it takes for granted that `CR4.PSE` and
//! `EFER.NXE` are set, and that an address is 52 bits wide. Entries are judged by their present bit
//! alone: what Linux or Xen keep in the other bits of an absent entry (`PROT_NONE`, swap, grants) is
//! not a mapping.

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
