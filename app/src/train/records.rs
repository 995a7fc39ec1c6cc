//! What a run says of itself while it trains: its steps, the lines of metrics.jsonl, its end.

use halfbyte_core::device::sensors::Sensors;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRecord {
    /// Steps done, this one included.
    pub step: usize,
    /// Steps of the run.
    pub total: usize,
    /// Epochs done.
    pub epoch: f64,
    /// Mean loss of the predicted tokens (with the auxiliary loss where it is trained on).
    pub loss: f64,
    /// Tokens that were predicted, and how many of them were the most probable token.
    pub predicted: usize,
    /// See `predicted`.
    pub hits: usize,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// f16: the gradient overflowed and nothing was changed.
    pub skipped: bool,
    /// Tokens of the step.
    pub tokens: usize,
    /// Tokens as HF's Trainer counts them, see [`Step`](crate::data::loader::Step).
    pub padded_tokens: usize,
    /// Rows of the step.
    pub rows: usize,
    /// Time of the step.
    pub time: Duration,
}

/// A record of metrics.jsonl, with HF's names.
#[derive(Clone, Debug, Serialize)]
pub struct LogRecord {
    /// Steps done.
    pub step: usize,
    /// Epochs done.
    pub epoch: f64,
    /// Mean of the steps' losses since the last record.
    pub loss: f64,
    /// Share of the predicted tokens that were the most probable, since the last record.
    pub mean_token_accuracy: f64,
    /// Of the last step.
    pub grad_norm: f64,
    /// Of the last step.
    pub learning_rate: f64,
    /// Since the last record.
    pub tokens_per_second: f64,
    /// What the device's sensors say now.
    #[serde(flatten)]
    pub sensors: Option<SystemMetrics>,
}

/// One reading of a GPU's sensors under the names of W&B's system metrics. `gpu.0` is the GPU of the run, whatever its
/// number.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct SystemMetrics {
    /// Percent of the driver's last sampling period in which a kernel ran.
    #[serde(rename = "system.gpu.0.gpu", skip_serializing_if = "Option::is_none")]
    pub utilization: Option<u32>,
    /// Bytes in use, by all processes and the driver.
    #[serde(rename = "system.gpu.0.memoryAllocatedBytes", skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Degrees Celsius.
    #[serde(rename = "system.gpu.0.temp", skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    /// Watts.
    #[serde(rename = "system.gpu.0.powerWatts", skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
}

impl From<Sensors> for SystemMetrics {
    fn from(s: Sensors) -> Self {
        Self { utilization: s.utilization, memory: s.memory, temperature: s.temperature, power: s.power }
    }
}

/// The result of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EvalRecord {
    /// Steps done.
    pub step: usize,
    /// As HF's Trainer prints it: the mean over rows of the mean loss of their batch.
    pub eval_loss: f64,
    /// Mean over all predicted tokens.
    pub eval_loss_per_token: f64,
    /// e^eval_loss_per_token.
    pub eval_perplexity: f64,
    /// Share of the predicted tokens that were the most probable.
    pub eval_mean_token_accuracy: f64,
    /// Number of predicted tokens.
    pub eval_tokens: usize,
}

/// The best evaluation.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Best {
    /// The step it was made after.
    pub step: usize,
    /// Its metric.
    pub metric: f64,
}

/// What the model said to the recipe's `sample_prompts`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleRecord {
    /// Steps done.
    pub step: usize,
    /// One for each prompt.
    pub samples: Vec<Sample>,
}

/// A continued prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// The prompt.
    pub prompt: String,
    /// What came after it.
    pub answer: String,
    /// Whether the model ended it, or `sample_max_new_tokens` did.
    pub ended: bool,
}

/// The end of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Steps done.
    pub steps: usize,
    /// Whether it was stopped from outside before its last step.
    pub interrupted: bool,
    /// Whether it ended early because the evaluations had stopped to gain.
    pub stopped_early: bool,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Mean of the steps' losses.
    pub train_loss: f64,
    /// Loss of the last step.
    pub final_loss: f64,
    /// Tokens seen.
    pub tokens: usize,
    /// Rows seen.
    pub rows: usize,
    /// Seconds in steps.
    pub seconds: f64,
}
