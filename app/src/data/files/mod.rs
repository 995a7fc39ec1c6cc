//! Opens data files of all formats as records.

mod csv;
mod json;
mod parquet;
mod text;

use std::path::Path;

use crate::data::table::{Bytes, RecordFile};
use halfbyte_core::error::{Error, Result};

/// A file format, by extension.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FileFormat {
    /// `.jsonl`, `.ndjson` or `.json`: one object per line, or one array of objects.
    Json,
    /// `.csv` with a header line; every value is text.
    Csv,
    /// `.parquet`.
    Parquet,
    /// `.txt`: every line is a record with the column `text`.
    Text,
}

impl FileFormat {
    /// The format of a file with this name, if it is one of ours.
    pub fn of(path: &Path) -> Option<FileFormat> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" | "json" => Some(FileFormat::Json),
            "csv" => Some(FileFormat::Csv),
            "parquet" => Some(FileFormat::Parquet),
            "txt" => Some(FileFormat::Text),
            _ => None,
        }
    }
}

/// The records of the file at `path`.
pub fn open(path: &Path) -> Result<RecordFile> {
    let Some(format) = FileFormat::of(path) else {
        let hint = "data files are .jsonl, .json, .csv, .parquet or .txt";
        return Err(Error::input(format!("{}: unknown kind of data file", path.display())).hint(hint));
    };
    match format {
        FileFormat::Json => json::open(path),
        FileFormat::Csv => csv::open(path),
        FileFormat::Parquet => parquet::open(path),
        FileFormat::Text => text::open(path),
    }
}

/// Bytes that are scanned before their pages are released.
const AT_ONCE: usize = 64 << 20;

/// The byte offsets of the lines for which `keep` is true, starting at byte `from`.
fn line_starts(bytes: &Bytes, from: usize, keep: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut add = |start: usize| starts.extend(Some(start).filter(|&start| start < bytes.len() && keep(start)));
    add(from);
    for begin in (from..bytes.len()).step_by(AT_ONCE) {
        let part = &bytes[begin..bytes.len().min(begin + AT_ONCE)];
        part.iter().enumerate().filter(|(_, b)| **b == b'\n').for_each(|(i, _)| add(begin + i + 1));
        bytes.forget();
    }
    starts
}

/// Errors if `bytes` are not UTF-8, and names the line.
fn check_utf8(path: &Path, bytes: &Bytes) -> Result<()> {
    let Some(valid) = valid_up_to(bytes, AT_ONCE, &|| bytes.forget()) else {
        return Ok(());
    };
    let before = &bytes[..valid];
    let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|&&b| b != b'\n').count();
    Err(Error::input(format!("{} line {line}: invalid UTF-8 at byte {column} of the line", path.display()))
        .hint("convert the file: iconv -f latin1 -t utf-8 (or the encoding that it has)"))
}

/// The offset of the first byte that is not UTF-8; None if all are. Checks `at_once` bytes at a time and calls `done`
/// after each part.
fn valid_up_to(bytes: &[u8], at_once: usize, done: &dyn Fn()) -> Option<usize> {
    let mut valid = 0;
    while valid < bytes.len() {
        let end = bytes.len().min(valid + at_once);
        valid = match std::str::from_utf8(&bytes[valid..end]) {
            Ok(_) => end,
            // A character that is split at the end of a part begins the next part.
            Err(error) if error.error_len().is_none() && end < bytes.len() => valid + error.valid_up_to(),
            Err(error) => return Some(valid + error.valid_up_to()),
        };
        done();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_invalid_byte_is_found_wherever_the_parts_are_cut() {
        let text = "a한é𝄞\nб".repeat(3).into_bytes();
        for at_once in 4..20 {
            assert_eq!(valid_up_to(&text, at_once, &|| ()), None, "{at_once}");
            for i in 0..text.len() {
                let mut wrong = text.clone();
                wrong[i] = 0xFF;
                let expected = std::str::from_utf8(&wrong).unwrap_err().valid_up_to();
                assert_eq!(valid_up_to(&wrong, at_once, &|| ()), Some(expected), "{at_once}, byte {i}");
            }
            let cut = &text[..text.len() - 1];
            assert_eq!(valid_up_to(cut, at_once, &|| ()), Some(text.len() - 2), "{at_once}");
        }
    }
}
