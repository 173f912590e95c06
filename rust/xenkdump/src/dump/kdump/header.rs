//! The headers: `struct disk_dump_header`, and `struct kdump_sub_header` in the block after it.
//!
//! Both are structs of the compiler that built makedumpfile, in one layout for each word size.

use goblin::elf::header::{EM_386, EM_X86_64};

use crate::addr::{Word, PAGE_SIZE};
use crate::file::Storage;
use crate::limits::MAX_KDUMP_PAGES;
use crate::Result;

const SIGNATURE: usize = 8;
/// Offset of `header_version`.
const VERSION: usize = 8;
/// Offset of `utsname`, six strings.
const UTSNAME: usize = 12;
const UTSNAME_FIELD: usize = 65;
const MACHINE: usize = UTSNAME + 4 * UTSNAME_FIELD;
const UTSNAME_END: usize = UTSNAME + 6 * UTSNAME_FIELD;
/// Bytes that are read of each header.
const HEADER: usize = 512;
/// The last known `header_version`.
const LAST_VERSION: i32 = 6;
/// `status`: the dump is incomplete.
const DISKDUMP_INCOMPLETE: u32 = 0x1;
const INCOMPLETE: u32 = 0x8;

/// Offset and size of a region of the file; size 0 if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Region {
    pub offset: u64,
    pub size: u64,
}

/// The facts in both headers.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// It is of diskdump, which makedumpfile's format is derived from.
    pub is_diskdump: bool,
    pub word: Word,
    /// `e_machine` of the kernel.
    pub machine_type: u16,
    pub version: i32,
    /// The writer stopped before the end, for lack of space.
    pub is_incomplete: bool,
    /// Where the bitmaps are.
    pub bitmaps: Region,
    /// The page after the last one of the machine.
    pub max_mapnr: u64,
    /// Which kinds of pages were excluded.
    pub level: Option<i32>,
    /// First page of a part of a split dump, and the page after its last.
    pub split: Option<(u64, u64)>,
    pub vmcoreinfo: Region,
    pub notes: Region,
    pub eraseinfo: Region,
    /// What the parts of one dump have in common.
    pub identity: Vec<u8>,
}

/// Fields of fixed offsets in a block of bytes; 0 past its end.
struct Fields<'b> {
    bytes: &'b [u8],
    word: Word,
    at: usize,
}

impl Fields<'_> {
    fn u32(&mut self) -> u32 {
        let bytes = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk);
        self.at += 4;
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> u64 {
        let bytes = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk);
        self.at += 8;
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// An `unsigned long`.
    fn long(&mut self) -> u64 {
        match self.word {
            Word::W32 => self.u32().into(),
            Word::W64 => self.u64(),
        }
    }

    /// A file offset, of 8 bytes and aligned to a word, and a size.
    fn region(&mut self) -> Region {
        Region {
            offset: self.u64(),
            size: self.long(),
        }
    }
}

/// Whether the file starts with a signature of the format.
pub(in crate::dump) fn matches(storage: &impl Storage) -> bool {
    let mut signature = [0; SIGNATURE];
    storage.read_at(0, &mut signature).is_ok() && matches!(&signature, b"KDUMP   " | b"DISKDUMP")
}

impl Header {
    /// Reads both headers. The file must [match](matches).
    pub fn read(storage: &impl Storage) -> Result<Self> {
        let file = storage.file();
        let mut bytes = [0; HEADER];
        let held = storage.held(0, HEADER as u64) as usize;
        let part = bytes.get_mut(..held).unwrap_or_default();
        storage
            .read_at(0, part)
            .map_err(|error| file.read_error(0, error))?;
        let machine = bytes
            .get(MACHINE..MACHINE + UTSNAME_FIELD)
            .unwrap_or_default();
        let machine = machine.split(|byte| *byte == 0).next().unwrap_or_default();
        let likely: &[(Word, u16)] = match machine {
            b"x86_64" => &[(Word::W64, EM_X86_64), (Word::W32, EM_X86_64)],
            [b'i', b'3'..=b'6', b'8', b'6'] => &[(Word::W32, EM_386), (Word::W64, EM_386)],
            // The dump of a Xen host: makedumpfile -X does not look at dom0's kernel.
            b"" => &[(Word::W64, EM_X86_64), (Word::W32, EM_386)],
            other => {
                let found = String::from_utf8_lossy(other).escape_debug().to_string();
                return Err(file.format_error(MACHINE as u64, "a machine of x86", found));
            }
        };
        for (word, machine_type) in likely {
            if let Some(header) = Self::parse(storage, &bytes, *word, *machine_type) {
                return Ok(header);
            }
        }
        let expected = format!("a header with block_size {PAGE_SIZE} and a bitmap of all pages");
        Err(file.format_error(UTSNAME_END as u64, expected, "neither, with 32 or 64 bits"))
    }

    /// `None` if the bytes make no sense in this layout.
    fn parse(
        storage: &impl Storage,
        bytes: &[u8; HEADER],
        word: Word,
        machine_type: u16,
    ) -> Option<Self> {
        // A struct timeval follows the utsname, aligned to a word.
        let size = word.bytes();
        let status = UTSNAME_END.next_multiple_of(size) + 2 * size;
        let mut fields = Fields {
            bytes,
            word,
            at: status,
        };
        let status = fields.u32();
        let [block_size, sub_blocks, bitmap_blocks, max_mapnr] =
            std::array::from_fn(|_| u64::from(fields.u32()));
        // Both are positive ints.
        if block_size != PAGE_SIZE as u64 || sub_blocks > i32::MAX as u64 || bitmap_blocks == 0 {
            return None;
        }
        let bitmaps = Region {
            offset: (1 + sub_blocks) * block_size,
            size: bitmap_blocks * block_size,
        };
        let mut versions = Fields {
            bytes,
            word,
            at: VERSION,
        };
        let version = versions.u32() as i32;
        let is_diskdump = bytes.starts_with(b"DISKDUMP");
        let incomplete = if is_diskdump {
            DISKDUMP_INCOMPLETE
        } else {
            INCOMPLETE
        };
        let mut header = Self {
            is_diskdump,
            word,
            machine_type,
            version,
            is_incomplete: status & incomplete != 0,
            bitmaps,
            max_mapnr,
            level: None,
            split: None,
            vmcoreinfo: Region::default(),
            notes: Region::default(),
            eraseinfo: Region::default(),
            identity: Vec::new(),
        };
        if version < 0 {
            return None;
        }
        // The block after diskdump's header has registers.
        if !is_diskdump && version >= 1 {
            header.read_sub_header(storage, version.min(LAST_VERSION));
        }
        header.max_mapnr = header.max_mapnr.min(MAX_KDUMP_PAGES);
        if header.max_mapnr > bitmaps.size.saturating_mul(8) {
            return None;
        }
        // The name of the machine, the time, and the sizes; not the counts and flags of one file.
        header
            .identity
            .extend(bytes.get(..UTSNAME_END).unwrap_or_default());
        for number in [block_size, sub_blocks, bitmap_blocks, header.max_mapnr] {
            header.identity.extend(number.to_le_bytes());
        }
        let text = storage.copy(
            header.vmcoreinfo.offset,
            header.vmcoreinfo.size.min(1 << 16),
        );
        header.identity.extend(text.unwrap_or_default());
        Some(header)
    }

    fn read_sub_header(&mut self, storage: &impl Storage, version: i32) {
        let mut bytes = [0; HEADER];
        let at = PAGE_SIZE as u64;
        let held = storage.held(at, HEADER as u64) as usize;
        let part = bytes.get_mut(..held).unwrap_or_default();
        if storage.read_at(at, part).is_err() {
            return;
        }
        let mut fields = Fields {
            bytes: &bytes,
            word: self.word,
            at: 0,
        };
        let _phys_base = fields.long();
        self.level = Some(fields.u32() as i32);
        let is_split = fields.u32() != 0 && version >= 2;
        let mut range = (fields.long(), fields.long());
        let [vmcoreinfo, notes, eraseinfo] = std::array::from_fn(|_| fields.region());
        let [start, end, max_mapnr] = std::array::from_fn(|_| fields.u64());
        if version >= 3 {
            self.vmcoreinfo = vmcoreinfo;
        }
        if version >= 4 {
            self.notes = notes;
        }
        if version >= 5 {
            self.eraseinfo = eraseinfo;
        }
        if version >= 6 {
            range = (start, end);
            if max_mapnr != 0 {
                self.max_mapnr = max_mapnr;
            }
        }
        self.split = is_split.then_some(range);
    }

    /// Whether its version is newer than this module.
    pub fn is_newer(&self) -> bool {
        !self.is_diskdump && self.version > LAST_VERSION
    }
}
