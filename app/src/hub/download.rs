//! Downloads into the cache: selects the files, checks for free space, and writes them.

use super::client::{Client, Failure, RepoFile, public};
use super::{Content, Hub, TOKENIZERS, incomplete};
use crate::disk::write::write_text;
use halfbyte_core::error::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::OpenOptions;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Files with the settings of a tokenizer.
const BESIDE_TOKENIZERS: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"];

/// Extensions of data files that `data::files` can read.
pub const DATA_FILES: [&str; 6] = ["jsonl", "ndjson", "json", "csv", "parquet", "txt"];

/// Downloads the files of `content` that the cache lacks. Returns the folder of the snapshot.
pub fn download(hub: &Hub, content: Content, id: &str, revision: &str) -> Result<PathBuf> {
    let client = Client::new(&hub.endpoint, hub.token.as_deref());
    let failed = |what: &str, failure: Failure| explain(hub, content, id, what, &failure);
    let (api, page) = match content {
        Content::Dataset => (format!("datasets/{id}"), format!("datasets/{id}")),
        Content::Model | Content::Description | Content::Tokenizer => (format!("models/{id}"), id.to_string()),
    };
    let (commit, files) = client.list(&api, revision).map_err(|e| failed(revision, e))?;
    let wanted: Vec<&RepoFile> = files.iter().filter(|file| is_wanted(content, &file.name)).collect();
    if wanted.is_empty() {
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        return Err(Error::input(format!("{id} has none of the files that a {} needs", content.name()))
            .hint(format!("its files are {}", names.join(", "))));
    }

    let root = hub.root(content, id);
    let snapshot = root.join("snapshots").join(&commit);
    // This mark remains if the download is interrupted, so the snapshot is not mistaken for a complete one.
    let mark = incomplete(&root, &commit);
    let marked = std::fs::create_dir_all(&snapshot).and_then(|()| std::fs::write(&mark, ""));
    marked.map_err(|e| Error::io("write", &mark, e))?;

    let missing = wanted.into_iter().filter(|file| !snapshot.join(&file.name).is_file());
    let mut parts = Vec::new();
    for file in missing {
        let url = client.url(&page, &commit, &file.name);
        let size = file.size.map_or_else(|| client.info(&url).map(|info| info.size), Ok);
        parts.push((file, url, size.map_err(|e| failed(&file.name, e))?));
    }
    let total: u64 = parts.iter().map(|(_, _, size)| size).sum();
    announce(hub, id, &root, parts.len(), total)?;
    let bar = bar(total);
    for (file, url, _) in &parts {
        bar.set_message(file.name.clone());
        fetch(&client, url, &root, &snapshot.join(&file.name), &bar).map_err(|e| match e {
            Fetch::Hub(failure) => failed(&file.name, failure),
            Fetch::Failed(error) => error,
        })?;
    }
    bar.finish_and_clear();

    if revision != commit {
        let reference = root.join("refs").join(revision);
        create_parent(&reference).map_err(|e| Error::io("create", &reference, e))?;
        write_text(&reference, &commit)?;
    }
    // After a partial download of a model, other files are still missing.
    if matches!(content, Content::Model | Content::Dataset) {
        std::fs::remove_file(&mark).map_err(|e| Error::io("remove", &mark, e))?;
    }
    Ok(snapshot)
}

/// Whether a file of a repository is needed.
fn is_wanted(content: Content, name: &str) -> bool {
    let top = !name.contains('/');
    match content {
        Content::Dataset => {
            let extension = Path::new(name).extension();
            extension.is_some_and(|e| DATA_FILES.iter().any(|d| e.eq_ignore_ascii_case(d)))
        }
        Content::Tokenizer => top && (TOKENIZERS.contains(&name) || BESIDE_TOKENIZERS.contains(&name)),
        Content::Description => {
            top && ([".json", ".jinja"].iter().any(|end| name.ends_with(end)) || name == "tokenizer.model")
        }
        Content::Model => {
            // Mistral's repositories contain the weights a second time under this name.
            let twice = name.starts_with("consolidated");
            is_wanted(Content::Description, name) || (top && !twice && name.ends_with(".safetensors"))
        }
    }
}

/// Prints what is downloaded, from where and to where. Errors if the disk has too little space.
fn announce(hub: &Hub, id: &str, root: &Path, files: usize, bytes: u64) -> Result<()> {
    let free = free_space(root);
    let count = if files == 1 { "1 file".into() } else { format!("{files} files") };
    let room = free.map_or_else(String::new, |free| format!("; {} free there", size(free)));
    let mut stderr = std::io::stderr().lock();
    // A closed standard error does not stop the download.
    let _ = writeln!(
        stderr,
        "downloading {id} from {} ({count}, {}) into {}{room}",
        hub.address(),
        size(bytes),
        hub.cache.display()
    );
    match free.filter(|free| *free < bytes) {
        None => Ok(()),
        Some(free) => Err(Error::system(format!(
            "{id} needs {} in {}, where {} are free",
            size(bytes),
            hub.cache.display(),
            size(free)
        ))
        .hint("make room, or set HF_HOME to a folder on a larger disk")),
    }
}

/// Free bytes for this user on the disk of `folder`.
#[cfg(unix)]
fn free_space(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The free space is not known on this system.
#[cfg(not(unix))]
fn free_space(_: &Path) -> Option<u64> {
    None
}

/// Formats bytes in powers of ten, as disks and the hub's pages do: `14.5 GB`.
fn size(bytes: u64) -> String {
    let scaled = |unit: f64, name| format!("{:.1} {name}", bytes as f64 / unit);
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => scaled(1e3, "kB"),
        1_000_000..1_000_000_000 => scaled(1e6, "MB"),
        _ => scaled(1e9, "GB"),
    }
}

/// The progress bar of a download, hidden if standard error is not a terminal.
fn bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The reason why a file could not be downloaded.
enum Fetch {
    /// The request to the hub failed.
    Hub(Failure),
    /// Any other error.
    Failed(Error),
}

/// Downloads one file to `blobs/ETAG`, checks its size, and links it as `target`.
fn fetch(client: &Client, url: &str, root: &Path, target: &Path, bar: &ProgressBar) -> Result<(), Fetch> {
    let info = client.info(url).map_err(Fetch::Hub)?;
    let blob = root.join("blobs").join(&info.etag);
    let part = blob.with_file_name(format!("{}.incomplete", info.etag));
    let disk = |doing: &'static str, path: &Path| {
        let path = path.to_path_buf();
        move |e| Fetch::Failed(Error::io(doing, &path, e))
    };
    create_parent(&blob).map_err(disk("create", &blob))?;
    let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&part);
    let mut file = file.map_err(disk("open", &part))?;
    // Wait for another process that downloads the same file.
    file.lock().map_err(disk("lock", &part))?;
    if std::fs::metadata(&blob).is_ok_and(|blob| blob.len() == info.size) {
        bar.inc(info.size);
        // The other process has finished the file; this removes the empty one that was just created.
        let _ = std::fs::remove_file(&part);
    } else {
        let have = file.metadata().map_err(disk("read", &part))?.len();
        let start = if have <= info.size { have } else { 0 };
        if start < info.size || have != info.size {
            let (mut body, heeded) = client.content(url, start).map_err(Fetch::Hub)?;
            let start = if heeded { start } else { 0 };
            bar.inc(start);
            let kept = file.set_len(start).and_then(|()| file.seek(SeekFrom::Start(start)));
            kept.map_err(disk("write", &part))?;
            // Reading at most one byte too many detects a wrong size, and an endless response cannot fill the disk.
            let mut body = bar.wrap_read(&mut body).take(info.size - start + 1);
            let written = std::io::copy(&mut body, &mut file).map_err(disk("download to", &part))?;
            if start + written != info.size {
                let arrived = start + written;
                if arrived > info.size {
                    file.set_len(0).map_err(disk("write", &part))?;
                }
                let what = format!("{arrived} of {} bytes arrived", info.size);
                return Err(Fetch::Failed(
                    Error::input(format!("{}: {what}", public(url)))
                        .hint("run the command again to resume the download"),
                ));
            }
        }
        file.sync_all().map_err(disk("write", &part))?;
        std::fs::rename(&part, &blob).map_err(disk("rename", &part))?;
    }
    link(&blob, root, target).map_err(disk("link", target))
}

/// Links the blob as `target`. The link is relative, so that the cache can be moved.
#[cfg(unix)]
fn link(blob: &Path, root: &Path, target: &Path) -> std::io::Result<()> {
    create_parent(target)?;
    let depth = target.strip_prefix(root).map_or(0, |inside| inside.components().count() - 1);
    let up: PathBuf = std::iter::repeat_n("..", depth).collect();
    match std::os::unix::fs::symlink(up.join(blob.strip_prefix(root).unwrap_or(blob)), target) {
        // Another process has created the link.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && target.is_file() => Ok(()),
        done => done,
    }
}

/// Moves the blob to `target`, because links need special rights on this system.
#[cfg(not(unix))]
fn link(blob: &Path, _root: &Path, target: &Path) -> std::io::Result<()> {
    create_parent(target)?;
    std::fs::rename(blob, target)
}

fn create_parent(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

/// The error of a failed request, with a hint by HTTP status.
fn explain(hub: &Hub, content: Content, id: &str, what: &str, failure: &Failure) -> Error {
    let page = match content {
        Content::Dataset => format!("{}/datasets/{id}", hub.address()),
        Content::Model | Content::Description | Content::Tokenizer => format!("{}/{id}", hub.address()),
    };
    let what = format!("cannot download {id} ({what}) from {}: {failure}", hub.address());
    let error = Error::input(format!("there is no folder {id}, and it could not be downloaded as a hub id: {what}"));
    match failure.status {
        Some(401 | 403) => {
            error.hint(format!("accept its license at {page}, then set HF_TOKEN to a token of that account"))
        }
        Some(404) => error.hint(format!("check the path, or the name and the revision at {page}")),
        _ => error.hint("without a network, give a local folder; HF_ENDPOINT names a mirror"),
    }
}
