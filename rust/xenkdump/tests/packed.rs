//! Compressed images, and kernels as they are booted.

mod hostile;

use std::path::PathBuf;

use hostile::packed::{bytes, bzimage, SEEDS};
use xenkdump::image::{head, Image};

/// The size of the file that was compressed.
const SIZE: u32 = 408;

/// A file that is removed in the end.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("xenkdump-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn error(&self) -> String {
        Image::open(&self.0).unwrap_err().to_string()
    }

    fn opens(&self) {
        let image = Image::open(&self.0).unwrap();
        let text = image.data(".text").unwrap();
        assert_eq!(&text[..96], [0x90; 96]);
        assert_eq!(text[127], 31);
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn every_compression_is_read() {
    for (name, digits) in SEEDS {
        let file = File::new(name, &bytes(digits));
        file.opens();
        assert_eq!(&head(&file.0, 4).unwrap(), b"\x7fELF");
    }
}

#[test]
fn a_payload_is_found_by_the_header_or_by_its_magic_number() {
    for (name, digits) in SEEDS {
        for version in [0x0206, 0x0208, 0x020f] {
            let kernel = bzimage(name, bytes(digits), SIZE, version);
            File::new(&format!("{name}-{version}"), &kernel).opens();
        }
    }
}

#[test]
fn cut_streams_and_wrong_sizes_are_errors() {
    for (name, digits) in SEEDS {
        let stream = bytes(digits);
        let cut = File::new(&format!("{name}-cut"), &stream[..stream.len() - 30]);
        let error = cut.error();
        assert!(
            error.contains("an intact") || error.contains("ELF"),
            "{name}: {error}"
        );
        if name != "gzip" {
            let kernel = bzimage(name, stream, SIZE + 1, 0x020f);
            let error = File::new(&format!("{name}-size"), &kernel).error();
            assert!(error.contains("a kernel of"), "{name}: {error}");
        }
    }
}
