//! Which evaluation is the best, and what follows from it: the model that is kept, and an early end.

use toml::Value;

use super::cadence::Cadence;
use super::data::name;
use super::raw::Raw;
use halfbyte_core::error::Result;

/// What is compared.
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

/// HF's keys of that name, and the arguments of its `EarlyStoppingCallback`.
#[derive(Clone, PartialEq, Debug)]
pub struct BestModel {
    /// `metric_for_best_model`.
    pub metric: Metric,
    /// `greater_is_better`; the default is what the metric means.
    pub greater_is_better: bool,
    /// `load_best_model_at_end`: the adapter is that of the best evaluation, which gets a checkpoint whenever it is made.
    pub load_at_end: bool,
    /// `early_stopping_patience`: the run ends after so many evaluations without gain.
    pub patience: Option<usize>,
    /// `early_stopping_threshold`: what counts as gain.
    pub threshold: f64,
}

impl BestModel {
    pub(super) fn read(raw: &Raw, eval: Cadence) -> Result<Self> {
        let metric = raw.choice("metric_for_best_model", &METRICS)?.unwrap_or(Metric::Loss);
        let rule = Self {
            metric,
            greater_is_better: raw.flag("greater_is_better")?.unwrap_or(metric == Metric::TokenAccuracy),
            load_at_end: raw.flag("load_best_model_at_end")?.unwrap_or(false),
            patience: raw.count("early_stopping_patience", 1)?,
            threshold: raw.at_least("early_stopping_threshold", 0.0)?.unwrap_or(0.0),
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
