//! Writes memory to files that other tools open: ELF, kdump-compressed, LiME and raw.
//!
//! Memory is read in chunks, on several threads, and written by position, so that the memory in use does
//! not depend on that of the dump. Pages of zeros are left out: as holes of the file, or as the format has
//! it.

mod elf;
mod kdump;
mod lime;
mod output;
mod pages;
mod pipeline;
mod raw;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::alloc;
use crate::dump::Dump;
use crate::{Error, Result};

pub use elf::{Elf, Mapping};
pub use kdump::{Compression, Kdump};
pub use pages::PageRun;

/// What is written, apart from the memory.
#[derive(Clone, Debug)]
pub enum Format {
    /// An ELF core file.
    Elf(Elf),
    /// A kdump-compressed file, as makedumpfile writes it.
    Kdump(Kdump),
    /// A LiME image.
    Lime,
    /// An image in which the offset is the address.
    Raw,
}

/// The progress of an export, for other threads, which can stop it.
#[derive(Debug, Default)]
pub struct Control {
    done: AtomicU64,
    stopped: AtomicBool,
}

impl Control {
    /// Pages that are done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Stops the export after the chunks that are being written.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn add(&self, pages: u64) {
        self.done.fetch_add(pages, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Pages with contents.
    pub written: u64,
    /// Pages of zeros, which take no space.
    pub zero: u64,
    /// Pages that cannot be read. The file does not have them, if its format can say so.
    pub lost: u64,
    /// Of these, the pages that read as zeros.
    pub lost_as_zeros: u64,
    /// The first page that cannot be read.
    pub first_lost: Option<u64>,
    /// Whether [`Control::stop`] ended it early: the file is incomplete.
    pub is_stopped: bool,
}

/// What is exported, and how.
#[derive(Debug)]
pub struct Export<'e> {
    /// The memory: its machine addresses are the physical ones in the file.
    pub dump: &'e Dump,
    /// The dump in whose file that memory is.
    pub host: &'e Dump,
    /// The pages that are written: ascending and disjoint.
    pub pages: &'e [PageRun],
    /// All pages that the machine has; formats that tell excluded pages from absent ones need them.
    pub all_pages: &'e [PageRun],
    /// The format.
    pub format: &'e Format,
    /// The number of threads.
    pub threads: usize,
}

impl Export<'_> {
    /// Writes a new file that only its owner can read: memory holds secrets.
    pub fn write(&self, path: &Path, control: &Control) -> Result<Report> {
        for runs in [self.pages, self.all_pages] {
            pages::check(runs)?;
        }
        self.write_new(path, control)
            .map_err(|failure| match failure {
                Failure::Io(source) => Error::Io {
                    path: path.display().to_string(),
                    source,
                },
                Failure::Limit(text) => Error::Absent(text),
            })
    }

    fn write_new(&self, path: &Path, control: &Control) -> Result<Report, Failure> {
        let mut options = File::options();
        let file = &options.write(true).create_new(true).mode(0o600).open(path)?;
        match self.format {
            Format::Elf(elf) => elf::write(self, elf, file, control),
            Format::Kdump(kdump) => kdump::write(self, kdump, file, control),
            Format::Lime => lime::write(self, file, control),
            Format::Raw => raw::write(self, file, control),
        }
    }
}

/// Why a file cannot be written.
#[derive(Debug)]
enum Failure {
    Io(std::io::Error),
    /// The format cannot hold it.
    Limit(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Ranges of pages that cannot be read.
#[derive(Debug, Default)]
struct Lost {
    ranges: Vec<PageRun>,
}

impl Lost {
    fn add(&mut self, pfn: u64) {
        match self.ranges.last_mut() {
            Some(last) if last.first + last.count == pfn => last.count += 1,
            _ => alloc::push(
                &mut self.ranges,
                PageRun {
                    first: pfn,
                    count: 1,
                },
            ),
        }
    }
}
