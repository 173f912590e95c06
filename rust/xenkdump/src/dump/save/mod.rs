//! Files of `xl save`: the migration stream of one domain.
//!
//! There is a module for each layer: the headers of xl and of other tools, libxl's stream, and libxc's stream
//! inside libxl's. The index of memory comes from the headers of records; no page is read. The memory is
//! the guest's pseudo-physical memory: libxc replaces the mfns in page tables of PV guests by pfns.

mod contents;
mod cursor;
mod hvm_context;
mod legacy;
mod libxc;
mod libxl;
mod list;
mod pages;
#[cfg(test)]
mod tests;
mod xl;

use std::sync::OnceLock;

use goblin::elf::header::EM_X86_64;

use super::container::{Container, DomainKind, Headers};
use super::in_place::InPlace;
use super::note::Note;
use super::run_map::RunMap;
use super::vcpu_context::{VcpuContext, CONTEXT_SIZE_32, CONTEXT_SIZE_64, ONLINE};
use crate::addr::{Word, PAGE_SIZE};
use crate::alloc;
use crate::file::Storage;
use crate::Result;

use contents::{Contents, State, Vcpus};
use cursor::{Cursor, Range};
use libxc::Stop;

/// The memory and the vCPUs of a saved domain.
#[derive(Debug)]
struct SavedDomain<S> {
    storage: S,
    headers: Headers,
    kind: DomainKind,
    word: Word,
    /// What the stream calls the registers of a PV guest's vCPU.
    source: &'static str,
    map: RunMap,
    state: State,
    vcpus: Vcpus,
    shared_info: OnceLock<Option<Vec<u8>>>,
}

/// Reads the header before a stream; `None` if the file ends within the header.
type ReadHeader<S> = fn(&mut Cursor<'_, S>, &mut Contents<'_, S>) -> Result<Option<()>>;

/// How a file may start.
struct Start<S> {
    magic: &'static [u8],
    format: &'static str,
    /// Reads the header before the stream.
    header: ReadHeader<S>,
}

fn starts<S: Storage>() -> [Start<S>; 5] {
    let stream: ReadHeader<S> = |_, _| Ok(Some(()));
    [
        (&xl::MAGIC[..], "xl save file", xl::read as ReadHeader<S>),
        (&xl::XEND_MAGIC, "xm save file", xl::read_xend),
        (
            &xl::LIBVIRT_MAGIC,
            "libvirt save file of libxl",
            xl::read_libvirt,
        ),
        (&libxl::MAGIC, "libxl save file", stream),
        (&libxc::MAGIC, "libxc save file", stream),
    ]
    .map(|(magic, format, header)| Start {
        magic,
        format,
        header,
    })
}

/// How the file starts; `None` if it is of another format.
fn start_of<S: Storage>(storage: &S) -> Option<Start<S>> {
    let mut bytes = [0; xl::MAGIC.len()];
    starts().into_iter().find(|start| {
        let bytes = bytes.get_mut(..start.magic.len()).unwrap_or_default();
        storage.read_at(0, bytes).is_ok() && bytes == start.magic
    })
}

/// Whether the file starts as a saved domain does.
pub(super) fn matches(storage: &impl Storage) -> bool {
    start_of(storage).is_some()
}

/// Reads the headers of all records. The file must [match](matches).
pub(super) fn open<S: Storage + 'static>(storage: S) -> Result<Box<dyn Container>> {
    let Some(start) = start_of(&storage) else {
        return Err(storage
            .file()
            .format_error(0, "a saved domain", "a file that changed"));
    };
    let format = start.format;
    let mut contents = Contents::new(&storage);
    let mut cursor = Cursor::new(&storage);
    let stop = match (start.header)(&mut cursor, &mut contents)? {
        Some(()) => stream(&mut cursor, &mut contents)?,
        None => Stop::Truncated,
    };
    let is_cut = stop == Stop::Truncated;
    let mut lost = None;
    if is_cut && contents.roll_back() {
        contents.warnings.push(format!(
            "the stream ends after checkpoint {}: the domain is shown as it was then",
            contents.checkpoints
        ));
    } else if is_cut {
        lost = contents
            .end
            .and_then(|end| Some((end.addr()?, storage.len())));
        contents.warnings.push(format!(
            "the file is cut: the stream goes on past its end ({} bytes); what followed is missing, \
             and memory that was sent again there is older than the rest",
            storage.len()
        ));
    }
    let Contents {
        kind,
        word,
        source,
        pages,
        state,
        vcpus,
        records,
        mut warnings,
        ..
    } = contents;
    let (notes, map) = (records.notes, pages.into_map(lost));
    if map.memory_size() == 0 {
        warnings.push("the stream has no memory");
    }
    Ok(Box::new(SavedDomain {
        headers: Headers {
            format,
            machine_type: EM_X86_64,
            word: Word::W64,
            notes,
            warnings,
        },
        kind,
        word,
        source,
        map,
        state,
        vcpus,
        storage,
        shared_info: OnceLock::new(),
    }))
}

/// Reads the stream of libxl or libxc at the cursor.
fn stream<S: Storage>(cursor: &mut Cursor<'_, S>, contents: &mut Contents<'_, S>) -> Result<Stop> {
    let at = cursor.at;
    let start = match cursor.take::<8>()? {
        Some(start) => start,
        None => return Ok(Stop::Truncated),
    };
    cursor.at = at;
    if start == libxl::MAGIC {
        return libxl::read(cursor, contents);
    }
    if !libxc::MAGIC.starts_with(&start) {
        return legacy::read(cursor, contents);
    }
    let Some(mut stream) = libxc::Stream::open(cursor, contents)? else {
        return Ok(Stop::Truncated);
    };
    loop {
        match stream.read(cursor, contents)? {
            Stop::Checkpoint => {}
            stop => return Ok(stop),
        }
    }
}

impl<S: Storage> SavedDomain<S> {
    fn pv_context(&self, id: u32, range: Range) -> Option<VcpuContext> {
        let size = match self.word {
            Word::W64 => CONTEXT_SIZE_64,
            Word::W32 => CONTEXT_SIZE_32,
        };
        let bytes = self.storage.copy(range.offset, range.size.min(size)).ok()?;
        let context = VcpuContext::parse(&bytes, self.word, false, id, self.source)?;
        Some(VcpuContext {
            // Only vCPUs that are up are saved.
            flags: context.flags | ONLINE,
            ..context
        })
    }
}

impl<S: Storage> Container for SavedDomain<S> {
    fn headers(&self) -> &Headers {
        &self.headers
    }

    fn descriptor(&self, note: &Note, size: u64) -> Option<Vec<u8>> {
        self.storage.copy(note.desc_offset, size).ok()
    }

    fn file_size(&self) -> u64 {
        self.storage.file().len()
    }

    fn memory_held(&self) -> u64 {
        self.map.distinct_bytes()
    }

    fn memory_size(&self) -> u64 {
        self.map.memory_size()
    }

    fn vcpu_contexts(&self) -> Vec<VcpuContext> {
        match (self.kind, self.state.hvm_context) {
            (DomainKind::Translated, Some(context)) => hvm_context::vcpus(&self.storage, context),
            (DomainKind::Translated, None) => Vec::new(),
            (DomainKind::Pv, _) => {
                let vcpus = self.vcpus.iter();
                alloc::collect(vcpus.filter_map(|(id, context)| self.pv_context(id, context)))
            }
        }
    }

    fn shared_info(&self) -> Option<&[u8]> {
        let read = || {
            let page = self.state.shared_info?;
            self.storage.copy(page.offset, PAGE_SIZE as u64).ok()
        };
        self.shared_info.get_or_init(read).as_deref()
    }

    fn domain_kind(&self) -> Option<DomainKind> {
        Some(self.kind)
    }

    fn is_normalised(&self) -> bool {
        self.kind == DomainKind::Pv
    }

    fn auto_translated(&self) -> bool {
        self.kind == DomainKind::Translated
    }
}

impl<S: Storage> InPlace for SavedDomain<S> {
    fn storage(&self) -> &impl Storage {
        &self.storage
    }

    fn map(&self) -> &RunMap {
        &self.map
    }
}
