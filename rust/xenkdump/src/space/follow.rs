//! Structs that lead to each other by a pointer, such as a directory to its parent.

use std::collections::HashSet;

use super::{Batch, Rows, Space};
use crate::addr::{MachineAddr, Word};
use crate::alloc;
use crate::memory::Memory;
use crate::status::Status;

impl<M: Memory<MachineAddr> + Send> Space<M> {
    /// The structs at `starts` and those that they lead to, nearest first and each once: the pointer at
    /// `offset` of a struct leads to the next one, NULL to none. At most `limit` structs, which are at
    /// most `depth` pointers away. Those whose pointer cannot be read lead to none.
    pub fn follow(
        &self,
        starts: &[u64],
        offset: u64,
        word: Word,
        depth: usize,
        limit: usize,
    ) -> Vec<u64> {
        let mut known = HashSet::new();
        let mut found = Vec::new();
        let mut add = |found: &mut Vec<u64>, at: u64| {
            if at != 0 && found.len() < limit && alloc::insert(&mut known, at) {
                alloc::push(found, at);
            }
        };
        for start in starts {
            add(&mut found, *start);
        }
        let mut batch = Batch::new(self, found.len());
        let mut first = 0;
        for _ in 0..depth {
            let newest = found.get(first..).unwrap_or_default().iter();
            let places = alloc::collect(newest.map(|at| at.wrapping_add(offset) & word.max()));
            if places.is_empty() {
                break;
            }
            first = found.len();
            let mut pointers = Pointers {
                bytes: alloc::filled(0, places.len().saturating_mul(word.bytes())),
                word,
            };
            let mut status = alloc::filled(Status::Ok, places.len());
            batch.read_rows(&places, word.bytes(), 0, &mut pointers, &mut status);
            for (pointer, status) in pointers.bytes.chunks(word.bytes()).zip(status) {
                if let (Some(next), Status::Ok) = (word.get(pointer), status) {
                    add(&mut found, next);
                }
            }
        }
        found
    }
}

/// Rows of one pointer each.
struct Pointers {
    bytes: Vec<u8>,
    word: Word,
}

impl Rows for Pointers {
    fn put(&mut self, row: usize, at: usize, bytes: &[u8]) {
        let start = row * self.word.bytes() + at;
        if let Some(target) = self.bytes.get_mut(start..start + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }

    fn clear(&mut self, _row: usize) {
        // The row is not used: its status is not 0.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Frames;

    #[test]
    fn each_struct_is_found_once() {
        // 0x1100 and 0x1200 lead to 0x1300, which leads to itself; 0x1400 to missing memory.
        let mut frames = Frames::default();
        let links = [
            (0x1100, 0x1300),
            (0x1200, 0x1300),
            (0x1300, 0x1300),
            (0x1400, 0x9000),
        ];
        for (from, to) in links {
            frames.write(MachineAddr(from + 8), &u64::to_le_bytes(to));
        }
        let space = Space::Machine(frames);
        let follow =
            |starts: &[u64], depth, limit| space.follow(starts, 8, Word::W64, depth, limit);
        let all = [0x1100, 0x1200, 0x1400, 0x1300, 0x9000];
        assert_eq!(follow(&[0x1100, 0x1200, 0, 0x1400, 0x1100], 9, 9), all);
        assert_eq!(follow(&all[..3], 9, 4), all[..4]);
        assert_eq!(follow(&all[..3], 0, 9), all[..3]);
        assert_eq!(follow(&[u64::MAX], 9, 9), [u64::MAX]);
        assert_eq!(follow(&[], 9, 9), []);
    }

    #[test]
    fn pointers_of_32_bits() {
        let mut frames = Frames::default();
        for at in (0x1000..0x1010_u32).step_by(4) {
            frames.write(MachineAddr(u64::from(at)), &(at + 4).to_le_bytes());
        }
        let space = Space::Machine(frames);
        let found = space.follow(&[0x1000, 0x1004, 0x1008], 0, Word::W32, 9, 9);
        assert_eq!(found, [0x1000, 0x1004, 0x1008, 0x100c, 0x1010]);
    }
}
