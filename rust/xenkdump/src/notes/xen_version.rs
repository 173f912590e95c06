//! XEN_ELFNOTE_DUMPCORE_XEN_VERSION: the Xen under which a domain's memory was dumped.

use crate::addr::{VirtAddr, Word};

/// `struct xen_dumpcore_elfnote_xen_version_desc` (Xen's `public/elfnote.h`, `public/version.h`),
/// unchanged since Xen 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XenVersion<'a> {
    /// `major_version`, `minor_version`.
    pub version: (u64, u64),
    /// The strings named in [`XEN_VERSION_STRINGS`], up to the first NUL.
    pub strings: [&'a [u8]; 7],
    /// `platform_parameters.virt_start`: start of Xen's part of the address space.
    pub virt_start: VirtAddr,
    /// `pagesize`.
    pub page_size: u64,
}

/// Names of [`XenVersion::strings`], in order.
pub const XEN_VERSION_STRINGS: [&str; 7] = [
    "xen_extra_version",
    "xen_compiler",
    "xen_compile_by",
    "xen_compile_domain",
    "xen_compile_date",
    "xen_capabilities",
    "xen_changeset",
];

/// Sizes of the arrays of the strings.
const SIZES: [usize; 7] = [16, 64, 16, 32, 32, 1024, 64];

impl<'a> XenVersion<'a> {
    /// Decodes the descriptor; `None` if its size is unknown.
    pub(super) fn parse(desc: &'a [u8]) -> Option<Self> {
        // A 32-bit toolstack has a virt_start of 4 bytes and aligns u64 to 4 bytes.
        let word = match desc.len() {
            1276 => Word::W32,
            1280 => Word::W64,
            _ => return None,
        };
        let number = |at: usize| Word::W64.get(desc.get(at..)?);
        let mut at = 16;
        let mut strings: [&[u8]; 7] = [&[]; 7];
        for (string, size) in strings.iter_mut().zip(SIZES) {
            let array = desc.get(at..at + size)?;
            *string = array.split(|byte| *byte == 0).next()?;
            at += size;
        }
        Some(Self {
            version: (number(0)?, number(8)?),
            strings,
            virt_start: VirtAddr(word.get(desc.get(at..)?)?),
            page_size: number(at + word.bytes())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolstacks_of_both_word_sizes() {
        for (size, start) in [(1280, 0xffff_8000_0000_0000), (1276, 0xf580_0000)] {
            let word = if size == 1280 { 8 } else { 4 };
            let mut desc = vec![0; size];
            desc[0] = 4;
            desc[8] = 17;
            desc[16..18].copy_from_slice(b".7");
            desc[32..35].copy_from_slice(b"gcc");
            // A full array has no NUL.
            desc[1200..1264].fill(b'c');
            desc[1264..1264 + word].copy_from_slice(&u64::to_le_bytes(start)[..word]);
            desc[1264 + word..].copy_from_slice(&4096_u64.to_le_bytes());
            let found = XenVersion::parse(&desc).unwrap();
            assert_eq!(found.version, (4, 17));
            assert_eq!(found.strings[0], b".7");
            assert_eq!(found.strings[1], b"gcc");
            assert_eq!(found.strings[5], b"");
            assert_eq!(found.strings[6], [b'c'; 64]);
            assert_eq!(found.virt_start, VirtAddr(start));
            assert_eq!(found.page_size, 4096);
            assert_eq!(XenVersion::parse(&desc[1..]), None);
        }
    }
}
