//! Checkpoints: `output_dir/checkpoint-<step>/`. A run that resumes from one computes the same bits as an uninterrupted
//! run.
//!
//! The folder is a PEFT adapter with two more files: `optimizer.safetensors` (AdamW's moments and step counts, and the
//! control buffer with f16's loss scale) and `trainer_state.json` ([`TrainerState`] and the recipe). Dropout and the
//! order of the data depend only on the seed and on counts in that state.
//!
//! A checkpoint is complete or absent: the files are written to `checkpoint-<step>.partial` and flushed,
//! `checksums.json` last, and then the folder is renamed. It is removed in reverse: renamed first, then deleted. A reader
//! verifies the checksums first.
//!
//! If the step after it fails because a number is not finite, the state is written to `diverged-<step>/` instead, which
//! no run resumes from.

use super::state::TrainerState;
use crate::disk::write::{self as disk, flush, is_there, write_text};
use crate::track::LogEnd;
use crate::weights::adapter::Adapter;
use crate::weights::identity::Identity;
use crate::weights::load::load_adapter;
use crate::weights::safetensors::{Output, TensorFiles, write};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::Model;
use halfbyte_core::op::View;
use halfbyte_core::session::Session;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The format version. It is raised whenever an older program could misread the files.
const VERSION: u32 = 2;
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "trainer_state.json";
/// Length and CRC-32 of every other file. It is written last and marks the checkpoint as complete.
const CHECKSUMS: &str = "checksums.json";
const PREFIX: &str = "checkpoint-";
const PARTIAL: &str = ".partial";
/// Follows the name of a checkpoint that is being removed.
const REMOVED: &str = ".removed";
/// Precedes the step in the name of a state from which the run diverged.
const DIVERGED: &str = "diverged-";

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
    /// The ends of metrics.jsonl and of the W&B log when the checkpoint was written.
    pub log: LogEnd,
    /// The identity of the base weights; `None` if they are random.
    pub base: Option<Identity>,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct Checksum {
    bytes: u64,
    crc32: u32,
}

/// The part of `trainer_state.json` that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
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
    let step = run.state.step;
    write_to(output, folder_of(output, step), session, run, fill).map_err(|error| {
        let error = error.at(format!("checkpoint of step {step}"));
        let before =
            list(output).ok().and_then(|found| found.into_iter().map(|(_, folder)| folder).rfind(|f| is_complete(f)));
        match (error.hint_line().map(String::from), before) {
            (Some(hint), Some(before)) => error.hint(format!("{hint}; --resume takes {}", before.display())),
            (None, Some(before)) => error.hint(format!("--resume takes {}", before.display())),
            (_, None) => error,
        }
    })
}

/// Writes the state from which the run diverged to `diverged-<step>`, in place of an earlier such state.
pub fn write_diverged(
    output: &Path,
    session: &mut Session,
    run: &SavedRun,
    fill: impl FnOnce(&mut Session, &Path) -> Result<()>,
) -> Result<PathBuf> {
    remove_matching(output, |name| name.starts_with(DIVERGED))?;
    write_to(output, output.join(format!("{DIVERGED}{}", run.state.step)), session, run, fill)
}

/// Gives the checkpoint of `step` the name of a state from which the run diverged, if there is an older complete one.
pub fn demote(output: &Path, step: usize) -> Result<Option<PathBuf>> {
    let older = list(output)?.into_iter().any(|(other, folder)| other < step && is_complete(&folder));
    if !older {
        return Ok(None);
    }
    remove_matching(output, |name| name.starts_with(DIVERGED))?;
    let (from, to) = (folder_of(output, step), output.join(format!("{DIVERGED}{step}")));
    fs::rename(&from, &to).map_err(|e| Error::io("rename", &from, e))?;
    flush(output)?;
    Ok(Some(to))
}

fn write_to(
    output: &Path,
    folder: PathBuf,
    session: &mut Session,
    run: &SavedRun,
    fill: impl FnOnce(&mut Session, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let partial = folder.with_file_name(name_of(&folder) + PARTIAL);
    disk::remove(&partial)?;
    fs::create_dir(&partial).map_err(|e| Error::io("create", &partial, e))?;
    let written = fill(session, &partial).and_then(|()| write_state(session, run, &partial)).and_then(|()| {
        // A checkpoint of that name is a damaged one, or an equal one of this run and step.
        if is_there(&folder) {
            remove(&folder)?;
        }
        fs::rename(&partial, &folder).map_err(|e| Error::io("rename to", &folder, e))?;
        flush(output)
    });
    if written.is_err() {
        // The incomplete folder would only waste disk space. The older checkpoints are untouched.
        let _ = fs::remove_dir_all(&partial);
    }
    written.map(|()| folder)
}

fn write_state(session: &mut Session, run: &SavedRun, folder: &Path) -> Result<()> {
    let mut tensors = Vec::new();
    for (name, views) in state_views(&session.model) {
        let (buf, dtype) = (views[0].buf, session.model.program.info(views[0].buf).dtype);
        let data = views.into_iter().map(|view| session.read_bytes(view)).collect::<Result<Vec<_>>>()?.concat();
        if buf != session.model.params.exchange.control.buf {
            check_finite(&name, dtype, &data)?;
        }
        tensors.push(Output { name, dtype, shape: vec![data.len() / dtype.bytes()], data: data.into() });
    }
    write(&folder.join(OPTIMIZER), &tensors)?;
    write_json(&folder.join(STATE), run)?;
    // JSON has no NaN and no infinity: a state with one could not be read back.
    let read = read_json::<SavedRun>(&folder.join(STATE));
    if !read.is_ok_and(|read| read.state == run.state) {
        return Err(Error::run("a sum of the run is not finite").hint(DIVERGED_HINT));
    }
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))? {
        let file = entry.map_err(|e| Error::io("list", folder, e))?.path();
        // Not every file has been flushed: `fill` may have copied some.
        flush(&file)?;
        sums.insert(name_of(&file), checksum(&file)?);
    }
    write_json(&folder.join(CHECKSUMS), &sums)
}

const DIVERGED_HINT: &str = "the training diverged: lower learning_rate, then continue with --resume";

/// Errors if an f32 buffer of the optimizer contains NaN or an infinity.
fn check_finite(name: &str, dtype: DType, data: &[u8]) -> Result<()> {
    let finite = |four: &[u8; 4]| f32::from_le_bytes(*four).is_finite();
    if dtype != DType::F32 || data.as_chunks().0.iter().all(finite) {
        return Ok(());
    }
    Err(Error::run(format!("the optimizer state `{name}` is not finite")).hint(DIVERGED_HINT))
}

/// The buffers that a step changes, apart from the adapter, in a fixed order: control and optimizer state. The pages of one
/// state form one tensor, so a checkpoint does not depend on paging.
fn state_views(model: &Model) -> Vec<(String, Vec<View>)> {
    let mut views = vec![model.params.exchange.control];
    let mut groups = model.params.optimizer.as_ref().map_or_else(Vec::new, |optimizer| optimizer.groups.clone());
    for group in &mut groups {
        group.state.visit(|view| views.push(*view));
        views.push(group.steps);
    }
    let mut tensors: Vec<(String, Vec<View>)> = Vec::new();
    for view in views {
        // The name of a page ends with its number: `adam8.m.3`.
        let name =
            model.program.info(view.buf).name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('.');
        match tensors.iter_mut().find(|(known, _)| known == name) {
            Some((_, pages)) => pages.push(view),
            None => tensors.push((name.to_string(), vec![view])),
        }
    }
    tensors
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
        let state = folder.join(STATE);
        let version = read_json::<Versioned>(&state)?.version;
        if version != VERSION {
            return Err(Error::input(format!(
                "{}: the checkpoint has format version {version}, expected {VERSION}",
                folder.display()
            ))
            .hint("resume with the version of halfbyte that wrote the checkpoint"));
        }
        Ok(Self { folder: folder.into(), run: read_json(&state)? })
    }

    /// Writes the adapter and the optimizer state to `session`, which must have the model of the run.
    pub fn restore(&self, session: &mut Session) -> Result<()> {
        let config = session.model.spec.config.clone();
        let adapter = Adapter::open(&self.folder, &config)?;
        load_adapter(session, adapter)?;
        let tensors = TensorFiles::open_file(&self.folder.join(OPTIMIZER))?;
        for (name, views) in state_views(&session.model) {
            let dtype = session.model.program.info(views[0].buf).dtype;
            let elements = |view: &View| view.rows.count(session.model.program.tokens) * view.cols;
            let sizes: Vec<usize> = views.iter().map(elements).collect();
            let tensor = tensors.shaped(&name, &[sizes.iter().sum()])?;
            if tensor.dtype != dtype {
                return Err(Error::input(format!("{}: `{name}` has the wrong type", self.folder.display()))
                    .hint("resume with the optimizer of the original run"));
            }
            let mut data = tensor.data;
            for (view, elements) in views.into_iter().zip(sizes) {
                let (page, rest) = data.split_at(elements * dtype.bytes());
                session.write_bytes(view, page)?;
                data = rest;
            }
        }
        Ok(())
    }
}

impl SavedRun {
    /// The content of a new checkpoint, in the current format version.
    pub fn new(
        state: TrainerState,
        by_clock: bool,
        recipe: String,
        device: String,
        log: LogEnd,
        base: Option<Identity>,
    ) -> Self {
        Self { version: VERSION, state, recipe, device, by_clock, log, base }
    }
}

/// Removes the oldest checkpoints until `limit` remain. Never removes the one of step `best`. Those after step `done` do
/// not count: the run skipped them because they are damaged, and will replace them.
pub fn rotate(output: &Path, limit: usize, best: Option<usize>, done: usize) -> Result<()> {
    let counts = |step: &usize| *step <= done && Some(*step) != best;
    let found: Vec<_> = list(output)?.into_iter().filter(|(step, _)| counts(step)).collect();
    // As in HF, the best checkpoint counts toward the limit.
    let others = limit.saturating_sub(usize::from(best.is_some())).max(1);
    for (_, folder) in &found[..found.len().saturating_sub(others)] {
        remove(folder)?;
    }
    Ok(())
}

/// Removes all checkpoints in `output`, including incomplete ones and states from which the run diverged.
pub fn remove_all(output: &Path) -> Result<()> {
    for (_, folder) in list(output)? {
        remove(&folder)?;
    }
    remove_matching(output, |name| name.starts_with(DIVERGED))?;
    remove_unfinished(output)
}

/// Removes the incomplete checkpoints that interrupted writes and removals left in `output`.
pub fn remove_unfinished(output: &Path) -> Result<()> {
    remove_matching(output, is_unfinished)
}

/// Whether `name` is that of an incomplete checkpoint.
fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(PARTIAL).or_else(|| name.strip_suffix(REMOVED)).is_some_and(|name| {
        step_of(name).is_some() || name.strip_prefix(DIVERGED).is_some_and(|step| step.parse::<usize>().is_ok())
    })
}

fn remove_matching(output: &Path, matches: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(output).map_err(|e| Error::io("list", output, e))? {
        let path = entry.map_err(|e| Error::io("list", output, e))?.path();
        if matches(&name_of(&path)) {
            disk::remove(&path)?;
        }
    }
    Ok(())
}

fn is_complete(folder: &Path) -> bool {
    folder.join(CHECKSUMS).is_file()
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

/// Removes a checkpoint's folder, if it exists. It is renamed first, so that an interrupted removal leaves a folder that
/// the next run recognizes as incomplete. The target of a link stays.
pub fn remove(folder: &Path) -> Result<()> {
    if !is_there(folder) {
        return Ok(());
    }
    let removed = folder.with_file_name(name_of(folder) + REMOVED);
    disk::remove(&removed)?;
    fs::rename(folder, &removed).map_err(|e| Error::io("rename", folder, e))?;
    disk::remove(&removed)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_the_newest_good_checkpoints_and_the_best() {
        let folder = tempfile::tempdir().unwrap();
        let left = |limit, best, done| {
            for step in [2, 4, 5, 8, 9] {
                fs::create_dir_all(folder_of(folder.path(), step)).unwrap();
            }
            rotate(folder.path(), limit, best, done).unwrap();
            list(folder.path()).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>()
        };
        assert_eq!(left(2, None, 9), [8, 9]);
        assert_eq!(left(2, Some(4), 9), [4, 9]);
        // 8 and 9 are damaged: the run continued from 4, and has written 5.
        assert_eq!(left(1, None, 5), [5, 8, 9]);
    }
}
