//! Where a run stands between two steps. With the adapter and the optimizer's state it is all that a checkpoint holds:
//! a run that goes on from it does what it would have done.

use super::records::{Best, EvalRecord, LogRecord, StepRecord, SystemMetrics};
use crate::config::best::{BestModel, Metric};
use crate::data::loader::Position;
use serde::{Deserialize, Serialize};

/// Between two steps.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrainerState {
    /// Steps done.
    pub step: usize,
    /// Micro-steps done: dropout's key, with the seed.
    pub micro_steps: i32,
    /// Where the data goes on.
    pub position: Position,
    /// Over all steps.
    pub total: Totals,
    /// Since the last record of the log.
    pub since_log: Totals,
    /// The step of the last evaluation.
    pub evaluated: Option<usize>,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Evaluations since then, or since the last gain that was large enough.
    pub without_gain: usize,
}

/// Sums over steps.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Steps.
    pub steps: usize,
    /// Sum of their losses.
    pub loss: f64,
    /// Loss of the last.
    pub last: f64,
    /// Epochs done.
    pub epoch: f64,
    /// Learning rate of the last.
    pub learning_rate: f64,
    /// Predicted tokens.
    pub predicted: usize,
    /// Of these, those that were the most probable.
    pub hits: usize,
    /// Tokens.
    pub tokens: usize,
    /// Tokens as HF's Trainer counts them.
    pub padded_tokens: usize,
    /// Rows.
    pub rows: usize,
    /// Seconds.
    pub seconds: f64,
}

impl TrainerState {
    /// Before the first step.
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

    /// Takes an evaluation into account, as HF's `EarlyStoppingCallback` does: any gain makes it the best, only one above
    /// the threshold lets the patience begin again. One that is not finite is never the best: in HF nothing would beat it.
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
    /// One more step.
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

    /// The record of the steps since the last one.
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
            // A checkpoint can be read again.
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
