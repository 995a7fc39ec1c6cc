//! A run before anything is loaded: data made into rows, steps counted, program recorded and planned, all of it once.

use super::ModelPlace;
use super::record::{Adapted, Recorded, record_training};
use super::spec::Capacity;
use crate::config::recipe::Recipe;
use crate::config::training::{Placement, TrainingConfig};
use crate::data::open::{RunData, largest_batch, open_data};
use crate::train::length::{Length, Steps};
use crate::train::schedule::{Shape, warmup_steps};
use crate::weights::adapter::Adapter;
use crate::weights::safetensors::Checkpoint;
use halfbyte_core::error::Result;
use halfbyte_core::model::ModelConfig;
use std::path::Path;

/// A run, planned from its recipe, its data and the model's config.json.
pub struct Planned {
    /// The recipe.
    pub recipe: Recipe,
    /// The model's config, with what the recipe says about it.
    pub config: ModelConfig,
    /// Rows, reports, tokenizer.
    pub data: RunData,
    /// The length of the run.
    pub steps: Steps,
    /// The program, its plan, and what it adapts.
    pub recorded: Recorded,
    /// Lines for the report.
    pub notes: Vec<String>,
}

/// A run that is ready to start: its weights are open, nothing is written yet.
pub struct Prepared {
    /// The run.
    pub planned: Planned,
    /// The base model.
    pub place: ModelPlace,
    /// `None`: the weights are made up.
    pub(super) checkpoint: Option<Checkpoint>,
    /// The adapter that the recipe starts from.
    pub(super) adapter: Option<Adapter>,
}

/// Opens the weights of the model and the recipe's adapter, makes rows of the data, and plans the run. `progress` hears
/// how many records are done.
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

/// The adapter in `folder`, whose configuration is resolved already.
fn start_adapter(
    folder: &Path,
    adapted: &Adapted,
    config: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
) -> Result<Adapter> {
    let adapter = Adapter::read(folder, config, adapted.lora.clone(), adapted.modules.clone())?;
    if let Some(checkpoint) = checkpoint {
        adapter.check_head(checkpoint, config)?;
    }
    Ok(adapter)
}

impl Planned {
    /// Counts the steps and records the program for the largest micro-batch. Without a checkpoint, a pre-quantized
    /// model's format is taken from config.json.
    pub fn new(
        recipe: Recipe,
        config: ModelConfig,
        adapted: Adapted,
        checkpoint: Option<&Checkpoint>,
        mut data: RunData,
    ) -> Result<Self> {
        let training = &recipe.training;
        let steps = Length::new(training, data.train.rows.len()).steps()?;
        data.report.steps = Some(steps.total);
        let capacity = Capacity { tokens: largest_batch(&data, training.batch_size), updates: steps.total };
        let mut notes: Vec<String> = adapted.notes.iter().chain(&recipe.notes).chain(&data.notes).cloned().collect();
        notes.extend(schedule_note(training, steps.total)?);
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
        let recorded = record_training(&recipe, &config, checkpoint, adapted, capacity)?;
        Ok(Self { recipe, config, data, steps, recorded, notes })
    }

    /// The lines that count parameters.
    pub fn parameters(&self) -> String {
        self.recorded.parameters(&self.recipe)
    }
}

/// A warm-up that the schedule ignores.
fn schedule_note(training: &TrainingConfig, steps: usize) -> Result<Option<String>> {
    let warmup = warmup_steps(steps, training.warmup_steps, training.warmup_ratio);
    let shape = Shape::parse(&training.schedule, &training.schedule_kwargs.iter().cloned().collect())?;
    Ok((warmup > 0 && !shape.warms_up()).then(|| {
        format!(
            "lr_scheduler_type = \"{0}\" ignores the warm-up of {warmup} steps, as in HF; \"{0}_with_warmup\" has one",
            training.schedule
        )
    }))
}
