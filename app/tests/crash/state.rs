//! The files and tracker rows of a finished run, without times and paths.

use crate::decode::{events, wandb};
use crate::folder::Folder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files of a run by name, and the rows of its trackers.
#[derive(Default)]
pub struct RunState {
    files: BTreeMap<String, Vec<u8>>,
    wandb: Vec<String>,
    tensorboard: Vec<(u64, f32)>,
}

impl RunState {
    pub fn read(folder: &Folder) -> Self {
        let mut files = BTreeMap::new();
        for name in ["run", "adapter"] {
            collect(&folder.path("."), &folder.path(name), &mut files);
        }
        let marker: Value =
            serde_json::from_slice(&std::fs::read(folder.path("run/run.json")).expect("a marker")).expect("JSON");
        let trackers = marker["trackers"].as_array().expect("a list").iter().filter_map(Value::as_str);
        let trackers: Vec<PathBuf> = trackers.map(|name| folder.path("run").join(name)).collect();
        let logs: Vec<&PathBuf> = trackers.iter().filter(|path| path.is_dir()).collect();
        let newest = logs.last().expect("a W&B run");
        let id = newest.file_name().and_then(|n| n.to_str()).and_then(|n| n.rsplit('-').next()).expect("an id");
        let run = wandb(&newest.join(format!("run-{id}.wandb")));
        let rows =
            run.history.iter().map(|row| format!("{:?} {:?}", row.get("train/global_step"), row.get("train/loss")));
        // A file that begins at a step voids what earlier files say from that step on.
        let mut scalars = BTreeMap::new();
        for file in trackers.iter().filter(|path| path.is_file()) {
            let events = events(&whole_records(file));
            let start = events.starts.first().copied().unwrap_or(0);
            scalars.retain(|step, _| *step < start);
            scalars.extend(events.scalars.get("train/loss").cloned().unwrap_or_default());
        }
        Self {
            files,
            wandb: rows.chain([format!("{:?}", run.exits)]).collect(),
            tensorboard: scalars.into_iter().collect(),
        }
    }

    /// Errors with the first difference to `other`.
    pub fn compare(&self, other: &Self) -> Result<(), String> {
        let names: Vec<&String> = self.files.keys().chain(other.files.keys()).collect();
        if let Some(name) = names.into_iter().find(|name| self.files.get(*name) != other.files.get(*name)) {
            let [a, b] = [self, other].map(|state| match state.files.get(name) {
                Some(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned(),
                None => "absent".into(),
            });
            return Err(format!("{name} differs:\n{a}\n{b}"));
        }
        if self.wandb != other.wandb {
            return Err(format!("the W&B log differs: {:?}, {:?}", self.wandb, other.wandb));
        }
        if self.tensorboard != other.tensorboard {
            return Err(format!("TensorBoard differs: {:?}, {:?}", self.tensorboard, other.tensorboard));
        }
        Ok(())
    }
}

/// The configuration and the weights in `folder`, if it has both.
pub fn adapter(folder: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    let read = |name: &str| std::fs::read(folder.join(name)).ok();
    Some((read("adapter_config.json")?, read("adapter_model.safetensors")?))
}

/// A copy of an event file without an incomplete last record, which TensorBoard skips.
fn whole_records(file: &Path) -> PathBuf {
    let bytes = std::fs::read(file).expect("an event file");
    let mut end = 0;
    while let Some(length) = bytes.get(end..end + 8) {
        let next = end + 16 + u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
        if next > bytes.len() {
            break;
        }
        end = next;
    }
    let copy = file.with_extension("whole");
    std::fs::write(&copy, &bytes[..end]).expect("written");
    copy
}

/// Temporary files and folders in `run`.
pub fn leftovers(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run).expect("a run").map(|entry| entry.expect("an entry").path());
    let ends = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.ends_with(".partial")
            || name.ends_with(".removed")
            || (name.starts_with("checkpoint-") && !path.join("checksums.json").exists())
    };
    entries.filter(ends).collect()
}

/// Adds the files below `path`. JSON goes without times, which differ from run to run.
fn collect(root: &Path, path: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let last = name.rsplit('/').next().unwrap_or_default().to_string();
        let skipped = ["runs", "wandb", ".lock", "run.json", "checksums.json", "report.html"];
        if skipped.contains(&last.as_str()) || last.starts_with(".crash") {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        let bytes = match path.extension().and_then(|e| e.to_str()) {
            Some("json" | "jsonl") if !last.starts_with("adapter") && !last.starts_with("tokenizer") => {
                let values = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
                let values: Vec<Value> = values.map(|value| without_times(value.expect("JSON"))).collect();
                serde_json::to_vec(&values).expect("JSON")
            }
            _ => bytes,
        };
        files.insert(name, bytes);
    }
}

fn without_times(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let is_time = |key: &str| {
                ["second", "runtime", "memory", "log"]
                    .iter()
                    .any(|word| key.contains(word) && key != "log_history" && key != "logging_steps")
            };
            Value::Object(
                fields.into_iter().filter(|(key, _)| !is_time(key)).map(|(k, v)| (k, without_times(v))).collect(),
            )
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_times).collect()),
        other => other,
    }
}
