//! The files of the quickstart, a complete fine-tuning run that needs no download.
//!
//! `examples/make_quickstart` generates model, tokenizer and rows; `assets/quickstart` contains them. [`extract`]
//! writes them to a folder as ordinary files, so that the quickstart runs the code of `train`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::write::{is_there, write_new};
use halfbyte_core::error::{Error, Result};
use serde::Deserialize;

/// The files of the base model: names and contents.
const MODEL: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../assets/quickstart/config.json")),
    ("model.safetensors", include_bytes!("../assets/quickstart/model.safetensors")),
    ("tokenizer.model", include_bytes!("../assets/quickstart/tokenizer.model")),
    ("tokenizer_config.json", include_bytes!("../assets/quickstart/tokenizer_config.json")),
];

const RECIPE: &str = include_str!("../assets/quickstart/recipe.toml");

/// The training rows: one [`Task`] per line.
pub const TRAIN: &str = include_str!("../assets/quickstart/train.jsonl");

/// Rows of the same kinds that are not in the training data.
const HELD_OUT: &str = include_str!("../assets/quickstart/held_out.jsonl");

/// One row of the instruction set, with the column names of Alpaca.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Task {
    /// The question.
    pub instruction: String,
    /// The text that the question refers to; may be empty.
    pub input: String,
    /// The answer.
    pub output: String,
}

impl Task {
    /// The prompt that the recipe's template makes of the question. As in transformers, the newline after a block of
    /// the template is not part of the text.
    pub fn prompt(&self) -> String {
        let Task { instruction, input, .. } = self;
        let input = if input.is_empty() { String::new() } else { format!("### Input: {input}") };
        format!("### Question: {instruction}{input}### Answer:")
    }
}

/// The files that [`extract`] wrote.
pub struct Extracted {
    /// The recipe, which contains the paths of the other files.
    pub recipe: PathBuf,
    /// The held-out rows.
    pub held_out: Vec<Task>,
}

/// Writes model, data and recipe to `folder`. Errors if a file exists with other contents; nothing is overwritten.
pub fn extract(folder: &Path) -> Result<Extracted> {
    let model = folder.join("model");
    fs::create_dir_all(&model).map_err(|e| Error::io("create", &model, e))?;
    for (name, bytes) in MODEL {
        put(&model.join(name), bytes)?;
    }
    put(&folder.join("train.jsonl"), TRAIN.as_bytes())?;
    put(&folder.join("held_out.jsonl"), HELD_OUT.as_bytes())?;
    let recipe = folder.join("recipe.toml");
    put(&recipe, recipe_text(folder)?.as_bytes())?;
    Ok(Extracted { recipe, held_out: held_out()? })
}

/// Words that select the questions of the table.
const SHOWN: [&str; 10] = [
    "opposite of",
    "plural of",
    "colour is",
    "day comes",
    "How much",
    "kind",
    "Who has",
    "Where is",
    "first",
    "backwards",
];

/// The rows of `held_out` for the table: the first match of each of `SHOWN`.
pub fn examples(held_out: &[Task]) -> Vec<Task> {
    SHOWN.iter().filter_map(|words| held_out.iter().find(|task| task.instruction.contains(words))).cloned().collect()
}

/// The recipe for files in `folder`.
fn recipe_text(folder: &Path) -> Result<String> {
    // A backslash begins an escape in a TOML string, and Windows accepts slashes.
    let name = folder.to_str().map(|name| name.replace('\\', "/")).filter(|name| !name.contains(['"', '\n']));
    let name = name.ok_or_else(|| Error::usage(format!("{}: a recipe cannot contain this name", folder.display())))?;
    Ok(RECIPE.replace("{folder}", &name))
}

fn held_out() -> Result<Vec<Task>> {
    let rows: serde_json::Result<Vec<Task>> = HELD_OUT.lines().map(serde_json::from_str).collect();
    rows.map_err(|e| Error::system(format!("the embedded held_out.jsonl is damaged: {e}")))
}

/// Writes `bytes` to `file` atomically. Errors if the file exists with other contents.
fn put(file: &Path, bytes: &[u8]) -> Result<()> {
    if is_there(file) {
        let there = fs::read(file).map_err(|e| Error::io("read", file, e))?;
        return if there == bytes { Ok(()) } else { Err(foreign(file)) };
    }
    write_new(file, bytes)
}

fn foreign(file: &Path) -> Error {
    Error::input(format!("{} exists and is not the quickstart's file", file.display()))
        .hint("give another folder: halfbyte quickstart --output NAME")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::recipe::Recipe;
    use crate::data::markup::{Literals, TRAINED};
    use crate::data::template::{Template, Undefined};
    use crate::weights::names::{check, count};
    use crate::weights::safetensors::TensorFiles;
    use halfbyte_tokenizer::Tokenizer;
    use serde_json::json;

    #[test]
    fn the_folder_is_a_model_with_a_recipe_and_can_be_extracted_twice() {
        let folder = tempfile::tempdir().unwrap();
        extract(folder.path()).unwrap();
        let extracted = extract(folder.path()).unwrap();
        let recipe = Recipe::open(&extracted.recipe, &[]).unwrap();
        assert!(recipe.quantization.is_some() && recipe.data.packing && recipe.data.has_eval());

        let model = folder.path().join("model");
        let config = crate::config::config_json::open(&model).unwrap();
        check(&TensorFiles::open(&model).unwrap(), &config).unwrap();
        assert!(count(&config, None).parameters <= 1_000_000);
        assert_eq!(config.head_dim, 64);
        assert!([config.hidden_size, config.intermediate_size, config.vocab_size].iter().all(|width| width % 64 == 0));
        assert_eq!(Tokenizer::open(model.join("tokenizer.model")).unwrap().vocab_size(), config.vocab_size);
    }

    #[test]
    fn a_prompt_is_the_text_that_was_trained_on_up_to_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        let extracted = extract(folder.path()).unwrap();
        let template = Recipe::open(&extracted.recipe, &[]).unwrap().data.template.unwrap();
        let template = Template::new(&template, Undefined::Refused, &Literals::default(), None).unwrap();
        for task in &extracted.held_out {
            let fields = json!({"instruction": task.instruction, "input": task.input, "output": task.output});
            let text = template.render(fields).unwrap();
            assert!(text.starts_with(&(task.prompt() + &TRAINED.to_string())), "{text}");
        }
    }

    #[test]
    fn a_foreign_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("train.jsonl");
        fs::write(&mine, "mine").unwrap();
        assert!(extract(folder.path()).is_err_and(|e| e.to_string().contains("not the quickstart's file")));
        assert_eq!(fs::read_to_string(mine).unwrap(), "mine");
    }

    #[test]
    fn everything_together_is_small() {
        let embedded: usize = MODEL.iter().map(|(_, bytes)| bytes.len()).sum();
        let data = TRAIN.len() + HELD_OUT.len();
        assert!(embedded + data < 6_000_000);
    }
}
