//! Tests with the folders of `HALFBYTE_DATA`. Every tutorial's recipe prepares every data set in `datasets` that has
//! instructions or dialogs, with every tokenizer that fits its full-size model. Every tutorial's recipe trains every
//! model in `models` for a few steps.

use std::path::{Path, PathBuf};

use crate::folder::Folder;
use crate::rig::{TUTORIALS, json, parse_lines, recipe, run, set, write_data};
use crate::shapes::Sample;
use crate::walk::{Case, Outcome};

/// The sorted entries of a folder; none if the folder does not exist.
fn entries(folder: PathBuf) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The data sets by name, with their files.
fn data_sets(root: &Path) -> Vec<(String, PathBuf)> {
    let sets = entries(root.join("datasets")).into_iter().filter(|p| p.extension().is_some_and(|e| e == "jsonl"));
    sets.map(|path| (name(&path), path)).collect()
}

fn samples(path: &Path) -> Result<Vec<Sample>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let samples: Vec<Sample> = parse_lines(&text).iter().filter_map(Sample::of).collect();
    if samples.is_empty() { Err(format!("{}: no instruction, no dialog", path.display())) } else { Ok(samples) }
}

/// One case for every recipe, tokenizer and data set, with the full-size model.
pub fn data(root: &Path) -> Vec<Case> {
    let tokenizers = entries(root.join("tokenizers")).into_iter().filter(|t| t.join("tokenizer.model").is_file());
    let tokenizers: Vec<PathBuf> = tokenizers.collect();
    let mut cases = Vec::new();
    for recipe in TUTORIALS {
        for tokenizer in &tokenizers {
            for (set, path) in data_sets(root) {
                let tokenizer = tokenizer.clone();
                let called = format!("{recipe}, {set}, {}", name(&tokenizer));
                cases.push(Case::new(called, move || prepare(recipe, &tokenizer, &path)));
            }
        }
    }
    cases
}

fn prepare(recipe: &str, tokenizer: &Path, data: &Path) -> Outcome {
    let folder = Folder::empty();
    let samples = samples(data)?;
    write_data(&folder, recipe, &samples);
    let all = format!("select={}", samples.len().min(1000) * 9 / 10);
    let tokenizer = format!("tokenizer_name_or_path={}", tokenizer.display());
    let mut settings = vec![&*tokenizer, "dataset=data"];
    if recipe == "a-mistral-chat" {
        settings.push(&all);
    }
    if recipe == "d-llama-korean" {
        // A tenth of these few records would not fill a packed row.
        settings.push("split=train");
    }
    let said = run(&folder, "inspect-data", recipe, &settings, &["--dummy-weights", "--json"]);
    if said.code == Some(3) && said.err.contains("the tokenizer has") {
        said.refused(3, &["does not belong to this model"]);
        return Ok("this tokenizer is larger than the model's embedding: refused".into());
    }
    let report = json(said);
    let train = &report["train"];
    if train["untrained"] != 0 || train["trained"] == 0 || train["double_bos"] != 0 || train["missing_eos"] != 0 {
        return Err(train.to_string());
    }
    Ok(format!("{} records, {} rows, {} steps", train["records"], train["rows"], train["steps"]))
}

/// One case for every recipe and model. The data sets take turns.
pub fn models(root: &Path) -> Vec<Case> {
    let models = entries(root.join("models"))
        .into_iter()
        .filter(|m| ["config.json", "model.safetensors", "tokenizer.model"].iter().all(|file| m.join(file).is_file()));
    let models: Vec<PathBuf> = models.collect();
    let sets = data_sets(root);
    let mut cases = Vec::new();
    if sets.is_empty() {
        return cases;
    }
    for (r, recipe) in TUTORIALS.into_iter().enumerate() {
        for (m, model) in models.iter().enumerate() {
            let (set, path) = sets[(r * models.len() + m) % sets.len()].clone();
            let model = model.clone();
            let called = format!("{recipe}, {}, {set}", name(&model));
            cases.push(Case::new(called, move || train(recipe, &model, &path)));
        }
    }
    cases
}

fn train(name: &str, model: &Path, data: &Path) -> Outcome {
    let folder = Folder::empty();
    write_data(&folder, name, &samples(data)?);
    let place = format!("model_name_or_path={}", model.display());
    let mut settings = vec![&*place, "dataset=data", "output_dir=out", "max_steps=3", "logging_steps=1"];
    settings.extend(["max_seq_length=128", "per_device_train_batch_size=2", "max_eval_samples=4"]);
    settings.extend([
        "eval_split=test",
        "eval_strategy=steps",
        "eval_steps=2",
        "learning_rate=1e-3",
        "sample_max_new_tokens=3",
    ]);
    if name == "a-mistral-chat" {
        settings.push("select=100");
    }
    let file = recipe(name);
    let args: Vec<&str> = ["train", &file].into_iter().chain(set(&settings)).collect();
    folder.run(&args).fine();
    let metrics = std::fs::read_to_string(folder.path("out/metrics.jsonl")).map_err(|e| e.to_string())?;
    let losses: Vec<f64> = parse_lines(&metrics).iter().filter_map(|m| m["eval_loss"].as_f64()).collect();
    if losses.len() < 2 || losses.iter().any(|loss| !loss.is_finite()) || losses[losses.len() - 1] >= losses[0] {
        return Err(format!("the evaluation loss does not fall: {losses:?}"));
    }
    Ok(format!("evaluation loss {:.3} → {:.3}", losses[0], losses[losses.len() - 1]))
}
