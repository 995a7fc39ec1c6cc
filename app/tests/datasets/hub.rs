//! Hub ids: the layout of the cache, and downloads from a server that imitates the hub or sends wrong data.

use std::path::Path;

use crate::hub_server::{COMMIT, Shelf, serve};
use halfbyte::data::source::DataFiles;
use halfbyte::hub::{Content, Hub, is_id};

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
    let (address, shelf) = serve(Shelf { token: Some("secret"), ..Shelf::new(DATA) });
    let hub = hub(cache.path(), &address, Some("secret"));
    let source = DataFiles::named(&["someone/some-set".into()], &hub).unwrap();
    assert_eq!(source.load("train+test").unwrap().len(), 3);
    let root = cache.path().join("datasets--someone--some-set");
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    let snapshot = root.join("snapshots").join(COMMIT);
    assert!(snapshot.join("data/test-00000-of-00001.jsonl").exists());
    assert!(!snapshot.join("README.md").exists(), "only data is downloaded");
    assert!(!root.join("snapshots/outside.jsonl").exists(), "and nothing outside of the snapshot is written");
    let asked = shelf.requests();
    assert_eq!(hub.snapshot(Content::Dataset, "someone/some-set", None).unwrap(), snapshot);
    assert_eq!(hub.snapshot(Content::Dataset, "someone/some-set", Some(COMMIT)).unwrap(), snapshot);
    assert_eq!(shelf.requests(), asked, "nothing more is asked");
}

/// The files of a model, and others that are not needed.
const MODEL: [&str; 6] = [
    "config.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "model.safetensors",
    "consolidated.00.safetensors",
    "pytorch_model.bin",
];

fn model() -> Shelf {
    Shelf::new(&MODEL.map(|name| (name, &b"abc"[..])))
}

#[test]
fn of_a_model_only_what_is_asked_for_is_downloaded() {
    let cache = tempfile::tempdir().unwrap();
    let (address, shelf) = serve(model());
    let hub = hub(cache.path(), &address, None);
    let mut fetched = 0;
    for (content, has) in [
        (Content::Tokenizer, [false, true, true, false, false, false]),
        (Content::Description, [true, true, true, false, false, false]),
        (Content::Model, [true, true, true, true, false, false]),
    ] {
        assert_eq!(hub.cached(content, "owner/model", "main"), None, "{content:?} is not there yet");
        let folder = hub.folder(content, "owner/model", None).unwrap();
        assert_eq!(MODEL.map(|file| folder.join(file).exists()), has, "{content:?}");
        let asked = shelf.requests();
        assert!(asked > fetched);
        for revision in ["main", COMMIT] {
            assert_eq!(hub.snapshot(content, "owner/model", Some(revision)).unwrap(), folder);
        }
        assert_eq!(shelf.requests(), asked, "nothing more is asked");
        fetched = asked;
    }
    assert!(shelf.asked.lock().unwrap()[0].starts_with("/api/models/owner/model/revision/main"));
    assert!(!shelf.was_asked_for("pytorch_model.bin") && !shelf.was_asked_for("consolidated.00.safetensors"));
    assert_eq!(hub.folder(Content::Model, cache.path().to_str().unwrap(), None).unwrap(), cache.path());
}

#[test]
fn a_model_of_which_a_shard_is_missing_is_not_whole() {
    let cache = tempfile::tempdir().unwrap();
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 4] = [
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", b"abc"),
        ("model-2.safetensors", b"def"),
    ];
    let (address, _) = serve(Shelf::new(&files));
    let hub = hub(cache.path(), &address, None);
    let folder = hub.snapshot(Content::Model, "a/b", None).unwrap();
    assert_eq!(hub.cached(Content::Model, "a/b", "main").as_deref(), Some(folder.as_path()));
    // The cache after a Python program that downloaded only some of the files.
    std::fs::remove_file(folder.join("model-2.safetensors")).unwrap();
    assert_eq!(hub.cached(Content::Model, "a/b", "main"), None);
    hub.snapshot(Content::Model, "a/b", None).unwrap();
    assert_eq!(std::fs::read(folder.join("model-2.safetensors")).unwrap(), b"def");
}

#[test]
fn what_the_disk_has_no_room_for_is_not_begun() {
    let cache = tempfile::tempdir().unwrap();
    let (address, shelf) = serve(Shelf { claimed_size: Some(1 << 60), ..model() });
    let error = hub(cache.path(), &address, None).snapshot(Content::Model, "a/b", None).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let text = error.to_string();
    assert!(text.contains("needs 4611686018.4 GB") && text.contains("HF_HOME"), "{text}");
    assert_eq!(shelf.requests(), 1, "only the list was asked for");
}

#[test]
fn an_etag_never_leads_out_of_the_cache() {
    let outside = tempfile::tempdir().unwrap();
    for etag in ["../../../../outside", "/outside", "..", ".hidden", "a/b", "a\\b", ""] {
        let cache = outside.path().join("1/2/3/4/5");
        let (address, _) = serve(Shelf { etag: Some(etag), ..model() });
        let error = hub(&cache, &address, None).snapshot(Content::Model, "a/b", None).unwrap_err().to_string();
        assert!(error.contains("ETag"), "{error}");
        let names = |folder: &Path| std::fs::read_dir(folder).map_or(0, Iterator::count);
        assert_eq!((names(outside.path()), names(&cache.join("models--a--b/blobs"))), (1, 0), "{etag:?}");
    }
}

#[test]
fn the_token_is_shown_to_the_hub_alone() {
    let cache = tempfile::tempdir().unwrap();
    let (store, there) = serve(model());
    // The same machine under another name is another host.
    let store = store.replace("127.0.0.1", "localhost");
    let (address, shelf) = serve(Shelf { token: Some("secret"), elsewhere: Some(store), ..model() });
    let folder = hub(cache.path(), &address, Some("secret")).snapshot(Content::Model, "a/b", None).unwrap();
    assert_eq!(std::fs::read(folder.join("config.json")).unwrap(), b"abc");
    assert!(shelf.tokens.lock().unwrap().iter().all(|token| token.as_deref() == Some("Bearer secret")));
    let shown = there.tokens.lock().unwrap();
    assert!(!shown.is_empty() && shown.iter().all(Option::is_none), "{shown:?}");
}

#[test]
fn a_gated_model_names_its_license_page() {
    let cache = tempfile::tempdir().unwrap();
    let (address, _) = serve(Shelf { token: Some("other"), ..Shelf::default() });
    let error =
        hub(cache.path(), &address, None).snapshot(Content::Model, "owner/gated", None).unwrap_err().to_string();
    assert!(error.contains("401"), "{error}");
    assert!(error.ends_with(&format!(
        "hint: accept its license at {address}/owner/gated, then set HF_TOKEN to a token of that account"
    )));
}

#[test]
fn an_interrupted_download_is_taken_up_again() {
    let cache = tempfile::tempdir().unwrap();
    let broken = Some("data/test-00000-of-00001.jsonl");
    let (address, _) = serve(Shelf { broken, ..Shelf::new(DATA) });
    let error = hub(cache.path(), &address, None).snapshot(Content::Dataset, "a/b", None).unwrap_err().to_string();
    assert!(error.contains("bytes arrived"), "{error}");
    let broken = hub(cache.path(), &address, None);
    assert_eq!(broken.cached(Content::Dataset, "a/b", "main"), None);
    assert_eq!(broken.cached(Content::Dataset, "a/b", COMMIT), None);
    let (address, _) = serve(Shelf::new(DATA));
    let source = DataFiles::named(&["a/b".into()], &hub(cache.path(), &address, None)).unwrap();
    assert_eq!(source.load("train+test").unwrap().len(), 3);
}

#[test]
fn what_cannot_be_reached_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let (address, _) = serve(Shelf::default());
    let hub = hub(cache.path(), &address, None);
    let error = hub.snapshot(Content::Dataset, "a/none", None).unwrap_err().to_string();
    assert!(error.contains("none of the files that a data set needs"), "{error}");
    let error = hub.snapshot(Content::Dataset, "a/none", Some("v2")).unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("the name and the revision"), "{error}");
    let offline = Hub { offline: true, ..hub.clone() };
    assert!(offline.snapshot(Content::Dataset, "a/b", None).unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
    let secret = Hub { endpoint: "http://user:pass@127.0.0.1:1".into(), ..hub.clone() };
    let error = secret.snapshot(Content::Model, "a/b", None).unwrap_err().to_string();
    assert!(!error.contains("pass") && error.contains("from http://127.0.0.1:1"), "{error}");
    let nowhere = Hub { endpoint: "http://127.0.0.1:1".into(), ..hub.clone() };
    assert!(nowhere.folder(Content::Model, "a/b", None).unwrap_err().to_string().contains("without a network"));
    assert!(hub.folder(Content::Model, "no such folder", None).unwrap_err().to_string().contains("no file or folder"));
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
