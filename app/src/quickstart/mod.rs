//! The quickstart: a complete fine-tuning run that needs no download.
//!
//! Model, tokenizer and texts are the project's own. [`world`] holds what there is, [`prose`] writes the text that the
//! base model was made from (`examples/make_quickstart.rs`), [`tasks`](mod@tasks) the instruction set that it is
//! fine-tuned on. [`extract`] puts all of it into a folder as files like any user's, for the code of `train`.

pub mod prose;
pub mod tasks;
pub mod world;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use halfbyte_core::error::{Error, Result};
use tasks::{Task, tasks};

/// The base model's folder: names and contents.
const MODEL: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../../assets/quickstart/config.json")),
    ("model.safetensors", include_bytes!("../../assets/quickstart/model.safetensors")),
    ("tokenizer.model", include_bytes!("../../assets/quickstart/tokenizer.model")),
    ("tokenizer_config.json", include_bytes!("../../assets/quickstart/tokenizer_config.json")),
];

const RECIPE: &str = include_str!("recipe.toml");

/// What [`extract`] has written.
pub struct Extracted {
    /// The recipe, whose paths are those of the other files.
    pub recipe: PathBuf,
    /// The held-out rows.
    pub held_out: Vec<Task>,
}

/// Writes model, data and recipe to `folder`. Files that are there already must be the same: no other is overwritten.
pub fn extract(folder: &Path) -> Result<Extracted> {
    let model = folder.join("model");
    fs::create_dir_all(&model).map_err(|e| Error::io("create", &model, e))?;
    for (name, bytes) in MODEL {
        put(&model.join(name), bytes)?;
    }
    let rows = tasks();
    put(&folder.join("train.jsonl"), jsonl(&rows.train)?.as_bytes())?;
    put(&folder.join("held_out.jsonl"), jsonl(&rows.held_out)?.as_bytes())?;
    let recipe = folder.join("recipe.toml");
    put(&recipe, recipe_text(folder)?.as_bytes())?;
    Ok(Extracted { recipe, held_out: rows.held_out })
}

/// Words of the instructions that are worth showing.
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

/// Rows of `held_out` to show, one for each of `SHOWN`.
pub fn examples(held_out: &[Task]) -> Vec<Task> {
    SHOWN.iter().filter_map(|words| held_out.iter().find(|task| task.instruction.contains(words))).cloned().collect()
}

/// The recipe for files in `folder`.
fn recipe_text(folder: &Path) -> Result<String> {
    // Into a TOML string: a backslash would begin an escape there, and Windows takes slashes as well.
    let name = folder.to_str().map(|name| name.replace('\\', "/")).filter(|name| !name.contains(['"', '\n']));
    let name = name.ok_or_else(|| Error::usage(format!("{}: this name cannot stand in a recipe", folder.display())))?;
    Ok(RECIPE.replace("{folder}", &name))
}

fn jsonl(rows: &[Task]) -> Result<String> {
    let lines: serde_json::Result<Vec<String>> = rows.iter().map(serde_json::to_string).collect();
    let lines = lines.map_err(|e| Error::system(format!("cannot write a row as JSON: {e}")))?;
    Ok(lines.join("\n") + "\n")
}

/// Writes `bytes` to `file`, whole or not at all; another file of that name stays, and is an error.
fn put(file: &Path, bytes: &[u8]) -> Result<()> {
    if file.exists() {
        let there = fs::read(file).map_err(|e| Error::io("read", file, e))?;
        return if there == bytes { Ok(()) } else { Err(foreign(file)) };
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    let failed = |e| Error::io("write", file, e);
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    temporary.write_all(bytes).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist_noclobber(file).map_err(|e| failed(e.error))?;
    Ok(())
}

fn foreign(file: &Path) -> Error {
    Error::input(format!("{} exists and is not the quickstart's file", file.display()))
        .hint("give another folder: halfbyte quickstart --output NAME")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::recipe::Recipe;
    use crate::weights::names::{check, count};
    use crate::weights::safetensors::Checkpoint;
    use halfbyte_tokenizer::Tokenizer;

    #[test]
    fn the_folder_is_a_model_with_a_recipe_and_can_be_extracted_twice() {
        let folder = tempfile::tempdir().unwrap();
        extract(folder.path()).unwrap();
        let extracted = extract(folder.path()).unwrap();
        let recipe = Recipe::open(&extracted.recipe, &[]).unwrap();
        assert!(recipe.quantization.is_some() && recipe.data.packing && recipe.data.has_eval());

        let model = folder.path().join("model");
        let config = crate::config::config_json::open(&model).unwrap();
        check(&Checkpoint::open(&model).unwrap(), &config).unwrap();
        assert!(count(&config, None).parameters <= 1_000_000);
        assert_eq!(config.head_dim, 64);
        assert!([config.hidden_size, config.intermediate_size, config.vocab_size].iter().all(|width| width % 64 == 0));
        assert_eq!(Tokenizer::open(model.join("tokenizer.model")).unwrap().vocab_size(), config.vocab_size);
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
        let rows = tasks();
        let data = jsonl(&rows.train).unwrap().len() + jsonl(&rows.held_out).unwrap().len();
        assert!(embedded + data < 6_000_000);
    }
}
