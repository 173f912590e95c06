//! Which members of a struct are read, and where they go.

use crate::alloc;

/// A member of a struct, and where its bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the struct.
    pub offset: u64,
    /// Size in bytes.
    pub size: usize,
    /// Bytes from the start of a row.
    pub place: usize,
}

impl Member {
    fn is_followed_by(&self, next: &Member) -> bool {
        self.offset.checked_add(self.size as u64) == Some(next.offset)
            && self.place + self.size == next.place
    }
}

/// The members to read of each struct.
#[derive(Clone, Debug)]
pub struct Layout {
    /// By ascending offset, with their numbers.
    pub(super) members: Vec<(Member, usize)>,
    /// The same, without empty ones; members that are adjacent in the struct and in the row are one.
    pub(super) runs: Vec<Member>,
    /// From the first byte that is needed to the end of the last one.
    pub(super) start: u64,
    pub(super) span: usize,
    row: usize,
}

impl Layout {
    /// Members whose bytes are one after another in a row, in the order given. `None` if the row is
    /// larger than the address space.
    pub fn packed(members: impl IntoIterator<Item = (u64, usize)>) -> Option<Self> {
        let mut row = 0_usize;
        let mut found = Vec::new();
        for (number, (offset, size)) in members.into_iter().enumerate() {
            let place = row;
            row = row.checked_add(size)?;
            let member = Member {
                offset,
                size,
                place,
            };
            alloc::push(&mut found, (member, number));
        }
        found.sort_unstable_by_key(|(member, number)| (member.offset, *number));
        let mut runs: Vec<Member> = Vec::new();
        for (member, _) in found.iter().filter(|(member, _)| member.size > 0) {
            match runs.last_mut() {
                Some(run) if run.is_followed_by(member) => run.size += member.size,
                _ => alloc::push(&mut runs, *member),
            }
        }
        let start = runs.first().map_or(0, |run| run.offset);
        let end = runs.iter().try_fold(start, |end, run| {
            Some(end.max(run.offset.checked_add(run.size as u64)?))
        });
        let span = end.and_then(|end| usize::try_from(end - start).ok());
        Some(Self {
            members: found,
            runs,
            start,
            span: span.unwrap_or(usize::MAX),
            row,
        })
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The size of a row.
    pub fn row(&self) -> usize {
        self.row
    }
}
