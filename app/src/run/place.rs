//! Where the parts of the base model are that a recipe names.

use crate::config::known::known;
use crate::config::recipe::ModelSource;
use crate::hub::{Hub, Kind, is_id};
use crate::weights::names::check;
use crate::weights::safetensors::Checkpoint;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use std::path::{Path, PathBuf};

/// How the names of models with made-up weights begin.
const DUMMY: &str = "dummy:";

/// Where the base model is.
#[derive(Clone, Debug)]
pub struct ModelPlace {
    /// How reports and adapters call it: as the recipe does; with random weights, `dummy:` before it.
    pub name: String,
    /// config.json, checked.
    pub config: ModelConfig,
    /// Whether its weights are made up.
    pub dummy: bool,
    /// Its folder; `None`: an architecture known by name, which needs none.
    folder: Option<PathBuf>,
    /// `tokenizer_name_or_path`.
    tokenizer: Option<String>,
}

impl ModelPlace {
    /// The folder that the recipe names, or that of its hub id: config.json, safetensors, tokenizer.
    pub fn find(source: &ModelSource) -> Result<Self> {
        let name = &source.name_or_path;
        let mut folder = PathBuf::from(name);
        if !folder.exists() && is_id(name) {
            folder = Hub::from_env().model(name, source.revision.as_deref())?;
        }
        if !folder.is_dir() {
            return Err(Error::input(format!("model_name_or_path: there is no folder {}", folder.display()))
                .hint("give a folder with config.json, *.safetensors and tokenizer.model"));
        }
        let config = crate::config::config_json::open(&folder)?;
        Ok(Self { name: name.clone(), config, dummy: false, folder: Some(folder), tokenizer: source.tokenizer.clone() })
    }

    /// The shape of a model whose weights are made up: of a folder with a config.json, of such a file, of a hub id in the
    /// cache, or of an architecture known by name. Nothing is downloaded.
    pub fn dummy(source: &ModelSource) -> Result<Self> {
        let name = &source.name_or_path;
        let path = Path::new(name);
        let revision = source.revision.as_deref().unwrap_or("main");
        let cached = || is_id(name).then(|| Hub::from_env().cached(Kind::Model, name, revision)).flatten();
        let (folder, called, config) = if path.is_file() {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (Some(parent.into()), name.as_str(), crate::config::config_json::open_file(path)?)
        } else if path.is_dir() {
            (Some(path.into()), name.as_str(), crate::config::config_json::open(path)?)
        } else if let Some(folder) = cached() {
            let config = crate::config::config_json::open(&folder)?;
            (Some(folder), name.as_str(), config)
        } else {
            let (called, config) = known(name).map_err(|e| e.at("model_name_or_path"))?;
            (None, called, config)
        };
        Ok(Self { name: format!("{DUMMY}{called}"), config, dummy: true, folder, tokenizer: source.tokenizer.clone() })
    }

    /// Whether a model of this name has made-up weights.
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
            (Some(name), _) => Hub::from_env().tokenizer(name).map_err(|e| e.at("tokenizer_name_or_path")),
            (None, Some(folder)) => Ok(folder.clone()),
            (None, None) => Err(Error::usage(format!("{} has no folder, and so no tokenizer", self.name))
                .hint("give tokenizer_name_or_path = \"…\", a folder or hub id with tokenizer.model")),
        }
    }

    /// The folder of the tokenizer, unless nothing says where one is.
    pub fn tokenizer_if_any(&self) -> Result<Option<PathBuf>> {
        if self.tokenizer.is_none() && self.folder.is_none() { Ok(None) } else { self.tokenizer().map(Some) }
    }

    /// The weights, checked against the config; `None`: they are made up.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let Some(folder) = self.folder.as_ref().filter(|_| !self.dummy) else { return Ok(None) };
        let checkpoint = Checkpoint::open(folder)?;
        check(&checkpoint, &self.config)?;
        Ok(Some(checkpoint))
    }
}
