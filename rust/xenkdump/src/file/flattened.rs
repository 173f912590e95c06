//! Files in the flattened format of `makedumpfile -F`, read as what `makedumpfile -R` makes of them.
//!
//! A program that writes to a pipe cannot seek. So it writes blocks, each after a header with the
//! offset and the size that it has in the file that is meant. Later blocks overwrite earlier ones.

mod header;
mod run;
mod scan;

use super::{ReadError, RegularFile, Storage};
use crate::limits::MAX_FLATTENED_GAPS;
use crate::Result;

use header::{int64, BLOCK_HEADER, FILE_HEADER};
use run::Run;
use scan::End;

const SIGNATURE: &[u8; 16] = b"makedumpfile\0\0\0\0";

/// A flattened file.
#[derive(Debug)]
pub struct Flattened<S> {
    file: S,
    /// Ascending by start, without overlaps.
    runs: Box<[Run]>,
    warnings: Vec<String>,
    /// The end mark was read, so bytes in no block are zeros. Without it, their block may have been lost.
    is_whole: bool,
}

/// Offset of the contents of the first block.
pub(crate) const FIRST_BLOCK: u64 = FILE_HEADER + BLOCK_HEADER;

/// Whether a file has this format.
pub fn is_flattened(storage: &impl Storage) -> bool {
    let mut start = [0; 16];
    storage.read_at(0, &mut start).is_ok() && start == *SIGNATURE
}

impl<S: Storage> Flattened<S> {
    /// Reads the headers of all blocks.
    pub fn open(file: S) -> Result<Self> {
        let mut header = [0; 32];
        let read = file.read_at(0, &mut header);
        read.map_err(|error| file.file().read_error(0, error))?;
        let (kind, version) = (int64(&header, 16), int64(&header, 24));
        if (kind, version) != (1, 1) {
            let found = format!("type {kind}, version {version}");
            return Err(file.file().format_error(
                16,
                "a flattened file of type 1, version 1",
                found,
            ));
        }
        let mut warnings = Vec::new();
        let (scan, end) = scan::scan(&file);
        let at = scan.at;
        match end {
            End::Mark => {}
            End::Cut => warnings.push(format!(
                "the flattened file is cut: it has no end mark ({} bytes)",
                file.len()
            )),
            End::Corrupt(start, len) => warnings.push(format!(
                "the block header at offset {at:#x} of the flattened file is corrupt (offset {start}, \
                 size {len}): what follows it is lost"
            )),
            End::TooMany => warnings.push(format!(
                "of the blocks of the flattened file only those of the first {} runs are read",
                scan.runs.len()
            )),
            End::Failed(error) => return Err(file.file().read_error(at, error)),
        }
        if file.file().has_shrunk() {
            return Err(file.file().read_error(at, ReadError::PastEnd));
        }
        let mut runs = run::disjoint(scan.runs);
        // Gaps are bytes that cost nothing. makedumpfile leaves them only between its headers.
        let most = file.len().saturating_add(MAX_FLATTENED_GAPS);
        let (mut gaps, mut end_of_last) = (0_u64, 0);
        let excess = runs.iter().position(|run| {
            gaps = gaps.saturating_add(run.start - end_of_last);
            end_of_last = run.end;
            gaps > most
        });
        if let Some(count) = excess {
            runs.truncate(count);
            warnings.push(format!(
                "the blocks of the flattened file are far apart: what follows {count} runs of them is \
                 lost"
            ));
        }
        Ok(Self {
            runs: runs.into_boxed_slice(),
            file,
            warnings,
            is_whole: end == End::Mark,
        })
    }

    /// What is wrong with the file.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The runs from the first one on that ends after `offset`.
    fn from(&self, offset: u64) -> &[Run] {
        let number = self.runs.partition_point(|run| run.end <= offset);
        self.runs.get(number..).unwrap_or_default()
    }
}

impl<S: Storage> Storage for Flattened<S> {
    fn file(&self) -> &RegularFile {
        self.file.file()
    }

    fn len(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.end)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if self.held(offset, buf.len() as u64) < buf.len() as u64 {
            return Err(ReadError::PastEnd);
        }
        let mut rest = buf;
        let mut at = offset;
        for run in self.from(offset) {
            let gap = run.start.saturating_sub(at).min(rest.len() as u64);
            if gap > 0 {
                if !self.is_whole {
                    return Err(ReadError::PastEnd);
                }
                let (zeros, tail) = rest.split_at_mut(gap as usize);
                zeros.fill(0);
                rest = tail;
                at += gap;
            }
            while at < run.end && !rest.is_empty() {
                let (source, len) = run.find(at);
                let len = len.min(rest.len() as u64);
                let (part, tail) = rest.split_at_mut(len as usize);
                self.file.read_at(source, part)?;
                rest = tail;
                at += len;
            }
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn borrow(&self, offset: u64, len: u64) -> &[u8] {
        let run = self.from(offset).first();
        let Some(run) = run.filter(|run| run.start <= offset) else {
            return &[];
        };
        let (source, held) = run.find(offset);
        self.file.borrow(source, len.min(held))
    }

    fn is_intact(&self) -> bool {
        self.file.is_intact()
    }

    fn is_decoded(&self) -> bool {
        self.file.is_decoded()
    }
}
