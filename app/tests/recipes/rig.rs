//! Fixtures of the recipe tests: recipes, records, and runs of the program in a temporary folder.

use serde_json::Value;

use crate::folder::{Folder, Said};
use crate::project::project;
use crate::shapes::Sample;

/// The recipes that follow a tutorial.
pub const TUTORIALS: [&str; 4] = ["a-mistral-chat", "b-mixtral-instructions", "c-mistral-code", "d-llama-korean"];

/// The path of a recipe of docs/recipes.
pub fn recipe(name: &str) -> String {
    project().join(format!("docs/recipes/{name}.toml")).display().to_string()
}

/// Turns `key=value` settings into `--set` arguments.
pub fn set<'a>(settings: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    settings.iter().flat_map(|setting| ["--set", setting])
}

/// Runs `command` in `folder` on the recipe called `name`, with `--set` settings and more arguments.
pub fn run(folder: &Folder, command: &str, name: &str, settings: &[&str], more: &[&str]) -> Said {
    let recipe = recipe(name);
    let args: Vec<&str> = [command, &recipe].into_iter().chain(set(settings)).chain(more.iter().copied()).collect();
    folder.run(&args)
}

/// Parses the JSON that a successful command printed.
pub fn json(said: Said) -> Value {
    let said = said.fine();
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.out))
}

/// Formats the values as JSON lines.
pub fn lines<'a>(records: impl IntoIterator<Item = &'a Value>) -> String {
    records.into_iter().map(|record| format!("{record}\n")).collect()
}

/// Parses the records of a JSONL text.
pub fn parse_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Writes `samples` to the folder `data`, in the columns that the recipe called `name` expects. Every tenth sample goes
/// to the split `test`, the others to `train`.
pub fn write_data(folder: &Folder, name: &str, samples: &[Sample]) {
    let records: Vec<Value> = samples.iter().map(|sample| sample.record(name)).collect();
    let part = |test: bool| lines(records.iter().enumerate().filter(|(i, _)| (i % 10 == 9) == test).map(|(_, r)| r));
    folder.text("data/train.jsonl", &part(false));
    folder.text("data/test.jsonl", &part(true));
}
