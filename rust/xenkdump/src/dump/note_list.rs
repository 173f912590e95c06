//! The notes of a container, as its segments or sections hold them.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use super::{Note, Warnings};
use crate::file::MappedFile;

/// No more notes than this are read. Xen writes two or three a pCPU.
const NOTES: usize = 1 << 17;

/// Nor notes with more bytes of descriptors together, device dumps (NT_VMCOREDD) not counted: they
/// come before the CPUs' notes, have any number of MiB, and only their names are read.
const DESCRIPTORS: u64 = 256 << 20;

/// A name is cut after so many bytes. The longest known has 18.
const NAME: u64 = 256;

/// Notes in the order of the file's tables.
#[derive(Debug, Default)]
pub(super) struct NoteList {
    pub notes: Vec<Note>,
    /// Offset and size of the ranges that were read: a second segment on the same bytes adds nothing.
    ranges: HashSet<(u64, u64)>,
    /// Bytes of all descriptors. Only where notes overlap are these more than the file has.
    size: u64,
    /// Bytes of those that are read.
    read_size: u64,
}

impl NoteList {
    /// Splits a PT_NOTE segment into notes, up to the first that is broken.
    ///
    /// The header is three u32 in either class, and name and descriptor are each padded to 4 bytes
    /// whatever `p_align` says: neither Xen nor Linux ever used 8 here.
    pub fn read(&mut self, file: &MappedFile, offset: u64, size: u64, warnings: &mut Warnings) {
        if !self.ranges.insert((offset, size)) {
            return;
        }
        let available = file.held(offset, size);
        if available < size {
            warnings.push(format!(
                "the PT_NOTE segment at offset {offset:#x} claims {size} bytes, the file holds \
                 {available} of them"
            ));
        }
        // Within the file, and in it offsets cannot wrap.
        let end = offset.saturating_add(available);
        let mut at = offset;
        while end.saturating_sub(at) >= 12 {
            let Ok(header) = file.array::<12>(at) else {
                warnings.push(format!("the notes at offset {at:#x} cannot be read"));
                return;
            };
            let field = |i: usize| {
                u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]])
            };
            let (name_size, desc_size, note_type) = (field(0), field(4), field(8));
            if name_size == 0 && desc_size == 0 && note_type == 0 {
                // /proc/vmcore pads a merged segment with zeros, and an unused crash note is all
                // zeros.
                return;
            }
            let name_at = at.saturating_add(12);
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
            let name = file.copy(name_at, NAME.min(name_size.into()));
            let name = name.unwrap_or_default();
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
            self.size = self.size.saturating_add(note.desc_size);
            if !note.is_device_dump() {
                self.read_size = self.read_size.saturating_add(note.desc_size);
            }
            if self.notes.len() >= NOTES || self.size > file.len() || self.read_size > DESCRIPTORS {
                warnings.push(format!(
                    "too many notes: those from offset {at:#x} on are left out"
                ));
                return;
            }
            self.notes.push(note);
            at = desc_at.saturating_add(padded(desc_size));
        }
    }
}

/// A size rounded up to the notes' padding of 4.
fn padded(size: u32) -> u64 {
    (u64::from(size) + 3) & !3
}
