//! Lists of numbers in a stream. Their lengths are claims: a hole of the file is a list of zeros of any
//! length that costs the file nothing.

use super::cursor::Cursor;
use crate::addr::Word;
use crate::file::Storage;
use crate::Result;

/// Bytes that are read at once.
const CHUNK: usize = 4096;

/// Calls `f` with each of the `count` numbers at the cursor, and how often it is repeated: zeros of a hole
/// are one call. `None` if the file ends before the list; `f` gets the numbers that it has.
pub(super) fn for_each_number<S: Storage>(
    cursor: &mut Cursor<'_, S>,
    word: Word,
    count: u64,
    mut f: impl FnMut(u64, u64) -> Result<()>,
) -> Result<Option<()>> {
    let size = word.bytes() as u64;
    let mut chunk = [0; CHUNK];
    let mut left = count;
    while left > 0 {
        let in_file = |at: u64, numbers: u64| {
            let len = numbers.saturating_mul(size);
            cursor.storage.held(at, len) / size
        };
        let numbers = in_file(cursor.at, left.min(CHUNK as u64 / size));
        let bytes = chunk.get_mut(..(numbers * size) as usize);
        let bytes = bytes.unwrap_or_default();
        if bytes.is_empty() {
            return Ok(None);
        }
        let next = cursor.at.saturating_add(bytes.len() as u64);
        let Some(()) = cursor.fill(bytes)? else {
            return Ok(None);
        };
        left -= numbers;
        if bytes.iter().all(|byte| *byte == 0) {
            let hole = cursor.storage.next_data(next).saturating_sub(next) / size;
            let more = in_file(next, hole.min(left));
            cursor.at = next.saturating_add(more * size);
            left -= more;
            f(0, numbers + more)?;
            continue;
        }
        for number in bytes.chunks_exact(word.bytes()) {
            let number = number.iter().rev();
            f(number.fold(0, |all, byte| all << 8 | u64::from(*byte)), 1)?;
        }
    }
    Ok(Some(()))
}
