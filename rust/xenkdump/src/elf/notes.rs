//! ELF notes: name, type, descriptor.

use super::Malformed;

/// Size of a note's header: `n_namesz`, `n_descsz`, `n_type`, each 32 bits in either ELF class.
const HEADER: usize = 12;

/// One note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// The owner's name, without the final NUL.
    pub name: &'a [u8],
    /// `n_type`; its meaning depends on the name.
    pub kind: u32,
    /// The descriptor.
    pub desc: &'a [u8],
    /// Offset of the note in the file.
    pub offset: u64,
    /// Offset of its descriptor in the file.
    pub desc_offset: u64,
}

/// Iterates over notes. The first error is the last item.
///
/// Name and descriptor are each padded to 4 bytes, whatever `p_align` says: neither Xen nor Linux
/// ever used 8, and kexec-tools leaves `p_align` at 0. A header of zeros, the unused rest of a buffer,
/// ends the notes.
#[derive(Clone, Debug)]
pub struct Notes<'a> {
    bytes: &'a [u8],
    at: usize,
    base: u64,
}

impl<'a> Notes<'a> {
    /// The notes in `bytes`, which start at offset `base` of the file.
    pub fn new(bytes: &'a [u8], base: u64) -> Self {
        Self { bytes, at: 0, base }
    }

    fn parse(&self, rest: &'a [u8]) -> Result<Option<(Note<'a>, usize)>, Malformed> {
        let offset = self.base.saturating_add(self.at as u64);
        let Some(header) = rest.first_chunk::<HEADER>() else {
            return Err(Malformed::new(
                offset,
                format!("a note's header of {HEADER} bytes"),
                format!("{} bytes", rest.len()),
            ));
        };
        if *header == [0; HEADER] {
            return Ok(None);
        }
        let word =
            |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let (namesz, descsz, kind) = (word(0) as usize, word(4) as usize, word(8));
        let cut = |what: &str, size: usize| {
            Malformed::new(
                offset,
                format!("a note with {what} of {size} bytes"),
                format!("{} bytes to the end of the notes", rest.len()),
            )
        };
        // Can only overflow on 32-bit hosts: both sizes have 32 bits.
        let desc_at = pad(namesz)
            .and_then(|size| size.checked_add(HEADER))
            .ok_or_else(|| cut("a name", namesz))?;
        let name = rest[HEADER..]
            .get(..namesz)
            .ok_or_else(|| cut("a name", namesz))?;
        let end = desc_at
            .checked_add(descsz)
            .ok_or_else(|| cut("a descriptor", descsz))?;
        // An empty descriptor may follow a name whose padding is truncated.
        let desc = if descsz == 0 {
            &[]
        } else {
            rest.get(desc_at..end)
                .ok_or_else(|| cut("a descriptor", descsz))?
        };
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        let note = Note {
            name,
            kind,
            desc,
            offset,
            desc_offset: offset.saturating_add(desc_at as u64),
        };
        // The last note's padding may be missing.
        let next = desc_at.saturating_add(pad(descsz).unwrap_or(usize::MAX));
        Ok(Some((note, next)))
    }
}

fn pad(size: usize) -> Option<usize> {
    size.checked_next_multiple_of(4)
}

impl<'a> Iterator for Notes<'a> {
    type Item = Result<Note<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        match self.parse(rest) {
            Ok(Some((note, size))) => {
                self.at = self.at.saturating_add(size);
                Some(Ok(note))
            }
            Ok(None) => {
                self.at = self.bytes.len();
                None
            }
            Err(malformed) => {
                self.at = self.bytes.len();
                Some(Err(malformed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, desc.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [name, desc] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn name_and_descriptor_are_padded_to_4() {
        let mut bytes = note(b"CORE\0", 1, b"12345");
        bytes.extend(note(b"Xen\0", 0x100_0001, b"abcd"));
        bytes.extend(note(b"", 7, b""));
        let notes: Vec<_> = Notes::new(&bytes, 0x1000).map(Result::unwrap).collect();
        assert_eq!(notes.len(), 3);
        assert_eq!(
            (notes[0].name, notes[0].desc),
            (&b"CORE"[..], &b"12345"[..])
        );
        assert_eq!((notes[1].name, notes[1].kind), (&b"Xen"[..], 0x100_0001));
        assert_eq!((notes[1].offset, notes[1].desc_offset), (0x101c, 0x102c));
        assert_eq!((notes[2].name, notes[2].kind), (&b""[..], 7));
    }

    #[test]
    fn zeros_end_the_notes() {
        let mut bytes = note(b"CORE\0", 1, b"x");
        bytes.extend([0; 100]);
        assert_eq!(Notes::new(&bytes, 0).count(), 1);
    }

    #[test]
    fn iteration_ends_after_the_first_invalid_note() {
        let good = note(b"CORE\0", 1, b"12345678");
        for len in 1..good.len() {
            let items: Vec<_> = Notes::new(&good[..len], 0).collect();
            assert_eq!(items.len(), 1, "{len}");
            assert!(items[0].is_err(), "{len}");
        }
        for at in [0, 4] {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert!(Notes::new(&bytes, 0).next().unwrap().is_err());
        }
    }
}
