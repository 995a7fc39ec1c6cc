//! The Hugging Face Hub: finds models and data sets by their ids in the cache that the Python libraries share, and
//! downloads missing files into it.
//!
//! * `client`: requests to the hub; the only user of the access token.
//! * `download`: selects the files, checks for free space, and writes them.

pub mod client;
mod download;

use halfbyte_core::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The part of a repository that a command needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A whole model: weights, configuration, tokenizer.
    Model,
    /// Configuration and tokenizer of a model: a few megabytes.
    Description,
    /// The tokenizer of a model, without anything else.
    Tokenizer,
    /// The data files of a data set.
    Dataset,
}

impl Content {
    /// The name in messages.
    fn name(self) -> &'static str {
        match self {
            Content::Model | Content::Description => "model",
            Content::Tokenizer => "tokenizer",
            Content::Dataset => "data set",
        }
    }

    /// Whether the snapshot in `folder` is complete.
    fn is_whole(self, folder: &Path, marked_incomplete: bool) -> bool {
        let has = |name: &str| folder.join(name).is_file();
        let has_tokenizer = TOKENIZERS.into_iter().any(has);
        match self {
            Content::Model => !marked_incomplete && has("config.json") && has_weights(folder),
            // A model may have no tokenizer.
            Content::Description => has("config.json") && (has_tokenizer || !marked_incomplete),
            Content::Tokenizer => has_tokenizer,
            Content::Dataset => !marked_incomplete && folder.is_dir(),
        }
    }
}

/// The location of the cache and the access to the hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hub {
    /// The cache: `models--owner--name/{refs,snapshots,blobs}` and `datasets--owner--name/…`.
    pub cache: PathBuf,
    /// The address of the hub, without a trailing slash.
    pub endpoint: String,
    /// The user's access token; it is sent to `endpoint` and nowhere else.
    pub token: Option<String>,
    /// Whether downloads are disabled.
    pub offline: bool,
}

impl Hub {
    /// The settings of the environment, with the variables and defaults of huggingface_hub.
    pub fn from_env() -> Hub {
        Hub::from_names(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The settings of the environment variables that `get` returns.
    pub fn from_names(get: impl Fn(&str) -> Option<String>) -> Hub {
        let user_cache = || {
            let home = || get("HOME").or_else(|| get("USERPROFILE")).unwrap_or_default();
            get("XDG_CACHE_HOME").map_or_else(|| Path::new(&home()).join(".cache"), PathBuf::from)
        };
        let hf_home = get("HF_HOME").map_or_else(|| user_cache().join("huggingface"), PathBuf::from);
        let cache = get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE"));
        let token_file = get("HF_TOKEN_PATH").map_or_else(|| hf_home.join("token"), PathBuf::from);
        let token_in_file = || std::fs::read_to_string(token_file).ok();
        let token = get("HF_TOKEN").or_else(token_in_file).map(|token| token.trim().to_string());
        Hub {
            cache: cache.map_or_else(|| hf_home.join("hub"), PathBuf::from),
            endpoint: get("HF_ENDPOINT").unwrap_or("https://huggingface.co".into()).trim_end_matches('/').into(),
            token: token.filter(|token| !token.is_empty()),
            offline: get("HF_HUB_OFFLINE")
                .is_some_and(|v| matches!(v.to_uppercase().as_str(), "1" | "TRUE" | "YES" | "ON")),
        }
    }

    /// The folder `name` if it exists, or the snapshot of the hub id `name`.
    pub fn folder(&self, content: Content, name: &str, revision: Option<&str>) -> Result<PathBuf> {
        if Path::new(name).is_dir() {
            return Ok(name.into());
        }
        self.snapshot(content, name, revision)
    }

    /// The snapshot of a hub id in the cache. Missing files are downloaded. `revision` is a branch, a tag or a commit,
    /// by default `main`.
    pub fn snapshot(&self, content: Content, id: &str, revision: Option<&str>) -> Result<PathBuf> {
        if !is_id(id) {
            return Err(Error::input(format!("there is no file or folder {id}"))
                .hint("give a path that exists, or a hub id (owner/name)"));
        }
        let revision = revision.unwrap_or("main");
        match self.cached(content, id, revision) {
            Some(folder) => Ok(folder),
            None if self.offline => {
                let cache = self.cache.display();
                Err(Error::input(format!(
                    "there is no folder {id}, and the cache {cache} has no {} of this name",
                    content.name()
                ))
                .hint("unset HF_HUB_OFFLINE to download it"))
            }
            None => download::download(self, content, id, revision),
        }
    }

    /// The snapshot in the cache, if it has all of `content`.
    pub fn cached(&self, content: Content, id: &str, revision: &str) -> Option<PathBuf> {
        let root = self.root(content, id);
        let commit = std::fs::read_to_string(root.join("refs").join(revision));
        let commit = commit.as_deref().unwrap_or(revision).trim();
        let folder = root.join("snapshots").join(commit);
        content.is_whole(&folder, incomplete(&root, commit).exists()).then_some(folder)
    }

    /// The endpoint for messages, without a user name or password.
    fn address(&self) -> String {
        client::public(&self.endpoint)
    }

    /// The folder of a repository in the cache.
    fn root(&self, content: Content, id: &str) -> PathBuf {
        let kind = if content == Content::Dataset { "datasets" } else { "models" };
        self.cache.join(format!("{kind}--{}", id.replace('/', "--")))
    }
}

/// `owner/name` in the characters that the hub allows.
pub fn is_id(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() == 2 && parts.into_iter().all(part)
}

/// The files that a tokenizer is read from. One is enough; if there are several, the first of this list is read.
pub const TOKENIZERS: [&str; 3] = ["tokenizer.model", "tokenizer.json", "tekken.json"];

/// The file that marks a snapshot as incomplete.
fn incomplete(root: &Path, commit: &str) -> PathBuf {
    root.join(format!(".incomplete-{commit}"))
}

/// Whether a folder has weights, including all files that their index names.
fn has_weights(folder: &Path) -> bool {
    let index = std::fs::read_to_string(folder.join("model.safetensors.index.json"));
    let index = index.ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    match index.as_ref().and_then(|index| index["weight_map"].as_object()) {
        Some(files) => files.values().all(|file| file.as_str().is_some_and(|file| folder.join(file).is_file())),
        None => folder.join("model.safetensors").is_file(),
    }
}
