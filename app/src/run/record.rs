//! Records and plans the program of a training run.

use super::spec::{Capacity, MemoryChoice, base_schemes, training_spec};
use crate::config::lora::LoraConfig;
use crate::config::recipe::Recipe;
use crate::weights::adapter::read_config;
use crate::weights::names::{ParameterCounts, count};
use crate::weights::safetensors::TensorFiles;
use crate::weights::targets::{AdapterModule, resolve};
use halfbyte_core::error::Result;
use halfbyte_core::model::{Model, ModelConfig, record};
use halfbyte_core::plan::{Plan, plan};
use std::path::Path;

/// The LoRA configuration of a run, resolved against a model.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// The recipe's configuration, or that of the adapter from which it starts.
    pub lora: LoraConfig,
    /// The adapted modules, in the order of the module tree.
    pub modules: Vec<AdapterModule>,
    /// A note for each target name that matches no module.
    pub notes: Vec<String>,
}

impl Adapted {
    /// Reads the LoRA configuration and finds its modules in the model of `config`.
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

/// A training run's program with its plan.
pub struct Recorded {
    /// The model with its recorded program.
    pub model: Model,
    /// The placement of the program's buffers in memory.
    pub plan: Plan,
    /// The adapted modules.
    pub adapted: Adapted,
}

/// Records and plans the program of a training run. Without a checkpoint, the 4-bit format of a pre-quantized model
/// comes from config.json.
pub fn record_training(
    recipe: &Recipe,
    config: &ModelConfig,
    checkpoint: Option<&TensorFiles>,
    adapted: Adapted,
    capacity: Capacity,
    choice: MemoryChoice,
) -> Result<Recorded> {
    let quantization = recipe.quantization.as_ref();
    let skip = quantization.map_or(&[][..], |q| &q.skip_modules);
    let base = base_schemes(config, checkpoint, quantization.map(|q| q.scheme), skip)?;
    let dropout = adapted.lora.dropout;
    let spec = training_spec(recipe, config, &adapted.modules, dropout, base, capacity, choice)?;
    let model = record(spec)?;
    let plan = plan(&model.program);
    Ok(Recorded { model, plan, adapted })
}

impl Recorded {
    /// Number of trainable parameters.
    pub fn trainable(&self) -> u64 {
        self.adapted.modules.iter().map(|m| m.parameters() as u64).sum()
    }

    /// HF's estimate of the floating point operations per trained token: six times the number of parameters without the
    /// embeddings. As in transformers' `num_parameters`, every element of a 4-bit weight counts.
    pub(super) fn flos_per_token(&self) -> u64 {
        let config = &self.model.spec.config;
        let embeddings = (config.vocab_size * config.hidden_size) as u64;
        6 * (count(config, None).parameters - embeddings + self.trainable())
    }

    /// The parameter count as PEFT prints it. For a 4-bit base, also the line that the QLoRA tutorials print.
    pub fn parameters(&self, recipe: &Recipe) -> String {
        let config = &self.model.spec.config;
        let skip = match (&config.quantization, &recipe.quantization) {
            (Some(q), _) => Some(&q.skip_modules[..]),
            (None, Some(q)) => Some(&q.skip_modules[..]),
            (None, None) => None,
        };
        let counts: ParameterCounts = count(config, skip);
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
