//! No run overwrites, truncates or removes a file of the user that it was not told to, directly or through a link.

use crate::folder::{Folder, RECIPE, Said};

fn train(folder: &Folder, more: &[&str]) -> Said {
    folder.run(&[&["train", "recipe.toml", "--set", "max_steps=2"], more].concat())
}

fn read(folder: &Folder, name: &str) -> String {
    std::fs::read_to_string(folder.path(name)).expect("read")
}

#[test]
fn a_recipe_in_the_run_folder_stays() {
    let folder = Folder::new();
    let mine = format!("# my notes\n{}", RECIPE.replace("\"run\"", "\"own\""));
    folder.text("own/recipe.toml", &mine);
    for more in [&[][..], &["--overwrite"], &["--resume"]] {
        let said = folder.run(&[&["train", "own/recipe.toml"], more].concat());
        said.refused(2, &["own/recipe.toml was not written by a run", "output_dir"]);
        assert_eq!(read(&folder, "own/recipe.toml"), mine);
    }
    assert_eq!(std::fs::read_dir(folder.path("own")).expect("a folder").count(), 1);
    // The resolved recipe of a run is the run's own; after an edit it is the user's.
    train(&folder, &[]).fine();
    folder.run(&["train", "run/recipe.toml", "--resume"]).fine();
    let edited = format!("# an edit\n{}", read(&folder, "run/recipe.toml"));
    folder.text("run/recipe.toml", &edited);
    folder.run(&["train", "run/recipe.toml", "--resume"]).refused(2, &["was changed since"]);
    assert_eq!(read(&folder, "run/recipe.toml"), edited);
}

#[test]
fn written_data_and_pages_replace_no_other_file() {
    let folder = Folder::new();
    let (data, file) = (read(&folder, "data.jsonl"), ["inspect-data", "recipe.toml", "--write"]);
    folder.run(&[&file[..], &["data.jsonl"]].concat()).refused(2, &["data.jsonl exists already", "--overwrite"]);
    let said = folder.run(&[&file[..], &["data.jsonl", "--overwrite"]].concat());
    said.refused(2, &["data.jsonl: the recipe reads this file"]);
    assert_eq!(read(&folder, "data.jsonl"), data);
    folder.run(&[&file[..], &["texts.jsonl"]].concat()).fine();
    folder.run(&[&file[..], &["texts.jsonl"]].concat()).refused(2, &["texts.jsonl exists already"]);
    folder.run(&[&file[..], &["texts.jsonl", "--overwrite"]].concat()).fine();
    train(&folder, &[]).fine();
    let metrics = read(&folder, "run/metrics.jsonl");
    folder.run(&["report", "run", "--out", "run/metrics.jsonl"]).refused(2, &["was not written by this command"]);
    let svg = ["plan", "recipe.toml", "--svg"];
    folder.run(&[&svg[..], &["data.jsonl"]].concat()).refused(2, &["was not written by this command"]);
    assert_eq!(read(&folder, "data.jsonl"), data);
    folder.run(&[&svg[..], &["arena.svg"]].concat()).fine();
    folder.run(&[&svg[..], &["arena.svg"]].concat()).fine();
    assert_eq!(read(&folder, "run/metrics.jsonl"), metrics);
    // The page of an earlier report is replaced.
    folder.run(&["report", "run"]).fine();
    folder.run(&["report", "run"]).fine();
}

#[test]
fn an_empty_folder_name_is_refused() {
    let folder = Folder::new();
    train(&folder, &["--set", "output_dir=\"\""]).refused(2, &["output_dir is empty"]);
    train(&folder, &["--set", "adapter_dir=\"\""]).refused(2, &["adapter_dir is empty"]);
    assert!(!folder.path("recipe.toml.partial").exists() && !folder.path(".lock").exists());
}

#[cfg(unix)]
#[test]
fn links_are_not_followed_to_write_or_to_remove() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    folder.text("mine.txt", "mine");
    std::fs::create_dir(folder.path("run")).expect("created");
    for name in [".lock", "recipe.toml.partial", ".recipe.toml.partial", "run.json.partial", ".probe"] {
        symlink("../mine.txt", folder.path("run").join(name)).expect("linked");
    }
    train(&folder, &[]).refused(2, &["run/.lock is not a file"]);
    std::fs::remove_file(folder.path("run/.lock")).expect("removed");
    folder.text("run/.lock", "my lock");
    folder.text("adapter/.probe", "mine");
    train(&folder, &["--set", "adapter_dir=adapter"]).fine();
    assert_eq!((read(&folder, "run/.lock"), read(&folder, "adapter/.probe")), ("my lock".into(), "mine".into()));
    // A linked checkpoint of another run loses its link only.
    train(&folder, &["--set", "output_dir=other"]).fine();
    symlink("../run/checkpoint-2", folder.path("other/checkpoint-9")).expect("linked");
    train(&folder, &["--set", "output_dir=other", "--overwrite"]).fine();
    assert!(folder.path("run/checkpoint-2/checksums.json").is_file() && !folder.path("other/checkpoint-9").exists());
    assert_eq!(read(&folder, "mine.txt"), "mine");
    // A result that is a link, even a dangling one, is a result.
    symlink("../nothing", folder.path("adapter/x")).expect("linked");
    std::fs::create_dir(folder.path("third")).expect("created");
    symlink("../fresh.txt", folder.path("third/metrics.jsonl")).expect("linked");
    train(&folder, &["--set", "output_dir=third"]).refused(2, &["third already holds the results"]);
    assert!(!folder.path("fresh.txt").exists());
}

#[cfg(unix)]
#[test]
fn two_runs_cannot_share_an_adapter_folder() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("adapter")).expect("created");
    let lock = std::fs::File::create(folder.path("adapter/.lock")).expect("created");
    lock.lock().expect("locked");
    let said = train(&folder, &["--set", "adapter_dir=adapter"]);
    said.refused(4, &["adapter_dir: another run is writing to adapter"]);
    drop(lock);
    train(&folder, &["--set", "adapter_dir=adapter"]).fine();
    // The same folder under two names is locked once.
    train(&folder, &["--set", "output_dir=both", "--set", "adapter_dir=./both"]).fine();
}

#[cfg(unix)]
#[test]
fn files_of_the_quickstart_obey_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::empty();
    // The run is refused after the files are written.
    folder.run(&["quickstart", "--set", "r=0"]).refused(2, &["`r`"]);
    folder.text("plain", "");
    let mode = |name: &str| std::fs::metadata(folder.path(name)).expect("a file").permissions().mode();
    for name in ["recipe.toml", "train.jsonl", "model/model.safetensors"] {
        assert_eq!(mode(&format!("quickstart/{name}")), mode("plain"), "{name}");
    }
}

#[test]
fn an_interrupted_removal_is_finished_by_the_next_start() {
    let folder = Folder::new();
    train(&folder, &[]).fine();
    // As a kill within --overwrite leaves the folder: marked, and with some of the results.
    let marked = read(&folder, "run/run.json").replacen('{', "{\"clearing\": true,", 1);
    folder.text("run/run.json", &marked);
    std::fs::remove_file(folder.path("run/adapter_config.json")).expect("removed");
    folder.run(&["generate", "run", "what comes after 3?"]).refused(3, &["run"]);
    let said = train(&folder, &["--resume"]).fine();
    assert!(said.out.contains("--overwrite was removing the results in run"), "{}", said.out);
    assert!(!read(&folder, "run/run.json").contains("clearing"));
    // The next start also removes the rest of a checkpoint whose removal was killed.
    for name in ["checkpoint-1.partial", "checkpoint-1.removed"] {
        folder.text(&format!("run/{name}/trainer_state.json"), "{}");
    }
    train(&folder, &["--resume"]).fine();
    assert!(!folder.path("run/checkpoint-1.partial").exists() && !folder.path("run/checkpoint-1.removed").exists());
}
