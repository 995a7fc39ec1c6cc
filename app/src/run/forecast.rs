//! Predicts the time of a planned run.

use super::prepare::Planned;
use crate::config::cadence::Cadence;
use crate::config::recipe::Recipe;
use crate::data::loader::Dataset;
use crate::train::evaluate::rows_at_once;
use crate::train::length::Steps;
use halfbyte_core::op::{Phase, Program};
use halfbyte_core::plan::cost::{Load, Rates, seconds};
use serde::Serialize;

impl Planned {
    /// Predicts the time of the run on a device with these rates.
    pub fn time(&self, rates: Rates) -> Time {
        let Self { recipe, data, .. } = self;
        let (training, program) = (&recipe.training, &self.recorded.model.program);
        let window = self.config.sliding_window;
        let micro_batches = self.steps.micro_batches_per_epoch as f64;
        let all = load(&data.train, window);
        let mean = |batches: f64| Load { tokens: (all.tokens as f64 / batches).ceil() as usize, seen: all.seen };
        let per_step = micro_batches / self.steps.per_epoch as f64;
        let none = Load { tokens: 0, seen: 0.0 };
        let update =
            [Phase::Begin, Phase::Update].map(|phase| seconds(program, phase, none, rates)).iter().sum::<f64>();
        let step = per_step * seconds(program, Phase::Micro, mean(micro_batches), rates) + update;
        let evaluations = evaluations(recipe, &self.steps);
        let evaluation = data.eval.as_ref().map_or(0.0, |(eval, _)| {
            let longest = eval.rows.lengths().into_iter().max().unwrap_or(0);
            let at_once = rows_at_once(training.eval_batch_size, longest, program.tokens);
            let runs = eval.rows.len().div_ceil(at_once) as f64;
            let all = load(eval, window);
            let each = Load { tokens: (all.tokens as f64 / runs).ceil() as usize, seen: all.seen };
            runs * seconds(program, Phase::Eval { adapter: true }, each, rates)
        });
        Time { step, training: step * self.steps.total as f64, evaluations, evaluation }
    }
}

/// The predicted time of a run, in seconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Time {
    /// Seconds of an optimizer step.
    pub step: f64,
    /// Seconds of all steps.
    pub training: f64,
    /// Number of evaluations.
    pub evaluations: usize,
    /// Seconds of one evaluation.
    pub evaluation: f64,
}

impl Time {
    /// Seconds of all steps and evaluations.
    pub fn total(&self) -> f64 {
        self.training + self.evaluations as f64 * self.evaluation
    }
}

/// The number of evaluations of a run: as often as the recipe asks, and at the end.
fn evaluations(recipe: &Recipe, steps: &Steps) -> usize {
    if !recipe.data.has_eval() {
        return 0;
    }
    let eval = recipe.training.eval;
    let every = eval.every(steps.total).or((eval == Cadence::Epoch).then_some(steps.per_epoch));
    every.map_or(1, |n| steps.total.div_ceil(n)) + usize::from(recipe.training.eval_on_start)
}

/// The number of tokens of all rows, and the mean number of keys that each attends to.
pub(super) fn load(dataset: &Dataset, window: Option<usize>) -> Load {
    let pieces = (0..dataset.rows.len()).flat_map(|row| dataset.rows.row(row)).map(|piece| piece.tokens());
    let (mut tokens, mut seen) = (0, 0.0);
    for n in pieces {
        tokens += n;
        seen += pairs(n, window);
    }
    Load { tokens, seen: seen / tokens.max(1) as f64 }
}

/// Predicted seconds of an optimizer step of `accumulation` micro-batches, all rows of which have `length` tokens.
pub fn full_step(program: &Program, length: usize, accumulation: usize, window: Option<usize>, rates: Rates) -> f64 {
    let full = Load { tokens: program.tokens, seen: pairs(length, window) / length.max(1) as f64 };
    let none = Load { tokens: 0, seen: 0.0 };
    let update = [Phase::Begin, Phase::Update].map(|phase| seconds(program, phase, none, rates)).iter().sum::<f64>();
    accumulation as f64 * seconds(program, Phase::Micro, full, rates) + update
}

/// The number of pairs of a query and a key that it sees, in a document of `n` tokens.
fn pairs(n: usize, window: Option<usize>) -> f64 {
    let window = window.unwrap_or(usize::MAX);
    let full = n.min(window);
    full as f64 * (full + 1) as f64 / 2.0 + (n - full) as f64 * window as f64
}
