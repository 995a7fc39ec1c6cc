//! `.parquet`: converts rows of any type to JSON.

use std::cell::Cell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::data::spill::SpillWriter;
use crate::data::table::{Bytes, RecordEncoding, RecordFile};
use halfbyte_core::error::{Error, Result};

/// Converts the rows to lines of JSON. Columns are compressed thousands of rows at a time, so a single row cannot be
/// read.
pub fn open(path: &Path) -> Result<RecordFile> {
    let damaged = || Error::input(format!("{}: cannot read as parquet: the file is damaged", path.display()));
    quietly(|| convert(path)).unwrap_or_else(|| Err(damaged()))
}

fn convert(path: &Path) -> Result<RecordFile> {
    let wrong = |e: ParquetError| Error::input(format!("{}: cannot read as parquet: {e}", path.display()));
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    let (mut store, mut starts) = (SpillWriter::default(), Vec::new());
    for row in reader.get_row_iter(None).map_err(wrong)? {
        starts.push(store.written());
        store.write(row.map_err(wrong)?.to_json_value().to_string().as_bytes())?;
        store.write(b"\n")?;
    }
    Ok(RecordFile { path: path.into(), bytes: Bytes::Made(store.finish()?), layout: RecordEncoding::Converted, starts })
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `read` and returns None if it panics, without printing the panic. The parquet crate panics on some damaged
/// files (a negative column length, for instance) instead of returning an error.
fn quietly<T>(read: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    // If `read` panics, its partial output is dropped.
    let result = catch_unwind(AssertUnwindSafe(read));
    QUIET.set(false);
    result.ok()
}
