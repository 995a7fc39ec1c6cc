//! The HTML page of a run: one self-contained file, made from metrics.jsonl and recipe.toml.

mod chart;
mod html;
pub mod page;
mod ticks;

use crate::run::files::METRICS;
use crate::track::history::History;
use halfbyte_core::error::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// The input of the page.
pub struct Source {
    /// The logged records.
    pub history: History,
    /// The text of recipe.toml, if it exists.
    pub recipe: Option<String>,
    /// The name of the run: `run_name`, or the name of its folder.
    pub name: String,
    /// `model_name_or_path`.
    pub model: Option<String>,
    /// Notes about missing or truncated files.
    pub notes: Vec<String>,
}

impl Source {
    /// Reads the folder of a run.
    pub fn open(run: &Path) -> Result<Self> {
        let metrics = run.join(METRICS);
        if !metrics.is_file() {
            return Err(Error::input(format!("{}: there is no metrics.jsonl in it", run.display()))
                .hint("give the output_dir of a run"));
        }
        let history = History::open(&metrics)?;
        let mut notes = Vec::new();
        if let Some(line) = history.cut_off {
            notes.push(format!(
                "line {line} of metrics.jsonl is truncated and was skipped: the run was killed while it wrote the line"
            ));
        }
        if history.results.is_none() {
            notes.push("the run has not finished: the page shows what was logged so far".into());
        }
        let file = run.join("recipe.toml");
        let recipe = match std::fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                notes.push("there is no recipe.toml beside metrics.jsonl".into());
                None
            }
            Err(e) => return Err(Error::io("read", &file, e)),
        };
        let table: Table = match &recipe {
            Some(text) => toml::from_str(text).map_err(|e| {
                Error::input(format!("{}: {}", file.display(), e.message())).hint("restore the file, or remove it")
            })?,
            None => Table::new(),
        };
        let folder = run.canonicalize().map_err(|e| Error::io("open", run, e))?;
        let folder = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        Ok(Self {
            name: text(&table, "run_name").unwrap_or(folder),
            model: text(&table, "model_name_or_path"),
            history,
            recipe,
            notes,
        })
    }
}

/// The text value of a key in any section of the recipe.
fn text(table: &Table, key: &str) -> Option<String> {
    let here = table.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(String::from);
    here.or_else(|| table.values().find_map(|value| text(value.as_table()?, key)))
}
