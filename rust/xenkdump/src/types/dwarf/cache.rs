//! DWARF indices, cached on disk between runs.
//!
//! A file that is corrupt, truncated, or of another version or image is ignored. A failed write is
//! not an error. Cached offsets are only checked to be within the section: a lookup must check that
//! the entry at the offset has the name.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::index::Index;
use crate::alloc;
use crate::limits::MAX_INDEX_FILE;
use crate::names;

/// The magic number. The last two digits are the version of the layout and of the hash.
const MAGIC: &[u8; 16] = b"xkdump-dwarf--01";
/// Size of the header after the magic: fingerprint, checksum, number of units, number of names.
const NUMBERS: usize = 4 * 8;
const UNIT: usize = 4;
const NAME: usize = 12;
/// Number of bytes of `.debug_info` that are part of the fingerprint.
const FINGERPRINT_BYTES: usize = 1 << 16;

/// The cache file of one image.
pub(super) struct File {
    folder: PathBuf,
    name: String,
    fingerprint: u64,
}

impl File {
    /// The cache file for the image with this build ID; `None` if the build ID has an invalid size.
    /// `image` identifies the image's file and is part of the fingerprint.
    pub fn new(folder: PathBuf, build_id: &[u8], image: [u64; 7], info: &[u8]) -> Option<Self> {
        if !(4..=64).contains(&build_id.len()) {
            return None;
        }
        let id: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        // The build ID is not enough: debugging information may be stripped or compacted without
        // changing it, and a file may have the build ID of another one.
        let mut identifying: Vec<u8> = image.into_iter().flat_map(u64::to_le_bytes).collect();
        identifying.extend((info.len() as u64).to_le_bytes());
        identifying.extend(info.get(..FINGERPRINT_BYTES).unwrap_or(info));
        Some(Self {
            folder,
            name: format!("{id}.dwarf"),
            fingerprint: names::hash(&identifying),
        })
    }

    /// Loads the index; `None` if the file is missing or invalid. `size` is the size of
    /// `.debug_info`.
    pub fn load(&self, size: usize) -> Option<Index> {
        let path = self.folder.join(&self.name);
        let meta = std::fs::metadata(&path).ok()?;
        // Each entry of the index is at least two bytes of `.debug_info`.
        let limit = (size as u64)
            .saturating_mul(NAME as u64)
            .min(MAX_INDEX_FILE as u64);
        if !meta.is_file() || meta.len() > limit.saturating_add(1 << 12) {
            return None;
        }
        self.decode(&std::fs::read(path).ok()?, size)
    }

    fn decode(&self, bytes: &[u8], size: usize) -> Option<Index> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (numbers, body) = rest.split_at_checked(NUMBERS)?;
        let number = |i: usize| -> Option<u64> {
            Some(u64::from_le_bytes(*numbers.get(8 * i..)?.first_chunk()?))
        };
        if number(0)? != self.fingerprint || number(1)? != names::hash(body) {
            return None;
        }
        let (units, names) = (
            usize::try_from(number(2)?).ok()?,
            usize::try_from(number(3)?).ok()?,
        );
        let (unit_bytes, name_bytes) = body.split_at_checked(units.checked_mul(UNIT)?)?;
        if name_bytes.len() != names.checked_mul(NAME)? {
            return None;
        }
        let units = unit_bytes.chunks_exact(UNIT);
        let units = units.filter_map(|chunk| Some(u32::from_le_bytes(*chunk.first_chunk()?)));
        let units = alloc::collect(units);
        let names = alloc::collect(name_bytes.chunks_exact(NAME).filter_map(|chunk| {
            let hash = u64::from_le_bytes(*chunk.first_chunk()?);
            Some((hash, u32::from_le_bytes(*chunk.last_chunk()?)))
        }));
        let within = |offset: u32| (offset as usize) < size;
        let valid = units.is_sorted_by(|a, b| a < b)
            && names.is_sorted_by(|a, b| a.0 < b.0)
            && units.iter().all(|&offset| within(offset))
            && names.iter().all(|&(_, offset)| within(offset));
        valid.then_some(Index { units, names })
    }

    fn encode(&self, index: &Index) -> Vec<u8> {
        let (units, names) = (index.units.len(), index.names.len());
        let mut body = alloc::with_capacity(units * UNIT + names * NAME);
        for unit in &index.units {
            body.extend(unit.to_le_bytes());
        }
        for (hash, offset) in &index.names {
            body.extend(hash.to_le_bytes());
            body.extend(offset.to_le_bytes());
        }
        let mut bytes = alloc::copied(MAGIC);
        for number in [
            self.fingerprint,
            names::hash(&body),
            units as u64,
            names as u64,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        alloc::extend(&mut bytes, &body);
        bytes
    }

    /// Writes a temporary file and renames it. Errors are ignored: the next run rebuilds the index.
    pub fn store(&self, index: &Index) {
        let _ = self.try_store(index);
    }

    fn try_store(&self, index: &Index) -> std::io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let bytes = self.encode(index);
        if bytes.len() > MAX_INDEX_FILE {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)?;
        // Threads of this process may store concurrently.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let part = format!("{}.{process}.{count}.part", self.name);
        let part = self.folder.join(part);
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&part)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| std::fs::rename(&part, self.folder.join(&self.name)));
        if written.is_err() {
            std::fs::remove_file(&part)?;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{modern, run_all_queries};
    use super::*;
    use crate::addr::Word;

    fn folder(name: &str) -> PathBuf {
        let name = format!("xenkdump-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn an_index_is_cached() {
        let synthetic = modern();
        let folder = folder("kept");
        let file = || File::new(folder.clone(), b"build-id", [0; 7], &synthetic.info);
        run_all_queries(&synthetic.types(Word::W64, file()));
        let paths: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        assert_eq!(paths.len(), 1);
        let loaded = file().unwrap().load(synthetic.info.len()).unwrap();
        assert_eq!(loaded, Index::scan(&synthetic.sections()));
        assert_eq!(
            synthetic.types(Word::W64, file()).size_of("outer").unwrap(),
            56
        );
        // An index of another `.debug_info` is rejected.
        let other = File::new(folder.clone(), b"build-id", [0; 7], &synthetic.info[1..]);
        assert!(other.unwrap().load(synthetic.info.len()).is_none());
        // So is an index of another file with the same `.debug_info`.
        for i in 0..7 {
            let mut image = [0; 7];
            image[i] = 1;
            let other = File::new(folder.clone(), b"build-id", image, &synthetic.info);
            assert!(other.unwrap().load(synthetic.info.len()).is_none(), "{i}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_oversized_index_is_not_cached() {
        let folder = folder("large");
        let file = File::new(folder.clone(), b"build-id", [0; 7], b"").unwrap();
        for (units, kept) in [(MAX_INDEX_FILE / UNIT, false), (2, true)] {
            file.store(&Index {
                units: vec![0; units],
                names: Vec::new(),
            });
            assert_eq!(folder.join("6275696c642d6964.dwarf").exists(), kept);
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn threads_store_concurrently() {
        let synthetic = modern();
        let folder = folder("concurrent");
        let index = Index::scan(&synthetic.sections());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let file = File::new(folder.clone(), b"build-id", [0; 7], &synthetic.info);
                    let file = file.unwrap();
                    for _ in 0..20 {
                        file.try_store(&index).unwrap();
                        assert_eq!(file.load(synthetic.info.len()).as_ref(), Some(&index));
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_corrupt_index_is_ignored() {
        let synthetic = modern();
        let folder = folder("corrupt");
        let file = || File::new(folder.clone(), b"build-id", [0; 7], &synthetic.info);
        run_all_queries(&synthetic.types(Word::W64, file()));
        let path = folder.join("6275696c642d6964.dwarf");
        let valid = std::fs::read(&path).unwrap();
        for at in 0..valid.len() {
            let mut corrupt = valid.clone();
            corrupt[at] ^= 0x11;
            std::fs::write(&path, &corrupt).unwrap();
            assert!(file().unwrap().load(synthetic.info.len()).is_none(), "{at}");
            std::fs::write(&path, &valid[..at]).unwrap();
            assert!(file().unwrap().load(synthetic.info.len()).is_none(), "{at}");
        }
        // The index is rebuilt.
        let types = synthetic.types(Word::W64, file());
        assert_eq!(types.size_of("outer").unwrap(), 56);
        assert_eq!(std::fs::read(&path).unwrap(), valid);
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// Offsets of a file with a valid checksum are checked against the entries.
    #[test]
    fn wrong_offsets_in_an_index_are_detected() {
        let synthetic = modern();
        let folder = folder("wrong");
        let file = || File::new(folder.clone(), b"build-id", [0; 7], &synthetic.info);
        let types = synthetic.types(Word::W64, file());
        run_all_queries(&types);
        let mut index = file().unwrap().load(synthetic.info.len()).unwrap();
        for shift in 0..synthetic.info.len() as u32 {
            for (_, offset) in &mut index.names {
                *offset = shift;
            }
            file().unwrap().store(&index);
            let types = synthetic.types(Word::W64, file());
            run_all_queries(&types);
            assert!(types.size_of("outer").is_err() || types.size_of("late").is_err());
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
