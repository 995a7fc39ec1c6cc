//! The folder of a run: one run at a time, metrics line by line.

use super::files::{ADAPTER, ALL_RESULTS, METRICS, Start, TRAINER_STATE};
use crate::config::training::TrainingConfig;
use crate::track::Trackers;
use crate::train::checkpoint;
use halfbyte_core::error::{Error, Result};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A folder that no other run writes to; nothing in it has changed yet.
pub struct LockedFolder {
    path: PathBuf,
    /// Held as long as the run lives.
    lock: File,
}

/// The folder of a run that has begun.
pub struct RunFolder {
    path: PathBuf,
    metrics: File,
    trackers: Option<Trackers>,
    _lock: File,
}

/// Files of a finished run that a new one would overwrite.
const RESULTS: [&str; 4] = [ADAPTER, METRICS, ALL_RESULTS, TRAINER_STATE];

/// An error if `output_dir` or `adapter_dir` holds results of another run and `start` does not say what happens to them. Writes
/// nothing, so that a command can ask before it reads or reports anything.
pub fn refuse_results(training: &TrainingConfig, start: Start) -> Result<()> {
    let (path, adapter_dir) = (Path::new(&training.output_dir), training.adapter_dir.as_deref().map(Path::new));
    if start != Start::Fresh {
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
    /// Creates and locks `path`; an error if it or `adapter_dir` holds results of another run and `start` does not say
    /// what happens to them, or if the adapter could not be written in the end.
    pub fn new(training: &TrainingConfig, start: Start) -> Result<Self> {
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

    /// The run begins: results that are to be replaced are removed. Metrics go on after the first `metrics_bytes`: what a
    /// resumed run wrote after its checkpoint is written again.
    pub fn begin(self, start: Start, metrics_bytes: u64) -> Result<RunFolder> {
        let path = self.path;
        match start {
            Start::Fresh => {}
            Start::Overwrite => {
                checkpoint::remove_all(&path)?;
                // An adapter of the earlier run beside the new run's metrics would be taken for the new one's.
                for file in RESULTS.map(|r| path.join(r)).into_iter().filter(|f| f.exists()) {
                    std::fs::remove_file(&file).map_err(|e| Error::io("remove", &file, e))?;
                }
            }
            Start::Resume => checkpoint::remove_unfinished(&path)?,
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
    /// Length of metrics.jsonl.
    pub fn metrics_bytes(&self) -> Result<u64> {
        let file = self.path.join(METRICS);
        self.metrics.metadata().map(|m| m.len()).map_err(|e| Error::io("read", &file, e))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on [`Self::log`] tells `trackers` too.
    pub fn track(&mut self, trackers: Trackers) {
        self.trackers = Some(trackers);
    }

    /// The trackers, if there are any.
    pub fn trackers(&self) -> Option<&Trackers> {
        self.trackers.as_ref()
    }

    /// Appends a line to metrics.jsonl, and to the trackers' files.
    pub fn log(&mut self, record: &impl Serialize) -> Result<()> {
        self.append(record)?;
        self.trackers.as_mut().map_or(Ok(()), |trackers| trackers.log(record))
    }

    /// The last line of metrics.jsonl, and the end of the trackers' files.
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

/// Creates `folder` and those above it.
fn create(folder: &Path) -> Result<()> {
    if folder.exists() && !folder.is_dir() {
        return Err(Error::usage(format!("{} is not a folder", folder.display())).hint("name a folder, or a new one"));
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))
}

/// An error if no file can be written to `folder`.
fn probe(folder: &Path) -> Result<()> {
    let file = folder.join(".probe");
    File::create(&file).and_then(|_| std::fs::remove_file(&file)).map_err(|e| Error::io("write", &file, e))
}
