//! Where the parts of the base model are that a recipe or the command line names.

use crate::config::config_json;
use crate::config::known::known;
use crate::config::recipe::ModelSource;
use crate::hub::{Content, Hub, is_id};
use crate::weights::names::check;
use crate::weights::safetensors::Checkpoint;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use std::path::{Path, PathBuf};

/// How the names of models with random weights begin.
const DUMMY: &str = "dummy:";

/// Where the base model is. Of a hub id only the small files are fetched, until [`ModelPlace::checkpoint`] asks for the
/// weights.
#[derive(Clone, Debug)]
pub struct ModelPlace {
    /// How reports and adapters call it: as the recipe does; with random weights, `dummy:` before it.
    pub name: String,
    /// config.json, checked.
    pub config: ModelConfig,
    /// Whether its weights are random.
    pub dummy: bool,
    /// Its folder; `None`: an architecture known by name, which needs none.
    folder: Option<PathBuf>,
    /// Whether `folder` is a hub id's snapshot in the cache, which may lack the weights.
    cached: bool,
    /// `tokenizer_name_or_path`.
    tokenizer: Option<String>,
}

impl ModelPlace {
    /// The folder that the recipe names, or that of its hub id: config.json, safetensors, tokenizer. With `dummy`, the
    /// weights are random, and the name may also be that of a config.json or of a known architecture.
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

    /// The model that the command line names: a folder or a hub id.
    pub fn named(name: &str) -> Result<Self> {
        Self::find(name, None)
    }

    /// The model that the command line names, whose weights do not matter: a folder, a hub id or a known architecture.
    pub fn shape(name: &str) -> Result<Self> {
        if is_architecture(name) { Self::with_random_weights(name, None) } else { Self::find(name, None) }
    }

    fn find(name: &str, revision: Option<&str>) -> Result<Self> {
        let path = Path::new(name);
        if path.is_file() {
            return Err(Error::input(format!("{name} is a file"))
                .hint("give the folder with config.json, *.safetensors and tokenizer.model"));
        }
        if is_architecture(name) {
            return Err(Error::usage(format!(
                "there is no folder {name}: it is the name of an architecture, without weights"
            ))
            .hint("name a folder or a hub id with weights"));
        }
        let cached = !path.is_dir();
        let folder = Hub::from_env().folder(Content::Description, name, revision)?;
        let config = config_json::open(&folder)?;
        Ok(Self { name: name.into(), config, dummy: false, folder: Some(folder), cached, tokenizer: None })
    }

    /// Nothing is downloaded: a hub id must be in the cache, or end in the name of a known architecture.
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

    /// Whether a model of this name has random weights.
    pub fn is_dummy(name: &str) -> bool {
        name.starts_with(DUMMY)
    }

    /// Lines for the report.
    pub fn notes(&self) -> Vec<String> {
        let loud =
            "THE WEIGHTS ARE RANDOM (--dummy-weights): times and memory are real, losses and the adapter mean nothing";
        if self.dummy { vec![loud.into()] } else { Vec::new() }
    }

    /// The folder of the tokenizer.
    pub fn tokenizer(&self) -> Result<PathBuf> {
        match (&self.tokenizer, &self.folder) {
            (Some(name), _) => tokenizer(name).map_err(|e| e.at("tokenizer_name_or_path")),
            (None, Some(folder)) => Ok(folder.clone()),
            (None, None) => Err(Error::usage(format!("{} has no folder, and so no tokenizer", self.name))
                .hint("give tokenizer_name_or_path = \"…\", a folder or hub id with tokenizer.model")),
        }
    }

    /// The folder of the tokenizer, unless nothing says where one is.
    pub fn tokenizer_if_any(&self) -> Result<Option<PathBuf>> {
        if self.tokenizer.is_none() && self.folder.is_none() { Ok(None) } else { self.tokenizer().map(Some) }
    }

    /// The weights, checked against the config, downloaded if they are not here yet; `None`: they are random.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let Some(folder) = self.folder.as_ref().filter(|_| !self.dummy) else { return Ok(None) };
        if self.cached {
            // Of the same commit as the config: the branch may have moved.
            let commit = folder.file_name().and_then(|name| name.to_str());
            let whole = Hub::from_env().snapshot(Content::Model, &self.name, commit);
            whole.map_err(|e| e.at("model_name_or_path"))?;
        }
        let checkpoint = Checkpoint::open(folder)?;
        check(&checkpoint, &self.config)?;
        Ok(Some(checkpoint))
    }

    /// The weights if they are here, checked against the config; nothing is downloaded.
    pub fn local_checkpoint(&self) -> Result<Option<Checkpoint>> {
        let has = |name: &&str| self.folder.as_ref().is_some_and(|folder| folder.join(name).is_file());
        let here = if self.cached { self.is_whole() } else { WEIGHTS.iter().any(has) };
        if here { self.checkpoint() } else { Ok(None) }
    }

    fn is_whole(&self) -> bool {
        let commit = self.folder.as_ref().and_then(|folder| folder.file_name()?.to_str());
        commit.is_some_and(|commit| Hub::from_env().cached(Content::Model, &self.name, commit).is_some())
    }
}

/// Whether this names an architecture and nothing else: no folder, no hub id.
fn is_architecture(name: &str) -> bool {
    !Path::new(name).exists() && !is_id(name) && known(name).is_ok()
}

/// Files that show that a folder holds weights.
const WEIGHTS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// Where a tokenizer is: the file or folder `name` itself, else the folder of the hub id.
pub fn tokenizer(name: &str) -> Result<PathBuf> {
    if Path::new(name).is_file() {
        return Ok(name.into());
    }
    Hub::from_env().folder(Content::Tokenizer, name, None)
}
