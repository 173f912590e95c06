//! The formats of ORC rows.

use std::fmt;

/// Size of a row of `.orc_unwind`, in every version so far.
pub(in crate::unwind) const ENTRY_SIZE: usize = 6;

/// A row as it is stored.
pub(in crate::unwind) type Row = [u8; ENTRY_SIZE];

/// The numbers of the base registers in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrcNumbering {
    /// ORC's own numbers, from Linux 4.14 to 7.0.
    V4_14,
    /// Linux 7.1: a new order.
    V7_1,
}

impl OrcNumbering {
    const fn registers(self) -> &'static [OrcReg] {
        use OrcReg::{Ax, Bp, BpIndirect, Di, Dx, PrevSp, Sp, SpIndirect, Undefined, R10, R13};
        match self {
            // Some stable trees added the last one.
            Self::V4_14 => &[
                Undefined, PrevSp, Dx, Di, Bp, Sp, R10, R13, BpIndirect, SpIndirect, Ax,
            ],
            Self::V7_1 => &[
                Undefined, Ax, Dx, Sp, Bp, Di, R10, R13, PrevSp, SpIndirect, BpIndirect,
            ],
        }
    }

    fn decode(self, raw: u16) -> Option<OrcReg> {
        self.registers().get(usize::from(raw)).copied()
    }

    fn of_release(release: Release) -> Self {
        if release.is_none_or(|release| release >= (7, 1, 0)) {
            Self::V7_1
        } else {
            Self::V4_14
        }
    }
}

/// The version of a Linux release, if known.
type Release = Option<(u32, u32, u32)>;

/// The format of the flags in a row of `.orc_unwind`.
///
/// A row has two `i16`, the offsets of the stack pointer and of the frame pointer, and a `u16`: 4 bits
/// for the base register of each, then the bits described here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrcFormat {
    /// The numbers of the base registers.
    pub numbering: OrcNumbering,
    /// Bits of the type field, from bit 8 on: 2, or 3 in the versions that have a type for
    /// "undefined" and one for "end of stack".
    pub type_bits: u8,
    /// The bit that marks the end of the stack.
    pub end_bit: Option<u8>,
    /// The bit that marks an interrupted caller. Formats without it mark one by the types that restore
    /// saved registers.
    pub signal_bit: Option<u8>,
    /// Whether `SP_INDIRECT` reads the word at the stack pointer and then adds the offset; otherwise
    /// the offset is added first.
    pub indirect_then_offset: bool,
    /// Whether a row without a base register ends the stack, regardless of `end_bit`.
    pub undefined_is_end: bool,
}

impl OrcFormat {
    /// Linux 4.14 (ee9f8fce9964, "x86/unwind: Add the ORC unwinder") until the `end` bit.
    pub const V4_14: Self = Self {
        numbering: OrcNumbering::V4_14,
        type_bits: 2,
        end_bit: None,
        signal_bit: None,
        indirect_then_offset: false,
        undefined_is_end: true,
    };
    /// With the `end` bit: Linux 4.18 ("x86/unwind/orc: Detect the end of the stack"), and earlier
    /// kernels of distributions.
    pub const V4_18: Self = Self {
        end_bit: Some(10),
        undefined_is_end: false,
        ..Self::V4_14
    };
    /// Linux 5.12: 87ccc826bf1c ("x86/unwind/orc: Change REG_SP_INDIRECT").
    pub const V5_12: Self = Self {
        indirect_then_offset: true,
        ..Self::V4_18
    };
    /// Linux 6.3: ffb1b4a41016 ("x86/unwind/orc: Add 'signal' field to ORC metadata").
    pub const V6_3: Self = Self {
        end_bit: Some(11),
        signal_bit: Some(10),
        ..Self::V5_12
    };
    /// Linux 6.4: fb799447ae29 ("x86,objtool: Split UNWIND_HINT_EMPTY in two").
    pub const V6_4: Self = Self {
        type_bits: 3,
        end_bit: None,
        signal_bit: Some(11),
        ..Self::V5_12
    };
    /// Linux 7.1: the bits of 6.4, and other register numbers.
    pub const V7_1: Self = Self {
        numbering: OrcNumbering::V7_1,
        ..Self::V6_4
    };

    /// Every version, the newest first.
    const ALL: [Self; 6] = [
        Self::V7_1,
        Self::V6_4,
        Self::V6_3,
        Self::V5_12,
        Self::V4_18,
        Self::V4_14,
    ];

    /// The format of a kernel of this release; the newest where it is unknown.
    pub fn of_release(release: Release) -> Self {
        match release {
            // A distribution's kernel may have the `end` bit. In others it is always zero,
            // and a row without a base is the end.
            Some(release) if release < (4, 18, 0) => Self {
                undefined_is_end: true,
                ..Self::V4_18
            },
            Some(release) if release < (5, 12, 0) => Self::V4_18,
            Some(release) if release < (6, 3, 0) => Self::V5_12,
            Some(release) if release < (6, 4, 0) => Self::V6_3,
            Some(release) if release < (7, 1, 0) => Self::V6_4,
            _ => Self::V7_1,
        }
    }

    /// The format by the `.orc_header` section: a hash of the kernel's own description of a row,
    /// there since 6.4 and 6.3.10 (b9f174c811e3, "x86/unwind/orc: Add ELF section with ORC version
    /// identifier"). `None` for a hash of no known version.
    pub fn of_header(header: &[u8]) -> Option<Self> {
        const V6_3: [u8; 4] = [0xdb, 0x84, 0xae, 0xd4];
        const V6_4: [u8; 4] = [0xfe, 0x5d, 0x32, 0xbf];
        const V7_1: [u8; 4] = [0x13, 0x7c, 0x36, 0xad];
        match *header.first_chunk()? {
            V6_3 => Some(Self::V6_3),
            V6_4 => Some(Self::V6_4),
            V7_1 => Some(Self::V7_1),
            _ => None,
        }
    }

    /// The format by the bit fields of `struct orc_entry` in BTF or DWARF: the width of `type`, and
    /// the bit positions of `end` and `signal` in the `u16`, if they exist. What the fields do not
    /// determine is determined by the release.
    pub fn of_fields(
        type_bits: u8,
        end_bit: Option<u8>,
        signal_bit: Option<u8>,
        release: Release,
    ) -> Self {
        Self {
            // Types of two bits are older than the numbering of 7.1.
            numbering: match type_bits {
                3.. => OrcNumbering::of_release(release),
                _ => OrcNumbering::V4_14,
            },
            type_bits,
            end_bit,
            signal_bit,
            indirect_then_offset: signal_bit.is_some()
                || release.is_none_or(|release| release >= (5, 12, 0)),
            undefined_is_end: type_bits < 3 && end_bit.is_none(),
        }
    }

    /// The possible formats, most likely first: those of the kernel's bit fields (`fields`) and of its
    /// release, then every other version.
    pub(in crate::unwind) fn candidates(fields: Option<Self>, release: Release) -> Vec<Self> {
        let mut candidates = Vec::new();
        let other_numbering = |format: Self| Self {
            numbering: match format.numbering {
                OrcNumbering::V4_14 => OrcNumbering::V7_1,
                OrcNumbering::V7_1 => OrcNumbering::V4_14,
            },
            ..format
        };
        for format in fields
            .into_iter()
            .flat_map(|format| [format, other_numbering(format)])
            .chain([Self::of_release(release)])
            .chain(Self::ALL)
        {
            if !candidates.contains(&format) {
                candidates.push(format);
            }
        }
        candidates
    }

    /// Decodes a row.
    pub(in crate::unwind) fn decode(&self, row: Row) -> OrcEntry {
        let [s0, s1, b0, b1, f0, f1] = row;
        let flags = u16::from_le_bytes([f0, f1]);
        let bit =
            |bit: Option<u8>| bit.map(|bit| flags.checked_shr(bit.into()).unwrap_or(0) & 1 != 0);
        let sp_reg = self.numbering.decode(flags & 0xf);
        let raw = if self.type_bits >= 3 {
            (flags >> 8) & 7
        } else {
            ((flags >> 8) & 3) + 2
        };
        let end = bit(self.end_bit).unwrap_or(false);
        let kind = match raw {
            // Before Linux 6.4 the type of a row without a base has no meaning.
            _ if self.type_bits < 3 && sp_reg == Some(OrcReg::Undefined) => {
                if end || self.undefined_is_end {
                    OrcKind::EndOfStack
                } else {
                    OrcKind::Undefined
                }
            }
            1 => OrcKind::EndOfStack,
            2 => OrcKind::Call,
            3 => OrcKind::Regs,
            4 => OrcKind::RegsPartial,
            _ => OrcKind::Undefined,
        };
        OrcEntry {
            sp_offset: i16::from_le_bytes([s0, s1]),
            bp_offset: i16::from_le_bytes([b0, b1]),
            sp_reg,
            bp_reg: self.numbering.decode((flags >> 4) & 0xf),
            kind,
            signal: bit(self.signal_bit)
                .unwrap_or(matches!(kind, OrcKind::Regs | OrcKind::RegsPartial)),
        }
    }
}

impl fmt::Display for OrcFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = match (self.numbering, self.type_bits, self.signal_bit) {
            (OrcNumbering::V7_1, ..) => "7.1",
            (_, 3.., _) => "6.4",
            (_, _, Some(_)) => "6.3",
            _ if self.indirect_then_offset => "5.12",
            _ => "4.14",
        };
        write!(f, "that of Linux {since}")
    }
}

/// The base register of an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OrcReg {
    Undefined,
    PrevSp,
    Ax,
    Dx,
    Di,
    Bp,
    Sp,
    R10,
    R13,
    BpIndirect,
    SpIndirect,
}

/// What is at the address that a row yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrcKind {
    /// No data for this code.
    Undefined,
    /// The end of the stack.
    EndOfStack,
    /// The return address is in the word below.
    Call,
    /// A complete `pt_regs`.
    Regs,
    /// The part of a `pt_regs` that the processor saves.
    RegsPartial,
}

/// A row of `.orc_unwind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrcEntry {
    /// The offset of the caller's stack pointer from its base.
    pub sp_offset: i16,
    /// The offset of the saved frame pointer from its base.
    pub bp_offset: i16,
    /// The base of the caller's stack pointer; `None` for an invalid number.
    pub sp_reg: Option<OrcReg>,
    /// The base of the address where the caller's frame pointer is saved.
    pub bp_reg: Option<OrcReg>,
    /// What is at the caller's stack pointer.
    pub kind: OrcKind,
    /// The caller was interrupted: its pc is exact.
    pub signal: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(format: &OrcFormat, flags: u16) -> OrcEntry {
        let [f0, f1] = flags.to_le_bytes();
        format.decode([0x10, 0, 0xf0, 0xff, f0, f1])
    }

    #[test]
    fn versions_decode_their_bits_to_equal_entries() {
        // sp_reg SP, bp_reg PREV_SP, then: call, regs, partial regs; each in its version's bits.
        for (format, call, regs, partial) in [
            (OrcFormat::V4_14, 0x015, 0x115, 0x215),
            (OrcFormat::V4_18, 0x015, 0x115, 0x215),
            (OrcFormat::V5_12, 0x015, 0x115, 0x215),
            (OrcFormat::V6_3, 0x015, 0x515, 0x615),
            (OrcFormat::V6_4, 0x215, 0xb15, 0xc15),
            (OrcFormat::V7_1, 0x283, 0xb83, 0xc83),
        ] {
            for (raw, kind, signal) in [
                (call, OrcKind::Call, false),
                (regs, OrcKind::Regs, true),
                (partial, OrcKind::RegsPartial, true),
            ] {
                let entry = flags(&format, raw);
                assert_eq!((entry.kind, entry.signal), (kind, signal), "{format:?}");
                assert_eq!(entry.sp_reg, Some(OrcReg::Sp));
                assert_eq!(entry.bp_reg, Some(OrcReg::PrevSp));
                assert_eq!((entry.sp_offset, entry.bp_offset), (16, -16));
            }
        }
    }

    #[test]
    fn end_of_stack_differs_from_no_data_if_the_format_permits() {
        for (format, raw, kind) in [
            (OrcFormat::V4_14, 0x000, OrcKind::EndOfStack),
            (OrcFormat::V4_18, 0x000, OrcKind::Undefined),
            (OrcFormat::V4_18, 0x400, OrcKind::EndOfStack),
            (OrcFormat::V6_3, 0x000, OrcKind::Undefined),
            (OrcFormat::V6_3, 0x400, OrcKind::Undefined),
            (OrcFormat::V6_3, 0x800, OrcKind::EndOfStack),
            (OrcFormat::V6_4, 0x000, OrcKind::Undefined),
            (OrcFormat::V6_4, 0x100, OrcKind::EndOfStack),
        ] {
            assert_eq!(flags(&format, raw).kind, kind, "{format:?} {raw:#x}");
        }
        let early = OrcFormat::of_release(Some((4, 14, 300)));
        assert_eq!(flags(&early, 0x000).kind, OrcKind::EndOfStack);
        assert_eq!(flags(&early, 0x400).kind, OrcKind::EndOfStack);
    }

    #[test]
    fn fields_headers_and_releases_lead_to_the_same_formats() {
        let release = |major, minor| Some((major, minor, 0));
        assert_eq!(
            OrcFormat::of_fields(2, Some(10), None, release(6, 1)),
            OrcFormat::of_release(release(6, 1))
        );
        assert_eq!(
            OrcFormat::of_fields(2, Some(10), None, release(5, 10)),
            OrcFormat::of_release(release(5, 10))
        );
        assert_eq!(
            OrcFormat::of_fields(2, Some(11), Some(10), None),
            OrcFormat::V6_3
        );
        assert_eq!(
            OrcFormat::of_fields(3, None, Some(11), release(6, 12)),
            OrcFormat::of_release(release(6, 12))
        );
        assert_eq!(
            OrcFormat::of_header(b"\xfe\x5d\x32\xbf rest"),
            Some(OrcFormat::V6_4)
        );
        assert_eq!(
            OrcFormat::of_fields(3, None, Some(11), release(7, 1)),
            OrcFormat::of_release(None)
        );
        assert_eq!(
            OrcFormat::of_header(b"\x13\x7c\x36\xad rest"),
            Some(OrcFormat::V7_1)
        );
        assert_eq!(OrcFormat::of_header(&[0; 20]), None);
        assert_eq!(OrcFormat::of_header(&[]), None);
    }
}
