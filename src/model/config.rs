//! The shapes and constants of a model, as its `config.json` states them.

use super::rope::Rope;
use crate::dtype::DType;
use crate::quant::QuantKind;

/// The architectures that halfbyte knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// Llama 1 to 3.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Mixtral: Mistral with a mixture of experts in place of the MLP.
    Mixtral,
}

impl Architecture {
    /// `model_type` in config.json.
    pub fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Mistral => "mistral",
            Architecture::Mixtral => "mixtral",
        }
    }
    /// The prefix of the Hugging Face class names (`LlamaDecoderLayer`).
    pub fn class_prefix(self) -> &'static str {
        match self {
            Architecture::Llama => "Llama",
            Architecture::Mistral => "Mistral",
            Architecture::Mixtral => "Mixtral",
        }
    }
}

/// The mixture of experts of a Mixtral block.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// `num_local_experts`.
    pub count: usize,
    /// `num_experts_per_tok`: always 2.
    pub per_token: usize,
    /// `router_aux_loss_coef`.
    pub aux_loss_coef: f64,
    /// `output_router_logits`: whether the auxiliary loss is part of the training loss.
    pub output_router_logits: bool,
}

/// `quantization_config` of a checkpoint that bitsandbytes has already quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantConfig {
    /// `bnb_4bit_quant_type`.
    pub kind: QuantKind,
    /// `bnb_4bit_use_double_quant`: block scales are stored in 8 bits.
    pub double_quant: bool,
    /// `bnb_4bit_compute_dtype`.
    pub compute_dtype: DType,
    /// `llm_int8_skip_modules`: modules left in 16 bit.
    pub skip_modules: Vec<String>,
}

/// Shapes and constants of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The architecture.
    pub family: Architecture,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP (of each expert).
    pub intermediate_size: usize,
    /// `num_hidden_layers`.
    pub layers: usize,
    /// `num_attention_heads`: query heads.
    pub heads: usize,
    /// `num_key_value_heads`; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even. Need not be `hidden_size / heads`.
    pub head_dim: usize,
    /// Added to the mean square inside the root.
    pub rms_norm_eps: f64,
    /// Rotary position embedding.
    pub rope: Rope,
    /// `max_position_embeddings`: the longest context the model was made for.
    pub max_positions: usize,
    /// A query sees at most this many keys, itself included; None: all before it.
    pub sliding_window: Option<usize>,
    /// `tie_word_embeddings`: the head is the embedding.
    pub tied: bool,
    /// Mixtral's experts.
    pub experts: Option<Experts>,
    /// The type that `torch_dtype` (or `dtype`) names; None when the config leaves it out.
    pub torch_dtype: Option<DType>,
    /// Set when the checkpoint holds bitsandbytes 4-bit tensors.
    pub quantization: Option<QuantConfig>,
    /// Beginning of text.
    pub bos_id: Option<u32>,
    /// Ends of text (Llama 3 has several).
    pub eos_ids: Vec<u32>,
}

impl ModelConfig {
    /// The longest context in tokens, with the stretch of `rope_scaling`.
    pub fn longest_context(&self) -> usize {
        self.rope.longest_context(self.max_positions)
    }

    /// Rows of `q_proj`: heads times head width.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows of `k_proj` and of `v_proj`.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

impl std::fmt::Display for ModelConfig {
    /// One line: "mistral, 32 layers of width 4096, 32 heads (8 key/value) of 128, vocabulary 32000".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} layers of width {}", self.family.model_type(), self.layers, self.hidden_size)?;
        write!(f, ", {} heads ({} key/value) of {}", self.heads, self.kv_heads, self.head_dim)?;
        if let Some(experts) = &self.experts {
            write!(f, ", {} experts", experts.count)?;
        }
        if let Some(window) = self.sliding_window {
            write!(f, ", window {window}")?;
        }
        write!(f, ", vocabulary {}", self.vocab_size)
    }
}
