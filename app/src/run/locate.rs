//! Finds the base model and the tokenizer that a recipe or the command line names.

use crate::config::config_json;
use crate::config::known::known;
use crate::config::recipe::ModelSource;
use crate::hub::{Content, Hub, is_id};
use crate::weights::names::check;
use crate::weights::safetensors::TensorFiles;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use std::path::{Path, PathBuf};

/// Prefix of the name of a model with random weights.
const DUMMY: &str = "dummy:";

/// The base model and its location. For a hub id, only the small files are downloaded until [`ModelPlace::checkpoint`]
/// needs the weights.
#[derive(Clone, Debug)]
pub struct ModelPlace {
    /// The name for reports and adapters: that of the recipe, with the prefix `dummy:` if the weights are random.
    pub name: String,
    /// The checked content of config.json.
    pub config: ModelConfig,
    /// Whether the weights are random.
    pub dummy: bool,
    /// The folder of the model; `None` for a known architecture, which has no files.
    folder: Option<PathBuf>,
    /// Whether `folder` is a hub id's snapshot in the cache, which may lack the weights.
    cached: bool,
    /// `tokenizer_name_or_path`.
    tokenizer: Option<String>,
}

impl ModelPlace {
    /// The model that the recipe names: a folder or a hub id with config.json, safetensors and a tokenizer. With
    /// `dummy`, the weights are random, and the name may also be that of a config.json file or of a known architecture.
    pub fn open(source: &ModelSource, dummy: bool) -> Result<Self> {
        let ModelSource { name_or_path: name, revision, tokenizer, .. } = source;
        let found = match dummy {
            true => Self::with_random_weights(name, revision.as_deref()),
            false => Self::find(name, revision.as_deref()).map_err(|e| match is_architecture(name) {
                true => e.hint(
                    "give --dummy-weights to use it with random weights, or name a folder or a hub id with weights",
                ),
                false => e,
            }),
        };
        let place = found.map_err(|e| e.at("model_name_or_path"))?;
        Ok(Self { tokenizer: tokenizer.clone(), ..place })
    }

    /// The model that the command line names by a folder or a hub id.
    pub fn named(name: &str) -> Result<Self> {
        Self::find(name, None)
    }

    /// The model that the command line names for a command that needs no weights: a folder, a hub id or a known
    /// architecture.
    pub fn shape(name: &str) -> Result<Self> {
        if is_architecture(name) { Self::with_random_weights(name, None) } else { Self::find(name, None) }
    }

    fn find(name: &str, revision: Option<&str>) -> Result<Self> {
        let path = Path::new(name);
        if path.is_file() {
            return Err(Error::input(format!("{name} is a file"))
                .hint("give the folder with config.json, *.safetensors and a tokenizer"));
        }
        if is_architecture(name) {
            return Err(Error::usage(format!(
                "there is no folder {name}: it is the name of an architecture, which has no weights"
            ))
            .hint("name a folder or a hub id with weights"));
        }
        let cached = !path.is_dir();
        let folder = Hub::from_env().folder(Content::Description, name, revision)?;
        let config = config_json::open(&folder)?;
        Ok(Self { name: name.into(), config, dummy: false, folder: Some(folder), cached, tokenizer: None })
    }

    /// Finds the config of a model with random weights, without a download: a hub id must be in the cache or end with
    /// the name of a known architecture.
    fn with_random_weights(name: &str, revision: Option<&str>) -> Result<Self> {
        let path = Path::new(name);
        let revision = revision.unwrap_or("main");
        let in_cache = || is_id(name).then(|| Hub::from_env().cached(Content::Description, name, revision)).flatten();
        let (folder, called, config) = if path.is_file() {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (Some(parent.into()), name, config_json::open_file(path)?)
        } else if path.is_dir() {
            (Some(path.into()), name, config_json::open(path)?)
        } else if let Some(folder) = in_cache() {
            let config = config_json::open(&folder)?;
            (Some(folder), name, config)
        } else {
            let (called, config) = known(name)?;
            (None, called, config)
        };
        Ok(Self { name: format!("{DUMMY}{called}"), config, dummy: true, folder, cached: false, tokenizer: None })
    }

    /// Whether `name` has the prefix of a model with random weights.
    pub fn is_dummy(name: &str) -> bool {
        name.starts_with(DUMMY)
    }

    /// Lines for the report: a warning if the weights are random.
    pub fn notes(&self) -> Vec<String> {
        let loud =
            "THE WEIGHTS ARE RANDOM (--dummy-weights): times and memory are real, losses and the adapter mean nothing";
        if self.dummy { vec![loud.into()] } else { Vec::new() }
    }

    /// The folder or file of the tokenizer. An error if the model has no folder and the recipe names no tokenizer.
    pub fn tokenizer(&self) -> Result<PathBuf> {
        match (&self.tokenizer, &self.folder) {
            (Some(name), _) => tokenizer(name).map_err(|e| e.at("tokenizer_name_or_path")),
            (None, Some(folder)) => Ok(folder.clone()),
            (None, None) => Err(Error::usage(format!("{} has no folder and thus no tokenizer", self.name))
                .hint("set tokenizer_name_or_path to a folder or hub id with a tokenizer")),
        }
    }

    /// The folder or file of the tokenizer; `None` if the model has no folder and the recipe names no tokenizer.
    pub fn tokenizer_if_any(&self) -> Result<Option<PathBuf>> {
        if self.tokenizer.is_none() && self.folder.is_none() { Ok(None) } else { self.tokenizer().map(Some) }
    }

    /// The weights, checked against the config, and downloaded if necessary; `None` if they are random.
    pub fn checkpoint(&self) -> Result<Option<TensorFiles>> {
        let Some(folder) = self.folder.as_ref().filter(|_| !self.dummy) else { return Ok(None) };
        if self.cached {
            // Download from the commit of the config, because the branch may have moved since.
            let commit = folder.file_name().and_then(|name| name.to_str());
            let whole = Hub::from_env().snapshot(Content::Model, &self.name, commit);
            whole.map_err(|e| e.at("model_name_or_path"))?;
        }
        let checkpoint = TensorFiles::open(folder)?;
        check(&checkpoint, &self.config)?;
        Ok(Some(checkpoint))
    }

    /// The weights, checked against the config, if they are on this machine; never downloads.
    pub fn local_checkpoint(&self) -> Result<Option<TensorFiles>> {
        let has = |name: &&str| self.folder.as_ref().is_some_and(|folder| folder.join(name).is_file());
        let here = if self.cached { self.is_whole() } else { WEIGHTS.iter().any(has) };
        if here { self.checkpoint() } else { Ok(None) }
    }

    fn is_whole(&self) -> bool {
        let commit = self.folder.as_ref().and_then(|folder| folder.file_name()?.to_str());
        commit.is_some_and(|commit| Hub::from_env().cached(Content::Model, &self.name, commit).is_some())
    }
}

/// Whether `name` is a known architecture, but neither an existing path nor a hub id.
fn is_architecture(name: &str) -> bool {
    !Path::new(name).exists() && !is_id(name) && known(name).is_ok()
}

/// A folder with one of these files contains weights.
const WEIGHTS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// Finds a tokenizer: the file or folder `name` itself, or the folder of the hub id `name`.
pub fn tokenizer(name: &str) -> Result<PathBuf> {
    if Path::new(name).is_file() {
        return Ok(name.into());
    }
    Hub::from_env().folder(Content::Tokenizer, name, None)
}
