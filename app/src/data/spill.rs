//! A byte store that may be larger than memory. It moves to an unnamed temporary file when it grows; the system removes
//! the file when the process ends in any way.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Deref;

use crate::disk::mapped::MappedFile;
use halfbyte_core::error::{Error, Result};

/// The most bytes kept in memory; beyond that, they move to a file.
const IN_MEMORY: usize = 128 << 20;

/// Collects bytes; [`SpillWriter::finish`] makes them readable.
pub struct SpillWriter {
    in_memory: usize,
    bytes: Vec<u8>,
    file: Option<BufWriter<File>>,
    written: u64,
}

impl Default for SpillWriter {
    fn default() -> Self {
        Self::with_limit(IN_MEMORY)
    }
}

impl SpillWriter {
    /// A writer that keeps at most `in_memory` bytes in memory.
    pub fn with_limit(in_memory: usize) -> Self {
        Self { in_memory, bytes: Vec::new(), file: None, written: 0 }
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        if let Some(file) = &mut self.file {
            return file.write_all(bytes).map_err(failed);
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > self.in_memory {
            let mut file = BufWriter::with_capacity(1 << 20, tempfile::tempfile().map_err(failed)?);
            file.write_all(&self.bytes).map_err(failed)?;
            self.bytes = Vec::new();
            self.file = Some(file);
        }
        Ok(())
    }

    /// The number of bytes written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Finishes writing and makes the bytes readable.
    pub fn finish(self) -> Result<Spill> {
        let Some(file) = self.file else {
            return Ok(Spill::Memory(self.bytes));
        };
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        // The file has no name, so nothing else can shorten or change it while it is mapped.
        Ok(Spill::File(MappedFile::of(&file, &std::env::temp_dir())?))
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("keep data in", &std::env::temp_dir(), error).hint("free space there, or set TMPDIR to another disk")
}

/// The collected bytes.
pub enum Spill {
    /// Few bytes, in memory.
    Memory(Vec<u8>),
    /// Many bytes, in a temporary file that is mapped into memory.
    File(MappedFile),
}

impl Spill {
    /// See [`MappedFile::forget`].
    pub fn forget(&self) {
        if let Spill::File(map) = self {
            map.forget();
        }
    }
}

impl Deref for Spill {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Spill::Memory(bytes) => bytes,
            Spill::File(map) => map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_bytes_come_back_from_a_file_as_few_do_from_memory() {
        for (limit, in_file) in [(1000, false), (10, true)] {
            let mut writer = SpillWriter::with_limit(limit);
            for i in 0..100_u8 {
                writer.write(&[i]).unwrap();
            }
            assert_eq!(writer.written(), 100);
            let spill = writer.finish().unwrap();
            assert_eq!(matches!(spill, Spill::File(_)), in_file);
            assert!(spill.iter().copied().eq(0..100));
        }
    }
}
