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

/// The contexts of vCPUs, now and at the last checkpoint. A checkpoint copies nothing: a stream may have any
/// number of them.
#[derive(Debug, Default)]
pub(super) struct Vcpus {
    by_id: BTreeMap<u32, Versions>,
    checkpoints: u64,
}

#[derive(Clone, Copy, Debug)]
struct Versions {
    newest: Range,
    /// The number of checkpoints before it was read.
    since: u64,
    /// What was valid before.
    older: Option<Range>,
}

impl Vcpus {
    fn insert(&mut self, id: u32, context: Range) {
        let since = self.checkpoints;
        let mut versions = Versions {
            newest: context,
            since,
            older: None,
        };
        if let Some(known) = self.by_id.get(&id) {
            versions.older = if known.since < since {
                Some(known.newest)
            } else {
                known.older
            };
        }
        self.by_id.insert(id, versions);
    }

    /// Drops what was read after the last checkpoint.
    fn roll_back(&mut self) {
        let checkpoints = self.checkpoints;
        self.by_id.retain(|_, versions| {
            if versions.since == checkpoints {
                let Some(older) = versions.older else {
                    return false;
                };
                versions.newest = older;
            }
            true
        });
    }

    /// The newest ones, by the number of the vCPU.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Range)> + use<'_> {
        self.by_id
            .iter()
            .map(|(id, versions)| (*id, versions.newest))
    }
}

/// What describes the domain at one moment, besides its memory and PV vCPUs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
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
    /// `vcpu_guest_context` of each vCPU that was up (PV).
    pub vcpus: Vcpus,
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
            vcpus: Vcpus::default(),
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
        let known = &self.vcpus.by_id;
        if (known.len() as u64) < MAX_DUMP_CORE_VCPUS || known.contains_key(&id) {
            self.vcpus.insert(id, context);
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
        self.checkpoint = Some(self.state);
        self.checkpoints += 1;
        self.vcpus.checkpoints += 1;
        Ok(())
    }

    /// Drops what was read after the last checkpoint; `false` if there was none.
    pub fn roll_back(&mut self) -> bool {
        let Some(state) = self.checkpoint.take() else {
            return false;
        };
        self.state = state;
        self.vcpus.roll_back();
        self.pages.roll_back();
        true
    }

    fn refused(&self, found: String) -> Error {
        self.storage
            .file()
            .format_error(0, "a stream of pages that are mostly in order", found)
    }
}

#[cfg(test)]
mod tests {
    use super::{Range, Vcpus};

    fn at(offset: u64) -> Range {
        Range { offset, size: 8 }
    }

    fn offsets(vcpus: &Vcpus) -> Vec<(u32, u64)> {
        vcpus.iter().map(|(id, range)| (id, range.offset)).collect()
    }

    #[test]
    fn vcpus_are_rolled_back_to_the_last_checkpoint() {
        let mut vcpus = Vcpus::default();
        vcpus.insert(0, at(1));
        vcpus.insert(0, at(2));
        vcpus.checkpoints += 1;
        vcpus.insert(1, at(3));
        vcpus.checkpoints += 1;
        vcpus.insert(0, at(4));
        vcpus.insert(0, at(5));
        vcpus.insert(2, at(6));
        assert_eq!(offsets(&vcpus), [(0, 5), (1, 3), (2, 6)]);
        vcpus.roll_back();
        assert_eq!(offsets(&vcpus), [(0, 2), (1, 3)]);
    }
}
