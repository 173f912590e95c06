//! Structs that lead to each other by a pointer, such as a directory to its parent.

use std::collections::HashMap;

use super::{Batch, Layout, Rows};
use crate::addr::MachineAddr;
use crate::alloc;
use crate::memory::Memory;
use crate::status::Status;

/// Structs and those that they lead to, each once, with `N` numbers of each.
pub(super) struct Ancestors<const N: usize> {
    /// Nearest first.
    pub addrs: Vec<u64>,
    /// By the position of the address; `None` for a struct that cannot be read.
    pub rows: Vec<Option<[u64; N]>>,
    positions: HashMap<u64, usize>,
    limit: usize,
    /// A struct was left out because of the limit.
    pub is_cut: bool,
}

impl<const N: usize> Ancestors<N> {
    /// Reads `members` (offset and size) of the structs at `starts` and of those that they lead to: the
    /// first member of a struct, changed by `next`, is the address of the next one, and NULL leads to none.
    /// At most `limit` structs, which are at most `depth` pointers away.
    pub fn read<M: Memory<MachineAddr> + Send>(
        batch: &mut Batch<'_, M>,
        starts: impl Iterator<Item = u64>,
        members: [(u64, usize); N],
        next: impl Fn(u64) -> u64,
        depth: usize,
        limit: usize,
    ) -> Self {
        let mut found = Self {
            addrs: Vec::new(),
            rows: Vec::new(),
            positions: HashMap::new(),
            limit,
            is_cut: false,
        };
        // None for members beyond the end of the address space.
        let layout = members.iter().all(|(_, size)| *size <= 8);
        let layout = layout.then(|| Layout::packed(members)).flatten();
        starts.for_each(|start| found.add(start));
        for generation in 0..=depth {
            let newest = found.addrs.get(found.rows.len()..).unwrap_or_default();
            if newest.is_empty() {
                break;
            }
            let count = newest.len();
            let mut bytes = Bytes {
                rows: Vec::new(),
                size: layout.as_ref().map_or(0, Layout::row),
            };
            let mut status = alloc::filled(Status::Wraps, count);
            if let Some(layout) = &layout {
                bytes.rows = alloc::filled(0, count.saturating_mul(bytes.size));
                batch.read_packed(newest, layout, 0, &mut bytes, &mut status);
            }
            for (row, status) in status.iter().enumerate() {
                let row = (*status == Status::Ok).then(|| bytes.numbers(row, members));
                alloc::push(&mut found.rows, row);
                if let (Some(row), true) = (row, generation < depth) {
                    match row.first().copied().unwrap_or_default() {
                        0 => (),
                        pointer => found.add(next(pointer)),
                    }
                }
            }
        }
        found
    }

    fn add(&mut self, at: u64) {
        if at == 0 || self.positions.contains_key(&at) {
            return;
        }
        if self.addrs.len() >= self.limit {
            self.is_cut = true;
            return;
        }
        alloc::insert_at(&mut self.positions, at, self.addrs.len());
        alloc::push(&mut self.addrs, at);
    }

    /// The position of the struct at an address; `None` if it was not reached.
    pub fn position(&self, at: u64) -> Option<usize> {
        self.positions.get(&at).copied()
    }
}

/// The members of each struct, one after another.
struct Bytes {
    rows: Vec<u8>,
    size: usize,
}

impl Bytes {
    /// The members of a row as numbers.
    fn numbers<const N: usize>(&self, row: usize, members: [(u64, usize); N]) -> [u64; N] {
        let start = row.saturating_mul(self.size);
        let mut rest = self.rows.get(start..).unwrap_or_default();
        members.map(|(_, size)| {
            let (member, others) = rest.split_at_checked(size).unwrap_or_default();
            rest = others;
            let bytes = member.iter().rev();
            bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        })
    }
}

impl Rows for Bytes {
    fn put(&mut self, row: usize, at: usize, bytes: &[u8]) {
        let start = row.saturating_mul(self.size).saturating_add(at);
        if let Some(target) = self.rows.get_mut(start..start.saturating_add(bytes.len())) {
            target.copy_from_slice(bytes);
        }
    }

    fn clear(&mut self, _row: usize) {
        // The row is not used: its status is not `Ok`.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Frames;
    use crate::space::Space;

    fn read(frames: &Frames, starts: &[u64], depth: usize, limit: usize) -> Ancestors<2> {
        let space = Space::Machine(frames.clone());
        let mut batch = Batch::new(&space, 0);
        let members = [(8, 8), (2, 4)];
        let starts = starts.iter().copied();
        Ancestors::read(&mut batch, starts, members, |at| at - 1, depth, limit)
    }

    #[test]
    fn each_struct_is_read_once() {
        // 0x1100 and 0x1200 lead to 0x1300, which leads to itself; 0x1400 to missing memory.
        let mut frames = Frames::default();
        for (from, to) in [
            (0x1100, 0x1300),
            (0x1200, 0x1300),
            (0x1300, 0x1300),
            (0x1400, 0x9000),
        ] {
            frames.write(MachineAddr(from + 8), &u64::to_le_bytes(to + 1));
            frames.write(MachineAddr(from + 2), &u32::to_le_bytes(from as u32));
        }
        let all = [0x1100, 0x1200, 0x1400, 0x1300, 0x9000];
        let found = read(&frames, &[0x1100, 0x1200, 0, 0x1400, 0x1100], 9, 5);
        assert_eq!(found.addrs, all);
        assert!(!found.is_cut);
        let rows = [
            Some([0x1301, 0x1100]),
            Some([0x1301, 0x1200]),
            Some([0x9001, 0x1400]),
            Some([0x1301, 0x1300]),
            None,
        ];
        assert_eq!(found.rows, rows);
        assert_eq!(found.position(0x1300), Some(3));
        assert_eq!(found.position(0x1500), None);
        let found = read(&frames, &all[..3], 9, 4);
        assert_eq!((found.addrs, found.is_cut), (all[..4].to_vec(), true));
        let found = read(&frames, &all[..3], 0, 9);
        assert_eq!((found.addrs, found.is_cut), (all[..3].to_vec(), false));
        assert_eq!(found.rows.len(), 3);
        assert_eq!(read(&frames, &[u64::MAX], 9, 9).rows, [None]);
        assert_eq!(read(&frames, &[], 9, 9).rows, []);
    }

    #[test]
    fn members_beyond_the_end_of_the_address_space() {
        let space = Space::Machine(Frames::default());
        let mut batch = Batch::new(&space, 0);
        let members = [(u64::MAX, 8)];
        let starts = [0x1000].into_iter();
        let found = Ancestors::read(&mut batch, starts, members, |at| at, 9, 9);
        assert_eq!(found.rows, [None]);
    }
}
