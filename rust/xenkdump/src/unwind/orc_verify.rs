//! Which format the rows of an ORC table have, verified against the code that they describe.
//!
//! What a kernel pushes can be read off its instructions as well as off its rows. The wrong format
//! agrees with next to no function, the right one with nearly all.

use std::fmt;

use crate::addr::{VirtAddr, Word};
use crate::memory::Memory;

use super::depth::{CallerBp, Depths, Place};
use super::facts::{Effort, Known};
use super::orc::OrcTable;
use super::orc_format::{OrcEntry, OrcFormat, OrcKind, OrcReg, Row};
use super::symbols::CodeSymbols;

/// Functions that are compared with their rows.
const FUNCTIONS: usize = 128;

/// Fewer functions than this prove nothing.
const MIN_FUNCTIONS: usize = 4;

/// What an image says of the format of its rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrcDescription<'a> {
    /// The section `.orc_header`.
    pub header: Option<&'a [u8]>,
    /// The format that the types describe.
    pub fields: Option<OrcFormat>,
    /// The release of the kernel.
    pub release: Option<(u32, u32, u32)>,
    /// Whether other unwind tables can take ORC's place.
    pub has_cfi: bool,
}

/// The format to read rows in, if any is to be trusted, and what is to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrcVerdict {
    /// `None` where the tables are not to be used.
    pub format: Option<OrcFormat>,
    /// Why not, or what the format rests on where it is not the one that was expected.
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
        let evidence = Evidence::collect(table, memory, symbols, counts);
        let known = self.header.and_then(OrcFormat::of_header);
        let candidates = match known {
            Some(format) => vec![format],
            None => OrcFormat::candidates(self.fields, self.release),
        };
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

/// Rows of some functions, with what the code says at their instructions.
struct Evidence {
    functions: Vec<Vec<(Row, Place)>>,
}

impl Evidence {
    fn collect(
        table: &OrcTable,
        memory: &dyn Memory<VirtAddr>,
        symbols: &dyn CodeSymbols,
        counts: impl Fn(VirtAddr) -> bool,
    ) -> Self {
        let mut starts: Vec<VirtAddr> = table
            .spread(FUNCTIONS)
            .filter(|&pc| counts(pc))
            .filter_map(|pc| Some(symbols.function(pc)?.start))
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let (mut known, effort) = (Known::default(), Effort::default());
        let mut depths = Depths::new(memory, symbols, Word::W64, &mut known, &effort);
        let mut functions = Vec::new();
        for start in starts {
            let Some(places) = depths.of_function(start) else {
                continue;
            };
            let rows: Vec<_> = places
                .certain()
                .filter(|(_, place)| place.stack.is_some())
                .filter_map(|(pc, place)| Some((table.find_row(pc)?, *place)))
                .collect();
            // One that pushes nothing has the same row throughout: it is no proof of much.
            if rows.iter().any(|(_, place)| place.stack != Some(0)) {
                functions.push(rows);
            }
        }
        Self { functions }
    }

    /// Functions whose rows mostly say in this format what their code says.
    fn agreeing(&self, format: &OrcFormat) -> usize {
        let agrees = |rows: &&Vec<(Row, Place)>| {
            let same = rows
                .iter()
                .filter(|(row, place)| says_the_same(&format.decode(*row), place));
            same.count() * 10 >= rows.len() * 9
        };
        self.functions.iter().filter(agrees).count()
    }
}

/// Whether a row has the return address and the caller's frame pointer where the code has them.
fn says_the_same(entry: &OrcEntry, place: &Place) -> bool {
    // From the base up to the caller's stack pointer, above the return address.
    let above = |distance: Option<i64>| distance == Some(i64::from(entry.sp_offset) - 8);
    let sp = match entry.sp_reg {
        Some(OrcReg::Sp) => above(place.stack),
        Some(OrcReg::Bp) => above(place.frame),
        _ => false,
    };
    let bp = match place.caller_bp {
        CallerBp::Kept => entry.bp_reg == Some(OrcReg::Undefined),
        CallerBp::Pushed(below) => {
            entry.bp_reg == Some(OrcReg::PrevSp) && i64::from(entry.bp_offset) == -8 - below
        }
        CallerBp::Lost => true,
    };
    entry.kind == OrcKind::Call && sp && bp
}
