//! A byte store that may outgrow memory: it stays in memory while it is small and moves to an unnamed temporary file, which
//! vanishes with the process however that ends.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Deref;

use memmap2::Mmap;

use halfbyte_core::error::{Error, Result};

/// Bytes kept in memory before a file takes over.
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
    /// Keeps at most `in_memory` bytes in memory.
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

    /// The number of bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Ends the collection and makes the bytes readable.
    pub fn finish(self) -> Result<Spill> {
        let Some(file) = self.file else {
            return Ok(Spill::Memory(self.bytes));
        };
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        // SAFETY: the file has no name, so nothing else can shorten or change it while it is mapped.
        Ok(Spill::File(unsafe { Mmap::map(&file) }.map_err(failed)?))
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("keep data in", &std::env::temp_dir(), error).hint("free space there, or set TMPDIR to another disk")
}

/// The collected bytes.
pub enum Spill {
    /// In memory: there were few.
    Memory(Vec<u8>),
    /// In a temporary file: there were many.
    File(Mmap),
}

impl Spill {
    /// See [`forget`].
    pub fn forget(&self) {
        if let Spill::File(map) = self {
            forget(map);
        }
    }
}

/// Tells the system that the pages of a mapped file need not stay in memory. They are read again when they are touched, so
/// that a pass over a large file can keep its memory small by calling this now and then.
pub fn forget(map: &Mmap) {
    #[cfg(unix)]
    {
        // SAFETY: the map is read-only and of a file, so pages that were dropped come back as they were.
        let advised = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        // Where the system takes no such advice, more memory is in use, and nothing else.
        let _ = advised;
    }
    #[cfg(not(unix))]
    let _ = map;
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
