//! What is exported, the progress, and what was written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::pages::PageRun;
use crate::alloc;
use crate::dump::Dump;

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

    pub(super) fn add(&self, pages: u64) {
        self.done.fetch_add(pages, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
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

/// What is exported.
#[derive(Debug)]
pub struct Export<'e> {
    /// The memory: its machine addresses are the physical ones in the file.
    pub dump: &'e Dump,
    /// The dump in whose file that memory is.
    pub host: &'e Dump,
    /// The pages that are written: ascending and disjoint.
    pub pages: &'e [PageRun],
    /// All pages that the machine has, for formats that distinguish excluded pages from absent ones.
    pub all_pages: &'e [PageRun],
    /// The number of threads.
    pub threads: usize,
}

/// Why a file cannot be written.
#[derive(Debug)]
pub(super) enum Failure {
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
pub(super) struct Lost {
    pub ranges: Vec<PageRun>,
}

impl Lost {
    pub fn add(&mut self, pfn: u64) {
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
