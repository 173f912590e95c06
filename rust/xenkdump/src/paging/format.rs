//! Page-table layouts of the x86 family, as data.

use crate::addr::{MachineAddr, VirtAddr, Word};

/// Bits 12 to 51: the address in an entry that points to a table or maps a 4 KiB page.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
pub(super) const PRESENT: u64 = 1 << 0;
/// PS: the entry maps a page, at levels where it may also point to a table.
const LARGE: u64 = 1 << 7;

/// Flags of a mapping, in the bit positions of an x86 entry.
///
/// The flags of a walk are writable and user if every level is, no-execute if any level is; the other
/// flags are those of the last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u64);

impl Flags {
    /// Present.
    pub const PRESENT: Flags = Flags(PRESENT);
    /// Writable.
    pub const WRITABLE: Flags = Flags(1 << 1);
    /// Accessible in user mode. A 64-bit PV kernel runs in ring 3: its own pages have this bit too.
    pub const USER: Flags = Flags(1 << 2);
    /// Write-through.
    pub const WRITE_THROUGH: Flags = Flags(1 << 3);
    /// Not cached.
    pub const CACHE_DISABLED: Flags = Flags(1 << 4);
    /// Accessed.
    pub const ACCESSED: Flags = Flags(1 << 5);
    /// Dirty.
    pub const DIRTY: Flags = Flags(1 << 6);
    /// Maps a large page. In entries of 4 KiB pages the same bit is PAT.
    pub const LARGE: Flags = Flags(LARGE);
    /// Global.
    pub const GLOBAL: Flags = Flags(1 << 8);
    /// PAT, always in bit 12, as in entries of large pages.
    pub const PAT: Flags = Flags(1 << 12);
    /// Not executable.
    pub const NO_EXECUTE: Flags = Flags(1 << 63);

    /// The bits that describe the mapping itself: without accessed, dirty and software bits.
    pub const ATTRIBUTES: Flags = Flags(
        PRESENT
            | Self::WRITABLE.0
            | Self::USER.0
            | Self::WRITE_THROUGH.0
            | Self::CACHE_DISABLED.0
            | LARGE
            | Self::GLOBAL.0
            | Self::PAT.0
            | Self::NO_EXECUTE.0,
    );

    const NAMES: [(Flags, &'static str); 11] = [
        (Self::PRESENT, "PRESENT"),
        (Self::WRITABLE, "RW"),
        (Self::USER, "USER"),
        (Self::WRITE_THROUGH, "PWT"),
        (Self::CACHE_DISABLED, "PCD"),
        (Self::ACCESSED, "ACCESSED"),
        (Self::DIRTY, "DIRTY"),
        (Self::LARGE, "PSE"),
        (Self::GLOBAL, "GLOBAL"),
        (Self::PAT, "PAT"),
        (Self::NO_EXECUTE, "NX"),
    ];

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits that are set in both.
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }

    /// Names of the set bits, lowest bit first, as in crash.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter_map(move |(flag, name)| self.contains(flag).then_some(name))
    }
}

/// How an entry of some level maps a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Entries always map a page; otherwise only if [`Flags::LARGE`] is set.
    pub always: bool,
    /// Address bits of the entry.
    pub address: u64,
    /// Bits that must be zero.
    pub reserved: u64,
    /// Further address bits: (mask, left shift). PSE-36 has some.
    pub high: (u64, u32),
}

/// One level of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// 1 for tables whose entries map 4 KiB pages, counting upwards.
    pub number: u8,
    /// Lowest bit of the index in the virtual address.
    pub shift: u32,
    /// Width of the index in bits.
    pub bits: u32,
    /// How an entry maps a page, if it may.
    pub page: Option<Page>,
    /// Bits that must be zero in an entry that points to a table.
    pub reserved: u64,
    /// Whether entries have permission bits.
    pub permissions: bool,
}

impl Level {
    /// The index of `addr` in a table of this level.
    pub const fn index(&self, addr: VirtAddr) -> u16 {
        // At most 10 bits wide.
        ((addr.0 >> self.shift) & ((1 << self.bits) - 1)) as u16
    }

    /// Number of entries of a table.
    pub const fn entries(&self) -> u16 {
        1 << self.bits
    }

    /// Bytes of address space that an entry covers.
    pub const fn span(&self) -> u64 {
        1 << self.shift
    }
}

/// What an entry points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nothing.
    Absent,
    /// Nothing, because reserved bits are set.
    Reserved,
    /// A page, by its address.
    Page(MachineAddr),
    /// A table of the next level.
    Table(MachineAddr),
}

/// A page-table layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its name in options and messages.
    pub name: &'static str,
    /// Size of an entry.
    pub entry: Word,
    /// Width of an address in bits.
    pub width: u32,
    /// Whether addresses are sign-extended above `width`; otherwise the upper bits are zero.
    pub sign_extended: bool,
    /// Address bits of cr3.
    pub root: u64,
    /// An entry is present if any of these bits is set.
    pub present: u64,
    /// The bit of an entry and of cr3 that marks encrypted memory (AMD SME), and is not part of the
    /// address; 0 if there is none. The processor reports its position, bit 47 or 51, and Linux
    /// records it in VMCOREINFO (4.19, 65f750e5457d).
    pub encryption_mask: u64,
    /// Levels, that of the root first.
    pub levels: &'static [Level],
}

pub(super) const SMALL: Page = Page {
    always: true,
    address: ADDRESS,
    reserved: 0,
    high: (0, 0),
};

pub(super) const fn large(shift: u32) -> Page {
    // Bit 12 is PAT; all bits between it and the address are reserved.
    Page {
        always: false,
        address: ADDRESS & !((1 << shift) - 1),
        reserved: ((1 << shift) - 1) & !0x1fff,
        high: (0, 0),
    }
}

pub(super) const fn level(number: u8, page: Option<Page>) -> Level {
    Level {
        number,
        shift: 12 + 9 * (number as u32 - 1),
        bits: 9,
        // PS is reserved at levels that cannot map a page.
        reserved: if page.is_none() { LARGE } else { 0 },
        page,
        permissions: true,
    }
}

/// Tables of 8-byte entries for addresses that are not sign-extended.
pub(super) const fn table(
    name: &'static str,
    width: u32,
    present: u64,
    levels: &'static [Level],
) -> Format {
    Format {
        name,
        entry: Word::W64,
        width,
        sign_extended: false,
        root: ADDRESS,
        present,
        encryption_mask: 0,
        levels,
    }
}

/// 32 bits, 4-byte entries: 10/10/12, with 4 MiB pages.
///
/// The entry of a 4 MiB page has address bits 32 to 39 in bits 13 to 20. Older processors have 36
/// address bits and reserve bits 17 to 20. Dumps do not record the processor; the 40-bit form reads
/// both.
pub static X86: Format = Format {
    name: "x86",
    entry: Word::W32,
    width: 32,
    sign_extended: false,
    root: ADDRESS,
    present: PRESENT,
    encryption_mask: 0,
    levels: &[
        Level {
            number: 2,
            shift: 22,
            bits: 10,
            page: Some(Page {
                always: false,
                address: 0xffc0_0000,
                reserved: 1 << 21,
                high: (0xff << 13, 19),
            }),
            reserved: 0,
            permissions: true,
        },
        Level {
            number: 1,
            shift: 12,
            bits: 10,
            page: Some(SMALL),
            reserved: 0,
            permissions: true,
        },
    ],
};

/// 32 bits, 8-byte entries: 2/9/9/12, with 2 MiB pages.
///
/// The table of four page-directory pointers is aligned to 32 bytes. The pointers have no permission
/// bits. Their other bits are ignored: QEMU without acceleration sets "accessed" in them, and 64-bit
/// Xen runs 32-bit guests with all flags set.
pub static X86_PAE: Format = Format {
    name: "x86-pae",
    entry: Word::W64,
    width: 32,
    sign_extended: false,
    root: 0x000f_ffff_ffff_ffe0,
    present: PRESENT,
    encryption_mask: 0,
    levels: &[
        Level {
            number: 3,
            shift: 30,
            bits: 2,
            page: None,
            reserved: 0,
            permissions: false,
        },
        level(2, Some(large(21))),
        level(1, Some(SMALL)),
    ],
};

/// 64 bits with 48-bit addresses: 9/9/9/9/12, with 2 MiB and 1 GiB pages.
pub static X86_64: Format = Format {
    name: "x86_64",
    entry: Word::W64,
    width: 48,
    sign_extended: true,
    root: ADDRESS,
    present: PRESENT,
    encryption_mask: 0,
    levels: &[
        level(4, None),
        level(3, Some(large(30))),
        level(2, Some(large(21))),
        level(1, Some(SMALL)),
    ],
};

/// 64 bits with 57-bit addresses (LA57): 9/9/9/9/9/12, with 2 MiB and 1 GiB pages.
pub static X86_64_LA57: Format = Format {
    name: "x86_64-la57",
    entry: Word::W64,
    width: 57,
    sign_extended: true,
    root: ADDRESS,
    present: PRESENT,
    encryption_mask: 0,
    levels: &[
        level(5, None),
        level(4, None),
        level(3, Some(large(30))),
        level(2, Some(large(21))),
        level(1, Some(SMALL)),
    ],
};

impl Format {
    /// All layouts.
    pub const ALL: [&'static Format; 4] = [&X86, &X86_PAE, &X86_64, &X86_64_LA57];

    /// The layout of this name.
    pub fn by_name(name: &str) -> Option<&'static Format> {
        Self::ALL.into_iter().find(|format| format.name == name)
    }

    /// This layout with an encryption bit; `None` if `mask` is not a single address bit above the
    /// low 4 GiB, or the layout has none.
    pub fn with_encryption(&self, mask: u64) -> Option<Format> {
        let is_possible = mask.is_power_of_two() && mask & ADDRESS != 0 && mask >> 32 != 0;
        (is_possible && self.entry == Word::W64).then_some(Format {
            encryption_mask: mask,
            ..*self
        })
    }

    /// The address of the root in a cr3, without flags and PCID.
    pub const fn root(&self, cr3: MachineAddr) -> MachineAddr {
        MachineAddr(cr3.0 & self.root & !self.encryption_mask)
    }

    /// Whether `addr` is an address of this layout.
    pub const fn is_canonical(&self, addr: VirtAddr) -> bool {
        self.canonical(addr.0).0 == addr.0
    }

    /// The canonical address with the low bits of `raw`.
    pub(super) const fn canonical(&self, raw: u64) -> VirtAddr {
        let unused = 64 - self.width;
        VirtAddr(if self.sign_extended {
            (((raw << unused) as i64) >> unused) as u64
        } else {
            (raw << unused) >> unused
        })
    }

    /// Address of an entry.
    pub(crate) const fn entry_addr(&self, table: MachineAddr, index: u16) -> MachineAddr {
        // Tables are below 2^52.
        MachineAddr(table.0 + index as u64 * self.entry.bytes() as u64)
    }

    /// What `entry` of a table of `level` points to.
    #[inline]
    pub(crate) const fn target(&self, level: &Level, entry: u64) -> Target {
        let entry = entry & !self.encryption_mask;
        if entry & self.present == 0 {
            return Target::Absent;
        }
        if let Some(page) = &level.page {
            if page.always || entry & LARGE != 0 {
                return if entry & page.reserved != 0 {
                    Target::Reserved
                } else {
                    let (mask, shift) = page.high;
                    Target::Page(MachineAddr(entry & page.address | (entry & mask) << shift))
                };
            }
        }
        if entry & level.reserved != 0 {
            Target::Reserved
        } else {
            Target::Table(MachineAddr(entry & ADDRESS))
        }
    }

    /// A present `entry` of a table of `level`, with another address; `None` if that does not fit.
    pub(crate) const fn redirect(
        &self,
        level: &Level,
        entry: u64,
        addr: MachineAddr,
    ) -> Option<u64> {
        let (mask, (high, shift)) = match &level.page {
            Some(page) if page.always || entry & LARGE != 0 => (page.address, page.high),
            _ => (ADDRESS, (0, 0)),
        };
        let mask = mask & self.entry.max();
        if addr.0 & !(mask | high << shift) != 0 {
            return None;
        }
        Some(entry & !(mask | high) | addr.0 & mask | (addr.0 >> shift) & high)
    }

    /// The flags of a mapping whose last entry is `entry`; `above` are the combined permissions of the
    /// levels above.
    pub(super) const fn flags(level: &Level, above: Flags, entry: u64) -> Flags {
        let mut bits = entry & (0xfff | Flags::NO_EXECUTE.0);
        let large = match level.page {
            Some(page) => !page.always,
            None => false,
        };
        if large {
            bits |= entry & Flags::PAT.0;
        } else {
            // Bit 7 of the entry of a 4 KiB page is PAT.
            bits = bits & !LARGE | (bits & LARGE) << 5;
        }
        Flags(bits & (above.0 | !Self::GRANTED) | above.0 & Flags::NO_EXECUTE.0)
    }

    /// The combined permissions of the levels down to `entry`.
    pub(super) const fn combine(level: &Level, above: Flags, entry: u64) -> Flags {
        if level.permissions {
            Flags(above.0 & entry & Self::GRANTED | (above.0 | entry) & Flags::NO_EXECUTE.0)
        } else {
            above
        }
    }

    /// Bits that are set only if they are at every level.
    const GRANTED: u64 = Flags::WRITABLE.0 | Flags::USER.0;
    /// The permissions above the root: everything is allowed.
    pub(super) const OPEN: Flags = Flags(Self::GRANTED);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The masks, as in the processor manuals.
    #[test]
    fn masks() {
        let page = |format: &Format, number| {
            let level = format.levels.iter().find(|l| l.number == number);
            level.and_then(|l| l.page).map(|p| (p.address, p.reserved))
        };
        assert_eq!(page(&X86_64, 1), Some((0x000f_ffff_ffff_f000, 0)));
        assert_eq!(page(&X86_64, 2), Some((0x000f_ffff_ffe0_0000, 0x001f_e000)));
        assert_eq!(page(&X86_64, 3), Some((0x000f_ffff_c000_0000, 0x3fff_e000)));
        assert_eq!(page(&X86_64, 4), None);
        assert_eq!(page(&X86_64_LA57, 5), None);
        assert_eq!(page(&X86_PAE, 2), page(&X86_64, 2));
        assert_eq!(page(&X86_PAE, 3), None);
        assert_eq!(page(&X86, 2), Some((0xffc0_0000, 0x0020_0000)));
    }

    #[test]
    fn levels_cover_the_address() {
        for format in Format::ALL {
            let mut top = format.width;
            for level in format.levels {
                assert_eq!(level.shift + level.bits, top, "{}", format.name);
                top = level.shift;
            }
            assert_eq!(top, 12, "{}", format.name);
            assert_eq!(Format::by_name(format.name), Some(format));
        }
    }

    #[test]
    fn canonical_addresses() {
        for (format, good, bad) in [
            (&X86_64, 0x0000_7fff_ffff_ffff, 0x0000_8000_0000_0000),
            (&X86_64, 0xffff_8000_0000_0000, 0xffff_7fff_ffff_ffff),
            (&X86_64_LA57, 0x00ff_ffff_ffff_ffff, 0x0100_0000_0000_0000),
            (&X86_64_LA57, 0xff00_0000_0000_0000, 0xfeff_ffff_ffff_ffff),
            (&X86, 0xffff_ffff, 0x1_0000_0000),
            (&X86_PAE, 0xffff_ffff, 0xffff_ffff_c000_0000),
        ] {
            assert!(format.is_canonical(VirtAddr(good)), "{good:#x}");
            assert!(!format.is_canonical(VirtAddr(bad)), "{bad:#x}");
        }
    }

    #[test]
    fn flag_names_are_in_bit_order() {
        let names: Vec<_> = Flags(0x8000_0000_0000_0163).names().collect();
        assert_eq!(
            names,
            ["PRESENT", "RW", "ACCESSED", "DIRTY", "GLOBAL", "NX"]
        );
    }
}
