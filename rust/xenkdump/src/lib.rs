//! Reads Xen and Linux kernel crash dumps.
//!
//! Modules from the file upwards; each uses only those before it:
//!
//! - [`addr`] and [`memory`]: the three kinds of address, and memory as a trait.
//! - [`limits`] and [`budget`]: limits on work and memory; [`alloc`]: allocations that may fail.
//! - [`file`](mod@file): the bytes of a file.
//! - [`elf`]: ELF files, parsed lazily and within bounds.
//! - [`notes`]: decodes ELF notes.
//! - [`dump`]: dump formats, which provide notes and machine memory.
//! - [`export`]: writes memory to files of the formats that other tools open.
//! - [`paging`]: virtual to machine addresses.
//! - [`p2m`]: pseudo-physical to machine frames.
//! - [`status`], [`parallel`]: the status of each element of a batch; batches on many threads.
//! - [`space`]: memory whose kind of address is chosen at run time.
//! - [`image`]: a kernel image, from its file or from the memory of a dump.
//! - [`symbols`] and [`types`]: symbols and struct layouts of a kernel image.
//! - [`disassembly`]: x86 code as text.
//! - [`unwind`] walks stacks; [`tracer`] provides it with the tables of a kernel image.
//!
//! Safe on corrupt or hostile input: nothing panics, and work and memory are bounded by the memory
//! that the dump holds and by the size of the request.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod addr;
pub mod alloc;
pub mod budget;
pub mod disassembly;
pub mod dump;
pub mod elf;
pub mod export;
mod fault;
pub mod file;
pub mod image;
pub mod limits;
pub mod lines;
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

/// Why a file could not be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the operating system.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Its error.
        source: std::io::Error,
    },
    /// The path is not that of a regular file.
    #[error("{path}: expected a regular file, found {found}")]
    NotRegular {
        /// The path.
        path: String,
        /// What is there.
        found: &'static str,
    },
    /// The file has another format or is corrupt beyond use.
    #[error("{path}: offset {offset:#x}: expected {expected}, found {found}")]
    Format {
        /// The file.
        path: String,
        /// Offset in the file.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The requested thing is not in the file.
    #[error("{0}")]
    Absent(String),
    /// Required memory cannot be read.
    #[error("{what}: {fault}")]
    Memory {
        /// What was being read.
        what: String,
        /// Why it cannot be read.
        fault: memory::Fault,
    },
}

/// Results with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
