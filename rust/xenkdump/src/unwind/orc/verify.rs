//! Verifies the format of an ORC table against the code that it describes.
//!
//! The layout of a frame can be derived from the instructions as well as from the rows. A wrong format
//! agrees with almost no function, the right one with almost all.

use std::fmt;

use crate::addr::{VirtAddr, Word};
use crate::limits::MAX_ORC_SAMPLE;
use crate::memory::Memory;
use crate::unwind::symbols::CodeSymbols;
use crate::unwind::x86::frame_layout::{CallerBp, FrameAnalyzer, FrameLayout};
use crate::unwind::x86::function_cache::{stack_budget, FunctionCache};

use super::format::{OrcEntry, OrcFormat, OrcKind, OrcReg, Row};
use super::table::OrcTable;

/// The minimum number of functions for a decision.
const MIN_FUNCTIONS: usize = 4;

/// Functions in the first sample. They suffice if at least this number have a frame and nearly all of these
/// agree; with a wrong format almost none does.
const FIRST_ORC_SAMPLE: usize = 24;
const MIN_CLEAR_FUNCTIONS: usize = 8;

/// What is known about the format of a table without its code.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrcDescription<'a> {
    /// The section `.orc_header`.
    pub header: Option<&'a [u8]>,
    /// The format that the types describe.
    pub fields: Option<OrcFormat>,
    /// The release of the kernel.
    pub release: Option<(u32, u32, u32)>,
    /// Whether there are other unwind tables to use in place of ORC.
    pub has_cfi: bool,
}

/// The format of a table if it is known, and a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrcVerdict {
    /// `None` if the tables must not be used.
    pub format: Option<OrcFormat>,
    /// Why the tables must not be used, or how an unexpected format was found.
    pub warning: Option<String>,
}

impl OrcVerdict {
    fn used(format: OrcFormat, warning: Option<String>) -> Self {
        Self {
            format: Some(format),
            warning,
        }
    }

    fn not_used(why: impl fmt::Display) -> Self {
        Self {
            format: None,
            warning: Some(format!("ORC is not used: {why}")),
        }
    }
}

impl OrcDescription<'_> {
    /// The format of `table`, whose code is in `memory`. Rows for which `counts` is false are not
    /// compared: their code may have been freed.
    pub fn verify(
        &self,
        table: &OrcTable,
        memory: &dyn Memory<VirtAddr>,
        symbols: &dyn CodeSymbols,
        counts: impl Fn(VirtAddr) -> bool,
    ) -> OrcVerdict {
        let known = self.header.and_then(OrcFormat::of_header);
        let candidates = match known {
            Some(format) => vec![format],
            None => OrcFormat::candidates(self.fields, self.release),
        };
        let collect = |sample| Evidence::collect(table, memory, symbols, &counts, sample);
        // A format that is not expected needs all the evidence there is.
        let is_expected = known.is_some() || self.header.is_none();
        let expected = candidates.first().filter(|_| is_expected);
        let evidence = expected
            .and_then(|format| Some(collect(FIRST_ORC_SAMPLE)).filter(|few| few.is_clear(format)))
            .unwrap_or_else(|| collect(MAX_ORC_SAMPLE));
        let total = evidence.functions.len();
        if total < MIN_FUNCTIONS {
            return self.unverified(known, candidates.first().copied());
        }
        let found = candidates
            .iter()
            .map(|format| (format, evidence.agreeing(format)))
            .find(|(_, agreeing)| agreeing * 2 > total);
        let Some((&format, agreeing)) = found else {
            return OrcVerdict::not_used(match known {
                Some(format) => format!(
                    "its format is {format}, but the code of {total} functions does not agree with it"
                ),
                None => format!("no known format agrees with the code of {total} functions"),
            });
        };
        let agrees =
            format!("{format}, which agrees with the code of {agreeing} of {total} functions");
        let warning = if known.is_some() {
            None
        } else if let Some(header) = self.header {
            let hash = header
                .iter()
                .take(4)
                .fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
            Some(format!(
                "the version of ORC, {hash}, is unknown; the format is taken to be {agrees}"
            ))
        } else if candidates.first() != Some(&format) {
            Some(format!(
                "the format of ORC is not that of the kernel's release; it is taken to be {agrees}"
            ))
        } else {
            None
        };
        OrcVerdict::used(format, warning)
    }

    fn unverified(&self, known: Option<OrcFormat>, likeliest: Option<OrcFormat>) -> OrcVerdict {
        const WHY: &str = "the code that would verify it is not in the dump";
        match (known, likeliest) {
            (Some(format), _) => OrcVerdict::used(format, None),
            (None, Some(format)) if self.header.is_none() && !self.has_cfi => OrcVerdict::used(
                format,
                Some(format!(
                    "the format of ORC is taken to be {format}, by the kernel's release: {WHY}"
                )),
            ),
            _ => OrcVerdict::not_used(format!("its format is unknown, and {WHY}")),
        }
    }
}

/// Rows of some functions, with the frame layouts at their instructions.
struct Evidence {
    functions: Vec<Vec<(Row, FrameLayout)>>,
}

impl Evidence {
    fn collect(
        table: &OrcTable,
        memory: &dyn Memory<VirtAddr>,
        symbols: &dyn CodeSymbols,
        counts: impl Fn(VirtAddr) -> bool,
        sample: usize,
    ) -> Self {
        let mut starts: Vec<VirtAddr> = table
            .spread(sample)
            .filter(|&pc| counts(pc))
            .filter_map(|pc| Some(symbols.function(pc)?.start))
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let (mut cache, budget) = (FunctionCache::default(), stack_budget());
        let mut frames = FrameAnalyzer::new(memory, symbols, Word::W64, &mut cache, &budget);
        let mut functions = Vec::new();
        for start in starts {
            let Some(layouts) = frames.of_function(start) else {
                continue;
            };
            let rows: Vec<_> = layouts
                .certain()
                .filter(|(_, layout)| layout.from_sp.is_some())
                .filter_map(|(pc, layout)| Some((table.find_row(pc)?, *layout)))
                .collect();
            // A function that pushes nothing has a single row, which proves little.
            if rows.iter().any(|(_, layout)| layout.from_sp != Some(0)) {
                functions.push(rows);
            }
        }
        Self { functions }
    }

    /// Whether these functions are enough, because all but a few agree with the likeliest format.
    fn is_clear(&self, format: &OrcFormat) -> bool {
        let total = self.functions.len();
        total >= MIN_CLEAR_FUNCTIONS && self.agreeing(format) * 10 >= total * 9
    }

    /// The number of functions whose rows, in this format, agree with 90% of their code.
    fn agreeing(&self, format: &OrcFormat) -> usize {
        let agrees = |rows: &&Vec<(Row, FrameLayout)>| {
            let same = rows
                .iter()
                .filter(|(row, layout)| is_equal(&format.decode(*row), layout));
            same.count() * 10 >= rows.len() * 9
        };
        self.functions.iter().filter(agrees).count()
    }
}

/// Whether a row has the same return address and caller's frame pointer as a layout.
fn is_equal(entry: &OrcEntry, layout: &FrameLayout) -> bool {
    // A row's offset leads to the caller's stack pointer, above the return address.
    let above = |distance: Option<i64>| distance == Some(i64::from(entry.sp_offset) - 8);
    let sp = match entry.sp_reg {
        Some(OrcReg::Sp) => above(layout.from_sp),
        Some(OrcReg::Bp) => above(layout.from_bp),
        _ => false,
    };
    let bp = match layout.caller_bp {
        CallerBp::Kept => entry.bp_reg == Some(OrcReg::Undefined),
        CallerBp::Pushed(below) => {
            entry.bp_reg == Some(OrcReg::PrevSp) && i64::from(entry.bp_offset) == -8 - below
        }
        CallerBp::Lost => true,
    };
    entry.kind == OrcKind::Call && sp && bp
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::testing::{Names, Ram};
    use std::sync::Arc;

    const TEXT: u64 = 0xffff_ffff_8100_0000;
    const IP: u64 = 0xffff_ffff_8200_0000;
    const COUNT: u64 = 16;
    const UNKNOWN: &[u8] = &[0xaa; 20];

    /// push %rbp; push %rbx; sub $0x10,%rsp; nop; add $0x10,%rsp; pop %rbx; pop %rbp; ret.
    const CODE: [u8; 14] = [
        0x55, 0x53, 0x48, 0x83, 0xec, 0x10, 0x90, 0x48, 0x83, 0xc4, 0x10, 0x5b, 0x5d, 0xc3,
    ];
    /// Offset of an instruction, the stack pointer's offset, whether the frame pointer is pushed.
    const ROWS: [(u64, i16, bool); 7] = [
        (0, 8, false),
        (1, 16, true),
        (2, 24, true),
        (6, 40, true),
        (11, 24, true),
        (12, 16, true),
        (13, 8, false),
    ];

    struct Kernel {
        ram: Ram,
        names: Names,
        table: OrcTable,
    }

    /// Functions with rows whose flags are `plain`, and `pushed` where the frame pointer is pushed.
    fn kernel(plain: u16, pushed: u16) -> Kernel {
        kernel_of(COUNT, plain, pushed)
    }

    fn kernel_of(count: u64, plain: u16, pushed: u16) -> Kernel {
        let mut ram = Ram::new(Word::W64);
        let (mut ip, mut rows, mut names) = (Vec::<u8>::new(), Vec::new(), Vec::new());
        ram.bytes(TEXT, &[0xcc; 0x1000]);
        for i in 0..count {
            let start = TEXT + i * 0x20;
            ram.bytes(start, &CODE);
            names.push((start, "f"));
            for (at, sp, is_pushed) in ROWS {
                let (bp, flags) = if is_pushed {
                    (-16_i16, pushed)
                } else {
                    (0, plain)
                };
                let distance = (start + at).wrapping_sub(IP + ip.len() as u64) as i32;
                ip.extend(distance.to_le_bytes());
                rows.extend(sp.to_le_bytes());
                rows.extend(bp.to_le_bytes());
                rows.extend(flags.to_le_bytes());
            }
        }
        names.push((TEXT + count * 0x20, ""));
        let range = (VirtAddr(TEXT), VirtAddr(TEXT + 0x1000));
        let format = OrcFormat::V4_14;
        Kernel {
            ram,
            names: Names(names),
            table: OrcTable::new(Arc::new(ip), VirtAddr(IP), Arc::new(rows), format, range),
        }
    }

    /// Rows as Linux 6.1, 6.4 and 7.1 have them.
    fn v6_1() -> Kernel {
        kernel(0x005, 0x015)
    }
    fn v6_4() -> Kernel {
        kernel(0x205, 0x215)
    }
    fn v7_1() -> Kernel {
        kernel(0x203, 0x283)
    }

    fn verify(kernel: &Kernel, description: OrcDescription<'_>) -> OrcVerdict {
        description.verify(&kernel.table, &kernel.ram, &kernel.names, |_| true)
    }

    fn unknown(release: (u32, u32, u32)) -> OrcDescription<'static> {
        OrcDescription {
            header: Some(UNKNOWN),
            release: Some(release),
            ..OrcDescription::default()
        }
    }

    #[test]
    fn an_unknown_version_is_identified_by_the_code() {
        for (kernel, format) in [
            (v6_1(), OrcFormat::V5_12),
            (v6_4(), OrcFormat::V6_4),
            (v7_1(), OrcFormat::V7_1),
        ] {
            for release in [(6, 1, 0), (6, 12, 0), (7, 0, 0), (7, 3, 4), (9, 0, 0)] {
                // Without types three versions read the rows of 6.1 the same way.
                let fields = (format == OrcFormat::V5_12).then_some(format);
                let found = verify(
                    &kernel,
                    OrcDescription {
                        fields,
                        ..unknown(release)
                    },
                );
                assert_eq!(found.format, Some(format), "{release:?}");
                let warning = found.warning.unwrap();
                assert!(warning.contains("aaaaaaaa, is unknown"), "{warning}");
                assert!(warning.contains("16 of 16 functions"), "{warning}");
            }
        }
    }

    #[test]
    fn bit_fields_do_not_decide_the_numbering() {
        // BTF describes the same bits before 7.1 and after.
        for release in [(7, 0, 0), (7, 3, 4)] {
            for (kernel, format) in [(v6_4(), OrcFormat::V6_4), (v7_1(), OrcFormat::V7_1)] {
                let fields = OrcFormat::of_fields(3, None, Some(11), Some(release));
                let description = OrcDescription {
                    fields: Some(fields),
                    ..unknown(release)
                };
                assert_eq!(verify(&kernel, description).format, Some(format));
                let known = OrcDescription {
                    header: None,
                    ..description
                };
                let found = verify(&kernel, known);
                assert_eq!(found.format, Some(format));
                assert_eq!(found.warning.is_some(), fields != format);
            }
        }
    }

    #[test]
    fn rows_of_no_known_format_are_not_used() {
        // Register numbers that no version has; then a known hash with rows of another version.
        let found = verify(&kernel(0x20c, 0x2dc), unknown((8, 0, 0)));
        assert_eq!(found.format, None);
        let warning = found.warning.unwrap();
        assert!(
            warning.contains("no known format agrees with the code of 16"),
            "{warning}"
        );
        let known = OrcDescription {
            header: Some(&[0xfe, 0x5d, 0x32, 0xbf]),
            ..unknown((7, 3, 4))
        };
        let found = verify(&v7_1(), known);
        assert_eq!(found.format, None);
        assert!(found.warning.unwrap().contains("that of Linux 6.4"));
        assert_eq!(verify(&v6_4(), known).format, Some(OrcFormat::V6_4));
        assert_eq!(verify(&v6_4(), known).warning, None);
        // A single number differs: that of PREV_SP.
        assert_eq!(
            verify(&kernel(0x203, 0x2b3), unknown((7, 3, 4))).format,
            None
        );
    }

    #[test]
    fn without_code_only_a_known_format_is_used() {
        let mut kernel = v7_1();
        kernel.ram = Ram::new(Word::W64);
        let found = verify(&kernel, unknown((7, 3, 4)));
        assert_eq!(found.format, None);
        assert!(found.warning.is_some());
        let by_release = OrcDescription {
            header: None,
            ..unknown((5, 10, 0))
        };
        let found = verify(&kernel, by_release);
        assert_eq!(found.format, Some(OrcFormat::V4_18));
        assert!(found.warning.unwrap().contains("by the kernel's release"));
        let with_cfi = OrcDescription {
            has_cfi: true,
            ..by_release
        };
        assert_eq!(verify(&kernel, with_cfi).format, None);
        let known = OrcDescription {
            header: Some(&[0x13, 0x7c, 0x36, 0xad]),
            ..with_cfi
        };
        assert_eq!(
            verify(&kernel, known),
            OrcVerdict::used(OrcFormat::V7_1, None)
        );
    }

    #[test]
    fn a_few_functions_suffice_for_the_expected_format() {
        let mut kernel = kernel_of(128, 0x005, 0x015);
        let first: Vec<_> = kernel.table.spread(FIRST_ORC_SAMPLE).collect();
        for start in (0..128).map(|i| TEXT + i * 0x20) {
            if !first.iter().any(|pc| (start..start + 0x20).contains(&pc.0)) {
                kernel.ram.bytes(start, &[0x90; CODE.len()]);
                kernel.ram.bytes(start, &[0x50; 4]);
            }
        }
        let known = OrcDescription {
            release: Some((6, 1, 0)),
            ..OrcDescription::default()
        };
        let found = verify(&kernel, known);
        assert_eq!((found.format.is_some(), found.warning), (true, None));
        // Few of all functions agree.
        assert_eq!(verify(&kernel, unknown((6, 1, 0))).format, None);
    }

    #[test]
    fn freed_code_is_not_evidence() {
        let mut kernel = v6_4();
        // Most of the code is overwritten.
        let freed = TEXT + 0x20..TEXT + 11 * 0x20;
        for at in freed.clone() {
            kernel.ram.bytes(at, &[0x50]);
        }
        let found = unknown((6, 12, 0)).verify(&kernel.table, &kernel.ram, &kernel.names, |pc| {
            !freed.contains(&pc.0)
        });
        assert_eq!(found.format, Some(OrcFormat::V6_4));
    }
}
