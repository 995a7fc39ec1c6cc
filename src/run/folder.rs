//! The folder of a run: one run at a time, metrics line by line, the adapter written whole or not at all.

use crate::error::{Error, Result};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The locked folder of a run.
pub struct RunFolder {
    path: PathBuf,
    metrics: File,
    /// Held as long as the run lives.
    _lock: File,
}

/// Files of a finished run that a new one would overwrite.
const RESULTS: [&str; 2] = ["adapter_model.safetensors", "metrics.jsonl"];

impl RunFolder {
    /// Creates and locks `path`. With results of another run in it, an error unless `overwrite`.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
        let file = path.join(".lock");
        let lock = File::create(&file).map_err(|e| Error::io("create", &file, e))?;
        lock.try_lock().map_err(|_| {
            Error::system(format!("another run is writing to {}", path.display())).hint("choose another output_dir")
        })?;
        if let Some(result) = RESULTS.iter().find(|r| path.join(r).exists()).filter(|_| !overwrite) {
            return Err(Error::usage(format!("{} already holds the results of a run ({result})", path.display()))
                .hint("choose another output_dir, or give --overwrite"));
        }
        let file = path.join("metrics.jsonl");
        let metrics = OpenOptions::new().create(true).write(true).truncate(true).open(&file);
        Ok(Self { path: path.into(), metrics: metrics.map_err(|e| Error::io("create", &file, e))?, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line to metrics.jsonl.
    pub fn log(&mut self, record: &impl Serialize) -> Result<()> {
        let file = self.path.join("metrics.jsonl");
        let line = serde_json::to_string(record).map_err(|e| Error::system(format!("{}: {e}", file.display())))?;
        writeln!(self.metrics, "{line}").map_err(|e| Error::io("write", &file, e))
    }

    /// Copies the tokenizer's files beside the adapter, so that the folder can be used alone.
    pub fn copy_tokenizer(&self, model: &Path) -> Result<()> {
        for name in ["tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
            let from = model.join(name);
            if from.is_file() {
                std::fs::copy(&from, self.path.join(name)).map_err(|e| Error::io("copy", &from, e))?;
            }
        }
        Ok(())
    }
}
