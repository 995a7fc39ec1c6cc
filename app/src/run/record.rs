//! From a recipe to the recorded and planned program of a training run.

use super::spec::{Capacity, base_schemes, training_spec};
use crate::config::lora::LoraConfig;
use crate::config::recipe::Recipe;
use crate::weights::adapter::read_config;
use crate::weights::names::{Counts, count};
use crate::weights::safetensors::Checkpoint;
use crate::weights::targets::{AdapterModule, resolve};
use halfbyte_core::error::Result;
use halfbyte_core::model::{Model, ModelConfig, record};
use halfbyte_core::plan::{Plan, plan};
use std::path::Path;

/// What a run adapts: its LoRA configuration, resolved against a model.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// The recipe's configuration, or that of the adapter it starts from.
    pub lora: LoraConfig,
    /// The adapted modules, in the order of the module tree.
    pub modules: Vec<AdapterModule>,
    /// A line for each target name that matches nothing.
    pub notes: Vec<String>,
}

impl Adapted {
    /// Reads the configuration and finds its modules in the model of `config`.
    pub fn resolve(recipe: &Recipe, config: &ModelConfig) -> Result<Self> {
        let lora = match &recipe.model.adapter {
            Some(folder) => read_config(Path::new(folder))?.0,
            None => recipe.lora.clone(),
        };
        let resolution = resolve(&lora, config)?;
        let note = |(name, nearest): &(String, Vec<String>)| {
            format!(
                "target_modules: `{name}` matches no module of this model and is NOT trained; did you mean {}?",
                nearest.join(", ")
            )
        };
        Ok(Self { lora, notes: resolution.unmatched.iter().map(note).collect(), modules: resolution.modules })
    }
}

/// The program of a training run.
pub struct Recorded {
    /// The recorded program.
    pub model: Model,
    /// Where its buffers lie.
    pub plan: Plan,
    /// What it adapts.
    pub adapted: Adapted,
}

/// Records and plans the program of a training run. Without a checkpoint, a pre-quantized model's format is taken from
/// config.json.
pub fn record_training(
    recipe: &Recipe,
    config: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
    adapted: Adapted,
    capacity: Capacity,
) -> Result<Recorded> {
    let quantization = recipe.quantization.as_ref();
    let skip = quantization.map_or(&[][..], |q| &q.skip_modules);
    let base = base_schemes(config, checkpoint, quantization.map(|q| q.scheme), skip)?;
    let model = record(training_spec(recipe, config, &adapted.modules, adapted.lora.dropout, base, capacity)?)?;
    let plan = plan(&model.program);
    Ok(Recorded { model, plan, adapted })
}

impl Recorded {
    /// Trainable parameters.
    pub fn trainable(&self) -> u64 {
        self.adapted.modules.iter().map(|m| m.parameters() as u64).sum()
    }

    /// HF's estimate of the floating point operations that a token of training takes: six times the parameters but for
    /// the embeddings. In transformers' `num_parameters` a 4-bit weight counts in full.
    pub(super) fn flos_per_token(&self) -> u64 {
        let config = &self.model.spec.config;
        let embeddings = (config.vocab_size * config.hidden_size) as u64;
        6 * (count(config, None).parameters - embeddings + self.trainable())
    }

    /// The line that counts parameters as PEFT prints it, and for a 4-bit base the one that the QLoRA tutorials print.
    pub fn parameters(&self, recipe: &Recipe) -> String {
        let config = &self.model.spec.config;
        let skip = match (&config.quantization, &recipe.quantization) {
            (Some(q), _) => Some(&q.skip_modules[..]),
            (None, Some(q)) => Some(&q.skip_modules[..]),
            (None, None) => None,
        };
        let counts: Counts = count(config, skip);
        match skip {
            None => counts.line(self.trainable()),
            Some(_) => format!(
                "{}\nas the QLoRA tutorials count, 4-bit weights by their bytes: {}",
                counts.line(self.trainable()),
                counts.packed_line(self.trainable())
            ),
        }
    }
}
