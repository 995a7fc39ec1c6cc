//! Reads and checks `config.json` of a model. Every field that changes the computation is either implemented or
//! refused.

use std::path::Path;

use super::fields::JsonFields;
use super::model_fields::refuse_unknown;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::{Architecture, Experts, ModelConfig, QuantConfig};
use halfbyte_core::op::MAX_CHOICES;
use halfbyte_core::quant::QuantKind;

/// Reads `config.json` of a model folder, and the end tokens of its `generation_config.json`.
pub fn open(folder: &Path) -> Result<ModelConfig> {
    let file = folder.join("config.json");
    if !file.is_file() {
        return Err(Error::input(format!("{}: no config.json there", folder.display()))
            .hint("name the folder of a Hugging Face model (config.json, *.safetensors, a tokenizer)"));
    }
    let mut config = open_file(&file)?;
    if let Some(ids) = generation_ends(folder)? {
        config.eos_ids = ids;
    }
    Ok(config)
}

/// Reads a config.json under any file name.
pub fn open_file(file: &Path) -> Result<ModelConfig> {
    read(&JsonFields::open(file)?)
}

/// The end tokens of `generation_config.json` in a model folder, which take precedence over those of `config.json`: an
/// instruct model often stops at more tokens than its base.
fn generation_ends(folder: &Path) -> Result<Option<Vec<u32>>> {
    let file = folder.join("generation_config.json");
    if !file.is_file() {
        return Ok(None);
    }
    let ids = JsonFields::open(&file)?.token_ids("eos_token_id")?;
    Ok((!ids.is_empty()).then_some(ids))
}

/// Parses the text of a config.json; `file` is named in errors.
pub fn parse(text: &str, file: &Path) -> Result<ModelConfig> {
    read(&JsonFields::parse(text, file)?)
}

fn read(f: &JsonFields) -> Result<ModelConfig> {
    let family = family(f)?;
    refuse_unknown(f)?;
    // The defaults of the families' config classes (transformers 4.57).
    let (default_kv, default_positions, default_eps, default_theta) = match family {
        Architecture::Llama => (None, 2048, 1e-6, 1e4),
        Architecture::Mistral => (Some(8), 131072, 1e-6, 1e4),
        Architecture::Mixtral => (Some(8), 131072, 1e-5, 1e6),
        Architecture::Qwen2 | Architecture::Qwen3 => (Some(32), 32768, 1e-6, 1e4),
        Architecture::Qwen3Moe => (Some(4), 32768, 1e-6, 1e4),
    };
    let (hidden_size, heads) = (f.required_count("hidden_size")?, f.required_count("num_attention_heads")?);
    // null means as many as there are query heads.
    let default_kv = default_kv.filter(|_| !f.map.contains_key("num_key_value_heads"));
    let kv_heads = f.count("num_key_value_heads")?.or(default_kv).unwrap_or(heads);
    if heads % kv_heads != 0 {
        return Err(f.wrong("num_key_value_heads", &format!("it must divide `num_attention_heads` = {heads}")));
    }
    let head_dim = match f.count("head_dim")? {
        Some(d) => d,
        None if family == Architecture::Qwen3 && !f.map.contains_key("head_dim") => 128,
        None if hidden_size % heads == 0 => hidden_size / heads,
        None => {
            return Err(f.wrong("num_attention_heads", &format!("it must divide `hidden_size` = {hidden_size}")));
        }
    };
    if head_dim % 2 != 0 || head_dim < 4 {
        return Err(f.wrong("head_dim", &format!("rotary embeddings need an even width of at least 4, not {head_dim}")));
    }
    let max_positions = f.count("max_position_embeddings")?.unwrap_or(default_positions);
    let layers = f.required_count("num_hidden_layers")?;
    let intermediate_size = f.required_count("intermediate_size")?;
    let (sliding_window, full_layers) = sliding_window(f, family, layers)?;
    let config = ModelConfig {
        family,
        vocab_size: f.required_count("vocab_size")?,
        hidden_size,
        intermediate_size,
        layers,
        heads,
        kv_heads,
        head_dim,
        rms_norm_eps: f.positive("rms_norm_eps")?.unwrap_or(default_eps),
        rope: super::rope::read(f, default_theta, max_positions)?,
        max_positions,
        sliding_window,
        full_layers,
        qkv_bias: family == Architecture::Qwen2,
        head_norms: matches!(family, Architecture::Qwen3 | Architecture::Qwen3Moe),
        tied: f.flag("tie_word_embeddings")?.unwrap_or(false),
        experts: experts(f, family, layers, intermediate_size)?,
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
    let experts = config.experts.as_ref();
    let count = if f.map.contains_key("num_experts") { "num_experts" } else { "num_local_experts" };
    let sizes = [
        ("vocab_size", config.vocab_size, 1 << 22),
        ("hidden_size", config.hidden_size, width),
        ("intermediate_size", config.intermediate_size, width),
        ("head_dim", config.head_dim, 1 << 10),
        ("num_attention_heads", config.heads, 1 << 10),
        ("num_hidden_layers", config.layers, 1 << 12),
        (count, experts.map_or(0, |e| e.count), 1 << 8),
        ("moe_intermediate_size", experts.map_or(0, |e| e.width), width),
    ];
    match sizes.into_iter().find(|(_, size, limit)| size > limit) {
        Some((key, _, limit)) => Err(f.wrong(key, &format!("halfbyte goes up to {limit}"))),
        None => Ok(()),
    }
}

fn family(f: &JsonFields) -> Result<Architecture> {
    let hint = || {
        let types = Architecture::ALL.map(Architecture::model_type).join(", ");
        format!("halfbyte trains Llama, Mistral, Mixtral and Qwen models (model_type {types})")
    };
    let name =
        f.text("model_type")?.ok_or_else(|| f.wrong("model_type", "the architecture is not named").hint(hint()))?;
    let family = Architecture::ALL
        .into_iter()
        .find(|k| k.model_type() == name)
        .ok_or_else(|| f.wrong("model_type", "this architecture is not supported").hint(hint()))?;
    let class = format!("{}ForCausalLM", family.class_prefix());
    match f.texts("architectures")? {
        Some(list) if !list.is_empty() && !list.contains(&class) => Err(f
            .wrong("architectures", &format!("expected {class}"))
            .hint("only causal language models can be trained")),
        _ => Ok(family),
    }
}

/// The window, and the layers that see everything in spite of it.
fn sliding_window(f: &JsonFields, family: Architecture, layers: usize) -> Result<(Option<usize>, Vec<usize>)> {
    let qwen = matches!(family, Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Qwen3Moe);
    let of_layers = matches!(family, Architecture::Qwen2 | Architecture::Qwen3);
    if f.flag("use_sliding_window")? == Some(true) && !qwen {
        return Err(f.wrong("use_sliding_window", "only Qwen models have this field"));
    }
    if f.get("layer_types").is_some() && !of_layers {
        return Err(f.wrong("layer_types", "halfbyte reads this field of Qwen2 and Qwen3 models only"));
    }
    match (family, f.map.get("sliding_window")) {
        (Architecture::Llama, Some(v)) if !v.is_null() => Err(f
            .wrong("sliding_window", "Llama models have no window")
            .hint("remove the field (transformers ignores it for Llama), or set model_type to \"mistral\"")),
        // MistralConfig's default; MixtralConfig has none.
        (Architecture::Mistral, None) => Ok((Some(4096), Vec::new())),
        // Published Qwen models have a number here that is not in force.
        _ if qwen && f.flag("use_sliding_window")? != Some(true) => {
            full_layers(f, layers, None)?;
            Ok((None, Vec::new()))
        }
        _ if qwen => {
            let window = f.count("sliding_window")?.or((!f.map.contains_key("sliding_window")).then_some(4096));
            let full = if of_layers { full_layers(f, layers, window)? } else { Vec::new() };
            // If no layer has the window, there is none.
            if full.len() == layers { Ok((None, Vec::new())) } else { Ok((window, full)) }
        }
        _ => Ok((f.count("sliding_window")?, Vec::new())),
    }
}

/// The layers of a Qwen model that see everything: those that `layer_types` names so, else the first
/// `max_window_layers`.
fn full_layers(f: &JsonFields, layers: usize, window: Option<usize>) -> Result<Vec<usize>> {
    let first = match f.get("max_window_layers") {
        // 0 is not a count, but a valid value: all layers have the window.
        Some(value) if value.as_u64() == Some(0) => 0,
        _ => f.count("max_window_layers")?.unwrap_or(28),
    };
    let Some(types) = f.texts("layer_types")? else { return Ok((0..layers.min(first)).collect()) };
    let known = types.iter().all(|kind| ["full_attention", "sliding_attention"].contains(&kind.as_str()));
    if types.len() != layers || !known || (window.is_none() && types.iter().any(|kind| kind == "sliding_attention")) {
        return Err(f.wrong(
            "layer_types",
            "expected \"full_attention\" or, if a window is in force, \"sliding_attention\" per layer",
        ));
    }
    Ok((0..layers).filter(|&layer| types[layer] == "full_attention").collect())
}

/// Fields of models with experts.
const EXPERT_FIELDS: [&str; 7] = [
    "num_local_experts",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "norm_topk_prob",
    "mlp_only_layers",
    "decoder_sparse_step",
];

fn experts(f: &JsonFields, family: Architecture, layers: usize, inner: usize) -> Result<Option<Experts>> {
    let (count_key, count, per_token) = match family {
        Architecture::Mixtral => ("num_local_experts", 8, 2),
        Architecture::Qwen3Moe => ("num_experts", 128, 8),
        _ => {
            return match EXPERT_FIELDS.into_iter().find(|k| f.get(k).is_some()) {
                Some(key) => {
                    let error = f.wrong(key, "only Mixtral and Qwen3-MoE models have experts");
                    Err(error.hint("set model_type to \"mixtral\" or \"qwen3_moe\""))
                }
                None => Ok(None),
            };
        }
    };
    let count = f.count(count_key)?.unwrap_or(count);
    let per_token = f.count("num_experts_per_tok")?.unwrap_or(per_token);
    if per_token > MAX_CHOICES.min(count) {
        let most = format!("halfbyte routes a token to at most {MAX_CHOICES} of the {count} experts");
        return Err(f.wrong("num_experts_per_tok", &most));
    }
    if count < 2 {
        return Err(f.wrong(count_key, "at least 2 experts are needed"));
    }
    let qwen = family == Architecture::Qwen3Moe;
    Ok(Some(Experts {
        count,
        per_token,
        width: if qwen { f.count("moe_intermediate_size")?.unwrap_or(768) } else { inner },
        renormalize: !qwen || f.flag("norm_topk_prob")?.unwrap_or(false),
        dense_layers: if qwen { dense_layers(f, layers)? } else { Vec::new() },
        aux_loss_coef: f.number("router_aux_loss_coef")?.unwrap_or(0.001),
        output_router_logits: f.flag("output_router_logits")?.unwrap_or(false),
    }))
}

/// The layers of a Qwen3-MoE model that have an MLP: those in `mlp_only_layers`, and all but every
/// `decoder_sparse_step`-th. Errors if these are all layers.
fn dense_layers(f: &JsonFields, layers: usize) -> Result<Vec<usize>> {
    let named = f.token_ids("mlp_only_layers")?;
    let step = f.count("decoder_sparse_step")?.unwrap_or(1);
    let is_dense = |layer: &usize| named.iter().any(|n| *n as usize == *layer) || !(layer + 1).is_multiple_of(step);
    let dense: Vec<usize> = (0..layers).filter(is_dense).collect();
    match dense.len() == layers {
        false => Ok(dense),
        true => Err(f
            .wrong("decoder_sparse_step", "no layer of this Qwen3-MoE model would have experts")
            .hint("a model without experts has the model_type \"qwen3\"")),
    }
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
