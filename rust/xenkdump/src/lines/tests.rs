use super::*;
use crate::elf::Bytes;

/// A line program of version 4 or 5: one directory, two files, and what it executes.
fn program(version: u16, instructions: &[u8]) -> Vec<u8> {
    let mut header = vec![1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
    if version >= 5 {
        // Directories and files: one column, DW_LNCT_path as DW_FORM_string, and its directory.
        header.extend([1, 1, 8, 2]);
        header.extend(b"/build\0include\0");
        header.extend([2, 1, 8, 2, 0xb, 3]);
        header.extend(b"zero.c\0\0one.c\0\0two.h\0\x01");
    } else {
        header.extend(b"include\0\0");
        header.extend(b"one.c\0\0\0\0two.h\0\x01\0\0\0");
    }
    let mut bytes = version.to_le_bytes().to_vec();
    if version >= 5 {
        bytes.extend([8, 0]);
    }
    bytes.extend((header.len() as u32).to_le_bytes());
    bytes.extend(header);
    bytes.extend(instructions);
    let mut all = (bytes.len() as u32).to_le_bytes().to_vec();
    all.extend(bytes);
    all
}

/// DW_LNE_set_address.
fn at(address: u64) -> Vec<u8> {
    [&[0, 9, 2][..], &address.to_le_bytes()].concat()
}

/// DW_LNS_set_file, DW_LNS_advance_line, DW_LNS_copy, DW_LNS_advance_pc.
fn row(file: u8, lines: u8, bytes: u8) -> Vec<u8> {
    vec![4, file, 3, lines, 1, 2, bytes]
}

/// DW_LNE_end_sequence.
const END: [u8; 3] = [0, 1, 1];

fn sections(lines: Vec<u8>) -> Sections {
    let none = || Bytes::from(Vec::new());
    Sections {
        lines: lines.into(),
        strings: none(),
        line_strings: none(),
        word: 8,
    }
}

const SPAN: Range<VirtAddr> = VirtAddr(0x1000)..VirtAddr(0x9000);

/// The files and lines at addresses, and whether all programs were read.
fn find(lines: &[u8], addresses: &[u64]) -> (Vec<Option<(String, u64)>>, bool) {
    let tables = Tables::scan(sections(lines.to_vec()), &[SPAN], MAX_LINE_SEQUENCES);
    let addresses: Vec<_> = addresses.iter().copied().map(VirtAddr).collect();
    let compiler = |_| Some("/compiler".to_owned());
    let found = tables.find(&addresses, &compiler).into_iter();
    let found = found.map(|line| line.map(|line| (line.file.to_string(), line.line)));
    (found.collect(), !tables.is_incomplete)
}

fn some(file: &str, line: u64) -> Option<(String, u64)> {
    Some((file.to_owned(), line))
}

/// Two sequences, the second one below the first.
fn two() -> Vec<u8> {
    [
        at(0x2000),
        row(1, 9, 4),
        row(2, 5, 0),
        row(1, 5, 4),
        END.to_vec(),
        at(0x1800),
        row(2, 1, 0x10),
        END.to_vec(),
    ]
    .concat()
}

#[test]
fn rows_cover_addresses_up_to_the_next_one() {
    for version in [4, 5] {
        let (found, complete) = find(
            &program(version, &two()),
            &[
                0x2004, 0x2000, 0x2003, 0x1800, 0x180f, 0x17ff, 0x1810, 0x2008, 0,
            ],
        );
        assert!(complete);
        let (first, second) = match version {
            4 => ("/compiler/one.c", "/compiler/include/two.h"),
            _ => ("/build/one.c", "/build/include/two.h"),
        };
        // The row of line 15 has no address of its own.
        assert_eq!(found[0], some(first, 20), "{version}");
        assert_eq!(found[1..3], [some(first, 10), some(first, 10)]);
        assert_eq!(found[3..5], [some(second, 2), some(second, 2)]);
        assert_eq!(found[5..], [None, None, None, None]);
    }
}

#[test]
fn code_of_no_line_and_discarded_code_are_left_out() {
    // Line 1 - 1 = 0; then a sequence that is in no section.
    let program = program(
        5,
        &[
            at(0x1000),
            vec![3, 0x7f, 1, 2, 4],
            row(1, 3, 4),
            END.to_vec(),
            at(0x10),
            row(1, 1, 8),
            END.to_vec(),
        ]
        .concat(),
    );
    let (found, complete) = find(&program, &[0x1000, 0x1004, 0x10]);
    assert!(complete);
    assert_eq!(found, [None, some("/build/one.c", 3), None]);
}

#[test]
fn damaged_programs_are_reported_and_others_are_read() {
    let good = program(5, &two());
    let mut unknown = good.clone();
    unknown[4] = 6;
    let (found, complete) = find(&[unknown, good.clone()].concat(), &[0x2000]);
    assert_eq!((found, complete), (vec![some("/build/one.c", 10)], false));
    // A size beyond the end of the section.
    let cut = &good[..good.len() - 1];
    let (found, complete) = find(&[&good[..], cut].concat(), &[0x2000]);
    assert_eq!((found, complete), (vec![some("/build/one.c", 10)], false));
}

#[test]
fn programs_beyond_the_limits_are_left_out() {
    let nops = |count| program(5, &[two(), vec![6; count]].concat());
    let at_limit = MAX_LINE_PROGRAM - nops(0).len();
    for (count, read) in [(at_limit, true), (at_limit + 1, false)] {
        let (found, complete) = find(&nops(count), &[0x2000]);
        assert_eq!((found[0].is_some(), complete), (read, read), "{count}");
    }
    // A header that claims to be large is not parsed: its names take 200 times its size.
    let mut large = program(5, &[two(), vec![6; 1 << 20]].concat());
    large[8..12].copy_from_slice(&(1_u32 << 19).to_le_bytes());
    assert_eq!(find(&large, &[0x2000]), (vec![None], false));
}

#[test]
fn sequences_beyond_the_limit_are_left_out() {
    let sections = sections(program(5, &two()));
    for (limit, incomplete) in [(2, false), (1, true)] {
        let (found, is_incomplete) = scan(&sections, &[SPAN], limit);
        assert_eq!((found.len(), is_incomplete), (limit, incomplete));
    }
}

/// Without the limit, each of the addresses would be met in each of the sequences.
#[test]
fn overlapping_sequences_take_bounded_time() {
    let sequence = [at(0x1000), row(1, 3, 0x7f), row(1, 1, 0x7f), END.to_vec()].concat();
    let addresses: Vec<u64> = (0x1000..0x10fe).cycle().take(1 << 18).collect();
    let (found, complete) = find(&program(5, &sequence.repeat(1 << 16)), &addresses);
    assert!(complete);
    assert_eq!(
        (&found[0], &found[0x7f]),
        (&some("/build/one.c", 4), &some("/build/one.c", 5))
    );
}

#[test]
fn any_byte_may_be_wrong() {
    for version in [4, 5] {
        let valid = program(version, &two());
        for i in 0..valid.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff, valid[i] ^ 1] {
                let mut bytes = valid.clone();
                bytes[i] = byte;
                let _ = find(&bytes, &[0x1800, 0x2000, 0x2004]);
            }
            let _ = find(&valid[..i], &[0x2000]);
        }
    }
}
