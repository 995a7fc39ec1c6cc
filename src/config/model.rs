//! A model folder's `config.json`, checked: every field that changes the mathematics is implemented or refused.

use std::path::Path;

use super::fields::Fields;
use super::model_fields::refuse_unknown;
pub use super::rope::{Rope, RopeScaling};
use crate::dtype::DType;
pub use crate::dtype::QuantKind;
use crate::error::{Error, Result};

/// The architectures that halfbyte knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Llama 1 to 3.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Mixtral: Mistral with a mixture of experts in place of the MLP.
    Mixtral,
}

impl Family {
    /// `model_type` in config.json.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Mixtral => "mixtral",
        }
    }
    /// The prefix of the Hugging Face class names (`LlamaDecoderLayer`).
    pub fn class_prefix(self) -> &'static str {
        match self {
            Family::Llama => "Llama",
            Family::Mistral => "Mistral",
            Family::Mixtral => "Mixtral",
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

/// `quantization_config` of a checkpoint that bitsandbytes has already quantised.
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

/// What a model is: shapes and constants.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The architecture.
    pub family: Family,
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
    /// Reads `config.json` of a model folder.
    pub fn open(folder: &Path) -> Result<Self> {
        let file = folder.join("config.json");
        if !file.is_file() {
            return Err(Error::input(format!("{}: no config.json there", folder.display()))
                .hint("name the folder of a Hugging Face model (config.json, *.safetensors, tokenizer.model)"));
        }
        Self::open_file(&file)
    }

    /// Reads a config.json, whatever it is called.
    pub fn open_file(file: &Path) -> Result<Self> {
        Self::read(&Fields::open(file)?)
    }

    /// Parses the text of a config.json; `file` is named in errors.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        Self::read(&Fields::parse(text, file)?)
    }

    fn read(f: &Fields) -> Result<Self> {
        let family = family(f)?;
        refuse_unknown(f)?;
        let (default_kv, default_positions, default_eps, default_theta) = match family {
            // The defaults of LlamaConfig, MistralConfig and MixtralConfig (transformers 4.57).
            Family::Llama => (None, 2048, 1e-6, 1e4),
            Family::Mistral => (Some(8), 131072, 1e-6, 1e4),
            Family::Mixtral => (Some(8), 131072, 1e-5, 1e6),
        };
        let (hidden_size, heads) = (f.required_count("hidden_size")?, f.required_count("num_attention_heads")?);
        let kv_heads = f.count("num_key_value_heads")?.or(default_kv).unwrap_or(heads);
        if heads % kv_heads != 0 {
            return Err(f.wrong("num_key_value_heads", &format!("it must divide `num_attention_heads` = {heads}")));
        }
        let head_dim = match f.count("head_dim")? {
            Some(d) => d,
            None if hidden_size % heads == 0 => hidden_size / heads,
            None => {
                return Err(f.wrong("num_attention_heads", &format!("it must divide `hidden_size` = {hidden_size}")));
            }
        };
        if head_dim % 2 != 0 || head_dim < 4 {
            return Err(
                f.wrong("head_dim", &format!("rotary embeddings need an even width of at least 4, not {head_dim}"))
            );
        }
        let max_positions = f.count("max_position_embeddings")?.unwrap_or(default_positions);
        let config = Self {
            family,
            vocab_size: f.required_count("vocab_size")?,
            hidden_size,
            intermediate_size: f.required_count("intermediate_size")?,
            layers: f.required_count("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: f.positive("rms_norm_eps")?.unwrap_or(default_eps),
            rope: Rope::read(f, default_theta, max_positions)?,
            max_positions,
            sliding_window: sliding_window(f, family)?,
            tied: f.flag("tie_word_embeddings")?.unwrap_or(false),
            experts: experts(f, family)?,
            torch_dtype: torch_dtype(f)?,
            quantization: f.object("quantization_config")?.map(|q| QuantConfig::read(&q)).transpose()?,
            bos_id: f.token_ids("bos_token_id")?.first().copied(),
            eos_ids: f.token_ids("eos_token_id")?,
        };
        config.check_sizes(f)?;
        Ok(config)
    }

    /// Refuses sizes far beyond any model, so that no product of them overflows 64 bits further down.
    fn check_sizes(&self, f: &Fields) -> Result<()> {
        let width = 1 << 20;
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 22),
            ("hidden_size", self.hidden_size, width),
            ("intermediate_size", self.intermediate_size, width),
            ("head_dim", self.head_dim, 1 << 10),
            ("num_attention_heads", self.heads, 1 << 10),
            ("num_hidden_layers", self.layers, 1 << 12),
            ("num_local_experts", self.experts.as_ref().map_or(0, |e| e.count), 1 << 8),
        ];
        match sizes.into_iter().find(|(_, size, limit)| size > limit) {
            Some((key, _, limit)) => Err(f.wrong(key, &format!("halfbyte goes up to {limit}"))),
            None => Ok(()),
        }
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

fn family(f: &Fields) -> Result<Family> {
    let known = [Family::Llama, Family::Mistral, Family::Mixtral];
    let hint = "halfbyte trains Llama, Mistral and Mixtral models (model_type llama, mistral, mixtral)";
    let name =
        f.text("model_type")?.ok_or_else(|| f.wrong("model_type", "the architecture is not named").hint(hint))?;
    let family = known
        .into_iter()
        .find(|k| k.model_type() == name)
        .ok_or_else(|| f.wrong("model_type", "this architecture is not supported").hint(hint))?;
    let class = format!("{}ForCausalLM", family.class_prefix());
    match f.texts("architectures")? {
        Some(list) if !list.is_empty() && !list.contains(&class) => Err(f
            .wrong("architectures", &format!("expected {class}"))
            .hint("only causal language models can be trained")),
        _ => Ok(family),
    }
}

fn sliding_window(f: &Fields, family: Family) -> Result<Option<usize>> {
    match (family, f.map.get("sliding_window")) {
        (Family::Llama, Some(v)) if !v.is_null() => Err(f
            .wrong("sliding_window", "Llama models have no window")
            .hint("remove the field (transformers ignores it for Llama), or set model_type to \"mistral\"")),
        // MistralConfig's default; MixtralConfig has none.
        (Family::Mistral, None) => Ok(Some(4096)),
        _ => f.count("sliding_window"),
    }
}

fn experts(f: &Fields, family: Family) -> Result<Option<Experts>> {
    if family != Family::Mixtral {
        let keys = ["num_local_experts", "num_experts_per_tok"];
        return match keys.into_iter().find(|k| f.get(k).is_some()) {
            Some(key) => Err(f.wrong(key, "only Mixtral models have experts").hint("set model_type to \"mixtral\"")),
            None => Ok(None),
        };
    }
    let count = f.count("num_local_experts")?.unwrap_or(8);
    let per_token = f.count("num_experts_per_tok")?.unwrap_or(2);
    if per_token != 2 {
        return Err(f.wrong("num_experts_per_tok", "halfbyte routes every token to exactly 2 experts"));
    }
    if count < 2 {
        return Err(f.wrong("num_local_experts", "at least 2 experts are needed"));
    }
    Ok(Some(Experts {
        count,
        per_token,
        aux_loss_coef: f.number("router_aux_loss_coef")?.unwrap_or(0.001),
        output_router_logits: f.flag("output_router_logits")?.unwrap_or(false),
    }))
}

/// `torch_dtype`, which recent transformers write as `dtype`.
fn torch_dtype(f: &Fields) -> Result<Option<DType>> {
    for key in ["torch_dtype", "dtype"] {
        if let Some(name) = f.text(key)?
            && name != "auto"
        {
            let dtype = float_named(name);
            return dtype.map(Some).ok_or_else(|| f.wrong(key, "expected float32, float16 or bfloat16"));
        }
    }
    Ok(None)
}

/// The storage type that torch calls `name` (with or without "torch.").
pub fn float_named(name: &str) -> Option<DType> {
    let name = name.strip_prefix("torch.").unwrap_or(name);
    [DType::F32, DType::F16, DType::Bf16].into_iter().find(|d| d.torch_name() == name)
}

impl QuantConfig {
    fn read(f: &Fields) -> Result<Self> {
        let hint = "use the unquantised checkpoint, or one that bitsandbytes quantised to 4 bits";
        match f.text("quant_method")? {
            Some("bitsandbytes") | None => {}
            Some(_) => return Err(f.wrong("quant_method", "halfbyte reads bitsandbytes checkpoints only").hint(hint)),
        }
        if f.flag("load_in_8bit")? == Some(true) || f.flag("load_in_4bit")? != Some(true) {
            return Err(f.wrong("load_in_4bit", "halfbyte reads 4-bit checkpoints only").hint(hint));
        }
        if let Some(storage) = f.text("bnb_4bit_quant_storage")?
            && storage != "uint8"
        {
            return Err(f.wrong("bnb_4bit_quant_storage", "halfbyte reads codes stored as uint8 only").hint(hint));
        }
        let kind = f.text("bnb_4bit_quant_type")?.unwrap_or("fp4");
        let compute = f.text("bnb_4bit_compute_dtype")?.unwrap_or("float32");
        Ok(Self {
            kind: QuantKind::parse(kind).ok_or_else(|| f.wrong("bnb_4bit_quant_type", "expected nf4 or fp4"))?,
            double_quant: f.flag("bnb_4bit_use_double_quant")?.unwrap_or(false),
            compute_dtype: float_named(compute)
                .ok_or_else(|| f.wrong("bnb_4bit_compute_dtype", "expected float32, float16 or bfloat16"))?,
            skip_modules: f.texts("llm_int8_skip_modules")?.unwrap_or_default(),
        })
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

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
