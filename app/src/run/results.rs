//! The results of a run, named as in HF's `TrainOutput.metrics`, and the files in which HF's users expect them.

use super::files::{ALL_RESULTS, METRICS, TRAINER_STATE};
use super::folder::RunFolder;
use crate::config::cadence::Cadence;
use crate::config::training::TrainingConfig;
use crate::disk::write::write_text;
use crate::sensors::Nvml;
use crate::track::history::History;
use crate::train::records::Summary;
use crate::train::state::TrainerState;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::Session;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// The results of a finished or interrupted run.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The training loop's summary. Unlike the rates below, it includes the steps before a resume.
    #[serde(flatten)]
    pub summary: Summary,
    /// Epochs done, with their fraction.
    pub epoch: f64,
    /// Learning rate of the last step.
    pub final_learning_rate: f64,
    /// HF's estimate of the floating point operations: six per parameter and token. It leaves out the embeddings and
    /// counts the padding that HF's collator would add to unpacked rows.
    pub total_flos: f64,
    /// Seconds from the first step to the end, including evaluations and checkpoints. This field and the next two only
    /// cover the current process: a resumed run counts from its resume.
    pub train_runtime: f64,
    /// Rows trained on per second.
    pub train_samples_per_second: f64,
    /// Optimizer steps per second.
    pub train_steps_per_second: f64,
    /// Bytes of the planned memory.
    pub memory_planned: usize,
    /// Bytes of GPU memory in use at the end, by all processes and the driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_in_use: Option<u64>,
}

/// Measures the time of the current process's part of a run.
pub(super) struct Clock {
    started: Instant,
    rows: usize,
    steps: usize,
}

impl Clock {
    /// Starts the clock at the first step of this process.
    pub fn start(state: &TrainerState) -> Self {
        Self { started: Instant::now(), rows: state.total.rows, steps: state.total.steps }
    }

    /// The results at this moment.
    pub fn results(
        &self,
        summary: Summary,
        state: &TrainerState,
        flos_per_token: u64,
        session: &mut Session,
    ) -> Results {
        let seconds = self.started.elapsed().as_secs_f64();
        // The rounding of HF's `speed_metrics`.
        let round = |x: f64, digits: i32| (x * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
        let per_second = |n: usize| round(n as f64 / seconds.max(1e-9), 3);
        let total = &state.total;
        Results {
            epoch: total.epoch,
            final_learning_rate: total.learning_rate,
            total_flos: total.padded_tokens as f64 * flos_per_token as f64,
            train_runtime: round(seconds, 4),
            train_samples_per_second: per_second(total.rows - self.rows),
            train_steps_per_second: per_second(total.steps - self.steps),
            memory_planned: session.plan.bytes,
            memory_in_use: Nvml::of(session.device()).ok().and_then(|nvml| nvml.read().memory),
            summary,
        }
    }
}

impl Results {
    /// Finishes metrics.jsonl and the trackers' files, and writes all_results.json and trainer_state.json.
    pub(super) fn write(&self, folder: &mut RunFolder, training: &TrainingConfig, max_steps: usize) -> Result<()> {
        folder.finish(self, self.summary.steps)?;
        let history = History::open(&folder.path().join(METRICS))?;
        let write = |name: &str, value: Value| write_text(&folder.path().join(name), &format!("{value:#}\n"));
        let mut all = match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            other => return Err(Error::system(format!("the results are not a JSON object: {other:?}"))),
        };
        for (name, value) in history.evals.last().into_iter().flat_map(|e| &e.fields).filter(|(n, _)| *n != "step") {
            all.insert(name.clone(), value.clone());
        }
        write(ALL_RESULTS, Value::Object(all))?;
        write(TRAINER_STATE, self.trainer_state(&history, training, max_steps))
    }

    /// The fields of transformers' `TrainerState` that have a meaning here.
    fn trainer_state(&self, history: &History, training: &TrainingConfig, max_steps: usize) -> Value {
        let steps = |cadence: Cadence| match cadence {
            Cadence::Steps(n) => json!(n),
            Cadence::Share(share) => json!(share),
            Cadence::Epoch | Cadence::Never => Value::Null,
        };
        // Within a step, the training record precedes the evaluation, as in HF.
        let records = history.logs.iter().map(|e| (e, 0)).chain(history.evals.iter().map(|e| (e, 1)));
        let mut records: Vec<_> = records.collect();
        records.sort_by_key(|(entry, kind)| (entry.step, *kind));
        let mut log: Vec<Value> = records.into_iter().map(|(entry, _)| Value::Object(entry.fields.clone())).collect();
        let mut end: Map<String, Value> = history.results.clone().unwrap_or_default();
        end.insert("step".into(), json!(self.summary.steps));
        log.push(Value::Object(end));
        json!({
            "best_metric": self.summary.best.map(|best| best.metric),
            "best_global_step": self.summary.best.map(|best| best.step),
            "epoch": self.epoch,
            "global_step": self.summary.steps,
            "max_steps": max_steps,
            "num_train_epochs": training.epochs.ceil(),
            "train_batch_size": training.batch_size,
            "logging_steps": steps(training.logging),
            "eval_steps": steps(training.eval),
            "save_steps": steps(training.save),
            "total_flos": self.total_flos,
            "is_world_process_zero": true,
            "log_history": log,
        })
    }
}
