//! Images of plain bytes: formats in which the offset of a page does not depend on the pages before it.

use std::fs::File;
use std::io;

use super::job::{Control, Export, Failure, Lost, Report};
use super::output;
use super::pages::{Chunk, Place};
use super::pipeline::{self, Writer};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE};

/// Writes an image in which the offset is the address.
pub(super) fn write(
    export: &Export<'_>,
    file: &File,
    control: &Control,
) -> Result<Report, Failure> {
    let end = export.pages.last().map_or(0, |run| run.end());
    let Some(size) = end.checked_mul(PAGE_SIZE as u64) else {
        let text = "the memory reaches up to 2^64: an image of plain bytes cannot hold it";
        return Err(Failure::Limit(text.to_owned()));
    };
    output::resize(file, size)?;
    let (mut report, _) = plain(export, file, control, |place| place.first << PAGE_SHIFT)?;
    report.lost_as_zeros = report.lost;
    Ok(report)
}

/// Writes all pages with contents, each chunk at the offset that `offset` gives.
pub(super) fn plain(
    export: &Export<'_>,
    file: &File,
    control: &Control,
    offset: impl Fn(&Place) -> u64 + Sync,
) -> Result<(Report, Lost), Failure> {
    let writer = Plain { file, offset };
    let ((), report, lost) = pipeline::run(export, &writer, (), control)?;
    Ok((report, lost))
}

struct Plain<'f, F> {
    file: &'f File,
    offset: F,
}

impl<F: Fn(&Place) -> u64 + Sync> Writer for Plain<'_, F> {
    type Encoder = ();
    type Packed = ();
    type State = ();

    fn encoder(&self) {}

    fn packed(&self) {}

    fn pack(&self, (): &mut (), chunk: &Chunk, (): &mut ()) -> io::Result<()> {
        let start = (self.offset)(&chunk.place);
        for (before, bytes) in chunk.spans() {
            output::write(self.file, start + (before << PAGE_SHIFT), bytes)?;
        }
        Ok(())
    }

    fn commit(&self, (): &mut (), _: &Chunk, (): &mut ()) -> io::Result<()> {
        Ok(())
    }
}
