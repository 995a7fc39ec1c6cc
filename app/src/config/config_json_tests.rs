//! Tests of [`super`].

use super::*;
use halfbyte_core::model::{Rope, RopeScaling};
use serde_json::{Value, json};

/// A config of `family` in which `changes` (a JSON object) replace fields; null removes one.
fn config(family: &str, changes: Value) -> Result<ModelConfig> {
    let class = Architecture::ALL.into_iter().find(|a| a.model_type() == family).expect("a family").class_prefix();
    let mut base = json!({
        "architectures": [format!("{class}ForCausalLM")],
        "model_type": family, "vocab_size": 320, "hidden_size": 128, "intermediate_size": 320,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2,
        "transformers_version": "4.57.6", "use_cache": true, "hidden_act": "silu",
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        base[key] = value.clone();
    }
    parse(&base.to_string(), Path::new("m/config.json"))
}

fn refused(family: &str, changes: Value, words: &[&str]) {
    let error = config(family, changes.clone()).expect_err(&changes.to_string()).to_string();
    for word in words.iter().chain(&["m/config.json"]) {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
}

#[test]
fn defaults_are_those_of_the_family() {
    let llama = config("llama", json!({"num_key_value_heads": null, "rms_norm_eps": null})).expect("valid");
    assert_eq!((llama.kv_heads, llama.head_dim, llama.rms_norm_eps, llama.rope.theta), (4, 32, 1e-6, 1e4));
    assert_eq!((llama.sliding_window, llama.torch_dtype, llama.tied), (None, None, false));
    let mistral = config("mistral", json!({})).expect("valid");
    assert_eq!(mistral.sliding_window, Some(4096));
    assert_eq!(config("mistral", json!({"sliding_window": null})).expect("valid").sliding_window, None);
    let mixtral = config("mixtral", json!({})).expect("valid");
    let experts = mixtral.experts.expect("Mixtral has experts");
    assert_eq!((experts.count, experts.per_token, experts.output_router_logits), (8, 2, false));
    assert_eq!((mixtral.rope.theta, mixtral.sliding_window), (1e6, None));
}

#[test]
fn qwen_models_have_biases_norms_and_experts() {
    let qwen2 = config("qwen2", json!({"num_key_value_heads": null})).expect("valid");
    assert_eq!((qwen2.qkv_bias, qwen2.head_norms, qwen2.head_dim, qwen2.kv_heads), (true, false, 32, 4));
    let qwen3 = config("qwen3", json!({"head_dim": 64})).expect("valid");
    assert_eq!((qwen3.qkv_bias, qwen3.head_norms, qwen3.head_dim), (false, true, 64));
    assert_eq!(config("qwen3", json!({})).expect("valid").head_dim, 128, "the default of Qwen3Config");
    let moe = json!({"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 96, "num_hidden_layers": 6,
        "mlp_only_layers": [3], "decoder_sparse_step": 2});
    let moe = config("qwen3_moe", moe).expect("valid");
    assert!(moe.head_norms);
    let experts = moe.experts.as_ref().expect("experts");
    assert_eq!((experts.count, experts.per_token, experts.width, experts.renormalize), (16, 4, 96, false));
    assert_eq!(experts.dense_layers, [0, 2, 3, 4]);
    assert!(moe.experts_of(0).is_none() && moe.experts_of(1).is_some());
    let renormalized = config("qwen3_moe", json!({"norm_topk_prob": true})).expect("valid").experts.expect("experts");
    assert_eq!((renormalized.count, renormalized.per_token, renormalized.width), (128, 8, 768));
    assert!(renormalized.renormalize && renormalized.dense_layers.is_empty());
    assert!(config("mixtral", json!({})).expect("valid").experts.expect("experts").renormalize);
}

#[test]
fn a_window_of_qwen_is_in_force_only_if_a_flag_says_so() {
    let windows = |family: &str, changes: Value| {
        let config = config(family, changes).expect("valid");
        (config.sliding_window, config.full_layers)
    };
    let layers = |mut changes: Value| {
        changes["num_hidden_layers"] = 4.into();
        changes["sliding_window"] = 64.into();
        changes
    };
    assert_eq!(windows("qwen2", layers(json!({"max_window_layers": 1}))), (None, vec![]));
    let used = json!({"use_sliding_window": true, "max_window_layers": 1});
    assert_eq!(windows("qwen2", layers(used.clone())), (Some(64), vec![0]));
    assert_eq!(windows("qwen3_moe", layers(used)), (Some(64), vec![]), "all layers of a Qwen3-MoE have it");
    assert_eq!(windows("qwen3", layers(json!({"use_sliding_window": true}))), (None, vec![]), "28 layers are without");
    let types = json!(["sliding_attention", "full_attention", "sliding_attention", "full_attention"]);
    let listed = json!({"use_sliding_window": true, "max_window_layers": 0, "layer_types": types});
    assert_eq!(windows("qwen3", layers(listed)), (Some(64), vec![1, 3]));
    refused("qwen3", layers(json!({"layer_types": types})), &["layer_types"]);
    refused("qwen3", layers(json!({"use_sliding_window": true, "layer_types": ["chunked"]})), &["layer_types"]);
}

#[test]
fn head_dim_may_differ_from_hidden_over_heads() {
    let c = config("mistral", json!({"head_dim": 64})).expect("valid");
    assert_eq!((c.head_dim, c.q_width(), c.kv_width()), (64, 256, 128));
    assert_eq!(config("mistral", json!({"head_dim": null})).expect("valid").head_dim, 32);
}

#[test]
fn both_names_of_the_storage_type_are_read() {
    for key in ["torch_dtype", "dtype"] {
        assert_eq!(config("llama", json!({key: "bfloat16"})).expect("valid").torch_dtype, Some(DType::Bf16));
    }
    assert_eq!(config("llama", json!({"torch_dtype": "auto"})).expect("valid").torch_dtype, None);
    refused("llama", json!({"torch_dtype": "float8"}), &["torch_dtype", "float8"]);
}

#[test]
fn rope_scaling_is_read_in_all_its_spellings() {
    let scaling = |v: Value| config("llama", json!({"rope_scaling": v})).map(|c| c.rope.scaling);
    assert_eq!(scaling(json!({"type": "linear", "factor": 2.0})).expect("valid"), RopeScaling::Linear { factor: 2.0 });
    let dynamic = RopeScaling::Dynamic { factor: 2.0, original_max: 256 };
    assert_eq!(scaling(json!({"rope_type": "dynamic", "factor": 2})).expect("valid"), dynamic);
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 8192});
    assert!(matches!(scaling(llama3).expect("valid"), RopeScaling::Llama3 { original_max: 8192, .. }));
    let five = config("llama", json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}})).expect("valid");
    assert_eq!(five.rope, Rope { theta: 5e5, scaling: RopeScaling::None });
    // transformers 4.57.6 gives these factors; m = 0.1 · ln 4 + 1.
    let yarn = |more: Value| {
        let mut fields = json!({"rope_type": "yarn", "factor": 4.0});
        fields.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        match scaling(fields).expect("valid") {
            RopeScaling::Yarn { original_max, attention_factor, .. } => (original_max, attention_factor),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(yarn(json!({})), (256, 1.138629436111989));
    assert_eq!(yarn(json!({"original_max_position_embeddings": 64, "attention_factor": 1.5})), (64, 1.5));
    assert_eq!(yarn(json!({"mscale": 1.0, "mscale_all_dim": 1.0})), (256, 1.0));
    refused("llama", json!({"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": 0.5}}), &["beta_fast"]);
    refused("llama", json!({"rope_scaling": {"type": "longrope"}}), &["rope_scaling", "longrope", "yarn"]);
    refused("llama", json!({"rope_scaling": {"type": "linear"}}), &["rope_scaling", "factor"]);
    refused("llama", json!({"rope_scaling": {"type": "linear", "factor": 2.0, "beta": 1}}), &["beta"]);
    refused("llama", json!({"rope_scaling": 4}), &["rope_scaling"]);
}

#[test]
fn fields_that_change_the_mathematics_are_refused_by_name() {
    refused("llama", json!({"attention_bias": true}), &["attention_bias", "true", "only false"]);
    refused("llama", json!({"mlp_bias": true}), &["mlp_bias"]);
    refused("llama", json!({"hidden_act": "gelu"}), &["hidden_act", "gelu"]);
    refused("mistral", json!({"attention_dropout": 0.1}), &["attention_dropout", "0.1"]);
    refused("mixtral", json!({"num_experts_per_tok": 9}), &["num_experts_per_tok", "9", "8 of the 8"]);
    refused("qwen3_moe", json!({"num_experts_per_tok": 9}), &["num_experts_per_tok", "9", "8 of the 128"]);
    refused("qwen3_moe", json!({"mlp_only_layers": [0, 1]}), &["decoder_sparse_step", "no layer"]);
    refused("qwen2", json!({"num_experts": 8}), &["num_experts", "Qwen3-MoE"]);
    refused("qwen2", json!({"shared_expert_intermediate_size": 64}), &["shared_expert_intermediate_size"]);
    refused("qwen3", json!({"attention_bias": true}), &["attention_bias"]);
    refused("mistral", json!({"use_sliding_window": true}), &["use_sliding_window"]);
    refused("llama", json!({"layer_types": ["full_attention", "full_attention"]}), &["layer_types"]);
    refused("mixtral", json!({"router_jitter_noise": 0.01}), &["router_jitter_noise"]);
    refused("llama", json!({"sliding_window": 16}), &["sliding_window", "16"]);
    refused("llama", json!({"num_local_experts": 8}), &["num_local_experts"]);
    config("llama", json!({"attention_dropout": 0, "attention_bias": null})).expect("zero and null are harmless");
}

#[test]
fn unknown_fields_and_architectures_are_refused() {
    refused("llama", json!({"hidden_siz": 4}), &["hidden_siz", "did you mean `hidden_size`"]);
    refused("llama", json!({"logit_softcapping": 30.0}), &["logit_softcapping"]);
    refused("llama", json!({"model_type": "gemma2"}), &["model_type", "gemma2", "Mixtral", "qwen3_moe"]);
    refused("llama", json!({"model_type": "qwen2"}), &["architectures", "Qwen2ForCausalLM"]);
    refused("llama", json!({"model_type": null}), &["model_type"]);
    refused("llama", json!({"architectures": ["LlamaForSequenceClassification"]}), &["architectures"]);
    config("llama", json!({"some_future_field": null})).expect("null has no effect");
}

#[test]
fn impossible_shapes_are_refused() {
    refused("llama", json!({"hidden_size": null}), &["hidden_size", "missing"]);
    refused("llama", json!({"hidden_size": -1}), &["hidden_size", "-1"]);
    refused("llama", json!({"vocab_size": 1e30}), &["vocab_size"]);
    refused("llama", json!({"num_hidden_layers": 1000000}), &["num_hidden_layers", "4096"]);
    refused("llama", json!({"head_dim": 1 << 30}), &["head_dim", "1024"]);
    refused("llama", json!({"num_key_value_heads": 3}), &["num_key_value_heads", "3"]);
    refused("llama", json!({"num_attention_heads": 6}), &["num_attention_heads", "6"]);
    refused("llama", json!({"head_dim": 33}), &["head_dim", "even"]);
    refused("llama", json!({"rms_norm_eps": 0}), &["rms_norm_eps"]);
}

#[test]
fn prequantized_checkpoints_are_described() {
    let quant = |changes: Value| {
        let mut q = json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": false,
            "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true, "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8", "llm_int8_skip_modules": null, "llm_int8_threshold": 6.0});
        for (key, value) in changes.as_object().into_iter().flatten() {
            q[key] = value.clone();
        }
        json!({"quantization_config": q})
    };
    let q = config("llama", quant(json!({}))).expect("valid").quantization.expect("quantized");
    assert_eq!((q.kind, q.double_quant, q.compute_dtype), (QuantKind::Nf4, true, DType::Bf16));
    refused("llama", quant(json!({"quant_method": "gptq"})), &["quant_method", "gptq"]);
    refused("llama", quant(json!({"load_in_8bit": true})), &["4-bit"]);
    refused("llama", quant(json!({"bnb_4bit_quant_type": "nf3"})), &["bnb_4bit_quant_type", "nf3"]);
}
