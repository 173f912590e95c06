//! Decompresses pages. A page never expands beyond its own size.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};

use crate::alloc;

/// How the bytes of a page are compressed: the flags of its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Zlib,
    Lzo,
    Snappy,
    Zstd,
}

impl Codec {
    /// The codec of a descriptor's flags; `None` for a page that is stored. Fails for flags that no
    /// known version of makedumpfile writes: what they mean is unknown.
    pub fn of(flags: u32) -> Result<Option<Self>, &'static str> {
        match flags {
            0 => Ok(None),
            0x1 => Ok(Some(Self::Zlib)),
            0x2 => Ok(Some(Self::Lzo)),
            0x4 => Ok(Some(Self::Snappy)),
            0x20 => Ok(Some(Self::Zstd)),
            _ => Err("an unknown compression"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Lzo => "LZO",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }
}

/// Bytes of a decoder's state, and what the allocator asks the system for beyond it. zlib-rs panics if
/// there is no memory for it.
const STATE: usize = 512 << 10;

/// The state of decoders, which is larger than a page and takes time to set up. Each is made when its
/// first page is read.
struct Decoders {
    zlib: Option<Decompress>,
    zstd: Option<zstd_safe::DCtx<'static>>,
}

thread_local! {
    static DECODERS: RefCell<Decoders> = const {
        RefCell::new(Decoders {
            zlib: None,
            zstd: None,
        })
    };
}

/// Fills all of `page` from `packed`; fails with the codec's name if it expands to another size. Unwinds
/// if there is no memory for the decoder (see [`crate::alloc`]).
pub(super) fn decompress(codec: Codec, packed: &[u8], page: &mut [u8]) -> Result<(), &'static str> {
    let filled = match codec {
        Codec::Zlib => DECODERS.with_borrow_mut(|decoders| {
            let decoder = decoders.zlib.get_or_insert_with(|| {
                alloc::probe(STATE);
                Decompress::new(true)
            });
            zlib(decoder, packed, page)
        }),
        Codec::Lzo => lzokay::decompress::decompress(packed, page).ok(),
        Codec::Snappy => snap::raw::Decoder::new().decompress(packed, page).ok(),
        Codec::Zstd => DECODERS.with_borrow_mut(|decoders| {
            if decoders.zstd.is_none() {
                alloc::probe(STATE);
                decoders.zstd = zstd_safe::DCtx::try_create();
            }
            let Some(decoder) = &mut decoders.zstd else {
                alloc::fail(STATE)
            };
            decoder.decompress(page, packed).ok()
        }),
    };
    if filled == Some(page.len()) {
        Ok(())
    } else {
        Err(codec.name())
    }
}

fn zlib(decoder: &mut Decompress, packed: &[u8], page: &mut [u8]) -> Option<usize> {
    decoder.reset(true);
    let status = decoder.decompress(packed, page, FlushDecompress::Finish);
    let ended = matches!(status, Ok(Status::StreamEnd));
    ended.then_some(usize::try_from(decoder.total_out()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const ALL: [Codec; 4] = [Codec::Zlib, Codec::Lzo, Codec::Snappy, Codec::Zstd];

    /// LZO: the length of a literal run, the run, and the end of the stream.
    fn lzo_literal(bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0];
        let mut more = bytes.len() - 18;
        while more > 255 {
            out.push(0);
            more -= 255;
        }
        out.push(more as u8);
        out.extend(bytes);
        out.extend([0x11, 0, 0]);
        out
    }

    fn pack(codec: Codec, page: &[u8]) -> Vec<u8> {
        match codec {
            Codec::Zlib => {
                let mut zlib = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::fast());
                zlib.write_all(page).unwrap();
                zlib.finish().unwrap()
            }
            Codec::Lzo => lzo_literal(page),
            Codec::Snappy => snap::raw::Encoder::new().compress_vec(page).unwrap(),
            Codec::Zstd => {
                let mut out = Vec::with_capacity(zstd_safe::compress_bound(page.len()));
                zstd_safe::compress(&mut out, page, 1).unwrap();
                out
            }
        }
    }

    #[test]
    fn a_page_has_its_size_or_is_corrupt() {
        let page: Vec<u8> = (0..4096u32).map(|i| ((i * i) >> 7) as u8).collect();
        for codec in ALL {
            for len in [4096, 4095, 4097, 8192] {
                let bytes: Vec<u8> = page.iter().copied().cycle().take(len).collect();
                let packed = pack(codec, &bytes);
                let mut out = [0; 4096];
                let expected = if len == 4096 {
                    Ok(())
                } else {
                    Err(codec.name())
                };
                assert_eq!(decompress(codec, &packed, &mut out), expected, "{codec:?}");
                if len == 4096 {
                    assert_eq!(out[..], page[..]);
                    // What is cut is corrupt, and does not affect the next page.
                    for cut in [0, 1, packed.len() / 2, packed.len() - 1] {
                        let result = decompress(codec, &packed[..cut], &mut out);
                        assert_eq!(result, Err(codec.name()), "{codec:?} {cut}");
                    }
                    assert_eq!(decompress(codec, &packed, &mut out), Ok(()));
                }
            }
        }
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert_eq!(Codec::of(0), Ok(None));
        for flags in [0x3, 0x8, 0x10, 0x40, u32::MAX] {
            assert!(Codec::of(flags).is_err());
        }
    }
}
