//! Reads Xen and Linux kernel crash dumps.
//!
//! Rooms from the file upwards; each uses what stands before it, never what stands after it:
//!
//! - [`addr`] and [`memory`]: the three kinds of address, and memory as a trait.
//! - [`file`](mod@file): a file's bytes.
//! - [`elf`]: the pieces of an ELF file, parsed one by one and bounded by the file.
//! - [`dump`]: containers that give machine memory.
//! - [`notes`]: ELF notes to typed facts.
//! - [`paging`]: virtual to machine addresses.
//! - [`p2m`]: pseudo-physical to machine frames.
//! - [`status`], [`parallel`]: what becomes of each element of a batch; batches on many threads.
//! - [`space`]: memory whose kind of address is known only when the program runs.
//! - [`symbols`] and [`types`]: what a kernel's image tells of names and layouts.
//! - [`unwind`] walks stacks; [`tracer`] gives it the tables of a kernel's image.
//!
//! Any bytes may be fed in. Nothing here panics on them, and work and memory are bounded by the
//! size of the file and of what was asked for.

pub mod addr;
pub mod budget;
pub mod dump;
pub mod elf;
mod fault;
pub mod file;
pub mod limits;
pub mod memory;
mod names;
pub mod notes;
pub mod p2m;
pub mod paging;
pub mod parallel;
mod ranges;
pub mod space;
pub mod status;
pub mod symbols;
pub mod tracer;
pub mod types;
pub mod unwind;
mod window;

/// Why a file could not be opened or understood at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not of the kind that was asked for, or is broken beyond use.
    #[error("{path}: offset {offset:#x}: expected {expected}, found {found}")]
    Format {
        /// The file.
        path: String,
        /// Where the fault lies.
        offset: u64,
        /// What should stand there.
        expected: String,
        /// What does.
        found: String,
    },
    /// The file is sound but does not hold what was asked for.
    #[error("{0}")]
    Absent(String),
    /// Memory that was needed cannot be read.
    #[error("{what}: {fault}")]
    Memory {
        /// What was being read.
        what: String,
        /// Why it cannot be.
        fault: memory::Fault,
    },
}

/// Results with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
