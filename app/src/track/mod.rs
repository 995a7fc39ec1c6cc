//! Trackers write the records of a run in the formats of TensorBoard and Weights & Biases (`report_to`). metrics.jsonl
//! is always written; [`history`] reads it.

pub mod clock;
mod crc;
pub mod history;
mod protobuf;
pub mod tensorboard;
pub mod wandb;

use crate::config::training::{Tracker, TrainingConfig};
use clock::Moment;
use halfbyte_core::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tensorboard::TensorBoard;
use wandb::Wandb;

/// The trackers of one run.
pub struct Trackers {
    tensorboard: Option<TensorBoard>,
    wandb: Option<Wandb>,
}

/// The description of a run that the trackers get before its first step.
#[derive(Clone, Copy, Debug)]
pub struct RunDescription<'a> {
    /// The folder of the run.
    pub folder: &'a Path,
    /// The resolved recipe, as TOML.
    pub recipe: &'a str,
    /// For a resumed run, what its checkpoint recorded. Later records are discarded.
    pub resumed: Option<&'a Resumed>,
}

/// The state of the run that the trackers continue.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// Optimizer steps done at the checkpoint.
    pub step: usize,
    /// The files of [`Trackers::files`] of the earlier starts.
    pub files: Vec<PathBuf>,
    /// Bytes of the W&B log at the checkpoint.
    pub wandb_bytes: Option<u64>,
}

/// The ends of the logs of a run at a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEnd {
    /// Length of metrics.jsonl in bytes.
    pub metrics_bytes: u64,
    /// CRC-32 of metrics.jsonl.
    pub metrics_crc32: u32,
    /// Length of the W&B log in bytes, if there is one.
    pub wandb_bytes: Option<u64>,
}

/// The numbers of one record, under the names that HF uses for trackers.
#[derive(Clone, Debug, PartialEq)]
struct Scalars {
    /// Optimizer steps done.
    step: u64,
    /// Metrics by name: `train/loss`, `eval/loss` and so on.
    metrics: Vec<(String, f64)>,
    /// Sensor readings by name without the prefix `system.`, such as `gpu.0.temp`.
    system: Vec<(String, f64)>,
}

impl Trackers {
    /// Opens the files of the trackers that `report_to` names.
    pub fn open(training: &TrainingConfig, start: RunDescription) -> Result<Self> {
        let wants = |tracker| training.report_to.contains(&tracker);
        let now = Moment::now();
        let tensorboard = || TensorBoard::open(&tensorboard::folder(training, start, now), start, now);
        let wandb = || Wandb::open(training, start, now);
        Ok(Self {
            tensorboard: wants(Tracker::TensorBoard).then(tensorboard).transpose()?,
            wandb: wants(Tracker::Wandb).then(wandb).transpose()?,
        })
    }

    /// Appends a record of metrics.jsonl to the files of every tracker.
    pub fn log(&mut self, record: &impl Serialize) -> Result<()> {
        if self.tensorboard.is_none() && self.wandb.is_none() {
            return Ok(());
        }
        let scalars = Scalars::new(&fields(record)?);
        if scalars.metrics.is_empty() {
            return Ok(());
        }
        let now = Moment::now();
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.log(&scalars, now)?;
        }
        if let Some(wandb) = &mut self.wandb {
            wandb.log(&scalars, now)?;
        }
        Ok(())
    }

    /// Ends the run with its `results`. Without this call, W&B shows the run as crashed.
    pub fn finish(&mut self, results: &impl Serialize, step: usize) -> Result<()> {
        let now = Moment::now();
        let fields = fields(results)?;
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.log(&Scalars { step: step as u64, ..Scalars::new(&fields) }, now)?;
        }
        if let Some(wandb) = &mut self.wandb {
            wandb.finish(&fields, now)?;
        }
        Ok(())
    }

    /// The event file and the W&B folder that this run writes.
    pub fn files(&self) -> Vec<&Path> {
        let tensorboard = self.tensorboard.as_ref().map(TensorBoard::path);
        tensorboard.into_iter().chain(self.wandb.as_ref().map(Wandb::folder)).collect()
    }

    /// Flushes the files to disk. Returns the length of the W&B log.
    pub fn flush(&mut self) -> Result<Option<u64>> {
        self.tensorboard.as_mut().map_or(Ok(()), TensorBoard::flush)?;
        self.wandb.as_mut().map(Wandb::flush).transpose()
    }

    /// For each tracker, the command that shows or uploads its files.
    pub fn commands(&self) -> Vec<String> {
        let tensorboard = self.tensorboard.as_ref().map(|t| format!("tensorboard --logdir {}", t.shown().display()));
        let wandb = self.wandb.as_ref().map(|w| format!("wandb sync {}", w.folder().display()));
        tensorboard.into_iter().chain(wandb).collect()
    }
}

fn fields(record: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(record) {
        Ok(Value::Object(fields)) => Ok(fields),
        other => Err(Error::system(format!("a record is not a JSON object: {other:?}"))),
    }
}

impl Scalars {
    /// Extracts the numbers of a record and renames them as `rewrite_logs` in transformers' integrations does.
    fn new(fields: &Map<String, Value>) -> Self {
        let mut scalars = Self { step: 0, metrics: Vec::new(), system: Vec::new() };
        for (name, value) in fields {
            let Some(value) = value.as_f64() else { continue };
            if name == "step" {
                scalars.step = value as u64;
            } else if let Some(sensor) = name.strip_prefix("system.") {
                scalars.system.push((sensor.into(), value));
            } else if let Some(metric) = name.strip_prefix("eval_") {
                scalars.metrics.push((format!("eval/{metric}"), value));
            } else {
                scalars.metrics.push((format!("train/{name}"), value));
            }
        }
        scalars
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_the_names_that_transformers_gives_them() {
        let record = serde_json::json!({"step": 3, "epoch": 0.5, "loss": 1.5, "eval_loss": 2.0, "interrupted": true,
            "grad_norm": null, "system.gpu.0.temp": 50});
        let Value::Object(fields) = record else { unreachable!() };
        let Scalars { step, metrics, system } = Scalars::new(&fields);
        assert_eq!(step, 3);
        assert_eq!(
            metrics,
            [("train/epoch", 0.5), ("train/loss", 1.5), ("eval/loss", 2.0)].map(|(n, v)| (n.into(), v))
        );
        assert_eq!(system, [("gpu.0.temp".to_string(), 50.0)]);
    }
}
