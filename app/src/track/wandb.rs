//! Writes an offline run of Weights & Biases, for upload with `wandb sync RUN/wandb/offline-run-…`.
//!
//! `run-<id>.wandb` is a log in LevelDB's format. Its entries are `Record`s of `wandb_internal.proto`: a header, the
//! run with its configuration, the definition of the x-axis, then history, summary and sensor records, and an exit
//! record at the end. A resumed run truncates the file after its checkpoint and appends to it.

use super::clock::{Moment, host};
use super::crc::IEEE;
use super::protobuf::{Message, delimited};
use super::{Resumed, RunDescription, Scalars};
use crate::config::training::TrainingConfig;
use crate::disk::write::{create_folder, flush};
use halfbyte_core::error::{Error, Result};
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes of a block of a LevelDB log. No fragment crosses a block boundary.
const BLOCK: usize = 32768;
/// Bytes of a fragment's header: CRC (u32), length (u16), type (u8).
const FRAGMENT_HEADER: usize = 7;
/// The header of the file: name, magic number, version 0.
const FILE_HEADER: &[u8; 7] = b":W&B\xE1\xBE\0";

/// Field numbers of `Record`.
mod field {
    pub const NUMBER: u64 = 1;
    pub const HISTORY: u64 = 2;
    pub const SUMMARY: u64 = 3;
    pub const STATS: u64 = 7;
    pub const METRIC: u64 = 12;
    pub const RUN: u64 = 17;
    pub const EXIT: u64 = 18;
    pub const HEADER: u64 = 21;
    pub const INFO: u64 = 200;
}

/// The log of a W&B run, open for writing.
pub struct Wandb {
    path: PathBuf,
    file: File,
    id: String,
    /// Start of the run, from which `_runtime` counts.
    started: Moment,
    /// Length of the file in bytes.
    end: usize,
    /// Number of records in the file.
    records: u64,
    /// Number of history records in the file, which W&B counts as `_step`.
    histories: u64,
}

impl Wandb {
    /// Creates a W&B run. A resumed run reopens its own.
    pub(super) fn open(training: &TrainingConfig, start: RunDescription, now: Moment) -> Result<Self> {
        let parent = start.folder.join("wandb");
        if let Some(Resumed { files, wandb_bytes: Some(bytes), .. }) = start.resumed
            && let Some((path, id)) = files.iter().rev().find_map(|folder| log_in(folder))
        {
            return Self::reopen(path, id, *bytes, now);
        }
        let id = new_id();
        let folder = parent.join(format!("offline-run-{}-{id}", now.compact()));
        let files = folder.join("files");
        create_folder(&files)?;
        let path = folder.join(format!("run-{id}.wandb"));
        let file = File::create_new(&path).map_err(|e| Error::io("create", &path, e))?;
        flush(&folder)?;
        let mut run = Self { path, file, id, started: now, end: 0, records: 0, histories: 0 };
        run.append(FILE_HEADER)?;
        let producer = concat!("halfbyte ", env!("CARGO_PKG_VERSION"));
        run.write(field::HEADER, Message::new().message(1, Message::new().bytes(1, producer)))?;
        run.write(field::RUN, run_record(&run.id, training, start, now)?)?;
        let defined = |options: Message| options.varint(3, 1);
        let axis = Message::new().bytes(1, "train/global_step").message(6, defined(Message::new()));
        run.write(field::METRIC, axis)?;
        let rest = Message::new().bytes(2, "*").bytes(4, "train/global_step");
        run.write(field::METRIC, rest.message(6, defined(Message::new().varint(1, 1))))?;
        Ok(run)
    }

    /// Truncates the log to the records within its first `kept` bytes, and opens it for appending.
    fn reopen(path: PathBuf, id: String, kept: u64, now: Moment) -> Result<Self> {
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let mut file = OpenOptions::new().write(true).open(&path).map_err(|e| Error::io("open", &path, e))?;
        let (mut started, mut end, mut records, mut histories) = (now, FILE_HEADER.len(), 0, 0);
        for (after, record) in LogRecords::new(&bytes) {
            if after as u64 > kept {
                break;
            }
            if let Some(history) = RecordTimes::read(&record) {
                started = Moment { seconds: history.timestamp - history.runtime };
                histories += 1;
            }
            (end, records) = (after, records + 1);
        }
        let cut = file.set_len(end as u64).and_then(|()| file.seek(SeekFrom::End(0)));
        cut.map_err(|e| Error::io("truncate", &path, e))?;
        Ok(Self { path, file, id, started, end, records, histories })
    }

    /// The argument of `wandb sync`.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Flushes the log to disk. Returns its length in bytes.
    pub(super) fn flush(&mut self) -> Result<u64> {
        self.file.sync_data().map_err(|e| Error::io("flush", &self.path, e))?;
        Ok(self.end as u64)
    }

    /// Appends a history record and a summary record with the metrics, and a record with the sensors.
    pub(super) fn log(&mut self, scalars: &Scalars, now: Moment) -> Result<()> {
        let runtime = now.seconds - self.started.seconds;
        let row = [
            ("train/global_step", scalars.step as f64),
            ("_timestamp", now.seconds),
            ("_runtime", runtime),
            ("_step", self.histories as f64),
        ];
        let metrics = scalars.metrics.iter().map(|(name, value)| (name.as_str(), *value));
        // `HistoryRecord.item` and `SummaryRecord.update` have the same fields.
        let items = row.into_iter().chain(metrics).fold(Message::new(), |message, (name, value)| {
            message.message(1, Message::new().bytes(2, name).bytes(16, json(value)))
        });
        let step = Message::new().varint(1, self.histories);
        self.write(field::HISTORY, items.clone().message(2, step))?;
        self.histories += 1;
        self.write(field::SUMMARY, items)?;
        if !scalars.system.is_empty() {
            let stats = Message::new().message(2, timestamp(now));
            let stats = scalars.system.iter().fold(stats, |stats, (name, value)| {
                stats.message(3, Message::new().bytes(1, name).bytes(16, json(*value)))
            });
            self.write(field::STATS, stats)?;
        }
        Ok(())
    }

    /// Appends the results of the run to its summary, and an exit record with code 0.
    pub(super) fn finish(&mut self, results: &Map<String, Value>, now: Moment) -> Result<()> {
        let summary = results.iter().fold(Message::new(), |summary, (name, value)| {
            summary.message(1, Message::new().bytes(1, name).bytes(16, value.to_string()))
        });
        self.write(field::SUMMARY, summary)?;
        let runtime = (now.seconds - self.started.seconds) as u64;
        self.write(field::EXIT, Message::new().varint(1, 0).varint(2, runtime))
    }

    /// Appends a `Record` whose field `kind` is `content`.
    fn write(&mut self, kind: u64, content: Message) -> Result<()> {
        self.records += 1;
        let info = Message::new().bytes(1, &self.id);
        let record = Message::new().varint(field::NUMBER, self.records).message(kind, content);
        let framed = frame(record.message(field::INFO, info).encoded(), self.end);
        self.append(&framed)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io("write", &self.path, e))?;
        self.end += bytes.len();
        Ok(())
    }
}

/// The `RunRecord`. Project and entity come from W&B's environment variables; the default project is HF's.
fn run_record(id: &str, training: &TrainingConfig, start: RunDescription, now: Moment) -> Result<Message> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let recipe: toml::Table = toml::from_str(start.recipe)
        .map_err(|e| Error::system(format!("the resolved recipe is not valid TOML: {e}")))?;
    let settings = recipe.into_iter().flat_map(|(key, value)| match value {
        toml::Value::Table(section) => section.into_iter().collect::<Vec<_>>(),
        value => vec![(key, value)],
    });
    let config = settings.fold(Message::new(), |config, (key, value)| {
        let value = serde_json::to_string(&value).unwrap_or("null".into());
        config.message(1, Message::new().bytes(1, key).bytes(16, value))
    });
    let name = training.run_name.as_ref().unwrap_or(&training.output_dir);
    let mut run = Message::new().bytes(1, id);
    if let Some(entity) = variable("WANDB_ENTITY") {
        run = run.bytes(2, entity);
    }
    let project = variable("WANDB_PROJECT").unwrap_or("huggingface".into());
    Ok(run.bytes(3, project).message(4, config).bytes(8, name).bytes(13, host()).message(17, timestamp(now)))
}

/// A `google.protobuf.Timestamp`.
fn timestamp(now: Moment) -> Message {
    Message::new().varint(1, now.seconds as u64).varint(2, (now.seconds.fract() * 1e9) as u64)
}

/// A number as JSON, without a fraction if it is whole. NaN and infinities are written as Python's `json` writes them,
/// which W&B's client can read.
fn json(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".into(),
        v if v.is_infinite() => if v > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        v => v.to_string(),
    }
}

/// A random id of eight lowercase letters and digits, as W&B's client makes them.
fn new_id() -> String {
    let mut random = std::hash::RandomState::new().build_hasher().finish();
    let mut draw = || {
        let digit = (random % 36) as u32;
        random /= 36;
        char::from_digit(digit, 36).unwrap_or('0')
    };
    (0..8).map(|_| draw()).collect()
}

/// The log file and the id of the W&B run in `folder`, which is called `offline-run-<time>-<id>`.
fn log_in(folder: &Path) -> Option<(PathBuf, String)> {
    let name = folder.file_name()?.to_str()?.strip_prefix("offline-run-")?;
    let id = name.rsplit('-').next()?;
    let path = folder.join(format!("run-{id}.wandb"));
    path.is_file().then(|| (path, id.to_string()))
}

/// Splits `record` into fragments for a log that is `end` bytes long so far.
fn frame(record: &[u8], mut end: usize) -> Vec<u8> {
    let (mut framed, mut rest, mut first) = (Vec::new(), record, true);
    loop {
        let left = BLOCK - end % BLOCK;
        if left < FRAGMENT_HEADER {
            framed.resize(framed.len() + left, 0);
            end += left;
            continue;
        }
        let (data, later) = rest.split_at(rest.len().min(left - FRAGMENT_HEADER));
        let kind: u8 = match (first, later.is_empty()) {
            (true, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
            (false, true) => 4,
        };
        framed.extend(IEEE.of(&[&[kind], data]).to_le_bytes());
        framed.extend((data.len() as u16).to_le_bytes());
        framed.push(kind);
        framed.extend(data);
        if later.is_empty() {
            return framed;
        }
        (end, rest, first) = (end + FRAGMENT_HEADER + data.len(), later, false);
    }
}

/// Iterates over the records of a log, each with the offset of its end. Stops at the first damaged or incomplete
/// record.
pub(super) struct LogRecords<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> LogRecords<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let at = if bytes.starts_with(FILE_HEADER) { FILE_HEADER.len() } else { bytes.len() };
        Self { bytes, at }
    }
}

impl Iterator for LogRecords<'_> {
    type Item = (usize, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = Vec::new();
        loop {
            let left = BLOCK - self.at % BLOCK;
            if left < FRAGMENT_HEADER {
                self.at += left;
                continue;
            }
            let header = self.bytes.get(self.at..self.at + FRAGMENT_HEADER)?;
            let check = u32::from_le_bytes(header[..4].try_into().ok()?);
            let length = u16::from_le_bytes([header[4], header[5]]) as usize;
            let kind = header[6];
            let begin = self.at + FRAGMENT_HEADER;
            let data = self.bytes.get(begin..begin + length)?;
            if IEEE.of(&[&[kind], data]) != check {
                return None;
            }
            self.at = begin + length;
            record.extend(data);
            if matches!(kind, 1 | 4) {
                return Some((self.at, record));
            }
        }
    }
}

/// Times of a history record.
struct RecordTimes {
    timestamp: f64,
    runtime: f64,
}

impl RecordTimes {
    /// Parses a history record; `None` for any other record.
    fn read(record: &[u8]) -> Option<Self> {
        let (_, history) = delimited(record).find(|(number, _)| *number == field::HISTORY)?;
        let value = |name: &str| {
            let mut items = delimited(history).filter(|(number, _)| *number == 1).map(|(_, item)| item);
            let item = items.find(|item| delimited(item).any(|(n, key)| n == 2 && key == name.as_bytes()))?;
            let (_, json) = delimited(item).find(|(number, _)| *number == 16)?;
            std::str::from_utf8(json).ok()?.parse().ok()
        };
        Some(Self { timestamp: value("_timestamp")?, runtime: value("_runtime")? })
    }
}
