//! `.txt`: one record per line.

use std::path::Path;

use super::{check_utf8, line_starts};
use crate::data::table::{Bytes, RecordEncoding, RecordFile};
use halfbyte_core::error::Result;

/// Opens the file. Empty lines are records, as in the `datasets` library, so that slices select the same rows.
pub fn open(path: &Path) -> Result<RecordFile> {
    let bytes = Bytes::map(path)?;
    check_utf8(path, &bytes)?;
    let starts = line_starts(&bytes, 0, |_| true).into_iter().map(|start| start as u64).collect();
    Ok(RecordFile { path: path.into(), bytes, layout: RecordEncoding::Text, starts })
}
