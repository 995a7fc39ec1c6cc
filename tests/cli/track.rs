//! The files of the trackers: TensorBoard and W&B.

use crate::decode::{Events, WandbRun, events, wandb};
use crate::folder::Folder;
use halfbyte::config::recipe::Recipe;
use halfbyte::track::{Start, Trackers};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The entries of a folder, sorted.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn wandb_log(run: &Path) -> WandbRun {
    let folders = entries(&run.join("wandb"));
    assert_eq!(folders.len(), 1, "{folders:?}");
    let name = folders[0].file_name().expect("a name").to_str().expect("UTF-8");
    let id = name.rsplit('-').next().expect("an id");
    let run = wandb(&folders[0].join(format!("run-{id}.wandb")));
    assert_eq!(run.id, id);
    run
}

#[test]
fn a_run_that_goes_on_voids_what_was_logged_after_its_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    // A recipe with a text longer than a block of the log.
    let long = "x".repeat(70_000);
    let text = format!("model_name_or_path = \"m\"\nreport_to = \"all\"\ntemplate = \"{long}\"\ntext_column = \"t\"");
    let text = text.replace("text_column = \"t\"", "run_name = \"a name\"");
    let recipe = Recipe::parse(&text, "r.toml", &[]).expect("a recipe");
    let resolved = recipe.resolved_toml();
    let start = |resumed| Start { folder: folder.path(), recipe: &resolved, resumed };
    let record = |step: usize, loss: f64| json!({"step": step, "loss": loss, "system.gpu.0.temp": 50 + step});
    {
        let mut trackers = Trackers::open(&recipe.training, start(None)).expect("opened");
        for step in 1..=5 {
            trackers.log(&record(step, 1.0)).expect("logged");
        }
        trackers.log(&json!({"step": 3, "samples": []})).expect("nothing to draw");
    }
    // A kill in the middle of a record.
    let log = entries(&entries(&folder.path().join("wandb"))[0]);
    let log = log.iter().find(|p| p.extension().is_some()).expect("a log");
    let bytes = std::fs::read(log).expect("read");
    std::fs::write(log, &bytes[..bytes.len() - 3]).expect("cut");

    let mut trackers = Trackers::open(&recipe.training, start(Some(3))).expect("opened again");
    trackers.log(&record(4, 0.5)).expect("logged");
    trackers.log(&json!({"step": 4, "eval_loss": 0.25})).expect("logged");
    trackers.finish(&json!({"train_runtime": 2.5, "steps": 4}), 4).expect("finished");

    let run = wandb_log(folder.path());
    assert_eq!((run.project.as_str(), run.name.as_str()), ("huggingface", "a name"));
    assert_eq!(run.config["template"], format!("\"{long}\""));
    let column =
        |name: &str| -> Vec<&str> { run.history.iter().map(|row| row.get(name).map_or("", String::as_str)).collect() };
    assert_eq!(column("train/global_step"), ["1", "2", "3", "4", "4"]);
    assert_eq!(column("train/loss"), ["1", "1", "1", "0.5", ""]);
    assert_eq!(column("eval/loss"), ["", "", "", "", "0.25"]);
    assert_eq!(column("_step"), ["0", "1", "2", "3", "4"]);
    let times: Vec<f64> = column("_runtime").iter().map(|t| t.parse().expect("a number")).collect();
    assert!(times.is_sorted(), "time goes on: {times:?}");
    assert_eq!((run.summary["train/loss"].as_str(), run.summary["train_runtime"].as_str()), ("0.5", "2.5"));
    assert_eq!(run.exits, [0]);

    let files = entries(&folder.path().join("runs/a name"));
    let [before, after] = &files[..] else { panic!("{files:?}") };
    let (before, after): (Events, Events) = (events(before), events(after));
    assert_eq!((before.starts, after.starts), (vec![0], vec![4]));
    assert_eq!(before.scalars["train/loss"].len(), 5);
    assert_eq!(before.scalars["system/gpu.0.temp"][4], (5, 55.0));
    assert_eq!(after.scalars["train/loss"], [(4, 0.5)]);
    assert_eq!(after.scalars["eval/loss"], [(4, 0.25)]);
    assert_eq!(after.scalars["train/train_runtime"], [(4, 2.5)]);
    assert!(before.texts["recipe/text_summary"].contains("run_name = \"a name\"") && after.texts.is_empty());
}
