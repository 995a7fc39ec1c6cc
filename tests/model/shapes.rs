//! Recordings of models of real size: NF4 base with double quantization, rank 16 on every linear but the head, bf16, all
//! blocks recomputed, AdamW of torch. (The benchmark of the planner uses this file too.)

#[path = "../shared/models.rs"]
mod models;

use halfbyte_core::dtype::DType;
use halfbyte_core::model::{AdapterSpec, LossSpec, OptimizerKind, OptimizerSpec, Spec};
use halfbyte_core::model::{HEAD, linears};
use halfbyte_core::op::{Betas, ControlRule};
use halfbyte_core::quant::{QuantKind, Scheme};
use halfbyte_core::tape::Policy;

/// Known architectures.
pub const MODELS: [&str; 4] = ["llama-2-7b", "mistral-7b-v0.1", "mixtral-8x7b-v0.1", "llama-2-70b"];

/// The program to record for `model` with room for `tokens` tokens.
pub fn spec(model: &str, tokens: usize) -> Spec {
    let config = models::model(model);
    let modules: Vec<String> = linears(&config).into_iter().map(|l| l.name).filter(|name| name != HEAD).collect();
    let scheme = Scheme { kind: QuantKind::Nf4, blocksize: 64, double: true };
    let aux = config.experts.as_ref().map(|_| 0.001);
    Spec {
        policies: vec![Policy::Recompute; config.layers],
        streamed: 0,
        config,
        compute: DType::Bf16,
        tokens,
        base: modules.iter().map(|m| (m.clone(), scheme)).collect(),
        adapters: modules.into_iter().map(|m| (m, AdapterSpec { r: 16, scale: 1.0 })).collect(),
        dropout: 0.0,
        neftune: None,
        loss: LossSpec { chunk: 1024, aux },
        optimizer: Some(OptimizerSpec {
            state: OptimizerKind::Torch,
            betas: Betas { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            weight_decay: 0.0,
            rule: ControlRule { max_norm: Some(1.0), growth_interval: None },
            updates: 1000,
            lora_b_factor: 1.0,
            paging: None,
        }),
        logits_rows: 0,
    }
}
