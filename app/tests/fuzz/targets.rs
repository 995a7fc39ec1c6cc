//! The fuzz targets: plain functions that read what a stranger may have written. Each accepts or refuses its input; a
//! panic, an execution of more than 10 s, or a use of more than 1 GiB is a finding.

use halfbyte::config::recipe::Recipe;
use halfbyte::config::{config_json, fields::JsonFields};
use halfbyte::data::files;
use halfbyte::data::markup::Literals;
use halfbyte::data::table::Table;
use halfbyte::data::template::{Template, Undefined};
use halfbyte::data::tokenizer_config::TokenizerConfig;
use halfbyte::hub::client::{parse_listing, public, resolve};
use halfbyte::report::{Source, page};
use halfbyte::track::history::History;
use halfbyte::track::{Resumed, RunDescription, Trackers};
use halfbyte::train::checkpoint::Checkpoint;
use halfbyte::weights::adapter::{Adapter, read_config};
use halfbyte::weights::safetensors::TensorFiles;
use halfbyte_core::model::ModelConfig;
use halfbyte_tokenizer::Tokenizer;
use std::path::Path;

/// A target by its name, which is also that of its corpus. `dir` is an empty folder for the files that it needs.
pub struct Target {
    pub name: &'static str,
    pub run: fn(dir: &Path, input: &[u8]),
    /// Whether the input is JSON, so that mutations may keep its structure.
    pub json: bool,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "recipe", run: recipe, json: false },
    Target { name: "config_json", run: config, json: true },
    Target { name: "tokenizer_config", run: tokenizer_config, json: true },
    Target { name: "safetensors", run: safetensors, json: false },
    Target { name: "safetensors_index", run: index, json: true },
    Target { name: "adapter_config", run: adapter_config, json: true },
    Target { name: "adapter_weights", run: adapter_weights, json: false },
    Target { name: "trainer_state", run: trainer_state, json: true },
    Target { name: "checksums", run: checksums, json: true },
    Target { name: "metrics", run: metrics, json: false },
    Target { name: "wandb", run: wandb, json: false },
    Target { name: "template", run: template, json: false },
    Target { name: "jsonl", run: jsonl, json: false },
    Target { name: "json", run: json, json: true },
    Target { name: "csv", run: csv, json: false },
    Target { name: "txt", run: txt, json: false },
    Target { name: "parquet", run: parquet, json: false },
    Target { name: "hub_listing", run: hub_listing, json: true },
    Target { name: "hub_redirect", run: hub_redirect, json: false },
    Target { name: "tokenizer_model", run: tokenizer_model, json: false },
    Target { name: "tokenizer_json", run: tokenizer_json, json: true },
];

/// The model whose adapters are read.
const MODEL: &str = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 64, "vocab_size": 16, "tie_word_embeddings": false}"#;

fn model() -> ModelConfig {
    config_json::parse(MODEL, Path::new("config.json")).expect("a valid config")
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let file = dir.join(name);
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("created");
    std::fs::write(&file, bytes).expect("written");
    file
}

fn recipe(_: &Path, input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(recipe) = Recipe::parse(&text, "recipe.toml", &[]) {
        // The resolved recipe resolves to itself.
        let resolved = recipe.resolved_toml();
        let again = Recipe::parse(&resolved, "resolved.toml", &[]).unwrap_or_else(|e| panic!("{e}\n{resolved}"));
        assert_eq!(again.resolved_toml(), resolved);
        let _ = recipe.apply(model());
    }
    // Any line may also be a `--set`.
    let settings: Vec<String> = text.lines().take(4).map(String::from).collect();
    let _ = Recipe::parse("model_name_or_path = \"m\"", "recipe.toml", &settings);
}

fn config(dir: &Path, input: &[u8]) {
    if let Ok(config) = config_json::open_file(&put(dir, "config.json", input)) {
        // Huge sizes are allowed, so only small models are listed.
        if config.layers <= 8 && config.experts.as_ref().is_none_or(|experts| experts.count <= 8) {
            let _ = halfbyte::weights::names::tensors(&config);
            let _ = halfbyte::weights::names::count(&config, None);
        }
    }
    let _ = JsonFields::parse(&String::from_utf8_lossy(input), Path::new("generation_config.json"));
}

fn tokenizer_config(dir: &Path, input: &[u8]) {
    put(dir, "tokenizer_config.json", input);
    let _ = TokenizerConfig::open(dir);
}

fn read_tensors(files: &TensorFiles) {
    let names: Vec<String> = files.names().map(String::from).collect();
    for tensor in names.iter().filter_map(|name| files.get(name)) {
        let _ = tensor.to_f32();
        let _ = tensor.bytes();
    }
    let _ = files.tensor("model.norm.weight");
}

fn safetensors(dir: &Path, input: &[u8]) {
    if let Ok(files) = TensorFiles::open_file(&put(dir, "model.safetensors", input)) {
        read_tensors(&files);
        let _ = halfbyte::weights::names::check(&files, &model());
        halfbyte::weights::identity::IdentityHasher::default().finish(&files);
    }
}

fn index(dir: &Path, input: &[u8]) {
    put(dir, "model.safetensors.index.json", input);
    // An empty file of tensors.
    put(dir, "a.safetensors", b"\x08\0\0\0\0\0\0\0{}      ");
    if let Ok(files) = TensorFiles::open(dir) {
        read_tensors(&files);
    }
}

fn adapter_config(dir: &Path, input: &[u8]) {
    put(dir, "adapter_config.json", input);
    if let Ok((lora, _)) = read_config(dir) {
        let _ = halfbyte::weights::targets::resolve(&lora, &model());
    }
}

fn adapter_weights(dir: &Path, input: &[u8]) {
    put(dir, "adapter_config.json", br#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}"#);
    put(dir, "adapter_model.safetensors", input);
    let _ = Adapter::open(dir, &model());
}

fn trainer_state(dir: &Path, input: &[u8]) {
    put(dir, "trainer_state.json", input);
    let sums =
        format!(r#"{{"trainer_state.json": {{"bytes": {}, "crc32": {}}}}}"#, input.len(), crc32fast::hash(input));
    put(dir, "checksums.json", sums.as_bytes());
    let _ = Checkpoint::open(dir);
}

fn checksums(dir: &Path, input: &[u8]) {
    put(dir, "run/checkpoint-3/trainer_state.json", b"{}");
    put(dir, "run/checkpoint-3/checksums.json", input);
    let _ = Checkpoint::newest(&dir.join("run"));
}

fn metrics(dir: &Path, input: &[u8]) {
    let file = put(dir, "metrics.jsonl", input);
    let _ = History::open(&file);
    if let Ok(source) = Source::open(dir) {
        let html = page::html(&source);
        assert!(page::is_page(html.as_bytes()));
    }
}

fn wandb(dir: &Path, input: &[u8]) {
    let run = "wandb/offline-run-20260101_000000-abcd1234";
    put(dir, &format!("{run}/run-abcd1234.wandb"), input);
    let text = "model_name_or_path = \"m\"\nreport_to = \"wandb\"\noutput_dir = \"run\"\n";
    let recipe = Recipe::parse(text, "recipe.toml", &[]).expect("a recipe");
    let resolved = recipe.resolved_toml();
    let resumed = Resumed { step: 3, files: vec![dir.join(run)], wandb_bytes: Some(input.len() as u64 / 2) };
    let start = RunDescription { folder: dir, recipe: &resolved, resumed: Some(&resumed) };
    if let Ok(mut trackers) = Trackers::open(&recipe.training, start) {
        trackers.log(&serde_json::json!({"step": 4, "loss": 1.0})).expect("logged");
    }
}

fn template(_: &Path, input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(template) = Template::new(&text, Undefined::Empty, &Literals::default(), None) else { return };
    template.columns();
    let message = |role: &str, content: &str| serde_json::json!({"role": role, "content": content});
    let record = serde_json::json!({
        "messages": [message("system", "be brief"), message("user", "1 + 1?"), message("assistant", "2")],
        "question": "what comes after 1?", "answer": "2", "bos_token": "<s>", "eos_token": "</s>",
        "add_generation_prompt": false, "n": 3, "list": [1, "two", null, {"three": 4.5}],
    });
    let _ = template.render(record);
}

/// Opens the file and reads all of its records.
fn records(dir: &Path, name: &str, input: &[u8]) {
    let Ok(file) = files::open(&put(dir, name, input)) else { return };
    let table = Table::new(vec![file]);
    for row in 0..table.len() {
        let _ = table.record(row);
    }
}

fn jsonl(dir: &Path, input: &[u8]) {
    records(dir, "data.jsonl", input);
}

fn json(dir: &Path, input: &[u8]) {
    records(dir, "data.json", input);
}

fn csv(dir: &Path, input: &[u8]) {
    records(dir, "data.csv", input);
}

fn txt(dir: &Path, input: &[u8]) {
    records(dir, "data.txt", input);
}

fn parquet(dir: &Path, input: &[u8]) {
    records(dir, "data.parquet", input);
}

fn hub_listing(_: &Path, input: &[u8]) {
    if let Ok((commit, files)) = parse_listing(&String::from_utf8_lossy(input)) {
        assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()));
        for file in files {
            let inside = Path::new("/cache").join(&file.name);
            let up = inside.components().any(|part| part.as_os_str() == "..");
            assert!(inside.starts_with("/cache") && !up, "{:?} leaves the folder", file.name);
        }
    }
}

fn hub_redirect(_: &Path, input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let _ = public(&text);
    if let Ok(url) = resolve("https://hub.example/a/b", &text) {
        let encrypted = url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
        assert!(encrypted, "{url} is not encrypted");
    }
}

fn tokenize(tokenizer: &Tokenizer) {
    for text in ["", " ", "Hello  world", "▁a\u{301}ﬁ 가\0😀"] {
        let ids = tokenizer.encode(text);
        let _ = tokenizer.decode(&ids);
    }
}

fn tokenizer_model(dir: &Path, input: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::open(put(dir, "tokenizer.model", input)) {
        tokenize(&tokenizer);
    }
}

fn tokenizer_json(dir: &Path, input: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::open_json(put(dir, "tokenizer.json", input)) {
        tokenize(&tokenizer);
    }
}
