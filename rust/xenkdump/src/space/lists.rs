//! Walks the kernel's linked lists, many in one call.

use std::collections::HashMap;

use super::Space;
use crate::addr::{MachineAddr, Word};
use crate::alloc;
use crate::memory::{Fault, Memory};

/// See [`Space::lists_counted`].
const COUNTED: usize = 1 << 10;

/// How the nodes of a list are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// `struct list_head`: the last node links back to the head.
    Circular,
    /// `struct list_head`, by its `prev`.
    CircularBackward,
    /// `struct hlist_head`: the link of the last node is NULL.
    NullTerminated,
}

/// How the walk of a list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the list's end.
    Complete,
    /// At this node, which occurred earlier in the same list (a cycle).
    Loop(u64),
    /// At this node, which is part of a list walked earlier.
    Shared(u64),
    /// Before this node, because the limit was reached.
    Limit(u64),
    /// At this address, from which the next link cannot be read.
    Unreadable(u64),
}

/// A list, as far as it could be walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The addresses of its nodes, without the head.
    pub nodes: Vec<u64>,
    /// How the walk ended.
    pub end: End,
}

impl<M: Memory<MachineAddr> + Send> Space<M> {
    /// Walks the lists with these heads. No node is visited twice, and all lists together have at most
    /// `limit` nodes.
    pub fn lists(&self, heads: &[u64], links: Links, word: Word, limit: usize) -> Vec<List> {
        self.lists_counted(heads, links, word, limit, |_| {})
    }

    /// The same. After every 1024 nodes it calls `count` with the number of nodes read since the last call.
    pub fn lists_counted(
        &self,
        heads: &[u64],
        links: Links,
        word: Word,
        limit: usize,
        count: impl Fn(usize),
    ) -> Vec<List> {
        let mut read = 0_usize;
        // Maps each node to the number of its list.
        let mut owners: HashMap<u64, usize> = HashMap::new();
        let lists = heads.iter().enumerate();
        alloc::collect(lists.map(|(list, &head)| {
            let mut nodes = Vec::new();
            let mut at = head;
            let end = loop {
                read += 1;
                if read == COUNTED {
                    read = 0;
                    count(COUNTED);
                }
                let Ok(next) = self.next(at, links, word) else {
                    break End::Unreadable(at);
                };
                if next == links.terminator(head) {
                    break End::Complete;
                }
                match owners.get(&next) {
                    Some(&owner) if owner == list => break End::Loop(next),
                    Some(_) => break End::Shared(next),
                    None if owners.len() >= limit => break End::Limit(next),
                    None => alloc::insert_at(&mut owners, next, list),
                };
                alloc::push(&mut nodes, next);
                at = next;
            };
            List { nodes, end }
        }))
    }

    /// The link of the node at `at`.
    fn next(&self, at: u64, links: Links, word: Word) -> Result<u64, Fault> {
        let offset = match links {
            Links::Circular | Links::NullTerminated => 0,
            Links::CircularBackward => word.bytes() as u64,
        };
        let mut bytes = [0; 8];
        let link = bytes.get_mut(..word.bytes()).unwrap_or_default();
        self.read(at.wrapping_add(offset) & word.max(), link)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Links {
    /// The link of the last node of the list at `head`.
    fn terminator(self, head: u64) -> u64 {
        match self {
            Links::Circular | Links::CircularBackward => head,
            Links::NullTerminated => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Frames;

    /// Machine memory with 8-byte links, from the first address of each pair to the second.
    fn memory(links: &[(u64, u64)]) -> Space<Frames> {
        let mut frames = Frames::default();
        for (from, to) in links {
            frames.write(MachineAddr(*from), &to.to_le_bytes());
        }
        Space::Machine(frames)
    }

    fn walk(space: &Space<Frames>, heads: &[u64], links: Links, limit: usize) -> Vec<List> {
        space.lists(heads, links, Word::W64, limit)
    }

    fn list(nodes: &[u64], end: End) -> List {
        List {
            nodes: nodes.to_vec(),
            end,
        }
    }

    #[test]
    fn a_list_in_both_directions() {
        let space = memory(&[
            (0x1000, 0x1100),
            (0x1100, 0x1200),
            (0x1200, 0x1000),
            (0x1008, 0x1200),
            (0x1208, 0x1100),
            (0x1108, 0x1000),
        ]);
        let complete = |nodes: &[u64]| vec![list(nodes, End::Complete)];
        assert_eq!(
            walk(&space, &[0x1000], Links::Circular, 9),
            complete(&[0x1100, 0x1200])
        );
        assert_eq!(
            walk(&space, &[0x1000], Links::CircularBackward, 9),
            complete(&[0x1200, 0x1100])
        );
        // Exactly the limit.
        assert_eq!(
            walk(&space, &[0x1000], Links::Circular, 2),
            complete(&[0x1100, 0x1200])
        );
        assert_eq!(
            walk(&space, &[0x1000], Links::Circular, 1),
            [list(&[0x1100], End::Limit(0x1200))]
        );
    }

    #[test]
    fn nodes_are_counted_while_they_are_read() {
        let nodes = 5 * COUNTED as u64 + 7;
        let links: Vec<_> = (0..nodes).map(|i| (8 * i, 8 * ((i + 1) % nodes))).collect();
        let told = std::cell::Cell::new(0);
        let found = memory(&links).lists_counted(&[0], Links::Circular, Word::W64, 1 << 20, |n| {
            told.set(told.get() + n);
        });
        assert_eq!(found[0].nodes.len() as u64, nodes - 1);
        assert_eq!(told.get(), 5 * COUNTED);
    }

    #[test]
    fn a_list_that_ends_with_null() {
        let space = memory(&[(0x1000, 0x1100), (0x1100, 0), (0x1008, 0)]);
        assert_eq!(
            walk(&space, &[0x1000, 0x1008], Links::NullTerminated, 9),
            [list(&[0x1100], End::Complete), list(&[], End::Complete)]
        );
    }

    #[test]
    fn corrupt_lists_are_reported() {
        let space = memory(&[
            (0x1000, 0x1100),
            (0x1100, 0x1200),
            (0x1200, 0x1100),
            (0x1008, 0x1200),
            (0x1010, 0xdead_0000),
            (0x1018, u64::MAX),
        ]);
        let heads = [0x1000, 0x1008, 0x1010, 0x1018, 0x9000];
        assert_eq!(
            walk(&space, &heads, Links::Circular, 9),
            [
                list(&[0x1100, 0x1200], End::Loop(0x1100)),
                list(&[], End::Shared(0x1200)),
                list(&[0xdead_0000], End::Unreadable(0xdead_0000)),
                list(&[u64::MAX], End::Unreadable(u64::MAX)),
                list(&[], End::Unreadable(0x9000)),
            ]
        );
    }

    #[test]
    fn the_limit_covers_all_lists_together() {
        let nodes = (0..100).map(|i| (0x1000 + i * 8, 0x1008 + i * 8));
        let space = memory(&nodes.collect::<Vec<_>>());
        // Each list contains all nodes from its head onwards.
        let heads: Vec<_> = (0..50).map(|i| 0x1000 + i * 8).collect();
        let found = walk(&space, &heads, Links::Circular, 60);
        assert_eq!(found.iter().map(|list| list.nodes.len()).sum::<usize>(), 60);
    }

    #[test]
    fn addresses_of_32_bits_wrap() {
        let mut frames = Frames::default();
        frames.write(MachineAddr(0xffff_fffc), &0x1000_u32.to_le_bytes());
        frames.write(MachineAddr(0), &0xffff_fffc_u32.to_le_bytes());
        let space = Space::Machine(frames);
        assert_eq!(
            space.lists(&[0xffff_fffc], Links::CircularBackward, Word::W32, 9),
            [list(&[], End::Complete)]
        );
    }
}
