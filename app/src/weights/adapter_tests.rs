//! Tests of [`super`].

use super::*;
use crate::weights::safetensors::tests::Folder;

fn model() -> ModelConfig {
    let text = r#"{"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}"#;
    crate::config::config_json::parse(text, Path::new("config.json")).expect("valid")
}

/// An adapter of `config` whose elements are all different.
fn adapter(config: LoraConfig) -> Adapter {
    let modules = resolve(&config, &model()).expect("targets match").modules;
    let numbers = |n: usize, start: f32| (0..n).map(|i| start + i as f32 * 0.01).collect();
    let weights = modules.iter().map(|m| LoraWeights {
        a: numbers(m.r * m.module.in_features, 1.0),
        b: numbers(m.r * m.module.out_features, -1.0),
    });
    let weights = weights.collect();
    Adapter { config, base_model: Some("some/model".into()), modules, weights, head: None }
}

fn matching(names: &[&str]) -> Targets {
    Targets::Matching(Pattern::Names(names.iter().map(|n| n.to_string()).collect()))
}

/// The error of `Adapter::open` after `change` was set to `value` in adapter_config.json.
fn after(folder: &Folder, change: &str, value: Value) -> String {
    adapter(LoraConfig::default()).save(&folder.0, None).expect("saved");
    let file = folder.0.join(CONFIG);
    let mut fields: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("there")).expect("JSON");
    fields[change] = value;
    std::fs::write(&file, fields.to_string()).expect("writable");
    Adapter::open(&folder.0, &model()).map_or_else(|e| e.to_string(), |_| "accepted".into())
}

#[test]
fn what_is_saved_is_read_back() {
    let folder = Folder::new("adapter");
    let config = LoraConfig {
        r: 4,
        alpha: 16.0,
        dropout: 0.05,
        rslora: true,
        targets: matching(&["q_proj", "down_proj"]),
        exclude: Some(Pattern::Regex(r".*layers\.0\.mlp.*".into())),
        layers: Some(vec![0, 1]),
        layers_pattern: LayersPattern::Name("layers".into()),
        rank_pattern: vec![("layers.1.self_attn.q_proj".into(), 2), ("down_proj".into(), 3)],
        alpha_pattern: vec![("q_proj".into(), 0.5)],
    };
    let saved = adapter(config);
    saved.save(&folder.0, None).expect("saved");
    assert_eq!(Adapter::open(&folder.0, &model()).expect("valid"), saved);
    // A text stays a text, and a list stays a list.
    let pattern = || JsonFields::open(&folder.0.join(CONFIG)).expect("JSON").get("layers_pattern").cloned();
    assert_eq!(pattern(), Some(json!("layers")));
    let list = LayersPattern::Names(vec!["layers".into()]);
    Adapter { config: LoraConfig { layers_pattern: list, ..saved.config.clone() }, ..saved.clone() }
        .save(&folder.0, None)
        .expect("saved");
    assert_eq!(pattern(), Some(json!(["layers"])));
}

#[test]
fn the_written_config_has_the_fields_of_peft() {
    let folder = Folder::new("adapter-fields");
    let all = adapter(LoraConfig { targets: Targets::AllLinear, ..LoraConfig::default() });
    all.save(&folder.0, None).expect("saved");
    let fields = JsonFields::open(&folder.0.join(CONFIG)).expect("JSON");
    let leaves = json!(["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]);
    assert_eq!(fields.get("target_modules"), Some(&leaves));
    let constants = [
        ("peft_type", json!("LORA")),
        ("task_type", json!("CAUSAL_LM")),
        ("bias", json!("none")),
        ("init_lora_weights", json!(true)),
        ("lora_alpha", json!(8)),
        ("use_dora", json!(false)),
    ];
    for (key, value) in constants {
        assert_eq!(fields.get(key), Some(&value), "{key}");
    }
    let mut sorted: Vec<&String> = fields.map.keys().collect();
    sorted.sort();
    assert_eq!(fields.map.keys().collect::<Vec<_>>(), sorted);
}

#[test]
fn the_head_is_stored_with_its_base_weight() {
    let folder = Folder::new("adapter-head");
    let values: Vec<f32> = (0..32 * 16).map(|i| i as f32).collect();
    let file = folder.0.join("model.safetensors");
    write(&file, &[Output::floats("lm_head.weight".into(), DType::F32, vec![32, 16], &values)]).expect("written");
    let checkpoint = TensorFiles::open(&folder.0).expect("valid");
    let head = checkpoint.tensor("lm_head.weight").expect("there");
    let saved = adapter(LoraConfig { targets: matching(&["lm_head"]), ..LoraConfig::default() });
    saved.save(&folder.0, Some(&head)).expect("saved");
    let mut read = Adapter::open(&folder.0, &model()).expect("valid");
    assert_eq!(read.head.as_ref(), Some(&values));
    read.check_head(&checkpoint, &model()).expect("the same head");
    read.head.as_mut().expect("there")[5] = 0.5;
    assert!(read.check_head(&checkpoint, &model()).is_err());
}

#[test]
fn fields_that_we_lack_are_refused_by_name() {
    let folder = Folder::new("adapter-refused");
    let refused = [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["embed_tokens"])),
        ("target_parameters", json!(["mlp.experts.gate_up_proj"])),
        ("peft_type", json!("IA3")),
        ("task_type", json!("SEQ_CLS")),
        ("init_lora_weights", json!("pissa")),
        ("layer_replication", json!([[0, 1]])),
        ("trainable_token_indices", json!([3])),
        ("lora_bias", json!(true)),
        ("use_bdlora", json!(true)),
        ("r", json!(0)),
        ("r", json!("8")),
        ("rank_pattern", json!({"q_proj": "x"})),
        ("target_modules", json!(7)),
    ];
    for (key, value) in refused {
        let name = if key == "rank_pattern" { "q_proj" } else { key };
        let message = after(&folder, key, value.clone());
        assert!(message.contains(&format!("`{name}`")) && message.contains(CONFIG), "{key} {value}: {message}");
    }
    for (key, value) in [("inference_mode", json!(false)), ("use_bdlora", json!(null)), ("modules_to_save", json!([]))]
    {
        assert_eq!(after(&folder, key, value), "accepted", "{key}");
    }
}

#[test]
fn tensors_must_fit_the_config() {
    let folder = Folder::new("adapter-tensors");
    let rank = after(&folder, "r", json!(4));
    assert!(rank.contains("lora_A") && rank.contains("[8, 16]") && rank.contains("[4, 16]"), "{rank}");
    let missing = after(&folder, "target_modules", json!(["q_proj", "v_proj", "k_proj"]));
    assert!(missing.contains("k_proj") && missing.contains("missing"), "{missing}");
    let extra = after(&folder, "target_modules", json!(["q_proj"]));
    assert!(extra.contains("v_proj") && extra.contains("unexpected"), "{extra}");
    std::fs::remove_file(folder.0.join(WEIGHTS)).expect("there");
    let gone = Adapter::open(&folder.0, &model()).expect_err("no weights").to_string();
    assert!(gone.contains(WEIGHTS), "{gone}");
    std::fs::remove_file(folder.0.join(CONFIG)).expect("there");
    assert!(Adapter::open(&folder.0, &model()).expect_err("no config").to_string().contains(CONFIG));
}
