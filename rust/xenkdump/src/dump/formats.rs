//! The table of dump formats, each recognised by its header.

use std::path::PathBuf;

use super::container::Container;
use super::files::{self, File};
use super::{elf, kdump, lime, raw, save, xl_core, Options};
use crate::file::Storage;
use crate::Result;

/// A supported format.
struct Format<S> {
    /// Its name in error messages.
    name: &'static str,
    /// Whether a file has this format. Reads headers only.
    matches: fn(&S) -> bool,
    open: fn(S, &Options) -> Result<Box<dyn Container>>,
}

/// All formats, in the order in which they are tried: the more specific first.
fn formats<S: Storage + 'static>() -> [Format<S>; 5] {
    [
        Format {
            name: "xl dump-core",
            matches: xl_core::matches,
            open: |storage, _| xl_core::open(storage),
        },
        Format {
            name: "an ELF vmcore (7f 45 4c 46)",
            matches: elf::matches,
            open: |storage, _| elf::open(storage),
        },
        Format {
            name: "a kdump-compressed dump (4b 44 55 4d)",
            matches: kdump::matches,
            open: |storage, options| kdump::open(storage, options.cache_size),
        },
        Format {
            name: "a LiME image (45 4d 69 4c)",
            matches: lime::matches,
            open: |storage, _| lime::open(storage),
        },
        Format {
            name: "a saved domain (xl save)",
            matches: save::matches,
            open: |storage, _| save::open(storage),
        },
    ]
}

/// A dump, and what is wrong with the files that it is wrapped in.
pub(super) struct Opened {
    pub container: Box<dyn Container>,
    pub is_flattened: bool,
    pub is_zstd: bool,
    pub warnings: Vec<String>,
}

/// Opens a dump of any supported format. Only split dumps have several files.
pub(super) fn open(paths: &[PathBuf], options: &Options) -> Result<Opened> {
    let mut warnings = Vec::new();
    let (mut is_flattened, mut is_zstd) = (false, false);
    let mut opened = Vec::new();
    // A half for the frames of files that are compressed as a whole, the other half for pages in them.
    let half = options.cache_size / 2;
    for path in paths {
        let file = files::open(path, half / paths.len().max(1))?;
        is_flattened |= file.is_flattened;
        is_zstd |= file.is_zstd;
        warnings.extend(file.warnings);
        opened.push(file.file);
    }
    let options = Options {
        cache_size: if is_zstd { half } else { options.cache_size },
        ..*options
    };
    let mut files = opened.into_iter();
    let container = match (files.next(), files.next()) {
        (Some(File::Plain(file)), None) => open_one(file, &options)?,
        (Some(File::Flattened(file)), None) => open_one(file, &options)?,
        (Some(File::Zstd(file)), None) => open_one(file, &options)?,
        (first, second) => {
            let files = first.into_iter().chain(second).chain(files);
            kdump::open_all(files.map(File::boxed).collect(), options.cache_size)?
        }
    };
    Ok(Opened {
        container,
        is_flattened,
        is_zstd,
        warnings,
    })
}

fn open_one<S: Storage + 'static>(storage: S, options: &Options) -> Result<Box<dyn Container>> {
    if options.is_raw {
        return Ok(raw::open(storage));
    }
    let formats = formats::<S>();
    if let Some(format) = formats.iter().find(|format| (format.matches)(&storage)) {
        return (format.open)(storage, options);
    }
    let names = formats.map(|format| format.name).join(" or ");
    let names = format!("{names} (a raw memory image is only read as such with --format raw)");
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
