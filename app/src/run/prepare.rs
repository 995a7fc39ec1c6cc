//! Prepares a run before any weight is loaded: turns the data into rows, counts the steps, records and plans the
//! program. Each of these happens once.

use super::ModelPlace;
use super::ladder::first;
use super::record::{Adapted, Recorded, record_training};
use super::spec::Capacity;
use crate::config::data::OverLength;
use crate::config::recipe::Recipe;
use crate::config::training::{Placement, TrainingConfig};
use crate::data::open::{RunData, largest_batch, open_data};
use crate::train::length::{Length, Steps};
use crate::train::schedule::{ScheduleKind, TIMESCALE, warmup_steps};
use crate::weights::adapter::Adapter;
use crate::weights::safetensors::TensorFiles;
use halfbyte_core::error::Result;
use halfbyte_core::model::ModelConfig;
use std::path::Path;

/// A run, planned from its recipe, its data and the model's config.json.
pub struct Planned {
    /// The recipe that the run follows.
    pub recipe: Recipe,
    /// The model's config.json, with the recipe's changes applied.
    pub config: ModelConfig,
    /// Training and evaluation rows, the data report, and the tokenizer.
    pub data: RunData,
    /// Step counts of the run.
    pub steps: Steps,
    /// The program, its plan, and the adapted modules.
    pub recorded: Recorded,
    /// Lines for the report.
    pub notes: Vec<String>,
}

/// A run that is ready to start. Its weights are open; nothing has been written yet.
pub struct Prepared {
    /// The planned run.
    pub planned: Planned,
    /// The base model and its location.
    pub place: ModelPlace,
    /// The weights of the base model; `None` if they are random.
    pub(super) checkpoint: Option<TensorFiles>,
    /// The adapter from which the recipe starts, if it names one.
    pub(super) adapter: Option<Adapter>,
}

/// Opens the weights of the model and the recipe's adapter, turns the data into rows, and plans the run. Calls
/// `progress` with the number of records done so far.
pub fn prepare(recipe: Recipe, place: ModelPlace, progress: &dyn Fn(usize)) -> Result<Prepared> {
    let config = recipe.apply(place.config.clone())?;
    let checkpoint = place.checkpoint()?;
    let adapted = Adapted::resolve(&recipe, &config)?;
    let adapter = match &recipe.model.adapter {
        Some(folder) => Some(start_adapter(Path::new(folder), &adapted, &config, checkpoint.as_ref())?),
        None => None,
    };
    let data = open_data(&recipe.data, &place.tokenizer()?, &config, progress)?;
    let mut planned = Planned::new(recipe, config, adapted, checkpoint.as_ref(), data)?;
    planned.notes.splice(0..0, place.notes());
    Ok(Prepared { planned, place, checkpoint, adapter })
}

/// Reads the adapter in `folder`, whose configuration is already resolved.
fn start_adapter(
    folder: &Path,
    adapted: &Adapted,
    config: &ModelConfig,
    checkpoint: Option<&TensorFiles>,
) -> Result<Adapter> {
    let adapter = Adapter::read(folder, config, adapted.lora.clone(), adapted.modules.clone())?;
    if let Some(checkpoint) = checkpoint {
        adapter.check_head(checkpoint, config)?;
    }
    Ok(adapter)
}

impl Planned {
    /// Counts the steps and records the program for the largest micro-batch. Without a checkpoint, the 4-bit format of
    /// a pre-quantized model comes from config.json.
    pub fn new(
        recipe: Recipe,
        config: ModelConfig,
        adapted: Adapted,
        checkpoint: Option<&TensorFiles>,
        mut data: RunData,
    ) -> Result<Self> {
        let training = &recipe.training;
        let steps = Length::new(training, data.train.rows.len()).steps()?;
        data.report.steps = Some(steps.total);
        let capacity = Capacity { tokens: largest_batch(&data, training.batch_size), updates: steps.total };
        let mut notes: Vec<String> = adapted.notes.iter().chain(&recipe.notes).chain(&data.notes).cloned().collect();
        notes.extend(schedule_notes(training, steps.total)?);
        if training.optim.placement == Placement::Paged {
            notes.push(
                "optim: the optimizer state is paged only if the run needs its memory; paging does not change any number"
                    .into(),
            );
        }
        if !recipe.data.packing && data.report.counts.missing_eos < data.report.counts.records {
            let cut = match (recipe.data.over_length, data.report.counts.too_long) {
                (_, 0) | (OverLength::Drop | OverLength::Error, _) => String::new(),
                (_, n) => format!(
                    " ({n} documents are cut and end without one; TRL 0.7 cuts one token earlier and adds the end token)"
                ),
            };
            notes.push(format!(
                "nothing is padded, so every end token is learned{cut}; with pad_token = eos_token, HF's collator masks \
                 them, and the model does not learn to stop"
            ));
        }
        let choice = first(training.checkpointing, config.layers);
        let recorded = record_training(&recipe, &config, checkpoint, adapted, capacity, choice)?;
        Ok(Self { recipe, config, data, steps, recorded, notes })
    }

    /// The lines of the report that count parameters.
    pub fn parameters(&self) -> String {
        self.recorded.parameters(&self.recipe)
    }
}

/// Notes on settings that the recipe's schedule ignores.
fn schedule_notes(training: &TrainingConfig, steps: usize) -> Result<Vec<String>> {
    let warmup = warmup_steps(steps, training.warmup_steps, training.warmup_ratio);
    let shape = ScheduleKind::parse(&training.schedule, &training.schedule_kwargs.iter().cloned().collect())?;
    let mut notes = Vec::new();
    if warmup > 0 && !shape.warms_up() {
        notes.push(format!(
            "lr_scheduler_type = \"{0}\" ignores the warm-up of {warmup} steps, as in HF; \"{0}_with_warmup\" has one",
            training.schedule
        ));
    }
    if training.schedule_kwargs.iter().any(|(key, _)| key == TIMESCALE) {
        let scale = if warmup > 0 { warmup } else { 10_000 };
        notes.push(format!(
            "`{TIMESCALE}` in lr_scheduler_kwargs has no effect, as in HF: the time scale of inverse_sqrt is the warm-up, \
             or 10000 steps without one (here {scale})"
        ));
    }
    Ok(notes)
}
