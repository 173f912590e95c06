//! Files that change while mapped, and paths that are not regular files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use xenkdump::file::{MappedFile, ReadError, RegularFile};
use xenkdump::Error;

const PAGE: u64 = 4096;

/// A temporary file, removed on drop.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, len: u64) -> Self {
        let path = std::env::temp_dir().join(format!("xenkdump-{}-{name}", std::process::id()));
        let bytes: Vec<u8> = (0..len).map(byte).collect();
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn truncate(&self, len: u64) {
        File::options()
            .write(true)
            .open(&self.0)
            .unwrap()
            .set_len(len)
            .unwrap();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The expected byte at an offset: never zero.
fn byte(offset: u64) -> u8 {
    (offset % 251) as u8 + 1
}

fn has_correct_contents(offset: u64, bytes: &[u8]) -> bool {
    bytes
        .iter()
        .zip(offset..)
        .all(|(found, at)| *found == byte(at))
}

#[test]
fn holes_are_passed_over_up_to_the_next_data() {
    const MIB: u64 = 1 << 20;
    let file = Temporary::new("holes", 0);
    let written = File::options().write(true).open(&file.0).unwrap();
    written.write_all_at(b"start", 0).unwrap();
    written.write_all_at(b"middle", 40 * MIB).unwrap();
    written.set_len(64 * MIB).unwrap();
    drop(written);
    let mapped = MappedFile::open(&file.0).unwrap();
    for (offset, data) in [
        (0, 0),
        (3, 3),
        (9 * MIB + 5, 40 * MIB),
        (63 * MIB, 64 * MIB),
    ] {
        let found = mapped.next_data(offset);
        // A file system without holes has data everywhere.
        assert!((offset..=data).contains(&found), "{offset:#x}: {found:#x}");
    }
    assert_eq!(mapped.next_data(40 * MIB), 40 * MIB);
    assert_eq!(mapped.next_data(65 * MIB), 65 * MIB);
    assert_eq!(mapped.next_data(u64::MAX), u64::MAX);
}

#[test]
fn reads_fail_only_past_the_truncation() {
    let (file, other) = (
        Temporary::new("truncated", 64 * PAGE),
        Temporary::new("other", 8 * PAGE),
    );
    let mapped = MappedFile::open(&file.0).unwrap();
    let untouched = MappedFile::open(&other.0).unwrap();
    file.truncate(10 * PAGE + 100);
    let mut buf = [0; 300];
    for offset in [63 * PAGE, 11 * PAGE, 10 * PAGE + 4000, 10 * PAGE + 200] {
        assert_eq!(
            mapped.read_at(offset, &mut buf),
            Err(ReadError::PastEnd),
            "{offset}"
        );
    }
    for offset in [0, 9 * PAGE + 3000, 10 * PAGE - 200] {
        assert_eq!(mapped.read_at(offset, &mut buf), Ok(()));
        assert!(has_correct_contents(offset, &buf));
    }
    assert_eq!(untouched.read_at(7 * PAGE, &mut buf), Ok(()));
    assert!(has_correct_contents(7 * PAGE, &buf));
    // A regrown file has different bytes. Reads return its current contents.
    file.truncate(64 * PAGE);
    assert_eq!(mapped.read_at(63 * PAGE, &mut buf), Ok(()));
    assert_eq!(buf, [0; 300]);
}

/// The kernel zero-fills the rest of the last page of a truncated file, without a signal.
#[test]
fn rest_of_a_truncated_page_is_an_error() {
    let len = 8 * PAGE + 1000;
    for page in 0..9 {
        for into in [1, 2000, 4090] {
            let length = page * PAGE + into;
            // The first read is of a touched page, or of an untouched one.
            for touched in [false, true] {
                let file = Temporary::new("within", len);
                let mapped = MappedFile::open(&file.0).unwrap();
                let mut buf = [0; 5];
                let rest = (page * PAGE + 4091).min(len - 5);
                if touched {
                    assert_eq!(mapped.read_at(rest, &mut buf), Ok(()));
                }
                file.truncate(length.min(len - 1));
                assert_eq!(
                    mapped.read_at(rest, &mut buf),
                    Err(ReadError::PastEnd),
                    "truncated to {length:#x}"
                );
                let mut byte = [0];
                assert_eq!(mapped.read_at(page * PAGE, &mut byte), Ok(()));
                assert!(has_correct_contents(page * PAGE, &byte));
            }
        }
    }
}

#[test]
fn threads_do_not_read_zeros() {
    let file = Temporary::new("threads", 512 * PAGE);
    for round in 0..20 {
        fs::write(&file.0, (0..512 * PAGE).map(byte).collect::<Vec<_>>()).unwrap();
        let mapped = MappedFile::open(&file.0).unwrap();
        let truncated = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (mapped, truncated) = (&mapped, &truncated);
                scope.spawn(move || {
                    let mut buf = vec![0; 10_000];
                    let mut after = 0;
                    for i in 0.. {
                        let offset = (i * 7919 + thread * 104_729) % (512 * PAGE - 10_000);
                        if mapped.read_at(offset, &mut buf).is_ok() {
                            assert!(
                                has_correct_contents(offset, &buf),
                                "round {round}, offset {offset:#x}"
                            );
                        }
                        after += u64::from(truncated.load(Ordering::Relaxed));
                        if after > 300 {
                            break;
                        }
                    }
                });
            }
            file.truncate(100 * PAGE + 100 * round);
            truncated.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn mappings_beyond_the_table_are_readable() {
    let file = Temporary::new("many", PAGE);
    let mapped: Vec<_> = (0..1500).map(|_| MappedFile::open(&file.0)).collect();
    let mut buf = [0; 64];
    let mut opened = 0;
    for mapped in mapped {
        match mapped {
            Ok(mapped) => {
                opened += 1;
                assert_eq!(mapped.read_at(1000, &mut buf), Ok(()));
                assert!(has_correct_contents(1000, &buf));
            }
            // The system's limit of open files.
            Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
        }
    }
    assert!(opened > 500);
}

#[test]
fn irregular_files_are_rejected() {
    let folder = std::env::temp_dir().join(format!("xenkdump-{}-kinds", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let pipe = folder.join("pipe");
    assert!(Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap()
        .success());
    for (path, found) in [
        (folder.as_path(), "a directory"),
        (&pipe, "a pipe"),
        (Path::new("/dev/zero"), "a character device"),
    ] {
        for error in [RegularFile::open(path).err(), MappedFile::open(path).err()] {
            let error = error.unwrap().to_string();
            let path = path.display();
            assert_eq!(
                error,
                format!("{path}: expected a regular file, found {found}")
            );
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_empty_file_has_no_bytes() {
    let file = Temporary::new("empty", 0);
    let mapped = MappedFile::open(&file.0).unwrap();
    assert_eq!(mapped.read_at(0, &mut [0]), Err(ReadError::PastEnd));
    assert_eq!(mapped.read_at(0, &mut []), Ok(()));
    assert_eq!(mapped.copy(u64::MAX, u64::MAX), Err(ReadError::PastEnd));
}

/// Files of /proc have no length, and many cannot be mapped.
#[test]
fn file_system_without_mmap_is_readable() {
    let mapped = MappedFile::open(Path::new("/proc/self/mem")).unwrap();
    assert_eq!(mapped.read_at(0, &mut [0]), Err(ReadError::PastEnd));
}

/// The role of a child process of this test.
const ROLE: &str = "XENKDUMP_TEST_ROLE";

fn child(role: &str) -> std::process::ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--nocapture"])
        .env(ROLE, role)
        .output()
        .unwrap()
        .status
}

extern "C" fn exit_42(_: libc::c_int) {
    // SAFETY: async-signal-safe, and never returns.
    unsafe { libc::_exit(42) }
}

/// Not a test: the code that the tests below run in a process that may be killed.
#[test]
fn child_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let file = Temporary::new(&format!("child-{role}"), 16 * PAGE);
    if role != "default" {
        let handler = exit_42 as extern "C" fn(libc::c_int) as usize;
        // SAFETY: the handler has the signature of one without SA_SIGINFO.
        unsafe { libc::signal(libc::SIGBUS, handler) };
    }
    let mapped = MappedFile::open(&file.0).unwrap();
    if role == "covered" {
        // A handler that replaces ours. The next mapping reinstalls ours in front of it.
        let handler = exit_42 as extern "C" fn(libc::c_int) as usize;
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGBUS, handler) };
        let again = MappedFile::open(&file.0).unwrap();
        file.truncate(0);
        assert_eq!(again.read_at(PAGE, &mut [0]), Err(ReadError::PastEnd));
        std::process::exit(3);
    }
    // SAFETY: a mapping that is not ours, read only below.
    let foreign = unsafe { memmap2::Mmap::map(&File::open(&file.0).unwrap()) };
    file.truncate(0);
    assert_eq!(mapped.read_at(PAGE, &mut [0]), Err(ReadError::PastEnd));
    if role == "sent" {
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(libc::SIGBUS) };
    }
    let foreign = foreign.unwrap();
    fs::remove_file(&file.0).unwrap();
    assert_ne!(
        std::hint::black_box(&foreign)[5000],
        1,
        "no signal was delivered"
    );
    std::process::exit(4);
}

#[test]
fn a_fault_elsewhere_kills_the_process() {
    assert_eq!(child("default").signal(), Some(libc::SIGBUS));
}

#[test]
fn a_fault_elsewhere_is_passed_to_the_previous_handler() {
    assert_eq!(child("handled").code(), Some(42));
}

#[test]
fn a_sent_signal_is_passed_to_the_previous_handler() {
    assert_eq!(child("sent").code(), Some(42));
}

#[test]
fn the_next_mapping_reinstalls_the_handler() {
    assert_eq!(child("covered").code(), Some(3));
}
