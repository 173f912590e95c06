//! Layouts of the tables that map a translated guest's memory, as data.
//!
//! Xen keeps such a guest's P2M in page tables: the ones that the processor walks (NPT on AMD, EPT on
//! Intel), or for shadow paging a table of its own with the layout of NPT. An entry that maps a page
//! also has Xen's type of the page, in bits that the processor ignores. A "virtual address" of these
//! layouts is a guest-physical one.

use super::format::{large, level, table, ADDRESS, PRESENT, SMALL};
use super::{Format, Level, Page};
/// Lowest bit of Xen's type in an entry. Since Xen 4.2 (d5688e96d6); before, it was bit 9 in the
/// layout of NPT.
const TYPE_SHIFT: u32 = 52;

/// Xen's type of a page (`p2m_type_t`). Numbers were only ever added from 4.2 to 4.21; 15 was called
/// `p2m_mmio_write_dm` in 4.6 and 4.7 (renamed in cb34624af5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum P2mType {
    /// Memory of the guest.
    RamRw = 0,
    /// Nothing.
    Invalid = 1,
    /// Memory that is read-only while writes are logged.
    RamLogdirty = 2,
    /// Read-only memory.
    RamRo = 3,
    /// Emulated by the device model.
    MmioDm = 4,
    /// A frame of a device.
    MmioDirect = 5,
    /// A place for memory that is allocated when it is used.
    PopulateOnDemand = 6,
    /// Another domain's page, by a grant.
    GrantMapRw = 7,
    /// The same, read-only.
    GrantMapRo = 8,
    /// Memory that is about to be paged out; the frame still has its content.
    RamPagingOut = 9,
    /// Memory that is paged out.
    RamPaged = 10,
    /// Memory that is about to be paged in.
    RamPagingIn = 11,
    /// Memory shared with other domains until it is written.
    RamShared = 12,
    /// A frame that failed in hardware.
    RamBroken = 13,
    /// Another domain's page. Since Xen 4.5 (243cebb3df).
    MapForeign = 14,
    /// Memory whose writes an I/O emulator handles.
    IoreqServer = 15,
}

impl P2mType {
    const ALL: [P2mType; 16] = [
        P2mType::RamRw,
        P2mType::Invalid,
        P2mType::RamLogdirty,
        P2mType::RamRo,
        P2mType::MmioDm,
        P2mType::MmioDirect,
        P2mType::PopulateOnDemand,
        P2mType::GrantMapRw,
        P2mType::GrantMapRo,
        P2mType::RamPagingOut,
        P2mType::RamPaged,
        P2mType::RamPagingIn,
        P2mType::RamShared,
        P2mType::RamBroken,
        P2mType::MapForeign,
        P2mType::IoreqServer,
    ];

    /// Xen's name for it, without the prefix `p2m_`.
    pub const fn name(self) -> &'static str {
        match self {
            P2mType::RamRw => "ram_rw",
            P2mType::Invalid => "invalid",
            P2mType::RamLogdirty => "ram_logdirty",
            P2mType::RamRo => "ram_ro",
            P2mType::MmioDm => "mmio_dm",
            P2mType::MmioDirect => "mmio_direct",
            P2mType::PopulateOnDemand => "populate_on_demand",
            P2mType::GrantMapRw => "grant_map_rw",
            P2mType::GrantMapRo => "grant_map_ro",
            P2mType::RamPagingOut => "ram_paging_out",
            P2mType::RamPaged => "ram_paged",
            P2mType::RamPagingIn => "ram_paging_in",
            P2mType::RamShared => "ram_shared",
            P2mType::RamBroken => "ram_broken",
            P2mType::MapForeign => "map_foreign",
            P2mType::IoreqServer => "ioreq_server",
        }
    }
}

/// The layout of the tables of a translated guest's P2M.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedFormat {
    /// The tables.
    pub format: Format,
    /// Width of the type in bits.
    type_bits: u32,
    /// Whether an entry of the last level maps a page even if the processor may not use it: Xen
    /// clears all permissions of a page in EPT to intercept accesses (mem_access).
    pub maps_without_permissions: bool,
}

/// An entry of a large page in EPT: no bit below the address is PAT.
const fn ept_large(shift: u32) -> Page {
    Page {
        reserved: ((1 << shift) - 1) & ADDRESS,
        ..large(shift)
    }
}

const fn npt(name: &'static str, width: u32, levels: &'static [Level]) -> NestedFormat {
    NestedFormat {
        format: table(name, width, PRESENT, levels),
        type_bits: 7,
        maps_without_permissions: false,
    }
}

const fn ept(name: &'static str, width: u32, levels: &'static [Level]) -> NestedFormat {
    NestedFormat {
        // Present if it can be read, written or executed.
        format: table(name, width, 7, levels),
        type_bits: 6,
        maps_without_permissions: true,
    }
}

/// AMD's nested page tables, and the P2M of shadow paging.
pub static NPT: NestedFormat = npt(
    "npt",
    48,
    &[
        level(4, None),
        level(3, Some(large(30))),
        level(2, Some(large(21))),
        level(1, Some(SMALL)),
    ],
);

/// The same with five levels.
pub static NPT_5: NestedFormat = npt(
    "npt-5",
    57,
    &[
        level(5, None),
        level(4, None),
        level(3, Some(large(30))),
        level(2, Some(large(21))),
        level(1, Some(SMALL)),
    ],
);

/// Intel's extended page tables.
///
/// The processor reserves bits 3 to 7 of an entry that points to a table. Xen puts an invalid memory
/// type into bits 3 to 5 to be notified of accesses (`ept_invalidate_emt`), so only bit 7 is checked.
pub static EPT: NestedFormat = ept(
    "ept",
    48,
    &[
        level(4, None),
        level(3, Some(ept_large(30))),
        level(2, Some(ept_large(21))),
        level(1, Some(SMALL)),
    ],
);

/// The same with five levels.
pub static EPT_5: NestedFormat = ept(
    "ept-5",
    57,
    &[
        level(5, None),
        level(4, None),
        level(3, Some(ept_large(30))),
        level(2, Some(ept_large(21))),
        level(1, Some(SMALL)),
    ],
);

impl NestedFormat {
    /// All layouts.
    pub const ALL: [&'static NestedFormat; 4] = [&NPT, &NPT_5, &EPT, &EPT_5];

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.format.name
    }

    /// The layout of this name.
    pub fn by_name(name: &str) -> Option<&'static NestedFormat> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Whether the processor uses an entry.
    pub const fn is_present(&self, entry: u64) -> bool {
        entry & self.format.present != 0
    }

    /// Xen's type of the page in an entry; `None` if Xen has no such type.
    pub fn page_type(&self, entry: u64) -> Option<P2mType> {
        let number = (entry >> TYPE_SHIFT) & ((1 << self.type_bits) - 1);
        let number = usize::try_from(number).ok()?;
        P2mType::ALL.get(number).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Word::W64;

    #[test]
    fn numbers_are_positions() {
        for (number, kind) in P2mType::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn levels_cover_the_address() {
        for nested in NestedFormat::ALL {
            let mut top = nested.format.width;
            for level in nested.format.levels {
                assert_eq!(level.shift + level.bits, top, "{}", nested.name());
                top = level.shift;
            }
            assert_eq!((top, nested.format.entry), (12, W64));
            assert_eq!(NestedFormat::by_name(nested.name()), Some(nested));
        }
    }

    /// The fields of `l1_pgentry_t` and `ept_entry_t`.
    #[test]
    fn types_are_in_the_software_bits() {
        assert_eq!(
            NPT.page_type(0x00c0_0000_0000_0001),
            Some(P2mType::RamShared)
        );
        assert_eq!(NPT.page_type(0x8000_0000_0000_0067), Some(P2mType::RamRw));
        assert_eq!(NPT.page_type(0x0400_0000_0000_0001), None);
        // Bit 58 and above are the access type.
        assert_eq!(
            EPT.page_type(0x7c70_0000_0000_0007),
            Some(P2mType::GrantMapRw)
        );
        assert_eq!(EPT.page_type(0x8000_0000_0000_0007), Some(P2mType::RamRw));
        assert!(EPT.is_present(4) && !EPT.is_present(0xff8));
        assert!(NPT.is_present(1) && !NPT.is_present(0xffe));
    }
}
