//! `.csv`: a header line, then records. All values are text.

use std::path::Path;

use csv::ReaderBuilder;
use serde_json::{Map, Value};

use super::check_utf8;
use crate::data::spill::SpillWriter;
use crate::data::table::{Bytes, RecordEncoding, RecordFile};
use halfbyte_core::error::{Error, Result};

/// Converts the records to lines of JSON. A value may contain newlines, so records cannot be located without parsing
/// the file from its beginning.
pub fn open(path: &Path) -> Result<RecordFile> {
    let bytes = Bytes::map(path)?;
    check_utf8(path, &bytes)?;
    let wrong = |e: csv::Error| {
        let (line, what) = match (e.position(), e.kind()) {
            (Some(at), csv::ErrorKind::UnequalLengths { expected_len, len, .. }) => {
                (at.line(), format!("{len} values, but the header names {expected_len} columns"))
            }
            (at, _) => (at.map_or(1, csv::Position::line), e.to_string()),
        };
        Error::input(format!("{} line {line}: {what}", path.display()))
            .hint("put values that hold commas, quotes or line ends in double quotes")
    };
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let mut reader = ReaderBuilder::new().from_reader(text);
    let columns = reader.headers().map_err(wrong)?.clone();
    let (mut store, mut starts) = (SpillWriter::default(), Vec::new());
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        let fields = columns.iter().zip(&record).map(|(name, value)| (name.to_string(), Value::from(value)));
        starts.push(store.written());
        store.write(Value::Object(Map::from_iter(fields)).to_string().as_bytes())?;
        store.write(b"\n")?;
    }
    Ok(RecordFile { path: path.into(), bytes: Bytes::Made(store.finish()?), layout: RecordEncoding::Converted, starts })
}
