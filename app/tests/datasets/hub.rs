//! Hub ids: the cache's layout, and downloads from a server that answers as the hub does.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use halfbyte::data::source::DataFiles;
use halfbyte::hub::{Hub, Kind, is_id};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has, and what it was asked.
#[derive(Default)]
struct Shelf {
    files: Vec<(&'static str, &'static [u8])>,
    /// Requests without this token are refused.
    token: Option<&'static str>,
    /// Sends only half of this file.
    broken: Option<&'static str>,
    asked: Mutex<Vec<String>>,
}

/// Serves on a free port for the rest of the test; the address.
fn serve(shelf: Shelf) -> (String, Arc<Shelf>) {
    let (listener, shelf) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(shelf));
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shared = shelf.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is no concern of the server's.
            let _ = answer(stream, &shared);
        }
    });
    (address, shelf)
}

fn answer(mut stream: TcpStream, shelf: &Shelf) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_string();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_string());
    }
    shelf.asked.lock().unwrap().push(path.clone());
    let mut reply = |status: &str, extra: &str, body: &[u8]| {
        let length = body.len();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{extra}\r\n")?;
        stream.write_all(body)
    };
    if shelf.token.is_some_and(|token| headers.get("authorization") != Some(&format!("Bearer {token}"))) {
        return reply("401 Unauthorized", "", b"");
    }
    if path.starts_with("/api/") && path.ends_with("/revision/main") {
        let list = shelf.files.iter().map(|(name, _)| format!("{{\"rfilename\": \"{name}\"}}")).collect::<Vec<_>>();
        let body = format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", list.join(", "));
        return reply("200 OK", "Content-Type: application/json\r\n", body.as_bytes());
    }
    let name = path.split_once(&format!("/resolve/{COMMIT}/")).map(|(_, name)| name).unwrap_or_default();
    let Some((name, bytes)) = shelf.files.iter().find(|(n, _)| *n == name) else {
        return reply("404 Not Found", "", b"");
    };
    let total = bytes.len();
    let etag = name.replace('/', "_");
    let about = |range: &str| {
        format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {range}/{total}\r\n")
    };
    match headers.get("range").map(String::as_str) {
        Some("bytes=0-0") => reply("206 Partial Content", &about("0-0"), &bytes[..1]),
        _ => {
            let sent = if shelf.broken == Some(name) { &bytes[..total / 2] } else { bytes };
            reply("206 Partial Content", &about(&format!("0-{}", total - 1)), sent)
        }
    }
}

fn hub(cache: &Path, endpoint: &str, token: Option<&str>) -> Hub {
    Hub { cache: cache.into(), endpoint: endpoint.into(), token: token.map(Into::into), offline: false }
}

const DATA: &[(&str, &[u8])] = &[
    ("README.md", b"# a set"),
    (".gitattributes", b"x"),
    ("data/train-00000-of-00001.jsonl", b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n"),
    ("data/test-00000-of-00001.jsonl", b"{\"text\": \"three\"}\n"),
    ("../outside.jsonl", b"{}"),
];

#[test]
fn a_data_set_is_downloaded_once_and_then_read_from_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let (address, shelf) = serve(Shelf { files: DATA.to_vec(), token: Some("secret"), ..Shelf::default() });
    let hub = hub(cache.path(), &address, Some("secret"));
    let source = DataFiles::named(&["someone/some-set".into()], &hub).unwrap();
    assert_eq!(source.load("train+test").unwrap().len(), 3);
    let root = cache.path().join("datasets--someone--some-set");
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    let snapshot = root.join("snapshots").join(COMMIT);
    assert!(snapshot.join("data/test-00000-of-00001.jsonl").exists());
    assert!(!snapshot.join("README.md").exists(), "only data is downloaded");
    assert!(!root.join("snapshots/outside.jsonl").exists(), "and nothing outside of the snapshot is written");
    let asked = shelf.asked.lock().unwrap().len();
    assert_eq!(hub.snapshot(Kind::Dataset, "someone/some-set", None).unwrap(), snapshot);
    assert_eq!(hub.snapshot(Kind::Dataset, "someone/some-set", Some(COMMIT)).unwrap(), snapshot);
    assert_eq!(shelf.asked.lock().unwrap().len(), asked, "nothing more is asked");
}

#[test]
fn a_model_brings_what_training_needs() {
    let cache = tempfile::tempdir().unwrap();
    let files =
        ["config.json", "tokenizer.model", "model-1.safetensors", "consolidated.00.safetensors", "pytorch_model.bin"];
    let (address, shelf) = serve(Shelf { files: files.map(|f| (f, &b"abc"[..])).to_vec(), ..Shelf::default() });
    let hub = hub(cache.path(), &address, None);
    let folder = hub.model("owner/model", None).unwrap();
    let has = files.map(|file| folder.join(file).exists());
    assert_eq!(has, [true, true, true, false, false]);
    assert!(shelf.asked.lock().unwrap()[0].starts_with("/api/models/owner/model/revision/main"));
    assert_eq!(hub.model(cache.path().to_str().unwrap(), None).unwrap(), cache.path(), "a folder is itself");
}

#[test]
fn a_tokenizer_comes_without_its_model_and_is_not_taken_for_it() {
    let cache = tempfile::tempdir().unwrap();
    let files = ["config.json", "tokenizer.model", "tokenizer_config.json", "model-1.safetensors"];
    let (address, shelf) = serve(Shelf { files: files.map(|f| (f, &b"abc"[..])).to_vec(), ..Shelf::default() });
    let hub = hub(cache.path(), &address, None);
    let folder = hub.tokenizer("owner/model").unwrap();
    assert_eq!(files.map(|file| folder.join(file).exists()), [false, true, true, false]);
    let asked = shelf.asked.lock().unwrap().len();
    assert_eq!(hub.tokenizer("owner/model").unwrap(), folder);
    assert_eq!(shelf.asked.lock().unwrap().len(), asked, "nothing more is asked");
    assert_eq!(hub.cached(Kind::Model, "owner/model", "main"), None, "the model is not there");
    assert_eq!(hub.model("owner/model", None).unwrap(), folder);
    assert!(files.iter().all(|file| folder.join(file).exists()));
}

#[test]
fn a_gated_model_names_its_licence_page() {
    let cache = tempfile::tempdir().unwrap();
    let (address, _) = serve(Shelf { token: Some("other"), ..Shelf::default() });
    let error = hub(cache.path(), &address, None).model("owner/gated", None).unwrap_err().to_string();
    assert!(error.contains("401"), "{error}");
    assert!(error.ends_with(&format!(
        "hint: accept its licence at {address}/owner/gated, then set HF_TOKEN to a token of that account"
    )));
}

#[test]
fn an_interrupted_download_is_taken_up_again() {
    let cache = tempfile::tempdir().unwrap();
    let broken = Some("data/test-00000-of-00001.jsonl");
    let (address, _) = serve(Shelf { files: DATA.to_vec(), broken, ..Shelf::default() });
    let error = hub(cache.path(), &address, None).snapshot(Kind::Dataset, "a/b", None).unwrap_err().to_string();
    assert!(error.contains("bytes arrived"), "{error}");
    let broken = hub(cache.path(), &address, None);
    assert_eq!(broken.cached(Kind::Dataset, "a/b", "main"), None);
    assert_eq!(broken.cached(Kind::Dataset, "a/b", COMMIT), None);
    let (address, _) = serve(Shelf { files: DATA.to_vec(), ..Shelf::default() });
    let source = DataFiles::named(&["a/b".into()], &hub(cache.path(), &address, None)).unwrap();
    assert_eq!(source.load("train+test").unwrap().len(), 3);
}

#[test]
fn what_cannot_be_reached_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let (address, _) = serve(Shelf::default());
    let hub = hub(cache.path(), &address, None);
    let error = hub.snapshot(Kind::Dataset, "a/none", None).unwrap_err().to_string();
    assert!(error.contains("none of the files that a data set needs"), "{error}");
    let error = hub.snapshot(Kind::Dataset, "a/none", Some("v2")).unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("check the name and the revision"), "{error}");
    let offline = Hub { offline: true, ..hub.clone() };
    assert!(offline.snapshot(Kind::Dataset, "a/b", None).unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
    let nowhere = Hub { endpoint: "http://127.0.0.1:1".into(), ..hub.clone() };
    assert!(nowhere.model("a/b", None).unwrap_err().to_string().contains("without a network"));
    assert!(hub.model("no such folder", None).unwrap_err().to_string().contains("it is no hub id"));
    assert!(
        is_id("a-b/c_d.e") && !is_id("nowhere") && !is_id("a/b/c") && !is_id("../x") && !is_id("a/") && !is_id("./a")
    );
}

#[test]
fn the_environment_is_read_as_the_python_library_reads_it() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), "from-file\n").unwrap();
    let at = home.path().to_str().unwrap().to_string();
    let names = |pairs: &[(&str, &str)]| {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Hub::from_names(move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    };
    let hub = names(&[("HF_HOME", &at), ("HF_ENDPOINT", "http://mirror/")]);
    assert_eq!((hub.cache, hub.token.as_deref()), (home.path().join("hub"), Some("from-file")));
    assert_eq!((hub.endpoint.as_str(), hub.offline), ("http://mirror", false));
    let hub = names(&[("HF_HUB_CACHE", "/c"), ("HF_TOKEN", "t"), ("HF_HUB_OFFLINE", "1"), ("HOME", "/h")]);
    assert_eq!((hub.cache.to_str(), hub.token.as_deref(), hub.offline), (Some("/c"), Some("t"), true));
    assert_eq!(names(&[("HOME", "/h")]).cache, Path::new("/h/.cache/huggingface/hub"));
    assert_eq!(names(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
}
