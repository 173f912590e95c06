//! Files whose records claim lists in a hole: the work is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::super::container::Container;
use super::{open, xl};
use crate::addr::MachineAddr;
use crate::file::{ReadError, RegularFile, Storage};

/// A file that starts with `head`, goes on with a hole and ends with `tail`.
#[derive(Debug)]
struct Sparse {
    file: RegularFile,
    head: Vec<u8>,
    hole: u64,
    tail: Vec<u8>,
    reads: Arc<AtomicU64>,
}

impl Sparse {
    fn tail_at(&self) -> u64 {
        self.head.len() as u64 + self.hole
    }
}

impl Storage for Sparse {
    fn file(&self) -> &RegularFile {
        &self.file
    }

    fn len(&self) -> u64 {
        self.tail_at() + self.tail.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.held(offset, buf.len() as u64) < buf.len() as u64 {
            return Err(ReadError::PastEnd);
        }
        for (at, byte) in (offset..).zip(buf) {
            let in_tail = at.checked_sub(self.tail_at());
            *byte = match in_tail {
                Some(at) => self.tail[at as usize],
                None => self.head.get(at as usize).copied().unwrap_or(0),
            };
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> u64 {
        if offset < self.head.len() as u64 {
            offset
        } else {
            offset.max(self.tail_at())
        }
    }
}

const HOLE: u64 = 4 << 30;
/// Far fewer than the numbers in the hole.
const MOST_READS: u64 = 200;

/// Opens the file; what it holds and how many reads that took.
fn opened(head: Vec<u8>, hole: u64, tail: Vec<u8>) -> (Box<dyn Container>, u64) {
    let reads = Arc::new(AtomicU64::new(0));
    let file = RegularFile::open(&std::env::current_exe().unwrap()).unwrap();
    let sparse = Sparse {
        file,
        head,
        hole,
        tail,
        reads: reads.clone(),
    };
    let opened = open(sparse).unwrap();
    (opened, reads.load(Ordering::Relaxed))
}

fn warnings(container: &dyn Container) -> String {
    let warnings = container.headers().warnings.as_slice();
    warnings.join("\n")
}

/// The headers of libxc's stream of an HVM domain, and the header of a record.
fn stream(kind: u32, size: u64) -> Vec<u8> {
    let mut head = super::libxc::MAGIC.to_vec();
    head.extend(3_u32.to_be_bytes());
    head.resize(24, 0);
    for number in [2, 12, 4, 17, kind, size as u32] {
        head.extend(number.to_le_bytes());
    }
    head
}

#[test]
fn a_list_of_pages_in_a_hole_takes_few_reads() {
    // The list fills the record, which has no space for the pages.
    let size = HOLE - 64;
    let count = (size / 8 - 1) as u32;
    let mut head = stream(1, size);
    head.extend(u64::from(count).to_le_bytes());
    let (container, reads) = opened(head, size - 8, vec![0; 8]);
    assert!(reads < MOST_READS, "{reads}");
    let text = warnings(&*container);
    assert!(
        text.contains(&format!("its {count} pages are lost")),
        "{text}"
    );
    assert_eq!(container.memory_held(), 0);
}

#[test]
fn of_a_page_that_is_repeated_in_a_hole_the_last_copy_is_valid() {
    // Page 0 a million times, and the bytes of each copy.
    let count = 1_000_000_u64;
    let size = 8 + count * (8 + 4096);
    let mut head = stream(1, size);
    head.extend(count.to_le_bytes());
    let mut tail = vec![7; 4096];
    // The record ends within the tail, which goes on with the END record.
    tail.extend([0; 8]);
    let (container, reads) = opened(head, size - 8 - 4096, tail);
    assert!(reads < MOST_READS, "{reads}");
    assert_eq!(warnings(&*container), "");
    assert_eq!(container.memory_held(), 4096);
    let mut bytes = [0; 16];
    container.read(MachineAddr(0), &mut bytes).unwrap();
    assert_eq!(bytes, [7; 16]);
}

#[test]
fn pages_that_went_away_in_a_hole_take_few_reads() {
    // The old stream of a PV domain of 512 pages.
    let mut head = xl::MAGIC.to_vec();
    for number in [0x0102_0304_u32, 0, 0, 0] {
        head.extend(number.to_le_bytes());
    }
    head.extend([512_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat());
    head.extend((8 + 5168_u32).to_le_bytes());
    head.extend(b"vcpu");
    head.extend(5168_u32.to_le_bytes());
    head.resize(head.len() + 5168, 0);
    // The frame list, and no batch of pages.
    head.extend([0; 8 + 4]);
    let count = (HOLE / 8) as u32;
    head.extend(count.to_le_bytes());
    let (container, reads) = opened(head, 8 * u64::from(count), vec![0; 5168 + 4096]);
    assert!(reads < MOST_READS, "{reads}");
    assert_eq!(warnings(&*container), "the stream has no memory");
}
