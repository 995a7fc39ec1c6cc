//! Checkpoints: `output_dir/checkpoint-<step>/`. A run that resumes from one computes the same bits as an uninterrupted
//! run.
//!
//! The folder is a PEFT adapter with two more files: `optimizer.safetensors` (AdamW's moments and step counts, and the
//! control buffer with f16's loss scale) and `trainer_state.json` ([`TrainerState`] and the recipe). Dropout and the
//! order of the data depend only on the seed and on counts in that state.
//!
//! A checkpoint is complete or absent: the files are written to `checkpoint-<step>.partial` and flushed,
//! `checksums.json` last, and then the folder is renamed. A reader verifies the checksums first.

use super::state::TrainerState;
use crate::weights::adapter::Adapter;
use crate::weights::load::load_adapter;
use crate::weights::safetensors::{Output, TensorFiles, write, write_text};
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::Model;
use halfbyte_core::op::{AdamState, View};
use halfbyte_core::session::Session;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The format version. It is raised whenever an older program could misread the files.
const VERSION: u32 = 1;
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "trainer_state.json";
/// Length and CRC-32 of every other file. It is written last and marks the checkpoint as complete.
const CHECKSUMS: &str = "checksums.json";
const PREFIX: &str = "checkpoint-";
const PARTIAL: &str = ".partial";

/// The content of `trainer_state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedRun {
    /// Format version of the checkpoint.
    pub version: u32,
    /// State of the training loop.
    pub state: TrainerState,
    /// The resolved recipe, as TOML.
    pub recipe: String,
    /// Kind of the device. Another kind rounds differently.
    pub device: String,
    /// Whether only `save_minutes` required this checkpoint. The next checkpoint then replaces it.
    #[serde(default)]
    pub by_clock: bool,
    /// Length of metrics.jsonl in bytes when the checkpoint was written.
    pub metrics_bytes: u64,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct Checksum {
    bytes: u64,
    crc32: u32,
}

/// A complete checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The folder that contains the checkpoint.
    pub folder: PathBuf,
    /// The state and the recipe of the run.
    pub run: SavedRun,
}

/// Writes the checkpoint of step `run.state.step` to a folder in `output`. `fill` writes the adapter and the
/// tokenizer's files to the folder that it receives.
pub fn write_checkpoint(
    output: &Path,
    session: &mut Session,
    run: &SavedRun,
    fill: impl FnOnce(&mut Session, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = folder_of(output, run.state.step);
    let partial = output.join(format!("{PREFIX}{}{PARTIAL}", run.state.step));
    remove(&partial)?;
    fs::create_dir(&partial).map_err(|e| Error::io("create", &partial, e))?;
    let written = fill(session, &partial).and_then(|()| write_state(session, run, &partial)).and_then(|()| {
        // A checkpoint of that name is a damaged one, or an equal one of this run and step.
        remove(&folder)?;
        fs::rename(&partial, &folder).map_err(|e| Error::io("rename to", &folder, e))?;
        flush(output)
    });
    written.map_err(|error| {
        // The incomplete folder would only waste disk space. The older checkpoints are untouched.
        let _ = fs::remove_dir_all(&partial);
        error.at(format!("checkpoint of step {}", run.state.step)).hint(format!(
            "the earlier checkpoints in {} are intact: free some disk space, then continue with --resume",
            output.display()
        ))
    })?;
    Ok(folder)
}

fn write_state(session: &mut Session, run: &SavedRun, folder: &Path) -> Result<()> {
    let mut tensors = Vec::new();
    for (name, view) in state_views(&session.model) {
        let dtype = session.model.program.info(view.buf).dtype;
        let data = session.read_bytes(view)?;
        tensors.push(Output { name, dtype, shape: vec![data.len() / dtype.bytes()], data: data.into() });
    }
    write(&folder.join(OPTIMIZER), &tensors)?;
    write_json(&folder.join(STATE), run)?;
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))? {
        let file = entry.map_err(|e| Error::io("list", folder, e))?.path();
        // Not every file has been flushed: `fill` may have copied some.
        flush(&file)?;
        sums.insert(name_of(&file), checksum(&file)?);
    }
    write_json(&folder.join(CHECKSUMS), &sums)
}

/// The buffers that a step changes, apart from the adapter, in a fixed order: control and optimizer state.
fn state_views(model: &Model) -> Vec<(String, View)> {
    let mut views = vec![model.params.exchange.control];
    for group in model.params.optimizer.iter().flat_map(|o| &o.groups) {
        match group.state {
            AdamState::Torch { m, v } | AdamState::Bitsandbytes { m, v } => views.extend([m, v]),
            AdamState::Blockwise8 { m, v, absmax_m, absmax_v } => views.extend([m, v, absmax_m, absmax_v]),
        }
        views.push(group.steps);
    }
    views.into_iter().map(|view| (model.program.info(view.buf).name.clone(), view)).collect()
}

impl Checkpoint {
    /// The newest complete checkpoint in `output`, and a line for each newer one that is damaged.
    pub fn newest(output: &Path) -> Result<(Option<Self>, Vec<String>)> {
        let mut passed = Vec::new();
        for (_, folder) in list(output)?.into_iter().rev() {
            match Self::open(&folder) {
                Ok(found) => return Ok((Some(found), passed)),
                Err(error) => passed.push(format!("{} is skipped: {}", folder.display(), error.what())),
            }
        }
        Ok((None, passed))
    }

    /// Opens the checkpoint in `folder` and verifies every checksum.
    pub fn open(folder: &Path) -> Result<Self> {
        let sums: BTreeMap<String, Checksum> = read_json(&folder.join(CHECKSUMS))?;
        for (name, expected) in &sums {
            let file = folder.join(name);
            if checksum(&file)? != *expected {
                return Err(Error::input(format!("{} is damaged: its checksum does not match", file.display())));
            }
        }
        let run: SavedRun = read_json(&folder.join(STATE))?;
        if run.version != VERSION {
            let version = run.version;
            return Err(Error::input(format!(
                "{}: the checkpoint has format version {version}, expected {VERSION}",
                folder.display()
            ))
            .hint("resume with the version of halfbyte that wrote the checkpoint"));
        }
        Ok(Self { folder: folder.into(), run })
    }

    /// Writes the adapter and the optimizer state to `session`, which must have the model of the run.
    pub fn restore(&self, session: &mut Session) -> Result<()> {
        let config = session.model.spec.config.clone();
        let adapter = Adapter::open(&self.folder, &config)?;
        load_adapter(session, adapter)?;
        let tensors = TensorFiles::open_file(&self.folder.join(OPTIMIZER))?;
        for (name, view) in state_views(&session.model) {
            let dtype = session.model.program.info(view.buf).dtype;
            let tensor = tensors.shaped(&name, &[view.rows.count(session.model.program.tokens) * view.cols])?;
            if tensor.dtype != dtype {
                return Err(Error::input(format!("{}: `{name}` has the wrong type", self.folder.display()))
                    .hint("resume with the optimizer of the original run"));
            }
            session.write_bytes(view, tensor.data)?;
        }
        Ok(())
    }
}

impl SavedRun {
    /// The content of a new checkpoint, in the current format version.
    pub fn new(state: TrainerState, by_clock: bool, recipe: String, device: String, metrics_bytes: u64) -> Self {
        Self { version: VERSION, state, recipe, device, by_clock, metrics_bytes }
    }
}

/// Removes the oldest checkpoints until `limit` remain. Never removes the one of step `best`.
pub fn rotate(output: &Path, limit: usize, best: Option<usize>) -> Result<()> {
    let found: Vec<_> = list(output)?.into_iter().filter(|(step, _)| Some(*step) != best).collect();
    // As in HF, the best checkpoint counts toward the limit.
    let others = limit.saturating_sub(usize::from(best.is_some())).max(1);
    for (_, folder) in &found[..found.len().saturating_sub(others)] {
        remove(folder)?;
    }
    Ok(())
}

/// Removes all checkpoints in `output`, including incomplete ones.
pub fn remove_all(output: &Path) -> Result<()> {
    for (_, folder) in list(output)? {
        remove(&folder)?;
    }
    remove_unfinished(output)
}

/// Removes the incomplete checkpoints that interrupted writes left in `output`.
pub fn remove_unfinished(output: &Path) -> Result<()> {
    for entry in fs::read_dir(output).map_err(|e| Error::io("list", output, e))? {
        let path = entry.map_err(|e| Error::io("list", output, e))?.path();
        if name_of(&path).strip_suffix(PARTIAL).and_then(step_of).is_some() {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The steps and folders of the checkpoints in `output`, in ascending order.
pub fn list(output: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let mut found = Vec::new();
    if !output.is_dir() {
        return Ok(found);
    }
    for entry in fs::read_dir(output).map_err(|e| Error::io("list", output, e))? {
        let path = entry.map_err(|e| Error::io("list", output, e))?.path();
        if let Some(step) = step_of(&name_of(&path)).filter(|_| path.is_dir()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The folder in `output` for the checkpoint of `step`.
pub fn folder_of(output: &Path, step: usize) -> PathBuf {
    output.join(format!("{PREFIX}{step}"))
}

fn step_of(name: &str) -> Option<usize> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Removes a checkpoint's folder, if it exists. `checksums.json` is removed first, so that an interrupted removal never
/// leaves a folder that looks complete.
pub fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let marker = folder.join(CHECKSUMS);
    if marker.exists() {
        fs::remove_file(&marker).map_err(|e| Error::io("remove", &marker, e))?;
    }
    fs::remove_dir_all(folder).map_err(|e| Error::io("remove", folder, e))
}

fn flush(path: &Path) -> Result<()> {
    File::open(path).and_then(|f| f.sync_all()).map_err(|e| Error::io("flush", path, e))
}

fn checksum(file: &Path) -> Result<Checksum> {
    let mut source = File::open(file).map_err(|e| Error::io("open", file, e))?;
    let (mut hash, mut bytes) = (crc32fast::Hasher::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        match source.read(&mut piece).map_err(|e| Error::io("read", file, e))? {
            0 => return Ok(Checksum { bytes, crc32: hash.finalize() }),
            n => {
                hash.update(&piece[..n]);
                bytes += n as u64;
            }
        }
    }
}

fn write_json(file: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::system(format!("{}: {e}", file.display())))?;
    write_text(file, &(text + "\n"))
}

fn read_json<T: for<'a> Deserialize<'a>>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?;
    serde_json::from_str(&text).map_err(|e| Error::input(format!("{}: {e}", file.display())))
}
