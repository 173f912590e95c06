//! Images of memory without notes: ranges of plain bytes.

use goblin::elf::header::EM_X86_64;

use super::container::{Container, Headers, Segment};
use super::in_place::InPlace;
use super::note::Note;
use super::run_map::RunMap;
use super::warnings::Warnings;
use crate::addr::Word;
use crate::file::Storage;

/// Ranges of machine memory.
#[derive(Debug)]
pub(super) struct MemoryImage<S> {
    storage: S,
    headers: Headers,
    map: RunMap,
    memory_size: u64,
}

impl<S: Storage + 'static> MemoryImage<S> {
    pub fn open(
        storage: S,
        format: &'static str,
        segments: Vec<Segment>,
        mut warnings: Warnings,
    ) -> Box<dyn Container> {
        let map = RunMap::of_segments(&segments, storage.len());
        let missing = map.truncated_bytes();
        if missing > 0 {
            warnings.push(format!(
                "the file is cut: {missing} bytes of memory that its headers promise lie past its \
                 end ({} bytes)",
                storage.len()
            ));
        }
        let sizes = segments.iter().map(|segment| segment.memory_size);
        Box::new(Self {
            memory_size: sizes.fold(0, u64::saturating_add),
            map,
            storage,
            headers: Headers {
                format,
                // Not recorded. The kernel's own headers decide about the kernel.
                machine_type: EM_X86_64,
                word: Word::W64,
                notes: Vec::new(),
                warnings,
            },
        })
    }
}

impl<S: Storage> Container for MemoryImage<S> {
    fn headers(&self) -> &Headers {
        &self.headers
    }

    fn descriptor(&self, _note: &Note, _size: u64) -> Option<Vec<u8>> {
        None
    }

    fn file_size(&self) -> u64 {
        self.storage.file().len()
    }

    fn memory_held(&self) -> u64 {
        self.map.distinct_bytes()
    }

    fn memory_size(&self) -> u64 {
        self.memory_size
    }
}

impl<S: Storage> InPlace for MemoryImage<S> {
    fn storage(&self) -> &impl Storage {
        &self.storage
    }

    fn map(&self) -> &RunMap {
        &self.map
    }
}
