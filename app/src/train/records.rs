//! The records that a run reports while it trains: steps, the lines of metrics.jsonl, the summary.

use crate::sensors::Sensors;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRecord {
    /// Optimizer steps done, including this one.
    pub step: usize,
    /// Optimizer steps of the whole run.
    pub total: usize,
    /// Epochs done, with their fraction.
    pub epoch: f64,
    /// Mean loss of the predicted tokens, plus the weighted auxiliary loss if the recipe trains with it.
    pub loss: f64,
    /// Number of predicted tokens.
    pub predicted: usize,
    /// Predicted tokens to which the model gave the highest probability.
    pub hits: usize,
    /// L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Whether the update was skipped because a gradient overflowed in f16.
    pub skipped: bool,
    /// Number of tokens, without padding.
    pub tokens: usize,
    /// Number of tokens as HF's Trainer counts them, see [`StepData`](crate::data::loader::StepData).
    pub padded_tokens: usize,
    /// Number of rows.
    pub rows: usize,
    /// Wall-clock time of the step.
    pub time: Duration,
}

/// A training record of metrics.jsonl, with HF's names. Means and rates cover the steps since the last record.
#[derive(Clone, Debug, Serialize)]
pub struct LogRecord {
    /// Optimizer steps done.
    pub step: usize,
    /// Epochs done, with their fraction.
    pub epoch: f64,
    /// Mean of the steps' losses.
    pub loss: f64,
    /// Share of the predicted tokens to which the model gave the highest probability.
    pub mean_token_accuracy: f64,
    /// L2 norm of the last step's gradient, before clipping.
    pub grad_norm: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Tokens per second of step time, without padding.
    pub tokens_per_second: f64,
    /// The current readings of the device's sensors.
    #[serde(flatten)]
    pub sensors: Option<SystemMetrics>,
}

/// One reading of a GPU's sensors, with the names of W&B's system metrics. `gpu.0` is always the GPU of the run, even
/// if the driver gives it another number.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct SystemMetrics {
    /// Percent of the driver's last sampling period during which a kernel ran.
    #[serde(rename = "system.gpu.0.gpu", skip_serializing_if = "Option::is_none")]
    pub utilization: Option<u32>,
    /// Bytes of GPU memory in use, by all processes and the driver.
    #[serde(rename = "system.gpu.0.memoryAllocatedBytes", skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Temperature in degrees Celsius.
    #[serde(rename = "system.gpu.0.temp", skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    /// Power draw in watts.
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
    /// Optimizer steps done.
    pub step: usize,
    /// The loss that HF's Trainer prints: the mean over rows of the loss of their batch, which is the mean over its predicted
    /// tokens, plus the weighted auxiliary loss if the recipe trains with it.
    pub eval_loss: f64,
    /// Mean loss over all predicted tokens.
    pub eval_loss_per_token: f64,
    /// exp(`eval_loss_per_token`).
    pub eval_perplexity: f64,
    /// Share of the predicted tokens to which the model gave the highest probability.
    pub eval_mean_token_accuracy: f64,
    /// Number of predicted tokens.
    pub eval_tokens: usize,
}

/// The best evaluation of a run.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Best {
    /// Optimizer steps done at that evaluation.
    pub step: usize,
    /// Value of the recipe's `metric_for_best_model`.
    pub metric: f64,
}

/// The model's continuations of the recipe's `sample_prompts`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleRecord {
    /// Optimizer steps done.
    pub step: usize,
    /// One continuation for each prompt.
    pub samples: Vec<Continuation>,
}

/// A prompt with its continuation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Continuation {
    /// The prompt as the recipe gives it.
    pub prompt: String,
    /// The continuation, without the prompt and the end token.
    pub answer: String,
    /// Whether an end token ended the continuation, rather than `sample_max_new_tokens`.
    pub ended: bool,
}

/// The summary of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Optimizer steps done.
    pub steps: usize,
    /// Whether the run was interrupted before its last step.
    pub interrupted: bool,
    /// Whether early stopping ended the run: the evaluations no longer improved.
    pub stopped_early: bool,
    /// The best evaluation, if there was one.
    pub best: Option<Best>,
    /// Mean of the steps' losses.
    pub train_loss: f64,
    /// Loss of the last step.
    pub final_loss: f64,
    /// Number of tokens trained on, without padding.
    pub tokens: usize,
    /// Number of rows trained on.
    pub rows: usize,
    /// Sum of the steps' times, in seconds.
    pub seconds: f64,
}
