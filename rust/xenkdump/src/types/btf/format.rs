//! The sizes of BTF types by their kind, verified against the types.
//!
//! A type consists of a fixed part and data whose size depends on its kind and on a count. One unknown
//! kind makes all types after it unreadable. Its size is then found by trying: with the right one all
//! types to the end are valid.

use super::kinds::*;
use crate::alloc;
use crate::limits::{MAX_BTF_STEPS, MAX_UNKNOWN_BTF_KINDS};
use crate::names;

/// Number of kinds that the format has bits for.
const KINDS: usize = 128;

/// The size of the data after a type's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail {
    fixed: u8,
    /// Bytes for each of the number of members, enumerators, ...
    each: u8,
}

/// Candidates for the data of an unknown kind.
const TAILS: [Tail; 9] = {
    const fn tail(fixed: u8, each: u8) -> Tail {
        Tail { fixed, each }
    }
    [
        tail(0, 0),
        tail(4, 0),
        tail(8, 0),
        tail(12, 0),
        tail(16, 0),
        tail(0, 4),
        tail(0, 8),
        tail(0, 12),
        tail(0, 16),
    ]
};

/// What the BTF of a module continues.
pub(super) trait Base {
    /// The number of its types.
    fn len(&self) -> usize;
    /// Its strings.
    fn strings(&self) -> &[u8];
    /// The type with this ID.
    fn ty(&self, id: u32) -> Option<Type<'_>>;
}

/// Types and strings, and the BTF that their numbers continue.
#[derive(Clone, Copy)]
pub(super) struct Data<'a> {
    pub types: &'a [u8],
    pub strings: &'a [u8],
    pub base: Option<&'a dyn Base>,
}

impl<'a> Data<'a> {
    /// The string table that contains the string at `offset` (the base's or this one), and the offset in it.
    fn place(self, offset: u32) -> (&'a [u8], u32) {
        let base = self.base.map_or(&[][..], |base| base.strings());
        match (offset as usize).checked_sub(base.len()) {
            // Less than the offset.
            Some(own) => (self.strings, own as u32),
            None => (base, offset),
        }
    }

    /// The string at an offset, up to its NUL.
    pub fn string(self, offset: u32) -> &'a [u8] {
        let (strings, offset) = self.place(offset);
        names::string(strings, offset, |byte| byte == 0)
    }

    /// Whether a string starts at an offset. Those of a base start with an empty one.
    fn is_name(self, offset: u32) -> bool {
        let (strings, at) = self.place(offset);
        match (at as usize).checked_sub(1) {
            Some(before) => strings
                .get(before..before + 2)
                .is_some_and(|pair| pair[0] == 0),
            None => offset == 0 || !strings.is_empty(),
        }
    }
}

/// How types are read.
#[derive(Clone)]
pub(super) struct Format {
    tails: [Option<Tail>; KINDS],
    /// Bits 16 to 23 and 29 to 30 of the info, which are 0 in Linux 7.3, are part of the count and of
    /// the kind.
    wide: bool,
}

/// Why the types cannot be read to their end.
#[derive(Clone, Copy)]
enum Stop {
    Kind(u32),
    Reserved(u32),
    Truncated,
    /// The budget is exhausted.
    Budget,
}

/// Types that were read, or the first that cannot be read.
pub(super) struct Problem {
    /// The offset of the type in the types.
    pub at: usize,
    pub found: String,
}

/// The types and how they are read.
pub(super) struct Reading {
    pub format: Format,
    /// The offset of each type from the start of the types.
    pub offsets: Vec<u32>,
    /// What is unknown, and was verified.
    pub warning: Option<String>,
}

impl Format {
    /// Linux 7.3 has kinds 1 to 19.
    pub fn known() -> Self {
        let mut tails = [None; KINDS];
        for (kinds, fixed, each) in [
            (&[INT, VAR, DECL_TAG][..], 4, 0),
            (&[ARRAY][..], 12, 0),
            (&[STRUCT, UNION, DATASEC, ENUM64][..], 0, 12),
            (&[ENUM, FUNC_PROTO][..], 0, 8),
            (
                &[
                    PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG,
                ][..],
                0,
                0,
            ),
        ] {
            for &kind in kinds {
                if let Some(tail) = tails.get_mut(kind as usize) {
                    *tail = Some(Tail { fixed, each });
                }
            }
        }
        Self { tails, wide: false }
    }

    /// The kinds that only this format knows.
    fn unknown_kinds(&self) -> Vec<usize> {
        let known = Self::known();
        let pairs = self.tails.iter().zip(known.tails).enumerate();
        pairs
            .filter(|(_, (own, known))| own.is_some() && known.is_none())
            .map(|(kind, _)| kind)
            .collect()
    }

    /// The type at offset `at` and its total size.
    fn parse<'a>(&self, types: &'a [u8], at: usize) -> Result<(Type<'a>, usize), Stop> {
        let rest = types.get(at..).ok_or(Stop::Truncated)?;
        let word = |at| u32_at(rest, at).ok_or(Stop::Truncated);
        let info = word(4)?;
        let (kind, count) = if self.wide {
            (info >> 24 & 0x7f, info & 0xff_ffff)
        } else {
            (info >> 24 & 0x1f, info & 0xffff)
        };
        if !self.wide && info & 0x60ff_0000 != 0 {
            return Err(Stop::Reserved(info));
        }
        let tail = self.tails.get(kind as usize).copied().flatten();
        let tail = tail.ok_or(Stop::Kind(kind))?;
        let size = (count as usize)
            .saturating_mul(tail.each.into())
            .saturating_add(tail.fixed.into());
        let end = TYPE.saturating_add(size);
        let ty = Type {
            name: word(0)?,
            kind,
            flag: info >> 31 != 0,
            value: word(8)?,
            tail: rest.get(TYPE..end).ok_or(Stop::Truncated)?,
        };
        Ok((ty, end))
    }

    /// The type at an offset that [`read`] found.
    pub fn at<'a>(&self, types: &'a [u8], at: u32) -> Option<Type<'a>> {
        self.parse(types, at as usize).ok().map(|(ty, _)| ty)
    }

    /// The offsets of all types, each of which costs a step.
    fn walk(&self, types: &[u8], steps: &mut usize) -> Result<Vec<u32>, (Stop, usize)> {
        let (mut offsets, mut at) = (Vec::new(), 0);
        while at < types.len() {
            *steps = steps.checked_sub(1).ok_or((Stop::Budget, at))?;
            let (_, size) = self.parse(types, at).map_err(|stop| (stop, at))?;
            let offset = u32::try_from(at).map_err(|_| (Stop::Truncated, at))?;
            alloc::push(&mut offsets, offset);
            at = at.saturating_add(size);
        }
        Ok(offsets)
    }

    /// Whether all types are as a sound file has them: their names start where a string starts, they
    /// refer to types that exist and are of the right kind, and members lie within their struct. If a
    /// type were taken for the data of another one, the numbers of all later types would be wrong.
    fn is_valid(&self, data: Data<'_>, offsets: &[u32]) -> bool {
        let first = data.base.map_or(0, |base| base.len());
        let of = |id: u32| match (id as usize).checked_sub(first) {
            Some(own @ 1..) => self.at(data.types, *offsets.get(own - 1)?),
            _ => data.base?.ty(id),
        };
        let is_type = |id: u32| id as usize <= first.saturating_add(offsets.len());
        offsets.iter().all(|&at| {
            self.at(data.types, at)
                .is_some_and(|ty| is_sound(&ty, data, is_type) && refers_to_its_kinds(&ty, of))
        })
    }
}

/// Whether functions refer to prototypes, sections to variables, arrays to an integer, and members of a
/// struct to types of the size that the member has.
fn refers_to_its_kinds<'a>(ty: &Type<'a>, of: impl Fn(u32) -> Option<Type<'a>>) -> bool {
    let known = Format::known();
    // Of an unknown kind anything may be said.
    let is_one_of = |id: u32, kinds: &[u32]| {
        of(id).is_some_and(|ty| {
            let tail = known.tails.get(ty.kind as usize).copied().flatten();
            tail.is_none() || kinds.contains(&ty.kind)
        })
    };
    match ty.kind {
        FUNC => is_one_of(ty.value, &[FUNC_PROTO]),
        DATASEC => ty
            .tail
            .chunks_exact(12)
            .all(|entry| u32_at(entry, 0).is_some_and(|id| is_one_of(id, &[VAR, FUNC]))),
        ARRAY => u32_at(ty.tail, 4)
            .is_some_and(|id| is_one_of(id, &[INT, TYPEDEF, ENUM, CONST, VOLATILE, TYPE_TAG])),
        STRUCT | UNION => ty.tail.chunks_exact(12).all(|member| {
            let word = |at| u32_at(member, at).unwrap_or(u32::MAX);
            let start = u64::from(word(8)) / 8;
            // A bit-field may have a larger type.
            ty.flag || size(word(4), &of).is_none_or(|size| start + size <= u64::from(ty.value))
        }),
        _ => true,
    }
}

/// The size of a type; `None` if it is not known.
fn size<'a>(mut id: u32, of: &impl Fn(u32) -> Option<Type<'a>>) -> Option<u64> {
    /// Real types have up to ten.
    const MAX_STEPS: usize = 16;
    let mut count = 1_u64;
    for _ in 0..MAX_STEPS {
        let ty = of(id)?;
        match ty.kind {
            INT | STRUCT | UNION | ENUM | ENUM64 | FLOAT => {
                return count
                    .checked_mul(u64::from(ty.value))
                    .filter(|&size| size < 1 << 32);
            }
            TYPEDEF | CONST | VOLATILE | RESTRICT | TYPE_TAG => id = ty.value,
            ARRAY => {
                id = u32_at(ty.tail, 0)?;
                count = count.checked_mul(u64::from(u32_at(ty.tail, 8)?))?;
            }
            // A pointer has the size of a word.
            PTR => return count.checked_mul(4).filter(|&size| size < 1 << 32),
            _ => return None,
        }
    }
    None
}

/// Whether a type is as a sound file has it. Nothing is known about one of an unknown kind but its name.
fn is_sound(ty: &Type<'_>, data: Data<'_>, is_type: impl Fn(u32) -> bool) -> bool {
    /// The largest integer, in bytes.
    const MAX_INT: u32 = 16;
    let is_name = |offset| data.is_name(offset);
    let word = |at| u32_at(ty.tail, at);
    let own = match ty.kind {
        INT => ty.value <= MAX_INT && word(0).is_some_and(|encoding| encoding >> 27 == 0),
        PTR | CONST | VOLATILE | RESTRICT => ty.name == 0 && is_type(ty.value),
        TYPEDEF | FUNC | VAR | TYPE_TAG => ty.name != 0 && is_type(ty.value),
        FUNC_PROTO => ty.name == 0 && is_type(ty.value),
        ARRAY => ty.name == 0 && [0, 4].into_iter().all(|at| word(at).is_some_and(&is_type)),
        STRUCT | UNION => ty.tail.chunks_exact(12).all(|member| {
            let word = |at| u32_at(member, at).unwrap_or(u32::MAX);
            let bits = word(8) & if ty.flag { 0xff_ffff } else { u32::MAX };
            is_name(word(0)) && is_type(word(4)) && bits / 8 <= ty.value
        }),
        _ => true,
    };
    own && is_name(ty.name)
}

/// Reads all types. `unknown` is what the header says that is not known; then, if a type is of an
/// unknown kind, and if there is a base, the types must be valid.
pub(super) fn read(data: Data<'_>, unknown: Option<String>) -> Result<Reading, Problem> {
    let types = data.types;
    // The types of a sound file are read a few times.
    let mut steps = (types.len() / TYPE).saturating_mul(4);
    steps = steps.saturating_add(MAX_BTF_STEPS);
    let format = Format::known();
    let (stop, at) = match format.walk(types, &mut steps) {
        Ok(offsets) => {
            let must_be_valid = unknown.is_some() || data.base.is_some();
            if must_be_valid && !format.is_valid(data, &offsets) {
                let other = match (&unknown, data.base) {
                    (None, Some(_)) => "base",
                    _ => "version",
                };
                let found = format!("types that do not fit the known {other}");
                return Err(Problem { at: 0, found });
            }
            let warning = unknown.map(|what| format!("{what}: all types fit the known version"));
            return Ok(Reading {
                format,
                offsets,
                warning,
            });
        }
        Err(stopped) => stopped,
    };
    // As few unknown kinds as possible: with more, wrong sizes may fit.
    let mut fitting = Vec::new();
    for limit in 1..=MAX_UNKNOWN_BTF_KINDS {
        if fitting.is_empty() {
            try_formats(data, &format, (stop, limit), &mut steps, &mut fitting);
        }
    }
    let found = match stop {
        Stop::Kind(kind) => format!("the unknown kind {kind}"),
        Stop::Reserved(info) => format!("unknown bits ({info:#x})"),
        Stop::Truncated | Stop::Budget => "a truncated type".to_owned(),
    };
    let Some((format, offsets)) = fitting.pop().filter(|_| fitting.is_empty()) else {
        return Err(Problem { at, found });
    };
    let kinds = format.unknown_kinds();
    let kinds = kinds.iter().map(|kind| format!(" kind {kind}"));
    let kinds = if kinds.len() == 0 {
        " bits in the info of types".to_owned()
    } else {
        kinds.collect::<Vec<_>>().join(" and")
    };
    let what = unknown.map_or(String::new(), |what| format!("{what}; "));
    Ok(Reading {
        warning: Some(format!(
            "{what}unknown{kinds}: the size was found by trying, and all types fit"
        )),
        format,
        offsets,
    })
}

/// Tries the variants of `format` that continue where it stops, with at most `kinds` unknown kinds.
/// Collects those that read all types.
fn try_formats(
    data: Data<'_>,
    format: &Format,
    (stop, kinds): (Stop, usize),
    steps: &mut usize,
    fitting: &mut Vec<(Format, Vec<u32>)>,
) {
    let mut candidates = Vec::new();
    match stop {
        Stop::Kind(kind) if kinds > 0 => {
            for tail in TAILS {
                let mut candidate = format.clone();
                if let Some(slot) = candidate.tails.get_mut(kind as usize) {
                    *slot = Some(tail);
                    candidates.push(candidate);
                }
            }
        }
        Stop::Reserved(_) if !format.wide => candidates.push(Format {
            wide: true,
            ..format.clone()
        }),
        _ => {}
    }
    for candidate in candidates {
        match candidate.walk(data.types, steps) {
            Ok(offsets) => {
                if candidate.is_valid(data, &offsets)
                    && fitting.iter().all(|(_, known)| *known != offsets)
                {
                    fitting.push((candidate, offsets));
                }
            }
            Err((stop, _)) => {
                let next = (stop, kinds - usize::from(candidate.wide == format.wide));
                try_formats(data, &candidate, next, steps, fitting);
            }
        }
    }
}
