//! The settings for the best evaluation: how it is chosen, whether its adapter is kept, and when a run stops early.

use toml::Value;

use super::cadence::Cadence;
use super::raw::{Raw, name};
use halfbyte_core::error::Result;

/// The metric that evaluations are compared by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    /// `eval_loss`.
    Loss,
    /// `eval_loss_per_token`; `eval_perplexity` has the same order.
    LossPerToken,
    /// `eval_mean_token_accuracy`.
    TokenAccuracy,
}

const METRICS: [(&str, Metric); 6] = [
    ("eval_loss", Metric::Loss),
    ("loss", Metric::Loss),
    ("eval_loss_per_token", Metric::LossPerToken),
    ("eval_perplexity", Metric::LossPerToken),
    ("eval_mean_token_accuracy", Metric::TokenAccuracy),
    ("mean_token_accuracy", Metric::TokenAccuracy),
];

/// The keys about the best evaluation: those of `TrainingArguments`, and the arguments of transformers'
/// `EarlyStoppingCallback`.
#[derive(Clone, PartialEq, Debug)]
pub struct BestModel {
    /// `metric_for_best_model`.
    pub metric: Metric,
    /// `greater_is_better`; by default true for the accuracy only.
    pub greater_is_better: bool,
    /// `load_best_model_at_end`: the run writes the adapter of the best evaluation. Each evaluation that is the best so
    /// far gets a checkpoint.
    pub load_at_end: bool,
    /// `early_stopping_patience`: the run stops after this many evaluations without improvement.
    pub patience: Option<usize>,
    /// `early_stopping_threshold`: the least change that counts as an improvement.
    pub threshold: f64,
}

impl BestModel {
    /// Reads the keys. Errors if a setting needs evaluations and the recipe has none.
    pub(super) fn read(raw: &Raw, eval: Cadence) -> Result<Self> {
        let metric = raw.choice("metric_for_best_model", &METRICS).unwrap_or(Metric::Loss);
        let rule = Self {
            metric,
            greater_is_better: raw.flag("greater_is_better").unwrap_or(metric == Metric::TokenAccuracy),
            load_at_end: raw.flag("load_best_model_at_end").unwrap_or(false),
            patience: raw.count("early_stopping_patience", 1),
            threshold: raw.at_least("early_stopping_threshold", 0.0).unwrap_or(0.0),
        };
        for (key, on) in
            [("load_best_model_at_end", rule.load_at_end), ("early_stopping_patience", rule.patience.is_some())]
        {
            if on && eval == Cadence::Never {
                return Err(raw.wrong(key, "nothing is evaluated").hint("set eval_strategy and eval_steps"));
            }
        }
        Ok(rule)
    }

    pub(super) fn entries(&self) -> Vec<(&'static str, Option<Value>)> {
        let count = |n: usize| Value::from(n as i64);
        vec![
            ("load_best_model_at_end", Some(self.load_at_end.into())),
            ("metric_for_best_model", Some(name(&METRICS, self.metric))),
            ("greater_is_better", Some(self.greater_is_better.into())),
            ("early_stopping_patience", self.patience.map(count)),
            ("early_stopping_threshold", Some(self.threshold.into())),
        ]
    }
}
