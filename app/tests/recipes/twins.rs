//! Runs each tutorial's recipe from end to end on the CPU, reduced with `--set` to the quickstart's model and texts and
//! a few steps. Checks the report, training, evaluation, the adapter, and generation.

use std::path::Path;

use serde_json::Value;

use crate::folder::Folder;
use crate::rig::{parse_lines, recipe, set, write_data};
use crate::shapes::Sample;
use crate::walk::{Case, Outcome};

/// The settings that reduce a recipe, and the expected results.
struct Twin {
    recipe: &'static str,
    settings: &'static [&'static str],
    /// The expected number of optimizer steps; 0 skips the check.
    steps: usize,
    /// Texts that the report must contain.
    says: &'static [&'static str],
}

const NO_WARM_UP: &str = "\"constant\" ignores the warm-up";
const F16: &str = "float16 compute without fp16 = true";

const TWINS: [Twin; 4] = [
    Twin {
        recipe: "a-mistral-chat",
        settings: &["select=40", "test_size=8", "eval_strategy=steps", "eval_steps=4", "num_train_epochs=1"],
        steps: 8,
        says: &["train: 32 records, 32 rows", NO_WARM_UP],
    },
    Twin {
        recipe: "b-mixtral-instructions",
        settings: &[
            "max_seq_length=128",
            "per_device_train_batch_size=4",
            "max_steps=6",
            "eval_steps=3",
            "logging_steps=1",
        ],
        steps: 6,
        says: &["packing fills 100.0 % of rows of 128", "`attn_implementation` has no effect here"],
    },
    Twin {
        recipe: "c-mistral-code",
        settings: &["test_size=8", "eval_strategy=steps", "eval_steps=4", "max_steps=8", "logging_steps=2"],
        steps: 8,
        says: &[NO_WARM_UP, F16],
    },
    Twin {
        recipe: "d-llama-korean",
        settings: &[
            "split=train[:20%]",
            "eval_split=test",
            "eval_strategy=epoch",
            "max_seq_length=64",
            "num_train_epochs=2",
            "logging_steps=1",
        ],
        steps: 0,
        says: &["packing fills 100.0 % of rows of 64", F16],
    },
];

pub fn cases(_: &Path) -> Vec<Case> {
    let quickstart = |twin: &'static Twin| {
        Case::new(format!("{} with the quickstart's model", twin.recipe), move || {
            let folder = Folder::empty();
            halfbyte::quickstart::extract(&folder.path("")).map_err(|e| e.to_string())?;
            run(&folder, twin, &[])
        })
    };
    let mut cases: Vec<Case> = TWINS.iter().map(quickstart).collect();
    cases.push(Case::new("b-mixtral-instructions with a random Mixtral", || {
        let folder = Folder::with(MIXTRAL);
        let unmatched =
            ["gate_proj", "up_proj", "down_proj"].map(|name| format!("`{name}` matches no module of this model"));
        run(&folder, &TWINS[1], &unmatched)
    }));
    cases
}

const MIXTRAL: &str = r#"{"model_type": "mixtral", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "num_local_experts": 8, "num_experts_per_tok": 2, "torch_dtype": "float32", "tie_word_embeddings": false, "vocab_size": "#;

/// The training records of the quickstart.
fn samples() -> Vec<Sample> {
    let value = |line: &str| serde_json::from_str(line).expect("JSON");
    halfbyte::quickstart::TRAIN.lines().filter_map(|line| Sample::of(&value(line))).collect()
}

/// Trains `twin` on the model in `folder/model` and checks all its output.
fn run(folder: &Folder, twin: &Twin, notes: &[String]) -> Outcome {
    write_data(folder, twin.recipe, &samples());
    let file = recipe(twin.recipe);
    let common = [
        "model_name_or_path=model",
        "dataset=data",
        "output_dir=out",
        "learning_rate=5e-3",
        "sample_strategy=steps",
        "sample_steps=4",
        "sample_max_new_tokens=3",
    ];
    let command = |name: &'static str| -> Vec<&str> {
        [name, file.as_str()].into_iter().chain(set(&common)).chain(set(twin.settings)).collect()
    };
    let said = folder.run(&command("inspect-data")).fine();
    for words in twin.says.iter().copied().chain(notes.iter().map(String::as_str)) {
        assert!(said.out.contains(words), "{words:?} is not in the report:\n{}", said.out);
    }
    folder.run(&command("train")).fine();
    let metrics = std::fs::read_to_string(folder.path("out/metrics.jsonl")).expect("metrics");
    let metrics = parse_lines(&metrics);
    let of = |key: &str| -> Vec<f64> { metrics.iter().filter_map(|m| m[key].as_f64()).collect() };
    let (losses, evaluated) = (of("loss"), of("eval_loss"));
    assert!(!losses.is_empty() && evaluated.len() >= 2, "{metrics:?}");
    assert!(losses.iter().chain(&evaluated).all(|loss| loss.is_finite()), "{metrics:?}");
    let (first, last) = (evaluated[0], evaluated[evaluated.len() - 1]);
    assert!(last < first, "the evaluation loss does not fall: {evaluated:?}");
    assert!(metrics.iter().any(|m| m["samples"][0]["answer"].is_string()), "no sample answer: {metrics:?}");
    let steps = of("steps").last().copied().unwrap_or(0.0) as usize;
    assert!(twin.steps == 0 || steps == twin.steps, "{steps} steps");
    adapter(folder, twin.recipe);
    let answer =
        ["generate", "model", "--adapter", "out", "--load-in-4bit", "--prompt", "What", "--max-new-tokens", "3"];
    folder.run(&answer).fine();
    Ok(format!("{steps} steps, evaluation loss {first:.3} → {last:.3}"))
}

/// Checks that the adapter is in PEFT's format, with the recipe's settings.
fn adapter(folder: &Folder, name: &str) {
    let config = std::fs::read_to_string(folder.path("out/adapter_config.json")).expect("an adapter");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let said = halfbyte::config::recipe::Recipe::open(Path::new(&recipe(name)), &[]).expect("a recipe").lora;
    assert_eq!(
        (config["r"].as_u64(), config["lora_alpha"].as_f64()),
        (Some(said.r as u64), Some(said.alpha)),
        "{config}"
    );
    assert_eq!(config["base_model_name_or_path"], "model");
    assert!(folder.path("out/adapter_model.safetensors").is_file() && folder.path("out/tokenizer.model").is_file());
}
