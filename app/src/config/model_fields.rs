//! What we do with each field that config.json may have.

use serde_json::{Value, json};

use super::fields::Fields;
use halfbyte_core::error::{Result, nearest};

/// What we do with a field of config.json.
enum Rule {
    /// Read into [`ModelConfig`](super::model::ModelConfig).
    Read,
    /// Changes nothing that we compute.
    NoEffect,
    /// Changes the mathematics in a way that we do not implement, unless it has this value.
    Only(fn() -> Value),
}

/// Every field that we have heard of. A field that is not here is an error: it may change the mathematics.
const FIELDS: &[(&str, Rule)] = &[
    ("model_type", Rule::Read),
    ("architectures", Rule::Read),
    ("vocab_size", Rule::Read),
    ("hidden_size", Rule::Read),
    ("intermediate_size", Rule::Read),
    ("num_hidden_layers", Rule::Read),
    ("num_attention_heads", Rule::Read),
    ("num_key_value_heads", Rule::Read),
    ("head_dim", Rule::Read),
    ("rms_norm_eps", Rule::Read),
    ("rope_theta", Rule::Read),
    ("rope_scaling", Rule::Read),
    ("rope_parameters", Rule::Read),
    ("max_position_embeddings", Rule::Read),
    ("sliding_window", Rule::Read),
    ("tie_word_embeddings", Rule::Read),
    ("num_local_experts", Rule::Read),
    ("num_experts_per_tok", Rule::Read),
    ("router_aux_loss_coef", Rule::Read),
    ("output_router_logits", Rule::Read),
    ("torch_dtype", Rule::Read),
    ("dtype", Rule::Read),
    ("quantization_config", Rule::Read),
    ("bos_token_id", Rule::Read),
    ("eos_token_id", Rule::Read),
    ("attention_bias", Rule::Only(|| json!(false))),
    ("mlp_bias", Rule::Only(|| json!(false))),
    ("hidden_act", Rule::Only(|| json!("silu"))),
    ("attention_dropout", Rule::Only(|| json!(0.0))),
    ("router_jitter_noise", Rule::Only(|| json!(0.0))),
    ("partial_rotary_factor", Rule::Only(|| json!(1.0))),
    ("use_sliding_window", Rule::Only(|| json!(false))),
    ("layer_types", Rule::Only(|| json!(null))),
    ("is_decoder", Rule::NoEffect),
    ("is_encoder_decoder", Rule::Only(|| json!(false))),
    ("add_cross_attention", Rule::Only(|| json!(false))),
    ("_name_or_path", Rule::NoEffect),
    ("_commit_hash", Rule::NoEffect),
    ("_attn_implementation", Rule::NoEffect),
    ("_attn_implementation_autoset", Rule::NoEffect),
    ("_attn_implementation_internal", Rule::NoEffect),
    ("_flash_attn_2_enabled", Rule::NoEffect),
    ("auto_map", Rule::NoEffect),
    ("chunk_size_feed_forward", Rule::NoEffect),
    ("finetuning_task", Rule::NoEffect),
    ("id2label", Rule::NoEffect),
    ("label2id", Rule::NoEffect),
    ("initializer_range", Rule::NoEffect),
    ("max_sequence_length", Rule::NoEffect),
    ("model_name", Rule::NoEffect),
    ("output_attentions", Rule::NoEffect),
    ("output_hidden_states", Rule::NoEffect),
    ("pad_token_id", Rule::NoEffect),
    ("unk_token_id", Rule::NoEffect),
    ("pretraining_tp", Rule::NoEffect),
    ("problem_type", Rule::NoEffect),
    ("return_dict", Rule::NoEffect),
    ("tokenizer_class", Rule::NoEffect),
    ("transformers_version", Rule::NoEffect),
    ("unsloth_fixed", Rule::NoEffect),
    ("unsloth_version", Rule::NoEffect),
    ("use_cache", Rule::NoEffect),
];

/// Refuses fields that we have never heard of, and those that ask for mathematics that we do not implement.
pub(super) fn refuse_unknown(f: &Fields) -> Result<()> {
    for (key, value) in &f.map {
        match FIELDS.iter().find(|(name, _)| name == key) {
            Some((_, Rule::Only(only))) => {
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
