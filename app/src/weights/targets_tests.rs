//! Tests of [`super`].

use super::*;
use crate::config::lora::LayersPattern;
use std::path::Path;

fn model(family: &str) -> ModelConfig {
    let text = format!(
        r#"{{"model_type": "{family}", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}}"#
    );
    crate::config::config_json::parse(&text, Path::new("config.json")).expect("valid")
}

fn named(names: &[&str]) -> LoraConfig {
    let names = names.iter().map(|n| n.to_string()).collect();
    LoraConfig { targets: Targets::Matching(Pattern::Names(names)), ..LoraConfig::default() }
}

fn regex(regex: &str) -> LoraConfig {
    LoraConfig { targets: Targets::Matching(Pattern::Regex(regex.into())), ..LoraConfig::default() }
}

fn adapted(lora: &LoraConfig, family: &str) -> Vec<String> {
    let found = resolve(lora, &model(family)).expect("targets match");
    found.modules.into_iter().map(|m| m.module.name).collect()
}

#[test]
fn names_match_whole_last_parts() {
    assert_eq!(adapted(&LoraConfig::default(), "llama").len(), 3 * 2);
    assert_eq!(adapted(&named(&["gate"]), "mixtral").len(), 3, "the router, not gate_proj");
    assert_eq!(adapted(&named(&["w1"]), "mixtral").len(), 3 * 8);
    assert_eq!(adapted(&named(&["experts.3.w1"]), "mixtral").len(), 3);
    assert_eq!(adapted(&named(&["lm_head", "model.layers.1.self_attn.q_proj"]), "llama").len(), 2);
}

#[test]
fn models_without_a_default_must_name_their_targets() {
    assert_eq!(adapted(&LoraConfig::default(), "qwen3").len(), 3 * 2);
    let error = resolve(&LoraConfig::default(), &model("qwen3_moe")).expect_err("PEFT raises").to_string();
    assert!(error.contains("target_modules") && error.contains("gate_proj"), "{error}");
    assert_eq!(adapted(&named(&["gate"]), "qwen3_moe").len(), 3);
    assert_eq!(adapted(&named(&["gate_proj"]), "qwen3_moe").len(), 3 * 128);
    let found = resolve(&named(&["q_proj", "w3"]), &model("qwen3_moe")).expect("attention matches");
    assert_eq!(found.unmatched, [("w3".to_string(), vec!["up_proj".to_string()])]);
}

#[test]
fn all_linear_leaves_out_the_head() {
    let all = LoraConfig { targets: Targets::AllLinear, ..LoraConfig::default() };
    assert_eq!(adapted(&all, "llama").len(), 3 * 7);
    assert_eq!(adapted(&all, "mixtral").len(), 3 * (4 + 1 + 8 * 3));
    assert!(!adapted(&all, "mixtral").contains(&"lm_head".to_string()));
}

#[test]
fn expressions_match_the_whole_name() {
    assert_eq!(adapted(&regex(r".*\.[qv]_proj"), "llama").len(), 6);
    assert_eq!(adapted(&regex(r"model\.layers\.[01]\.self_attn\.q_proj"), "llama").len(), 2);
    let error = resolve(&regex("q_proj"), &model("llama")).expect_err("not a whole name").to_string();
    assert!(error.contains("[\"q_proj\"]"), "{error}");
    let error = resolve(&regex("(?!x)q"), &model("llama")).expect_err("look-ahead").to_string();
    assert!(error.contains("target_modules") && error.contains("look-around"), "{error}");
}

#[test]
fn names_without_a_module_come_with_a_suggestion() {
    let usual = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"];
    let found = resolve(&named(&usual), &model("mixtral")).expect("attention matches");
    assert_eq!(found.modules.len(), 3 * 4 + 1);
    let missed: Vec<(&str, &str)> = found.unmatched.iter().map(|(n, near)| (n.as_str(), near[0].as_str())).collect();
    assert_eq!(missed, [("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")]);
    let error = resolve(&named(&["q_pro", "color"]), &model("llama")).expect_err("none matches").to_string();
    assert!(error.contains("q_pro (perhaps q_proj?), color") && error.contains("down_proj, lm_head"), "{error}");
}

#[test]
fn layers_are_chosen_as_in_peft() {
    let layers = |names: &[&str], pattern: &[&str], layers: &[usize]| LoraConfig {
        layers: Some(layers.to_vec()),
        layers_pattern: LayersPattern::Names(pattern.iter().map(|p| p.to_string()).collect()),
        ..named(names)
    };
    assert_eq!(adapted(&layers(&["q_proj"], &[], &[0, 2]), "llama").len(), 2);
    assert_eq!(adapted(&layers(&["q_proj", "lm_head"], &[], &[1]), "llama").len(), 2, "lm_head is named in full");
    // Without a pattern the last number counts, which is the expert's.
    let experts = adapted(&layers(&["w1"], &[], &[2]), "mixtral");
    assert!(experts.len() == 3 && experts.iter().all(|n| n.contains("experts.2.")), "{experts:?}");
    let blocks = adapted(&layers(&["w1"], &["layers"], &[2]), "mixtral");
    assert!(blocks.len() == 8 && blocks.iter().all(|n| n.contains("layers.2.")), "{blocks:?}");
    assert!(resolve(&layers(&["q_proj"], &[], &[7]), &model("llama")).is_err());
}

#[test]
fn patterns_override_rank_and_alpha_and_the_first_match_counts() {
    let lora = LoraConfig {
        r: 8,
        alpha: 16.0,
        rank_pattern: vec![("model.layers.0.self_attn.q_proj".into(), 2), ("q_proj".into(), 4)],
        alpha_pattern: vec![("[qk]_proj".into(), 32.0)],
        ..named(&["q_proj", "v_proj"])
    };
    let found = resolve(&lora, &model("llama")).expect("matches");
    let constants: Vec<(usize, f64, f64)> = found.modules.iter().map(|m| (m.r, m.alpha, m.scale)).collect();
    assert_eq!(constants[..4], [(2, 32.0, 16.0), (8, 16.0, 2.0), (4, 32.0, 8.0), (8, 16.0, 2.0)]);
    assert_eq!(found.modules[0].parameters(), 2 * (16 + 16));
    let rslora = resolve(&LoraConfig { r: 16, alpha: 8.0, rslora: true, ..named(&["q_proj"]) }, &model("llama"));
    assert_eq!(rslora.expect("matches").modules[0].scale, 2.0);
}

#[test]
fn modules_can_be_excluded_and_embeddings_are_refused() {
    let without = |exclude| LoraConfig { exclude: Some(exclude), ..named(&["q_proj", "k_proj"]) };
    assert_eq!(adapted(&without(Pattern::Names(vec!["k_proj".into()])), "llama").len(), 3);
    assert_eq!(adapted(&without(Pattern::Regex(r".*layers\.0.*".into())), "llama").len(), 4);
    for lora in [named(&["q_proj", "embed_tokens"]), regex(".*")] {
        let error = resolve(&lora, &model("llama")).expect_err("embeddings").to_string();
        assert!(error.contains("embed_tokens"), "{error}");
    }
    // PEFT 0.18.1 raises "Target module SiLUActivation() is not supported" for the first, and likewise for the others.
    let others = [
        (regex(r".*\.layers\.1\.mlp\..*"), "llama", "model.layers.1.mlp.act_fn"),
        (regex(r".*self_attn.*"), "llama", "model.layers.0.self_attn"),
        (regex(r".*experts\.0\..*"), "mixtral", "experts.0.act_fn"),
        (named(&["q_proj", "mlp"]), "llama", "model.layers.0.mlp"),
        (named(&["q_proj", "rotary_emb"]), "llama", "model.rotary_emb"),
        (regex(r"model\.layers\.2\..*norm|.*q_proj"), "mistral", "model.layers.2.input_layernorm"),
    ];
    for (lora, family, module) in others {
        let error = resolve(&lora, &model(family)).expect_err(module).to_string();
        assert!(error.contains(module) && error.contains("PEFT refuses"), "{error}");
    }
    let without = Some(Pattern::Names(vec!["act_fn".into()]));
    assert_eq!(adapted(&LoraConfig { exclude: without, ..regex(r".*\.layers\.1\.mlp\..*") }, "llama").len(), 3);
    let none = LoraConfig { r: 0, ..LoraConfig::default() };
    assert!(resolve(&none, &model("llama")).is_err());
}
