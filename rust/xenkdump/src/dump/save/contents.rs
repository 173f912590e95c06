//! What the records of a stream add up to: the pages, the vCPUs and the records themselves.

use std::collections::BTreeMap;

use super::super::container::DomainKind;
use super::super::note::NoteReader;
use super::super::warnings::Warnings;
use super::cursor::Range;
use super::pages::{Content, Pages};
use crate::addr::{Pfn, Word};
use crate::file::Storage;
use crate::limits::MAX_DUMP_CORE_VCPUS;
use crate::{Error, Result};

/// What describes the domain at one moment, besides its memory.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// `vcpu_guest_context` of each vCPU that was up (PV).
    pub vcpus: BTreeMap<u32, Range>,
    pub shared_info: Option<Range>,
    /// Xen's HVM context (HVM and PVH).
    pub hvm_context: Option<Range>,
}

/// What was read of a stream.
#[derive(Debug)]
pub(super) struct Contents<'s, S> {
    pub storage: &'s S,
    pub kind: DomainKind,
    /// Word size of a PV guest.
    pub word: Word,
    /// What the stream calls the registers of a PV guest's vCPU.
    pub source: &'static str,
    pub pages: Pages,
    /// The number of a PV guest's pfns.
    pub end: Option<Pfn>,
    pub state: State,
    /// The state at the last checkpoint.
    pub checkpoint: Option<State>,
    pub checkpoints: u64,
    pub records: NoteReader<'s, S>,
    pub warnings: Warnings,
}

impl<'s, S: Storage> Contents<'s, S> {
    pub fn new(storage: &'s S) -> Self {
        Self {
            storage,
            kind: DomainKind::Pv,
            word: Word::W64,
            source: "X86_PV_VCPU_BASIC",
            pages: Pages::default(),
            end: None,
            state: State::default(),
            checkpoint: None,
            checkpoints: 0,
            records: NoteReader::new(storage),
            warnings: Warnings::default(),
        }
    }

    /// Adds a record to those that are listed.
    pub fn list(&mut self, name: &[u8], kind: u32, body: Range) {
        self.records
            .add(name, kind, body.offset, body.size, &mut self.warnings);
    }

    pub fn page(&mut self, pfn: u64, content: Content) -> Result<()> {
        let pushed = self.pages.push(pfn, content, self.storage.len());
        pushed.map_err(|error| self.refused(error.to_string()))
    }

    /// A vCPU's context.
    pub fn vcpu(&mut self, id: u32, context: Range) {
        let vcpus = &mut self.state.vcpus;
        if (vcpus.len() as u64) < MAX_DUMP_CORE_VCPUS || vcpus.contains_key(&id) {
            vcpus.insert(id, context);
        } else {
            self.warnings.push(format!(
                "of the vCPUs the first {MAX_DUMP_CORE_VCPUS} are read"
            ));
        }
    }

    /// All that was read so far is of one moment.
    pub fn commit(&mut self) -> Result<()> {
        let committed = self.pages.commit();
        committed.map_err(|error| self.refused(error.to_string()))?;
        self.checkpoint = Some(self.state.clone());
        self.checkpoints += 1;
        Ok(())
    }

    fn refused(&self, found: String) -> Error {
        self.storage
            .file()
            .format_error(0, "a stream of pages that are mostly in order", found)
    }
}
