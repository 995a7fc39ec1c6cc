//! The files of the trackers: TensorBoard and W&B.

use crate::decode::{Events, WandbRun, events, wandb};
use crate::folder::Folder;
use halfbyte::config::recipe::Recipe;
use halfbyte::track::{Resumed, RunDescription, Trackers};
use serde_json::{Value, json};
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
    let long = format!("{{{{ x }}}}{}", "x".repeat(70_000));
    let text = format!("model_name_or_path = \"m\"\nreport_to = \"all\"\ntemplate = \"{long}\"\ntext_column = \"t\"");
    let text = text.replace("text_column = \"t\"", "run_name = \"a name\"");
    let recipe = Recipe::parse(&text, "r.toml", &[]).expect("a recipe");
    let resolved = recipe.resolved_toml();
    let start = |resumed| RunDescription { folder: folder.path(), recipe: &resolved, resumed };
    let record = |step: usize, loss: f64| json!({"step": step, "loss": loss, "system.gpu.0.temp": 50 + step});
    let resumed = {
        let mut trackers = Trackers::open(&recipe.training, start(None)).expect("opened");
        let files = trackers.files().into_iter().map(Path::to_path_buf).collect();
        let mut wandb_bytes = None;
        for step in 1..=5 {
            trackers.log(&record(step, 1.0)).expect("logged");
            // The checkpoint.
            if step == 3 {
                wandb_bytes = trackers.flush().expect("flushed");
            }
        }
        trackers.log(&json!({"step": 3, "samples": []})).expect("nothing to draw");
        Resumed { step: 3, files, wandb_bytes }
    };
    // A kill in the middle of a record.
    let log = entries(&entries(&folder.path().join("wandb"))[0]);
    let log = log.iter().find(|p| p.extension().is_some()).expect("a log");
    let bytes = std::fs::read(log).expect("read");
    std::fs::write(log, &bytes[..bytes.len() - 3]).expect("cut");

    let mut trackers = Trackers::open(&recipe.training, start(Some(&resumed))).expect("opened again");
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
    assert!(times.is_sorted(), "times ascend: {times:?}");
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

/// The JSON values in the lines of a file or of an output.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn json_file(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("JSON")
}

#[test]
fn a_run_tells_its_trackers_what_it_tells_its_log() {
    let folder = Folder::new();
    let settings = ["report_to=all", "run_name=first try", "eval_strategy=steps", "eval_on_start=true"];
    // A batch of one row needs no padding.
    let settings = settings.iter().chain(&["per_device_train_batch_size=1"]);
    let args: Vec<&str> = ["train", "recipe.toml"].into_iter().chain(settings.flat_map(|s| ["--set", *s])).collect();
    let said = folder.run(&args).fine();
    for words in ["Step  Training Loss  Validation Loss", "No log", "run history:", "▁", "total_flos"] {
        assert!(said.out.contains(words), "{words:?} is not in:\n{}", said.out);
    }
    assert!(said.out.contains("look at it with: tensorboard --logdir run/runs\n"), "{}", said.out);
    assert!(said.out.contains("look at it with: wandb sync run/wandb/offline-run-"), "{}", said.out);

    let metrics = lines(&std::fs::read_to_string(folder.path("run/metrics.jsonl")).expect("read"));
    let of = |name: &str| -> Vec<(u64, f64)> {
        metrics.iter().filter_map(|r| Some((r["step"].as_u64()?, r[name].as_f64()?))).collect()
    };
    let results = metrics.last().expect("results");
    let files = entries(&folder.path("run/runs/first try"));
    assert_eq!(files.len(), 1, "{files:?}");
    let board = events(&files[0]);
    for (tag, name) in [("train/loss", "loss"), ("train/learning_rate", "learning_rate"), ("eval/loss", "eval_loss")] {
        let rounded: Vec<_> = of(name).into_iter().map(|(step, x)| (step, x as f32)).collect();
        assert!(rounded.len() >= 3 && board.scalars[tag] == rounded, "{tag}: {:?}, {rounded:?}", board.scalars[tag]);
    }
    assert_eq!(board.scalars["eval/loss"][0].0, 0, "before the first step");
    assert_eq!(board.scalars["train/train_loss"][0].1, results["train_loss"].as_f64().expect("a number") as f32);
    let recipe = std::fs::read_to_string(folder.path("run/recipe.toml")).expect("read");
    assert!(board.texts["recipe/text_summary"].contains(recipe.trim_end()));

    let run = wandb_log(&folder.path("run"));
    assert_eq!((run.name.as_str(), run.exits.as_slice()), ("first try", &[0][..]));
    assert_eq!((run.config["learning_rate"].as_str(), run.config["optim"].as_str()), ("0.01", "\"adamw_torch\""));
    let number = |text: &str| text.parse::<f64>().expect("a number");
    let rows = run.history.iter().filter_map(|row| Some((number(&row["train/global_step"]), row.get("train/loss")?)));
    let losses: Vec<_> = rows.map(|(step, loss)| (step as u64, number(loss))).collect();
    assert_eq!(losses, of("loss"));
    assert_eq!(number(&run.summary["total_flos"]), results["total_flos"].as_f64().expect("a number"));

    // By hand: projections, norms and head of the model in `folder`, then the adapters.
    let vocabulary = json_file(folder.path("model/config.json"))["vocab_size"].as_u64().expect("a size");
    let base = 64 * 64 * 2 + 32 * 64 * 2 + 64 * 64 * 3 + 64 * 3 + vocabulary * 64;
    let parameters = base + 4 * (64 + 64) + 4 * (64 + 32) + 4 * (64 + 64);
    let tokens = results["tokens"].as_u64().expect("tokens");
    let all = json_file(folder.path("run/all_results.json"));
    assert_eq!(all["total_flos"].as_f64(), Some((6 * tokens * parameters) as f64));
    assert_eq!(all["eval_loss"].as_f64(), of("eval_loss").last().map(|(_, loss)| *loss));
    assert_eq!(all["final_learning_rate"].as_f64(), of("learning_rate").last().map(|(_, rate)| *rate));
    for name in ["epoch", "train_runtime", "train_samples_per_second", "train_steps_per_second", "memory_planned"] {
        assert!(all[name].as_f64().is_some_and(|x| x > 0.0), "{name}: {all}");
    }
    let state = json_file(folder.path("run/trainer_state.json"));
    let log = state["log_history"].as_array().expect("a list");
    let steps: Vec<_> = log.iter().map(|r| (r["step"].as_u64().unwrap_or(99), r["loss"].is_number())).collect();
    assert_eq!(steps, [(0, false), (2, true), (2, false), (4, true), (4, false), (6, true), (6, false), (6, false)]);
    assert_eq!((&state["global_step"], &state["max_steps"]), (&json!(6), &json!(6)));
}

#[test]
fn padding_counts_as_hf_counts_it() {
    let folder = Folder::new();
    let flos_per_token = |set: &[&str]| {
        let args: Vec<&str> = ["train", "recipe.toml", "--overwrite"].into_iter().chain(set.iter().copied()).collect();
        folder.run(&args).fine();
        let all = json_file(folder.path("run/all_results.json"));
        all["total_flos"].as_f64().expect("a number") / all["tokens"].as_f64().expect("a number")
    };
    let alone = flos_per_token(&["--set", "per_device_train_batch_size=1"]);
    assert_eq!(flos_per_token(&["--set", "packing=true"]), alone, "packed rows have no padding");
    // Questions about one-digit and two-digit numbers differ in length.
    assert!(flos_per_token(&[]) > alone * 1.001);
}

#[test]
fn a_resumed_run_stays_in_its_trackers_files() {
    let folder = Folder::new();
    let args = |more: &[&'static str]| -> Vec<&'static str> {
        let set = ["train", "recipe.toml", "--set", "report_to=[\"wandb\", \"tensorboard\"]"];
        set.into_iter().chain(more.iter().copied()).collect()
    };
    folder.run(&args(&["--set", "max_steps=4"])).fine();
    folder.run(&args(&["--resume"])).fine();
    let run = wandb_log(&folder.path("run"));
    let steps: Vec<&str> =
        run.history.iter().filter(|r| r.contains_key("train/loss")).map(|r| r["train/global_step"].as_str()).collect();
    assert_eq!((steps, run.exits), (vec!["2", "4", "6"], vec![0]));
    let boards = entries(&folder.path("run/runs"));
    assert_eq!(boards.len(), 1, "{boards:?}");
    let files = entries(&boards[0]);
    assert_eq!(files.len(), 2, "{files:?}");
    let (first, second) = (events(&files[0]), events(&files[1]));
    assert_eq!((first.starts, second.starts), (vec![0], vec![5]));
    assert_eq!(second.scalars["train/loss"].iter().map(|(step, _)| *step).collect::<Vec<_>>(), [6]);
}

#[test]
fn a_resume_adds_no_row_twice_and_continues_its_own_files() {
    let folder = Folder::new();
    let args = |more: &[&'static str]| -> Vec<&'static str> {
        let set = ["train", "recipe.toml", "--set", "report_to=[\"wandb\", \"tensorboard\"]"];
        set.into_iter().chain(more.iter().copied()).collect()
    };
    // The evaluation at the end is logged after the last checkpoint.
    folder.run(&args(&[])).fine();
    let rows = wandb_log(&folder.path("run")).history.len();
    folder.run(&args(&["--resume"])).fine();
    folder.run(&args(&["--resume"])).fine();
    let run = wandb_log(&folder.path("run"));
    assert_eq!((run.history.len(), run.exits), (rows, vec![0]));

    // A run without a checkpoint starts again, in place of the tracker files that it left.
    for entry in ["run/checkpoint-6", "run/all_results.json", "run/trainer_state.json"] {
        let _ = std::fs::remove_dir_all(folder.path(entry)).or_else(|_| std::fs::remove_file(folder.path(entry)));
    }
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
        std::fs::remove_file(folder.path("run").join(name)).expect("removed");
    }
    folder.run(&args(&["--resume"])).fine();
    assert_eq!(wandb_log(&folder.path("run")).history.len(), rows, "one W&B run");
    let events: usize = entries(&folder.path("run/runs")).iter().map(|board| entries(board).len()).sum();
    assert_eq!(events, 1);

    // After --overwrite there are two W&B runs, and a resume continues the second, whatever the names say.
    let first = entries(&folder.path("run/wandb")).pop().expect("a W&B run");
    let later = first.with_file_name(first.file_name().expect("a name").to_string_lossy().replace("run-2", "run-3"));
    std::fs::rename(&first, &later).expect("renamed");
    let before = folder_bytes(&later);
    folder.run(&args(&["--overwrite", "--set", "max_steps=4"])).fine();
    folder.run(&args(&["--resume"])).fine();
    assert_eq!(entries(&folder.path("run/wandb")).len(), 2);
    assert!(folder_bytes(&later) == before, "the log of the earlier run has changed");
}

/// The contents of the files of a folder.
fn folder_bytes(folder: &Path) -> Vec<Vec<u8>> {
    entries(folder).into_iter().filter(|path| path.is_file()).map(|file| std::fs::read(file).expect("read")).collect()
}

#[test]
fn every_line_of_json_output_is_json() {
    let folder = Folder::new();
    let said = folder.run(&["train", "recipe.toml", "--json", "--set", "eval_strategy=steps"]).fine();
    let events: Vec<Value> = lines(&said.out);
    let kinds: Vec<&str> = events.iter().filter_map(|e| e["event"].as_str()).collect();
    assert_eq!(kinds.len(), events.len());
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("prepared", "finished"));
    assert!(events[events.len() - 1]["summary"]["train_runtime"].is_number());
    let said = folder.run(&["quickstart", "--json", "--set", "max_steps=2"]).fine();
    let exam = lines(&said.out).pop().expect("a line");
    assert_eq!(exam["event"], "exam");
    assert!(exam["after"]["loss"].is_number() && exam["answers"][0]["expected"].is_string(), "{exam}");
}
