//! The headers of xl, of xend (xm) and of libvirt before a stream.

use super::contents::Contents;
use super::cursor::Cursor;
use crate::file::Storage;
use crate::notes::save;
use crate::Result;

/// `savefileheader_magic` of xl.
pub(super) const MAGIC: [u8; 32] = *b"Xen saved domain, xl format\n \0 \r";
/// `SAVEFILE_BYTEORDER_VALUE`.
const BYTE_ORDER: u32 = 0x0102_0304;

/// `SIGNATURE` of xend's `XendCheckpoint.py`.
pub(super) const XEND_MAGIC: [u8; 16] = *b"LinuxGuestRecord";

/// `LIBXL_SAVE_MAGIC` of libvirt's driver for libxl.
pub(super) const LIBVIRT_MAGIC: [u8; 16] = *b"libvirt-xml\n \0 \r";
/// Size of `libxlSavefileHeader`: the magic number, a version, the size of the XML, reserved fields.
const LIBVIRT_HEADER: u64 = 64;

/// Passes over the header of xl and its optional data, which start with the configuration; `None` if the
/// file ends before.
pub(super) fn read<S: Storage>(
    cursor: &mut Cursor<'_, S>,
    contents: &mut Contents<'_, S>,
) -> Result<Option<()>> {
    let at = cursor.at;
    if cursor.skip(MAGIC.len() as u64).is_none() {
        return Ok(None);
    }
    // Both sets of flags say what the optional data and the stream are, as the stream's own header does.
    let (Some(order), Some(_), Some(_), Some(optional)) =
        (cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?)
    else {
        return Ok(None);
    };
    if order != BYTE_ORDER {
        let found = format!("{order:#x}");
        let file = contents.storage.file();
        return Err(file.format_error(at + 32, "the byte order of an x86 host", found));
    }
    let Some(data) = cursor.skip(optional.into()) else {
        return Ok(None);
    };
    let mut inside = Cursor {
        storage: contents.storage,
        at: data.offset,
    };
    if let (Some(after), Some(size)) = (data.after(4), inside.u32()?) {
        let config = super::cursor::Range {
            size: after.size.min(u64::from(size)),
            ..after
        };
        contents.list(save::XL_CONFIG, 0, config);
    }
    Ok(Some(()))
}

/// Passes over the header of xend and its configuration, an s-expression.
pub(super) fn read_xend<S: Storage>(
    cursor: &mut Cursor<'_, S>,
    contents: &mut Contents<'_, S>,
) -> Result<Option<()>> {
    let Some(header) = cursor.take::<20>()? else {
        return Ok(None);
    };
    let size = header
        .last_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let Some(config) = cursor.skip(size.into()) else {
        return Ok(None);
    };
    contents.list(save::XEND_CONFIG, 0, config);
    Ok(Some(()))
}

/// Passes over the header of libvirt and the domain's XML.
pub(super) fn read_libvirt<S: Storage>(
    cursor: &mut Cursor<'_, S>,
    contents: &mut Contents<'_, S>,
) -> Result<Option<()>> {
    let start = cursor.at;
    cursor.at += LIBVIRT_MAGIC.len() as u64;
    // Version 1 is before libxl's stream had a header: the stream itself shows it.
    let (Some(_version), Some(size)) = (cursor.u32()?, cursor.u32()?) else {
        return Ok(None);
    };
    cursor.at = start + LIBVIRT_HEADER;
    let Some(config) = cursor.skip(size.into()) else {
        return Ok(None);
    };
    contents.list(save::LIBVIRT_CONFIG, 0, config);
    Ok(Some(()))
}
