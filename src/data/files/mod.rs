//! File formats: each becomes a block of records.

mod csv;
mod json;
mod parquet;
mod text;

use std::path::Path;

use crate::data::table::Block;
use crate::error::{Error, Result};

/// A file format, by extension.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Format {
    /// `.jsonl`, `.ndjson` or `.json`: an object per line, or one array of objects.
    Json,
    /// `.csv` with a header line; every value is text.
    Csv,
    /// `.parquet`.
    Parquet,
    /// `.txt`: every line is a record with the column `text`.
    Text,
}

impl Format {
    /// The format of a file with this name, if it is one of ours.
    pub fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" | "json" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            "parquet" => Some(Format::Parquet),
            "txt" => Some(Format::Text),
            _ => None,
        }
    }
}

/// The records of the file at `path`.
pub fn open(path: &Path) -> Result<Block> {
    let Some(format) = Format::of(path) else {
        let hint = "data files are .jsonl, .json, .csv, .parquet or .txt";
        return Err(Error::input(format!("{}: unknown kind of data file", path.display())).hint(hint));
    };
    match format {
        Format::Json => json::open(path),
        Format::Csv => csv::open(path),
        Format::Parquet => parquet::open(path),
        Format::Text => text::open(path),
    }
}

/// Where the lines of `text` begin.
fn line_starts(text: &[u8]) -> impl Iterator<Item = usize> {
    let after_newlines = text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
    std::iter::once(0).chain(after_newlines).filter(|&start| start < text.len())
}

/// An error if `bytes` are not UTF-8, naming the line.
fn check_utf8(path: &Path, bytes: &[u8]) -> Result<()> {
    let Err(error) = std::str::from_utf8(bytes) else {
        return Ok(());
    };
    let before = &bytes[..error.valid_up_to()];
    let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|&&b| b != b'\n').count();
    Err(Error::input(format!("{} line {line}: invalid UTF-8 at byte {column} of the line", path.display()))
        .hint("convert the file: iconv -f latin1 -t utf-8 (or the encoding that it has)"))
}
