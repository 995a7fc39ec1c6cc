//! The description of a program: model, base format, adapters, loss, optimizer.

use super::config::ModelConfig;
use crate::dtype::DType;
use crate::op::{Betas, ControlRule};
use crate::quant::Scheme;
use crate::tape::Policy;
use std::collections::HashMap;

/// The adapter of one linear module.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdapterSpec {
    /// Rank of A and B.
    pub r: usize,
    /// `alpha / r`, or `alpha / √r` (rsLoRA).
    pub scale: f64,
}

/// The loss of the micro step.
#[derive(Clone, Debug)]
pub struct LossSpec {
    /// Rows of logits that exist at once.
    pub chunk: usize,
    /// Coefficient of the router's auxiliary loss, if it is part of the loss.
    pub aux: Option<f64>,
}

/// Rule and constants of the update.
#[derive(Clone, Debug)]
pub struct OptimizerSpec {
    /// torch's or bitsandbytes' formula, and how moments are stored.
    pub state: OptimizerKind,
    /// β₁, β₂, ε.
    pub betas: Betas,
    /// Decay of all adapter tensors.
    pub weight_decay: f64,
    /// Clipping and loss scaling.
    pub rule: ControlRule,
    /// Number of updates: the length of the table of learning rates.
    pub updates: usize,
    /// Factor on the learning rate of the B matrices (LoRA+); 1: none.
    pub lora_b_factor: f64,
    /// The state in pages, some of them in host memory; `None`: all of it is resident.
    pub paging: Option<Paging>,
}

/// Optimizer state in pages. A page on the host is copied to the device for its part of the update, and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paging {
    /// A page has whole tensors, as many as have at most this many elements together, but at least one.
    pub elements: usize,
    /// The number of pages in host memory.
    pub on_host: usize,
}

/// The three AdamW variants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptimizerKind {
    /// torch.optim.AdamW, 32-bit state.
    Torch,
    /// bitsandbytes, 32-bit state.
    Bitsandbytes32,
    /// bitsandbytes, 8-bit state for tensors of at least 4096 elements.
    Bitsandbytes8,
}

/// Everything that decides what is recorded.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The model.
    pub config: ModelConfig,
    /// Storage type of activations and 16-bit weights.
    pub compute: DType,
    /// Capacity: the most tokens of one run.
    pub tokens: usize,
    /// The linears that are stored in 4 bits, by module name; all others are in the compute type.
    pub base: HashMap<String, Scheme>,
    /// Adapters by module name (`model.layers.0.self_attn.q_proj`).
    pub adapters: HashMap<String, AdapterSpec>,
    /// LoRA dropout.
    pub dropout: f64,
    /// NEFTune (Jain et al. 2023): uniform noise within ± `alpha / √(L·D)` on the embeddings of the micro step.
    pub neftune: Option<f64>,
    /// The activations that each block keeps for the backward pass. Empty for a program that does not train.
    pub policies: Vec<Policy>,
    /// The number of blocks, from the first, whose 4-bit codes are in host memory. They are copied to the device for each pass,
    /// a block ahead.
    pub streamed: usize,
    /// How the loss is computed.
    pub loss: LossSpec,
    /// Present if the program trains.
    pub optimizer: Option<OptimizerSpec>,
    /// Rows of the `Logits` phases; 0: no such phases.
    pub logits_rows: usize,
}
