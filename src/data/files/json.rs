//! `.jsonl` and `.json`: an object per line, or one array of objects.

use std::path::Path;

use serde_json::value::RawValue;

use super::{check_utf8, line_starts};
use crate::data::table::{Block, Bytes, Layout};
use crate::error::{Error, Result};

/// A line is parsed when its record is asked for; an array is walked once, to find its elements.
pub fn open(path: &Path) -> Result<Block> {
    let bytes = Bytes::map(path)?;
    check_utf8(path, &bytes)?;
    // Some editors begin a file with a byte-order mark.
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let skipped = bytes.len() - text.len();
    let (layout, starts) = match text.trim_ascii_start().first() {
        Some(b'[') => (Layout::Values, elements(path, text)?),
        _ => (Layout::Lines, lines(path, text)?),
    };
    let starts = starts.into_iter().map(|start| (start + skipped) as u64).collect();
    Ok(Block { path: path.into(), bytes, layout, starts })
}

/// Where the elements of an array begin.
fn elements(path: &Path, text: &[u8]) -> Result<Vec<usize>> {
    let elements: Vec<&RawValue> =
        serde_json::from_slice(text).map_err(|e| Error::input(format!("{}: not valid JSON: {e}", path.display())))?;
    Ok(elements.iter().map(|e| e.get().as_ptr().addr() - text.as_ptr().addr()).collect())
}

/// Where the lines begin that are not blank.
fn lines(path: &Path, text: &[u8]) -> Result<Vec<usize>> {
    let blank = |start: usize| {
        let rest = text[start..].iter().take_while(|&&b| b != b'\n');
        rest.into_iter().all(u8::is_ascii_whitespace)
    };
    let starts: Vec<usize> = line_starts(text).filter(|&start| !blank(start)).collect();
    // One object over several lines is a common way to write columns; its first line is no record.
    if let Some(&first) = starts.first()
        && starts.len() > 1
        && text[first..].split(|&b| b == b'\n').next().is_some_and(|l| l.trim_ascii() == b"{")
    {
        return Err(Error::input(format!(
            "{}: one object over several lines is not a list of records",
            path.display()
        ))
        .hint("write an array of objects, [{…}, {…}], or one object per line"));
    }
    Ok(starts)
}
