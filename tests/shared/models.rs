//! The shapes of well-known models.

use halfbyte_core::dtype::DType;
use halfbyte_core::model::{Architecture, Experts, ModelConfig, Rope, RopeScaling};

/// Llama-2-7B.
fn llama_2_7b() -> ModelConfig {
    ModelConfig {
        family: Architecture::Llama,
        vocab_size: 32000,
        hidden_size: 4096,
        intermediate_size: 11008,
        layers: 32,
        heads: 32,
        kv_heads: 32,
        head_dim: 128,
        rms_norm_eps: 1e-5,
        rope: Rope { theta: 1e4, scaling: RopeScaling::None },
        max_positions: 4096,
        sliding_window: None,
        full_layers: Vec::new(),
        qkv_bias: false,
        head_norms: false,
        tied: false,
        experts: None,
        torch_dtype: Some(DType::F16),
        quantization: None,
        bos_id: Some(1),
        eos_ids: vec![2],
    }
}

/// Mistral-7B v0.1.
fn mistral_7b() -> ModelConfig {
    ModelConfig {
        family: Architecture::Mistral,
        intermediate_size: 14336,
        kv_heads: 8,
        max_positions: 32768,
        sliding_window: Some(4096),
        torch_dtype: Some(DType::Bf16),
        ..llama_2_7b()
    }
}

/// The model of this name; the same shapes as its published config.json.
pub fn model(name: &str) -> ModelConfig {
    match name {
        "llama-2-7b" => llama_2_7b(),
        "llama-2-70b" => ModelConfig {
            hidden_size: 8192,
            intermediate_size: 28672,
            layers: 80,
            heads: 64,
            kv_heads: 8,
            ..llama_2_7b()
        },
        "mistral-7b-v0.1" => mistral_7b(),
        "mixtral-8x7b-v0.1" => ModelConfig {
            family: Architecture::Mixtral,
            sliding_window: None,
            rope: Rope { theta: 1e6, scaling: RopeScaling::None },
            experts: Some(Experts {
                count: 8,
                per_token: 2,
                width: 14336,
                renormalize: true,
                dense_layers: Vec::new(),
                aux_loss_coef: 0.02,
                output_router_logits: false,
            }),
            ..mistral_7b()
        },
        other => panic!("{other} is not one of the models of tests/shared/models.rs"),
    }
}
