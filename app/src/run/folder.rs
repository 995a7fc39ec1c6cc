//! The run folder: a lock admits one run at a time, and metrics.jsonl grows line by line.

use super::files::{ADAPTER, ALL_RESULTS, METRICS, RunStart, TRAINER_STATE};
use crate::config::training::TrainingConfig;
use crate::track::Trackers;
use crate::train::checkpoint;
use halfbyte_core::error::{Error, Result};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A run folder that is locked against other runs. Its results are still untouched.
pub struct LockedFolder {
    path: PathBuf,
    /// The lock, held until the run ends.
    lock: File,
}

/// The folder of a started run.
pub struct RunFolder {
    path: PathBuf,
    metrics: File,
    trackers: Option<Trackers>,
    _lock: File,
}

/// Files of a finished run that a new one would overwrite.
const RESULTS: [&str; 4] = [ADAPTER, METRICS, ALL_RESULTS, TRAINER_STATE];

/// An error if `output_dir` or `adapter_dir` contains results of another run and `start` is [`RunStart::Fresh`]. Writes
/// nothing, so a command can call this before it reads or reports anything.
pub fn refuse_results(training: &TrainingConfig, start: RunStart) -> Result<()> {
    let (path, adapter_dir) = (Path::new(&training.output_dir), training.adapter_dir.as_deref().map(Path::new));
    if start != RunStart::Fresh {
        return Ok(());
    }
    let checkpoints = checkpoint::list(path)?.into_iter().map(|(_, folder)| folder);
    let mut results = RESULTS.iter().map(|r| path.join(r)).filter(|r| r.exists()).chain(checkpoints);
    if let Some(result) = results.next() {
        let name = result.file_name().unwrap_or_default();
        let what = format!("{} already holds the results of a run ({})", path.display(), name.display());
        return Err(Error::usage(what).hint("choose another output_dir, or give --resume or --overwrite"));
    }
    if let Some(folder) = adapter_dir.filter(|folder| *folder != path && folder.join(ADAPTER).exists()) {
        return Err(Error::usage(format!("adapter_dir: {} already holds an adapter", folder.display()))
            .hint("choose another adapter_dir, or give --overwrite"));
    }
    Ok(())
}

impl LockedFolder {
    /// Creates and locks `output_dir`. Besides the errors of [`refuse_results`], it is an error if another run holds
    /// the lock or if `adapter_dir` is not writable.
    pub fn new(training: &TrainingConfig, start: RunStart) -> Result<Self> {
        let (path, adapter_dir) = (Path::new(&training.output_dir), training.adapter_dir.as_deref().map(Path::new));
        create(path).map_err(|e| e.at("output_dir"))?;
        let file = path.join(".lock");
        let lock = File::create(&file).map_err(|e| Error::io("create", &file, e))?;
        lock.try_lock().map_err(|_| {
            Error::system(format!("another run is writing to {}", path.display())).hint("choose another output_dir")
        })?;
        refuse_results(training, start)?;
        if let Some(folder) = adapter_dir.filter(|folder| *folder != path) {
            create(folder).and_then(|()| probe(folder)).map_err(|e| e.at("adapter_dir"))?;
        }
        Ok(Self { path: path.into(), lock })
    }

    /// Starts the run: removes the results that it replaces, and truncates metrics.jsonl to `metrics_bytes`, because a
    /// resumed run logs the steps after its checkpoint again.
    pub fn begin(self, start: RunStart, metrics_bytes: u64) -> Result<RunFolder> {
        let path = self.path;
        match start {
            RunStart::Fresh => {}
            RunStart::Overwrite => {
                checkpoint::remove_all(&path)?;
                // If the adapter of the earlier run stayed, it would look like the result of the new one.
                for file in RESULTS.map(|r| path.join(r)).into_iter().filter(|f| f.exists()) {
                    std::fs::remove_file(&file).map_err(|e| Error::io("remove", &file, e))?;
                }
            }
            RunStart::Resume => checkpoint::remove_unfinished(&path)?,
        }
        let file = path.join(METRICS);
        let open = || {
            let mut metrics = OpenOptions::new().create(true).write(true).truncate(false).open(&file)?;
            let kept = metrics.metadata()?.len().min(metrics_bytes);
            metrics.set_len(kept)?;
            metrics.seek(SeekFrom::End(0))?;
            Ok(metrics)
        };
        let metrics = open().map_err(|e| Error::io("open", &file, e))?;
        Ok(RunFolder { path, metrics, trackers: None, _lock: self.lock })
    }
}

impl RunFolder {
    /// Length of metrics.jsonl in bytes.
    pub fn metrics_bytes(&self) -> Result<u64> {
        let file = self.path.join(METRICS);
        self.metrics.metadata().map(|m| m.len()).map_err(|e| Error::io("read", &file, e))
    }

    /// Path of the folder (`output_dir`).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes [`Self::log`] and [`Self::finish`] write to `trackers`, too.
    pub fn track(&mut self, trackers: Trackers) {
        self.trackers = Some(trackers);
    }

    /// The trackers, once [`Self::track`] has set them.
    pub fn trackers(&self) -> Option<&Trackers> {
        self.trackers.as_ref()
    }

    /// Appends a record to metrics.jsonl and to the trackers' files.
    pub fn log(&mut self, record: &impl Serialize) -> Result<()> {
        self.append(record)?;
        self.trackers.as_mut().map_or(Ok(()), |trackers| trackers.log(record))
    }

    /// Appends the results as the last line of metrics.jsonl, and finishes the trackers' files.
    pub fn finish(&mut self, results: &impl Serialize, step: usize) -> Result<()> {
        self.append(results)?;
        self.trackers.as_mut().map_or(Ok(()), |trackers| trackers.finish(results, step))
    }

    /// Appends a line to metrics.jsonl.
    fn append(&mut self, record: &impl Serialize) -> Result<()> {
        let file = self.path.join(METRICS);
        let line = serde_json::to_string(record).map_err(|e| Error::system(format!("{}: {e}", file.display())))?;
        writeln!(self.metrics, "{line}").map_err(|e| Error::io("write", &file, e))
    }
}

/// Creates `folder` and its parents.
fn create(folder: &Path) -> Result<()> {
    if folder.exists() && !folder.is_dir() {
        return Err(Error::usage(format!("{} is not a folder", folder.display())).hint("name a folder, or a new one"));
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))
}

/// Creates and removes a file in `folder`. An error if it is not writable.
fn probe(folder: &Path) -> Result<()> {
    let file = folder.join(".probe");
    File::create(&file).and_then(|_| std::fs::remove_file(&file)).map_err(|e| Error::io("write", &file, e))
}
