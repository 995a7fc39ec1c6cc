//! From a model folder and a LoRA configuration to the parts of a [`Spec`].

use crate::config::recipe::Recipe;
use crate::config::training::{Formula, TrainingConfig};
use crate::weights::names::is_quantized;
use crate::weights::quantize::Quantized;
use crate::weights::safetensors::Checkpoint;
use crate::weights::targets::AdapterModule;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::model::linears;
use halfbyte_core::model::{AdapterSpec, LossSpec, OptimizerKind, OptimizerSpec, Spec};
use halfbyte_core::op::{Betas, ControlRule};
use halfbyte_core::quant::Scheme;
use std::collections::HashMap;

/// bitsandbytes' block size when a checkpoint is quantised while it is loaded; transformers has no key for it.
pub const BLOCK: usize = 64;

/// Rows of logits that exist at once: 128 MiB in f32 for a vocabulary of 32,000.
const LOGITS_CHUNK: usize = 1024;

/// The learning rate of every step is a table on the device.
const MOST_UPDATES: usize = 10_000_000;

/// PyTorch's `GradScaler` doubles the loss scale after this many good steps.
const GROWTH_INTERVAL: u32 = 2000;

/// How each linear that is held in 4 bits is quantised, by module name; what is not there stays in the compute type.
///
/// A checkpoint that bitsandbytes has already quantised decides for itself, module by module; `scheme` and `skip` are then
/// ignored, as in transformers. Without its weights (`plan` needs none) config.json's `quantization_config` must do, which
/// does not name the block size. Any other checkpoint is quantised by `scheme`, but for the modules that `skip` names;
/// without a scheme nothing is.
pub fn base_schemes(
    config: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
    scheme: Option<Scheme>,
    skip: &[String],
) -> Result<HashMap<String, Scheme>> {
    let mut schemes = HashMap::new();
    for module in linears(config) {
        let scheme = match (&config.quantization, checkpoint) {
            (Some(_), Some(checkpoint)) => Quantized::stored_scheme(checkpoint, &module.name)?,
            (Some(stored), None) => Some(Scheme { kind: stored.kind, blocksize: BLOCK, double: stored.double_quant })
                .filter(|_| is_quantized(&module, &stored.skip_modules)),
            (None, _) => scheme.filter(|_| is_quantized(&module, skip)),
        };
        if scheme.is_some() && !module.in_features.is_multiple_of(2) {
            let what = format!("{} has {} input features; 4-bit codes come in pairs", module.name, module.in_features);
            return Err(Error::input(what).hint("leave the module in 16 bit: name it in llm_int8_skip_modules"));
        }
        schemes.extend(scheme.map(|scheme| (module.name, scheme)));
    }
    Ok(schemes)
}

/// The adapters of the modules that a LoRA configuration resolves to.
pub fn adapter_specs(modules: &[AdapterModule]) -> HashMap<String, AdapterSpec> {
    modules.iter().map(|m| (m.module.name.clone(), AdapterSpec { r: m.r, scale: m.scale })).collect()
}

/// Sizes of a program that come from the data.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// The most tokens of one run.
    pub tokens: usize,
    /// Optimizer steps.
    pub updates: usize,
}

/// What a training run records.
pub fn training_spec(
    recipe: &Recipe,
    config: &ModelConfig,
    modules: &[AdapterModule],
    dropout: f64,
    base: HashMap<String, Scheme>,
    capacity: Capacity,
) -> Result<Spec> {
    check_tokens(capacity.tokens)?;
    if capacity.updates > MOST_UPDATES {
        return Err(Error::usage(format!("a run of {} steps is too long: at most {MOST_UPDATES}", capacity.updates))
            .hint("lower max_steps or num_train_epochs"));
    }
    let experts = config.experts.as_ref().filter(|e| e.output_router_logits && e.aux_loss_coef != 0.0);
    Ok(Spec {
        config: config.clone(),
        compute: recipe.compute,
        tokens: capacity.tokens,
        base,
        adapters: adapter_specs(modules),
        dropout,
        neftune: recipe.training.neftune_alpha,
        checkpointing: recipe.training.checkpointing,
        loss: LossSpec { chunk: LOGITS_CHUNK, aux: experts.map(|e| e.aux_loss_coef) },
        optimizer: Some(optimizer_spec(&recipe.training, recipe.compute, capacity.updates)),
        logits_rows: 1,
    })
}

/// Positions and rows are 32-bit integers on the device.
fn check_tokens(tokens: usize) -> Result<()> {
    if tokens <= i32::MAX as usize / 2 {
        return Ok(());
    }
    Err(Error::usage(format!("a batch of {tokens} tokens is too large"))
        .hint("lower max_seq_length or per_device_train_batch_size"))
}

fn optimizer_spec(training: &TrainingConfig, compute: DType, updates: usize) -> OptimizerSpec {
    let optim = training.optim;
    OptimizerSpec {
        state: match (optim.formula, optim.bits) {
            (Formula::Torch, _) => OptimizerKind::Torch,
            (Formula::Bitsandbytes, 8) => OptimizerKind::Bitsandbytes8,
            (Formula::Bitsandbytes, _) => OptimizerKind::Bitsandbytes32,
        },
        betas: Betas { beta1: training.adam_beta1, beta2: training.adam_beta2, eps: training.adam_epsilon },
        weight_decay: training.weight_decay,
        rule: ControlRule {
            max_norm: (training.max_grad_norm > 0.0).then_some(training.max_grad_norm),
            growth_interval: (compute == DType::F16).then_some(GROWTH_INTERVAL),
        },
        updates,
        lora_b_factor: training.lora_b_factor,
    }
}

/// What a program records that only runs a model: evaluation and generation.
pub fn inference_spec(
    config: &ModelConfig,
    compute: DType,
    modules: &[AdapterModule],
    base: HashMap<String, Scheme>,
    tokens: usize,
) -> Result<Spec> {
    check_tokens(tokens)?;
    Ok(Spec {
        config: config.clone(),
        compute,
        tokens,
        base,
        adapters: adapter_specs(modules),
        dropout: 0.0,
        neftune: None,
        checkpointing: false,
        loss: LossSpec { chunk: LOGITS_CHUNK, aux: None },
        optimizer: None,
        logits_rows: 1,
    })
}
