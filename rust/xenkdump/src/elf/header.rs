//! The ELF file header, and the tables it points to.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{EI_CLASS, EI_DATA, ELFCLASS32, ELFCLASS64, ELFDATA2LSB, ELFMAG};
use goblin::elf::program_header::ProgramHeader;
use goblin::elf::section_header::{SectionHeader, SHN_XINDEX};
use scroll::Pread;

use super::Malformed;
use crate::addr::Word;
use crate::file::Storage;

/// The value of `e_phnum` if the number of program headers does not fit in 16 bits. The number is then
/// in `sh_info` of section header 0.
const PN_XNUM: u16 = 0xffff;

/// Size of the largest struct read here: an ELF64 file or section header.
const MAX_STRUCT: usize = 64;

/// The bytes of an ELF file.
pub trait Source {
    /// Reads into `buf` at `offset`. Returns the bytes read: fewer than `buf.len()` at the end of the
    /// file.
    fn part<'b>(&self, offset: u64, buf: &'b mut [u8]) -> &'b [u8];
}

impl Source for [u8] {
    fn part<'b>(&self, offset: u64, buf: &'b mut [u8]) -> &'b [u8] {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .unwrap_or_default();
        let len = rest.len().min(buf.len());
        let (part, _) = buf.split_at_mut(len);
        part.copy_from_slice(&rest[..len]);
        part
    }
}

impl Source for Vec<u8> {
    fn part<'b>(&self, offset: u64, buf: &'b mut [u8]) -> &'b [u8] {
        self.as_slice().part(offset, buf)
    }
}

impl<S: Storage> Source for S {
    fn part<'b>(&self, offset: u64, buf: &'b mut [u8]) -> &'b [u8] {
        let len = self.held(offset, buf.len() as u64) as usize;
        let (part, _) = buf.split_at_mut(len);
        match self.read_at(offset, part) {
            Ok(()) => part,
            Err(_) => &[],
        }
    }
}

/// The header of a little-endian ELF file, with extended numbering (`PN_XNUM`, `e_shnum` 0,
/// `SHN_XINDEX`) resolved.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// 32 or 64 bits.
    pub word: Word,
    /// `e_type`.
    pub kind: u16,
    /// `e_machine`.
    pub machine: u16,
    /// Number of program headers that the file claims; see [`Header::program_headers`].
    pub phnum: u64,
    /// Number of section headers that the file claims; see [`Header::section_headers`].
    pub shnum: u64,
    /// Index of the section with the section names; 0 if there is none.
    pub shstrndx: u64,
    phoff: u64,
    phentsize: u64,
    shoff: u64,
    shentsize: u64,
}

impl Header {
    /// Parses the header at the start of `file`.
    pub fn parse(file: &(impl Source + ?Sized)) -> Result<Self, Malformed> {
        let mut start = [0; MAX_STRUCT];
        let start = file.part(0, &mut start);
        let ident = |i: usize| start.get(i).copied();
        if !start.starts_with(ELFMAG) {
            return Err(Malformed::new(0, "an ELF file (7f 45 4c 46)", hex(start)));
        }
        let word = match ident(EI_CLASS) {
            Some(ELFCLASS32) => Word::W32,
            Some(ELFCLASS64) => Word::W64,
            other => {
                return Err(Malformed::new(
                    EI_CLASS as u64,
                    "ELFCLASS32 or ELFCLASS64",
                    or_end(other),
                ))
            }
        };
        if ident(EI_DATA) != Some(ELFDATA2LSB) {
            return Err(Malformed::new(
                EI_DATA as u64,
                "ELFDATA2LSB (little-endian)",
                or_end(ident(EI_DATA)),
            ));
        }
        let raw = start
            .pread_with::<goblin::elf::Header>(0, Endian::Little)
            .map_err(|error| Malformed::new(0, "an ELF header", error.to_string()))?;

        let mut header = Self {
            word,
            kind: raw.e_type,
            machine: raw.e_machine,
            phnum: raw.e_phnum.into(),
            shnum: raw.e_shnum.into(),
            shstrndx: raw.e_shstrndx.into(),
            phoff: raw.e_phoff,
            phentsize: raw.e_phentsize.into(),
            shoff: raw.e_shoff,
            shentsize: raw.e_shentsize.into(),
        };
        let (ph, sh) = (
            ProgramHeader::size(header.ctx()) as u64,
            SectionHeader::size(header.ctx()) as u64,
        );
        if header.phnum > 0 && header.phentsize < ph {
            return Err(Malformed::new(
                if word == Word::W64 { 54 } else { 42 },
                format!("e_phentsize of at least {ph}"),
                header.phentsize.to_string(),
            ));
        }
        // Extended numbering needs section header 0.
        let usable = header.shoff != 0 && header.shentsize >= sh;
        let first = usable.then(|| at::<SectionHeader, _>(file, header.shoff, header.ctx()));
        let first = first.flatten();
        if raw.e_phnum == PN_XNUM {
            header.phnum = first
                .as_ref()
                .map(|first| first.sh_info.into())
                .ok_or_else(|| {
                    Malformed::new(
                        header.shoff,
                        "section header 0, which counts the program headers (PN_XNUM)",
                        "none",
                    )
                })?;
        }
        if !usable {
            // Without an offset there is no table, whatever the count says.
            header.shnum = 0;
            header.shstrndx = 0;
            return Ok(header);
        }
        if let Some(first) = first {
            if raw.e_shnum == 0 {
                header.shnum = first.sh_size;
            }
            if u32::from(raw.e_shstrndx) == SHN_XINDEX {
                header.shstrndx = first.sh_link.into();
            }
        }
        Ok(header)
    }

    /// The program headers in `file`: fewer than `phnum` if it is truncated.
    pub fn program_headers<'a, S: Source + ?Sized>(
        &self,
        file: &'a S,
    ) -> impl Iterator<Item = ProgramHeader> + use<'a, S> {
        table(file, self.phoff, self.phentsize, self.phnum, self.ctx())
    }

    /// Upper limit on the program headers in a file of `len` bytes.
    pub fn max_program_headers(&self, len: u64) -> u64 {
        len.saturating_sub(self.phoff) / self.phentsize.max(1)
    }

    /// Fails if there is a section header table that cannot be used.
    pub fn check_sections(&self) -> Result<(), Malformed> {
        let size = SectionHeader::size(self.ctx()) as u64;
        if self.shoff != 0 && self.shentsize < size {
            return Err(Malformed::new(
                if self.word == Word::W64 { 58 } else { 46 },
                format!("e_shentsize of at least {size}"),
                self.shentsize.to_string(),
            ));
        }
        Ok(())
    }

    /// The section header at `index`.
    pub fn section_header<S: Source + ?Sized>(
        &self,
        file: &S,
        index: u64,
    ) -> Option<SectionHeader> {
        if index >= self.shnum {
            return None;
        }
        let offset = index.checked_mul(self.shentsize)?.checked_add(self.shoff)?;
        at(file, offset, self.ctx())
    }

    /// The section headers in `file`: fewer than `shnum` if it is truncated.
    pub fn section_headers<'a, S: Source + ?Sized>(
        &self,
        file: &'a S,
    ) -> impl Iterator<Item = SectionHeader> + use<'a, S> {
        table(file, self.shoff, self.shentsize, self.shnum, self.ctx())
    }

    /// The context for goblin's decoders.
    pub fn ctx(&self) -> Ctx {
        let container = match self.word {
            Word::W32 => Container::Little,
            Word::W64 => Container::Big,
        };
        Ctx::new(container, Endian::Little)
    }
}

pub(crate) fn hex(start: &[u8]) -> String {
    if start.is_empty() {
        return "an empty file".into();
    }
    let bytes = start.iter().take(4).map(|byte| format!("{byte:02x}"));
    bytes.collect::<Vec<_>>().join(" ")
}

fn or_end(byte: Option<u8>) -> String {
    byte.map_or_else(|| "the end of the file".into(), |byte| byte.to_string())
}

/// The entries of a table, up to `count` or the end of the file.
fn table<'a, T, S>(
    file: &'a S,
    start: u64,
    stride: u64,
    count: u64,
    ctx: Ctx,
) -> impl Iterator<Item = T> + use<'a, T, S>
where
    T: for<'b> scroll::ctx::TryFromCtx<'b, Ctx, Error = goblin::error::Error>,
    S: Source + ?Sized,
{
    (0..count).map_while(move |i| {
        let offset = start.checked_add(i.checked_mul(stride)?)?;
        at(file, offset, ctx)
    })
}

/// The struct at `offset`.
pub(crate) fn at<T, S>(file: &S, offset: u64, ctx: Ctx) -> Option<T>
where
    T: for<'b> scroll::ctx::TryFromCtx<'b, Ctx, Error = goblin::error::Error>,
    S: Source + ?Sized,
{
    let mut bytes = [0; MAX_STRUCT];
    file.part(offset, &mut bytes).pread_with(0, ctx).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF64 header with its tables directly after it.
    fn elf64(phnum: u16, shnum: u16, shstrndx: u16, first: [u64; 3]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16] = 4;
        file[18] = 62;
        file[32..40].copy_from_slice(&128_u64.to_le_bytes());
        file[40..48].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&phnum.to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&shnum.to_le_bytes());
        file[62..64].copy_from_slice(&shstrndx.to_le_bytes());
        let [size, link, info] = first;
        let mut section = vec![0; 64];
        section[32..40].copy_from_slice(&size.to_le_bytes());
        section[40..44].copy_from_slice(&(link as u32).to_le_bytes());
        section[44..48].copy_from_slice(&(info as u32).to_le_bytes());
        file.extend(section);
        file
    }

    #[test]
    fn extended_numbering_is_looked_up_in_section_header_0() {
        let file = elf64(0xffff, 0, 0xffff, [70_000, 69_999, 80_000]);
        let header = Header::parse(&file).unwrap();
        assert_eq!(
            (header.phnum, header.shnum, header.shstrndx),
            (80_000, 70_000, 69_999)
        );
        // The file holds one section header and no program header.
        assert_eq!(header.section_headers(&file).count(), 1);
        assert_eq!(header.program_headers(&file).count(), 0);
    }

    #[test]
    fn counts_beyond_the_file_are_ignored() {
        let file = elf64(0xffff, 0, 1, [u64::MAX, 0, 0xffff_ffff]);
        let header = Header::parse(&file).unwrap();
        assert_eq!(header.shnum, u64::MAX);
        assert_eq!(header.section_headers(&file).count(), 1);
    }

    #[test]
    fn files_other_than_little_endian_elf_are_rejected() {
        let parse = |file: &[u8]| Header::parse(file).unwrap_err();
        assert_eq!(parse(b"").offset, 0);
        assert_eq!(parse(b"").found, "an empty file");
        assert_eq!(parse(b"KDUMP   ").found, "4b 44 55 4d");
        assert_eq!(parse(b"\x7fELF").found, "the end of the file");
        assert_eq!(parse(b"\x7fELF\x03\x01").offset, 4);
        assert_eq!(parse(b"\x7fELF\x02\x02").offset, 5);
        assert_eq!(parse(b"\x7fELF\x02\x01\x01").offset, 0);
        let mut file = elf64(1, 1, 0, [0; 3]);
        file[54] = 32;
        assert_eq!(parse(&file).offset, 54);
    }

    #[test]
    fn invalid_section_headers_of_a_core_file_are_ignored() {
        let mut file = elf64(1, 1, 0, [0; 3]);
        file[58] = 32;
        let header = Header::parse(&file).unwrap();
        assert_eq!((header.phnum, header.shnum), (1, 0));
        assert!(header.section_header(&file, 0).is_none());
        assert_eq!(header.check_sections().unwrap_err().offset, 58);
        // But PN_XNUM needs section header 0.
        file[56..58].fill(0xff);
        assert_eq!(Header::parse(&file).unwrap_err().offset, 64);
    }
}
