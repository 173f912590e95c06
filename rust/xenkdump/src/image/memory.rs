//! The image of a running kernel, by the tables in its memory.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::exports;
use super::kallsyms::Kallsyms;
use super::map::MapFile;
use super::region::Region;
use super::{Content, Section};
use crate::addr::{MachineAddr, VirtAddr, Word};
use crate::alloc;
use crate::elf::{Bytes, Notes};
use crate::limits::{MAX_BUILD_ID_SECTION_SIZE, MAX_MEMORY_SECTION_SIZE};
use crate::memory::{Fault, Memory};
use crate::paging::Virtual;
use crate::space::Tables;
use crate::{Error, Result};

/// Type of the note, named `GNU`, that holds a build id.
const NT_GNU_BUILD_ID: u32 = 3;

/// Sections by the symbols of the linker script at their start and end
/// (include/asm-generic/vmlinux.lds.h).
const SECTIONS: [(&str, &str, &str); 6] = [
    (".BTF", "__start_BTF", "__stop_BTF"),
    (".orc_header", "__start_orc_header", "__stop_orc_header"),
    (
        ".orc_unwind_ip",
        "__start_orc_unwind_ip",
        "__stop_orc_unwind_ip",
    ),
    (".orc_unwind", "__start_orc_unwind", "__stop_orc_unwind"),
    (".notes", "__start_notes", "__stop_notes"),
    (".rodata", "__start_rodata", "__end_rodata"),
];

/// Where a kernel and its table of symbols are.
#[derive(Clone, Debug)]
pub struct Place {
    /// Ranges of addresses, first and last, in which a kernel's image is.
    pub ranges: Vec<(VirtAddr, VirtAddr)>,
    /// The address of `kallsyms_token_table`, if it is known.
    pub token_table: Option<VirtAddr>,
}

/// A loaded section and its content, once it is used.
struct Loaded {
    name: &'static str,
    start: u64,
    size: u64,
    region: OnceLock<Region>,
}

impl Loaded {
    /// The same section, of which nothing was used.
    fn unread(&self) -> Self {
        Self {
            region: OnceLock::new(),
            ..*self
        }
    }
}

/// The image of a running kernel.
///
/// Symbols are from kallsyms, sections are between symbols of the linker script. Addresses are those
/// of a kernel that was not moved: KASLR's offset is subtracted.
pub struct MemoryImage {
    memory: Arc<dyn Memory<VirtAddr> + Send>,
    name: String,
    slide: i64,
    kallsyms: Arc<Kallsyms>,
    sections: Vec<Loaded>,
    build_id: Option<Vec<u8>>,
    is_map: bool,
}

/// No memory.
struct Nothing;

impl Memory<VirtAddr> for Nothing {
    fn read(&self, addr: VirtAddr, _buf: &mut [u8]) -> Result<(), Fault> {
        Err(Fault::NotInImage(addr))
    }
}

impl MemoryImage {
    /// The image of the kernel at a place of `space`. Fails if its symbols are not found there, or if
    /// they contradict what is in memory.
    pub fn find<M>(
        space: &Virtual<Tables<M>>,
        name: &str,
        word: Word,
        place: &Place,
    ) -> Result<Self>
    where
        M: Memory<MachineAddr> + Send + Clone + 'static,
    {
        let absent = |why: String| Error::Absent(format!("{name}: {why}"));
        let found = Kallsyms::find(space, word, &place.ranges, place.token_table);
        let mut kallsyms = found.or_else(|error| {
            let exported = exports::search(space, word, &place.ranges);
            let exported = exported.ok_or_else(|| absent(error.to_string()))?;
            Ok(Kallsyms::of_exports(word, exported))
        })?;
        kallsyms.add_exports(|between| exports::find(space, word, between));
        let mut image = Self {
            memory: Arc::new(space.clone()),
            name: name.to_owned(),
            slide: 0,
            sections: sections(&kallsyms),
            kallsyms: Arc::new(kallsyms),
            build_id: None,
            is_map: false,
        };
        image.build_id = image.find_build_id();
        Ok(image)
    }

    /// The image of the kernel that a `System.map` is of. It has symbols only, until its memory is
    /// [found](MemoryImage::with_memory).
    pub fn of_map(path: &Path) -> Result<Self> {
        let kallsyms = MapFile::kallsyms(path)?;
        Ok(Self {
            memory: Arc::new(Nothing),
            name: path.display().to_string(),
            slide: 0,
            sections: sections(&kallsyms),
            kallsyms: Arc::new(kallsyms),
            build_id: None,
            is_map: true,
        })
    }

    /// The same symbols, which are of a kernel that was not moved, for one that KASLR moved by `slide`
    /// bytes; with the types and unwind tables in its memory.
    pub fn with_memory<M>(&self, space: &Virtual<Tables<M>>, slide: i64) -> Self
    where
        M: Memory<MachineAddr> + Send + Clone + 'static,
    {
        let kallsyms = self.kallsyms.moved(slide.wrapping_sub(self.slide));
        let mut image = Self {
            memory: Arc::new(space.clone()),
            name: self.name.clone(),
            slide,
            sections: sections(&kallsyms),
            kallsyms: Arc::new(kallsyms),
            build_id: None,
            is_map: self.is_map,
        };
        image.build_id = image.find_build_id();
        image
    }

    /// Whether its symbols are from a `System.map`.
    pub fn is_map(&self) -> bool {
        self.is_map
    }

    /// The same image for a kernel that KASLR moved by `slide` bytes.
    pub fn with_slide(&self, slide: i64) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            name: self.name.clone(),
            slide,
            sections: self.sections.iter().map(Loaded::unread).collect(),
            kallsyms: Arc::clone(&self.kallsyms),
            build_id: self.build_id.clone(),
            is_map: self.is_map,
        }
    }

    /// The same image with further variables, at the addresses where the kernel runs, as far as it
    /// does not have symbols of their names.
    pub fn with_variables(&self, variables: Vec<(Vec<u8>, u64)>) -> Self {
        let mut kallsyms = self.kallsyms.copied();
        kallsyms.add(variables, b'D');
        let mut image = Self {
            memory: Arc::clone(&self.memory),
            name: self.name.clone(),
            slide: self.slide,
            sections: sections(&kallsyms),
            kallsyms: Arc::new(kallsyms),
            build_id: self.build_id.clone(),
            is_map: self.is_map,
        };
        if image.build_id.is_none() {
            image.build_id = image.find_build_id();
        }
        image
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn word(&self) -> Word {
        self.kallsyms.word
    }

    pub(super) fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// The symbols, at the addresses where the kernel runs.
    pub(crate) fn kallsyms(&self) -> &Arc<Kallsyms> {
        &self.kallsyms
    }

    /// How far the kernel was moved.
    pub fn slide(&self) -> i64 {
        self.slide
    }

    /// The memory that the kernel runs in.
    pub(crate) fn memory(&self) -> &Arc<dyn Memory<VirtAddr> + Send> {
        &self.memory
    }

    pub(super) fn sections(&self) -> Vec<Section> {
        let linked = |loaded: &Loaded| self.linked(loaded.start);
        self.sections
            .iter()
            .map(|loaded| Section {
                name: loaded.name.to_owned(),
                address: linked(loaded),
                offset: 0,
                size: loaded.size,
            })
            .collect()
    }

    pub(super) fn content(&self, name: &str) -> Option<Content> {
        let loaded = self.sections.iter().find(|loaded| loaded.name == name)?;
        let region = self.region(loaded);
        Some(Content {
            address: self.linked(loaded.start),
            bytes: region.bytes.clone(),
            holes: alloc::collect(region.holes.iter().cloned()),
        })
        .filter(|_| region.missing() < region.bytes.len())
    }

    pub(super) fn data(&self, name: &str) -> Result<Bytes> {
        let content = self.content(name);
        let whole = content.filter(|content| content.holes.is_empty());
        whole.map(|content| content.bytes).ok_or_else(|| {
            let name_ = &self.name;
            Error::Absent(format!("{name_}: not all bytes of a section {name}"))
        })
    }

    pub(super) fn read(&self, address: VirtAddr, len: u64) -> Result<Vec<u8>> {
        let absent = |why: &dyn fmt::Display| {
            let name = &self.name;
            Error::Absent(format!("{name}: {len:#x} bytes at {address}: {why}"))
        };
        if len > MAX_MEMORY_SECTION_SIZE {
            return Err(absent(&"more than a section has"));
        }
        let mut bytes = alloc::filled(0, usize::try_from(len).unwrap_or(0));
        let at = VirtAddr(address.0.wrapping_add_signed(self.slide) & self.word().max());
        self.memory
            .read(at, &mut bytes)
            .map_err(|fault| absent(&fault))?;
        Ok(bytes)
    }

    pub(super) fn losses(&self) -> Vec<String> {
        let mut losses = Vec::new();
        if self.kallsyms.only_exports {
            losses.push(
                "kallsyms, the kernel's table of symbols, cannot be used: only exported symbols are \
                 known, and addresses have no names"
                    .to_owned(),
            );
        }
        if self.kallsyms.lost > 0 {
            let (lost, known) = (self.kallsyms.lost, self.kallsyms.symbols.len());
            let all = lost + known;
            losses.push(format!(
                "{lost} of {all} symbols of the kernel's memory are not in the dump"
            ));
        }
        if self.kallsyms.misplaced > 0 {
            losses.push(format!(
                "the kernel's table of symbols is damaged: {} addresses are not in order, and their \
                 symbols are not used",
                self.kallsyms.misplaced
            ));
        }
        for loaded in &self.sections {
            let region = loaded.region.get();
            let missing = region.map_or(0, Region::missing);
            if missing > 0 {
                losses.push(format!(
                    "{missing} of {} bytes of {} are not in the dump",
                    loaded.size, loaded.name
                ));
            }
        }
        losses
    }

    fn linked(&self, address: u64) -> VirtAddr {
        VirtAddr(address.wrapping_add_signed(self.slide.wrapping_neg()) & self.word().max())
    }

    fn region<'a>(&self, loaded: &'a Loaded) -> &'a Region {
        let range = loaded.start..loaded.start.saturating_add(loaded.size);
        let read = || Region::read(&*self.memory, range);
        loaded.region.get_or_init(read)
    }

    fn find_build_id(&self) -> Option<Vec<u8>> {
        let notes = self.sections.iter().find(|loaded| loaded.name == ".notes");
        let notes = notes.filter(|notes| notes.size <= MAX_BUILD_ID_SECTION_SIZE)?;
        let bytes = &self.region(notes).bytes;
        let found = Notes::new(bytes, 0)
            .map_while(Result::ok)
            .find(|note| note.name == b"GNU" && note.kind == NT_GNU_BUILD_ID);
        found.map(|note| alloc::copied(note.desc))
    }
}

impl fmt::Debug for MemoryImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryImage")
            .field("name", &self.name)
            .field("slide", &self.slide)
            .finish_non_exhaustive()
    }
}

/// The sections whose symbols are known.
fn sections(kallsyms: &Kallsyms) -> Vec<Loaded> {
    let mut wanted = [""; 2 * SECTIONS.len()];
    for (pair, (_, start, stop)) in wanted.chunks_mut(2).zip(SECTIONS) {
        pair.copy_from_slice(&[start, stop]);
    }
    let found = kallsyms.get(wanted);
    SECTIONS
        .iter()
        .zip(found.chunks(2))
        .filter_map(|((name, ..), bounds)| {
            let [Some(start), Some(stop)] = *bounds else {
                return None;
            };
            let size = stop.checked_sub(start)?;
            (size > 0 && size <= MAX_MEMORY_SECTION_SIZE).then_some(Loaded {
                name,
                start,
                size,
                region: OnceLock::new(),
            })
        })
        .collect()
}
