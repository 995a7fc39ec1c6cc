//! `.jsonl` and `.json`: one object per line, or one array of objects.

use std::path::Path;

use serde_json::value::RawValue;

use super::{check_utf8, line_starts};
use crate::data::table::{Bytes, RecordEncoding, RecordFile};
use halfbyte_core::error::{Error, Result};

/// Opens the file. A record is parsed when it is read; an array is scanned once to find its elements.
pub fn open(path: &Path) -> Result<RecordFile> {
    let bytes = Bytes::map(path)?;
    check_utf8(path, &bytes)?;
    // Some editors put a byte-order mark at the beginning of a file.
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let skipped = bytes.len() - text.len();
    let (layout, starts) = match text.trim_ascii_start().first() {
        Some(b'[') => {
            (RecordEncoding::Values, elements(path, text)?.into_iter().map(|start| start + skipped).collect())
        }
        _ => (RecordEncoding::Lines, lines(path, &bytes, skipped)?),
    };
    let starts = starts.into_iter().map(|start| start as u64).collect();
    Ok(RecordFile { path: path.into(), bytes, layout, starts })
}

/// The byte offsets of the elements of an array.
fn elements(path: &Path, text: &[u8]) -> Result<Vec<usize>> {
    let elements: Vec<&RawValue> =
        serde_json::from_slice(text).map_err(|e| Error::input(format!("{}: not valid JSON: {e}", path.display())))?;
    Ok(elements.iter().map(|e| e.get().as_ptr().addr() - text.as_ptr().addr()).collect())
}

/// The byte offsets of the lines that are not blank, starting at byte `from`.
fn lines(path: &Path, bytes: &Bytes, from: usize) -> Result<Vec<usize>> {
    let line = |start: usize| bytes[start..].split(|&b| b == b'\n').next().unwrap_or_default();
    let starts = line_starts(bytes, from, |start| !line_is_blank(&bytes[start..]));
    // One object over several lines is a common way to write columns; its first line is not a record.
    if let Some(&first) = starts.first()
        && starts.len() > 1
        && line(first).trim_ascii() == b"{"
    {
        return Err(Error::input(format!(
            "{}: one object over several lines is not a list of records",
            path.display()
        ))
        .hint("write an array of objects, [{…}, {…}], or one object per line"));
    }
    Ok(starts)
}

fn line_is_blank(rest: &[u8]) -> bool {
    rest.iter().take_while(|&&b| b != b'\n').all(u8::is_ascii_whitespace)
}
