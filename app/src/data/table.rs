//! A table of records, indexed by row. Files stay mapped and a record is parsed when it is read, so a data set may be
//! larger than memory, and rows that a recipe does not select cost nothing.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::data::spill::Spill;
use crate::disk::mapped::MappedFile;
use crate::suggest::nearest;
use halfbyte_core::error::{Error, Result};

/// One record: its columns, in the order of the file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Record(pub Map<String, Value>);

impl Record {
    /// The names of its columns.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The value of a column. The error for a missing column names the existing ones.
    pub fn get(&self, column: &str) -> Result<&Value> {
        self.0.get(column).ok_or_else(|| {
            let columns: Vec<&str> = self.columns().collect();
            let hint = match nearest(column, columns.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("the columns are {}", columns.join(", ")),
            };
            Error::input(format!("there is no column `{column}`")).hint(hint)
        })
    }

    /// The text of a column. Errors if the value is not text.
    pub fn text(&self, column: &str) -> Result<&str> {
        let value = self.get(column)?;
        value.as_str().ok_or_else(|| {
            Error::input(format!("column `{column}` holds {}, not text", kind(value)))
                .hint("a `template` can make text of it: template = \"{{ column }}\"")
        })
    }
}

/// The kind of a JSON value, with an article, for messages.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// How the records are encoded in the bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordEncoding {
    /// A JSON object on every line of the file.
    Lines,
    /// JSON objects at given offsets (the elements of an array).
    Values,
    /// Plain text: each line is a record with the single column `text`.
    Text,
    /// A JSON object on every line of the converted contents.
    Converted,
}

/// The bytes that records are read from.
pub enum Bytes {
    /// The file itself, mapped into memory.
    Mapped(MappedFile),
    /// Records converted from the file (columns turned into lines of JSON).
    Made(Spill),
}

impl Bytes {
    /// Maps the file at `path`.
    pub fn map(path: &Path) -> Result<Bytes> {
        MappedFile::open(path).map(Bytes::Mapped)
    }

    /// See [`MappedFile::forget`].
    pub fn forget(&self) {
        match self {
            Bytes::Mapped(map) => map.forget(),
            Bytes::Made(spill) => spill.forget(),
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Made(spill) => spill,
        }
    }
}

/// The records of one file.
pub struct RecordFile {
    /// The file.
    pub path: PathBuf,
    /// The bytes that its records are read from.
    pub bytes: Bytes,
    /// How the records are encoded there.
    pub layout: RecordEncoding,
    /// The byte offset of each record.
    pub starts: Vec<u64>,
}

impl RecordFile {
    fn record(&self, start: usize) -> Result<Record> {
        let rest = self.bytes.get(start..).unwrap_or_default();
        let line = rest.split(|&b| b == b'\n').next().unwrap_or_default();
        let value = match self.layout {
            RecordEncoding::Text => {
                let text = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line));
                let text = text.map_err(|_| Error::input("invalid UTF-8"))?;
                return Ok(Record(Map::from_iter([("text".to_string(), Value::from(text))])));
            }
            RecordEncoding::Lines | RecordEncoding::Converted => serde_json::from_slice(line),
            RecordEncoding::Values => {
                let mut values = serde_json::Deserializer::from_slice(rest).into_iter();
                values.next().unwrap_or(Ok(Value::Null))
            }
        };
        match value {
            Ok(Value::Object(fields)) => Ok(Record(fields)),
            Ok(other) => Err(Error::input(format!("a record must be an object, this is {}", kind(&other)))
                .hint("columns have names: {\"text\": \"…\"}")),
            Err(error) => Err(syntax(&error)),
        }
    }

    fn place(&self, start: usize) -> String {
        let before = self.bytes.get(..start).unwrap_or_default();
        let number = 1 + before.iter().filter(|&&b| b == b'\n').count();
        let path = self.path.display();
        match self.layout {
            RecordEncoding::Lines | RecordEncoding::Text => format!("{path} line {number}"),
            RecordEncoding::Converted => format!("{path} record {number}"),
            RecordEncoding::Values => {
                let column = 1 + before.iter().rev().take_while(|&&b| b != b'\n').count();
                format!("{path} line {number} column {column}")
            }
        }
    }
}

/// The error for invalid JSON in a record. serde's line number is removed, because it counts from the record's
/// beginning.
fn syntax(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    Error::input(format!("not valid JSON: {what} (column {})", error.column()))
        .hint("every line must be one complete JSON object")
}

/// Records of one or several files.
#[derive(Default)]
pub struct Table {
    files: Vec<Arc<RecordFile>>,
    /// The file index and byte offset of each row.
    rows: Vec<(u32, u64)>,
}

impl Table {
    /// The records of all `files`, in order.
    pub fn new(mut files: Vec<RecordFile>) -> Table {
        let mut rows = Vec::with_capacity(files.iter().map(|f| f.starts.len()).sum());
        for (number, file) in files.iter_mut().enumerate() {
            rows.extend(std::mem::take(&mut file.starts).into_iter().map(|start| (number as u32, start)));
        }
        Table { files: files.into_iter().map(Arc::new).collect(), rows }
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether `path` is one of the files that the records are read from.
    pub fn reads(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        self.files.iter().any(|file| file.path.canonicalize().is_ok_and(|file| file == path))
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Releases the files' pages in memory, see [`MappedFile::forget`].
    pub fn forget(&self) {
        self.files.iter().for_each(|file| file.bytes.forget());
    }

    /// A table of the given rows in the given order. Each must be a row of this table.
    pub fn subset(&self, rows: &[usize]) -> Table {
        Table { files: self.files.clone(), rows: rows.iter().map(|&row| self.rows[row]).collect() }
    }

    /// Appends the records of `other`.
    pub fn append(&mut self, other: Table) {
        let shift = self.files.len() as u32;
        self.files.extend(other.files);
        self.rows.extend(other.rows.into_iter().map(|(file, start)| (file + shift, start)));
    }

    /// Reads a record. Errors name its file and line.
    pub fn record(&self, row: usize) -> Result<Record> {
        let (file, start) = self.rows[row];
        self.files[file as usize].record(start as usize).map_err(|e| e.at(self.place(row)))
    }

    /// The place of a record: its file and line.
    pub fn place(&self, row: usize) -> String {
        let (file, start) = self.rows[row];
        self.files[file as usize].place(start as usize)
    }
}
