//! A whole run, as the `train` command does it: from a recipe to an adapter folder.

use super::build::{Capacity, base_schemes, training_spec};
use crate::config::lora::LoraConfig;
use crate::config::model::ModelConfig;
use crate::config::recipe::{ModelSource, Recipe};
use crate::error::{Error, Result};
use crate::model::{Model, record};
use crate::weights::adapter::read_config;
use crate::weights::safetensors::Checkpoint;
use crate::weights::targets::{AdapterModule, resolve};
use std::path::{Path, PathBuf};

/// Where the base model is.
#[derive(Clone, Debug)]
pub struct ModelPlace {
    /// Its folder: config.json, safetensors, tokenizer.
    pub folder: PathBuf,
}

impl ModelPlace {
    /// The folder that the recipe names.
    pub fn find(source: &ModelSource) -> Result<Self> {
        let folder = PathBuf::from(&source.name_or_path);
        if !folder.is_dir() {
            return Err(Error::input(format!("model_name_or_path: there is no folder {}", folder.display()))
                .hint("give a folder with config.json, *.safetensors and tokenizer.model"));
        }
        Ok(Self { folder })
    }

    /// config.json, checked.
    pub fn config(&self) -> Result<ModelConfig> {
        ModelConfig::open(&self.folder)
    }
}

/// The LoRA configuration of a run: the recipe's, or that of the adapter it starts from.
pub fn lora_config(recipe: &Recipe) -> Result<LoraConfig> {
    match &recipe.model.adapter {
        Some(folder) => Ok(read_config(Path::new(folder))?.0),
        None => Ok(recipe.lora.clone()),
    }
}

/// The adapted modules, with a note for each target name that matches nothing.
pub fn targets(lora: &LoraConfig, config: &ModelConfig) -> Result<(Vec<AdapterModule>, Vec<String>)> {
    let resolution = resolve(lora, config)?;
    let note = |(name, nearest): &(String, Vec<String>)| {
        format!(
            "target_modules: `{name}` matches no module of this model and is NOT trained; did you mean {}?",
            nearest.join(", ")
        )
    };
    let notes = resolution.unmatched.iter().map(note).collect();
    Ok((resolution.modules, notes))
}

/// Records the program of a training run. Without a checkpoint, a pre-quantised model's format is taken from config.json.
pub fn record_training(
    recipe: &Recipe,
    config: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
    capacity: Capacity,
) -> Result<(Model, Vec<String>)> {
    let lora = lora_config(recipe)?;
    let (modules, notes) = targets(&lora, config)?;
    let quantization = recipe.quantization.as_ref();
    let skip = quantization.map_or(&[][..], |q| &q.skip_modules);
    let base = base_schemes(config, checkpoint, quantization.map(|q| q.scheme), skip)?;
    let model = record(training_spec(recipe, config, &modules, lora.dropout, base, capacity)?)?;
    Ok((model, notes))
}
