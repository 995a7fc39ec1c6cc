//! The run folder: a lock admits one run at a time, and metrics.jsonl grows line by line.

use super::files::{ADAPTER, ADAPTER_CONFIG, ALL_RESULTS, METRICS, RunStart, TRAINER_STATE};
use super::marker::{Marker, refuse_own_recipe};
use crate::config::training::TrainingConfig;
use crate::disk::lock::FolderLock;
use crate::disk::write::{create_folder, flush, is_there, remove};
use crate::track::{LogEnd, Trackers};
use crate::train::checkpoint;
use crate::weights::identity::Identity;
use halfbyte_core::error::{Error, Result};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A run folder that is locked against other runs. Its results are still untouched.
pub struct LockedFolder {
    path: PathBuf,
    marker: Marker,
    locks: Vec<FolderLock>,
}

/// The folder of a started run.
pub struct RunFolder {
    path: PathBuf,
    marker: Marker,
    metrics: File,
    /// Length and CRC-32 of metrics.jsonl.
    written: (u64, crc32fast::Hasher),
    trackers: Option<Trackers>,
    _locks: Vec<FolderLock>,
}

/// Files of a finished run that a new one would overwrite. The first one makes a folder an adapter.
const RESULTS: [&str; 5] = [ADAPTER_CONFIG, ADAPTER, METRICS, ALL_RESULTS, TRAINER_STATE];

/// An error if `output_dir` or `adapter_dir` contains results of another run and `start` is [`RunStart::Fresh`], or if
/// the run would replace a recipe of the user. Writes nothing, so a command can call this before it reads or reports
/// anything.
pub fn refuse_results(training: &TrainingConfig, start: RunStart) -> Result<()> {
    let (path, adapter_dir) = (Path::new(&training.output_dir), training.adapter_dir.as_deref().map(Path::new));
    for (key, folder) in [("output_dir", Some(path)), ("adapter_dir", adapter_dir)] {
        if folder == Some(Path::new("")) {
            return Err(Error::usage(format!("{key} is empty")).hint("name a folder; \".\" is the current one"));
        }
    }
    refuse_own_recipe(path)?;
    if start != RunStart::Fresh {
        return Ok(());
    }
    let checkpoints = checkpoint::list(path)?.into_iter().map(|(_, folder)| folder);
    let mut results = RESULTS.iter().map(|r| path.join(r)).filter(|r| is_there(r)).chain(checkpoints);
    if let Some(result) = results.next() {
        let name = result.file_name().unwrap_or_default();
        let what = format!("{} already holds the results of a run ({})", path.display(), name.display());
        return Err(Error::usage(what).hint("choose another output_dir, or give --resume or --overwrite"));
    }
    if let Some(folder) = adapter_dir.filter(|folder| *folder != path && is_there(&folder.join(ADAPTER))) {
        return Err(Error::usage(format!("adapter_dir: {} already holds an adapter", folder.display()))
            .hint("choose another adapter_dir, or give --overwrite"));
    }
    Ok(())
}

impl LockedFolder {
    /// Creates and locks `output_dir` and `adapter_dir`. Besides the errors of [`refuse_results`], it is an error if
    /// another run holds a lock or if `adapter_dir` is not writable.
    pub fn new(training: &TrainingConfig, start: RunStart) -> Result<Self> {
        refuse_results(training, start)?;
        let path = Path::new(&training.output_dir);
        create(path).map_err(|e| e.at("output_dir"))?;
        let mut locks = vec![FolderLock::new(path)?];
        if let Some(folder) = training.adapter_dir.as_deref().map(Path::new) {
            create(folder).and_then(|()| probe(folder)).map_err(|e| e.at("adapter_dir"))?;
            if absolute(folder)? != absolute(path)? {
                locks.push(FolderLock::new(folder).map_err(|e| e.at("adapter_dir"))?);
            }
        }
        // Another run may have finished before the lock was free.
        refuse_results(training, start)?;
        Ok(Self { path: path.into(), marker: Marker::open(path)?.unwrap_or_default(), locks })
    }

    /// Starts the run: removes the results that it replaces, and truncates metrics.jsonl to the end that the checkpoint
    /// `resumed` recorded, because a resumed run logs the steps after it again. `base` is the identity of the base
    /// weights.
    pub fn begin(mut self, start: RunStart, resumed: Option<&LogEnd>, base: Option<Identity>) -> Result<RunFolder> {
        let path = self.path;
        if self.marker.clearing || start == RunStart::Overwrite {
            // From this write on, the earlier run is gone as a whole: whoever starts next finishes the removal.
            self.marker.clearing = true;
            self.marker.save(&path)?;
            for file in RESULTS {
                remove(&path.join(file))?;
            }
            checkpoint::remove_all(&path)?;
            flush(&path)?;
            self.marker = Marker { recipes: self.marker.recipes, ..Marker::default() };
        } else {
            checkpoint::remove_unfinished(&path)?;
        }
        if resumed.is_none() {
            // A run that ended before its first checkpoint left these.
            for file in std::mem::take(&mut self.marker.trackers) {
                remove(&path.join(file))?;
            }
        }
        self.marker.base = base;
        self.marker.save(&path)?;
        let file = path.join(METRICS);
        let (metrics, written) =
            open_metrics(&file, resumed.map_or(0, |end| end.metrics_bytes)).map_err(|e| Error::io("open", &file, e))?;
        flush(&path)?;
        Ok(RunFolder { path, marker: self.marker, metrics, written, trackers: None, _locks: self.locks })
    }
}

/// Opens metrics.jsonl for appending after its first `bytes` bytes. Returns their number and CRC-32, too.
fn open_metrics(file: &Path, bytes: u64) -> std::io::Result<(File, (u64, crc32fast::Hasher))> {
    let mut metrics = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(file)?;
    let kept = metrics.metadata()?.len().min(bytes);
    metrics.set_len(kept)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut content = Vec::new();
    metrics.read_to_end(&mut content)?;
    hasher.update(&content);
    metrics.seek(SeekFrom::End(0))?;
    Ok((metrics, (kept, hasher)))
}

/// Checks that metrics.jsonl in `folder` begins with what the checkpoint recorded. Returns a note if the file is
/// missing or empty; it is an error if it was changed.
pub fn check_metrics(folder: &Path, end: &LogEnd) -> Result<Option<String>> {
    let file = folder.join(METRICS);
    let content = match std::fs::read(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|e| Error::io("read", &file, e))?,
    };
    let expected = usize::try_from(end.metrics_bytes).unwrap_or(usize::MAX);
    match content.get(..expected) {
        Some(kept) if crc32fast::hash(kept) == end.metrics_crc32 => Ok(None),
        _ if content.is_empty() => {
            Ok(Some(format!("{} is missing or empty: the log begins after the checkpoint", file.display())))
        }
        _ => {
            let what = format!("{} is damaged: it does not begin with the lines of the checkpoint", file.display());
            Err(Error::input(what).hint("restore it; without the file, --resume continues with a new log"))
        }
    }
}

impl RunFolder {
    /// Flushes metrics.jsonl and the trackers' files to disk. Returns their ends.
    pub fn flush(&mut self) -> Result<LogEnd> {
        let file = self.path.join(METRICS);
        self.metrics.sync_data().map_err(|e| Error::io("flush", &file, e))?;
        let wandb_bytes = self.trackers.as_mut().map_or(Ok(None), Trackers::flush)?;
        let (metrics_bytes, hasher) = &self.written;
        Ok(LogEnd { metrics_bytes: *metrics_bytes, metrics_crc32: hasher.clone().finalize(), wandb_bytes })
    }

    /// Path of the folder (`output_dir`).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the base weights; `None` if they are random.
    pub fn base(&self) -> Option<&Identity> {
        self.marker.base.as_ref()
    }

    /// Writes the resolved recipe.
    pub fn write_recipe(&mut self, text: &str) -> Result<()> {
        self.marker.write_recipe(&self.path, text)
    }

    /// The files of the trackers that this run has written so far.
    pub fn tracker_files(&self) -> Vec<PathBuf> {
        self.marker.trackers.iter().map(|file| self.path.join(file)).collect()
    }

    /// Makes [`Self::log`] and [`Self::finish`] write to `trackers`, too.
    pub fn track(&mut self, trackers: Trackers) -> Result<()> {
        for file in trackers.files() {
            let file = file.strip_prefix(&self.path).map(Path::to_path_buf).or_else(|_| std::path::absolute(file));
            let file = file.map_err(|e| Error::io("find", &self.path, e))?;
            if !self.marker.trackers.contains(&file) {
                self.marker.trackers.push(file);
            }
        }
        self.marker.save(&self.path)?;
        self.trackers = Some(trackers);
        Ok(())
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
        let line = serde_json::to_string(record).map_err(|e| Error::system(format!("{}: {e}", file.display())))? + "\n";
        self.metrics.write_all(line.as_bytes()).map_err(|e| Error::io("write", &file, e))?;
        self.written.0 += line.len() as u64;
        self.written.1.update(line.as_bytes());
        Ok(())
    }
}

/// Creates `folder` and its parents.
fn create(folder: &Path) -> Result<()> {
    if folder.exists() && !folder.is_dir() {
        return Err(Error::usage(format!("{} is not a folder", folder.display())).hint("name a folder, or a new one"));
    }
    create_folder(folder)
}

/// Errors if no file can be created in `folder`. The file has no name, so nothing is replaced.
fn probe(folder: &Path) -> Result<()> {
    tempfile::tempfile_in(folder).map(|_| ()).map_err(|e| Error::io("write to", folder, e))
}

fn absolute(folder: &Path) -> Result<PathBuf> {
    folder.canonicalize().map_err(|e| Error::io("find", folder, e))
}
