//! Reads and checks `config.json` of a model. Every field that changes the computation is either implemented or
//! refused.

use std::path::Path;

use super::fields::JsonFields;
use super::model_fields::refuse_unknown;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::{Architecture, Experts, ModelConfig, QuantConfig};
use halfbyte_core::quant::QuantKind;

/// Reads `config.json` of a model folder.
pub fn open(folder: &Path) -> Result<ModelConfig> {
    let file = folder.join("config.json");
    if !file.is_file() {
        return Err(Error::input(format!("{}: no config.json there", folder.display()))
            .hint("name the folder of a Hugging Face model (config.json, *.safetensors, tokenizer.model)"));
    }
    open_file(&file)
}

/// Reads a config.json under any file name.
pub fn open_file(file: &Path) -> Result<ModelConfig> {
    read(&JsonFields::open(file)?)
}

/// Parses the text of a config.json; `file` is named in errors.
pub fn parse(text: &str, file: &Path) -> Result<ModelConfig> {
    read(&JsonFields::parse(text, file)?)
}

fn read(f: &JsonFields) -> Result<ModelConfig> {
    let family = family(f)?;
    refuse_unknown(f)?;
    let (default_kv, default_positions, default_eps, default_theta) = match family {
        // The defaults of LlamaConfig, MistralConfig and MixtralConfig (transformers 4.57).
        Architecture::Llama => (None, 2048, 1e-6, 1e4),
        Architecture::Mistral => (Some(8), 131072, 1e-6, 1e4),
        Architecture::Mixtral => (Some(8), 131072, 1e-5, 1e6),
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
        return Err(f.wrong("head_dim", &format!("rotary embeddings need an even width of at least 4, not {head_dim}")));
    }
    let max_positions = f.count("max_position_embeddings")?.unwrap_or(default_positions);
    let config = ModelConfig {
        family,
        vocab_size: f.required_count("vocab_size")?,
        hidden_size,
        intermediate_size: f.required_count("intermediate_size")?,
        layers: f.required_count("num_hidden_layers")?,
        heads,
        kv_heads,
        head_dim,
        rms_norm_eps: f.positive("rms_norm_eps")?.unwrap_or(default_eps),
        rope: super::rope::read(f, default_theta, max_positions)?,
        max_positions,
        sliding_window: sliding_window(f, family)?,
        tied: f.flag("tie_word_embeddings")?.unwrap_or(false),
        experts: experts(f, family)?,
        torch_dtype: torch_dtype(f)?,
        quantization: f.object("quantization_config")?.map(|q| quantization(&q)).transpose()?,
        bos_id: f.token_ids("bos_token_id")?.first().copied(),
        eos_ids: f.token_ids("eos_token_id")?,
    };
    check_sizes(&config, f)?;
    Ok(config)
}

/// Refuses sizes far beyond any real model, so that later products of them do not overflow 64 bits.
fn check_sizes(config: &ModelConfig, f: &JsonFields) -> Result<()> {
    let width = 1 << 20;
    let sizes = [
        ("vocab_size", config.vocab_size, 1 << 22),
        ("hidden_size", config.hidden_size, width),
        ("intermediate_size", config.intermediate_size, width),
        ("head_dim", config.head_dim, 1 << 10),
        ("num_attention_heads", config.heads, 1 << 10),
        ("num_hidden_layers", config.layers, 1 << 12),
        ("num_local_experts", config.experts.as_ref().map_or(0, |e| e.count), 1 << 8),
    ];
    match sizes.into_iter().find(|(_, size, limit)| size > limit) {
        Some((key, _, limit)) => Err(f.wrong(key, &format!("halfbyte goes up to {limit}"))),
        None => Ok(()),
    }
}

fn family(f: &JsonFields) -> Result<Architecture> {
    let known = [Architecture::Llama, Architecture::Mistral, Architecture::Mixtral];
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

fn sliding_window(f: &JsonFields, family: Architecture) -> Result<Option<usize>> {
    match (family, f.map.get("sliding_window")) {
        (Architecture::Llama, Some(v)) if !v.is_null() => Err(f
            .wrong("sliding_window", "Llama models have no window")
            .hint("remove the field (transformers ignores it for Llama), or set model_type to \"mistral\"")),
        // MistralConfig's default; MixtralConfig has none.
        (Architecture::Mistral, None) => Ok(Some(4096)),
        _ => f.count("sliding_window"),
    }
}

fn experts(f: &JsonFields, family: Architecture) -> Result<Option<Experts>> {
    if family != Architecture::Mixtral {
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
fn torch_dtype(f: &JsonFields) -> Result<Option<DType>> {
    for key in ["torch_dtype", "dtype"] {
        if let Some(name) = f.text(key)?
            && name != "auto"
        {
            let dtype = DType::from_torch_name(name);
            return dtype.map(Some).ok_or_else(|| f.wrong(key, "expected float32, float16 or bfloat16"));
        }
    }
    Ok(None)
}

/// Reads `quantization_config`.
fn quantization(f: &JsonFields) -> Result<QuantConfig> {
    let hint = "use the unquantized checkpoint, or one that bitsandbytes quantized to 4 bits";
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
    Ok(QuantConfig {
        kind: QuantKind::parse(kind).ok_or_else(|| f.wrong("bnb_4bit_quant_type", "expected nf4 or fp4"))?,
        double_quant: f.flag("bnb_4bit_use_double_quant")?.unwrap_or(false),
        compute_dtype: DType::from_torch_name(compute)
            .ok_or_else(|| f.wrong("bnb_4bit_compute_dtype", "expected float32, float16 or bfloat16"))?,
        skip_modules: f.texts("llm_int8_skip_modules")?.unwrap_or_default(),
    })
}

#[cfg(test)]
#[path = "config_json_tests.rs"]
mod tests;
