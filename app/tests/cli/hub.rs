//! Hub ids on the command line: which files each command downloads, and what it prints before.

use crate::folder::{Folder, Said};
use crate::hub_server::{Shelf, serve};
use std::sync::Arc;

const FILES: [&str; 3] = ["config.json", "tokenizer.model", "model.safetensors"];

/// Moves the folder's model to a hub, as `acme/tiny`.
struct Setting {
    folder: Folder,
    endpoint: String,
    shelf: Arc<Shelf>,
}

impl Setting {
    fn new() -> Self {
        let folder = Folder::new();
        let contents = FILES.map(|name| std::fs::read(folder.path("model").join(name)).expect("read"));
        let files: Vec<(&str, &[u8])> = FILES.into_iter().zip(contents.iter().map(Vec::as_slice)).collect();
        let (endpoint, shelf) = serve(Shelf::new(&files));
        std::fs::remove_dir_all(folder.path("model")).expect("removed");
        Self { folder, endpoint, shelf }
    }

    fn run(&self, args: &[&str]) -> Said {
        let cache = self.folder.path("cache").display().to_string();
        let environment =
            [("HF_ENDPOINT", self.endpoint.as_str()), ("HF_HOME", &cache), ("HF_HUB_CACHE", ""), ("HF_TOKEN", "")];
        self.folder.run_with(&environment, args)
    }

    fn weights_were_fetched(&self) -> bool {
        self.shelf.was_asked_for("model.safetensors")
    }
}

#[test]
fn commands_that_need_no_weights_fetch_none() {
    let recipe = ["recipe.toml", "--set", "model_name_or_path=acme/tiny"];
    for command in [
        &[&["plan"][..], &recipe].concat()[..],
        &[&["inspect-data"][..], &recipe].concat(),
        &["inspect", "acme/tiny"],
        &["tokenize", "acme/tiny", "The king"],
    ] {
        let setting = Setting::new();
        let said = setting.run(command).fine();
        assert!(!setting.weights_were_fetched(), "{command:?}");
        let place = format!("downloading acme/tiny from {} (", setting.endpoint);
        assert!(said.err.starts_with(&place) && said.err.contains(" free there"), "{}", said.err);
        let asked = setting.shelf.requests();
        let again = setting.run(command).fine();
        assert_eq!((again.out, again.err), (said.out, String::new()), "the second time from the cache");
        assert_eq!(setting.shelf.requests(), asked);
    }
}

#[test]
fn training_and_generating_fetch_the_weights_and_share_them() {
    let setting = Setting::new();
    setting.run(&["plan", "recipe.toml", "--set", "model_name_or_path=acme/tiny"]).fine();
    setting.run(&["train", "recipe.toml", "--set", "model_name_or_path=acme/tiny"]).fine();
    assert!(setting.weights_were_fetched());
    let asked = setting.shelf.requests();
    setting.run(&["generate", "acme/tiny", "The king", "--max-new-tokens", "2"]).fine();
    setting.run(&["generate", "run", "what comes after 3?", "--max-new-tokens", "2"]).fine();
    let inspected = setting.run(&["inspect", "acme/tiny"]).fine();
    assert!(inspected.out.contains("as config.json says"), "{}", inspected.out);
    assert_eq!(setting.shelf.requests(), asked, "all of it was in the cache");
}

#[test]
fn a_missing_folder_is_said_to_be_missing() {
    let setting = Setting::new();
    let model = |name: &str| format!("model_name_or_path={name}");
    let plan = |name: &str| setting.run(&["plan", "recipe.toml", "--set", &model(name)]);
    // A name in the form of a hub id may have been meant as a folder.
    let said = setting.run(&["plan", "recipe.toml", "--set", &model("models/nothing"), "--set", "revision=v9"]);
    said.refused(3, &["model_name_or_path: there is no folder models/nothing", "404", "check the path"]);
    plan("./models/nothing").refused(3, &["there is no file or folder ./models/nothing", "hint: give a path"]);
    plan("data.jsonl").refused(3, &["data.jsonl is a file", "config.json"]);
    setting.run(&["generate", "nowhere", "text"]).refused(3, &["there is no file or folder nowhere"]);
    setting.run(&["tokenize", "nowhere", "text"]).refused(3, &["there is no file or folder nowhere"]);
    // The name of an architecture.
    plan("mistral-7b-v0.1").refused(2, &["the name of an architecture", "--dummy-weights"]);
    setting.run(&["generate", "mistral-7b-v0.1", "text"]).refused(2, &["the name of an architecture"]);
    let tree = setting.run(&["inspect", "mistral-7b-v0.1", "--tree"]).fine();
    assert!(tree.out.starts_with("MistralForCausalLM"), "{}", tree.out);
}
