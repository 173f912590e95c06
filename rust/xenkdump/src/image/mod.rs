//! The image of a kernel or hypervisor: its symbols, types and unwind tables.
//!
//! [`Image`] hides whether they are from an ELF file or from the memory of the running kernel:
//!
//! - `memory`: the image in memory, by the kernel's own tables.
//! - `packed`: files that are compressed, `vmlinuz` among them; `loaded`: a stripped file.
//! - `map`: symbols alone, in a `System.map`.
//! - `kallsyms`: its symbols; `exports`: its variables, if kallsyms has functions only.
//! - `region`: parts of memory with missing pages.

mod exports;
pub(crate) mod kallsyms;
pub(crate) mod loaded;
pub(crate) mod map;
pub(crate) mod memory;
mod packed;
mod region;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::addr::{VirtAddr, Word};
use crate::alloc;
use crate::elf::{self, Bytes};
use crate::Result;
pub use memory::{MemoryImage, Place};
pub use packed::{head, MAX_HEAD};

/// `e_machine` of x86 (EM_386) and x86_64 (EM_X86_64).
const MACHINES: (u16, u16) = (3, 62);

/// The image of a kernel or hypervisor.
#[derive(Clone, Debug)]
pub enum Image {
    /// An ELF file: vmlinux, xen-syms.
    File(Arc<elf::Image>),
    /// The memory of the kernel itself.
    Memory(Arc<MemoryImage>),
}

/// One section of an image.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its link-time address; 0 if it is not loaded.
    pub address: VirtAddr,
    /// Its offset in the file; 0 in memory.
    pub offset: u64,
    /// Its size in memory, in bytes.
    pub size: u64,
}

/// The bytes of a section.
#[derive(Clone, Debug)]
pub struct Content {
    /// The link-time address of the section.
    pub address: VirtAddr,
    /// The bytes.
    pub bytes: Bytes,
    /// Offsets of those that are missing, ascending: not in the dump. None in a file.
    pub holes: Vec<Range<usize>>,
}

impl Image {
    /// The image in an ELF file, which may be compressed, or inside a `vmlinuz`.
    pub fn open(path: &Path) -> Result<Self> {
        elf::Image::new(packed::open(path)?).map(Self::from)
    }

    /// Its name in messages.
    pub fn name(&self) -> String {
        match self {
            Image::File(file) => file.file().path().display().to_string(),
            Image::Memory(memory) => memory.name().to_owned(),
        }
    }

    /// The size of an address.
    pub fn word(&self) -> Word {
        match self {
            Image::File(file) => file.word(),
            Image::Memory(memory) => memory.word(),
        }
    }

    /// `e_machine`.
    pub fn machine(&self) -> u16 {
        match (self, self.word()) {
            (Image::File(file), _) => file.machine(),
            (Image::Memory(_), Word::W32) => MACHINES.0,
            (Image::Memory(_), Word::W64) => MACHINES.1,
        }
    }

    /// The build id.
    pub fn build_id(&self) -> Option<&[u8]> {
        match self {
            Image::File(file) => file.build_id(),
            Image::Memory(memory) => memory.build_id(),
        }
    }

    /// All known sections.
    pub fn sections(&self) -> Vec<Section> {
        match self {
            Image::File(file) => alloc::collect(file.sections().map(|section| Section {
                name: section.name().to_owned(),
                address: section.address(),
                offset: section.offset(),
                size: section.size(),
            })),
            Image::Memory(memory) => memory.sections(),
        }
    }

    /// The bytes of the section of this name; `None` if it is absent or has none.
    pub fn content(&self, name: &str) -> Option<Content> {
        match self {
            Image::File(file) => {
                let section = file.section(name)?;
                Some(Content {
                    address: section.address(),
                    bytes: section.bytes()?,
                    holes: Vec::new(),
                })
            }
            Image::Memory(memory) => memory.content(name),
        }
    }

    /// The bytes of the section of this name; an error if it is absent or has none.
    pub fn data(&self, name: &str) -> Result<Bytes> {
        match self {
            Image::File(file) => file.data(name).map(|bytes| alloc::copied(bytes).into()),
            Image::Memory(memory) => memory.data(name),
        }
    }

    /// `len` bytes at a link-time address.
    pub fn read(&self, address: VirtAddr, len: u64) -> Result<Vec<u8>> {
        match self {
            Image::File(file) => file.read(address, len),
            Image::Memory(memory) => memory.read(address, len),
        }
    }

    /// What is missing of an image in memory, in words. Grows as sections are used.
    pub fn losses(&self) -> Vec<String> {
        match self {
            Image::File(_) => Vec::new(),
            Image::Memory(memory) => memory.losses(),
        }
    }
}

impl From<elf::Image> for Image {
    fn from(image: elf::Image) -> Self {
        Image::File(Arc::new(image))
    }
}
