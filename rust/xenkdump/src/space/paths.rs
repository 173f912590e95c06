//! Paths: names of nodes, each of which leads to its parent, joined across trees that are mounted in each
//! other. In Linux nodes are dentries, trees are mounts.

use std::collections::HashMap;

use super::ancestors::Ancestors;
use super::{Batch, Space};
use crate::addr::{MachineAddr, Word};
use crate::alloc;
use crate::limits::MAX_NODE_NAME;
use crate::memory::Memory;

/// Replaces an unknown name.
const UNKNOWN: &[u8] = b"?";

/// Where the structs of nodes and of trees have their members: bytes from the start.
#[derive(Clone, Copy, Debug)]
pub struct PathLayout {
    /// The size of a pointer.
    pub word: Word,
    /// Pointer of a node to its parent; to itself at the root.
    pub parent: u64,
    /// Pointer of a node to its name.
    pub name: u64,
    /// Offset and size of the name's length.
    pub name_len: (u64, usize),
    /// The part of a tree's struct to which the addresses of trees point.
    pub inside: u64,
    /// Pointer of a tree to the struct of the tree that it is mounted in; to itself at the top.
    pub tree: u64,
    /// Pointer of a tree to the node that it is mounted on.
    pub point: u64,
    /// Pointer of a tree to its own root.
    pub root: u64,
}

/// What bounds the work for some paths.
#[derive(Clone, Copy, Debug)]
pub struct PathLimits {
    /// Nodes and trees above each other.
    pub depth: usize,
    /// Nodes and trees of all paths together.
    pub structs: usize,
    /// Bytes of all paths together, and of all names that are read for them.
    pub size: usize,
    /// Nodes and trees of all paths together, each as often as a path leads through it: a path across trees
    /// that are mounted in a loop has no more bytes for them.
    pub steps: usize,
}

/// What a path is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// `None` for the name of the node alone.
    pub tree: Option<u64>,
    /// The node whose path is made.
    pub node: u64,
}

/// Why a path is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The node at this address cannot be read.
    Node(u64),
    /// The name at this address cannot be read, or has more than `MAX_NODE_NAME` bytes.
    Name(u64),
    /// The tree at this address cannot be read.
    Tree(u64),
    /// There are more nodes and trees above each other than the limit: a loop, perhaps.
    Deep,
    /// All paths together need more nodes and trees than the limit.
    Structs,
    /// All paths together, or their names, have more bytes than the limit.
    Size,
    /// All paths together lead through more nodes and trees than the limit.
    Steps,
}

/// The paths of some places.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// The number of each place's text.
    pub numbers: Vec<usize>,
    /// The texts, one after another.
    bytes: Vec<u8>,
    /// Where each text ends.
    ends: Vec<usize>,
    /// Which texts are not complete, ascending, and why: the first reason on the way up.
    pub lost: Vec<(usize, Lost)>,
    /// Nodes and trees that were read.
    pub structs: usize,
    /// Bytes of names that were read.
    pub names: usize,
    /// Nodes and trees that the paths lead through.
    pub steps: usize,
}

impl Paths {
    /// The number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The texts by their numbers: one for each place that differs. Parts that are not known are `?`.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let ranges = starts.zip(&self.ends);
        ranges.map(|(start, end)| self.bytes.get(*start..*end).unwrap_or_default())
    }
}

impl<M: Memory<MachineAddr> + Send> Space<M> {
    /// The paths of these places. Every node and every tree is read once, and equal places have one text.
    pub fn paths(&self, places: &[Place], layout: &PathLayout, limits: &PathLimits) -> Paths {
        let mut batch = Batch::new(self, places.len());
        let graph = Graph::read(&mut batch, places, layout, limits);
        let mut paths = Paths {
            structs: graph.nodes.addrs.len() + graph.trees.addrs.len(),
            names: graph.names.bytes.len(),
            ..Paths::default()
        };
        let mut parts = Vec::new();
        let mut known = HashMap::new();
        for place in places {
            let number = paths.len();
            if let Some(same) = known.get(place) {
                alloc::push(&mut paths.numbers, *same);
                continue;
            }
            alloc::insert_at(&mut known, *place, number);
            alloc::push(&mut paths.numbers, number);
            let left = Left {
                size: limits.size.saturating_sub(paths.bytes.len()),
                steps: limits.steps.saturating_sub(paths.steps),
            };
            let lost = match place.tree {
                None => graph.name(place.node, &mut paths.bytes),
                Some(tree) => {
                    let at = (tree, place.node);
                    let (lost, steps) =
                        graph.join(at, limits.depth, &left, &mut parts, &mut paths.bytes);
                    paths.steps = paths.steps.saturating_add(steps);
                    lost
                }
            };
            if let Some(lost) = lost {
                alloc::push(&mut paths.lost, (number, lost));
            }
            alloc::push(&mut paths.ends, paths.bytes.len());
        }
        paths
    }
}

/// What is left of the limits for a path.
struct Left {
    size: usize,
    steps: usize,
}

/// A tree, and the node of it that another one is mounted on.
type Mounted = (u64, u64);

/// The names of nodes, by their positions.
struct Names {
    bytes: Vec<u8>,
    /// Where the bytes of each name are; why it is not known.
    places: Vec<Result<(usize, usize), Lost>>,
}

/// The nodes and the trees of some paths.
struct Graph<'l> {
    layout: &'l PathLayout,
    /// Parent, address and length of the name.
    nodes: Ancestors<3>,
    names: Names,
    /// The tree that it is mounted in, where, and its root.
    trees: Ancestors<3>,
}

impl<'l> Graph<'l> {
    fn read<M: Memory<MachineAddr> + Send>(
        batch: &mut Batch<'_, M>,
        places: &[Place],
        layout: &'l PathLayout,
        limits: &PathLimits,
    ) -> Self {
        let word = layout.word.bytes();
        let depth = limits.depth;
        let members = [layout.tree, layout.point, layout.root].map(|offset| (offset, word));
        let starts = places.iter().filter_map(|place| place.tree);
        let starts = starts.filter(|at| *at != 0);
        let starts = starts.map(|at| layout.tree_struct(at));
        let trees = Ancestors::read(batch, starts, members, |at| at, depth, limits.structs);
        let members = [(layout.parent, word), (layout.name, word), layout.name_len];
        let points = trees.rows.iter().flatten().map(|[_, point, _]| *point);
        let starts = places.iter().map(|place| place.node).chain(points);
        let limit = limits.structs.saturating_sub(trees.addrs.len());
        let nodes = Ancestors::read(batch, starts, members, |at| at, depth, limit);
        let mut names = Names {
            bytes: Vec::new(),
            places: alloc::with_capacity(nodes.rows.len()),
        };
        for row in &nodes.rows {
            let [_, at, len] = row.unwrap_or_default();
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            names.add(batch, at, len, limits.size);
        }
        Self {
            layout,
            nodes,
            names,
            trees,
        }
    }

    /// Appends the name of the node at an address.
    fn name(&self, node: u64, out: &mut Vec<u8>) -> Option<Lost> {
        let (text, lost) = match self.node(node) {
            Ok((position, _)) => self.names.get(position),
            Err(lost) => (UNKNOWN, Some(lost)),
        };
        alloc::extend(out, text);
        lost
    }

    /// The position of a node, and its parent.
    fn node(&self, at: u64) -> Result<(usize, u64), Lost> {
        let position = self.nodes.position(at).ok_or(match at {
            0 => Lost::Node(0),
            _ if self.nodes.is_cut => Lost::Structs,
            _ => Lost::Deep,
        })?;
        let row = self.nodes.rows.get(position).copied().flatten();
        let [parent, ..] = row.ok_or(Lost::Node(at))?;
        Ok((position, parent))
    }

    /// A tree by its address: the address and the node that it is mounted on, if it is, and its root.
    fn tree(&self, at: u64) -> Result<(Option<Mounted>, u64), Lost> {
        let start = self.layout.tree_struct(at);
        let position = self.trees.position(start).ok_or(match start {
            0 => Lost::Tree(at),
            _ if at == 0 => Lost::Tree(at),
            _ if self.trees.is_cut => Lost::Structs,
            _ => Lost::Deep,
        })?;
        let row = self.trees.rows.get(position).copied().flatten();
        let [above, point, root] = row.ok_or(Lost::Tree(at))?;
        let above = (above != start).then(|| (self.layout.tree_address(above), point));
        Ok((above, root))
    }

    /// Appends the path of a node in a tree; returns also the number of nodes and trees that it leads through.
    fn join(
        &self,
        (tree, mut node): (u64, u64),
        depth: usize,
        left: &Left,
        parts: &mut Vec<usize>,
        out: &mut Vec<u8>,
    ) -> (Option<Lost>, usize) {
        parts.clear();
        let (mut size, mut steps) = (0, 0);
        let mut lost = None;
        let mut within = self.tree(tree);
        // What is above the last part is not known.
        let mut is_open = true;
        for _ in 0..depth.min(left.steps) {
            steps += 1;
            let (position, parent) = match self.node(node) {
                Ok(found) => found,
                Err(reason) => {
                    lost = lost.or(Some(reason));
                    break;
                }
            };
            let is_root = matches!(within, Ok((_, root)) if root == node);
            if is_root || parent == node {
                match within {
                    Ok((Some((above, point)), _)) => {
                        (within, node) = (self.tree(above), point);
                        continue;
                    }
                    Ok((None, _)) => is_open = false,
                    Err(reason) => lost = lost.or(Some(reason)),
                }
                break;
            }
            let (name, reason) = self.names.get(position);
            lost = lost.or(reason);
            size += name.len() + 1;
            if size > left.size {
                alloc::extend(out, UNKNOWN);
                return (Some(Lost::Size), steps);
            }
            alloc::push(parts, position);
            node = parent;
        }
        if is_open {
            let is_deep = depth <= left.steps;
            lost = lost.or(Some(if is_deep { Lost::Deep } else { Lost::Steps }));
            alloc::extend(out, b"/");
            alloc::extend(out, UNKNOWN);
        }
        for position in parts.iter().rev() {
            alloc::extend(out, b"/");
            alloc::extend(out, self.names.get(*position).0);
        }
        if parts.is_empty() && !is_open {
            alloc::extend(out, b"/");
        }
        (lost, steps)
    }
}

impl Names {
    /// Reads the name of the next node, if it has at most `MAX_NODE_NAME` bytes, and all names at most
    /// `limit` with it.
    fn add<M: Memory<MachineAddr> + Send>(
        &mut self,
        batch: &mut Batch<'_, M>,
        at: u64,
        len: usize,
        limit: usize,
    ) {
        let start = self.bytes.len();
        let end = start.saturating_add(len);
        if len > MAX_NODE_NAME {
            alloc::push(&mut self.places, Err(Lost::Name(at)));
            return;
        }
        if end > limit {
            alloc::push(&mut self.places, Err(Lost::Size));
            return;
        }
        let mut name = [0; MAX_NODE_NAME];
        let read = batch.pieces(at, len, |at, piece| {
            if let Some(target) = name.get_mut(at..at + piece.len()) {
                target.copy_from_slice(piece);
            }
        });
        let place = read.map(|()| (start, end)).map_err(|_| Lost::Name(at));
        if place.is_ok() {
            alloc::extend(&mut self.bytes, name.get(..len).unwrap_or_default());
        }
        alloc::push(&mut self.places, place);
    }

    /// The name of the node at a position.
    fn get(&self, position: usize) -> (&[u8], Option<Lost>) {
        match self.places.get(position) {
            Some(Ok((start, end))) => (self.bytes.get(*start..*end).unwrap_or_default(), None),
            Some(Err(lost)) => (UNKNOWN, Some(*lost)),
            None => (UNKNOWN, Some(Lost::Name(0))),
        }
    }
}

impl PathLayout {
    /// The start of the struct of the tree at an address.
    fn tree_struct(&self, at: u64) -> u64 {
        at.wrapping_sub(self.inside) & self.word.max()
    }

    fn tree_address(&self, start: u64) -> u64 {
        start.wrapping_add(self.inside) & self.word.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Frames;

    const LAYOUT: PathLayout = PathLayout {
        word: Word::W64,
        parent: 0,
        name: 8,
        name_len: (16, 4),
        inside: 0x20,
        tree: 0,
        point: 8,
        root: 0x28,
    };
    const LIMITS: PathLimits = PathLimits {
        depth: 16,
        structs: 100,
        size: 1000,
        steps: 1000,
    };

    #[derive(Default)]
    struct Machine(Frames);

    impl Machine {
        fn node(&mut self, at: u64, parent: u64, name: &str) {
            self.0.write(MachineAddr(at), &parent.to_le_bytes());
            self.0
                .write(MachineAddr(at + 8), &(at + 0x20).to_le_bytes());
            self.0
                .write(MachineAddr(at + 16), &(name.len() as u32).to_le_bytes());
            self.0.write(MachineAddr(at + 0x20), name.as_bytes());
        }

        fn tree(&mut self, at: u64, above: u64, point: u64, root: u64) {
            self.0.write(MachineAddr(at), &above.to_le_bytes());
            self.0.write(MachineAddr(at + 8), &point.to_le_bytes());
            self.0.write(MachineAddr(at + 0x28), &root.to_le_bytes());
        }

        fn paths(&self, places: &[(u64, u64)], limits: &PathLimits) -> (Vec<String>, Vec<Lost>) {
            let places: Vec<_> = places
                .iter()
                .map(|(tree, node)| Place {
                    tree: (*tree != 1).then_some(*tree),
                    node: *node,
                })
                .collect();
            let found = Space::Machine(self.0.clone()).paths(&places, &LAYOUT, limits);
            let texts: Vec<_> = found.texts().map(String::from_utf8_lossy).collect();
            let numbers = found.numbers.iter();
            (
                numbers.map(|number| texts[*number].to_string()).collect(),
                found.lost.iter().map(|(_, lost)| *lost).collect(),
            )
        }
    }

    /// `/srv/data` in a tree at the top, in whose `srv` another one with `a/b` is mounted.
    fn machine() -> Machine {
        let mut machine = Machine::default();
        machine.node(0x1000, 0x1000, "/");
        machine.node(0x1100, 0x1000, "srv");
        machine.node(0x1200, 0x1100, "data");
        machine.node(0x2000, 0x2000, "/");
        machine.node(0x2100, 0x2000, "a");
        machine.node(0x2200, 0x2100, "b");
        machine.tree(0x3000, 0x3000, 0x1000, 0x1000);
        machine.tree(0x3100, 0x3000, 0x1100, 0x2000);
        // A directory of the second one mounted on its own.
        machine.tree(0x3200, 0x3000, 0x1200, 0x2100);
        machine
    }

    #[test]
    fn names_across_trees() {
        let places = [
            (0x3020, 0x1200),
            (0x3120, 0x2200),
            (0x3220, 0x2200),
            (0x3020, 0x1000),
            (0x3120, 0x2200),
            (1, 0x2200),
        ];
        let (texts, lost) = machine().paths(&places, &LIMITS);
        let expected = ["/srv/data", "/srv/a/b", "/srv/data/b", "/", "/srv/a/b", "b"];
        assert_eq!(texts, expected);
        assert_eq!(lost, []);
    }

    #[test]
    fn parts_that_cannot_be_read() {
        let mut machine = machine();
        machine.node(0x4000, 0x9000, "c");
        machine.node(0x4100, 0x1100, "d");
        machine
            .0
            .write(MachineAddr(0x4108), &0x9100_u64.to_le_bytes());
        machine.node(0x4200, 0x1100, &"e".repeat(256));
        machine.node(0x4400, 0x1100, &"f".repeat(255));
        let places = [
            (0x3020, 0x4000),
            (0x3020, 0x4100),
            (0x3020, 0x4200),
            (0x3020, 0x4400),
            (0x9220, 0x1200),
            (0, 0x1200),
            (0x3020, 0),
            (1, 0x9300),
        ];
        let (texts, lost) = machine.paths(&places, &LIMITS);
        let whole = format!("/srv/{}", "f".repeat(255));
        let expected = ["/?/c", "/srv/?", "/srv/?", whole.as_str()];
        assert_eq!(texts[..4], expected);
        let expected = ["/?/srv/data", "/?/srv/data", "/?", "?"];
        assert_eq!(texts[4..], expected);
        assert_eq!(
            lost,
            [
                Lost::Node(0x9000),
                Lost::Name(0x9100),
                Lost::Name(0x4220),
                Lost::Tree(0x9220),
                Lost::Tree(0),
                Lost::Node(0),
                Lost::Node(0x9300),
            ]
        );
    }

    #[test]
    fn loops_and_limits() {
        let mut machine = machine();
        machine.node(0x4000, 0x4100, "c");
        machine.node(0x4100, 0x4000, "d");
        machine.tree(0x5000, 0x5100, 0x2000, 0x2000);
        machine.tree(0x5100, 0x5000, 0x2000, 0x2000);
        let (texts, lost) = machine.paths(&[(0x3020, 0x4000), (0x5020, 0x2000)], &LIMITS);
        assert_eq!(texts, [format!("/?{}", "/d/c".repeat(8)), "/?".to_owned()]);
        assert_eq!(lost, [Lost::Deep, Lost::Deep]);
        let few = PathLimits {
            structs: 2,
            ..LIMITS
        };
        let (texts, lost) = machine.paths(&[(0x3020, 0x1200)], &few);
        assert_eq!(
            (texts, lost),
            (vec!["/?/data".to_owned()], vec![Lost::Structs])
        );
        // The names of the first path alone have more bytes.
        let none = PathLimits { size: 7, ..LIMITS };
        let (texts, lost) = machine.paths(&[(1, 0x1200), (1, 0x1100), (1, 0x1000)], &none);
        assert_eq!(texts, ["data", "srv", "?"]);
        assert_eq!(lost, [Lost::Size]);
        let short = PathLimits { size: 12, ..LIMITS };
        let places = [
            (0x3020, 0x1200),
            (0x3020, 0x1200),
            (0x3120, 0x2200),
            (0x3020, 0x1000),
        ];
        let (texts, lost) = machine.paths(&places, &short);
        assert_eq!(texts, ["/srv/data", "/srv/data", "?", "/"]);
        assert_eq!(lost, [Lost::Size]);
    }

    #[test]
    fn paths_in_loops_are_bounded_together() {
        let mut machine = machine();
        machine.tree(0x5000, 0x5100, 0x2000, 0x2000);
        machine.tree(0x5100, 0x5000, 0x2000, 0x2000);
        // 16 steps in the first, 2 in the second, the rest in the third: the last has none.
        let limits = PathLimits {
            steps: 20,
            ..LIMITS
        };
        let places = [
            (0x5020, 0x2000),
            (0x3020, 0x1100),
            (0x3020, 0x1200),
            (0x3120, 0x2000),
        ];
        let (texts, lost) = machine.paths(&places, &limits);
        assert_eq!(texts, ["/?", "/srv", "/?/srv/data", "/?"]);
        assert_eq!(lost, [Lost::Deep, Lost::Steps, Lost::Steps]);
    }
}
