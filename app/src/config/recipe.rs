//! A recipe: all settings of a training run. Keys have the names and defaults of Hugging Face's `TrainingArguments`,
//! `LoraConfig` and `BitsAndBytesConfig` ([`keys`](super::keys) has the table). The canonical layout has five sections;
//! keys may also be flat or in another section.
//!
//! ```toml
//! [model]
//! model_name_or_path = "models/Mistral-7B-v0.1"
//! [data]
//! dataset = "instructions.jsonl"
//! text_column = "text"
//! [lora]
//! r = 16
//! target_modules = ["q_proj", "v_proj"]
//! [quantization]
//! load_in_4bit = true
//! bnb_4bit_quant_type = "nf4"
//! bnb_4bit_compute_dtype = "bfloat16"
//! [training]
//! learning_rate = 2e-4
//! ```

use std::path::Path;

use super::cadence::Cadence;
use super::data::DataConfig;
use super::keys::{Section, of_section};
use super::lora::LoraConfig;
pub use super::model_source::{AUTO, LoadDtype, ModelSource};
pub use super::quantization::Quantization;
use super::raw::Raw;
use super::training::TrainingConfig;
use super::{lora_section, quantization};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;

/// A checked recipe.
#[derive(Clone, PartialEq, Debug)]
pub struct Recipe {
    /// The model that is fine-tuned.
    pub model: ModelSource,
    /// The data that it is trained on.
    pub data: DataConfig,
    /// The adapter; unused when the run starts from an adapter ([`ModelSource::adapter`]).
    pub lora: LoraConfig,
    /// How the base is quantized; None: it keeps the type of its checkpoint, which may be quantized already.
    pub quantization: Option<Quantization>,
    /// The type in which activations are stored and products are computed.
    pub compute: DType,
    /// The training settings.
    pub training: TrainingConfig,
    /// Lines for the report: keys without effect, and differences from HF.
    pub notes: Vec<String>,
}

impl Recipe {
    /// Reads the recipe in `file`. `overrides` (`key=value`) replace values.
    pub fn open(file: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?;
        Self::parse(&text, &file.display().to_string(), overrides)
    }

    /// Parses the text of a recipe; `file` is named in errors. An error names all wrong keys and values at once.
    pub fn parse(text: &str, file: &str, overrides: &[String]) -> Result<Self> {
        let raw = Raw::parse(text, file, overrides)?;
        let recipe = Self::read(&raw);
        raw.finish(recipe)
    }

    /// None if any part cannot be read; the errors are then in `raw`.
    fn read(raw: &Raw) -> Option<Self> {
        // All parts are read before the first `?`, so that all errors are found.
        let model = raw.keep(ModelSource::read(raw));
        let adapter = model.as_ref().and_then(|model| model.adapter.as_deref());
        let lora = raw.keep(lora_section::read(raw, adapter));
        let quantization = raw.keep(Quantization::read(raw));
        let data = raw.keep(DataConfig::read(raw));
        let training = raw.keep(TrainingConfig::read(raw));
        let (model, (quantization, quantization_note)) = (model?, quantization?);
        let (compute, compute_note) = raw.keep(quantization::compute(raw, quantization.is_some(), model.dtype))?;
        let (data, training) = (data?, training?);
        raw.keep(check_eval(raw, &data, &training))?;
        let device_note = (model.device.as_deref() == Some(AUTO)).then(|| {
            "`device_map`: the whole model is on one device, the first GPU that can compute its type".to_string()
        });
        let mut notes = raw.notes.clone();
        notes.extend([quantization_note, device_note, compute_note, training.optim_note(raw)].into_iter().flatten());
        Some(Self { model, data, lora: lora?, quantization, compute, training, notes })
    }

    /// `config` with the recipe's settings for the model. Errors if the model does not support one.
    pub fn apply(&self, mut config: ModelConfig) -> Result<ModelConfig> {
        let ModelSource { output_router_logits, router_aux_loss_coef, .. } = self.model;
        match &mut config.experts {
            Some(experts) => {
                experts.output_router_logits = output_router_logits.unwrap_or(experts.output_router_logits);
                experts.aux_loss_coef = router_aux_loss_coef.unwrap_or(experts.aux_loss_coef);
            }
            None if output_router_logits == Some(true) || router_aux_loss_coef.is_some() => {
                return Err(Error::usage(format!("a {} model has no router", config.family.model_type()))
                    .hint("remove output_router_logits and router_aux_loss_coef"));
            }
            None => {}
        }
        Ok(config)
    }

    /// The recipe with every default filled in, as TOML in the canonical layout; parsing it gives this recipe again.
    pub fn resolved_toml(&self) -> String {
        let mut entries = self.model.entries();
        entries.extend(self.data.entries());
        if self.model.adapter.is_none() {
            entries.extend(lora_section::entries(&self.lora));
        }
        entries.extend(quantization::entries(self.quantization.as_ref(), self.compute));
        entries.extend(self.training.entries());
        let mut text = String::new();
        for section in Section::ALL {
            text += &format!("[{}]\n", section.name());
            for (key, _) in of_section(section) {
                if let Some((_, Some(value))) = entries.iter().find(|(name, _)| *name == key) {
                    text += &format!("{key} = {value}\n");
                }
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }
}

/// Checks that the recipe has evaluation records if it asks for evaluations.
fn check_eval(raw: &Raw, data: &DataConfig, training: &TrainingConfig) -> Result<()> {
    if training.eval == Cadence::Never || data.has_eval() {
        return Ok(());
    }
    Err(raw
        .wrong("eval_strategy", "there are no records to evaluate on")
        .hint("give test_size, eval_split or eval_dataset"))
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
