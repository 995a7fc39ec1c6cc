//! Builds the [`Spec`] of a program from the recipe, the model's config and the adapted modules.

use crate::config::recipe::Recipe;
use crate::config::training::{Formula, TrainingConfig};
use crate::weights::names::is_quantized;
use crate::weights::quantize::QuantizedWeight;
use crate::weights::safetensors::TensorFiles;
use crate::weights::targets::AdapterModule;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::model::linears;
use halfbyte_core::model::{AdapterSpec, LossSpec, OptimizerKind, OptimizerSpec, Paging, Spec};
use halfbyte_core::op::{Betas, ControlRule};
use halfbyte_core::quant::Scheme;
use halfbyte_core::tape::Policy;
use std::collections::HashMap;

/// Elements per block when a checkpoint is quantized while loading: bitsandbytes' default, for which transformers has
/// no key.
pub const BLOCK: usize = 64;

/// Rows of logits per chunk of the loss. In f32, a chunk takes 128 MiB for a vocabulary of 32,000.
const LOGITS_CHUNK: usize = 1024;

/// The most updates of a run. The device holds a table with the learning rate of every update.
const MOST_UPDATES: usize = 10_000_000;

/// PyTorch's `GradScaler` doubles the loss scale after this many good steps.
const GROWTH_INTERVAL: u32 = 2000;

/// The quantization scheme of every 4-bit linear, by module name. All other linears stay in the compute type.
///
/// A checkpoint that bitsandbytes has quantized determines the scheme of each module; `scheme` and `skip` are then
/// ignored, as in transformers. If only its config.json is available (`plan` needs no weights), `quantization_config`
/// determines the schemes, with the default block size, which it does not state. Any other checkpoint is quantized by
/// `scheme`, except for the modules that `skip` matches; without a `scheme`, nothing is quantized.
pub fn base_schemes(
    config: &ModelConfig,
    checkpoint: Option<&TensorFiles>,
    scheme: Option<Scheme>,
    skip: &[String],
) -> Result<HashMap<String, Scheme>> {
    let mut schemes = HashMap::new();
    for module in linears(config) {
        let scheme = match (&config.quantization, checkpoint) {
            (Some(_), Some(checkpoint)) => QuantizedWeight::stored_scheme(checkpoint, &module.name)?,
            (Some(stored), None) => Some(Scheme { kind: stored.kind, blocksize: BLOCK, double: stored.double_quant })
                .filter(|_| is_quantized(&module, &stored.skip_modules)),
            (None, _) => scheme.filter(|_| is_quantized(&module, skip)),
        };
        if scheme.is_some() && !module.in_features.is_multiple_of(2) {
            let what = format!(
                "{} has {} input features, but 4-bit weights need an even number",
                module.name, module.in_features
            );
            return Err(Error::input(what).hint("keep the module in 16 bit: add it to llm_int8_skip_modules"));
        }
        schemes.extend(scheme.map(|scheme| (module.name, scheme)));
    }
    Ok(schemes)
}

/// The [`AdapterSpec`] of every adapted module, by module name.
pub fn adapter_specs(modules: &[AdapterModule]) -> HashMap<String, AdapterSpec> {
    modules.iter().map(|m| (m.module.name.clone(), AdapterSpec { r: m.r, scale: m.scale })).collect()
}

/// Decisions that trade memory for time. They change no bit of the result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryChoice {
    /// The activations that each block keeps.
    pub policies: Vec<Policy>,
    /// Pages of optimizer state in host memory; `usize::MAX`: all.
    pub pages_on_host: usize,
    /// Blocks whose 4-bit weights are in host memory.
    pub streamed: usize,
}

/// Elements of a page of optimizer state: 16 MiB of 8-bit moments, 64 MiB of 32-bit ones.
pub const PAGE: usize = 8 << 20;

/// The sizes of a program that depend on the data.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// The most tokens of a micro-batch.
    pub tokens: usize,
    /// Number of optimizer steps.
    pub updates: usize,
}

/// The [`Spec`] of a training run.
pub fn training_spec(
    recipe: &Recipe,
    config: &ModelConfig,
    modules: &[AdapterModule],
    dropout: f64,
    base: HashMap<String, Scheme>,
    capacity: Capacity,
    choice: MemoryChoice,
) -> Result<Spec> {
    check_tokens(capacity.tokens)?;
    if capacity.updates > MOST_UPDATES {
        return Err(Error::usage(format!(
            "a run of {} steps is too long: the limit is {MOST_UPDATES}",
            capacity.updates
        ))
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
        policies: choice.policies,
        streamed: choice.streamed,
        loss: LossSpec { chunk: LOGITS_CHUNK, aux: experts.map(|e| e.aux_loss_coef) },
        optimizer: Some(optimizer_spec(&recipe.training, recipe.compute, capacity.updates, choice.pages_on_host)),
        logits_rows: 1,
    })
}

/// The most tokens of a batch. One activation of this many takes 137 GB in a 7B model, and recording a program takes time
/// in proportion to the square of the chunks of the loss. Row numbers must fit into 32-bit integers in any case.
const MOST_TOKENS: usize = 1 << 24;

/// Checks that a batch is not larger than any device can hold.
fn check_tokens(tokens: usize) -> Result<()> {
    if tokens <= MOST_TOKENS {
        return Ok(());
    }
    Err(Error::usage(format!("a batch of {tokens} tokens is too large"))
        .hint("lower max_seq_length or per_device_train_batch_size"))
}

fn optimizer_spec(training: &TrainingConfig, compute: DType, updates: usize, on_host: usize) -> OptimizerSpec {
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
        paging: (on_host > 0).then_some(Paging { elements: PAGE, on_host }),
    }
}

/// The [`Spec`] of a program that only runs a model, for evaluation and generation.
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
        policies: Vec::new(),
        streamed: 0,
        loss: LossSpec { chunk: LOGITS_CHUNK, aux: None },
        optimizer: None,
        logits_rows: 1,
    })
}
