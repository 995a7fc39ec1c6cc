//! Hugging Face hub ids: through the cache that the Python libraries share, downloaded into it where it lacks them.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use halfbyte_core::error::{Error, Result};

/// What a hub id names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A model.
    Model,
    /// The tokenizer of a model, without the model.
    Tokenizer,
    /// A data set.
    Dataset,
}

/// Where the cache is and how the hub is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hub {
    /// The cache: `models--owner--name/{refs,snapshots,blobs}` and `datasets--owner--name/…`.
    pub cache: PathBuf,
    /// The address of the hub.
    pub endpoint: String,
    /// The user's access token.
    pub token: Option<String>,
    /// Nothing is downloaded.
    pub offline: bool,
}

impl Hub {
    /// As the environment says, with the names and defaults of huggingface_hub.
    pub fn from_env() -> Hub {
        Hub::from_names(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As the variables that `get` knows say.
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

    /// The folder of a model: `name` itself if it is a folder, else that of the hub id, downloaded where needed.
    pub fn model(&self, name: &str, revision: Option<&str>) -> Result<PathBuf> {
        if Path::new(name).is_dir() {
            return Ok(name.into());
        }
        self.snapshot(Kind::Model, name, revision)
    }

    /// The folder of a tokenizer: `name` itself if it is a folder, else that of the hub id.
    pub fn tokenizer(&self, name: &str) -> Result<PathBuf> {
        if Path::new(name).is_dir() {
            return Ok(name.into());
        }
        self.snapshot(Kind::Tokenizer, name, None)
    }

    /// The folder of a hub id.
    pub fn snapshot(&self, kind: Kind, id: &str, revision: Option<&str>) -> Result<PathBuf> {
        if !is_id(id) {
            return Err(Error::input(format!("there is no file or folder {id}, and it is no hub id (owner/name)")));
        }
        let revision = revision.unwrap_or("main");
        match self.cached(kind, id, revision) {
            Some(folder) => Ok(folder),
            None if self.offline => Err(Error::input(format!("{id} is not in the cache {}", self.cache.display()))
                .hint("unset HF_HUB_OFFLINE to download it")),
            None => self.download(kind, id, revision),
        }
    }

    /// The folder in the cache, if the revision (a branch, a tag or a commit) is there.
    pub fn cached(&self, kind: Kind, id: &str, revision: &str) -> Option<PathBuf> {
        let root = self.root(kind, id);
        let commit = std::fs::read_to_string(root.join("refs").join(revision));
        let commit = commit.as_deref().unwrap_or(revision).trim();
        let folder = root.join("snapshots").join(commit);
        let whole = match kind {
            Kind::Tokenizer => TOKENIZERS.iter().any(|name| folder.join(name).is_file()),
            Kind::Model | Kind::Dataset => folder.is_dir() && !incomplete(&root, commit).exists(),
        };
        whole.then_some(folder)
    }

    /// The folder of a repository in the cache.
    fn root(&self, kind: Kind, id: &str) -> PathBuf {
        self.cache.join(self.repo(kind, id, "main").folder_name())
    }

    fn repo(&self, kind: Kind, id: &str, revision: &str) -> Repo {
        let kind = match kind {
            Kind::Model | Kind::Tokenizer => RepoType::Model,
            Kind::Dataset => RepoType::Dataset,
        };
        Repo::with_revision(id.into(), kind, revision.into())
    }

    fn download(&self, kind: Kind, id: &str, revision: &str) -> Result<PathBuf> {
        let failed = |what: &str, error: ApiError| self.explain(kind, id, what, &error);
        let cache = Cache::new(self.cache.clone());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(std::io::stderr().is_terminal())
            .build()
            .map_err(|e| failed(revision, e))?;
        let info = api.repo(self.repo(kind, id, revision)).info().map_err(|e| failed(revision, e))?;
        let at_commit = api.repo(self.repo(kind, id, &info.sha));
        let names: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        let wanted: Vec<&String> = names.iter().filter(|name| wants(kind, name)).collect();
        if wanted.is_empty() {
            return Err(Error::input(format!("{id} has none of the files that a {} needs", word(kind)))
                .hint(format!("its files are {}", names.join(", "))));
        }
        // An interrupted download is taken up again, never taken for a whole one.
        let root = self.root(kind, id);
        let mark = incomplete(&root, &info.sha);
        let marked = std::fs::create_dir_all(&root).and_then(|()| std::fs::write(&mark, ""));
        marked.map_err(|e| Error::io("write", &mark, e))?;
        let mut folder = None;
        for name in wanted {
            let file = fetch(&at_commit, name, |url| Ok(api.metadata(url)?.size())).map_err(|e| failed(name, e))?;
            let depth = Path::new(name).components().count();
            folder = file.ancestors().nth(depth).map(Path::to_path_buf);
        }
        let written = cache.repo(self.repo(kind, id, revision)).create_ref(&info.sha);
        written.map_err(|e| Error::io("write a ref in", &self.cache, e))?;
        // The model's other files are not there yet.
        if kind != Kind::Tokenizer {
            std::fs::remove_file(&mark).map_err(|e| Error::io("remove", &mark, e))?;
        }
        folder.ok_or_else(|| Error::system(format!("{id}: the download left no folder")))
    }

    /// What to do about a failed request.
    fn explain(&self, kind: Kind, id: &str, what: &str, error: &ApiError) -> Error {
        let page = match kind {
            Kind::Model | Kind::Tokenizer => format!("{}/{id}", self.endpoint),
            Kind::Dataset => format!("{}/datasets/{id}", self.endpoint),
        };
        let text = error.to_string();
        let status = |code: u16| text.contains(&format!("http status: {code}"));
        let error = Error::input(format!("cannot download {id} ({what}) from {}: {text}", self.endpoint));
        if status(401) || status(403) {
            return error.hint(format!("accept its licence at {page}, then set HF_TOKEN to a token of that account"));
        }
        if status(404) {
            return error.hint(format!("check the name and the revision at {page}"));
        }
        let local = match kind {
            Kind::Model => "model_name_or_path",
            Kind::Tokenizer => "tokenizer_name_or_path",
            Kind::Dataset => "dataset",
        };
        error.hint(format!("without a network, give a local folder as {local}; HF_ENDPOINT names a mirror"))
    }
}

/// Files that are a tokenizer; either is enough.
const TOKENIZERS: [&str; 2] = ["tokenizer.model", "tokenizer.json"];

/// Files that say how it is used.
const BESIDE_TOKENIZERS: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"];

/// Extensions of data files: those that `data::files` reads.
pub const DATA_FILES: [&str; 6] = ["jsonl", "ndjson", "json", "csv", "parquet", "txt"];

/// The file that marks a commit of which not all files are there yet.
fn incomplete(root: &Path, commit: &str) -> PathBuf {
    root.join(format!(".incomplete-{commit}"))
}

/// Downloads one file and checks that it is whole.
fn fetch(repo: &ApiRepo, name: &str, size: impl Fn(&str) -> Result<usize, ApiError>) -> Result<PathBuf, ApiError> {
    let file = repo.get(name)?;
    let (want, got) = (size(&repo.url(name))? as u64, std::fs::metadata(&file)?.len());
    if want != got {
        let blob = std::fs::canonicalize(&file)?;
        std::fs::remove_file(&file)?;
        std::fs::remove_file(blob)?;
        return Err(std::io::Error::other(format!("{got} of {want} bytes arrived")).into());
    }
    Ok(file)
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

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "model",
        Kind::Tokenizer => "tokenizer",
        Kind::Dataset => "data set",
    }
}

/// Whether a file of a repository is of use here.
fn wants(kind: Kind, name: &str) -> bool {
    let path = Path::new(name);
    // The hub's answer decides where files are written: only below the snapshot.
    if !path.components().all(|c| matches!(c, std::path::Component::Normal(_))) {
        return false;
    }
    let top = path.components().count() == 1;
    match kind {
        Kind::Dataset => path.extension().is_some_and(|e| DATA_FILES.iter().any(|d| e.eq_ignore_ascii_case(d))),
        Kind::Tokenizer => top && (TOKENIZERS.contains(&name) || BESIDE_TOKENIZERS.contains(&name)),
        Kind::Model => {
            // Mistral's repositories hold the weights a second time under this name.
            let twice = name.starts_with("consolidated");
            let ends = [".safetensors", ".json", ".jinja"].iter().any(|end| name.ends_with(end));
            top && !twice && (ends || name == "tokenizer.model")
        }
    }
}
