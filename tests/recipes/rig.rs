//! Recipes, models and records, put into a temporary folder for the program.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::folder::{Folder, Said};
use crate::shapes::Sample;

/// The recipes that follow a tutorial, with the real model of each as a folder of tests/data/configs.
pub const TUTORIALS: [(&str, &str); 4] = [
    ("a-mistral-chat", "mistral-7b-v0.1"),
    ("b-mixtral-instructions", "mixtral-8x7b-v0.1"),
    ("c-mistral-code", "mistral-7b-v0.1"),
    ("d-llama-korean", "llama-2-7b"),
];

/// The path of a recipe of docs/recipes.
pub fn recipe(name: &str) -> String {
    project().join(format!("docs/recipes/{name}.toml")).display().to_string()
}

/// The project's root.
pub fn project() -> PathBuf {
    std::env::current_dir().expect("the project's root, where cargo runs tests")
}

/// `key=value` settings as arguments.
pub fn set<'a>(settings: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    settings.iter().flat_map(|setting| ["--set", setting])
}

/// Runs `command` on the recipe called `name` in `folder`, with settings laid over it and more arguments.
pub fn run(folder: &Folder, command: &str, name: &str, settings: &[&str], more: &[&str]) -> Said {
    let recipe = recipe(name);
    let args: Vec<&str> = [command, &recipe].into_iter().chain(set(settings)).chain(more.iter().copied()).collect();
    folder.run(&args)
}

/// The JSON that a successful command prints.
pub fn json(said: Said) -> Value {
    let said = said.fine();
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.out))
}

/// A JSON object a line.
pub fn lines<'a>(records: impl IntoIterator<Item = &'a Value>) -> String {
    records.into_iter().map(|record| format!("{record}\n")).collect()
}

/// The records of a JSONL text.
pub fn parse_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Writes `samples` to the folder `data` in the columns that the recipe called `name` expects: every tenth is the split
/// `test`, the others are `train`.
pub fn write_data(folder: &Folder, name: &str, samples: &[Sample]) {
    let records: Vec<Value> = samples.iter().map(|sample| sample.record(name)).collect();
    let part = |test: bool| lines(records.iter().enumerate().filter(|(i, _)| (i % 10 == 9) == test).map(|(_, r)| r));
    folder.text("data/train.jsonl", &part(false));
    folder.text("data/test.jsonl", &part(true));
}

/// Puts the config.json of a real model, and a tokenizer, into the folder `model`.
pub fn write_real_config(folder: &Folder, model: &str, tokenizer: &Path) {
    let config = std::fs::read_to_string(project().join("tests/data/configs").join(model).join("config.json"));
    folder.text("model/config.json", &config.expect("a config"));
    for name in ["tokenizer.model", "tokenizer_config.json"] {
        let from = tokenizer.join(name);
        if from.is_file() {
            std::fs::copy(from, folder.path("model").join(name)).expect("copied");
        }
    }
}
