//! The stream of libxl, version 2 (Xen 4.6 on), which contains that of libxc.
//!
//! Layout: Xen's `docs/specs/libxl-migration-stream.pandoc`.

use super::contents::Contents;
use super::cursor::Cursor;
use super::libxc::{self, Stop};
use crate::file::Storage;
use crate::notes::save;
use crate::Result;

/// `ident`.
pub(super) const MAGIC: [u8; 8] = *b"LibxlFmt";

const END: u32 = 0;
const LIBXC_CONTEXT: u32 = 1;
const CHECKPOINT_END: u32 = 4;
/// The last type that is known.
const CHECKPOINT_STATE: u32 = 5;

/// Reads the header and all records.
pub(super) fn read<S: Storage>(
    cursor: &mut Cursor<'_, S>,
    contents: &mut Contents<'_, S>,
) -> Result<Stop> {
    let file = contents.storage.file();
    let at = cursor.at;
    let Some(header) = cursor.take::<16>()? else {
        return Ok(Stop::Truncated);
    };
    let [.., a, b, c, d, e, f, g, h] = header;
    let (version, options) = (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    );
    if version != 2 {
        let found = format!("version {version}");
        return Err(file.format_error(at, "a libxl stream of version 2", found));
    }
    if options & 1 != 0 {
        return Err(file.format_error(at, "a little-endian libxl stream", "a big-endian one"));
    }
    // Between checkpoints, records of both streams alternate.
    let mut stream = None;
    while let Some(record) = cursor.record()? {
        contents.list(save::LIBXL, record.kind, record.body);
        if !record.is_whole {
            return Ok(Stop::Truncated);
        }
        match record.kind {
            END => return Ok(Stop::End),
            LIBXC_CONTEXT => stream = libxc::Stream::open(cursor, contents)?,
            CHECKPOINT_END if stream.is_some() => {}
            kind => {
                if record.is_mandatory() && kind > CHECKPOINT_STATE {
                    contents.warnings.push(format!(
                        "the libxl record at offset {:#x} has the unknown type {kind:#x} and is \
                         mandatory: what it says about the domain is lost",
                        record.body.offset
                    ));
                }
                continue;
            }
        }
        let Some(open) = stream.as_mut() else {
            return Ok(Stop::Truncated);
        };
        if open.read(cursor, contents)? == Stop::Truncated {
            return Ok(Stop::Truncated);
        }
    }
    Ok(Stop::Truncated)
}
