//! Finds the model that `generate` is given: a model, an adapter, or the folder of a run.

use crate::config::recipe::Recipe;
use crate::hub::TOKENIZERS;
use crate::run::ModelPlace;
use crate::run::locate::tokenizer;
use crate::train::checkpoint;
use crate::weights::adapter::read_config;
use halfbyte_core::error::{Error, Result};
use std::path::{Path, PathBuf};

/// A model to generate with.
pub struct Trained {
    /// The base model.
    pub place: ModelPlace,
    /// The folder of the adapter.
    pub adapter: Option<PathBuf>,
    /// The recipe of the adapter's run, if the folder has one.
    pub recipe: Option<Recipe>,
    /// Whether the user named a run. The tokenizer and the prompt format are then those of the run.
    pub by_run: bool,
}

impl Trained {
    /// Finds the model that `source` names: a run, an adapter, a model folder or a hub id. `adapter` is an adapter to
    /// apply to a model.
    pub fn find(source: &str, adapter: Option<&Path>) -> Result<Self> {
        let folder = Path::new(source);
        if let Some(adapter) = adapter {
            let adapter = adapter_in(adapter)?;
            let recipe = recipe_of(&adapter)?;
            return Ok(Self { place: ModelPlace::named(source)?, adapter: Some(adapter), recipe, by_run: false });
        }
        let is_run = ["adapter_config.json", RECIPE].iter().any(|name| folder.join(name).is_file());
        if !is_run || folder.join("config.json").is_file() {
            return Ok(Self { place: ModelPlace::named(source)?, adapter: None, recipe: None, by_run: false });
        }
        let adapter = adapter_in(folder)?;
        let recipe = recipe_of(folder)?;
        let (_, base) = read_config(&adapter)?;
        let base = base.filter(|base| !base.is_empty());
        if let Some(base) = base.as_deref().filter(|base| ModelPlace::is_dummy(base)) {
            return Err(Error::input(format!(
                "{source} was trained on random weights ({base}), so its output would be noise"
            )));
        }
        let place = match (&recipe, &base) {
            (Some(recipe), _) => ModelPlace::open(&recipe.model, false),
            (None, Some(base)) => ModelPlace::named(base),
            (None, None) => Err(Error::input("adapter_config.json names no base model")),
        };
        let place = place.map_err(|e| {
            let named = recipe.as_ref().map_or(base.as_deref(), |recipe| Some(recipe.model.name_or_path.as_str()));
            match named.filter(|name| !Path::new(name).exists()) {
                Some(_) => e.at(source).hint(format!(
                    "run the command in the folder where the run was trained, or name its base model: halfbyte generate \
                     MODEL --adapter {source}"
                )),
                None => e.at(source),
            }
        })?;
        Ok(Self { place, adapter: Some(adapter), recipe, by_run: true })
    }

    /// The folder or file of the tokenizer.
    pub fn tokenizer(&self) -> Result<PathBuf> {
        let own = self
            .adapter
            .as_ref()
            .filter(|folder| self.by_run && TOKENIZERS.iter().any(|name| folder.join(name).is_file()));
        match (own, &self.recipe) {
            // A run has a copy of the tokenizer that it was trained with.
            (Some(folder), _) => Ok(folder.clone()),
            (None, Some(recipe)) => recipe.model.tokenizer.as_deref().map_or_else(|| self.place.tokenizer(), tokenizer),
            (None, None) => self.place.tokenizer(),
        }
    }
}

/// The resolved recipe in the folder of a run.
const RECIPE: &str = "recipe.toml";

/// The recipe of a run, or of the run that a checkpoint belongs to; None if there is no recipe.
fn recipe_of(folder: &Path) -> Result<Option<Recipe>> {
    let is_checkpoint = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checkpoint-"));
    let run = folder.parent().filter(|_| is_checkpoint).unwrap_or(folder);
    let file = run.join(RECIPE);
    if file.is_file() { Recipe::open(&file, &[]).map(Some) } else { Ok(None) }
}

/// The folder with a run's adapter: the folder itself, or the `adapter_dir` or `output_dir` of its recipe.
fn adapter_in(folder: &Path) -> Result<PathBuf> {
    let has_adapter = |folder: &Path| folder.join("adapter_config.json").is_file();
    if !folder.is_dir() {
        return Err(Error::input(format!("there is no folder {}", folder.display()))
            .hint("name the folder of a run or of a PEFT adapter"));
    }
    if has_adapter(folder) {
        return Ok(folder.into());
    }
    let training = recipe_of(folder)?.map(|recipe| recipe.training);
    let dirs = training.iter().flat_map(|t| t.adapter_dir.iter().chain([&t.output_dir])).map(PathBuf::from);
    if let Some(adapter) = dirs.into_iter().find(|dir| has_adapter(dir)) {
        return Ok(adapter);
    }
    let error = Error::input(format!("{} has no adapter (adapter_config.json)", folder.display()));
    Err(match checkpoint::list(folder)?.into_iter().max() {
        Some((_, newest)) => {
            error.hint(format!("the run has not finished; its newest checkpoint is {}", newest.display()))
        }
        None => error.hint("name the folder of a finished run or of a PEFT adapter"),
    })
}
