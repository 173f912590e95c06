//! The table of dump formats, each recognised by its header.

use super::container::Container;
use super::{elf, xl_core};
use crate::file::Storage;
use crate::Result;

/// A supported format.
struct Format<S> {
    /// Its name in error messages.
    name: &'static str,
    /// Whether a file has this format. Reads headers only.
    matches: fn(&S) -> bool,
    open: fn(S) -> Result<Box<dyn Container>>,
}

/// All formats, in the order in which they are tried: the more specific first.
fn formats<S: Storage + 'static>() -> [Format<S>; 2] {
    [
        Format {
            name: "xl dump-core",
            matches: xl_core::matches,
            open: xl_core::open,
        },
        Format {
            name: "an ELF vmcore (7f 45 4c 46)",
            matches: elf::matches,
            open: elf::open,
        },
    ]
}

/// Opens a dump of any supported format.
pub(super) fn open<S: Storage + 'static>(storage: S) -> Result<Box<dyn Container>> {
    let formats = formats::<S>();
    if let Some(format) = formats.iter().find(|format| (format.matches)(&storage)) {
        return (format.open)(storage);
    }
    let names = formats.map(|format| format.name).join(" or ");
    Err(storage.file().format_error(0, names, start_of(&storage)))
}

/// The first bytes of the file, for an error message.
fn start_of(storage: &impl Storage) -> String {
    let mut start = [0; 4];
    let len = storage.held(0, start.len() as u64) as usize;
    match start.get_mut(..len) {
        None | Some([]) => "an empty file".into(),
        Some(part) => match storage.read_at(0, part) {
            Ok(()) => crate::elf::header::hex(part),
            Err(_) => "unreadable bytes".into(),
        },
    }
}
