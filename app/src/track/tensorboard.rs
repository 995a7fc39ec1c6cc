//! Writes TensorBoard's event files.
//!
//! A file is a sequence of TFRecords: length (u64), masked CRC-32C of the length, data, masked CRC-32C of the data.
//! Each record is an `Event` of `tensorflow/core/util/event.proto`; the first has the version `brain.Event:2`. A
//! resumed run opens a new file that begins with `SessionLog::START` at the next step. TensorBoard then drops the
//! events of earlier files from that step on.

use super::clock::{Moment, host};
use super::crc::CASTAGNOLI;
use super::protobuf::Message;
use super::{Resumed, RunDescription, Scalars};
use crate::config::training::TrainingConfig;
use crate::disk::write::{create_folder, flush};
use halfbyte_core::error::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// `SessionLog.SessionStatus.START`.
const SESSION_START: u64 = 1;
/// `DataType.DT_STRING`.
const DT_STRING: u64 = 7;

/// An event file, open for writing.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

/// The folder for the event files of a run: `logging_dir`, or, as in HF, a folder in `runs` of the run folder. Its name
/// is `run_name`, or the time and the host name. A resumed run keeps the folder of its last event file.
pub(super) fn folder(training: &TrainingConfig, start: RunDescription, now: Moment) -> PathBuf {
    if let Some(folder) = &training.logging_dir {
        return folder.into();
    }
    let runs = start.folder.join("runs");
    let plain = |name: &String| name.replace(['/', '\\', ':', '*', '?', '"', '<', '>', '|'], "_");
    let named = training.run_name.as_ref().map(plain).filter(|name| !name.trim_matches('.').is_empty());
    match (named, start.resumed) {
        (Some(name), _) => runs.join(name),
        (None, Some(resumed)) if let Some(before) = before(&runs, resumed) => before,
        _ => runs.join(format!("{}_{}", now.with_month(), host())),
    }
}

/// The folder in `runs` with the last event file of the resumed run.
fn before(runs: &Path, resumed: &Resumed) -> Option<PathBuf> {
    let mut folders = resumed.files.iter().filter_map(|file| file.parent());
    folders.rfind(|folder| folder.parent() == Some(runs) && folder.is_dir()).map(Path::to_path_buf)
}

impl TensorBoard {
    /// Creates a new event file in `folder`.
    pub(super) fn open(folder: &Path, start: RunDescription, now: Moment) -> Result<Self> {
        create_folder(folder)?;
        // TensorBoard reads the files of a folder in the order of their names, which begin with the time. The time of a
        // new file must therefore exceed that of every earlier one.
        let time = (now.seconds as u64).max(latest(folder).map_or(0, |time| time + 1));
        let path = folder.join(format!("events.out.tfevents.{time:010}.{}.{}.0", host(), std::process::id()));
        let file = File::create_new(&path).map_err(|e| Error::io("create", &path, e))?;
        flush(folder)?;
        let mut board = Self { path, file };
        board.write(Message::new().double(1, now.seconds).bytes(3, "brain.Event:2"))?;
        let next = start.resumed.map_or(0, |resumed| resumed.step as u64 + 1);
        board.write(event(next, now).message(7, Message::new().varint(1, SESSION_START)))?;
        if start.resumed.is_none() {
            let markdown = format!("```toml\n{}\n```", start.recipe.trim_end());
            board.write(event(0, now).message(5, Message::new().message(1, text("recipe/text_summary", &markdown))))?;
        }
        Ok(board)
    }

    /// The argument of `tensorboard --logdir`: the `runs` folder if there is one, because it may contain runs to
    /// compare with.
    pub(super) fn shown(&self) -> &Path {
        self.path.ancestors().nth(2).filter(|folder| folder.ends_with("runs")).unwrap_or(self.folder())
    }

    /// The event file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes the file to disk.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("flush", &self.path, e))
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Appends one event with all of `scalars`.
    pub(super) fn log(&mut self, scalars: &Scalars, now: Moment) -> Result<()> {
        let sensors = scalars.system.iter().map(|(name, value)| (format!("system/{name}"), *value));
        let summary = scalars.metrics.iter().cloned().chain(sensors).fold(Message::new(), |summary, (tag, value)| {
            summary.message(1, Message::new().bytes(1, tag).float(2, value as f32))
        });
        self.write(event(scalars.step, now).message(5, summary))
    }

    /// Appends an event as a TFRecord, with a single write, so that a kill can leave at most the last record
    /// incomplete.
    fn write(&mut self, event: Message) -> Result<()> {
        let data = event.encoded();
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked(data).to_le_bytes());
        self.file.write_all(&record).map_err(|e| Error::io("write", &self.path, e))
    }
}

/// An `Event` with its time and step.
fn event(step: u64, now: Moment) -> Message {
    Message::new().double(1, now.seconds).varint(2, step)
}

/// A `Summary.Value` of the text plugin: a tensor with one string, which TensorBoard shows as Markdown.
fn text(tag: &str, markdown: &str) -> Message {
    let plugin = Message::new().message(1, Message::new().bytes(1, "text"));
    let shape = Message::new().message(2, Message::new().varint(1, 1));
    let tensor = Message::new().varint(1, DT_STRING).message(2, shape).bytes(8, markdown);
    Message::new().bytes(1, tag).message(8, tensor).message(9, plugin)
}

/// TFRecord's masked CRC, rotated and offset, because the plain CRC of data that contains CRCs is weak.
fn masked(data: &[u8]) -> u32 {
    CASTAGNOLI.of(&[data]).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// The latest time in the names of the event files in `folder`.
fn latest(folder: &Path) -> Option<u64> {
    let names = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name());
    let time = |name: std::ffi::OsString| {
        name.to_str()?.strip_prefix("events.out.tfevents.")?.split('.').next()?.parse::<u64>().ok()
    };
    names.filter_map(time).max()
}
