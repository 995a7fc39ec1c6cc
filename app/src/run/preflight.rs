//! What is known of a run before anything is loaded: its steps, its program, and so the memory and the time it will take.

use super::record_training;
use crate::config::recipe::Recipe;
use crate::config::training::{Cadence, Placement};
use crate::data::loader::Dataset;
use crate::data::open::RunData;
use crate::run::spec::Capacity;
use crate::train::arithmetic::{Length, Steps};
use crate::train::schedule::{Shape, warmup_steps};
use crate::train::trainer::rows_at_once;
use crate::weights::names::{Counts, count};
use crate::weights::safetensors::Checkpoint;
use crate::weights::targets::AdapterModule;
use halfbyte_core::error::Result;
use halfbyte_core::model::Model;
use halfbyte_core::model::ModelConfig;
use halfbyte_core::op::Phase;
use halfbyte_core::plan::cost::{Load, Rates, seconds};
use halfbyte_core::plan::{Plan, plan};
use serde::Serialize;

/// The run, planned.
pub struct Preflight {
    /// The length of the run.
    pub steps: Steps,
    /// The recorded program.
    pub model: Model,
    /// Where its buffers lie.
    pub plan: Plan,
    /// Lines for the report.
    pub notes: Vec<String>,
}

impl Preflight {
    /// Counts the steps and records the program for the largest micro-batch. Without a checkpoint, a pre-quantised
    /// model's format is taken from config.json.
    pub fn new(
        recipe: &Recipe,
        config: &ModelConfig,
        checkpoint: Option<&Checkpoint>,
        data: &mut RunData,
    ) -> Result<Self> {
        let training = &recipe.training;
        let steps = Length::new(training, data.train.rows.len()).steps()?;
        data.report.steps = Some(steps.total);
        let capacity = Capacity { tokens: largest_batch(data, training.batch_size), updates: steps.total };
        let (model, unmatched) = record_training(recipe, config, checkpoint, capacity)?;
        let mut notes: Vec<String> = recipe.notes.iter().chain(&unmatched).chain(&data.notes).cloned().collect();
        let warmup = warmup_steps(steps.total, training.warmup_steps, training.warmup_ratio);
        let shape = Shape::parse(&training.schedule, &training.schedule_kwargs.iter().cloned().collect())?;
        if warmup > 0 && !shape.warms_up() {
            notes.push(format!(
                "lr_scheduler_type = \"{0}\" ignores the warm-up of {warmup} steps, as in HF; \"{0}_with_warmup\" has one",
                training.schedule
            ));
        }
        if training.optim.placement == Placement::Paged {
            notes.push("optim: the state stays resident, there is room for it; pages change no number".into());
        }
        if !recipe.data.packing && data.report.counts.missing_eos < data.report.counts.records {
            notes.push(
                "nothing is padded, so every end token is learnt; with pad_token = eos_token HF's collator masks them, \
                 and its models do not learn to stop"
                    .into(),
            );
        }
        let plan = plan(&model.program);
        Ok(Self { steps, model, plan, notes })
    }

    /// The time that the run will take on a device of these rates.
    pub fn time(&self, recipe: &Recipe, data: &RunData, rates: Rates) -> Time {
        let (training, program) = (&recipe.training, &self.model.program);
        let window = self.model.spec.config.sliding_window;
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
    /// An optimiser step.
    pub step: f64,
    /// All steps.
    pub training: f64,
    /// How often the run evaluates.
    pub evaluations: usize,
    /// One evaluation.
    pub evaluation: f64,
}

impl Time {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.training + self.evaluations as f64 * self.evaluation
    }
}

/// How often a run evaluates: when the recipe says, and at its end.
fn evaluations(recipe: &Recipe, steps: &Steps) -> usize {
    if !recipe.data.has_eval() {
        return 0;
    }
    let every = |n: usize| steps.total.div_ceil(n.max(1));
    let during = match recipe.training.eval {
        Cadence::Never => 1,
        Cadence::Epoch => every(steps.per_epoch),
        Cadence::Steps(n) => every(n),
        Cadence::Share(share) => every((share * steps.total as f64).ceil() as usize),
    };
    during + usize::from(recipe.training.eval_on_start)
}

/// Tokens of all rows, and how many keys each sees on average.
fn load(dataset: &Dataset, window: Option<usize>) -> Load {
    let window = window.unwrap_or(usize::MAX);
    let pieces = (0..dataset.rows.len()).flat_map(|row| dataset.rows.row(row)).map(|piece| piece.tokens());
    let (mut tokens, mut seen) = (0, 0.0);
    for n in pieces {
        let full = n.min(window);
        tokens += n;
        seen += full as f64 * (full + 1) as f64 / 2.0 + (n - full) as f64 * window as f64;
    }
    Load { tokens, seen: seen / tokens.max(1) as f64 }
}

/// Tokens of the largest micro-batch: the longest rows together. Evaluation splits its batches to fit.
pub(super) fn largest_batch(data: &RunData, batch: usize) -> usize {
    let mut lengths = data.train.rows.lengths();
    lengths.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
    let train: usize = lengths.iter().take(batch).sum();
    let eval = data.eval.as_ref().and_then(|(d, _)| d.rows.lengths().into_iter().max()).unwrap_or(0);
    train.max(eval)
}

/// The line of trainable parameters as PEFT prints it, and for a 4-bit base the one that the QLoRA tutorials print.
pub fn parameters(recipe: &Recipe, config: &ModelConfig, modules: &[AdapterModule]) -> String {
    let trainable: u64 = modules.iter().map(|m| m.parameters() as u64).sum();
    let skip = match (&config.quantization, &recipe.quantization) {
        (Some(q), _) => Some(&q.skip_modules[..]),
        (None, Some(q)) => Some(&q.skip_modules[..]),
        (None, None) => None,
    };
    let counts: Counts = count(config, skip);
    match skip {
        None => counts.line(trainable),
        Some(_) => format!(
            "{}\nas the QLoRA tutorials count, 4-bit weights by their bytes: {}",
            counts.line(trainable),
            counts.packed_line(trainable)
        ),
    }
}
