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
    /// Qwen2 and Qwen2.5: q, k and v have a bias.
    Qwen2,
    /// Qwen3: each head of q and k is normalized.
    Qwen3,
    /// Qwen3 with a mixture of experts in some or all layers.
    Qwen3Moe,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Architecture; 6] = [
        Architecture::Llama,
        Architecture::Mistral,
        Architecture::Mixtral,
        Architecture::Qwen2,
        Architecture::Qwen3,
        Architecture::Qwen3Moe,
    ];

    /// `model_type` in config.json.
    pub fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Mistral => "mistral",
            Architecture::Mixtral => "mixtral",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
            Architecture::Qwen3Moe => "qwen3_moe",
        }
    }
    /// The prefix of the Hugging Face class names (`LlamaDecoderLayer`).
    pub fn class_prefix(self) -> &'static str {
        match self {
            Architecture::Llama => "Llama",
            Architecture::Mistral => "Mistral",
            Architecture::Mixtral => "Mixtral",
            Architecture::Qwen2 => "Qwen2",
            Architecture::Qwen3 => "Qwen3",
            Architecture::Qwen3Moe => "Qwen3Moe",
        }
    }
}

/// A mixture of experts, which replaces the MLP.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// `num_local_experts` or `num_experts`.
    pub count: usize,
    /// `num_experts_per_tok`: at most [`MAX_CHOICES`](crate::op::MAX_CHOICES).
    pub per_token: usize,
    /// Width of an expert: `moe_intermediate_size`; Mixtral's `intermediate_size`.
    pub width: usize,
    /// Whether the weights of the chosen experts are divided by their sum (`norm_topk_prob`; Mixtral always does).
    pub renormalize: bool,
    /// Layers with an MLP instead (`mlp_only_layers`, `decoder_sparse_step`).
    pub dense_layers: Vec<usize>,
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
    /// Width of the MLP.
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
    /// Layers that see all keys in spite of the window.
    pub full_layers: Vec<usize>,
    /// Whether q, k and v have a (frozen) bias.
    pub qkv_bias: bool,
    /// Whether an RMSNorm over each head of q and of k precedes the rotation.
    pub head_norms: bool,
    /// `tie_word_embeddings`: the head is the embedding.
    pub tied: bool,
    /// The experts, if the model has any.
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

    /// The experts of a layer; None if it has an MLP.
    pub fn experts_of(&self, layer: usize) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| !experts.dense_layers.contains(&layer))
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
