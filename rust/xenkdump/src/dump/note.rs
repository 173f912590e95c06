//! Notes of a dump.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use super::warnings::Warnings;
use crate::budget::{Budget, Exhausted};
use crate::file::Storage;
use crate::limits::{MAX_DESCRIPTORS_SIZE, MAX_NOTES, MAX_NOTE_NAME};
use crate::notes::NT_VMCOREDD;

/// A note and its location in the file.
#[derive(Clone, Debug)]
pub struct Note {
    /// Its name without the final NUL, cut after 256 bytes.
    pub name: Vec<u8>,
    /// `n_type`.
    pub note_type: u32,
    /// `n_namesz`.
    pub name_size: u32,
    /// File offset of its header.
    pub offset: u64,
    /// File offset of its descriptor.
    pub desc_offset: u64,
    /// Size of its descriptor.
    pub desc_size: u64,
    /// Its descriptor, read on first use.
    pub(super) desc: Arc<OnceLock<Vec<u8>>>,
}

impl Note {
    /// Whether it is NT_VMCOREDD, which can have any number of MiB that no command needs.
    pub(super) fn is_device_dump(&self) -> bool {
        self.name == b"LINUX" && self.note_type == NT_VMCOREDD
    }
}

/// Size of a note's header: `n_namesz`, `n_descsz`, `n_type`.
const HEADER: u64 = 12;

/// Collects the notes of a container, in file order.
#[derive(Debug)]
pub(super) struct NoteReader<'f, S> {
    storage: &'f S,
    pub notes: Vec<Note>,
    /// Offset and size of the ranges that were read: a second segment over the same bytes adds
    /// nothing.
    ranges: HashSet<(u64, u64)>,
    count: Budget<'static>,
    /// Bytes of all descriptors, which exceed the file's only if notes overlap.
    size: Budget<'static>,
    /// Bytes of descriptors that are read as a whole: all but device dumps.
    read_size: Budget<'static>,
}

impl<'f, S: Storage> NoteReader<'f, S> {
    pub fn new(storage: &'f S) -> Self {
        Self {
            storage,
            notes: Vec::new(),
            ranges: HashSet::new(),
            count: Budget::new("notes", MAX_NOTES),
            size: Budget::new("note descriptors in the file", storage.len()),
            read_size: Budget::new("note descriptors", MAX_DESCRIPTORS_SIZE),
        }
    }

    /// Splits a PT_NOTE segment or SHT_NOTE section into notes, up to the first corrupt one.
    ///
    /// The header is three u32 in both ELF classes. Name and descriptor are each padded to 4 bytes
    /// whatever `p_align` says: neither Xen nor Linux ever used 8 here.
    pub fn read(&mut self, offset: u64, size: u64, warnings: &mut Warnings) {
        if !self.ranges.insert((offset, size)) {
            return;
        }
        let available = self.storage.held(offset, size);
        if available < size {
            warnings.push(format!(
                "the PT_NOTE segment at offset {offset:#x} claims {size} bytes, the file holds \
                 {available} of them"
            ));
        }
        // Offsets within the file cannot wrap.
        let end = offset.saturating_add(available);
        let mut at = offset;
        while end.saturating_sub(at) >= HEADER {
            let mut header = [0; HEADER as usize];
            if self.storage.read_at(at, &mut header).is_err() {
                warnings.push(format!("the notes at offset {at:#x} cannot be read"));
                return;
            }
            let field = |i: usize| {
                u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]])
            };
            let (name_size, desc_size, note_type) = (field(0), field(4), field(8));
            if name_size == 0 && desc_size == 0 && note_type == 0 {
                // /proc/vmcore pads a merged segment with zeros, and an unused crash note is all
                // zeros.
                return;
            }
            let name_at = at.saturating_add(HEADER);
            let desc_at = name_at.saturating_add(padded(name_size));
            let name_end = name_at.saturating_add(name_size.into());
            let desc_end = desc_at.saturating_add(desc_size.into());
            if name_end > end || desc_end > end {
                warnings.push(format!(
                    "the note at offset {at:#x} (n_namesz {name_size}, n_descsz {desc_size}, \
                     n_type {note_type:#x}) runs past the end of its segment: it and what follows \
                     it are lost"
                ));
                return;
            }
            let name = self
                .storage
                .copy(name_at, MAX_NOTE_NAME.min(name_size.into()))
                .unwrap_or_default();
            let note = Note {
                name: name
                    .split(|&byte| byte == 0)
                    .next()
                    .unwrap_or_default()
                    .to_vec(),
                note_type,
                name_size,
                offset: at,
                desc_offset: desc_at,
                desc_size: desc_size.into(),
                desc: Arc::new(OnceLock::new()),
            };
            if self.spend(&note).is_err() {
                warnings.push(format!(
                    "too many notes: those from offset {at:#x} on are left out"
                ));
                return;
            }
            self.notes.push(note);
            at = desc_at.saturating_add(padded(desc_size));
        }
        let mut fragment = [0; HEADER as usize];
        let size = end.saturating_sub(at);
        let fragment = fragment.get_mut(..size as usize).unwrap_or_default();
        match self.storage.read_at(at, fragment) {
            Ok(()) if fragment.iter().all(|&byte| byte == 0) => {}
            _ => warnings.push(format!(
                "the {size} bytes at offset {at:#x} are less than a note's header: what they began \
                 is lost"
            )),
        }
    }

    /// Adds a region of the file that has the contents of a note, but no header of one.
    pub fn add(
        &mut self,
        name: &[u8],
        note_type: u32,
        offset: u64,
        size: u64,
        warnings: &mut Warnings,
    ) {
        let available = self.storage.held(offset, size);
        if available < size {
            warnings.push(format!(
                "{} at offset {offset:#x} claims {size} bytes, the file holds {available} of them",
                String::from_utf8_lossy(name)
            ));
        }
        let note = Note {
            name: name.to_vec(),
            note_type,
            name_size: 0,
            offset,
            desc_offset: offset,
            desc_size: available,
            desc: Arc::new(OnceLock::new()),
        };
        if available > 0 && self.spend(&note).is_ok() {
            self.notes.push(note);
        }
    }

    fn spend(&self, note: &Note) -> Result<(), Exhausted> {
        self.count.spend(1)?;
        self.size.spend(note.desc_size)?;
        if note.is_device_dump() {
            return Ok(());
        }
        self.read_size.spend(note.desc_size)
    }
}

/// A size rounded up to the notes' alignment of 4.
fn padded(size: u32) -> u64 {
    (u64::from(size) + 3) & !3
}
