//! Tests of [`super`].

use super::*;
use std::path::Path;

/// A tiny config of `family`; `more` is inserted into the JSON.
fn config(family: &str, more: &str) -> ModelConfig {
    let text = format!(
        r#"{{"model_type": "{family}", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4{more}}}"#
    );
    crate::config::config_json::parse(&text, Path::new("config.json")).expect("valid")
}

#[test]
fn modules_come_in_the_order_of_the_tree() {
    let names: Vec<String> = linears(&config("llama", "")).into_iter().map(|m| m.name).collect();
    assert_eq!(names[0], "model.layers.0.self_attn.q_proj");
    assert_eq!(names[6], "model.layers.0.mlp.down_proj");
    assert_eq!(names[7], "model.layers.1.self_attn.q_proj");
    assert_eq!((names.len(), names[14].as_str()), (15, "lm_head"));
    let mixtral = linears(&config("mixtral", r#", "num_local_experts": 4"#));
    assert_eq!(mixtral.len(), 2 * (4 + 1 + 4 * 3) + 1);
    let w2 = &mixtral[4 + 1 + 3 + 1];
    assert_eq!((w2.name.as_str(), w2.expert), ("model.layers.0.block_sparse_moe.experts.1.w2", Some(1)));
    assert_eq!((w2.out_features, w2.in_features), (16, 24));
}

#[test]
fn biases_and_norms_of_heads_have_tensors() {
    let shapes = |family: &str, suffix: &str| {
        let tensors = tensors(&config(family, "")).into_iter().filter(|t| t.name.ends_with(suffix));
        tensors.map(|t| t.shape).collect::<Vec<_>>()
    };
    assert_eq!(shapes("qwen2", ".bias"), [[16], [8], [8], [16], [8], [8]]);
    assert!(shapes("qwen3", ".bias").is_empty() && shapes("llama", "_norm.weight").is_empty());
    assert_eq!(shapes("qwen3", "q_norm.weight"), [[4], [4]]);
    assert_eq!(shapes("qwen3", "k_norm.weight"), [[4], [4]]);
    let moe = config("qwen3_moe", r#", "num_experts": 9, "moe_intermediate_size": 20, "decoder_sparse_step": 2"#);
    let names: Vec<String> = linears(&moe).into_iter().map(|m| m.name).collect();
    assert_eq!(
        names[4..8],
        ["gate", "up", "down"]
            .map(|m| format!("model.layers.0.mlp.{m}_proj"))
            .into_iter()
            .chain(["model.layers.1.self_attn.q_proj".into()])
            .collect::<Vec<_>>()
    );
    assert_eq!(names[11], "model.layers.1.mlp.gate");
    assert_eq!(names[14], "model.layers.1.mlp.experts.0.down_proj");
    assert_eq!(names.len(), 7 + 4 + 1 + 9 * 3 + 1);
    let spec = tensors(&moe).into_iter().find(|t| t.name == "model.layers.1.mlp.experts.8.up_proj.weight");
    assert_eq!(spec.expect("an expert").shape, [20, 16]);
}

#[test]
fn a_tied_head_is_a_module_without_a_tensor() {
    let tied = config("llama", r#", "tie_word_embeddings": true"#);
    assert!(linears(&tied).iter().any(|m| m.name == HEAD));
    assert!(!tensors(&tied).iter().any(|t| t.name == "lm_head.weight"));
    assert_eq!(tensors(&config("llama", "")).last().map(|t| t.name.as_str()), Some("lm_head.weight"));
    assert_eq!(count(&tied, None).parameters + 32 * 16, count(&config("llama", ""), None).parameters);
}

#[test]
fn skipped_modules_stay_in_16_bit() {
    let model = config("mixtral", "");
    let skipped = |pattern: &str| {
        let skip = [pattern.to_string()];
        linears(&model).into_iter().filter(|m| !is_quantized(m, &skip)).map(|m| m.name).collect::<Vec<_>>()
    };
    assert_eq!(skipped("nothing"), ["lm_head"]);
    let gates = ["model.layers.0.block_sparse_moe.gate", "model.layers.1.block_sparse_moe.gate", "lm_head"];
    assert_eq!(skipped("gate"), gates);
    assert_eq!(skipped("model.layers.1").len(), 4 + 1 + 24 + 1);
    assert_eq!(skipped("model.layers.1.self_attn.q_proj").len(), 2);
    let names = ["gate", "gates", "lm_head"].map(String::from);
    assert_eq!(unmatched_skips(&model, &names), ["gates"]);
    let all = count(&model, Some(&[])).packed;
    assert_eq!(count(&model, Some(&names)).packed, all + 2 * 8 * 16 / 2);
}

#[test]
fn missing_unexpected_and_misshaped_tensors_are_reported_by_name() {
    use crate::weights::safetensors::{Output, tests::Folder, write};
    use halfbyte_core::dtype::DType;
    let model = config("llama", "");
    let said = |change: &dyn Fn(&mut Vec<TensorSpec>)| {
        let mut slots = tensors(&model);
        change(&mut slots);
        let folder = Folder::new("check");
        let zeros = |s: &TensorSpec| {
            Output::floats(s.name.clone(), DType::Bf16, s.shape.clone(), &vec![0.0; s.shape.iter().product()])
        };
        write(&folder.0.join("model.safetensors"), &slots.iter().map(zeros).collect::<Vec<_>>()).expect("written");
        check(&TensorFiles::open(&folder.0).expect("valid"), &model).map_or_else(|e| e.to_string(), |()| "fine".into())
    };
    assert_eq!(said(&|_| {}), "fine");
    let rotary = TensorSpec { name: "model.layers.0.self_attn.rotary_emb.inv_freq".into(), shape: vec![2] };
    assert_eq!(said(&|slots| slots.push(rotary.clone())), "fine");
    let missing = said(&|slots| slots.truncate(slots.len() - 2));
    assert!(missing.contains("`model.norm.weight` is missing (and 1 more)"), "{missing}");
    let bias = TensorSpec { name: "model.layers.1.self_attn.q_proj.bias".into(), shape: vec![16] };
    let unexpected = said(&|slots| slots.push(bias.clone()));
    assert!(unexpected.contains("`model.layers.1.self_attn.q_proj.bias` is unexpected"), "{unexpected}");
    let shape = said(&|slots| slots[1].shape = vec![8, 16]);
    assert!(shape.contains("q_proj.weight` has shape [8, 16], expected [16, 16]"), "{shape}");
}
