//! The known fields of config.json, and how each is treated.

use serde_json::{Value, json};

use super::fields::JsonFields;
use crate::suggest::nearest;
use halfbyte_core::error::Result;

/// The way in which a field of config.json is treated.
enum ConfigFieldRule {
    /// Read into [`ModelConfig`](halfbyte_core::model::ModelConfig).
    Read,
    /// Does not change the computation.
    NoEffect,
    /// Changes the computation in a way that is not implemented, unless it has this value.
    Only(fn() -> Value),
}

/// All known fields. An unknown field is an error, because it may change the computation.
const FIELDS: &[(&str, ConfigFieldRule)] = &[
    ("model_type", ConfigFieldRule::Read),
    ("architectures", ConfigFieldRule::Read),
    ("vocab_size", ConfigFieldRule::Read),
    ("hidden_size", ConfigFieldRule::Read),
    ("intermediate_size", ConfigFieldRule::Read),
    ("num_hidden_layers", ConfigFieldRule::Read),
    ("num_attention_heads", ConfigFieldRule::Read),
    ("num_key_value_heads", ConfigFieldRule::Read),
    ("head_dim", ConfigFieldRule::Read),
    ("rms_norm_eps", ConfigFieldRule::Read),
    ("rope_theta", ConfigFieldRule::Read),
    ("rope_scaling", ConfigFieldRule::Read),
    ("rope_parameters", ConfigFieldRule::Read),
    ("max_position_embeddings", ConfigFieldRule::Read),
    ("sliding_window", ConfigFieldRule::Read),
    ("tie_word_embeddings", ConfigFieldRule::Read),
    ("use_sliding_window", ConfigFieldRule::Read),
    ("max_window_layers", ConfigFieldRule::Read),
    ("layer_types", ConfigFieldRule::Read),
    ("num_local_experts", ConfigFieldRule::Read),
    ("num_experts", ConfigFieldRule::Read),
    ("moe_intermediate_size", ConfigFieldRule::Read),
    ("norm_topk_prob", ConfigFieldRule::Read),
    ("mlp_only_layers", ConfigFieldRule::Read),
    ("decoder_sparse_step", ConfigFieldRule::Read),
    ("num_experts_per_tok", ConfigFieldRule::Read),
    ("router_aux_loss_coef", ConfigFieldRule::Read),
    ("output_router_logits", ConfigFieldRule::Read),
    ("torch_dtype", ConfigFieldRule::Read),
    ("dtype", ConfigFieldRule::Read),
    ("quantization_config", ConfigFieldRule::Read),
    ("bos_token_id", ConfigFieldRule::Read),
    ("eos_token_id", ConfigFieldRule::Read),
    ("attention_bias", ConfigFieldRule::Only(|| json!(false))),
    ("mlp_bias", ConfigFieldRule::Only(|| json!(false))),
    ("hidden_act", ConfigFieldRule::Only(|| json!("silu"))),
    ("attention_dropout", ConfigFieldRule::Only(|| json!(0.0))),
    ("router_jitter_noise", ConfigFieldRule::Only(|| json!(0.0))),
    ("partial_rotary_factor", ConfigFieldRule::Only(|| json!(1.0))),
    ("rope_interleaved", ConfigFieldRule::Only(|| json!(false))),
    ("is_decoder", ConfigFieldRule::NoEffect),
    ("is_encoder_decoder", ConfigFieldRule::Only(|| json!(false))),
    ("add_cross_attention", ConfigFieldRule::Only(|| json!(false))),
    ("_name_or_path", ConfigFieldRule::NoEffect),
    ("_commit_hash", ConfigFieldRule::NoEffect),
    ("_attn_implementation", ConfigFieldRule::NoEffect),
    ("_attn_implementation_autoset", ConfigFieldRule::NoEffect),
    ("_attn_implementation_internal", ConfigFieldRule::NoEffect),
    ("_flash_attn_2_enabled", ConfigFieldRule::NoEffect),
    ("auto_map", ConfigFieldRule::NoEffect),
    ("chunk_size_feed_forward", ConfigFieldRule::NoEffect),
    ("finetuning_task", ConfigFieldRule::NoEffect),
    ("id2label", ConfigFieldRule::NoEffect),
    ("is_llama_config", ConfigFieldRule::NoEffect),
    ("label2id", ConfigFieldRule::NoEffect),
    ("initializer_range", ConfigFieldRule::NoEffect),
    ("max_sequence_length", ConfigFieldRule::NoEffect),
    ("model_name", ConfigFieldRule::NoEffect),
    ("output_attentions", ConfigFieldRule::NoEffect),
    ("output_hidden_states", ConfigFieldRule::NoEffect),
    ("pad_token_id", ConfigFieldRule::NoEffect),
    ("unk_token_id", ConfigFieldRule::NoEffect),
    ("pretraining_tp", ConfigFieldRule::NoEffect),
    ("problem_type", ConfigFieldRule::NoEffect),
    ("return_dict", ConfigFieldRule::NoEffect),
    ("tokenizer_class", ConfigFieldRule::NoEffect),
    ("transformers.js_config", ConfigFieldRule::NoEffect),
    ("transformers_version", ConfigFieldRule::NoEffect),
    ("unsloth_fixed", ConfigFieldRule::NoEffect),
    ("unsloth_version", ConfigFieldRule::NoEffect),
    ("use_cache", ConfigFieldRule::NoEffect),
];

/// Refuses fields that we have never heard of, and those that ask for mathematics that we do not implement.
pub(super) fn refuse_unknown(f: &JsonFields) -> Result<()> {
    for (key, value) in &f.map {
        match FIELDS.iter().find(|(name, _)| name == key) {
            Some((_, ConfigFieldRule::Only(only))) => {
                let (only, same) = (only(), |a: &Value, b: &Value| a == b || (a.is_f64() && a.as_f64() == b.as_f64()));
                if !value.is_null() && !same(&only, value) {
                    return Err(f
                        .wrong(key, &format!("halfbyte implements only {only}"))
                        .hint("another model is needed: changing the field would change what the model computes"));
                }
            }
            Some(_) => {}
            None if value.is_null() => {}
            None => {
                let error = f.wrong(key, "this field is unknown, and it may change what the model computes");
                let hint = match nearest(key, FIELDS.iter().map(|(name, _)| *name)) {
                    Some(name) => format!("did you mean `{name}`? If the field is harmless, remove it"),
                    None => "remove the field if you know that it is harmless".into(),
                };
                return Err(error.hint(hint));
            }
        }
    }
    Ok(())
}
