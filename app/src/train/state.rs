//! The state of the training loop between two steps. With the adapter and the optimizer state it is a whole checkpoint:
//! a run that resumes from it computes the same bits as one that was never interrupted.

use super::records::{Best, EvalRecord, LogRecord, StepRecord, SystemMetrics};
use crate::config::best::{BestModel, Metric};
use crate::data::loader::Position;
use serde::{Deserialize, Serialize};

/// The state of the training loop between two steps.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrainerState {
    /// Optimizer steps done.
    pub step: usize,
    /// Micro-steps done. With the seed, this is the key of dropout's random numbers.
    pub micro_steps: i32,
    /// The loader's position: the next row.
    pub position: Position,
    /// Sums over all steps.
    pub total: Totals,
    /// Sums over the steps since the last log record.
    pub since_log: Totals,
    /// The step of the last evaluation.
    pub evaluated: Option<usize>,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Evaluations since the last improvement above `early_stopping_threshold`.
    pub without_gain: usize,
}

/// Sums over steps.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Number of optimizer steps.
    pub steps: usize,
    /// Sum of the steps' losses.
    pub loss: f64,
    /// Loss of the last step.
    pub last: f64,
    /// Epochs done, with their fraction.
    pub epoch: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Number of predicted tokens.
    pub predicted: usize,
    /// Predicted tokens to which the model gave the highest probability.
    pub hits: usize,
    /// Number of tokens, without padding.
    pub tokens: usize,
    /// Number of tokens as HF's Trainer counts them, with padding.
    pub padded_tokens: usize,
    /// Number of rows.
    pub rows: usize,
    /// Time of the steps, in seconds.
    pub seconds: f64,
}

impl TrainerState {
    /// The state before the first step.
    pub fn start(position: Position) -> Self {
        Self {
            step: 0,
            micro_steps: 0,
            position,
            total: Totals::default(),
            since_log: Totals::default(),
            evaluated: None,
            best: None,
            without_gain: 0,
        }
    }

    /// Updates the best evaluation and the patience, as HF's `EarlyStoppingCallback` does: any improvement makes this
    /// evaluation the best, but only one above the threshold resets the patience. A metric that is not finite is never
    /// the best. HF accepts it, and no later metric beats it.
    pub fn note_evaluation(&mut self, rule: &BestModel, record: &EvalRecord) {
        self.evaluated = Some(record.step);
        let metric = match rule.metric {
            Metric::Loss => record.eval_loss,
            Metric::LossPerToken => record.eval_loss_per_token,
            Metric::TokenAccuracy => record.eval_mean_token_accuracy,
        };
        if !metric.is_finite() {
            self.without_gain += 1;
            return;
        }
        let better = |than: f64| if rule.greater_is_better { metric > than } else { metric < than };
        let gain = self.best.is_none_or(|b| better(b.metric) && (metric - b.metric).abs() > rule.threshold);
        self.without_gain = if gain { 0 } else { self.without_gain + 1 };
        if self.best.is_none_or(|b| better(b.metric)) {
            self.best = Some(Best { step: record.step, metric });
        }
    }
}

impl Totals {
    /// Adds one step.
    pub fn add(&mut self, record: &StepRecord) {
        self.steps += 1;
        self.loss += record.loss;
        self.last = record.loss;
        self.epoch = record.epoch;
        self.learning_rate = record.learning_rate;
        self.predicted += record.predicted;
        self.hits += record.hits;
        self.tokens += record.tokens;
        self.padded_tokens += record.padded_tokens;
        self.rows += record.rows;
        self.seconds += record.time.as_secs_f64();
    }

    /// The log record of the summed steps, of which `last` is the last.
    pub fn log(&self, last: &StepRecord, sensors: Option<SystemMetrics>) -> LogRecord {
        LogRecord {
            step: last.step,
            epoch: last.epoch,
            loss: self.loss / self.steps as f64,
            mean_token_accuracy: self.hits as f64 / self.predicted.max(1) as f64,
            grad_norm: last.grad_norm,
            learning_rate: last.learning_rate,
            tokens_per_second: self.tokens as f64 / self.seconds,
            sensors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_that_is_not_finite_is_never_the_best() {
        let rule = BestModel {
            metric: Metric::Loss,
            greater_is_better: false,
            load_at_end: true,
            patience: Some(2),
            threshold: 0.0,
        };
        let mut state = TrainerState::start(Position { seed: 1, epoch: 0, index: 0, fingerprint: 0 });
        let mut note = |step, eval_loss| {
            let record = EvalRecord {
                step,
                eval_loss,
                eval_loss_per_token: eval_loss,
                eval_perplexity: eval_loss.exp(),
                eval_mean_token_accuracy: 0.0,
                eval_tokens: 1,
            };
            state.note_evaluation(&rule, &record);
            // The state survives a round trip through JSON.
            let text = serde_json::to_string(&state).expect("JSON");
            assert_eq!(serde_json::from_str::<TrainerState>(&text).expect("a state"), state);
            (state.best.map(|best| best.step), state.without_gain)
        };
        assert_eq!(note(1, f64::NAN), (None, 1));
        assert_eq!(note(2, 3.0), (Some(2), 0));
        assert_eq!(note(3, f64::INFINITY), (Some(2), 1));
        assert_eq!(note(4, 2.0), (Some(4), 0));
    }
}
