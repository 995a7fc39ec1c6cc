//! An interrupted run resumes and ends with the same bits.

use crate::folder::{Folder, Said, program};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Settings with state that a resume must restore: dropout, 8-bit and 32-bit moments (`lm_head` is large enough for the
/// former), an order by length, accumulation, a schedule, evaluations.
const RUN: [&str; 12] = [
    "max_steps=40",
    "save_steps=4",
    "logging_steps=3",
    "eval_strategy=steps",
    "eval_steps=10",
    "lora_dropout=0.1",
    "optim=paged_adamw_8bit",
    "lr_scheduler_type=cosine",
    "group_by_length=true",
    "gradient_accumulation_steps=2",
    "target_modules=[\"q_proj\", \"down_proj\", \"lm_head\"]",
    "r=16",
];

/// `train recipe.toml` with the settings, on the device that `HALFBYTE_DEVICE` names.
fn args<'a>(settings: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", "recipe.toml"];
    args.extend(settings.iter().flat_map(|s| ["--set", s]));
    if on_gpu() {
        args.extend(["--device", "cuda:0", "--set", "bnb_4bit_compute_dtype=bfloat16"]);
    }
    args.extend(more);
    args
}

fn on_gpu() -> bool {
    std::env::var("HALFBYTE_DEVICE").is_ok_and(|d| d.starts_with("cuda"))
}

fn adapter(folder: &Folder, run: &str) -> Vec<u8> {
    std::fs::read(folder.path(run).join("adapter_model.safetensors")).expect("an adapter")
}

/// The records of metrics.jsonl, without times.
fn metrics(folder: &Folder, run: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.path(run).join("metrics.jsonl")).expect("metrics");
    let mut records: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    for record in records.iter_mut().filter_map(Value::as_object_mut) {
        record.retain(|key, _| !["seconds", "per_second", "runtime"].iter().any(|word| key.contains(word)));
    }
    records
}

fn checkpoints(folder: &Folder, run: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path(run)).expect("a run folder");
    let names = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = names.filter(|n| n.starts_with("checkpoint-")).collect();
    found.sort_by_key(|name| name.len());
    found
}

/// Whether a checkpoint is being written.
fn writing(run: &Path) -> bool {
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    entries.map(|e| e.file_name()).any(|name| name.to_string_lossy().ends_with(".partial"))
}

#[test]
fn runs_killed_at_any_moment_go_on_to_the_same_bits() {
    let kills = if on_gpu() { 10 } else { 50 };
    let folder = Folder::new();
    let began = Instant::now();
    folder.run(&args(&RUN, &["--set", "output_dir=whole"])).fine();
    let whole = began.elapsed();
    let (expected, records) = (adapter(&folder, "whole"), metrics(&folder, "whole"));
    let run = folder.path("run");
    let (mut killed, mut inside, mut random) = (0, 0, 7_u64);
    let mut finished = 0;
    while killed < kills {
        let mut child = folder.start(&args(&RUN, &["--resume"]));
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // Half of them at a random moment, half when a checkpoint is being written next.
        let moment = began_after(random, whole);
        let while_writing = killed % 2 == 1;
        let ended = loop {
            if child.try_wait().expect("a child").is_some() {
                break true;
            }
            if if while_writing { writing(&run) } else { moment <= Instant::now() } {
                break false;
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        if ended {
            Said::of(child).fine();
            assert!(adapter(&folder, "run") == expected, "after {killed} kills: another adapter");
            assert_eq!(metrics(&folder, "run"), records, "after {killed} kills");
            finished += 1;
            assert!(finished < 20 * kills, "runs end before they can be killed");
            std::fs::remove_dir_all(&run).expect("removed");
        } else {
            child.kill().expect("killed");
            child.wait().expect("ended");
            killed += 1;
            inside += usize::from(writing(&run));
        }
    }
    folder.run(&args(&RUN, &["--resume"])).fine();
    assert!(adapter(&folder, "run") == expected, "another adapter at the end");
    assert_eq!(metrics(&folder, "run"), records);
    println!("{killed} kills, {inside} inside of a write, {} runs finished", finished + 1);
    assert!(inside > kills / 10, "only {inside} of {kills} kills hit a write");
}

/// A moment within the time that a whole run takes.
fn began_after(random: u64, whole: Duration) -> Instant {
    Instant::now() + whole.mul_f64((random >> 40) as f64 / (1_u64 << 24) as f64)
}

#[test]
fn a_damaged_checkpoint_is_passed_over_aloud() {
    let folder = Folder::new();
    folder.run(&args(&RUN, &[])).fine();
    let expected = adapter(&folder, "run");
    assert_eq!(checkpoints(&folder, "run").len(), 10);
    // A flipped bit, a missing file, a missing marker.
    let state = folder.path("run/checkpoint-40/optimizer.safetensors");
    let mut bytes = std::fs::read(&state).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&state, bytes).expect("written");
    std::fs::remove_file(folder.path("run/checkpoint-36/adapter_model.safetensors")).expect("removed");
    std::fs::remove_file(folder.path("run/checkpoint-32/checksums.json")).expect("removed");
    let said = folder.run(&args(&RUN, &["--resume"])).fine();
    for words in ["checkpoint-40 is skipped", "checkpoint-36 is skipped", "checkpoint-32 is skipped"] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    assert!(said.out.contains("resumed from run/checkpoint-28 (step 28)"), "{}", said.out);
    assert!(adapter(&folder, "run") == expected);
}

#[test]
fn a_finished_run_has_nothing_to_resume_and_a_fresh_folder_says_so() {
    let folder = Folder::new();
    let said = folder.run(&args(&RUN, &["--resume"])).fine();
    assert!(said.out.contains("has no complete checkpoint: the run begins at step 1"), "{}", said.out);
    let before = (adapter(&folder, "run"), metrics(&folder, "run"));
    let said = folder.run(&args(&RUN, &["--resume"])).fine();
    assert!(said.out.contains("checkpoint-40 (step 40)"), "{}", said.out);
    assert!(before == (adapter(&folder, "run"), metrics(&folder, "run")));
}

#[test]
fn old_checkpoints_go_and_the_best_one_stays() {
    let folder = Folder::new();
    folder.run(&args(&RUN, &["--set", "save_total_limit=2"])).fine();
    assert_eq!(checkpoints(&folder, "run"), ["checkpoint-36", "checkpoint-40"]);
    // The learning rate is far too large, so the first evaluation is the best.
    let wild = ["--set", "save_total_limit=2", "--set", "learning_rate=3", "--set", "lr_scheduler_type=constant"];
    let best = ["--set", "load_best_model_at_end=true", "--set", "output_dir=best"];
    let said = folder.run(&args(&RUN, &[&wild[..], &best].concat())).fine();
    let losses: Vec<(u64, f64)> =
        metrics(&folder, "best").iter().filter_map(|r| Some((r["step"].as_u64()?, r["eval_loss"].as_f64()?))).collect();
    let (step, _) = *losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("evaluations");
    assert!(said.out.contains(&format!("the best evaluation was that of step {step}")), "{}", said.out);
    let kept = format!("best/checkpoint-{step}/adapter_model.safetensors");
    assert!(checkpoints(&folder, "best").len() <= 2 && folder.path(&kept).is_file(), "{losses:?}");
    assert!(adapter(&folder, "best") == std::fs::read(folder.path(&kept)).expect("read"));
}

#[test]
fn evaluations_without_gain_end_the_run() {
    let folder = Folder::new();
    let settings = ["--set", "early_stopping_patience=2", "--set", "early_stopping_threshold=1000"];
    let said = folder.run(&args(&RUN, &settings)).fine();
    // The first is the best; the second and the third improve too little.
    assert!(said.out.contains("30 steps") && said.out.contains("stopped early"), "{}", said.out);
    assert!(folder.path("run/adapter_model.safetensors").is_file());
    let before = (adapter(&folder, "run"), metrics(&folder, "run"));
    let again = folder.run(&args(&RUN, &[&settings[..], &["--resume"]].concat())).fine();
    assert!(again.out.contains("30 steps") && again.out.contains("stopped early"), "{}", again.out);
    assert!(before == (adapter(&folder, "run"), metrics(&folder, "run")));
    // With more patience the run continues.
    let more = ["--set", "early_stopping_patience=9", "--resume"];
    assert!(folder.run(&args(&RUN, &more)).fine().out.contains("40 steps"));
    folder
        .run(&["train", "recipe.toml", "--set", "early_stopping_patience=2"])
        .refused(2, &["early_stopping_patience"]);
}

#[test]
fn a_changed_recipe_is_refused_or_reported() {
    let folder = Folder::new();
    folder.run(&args(&RUN, &["--set", "max_steps=8"])).fine();
    for (setting, key) in
        [("r=8", "r"), ("seed=1", "seed"), ("optim=adamw_torch", "optim"), ("max_seq_length=16", "max_seq_length")]
    {
        let said = folder.run(&args(&RUN, &["--set", "max_steps=12", "--set", setting, "--resume"]));
        said.refused(2, &["checkpoint-8", &format!("`{key}` was"), "output_dir"]);
    }
    let said = folder.run(&args(&RUN, &["--set", "max_steps=12", "--set", "learning_rate=0.001", "--resume"])).fine();
    assert!(said.out.contains("`max_steps` was 8 and is now 12"), "{}", said.out);
    assert!(said.out.contains("`learning_rate` was 0.01 and is now 0.001"), "{}", said.out);
    folder.run(&args(&RUN, &["--set", "max_steps=6", "--resume"])).refused(2, &["step 12", "max_steps"]);
    let rows: Vec<String> = (0..24).map(|i| format!(r#"{{"question": "a", "answer": "{i}"}}"#)).collect();
    folder.text("data.jsonl", &rows.join("\n"));
    folder.run(&args(&RUN, &["--set", "max_steps=20", "--resume"])).refused(3, &["the training data has changed"]);
}

/// Runs `args` with files limited to `kib` KiB: writing more fails, as on a full disk.
#[cfg(unix)]
fn limited(folder: &Folder, kib: usize, args: &[&str]) -> Said {
    let mut command = Command::new("bash");
    // The signal is ignored, so that the write fails instead.
    command.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", &kib.to_string()]).arg(program()).args(args);
    Said::of(folder.start_command(command))
}

#[cfg(unix)]
#[test]
fn a_full_disk_stops_the_run_and_leaves_the_checkpoint_before() {
    let folder = Folder::new();
    folder.run(&args(&RUN, &[])).fine();
    let expected = adapter(&folder, "run");
    for step in [24, 28, 32, 36, 40] {
        std::fs::remove_dir_all(folder.path(&format!("run/checkpoint-{step}"))).expect("removed");
    }
    let files = |name: &str| -> Vec<(PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(folder.path(name)).expect("a checkpoint").map(|e| e.expect("an entry").path());
        entries.map(|path| (path.clone(), std::fs::read(path).expect("read"))).collect()
    };
    let before = files("run/checkpoint-20");
    let said = limited(&folder, 8, &args(&RUN, &["--resume"]));
    said.refused(4, &["checkpoint of step 24", "cannot write", "ulimit -f", "--resume takes run/checkpoint-20"]);
    assert!(files("run/checkpoint-20") == before);
    assert_eq!(checkpoints(&folder, "run").last().map(String::as_str), Some("checkpoint-20"));
    folder.run(&args(&RUN, &["--resume"])).fine();
    assert!(adapter(&folder, "run") == expected);
}

#[test]
fn a_loss_that_is_not_a_number_loses_nothing() {
    let folder = Folder::new();
    let wild = ["--set", "learning_rate=1e30", "--set", "lr_scheduler_type=constant", "--set", "max_grad_norm=0"];
    let said = folder.run(&args(&RUN, &[&wild[..], &["--set", "save_strategy=no"]].concat()));
    said.refused(5, &["is not finite on the rows ", "--resume"]);
    let entries = std::fs::read_dir(folder.path("run")).expect("a run").map(|e| e.expect("an entry").file_name());
    let mut kept = entries.filter_map(|name| name.to_str()?.strip_prefix("diverged-").map(String::from));
    let step: usize = kept.next().expect("the state before").parse().expect("a step");
    assert!(kept.next().is_none() && checkpoints(&folder, "run").is_empty());
    assert!(said.err.contains(&format!("step {}:", step + 1)), "{}", said.err);
    // The rows are those that inspect-data shows under these numbers.
    let rows = said.err.split("--row ").nth(1).and_then(|text| text.split('`').next()).expect("a command");
    let shown = folder.run(&["inspect-data", "recipe.toml", "--row", rows]).fine().out;
    let heads: Vec<&str> = shown.lines().filter(|line| line.starts_with("row ")).collect();
    assert_eq!(heads, rows.split(',').map(|row| format!("row {row}:")).collect::<Vec<_>>());
    folder.run(&["inspect-data", "recipe.toml", "--row", "0"]).refused(2, &["--row 0", "rows are numbered 1 to"]);
    folder.run(&["inspect-data", "recipe.toml", "--row", "999"]).refused(2, &["--row 999"]);
}

#[test]
fn a_checkpoint_of_the_state_that_failed_pushes_no_good_one_out() {
    let folder = Folder::new();
    folder.run(&args(&RUN, &["--set", "max_steps=4"])).fine();
    let wild = ["--set", "learning_rate=1e30", "--set", "max_grad_norm=0", "--set", "save_total_limit=1", "--resume"];
    folder.run(&args(&RUN, &wild)).refused(5, &[" on the rows "]);
    let kept = checkpoints(&folder, "run");
    assert_eq!(kept, ["checkpoint-4"]);
}

#[test]
fn what_cannot_be_gone_on_from_is_not_begun_anew_unasked() {
    let folder = Folder::new();
    folder.run(&args(&RUN, &["--set", "save_strategy=no"])).fine();
    let before = (adapter(&folder, "run"), metrics(&folder, "run"));
    folder.run(&args(&RUN, &["--resume"])).refused(2, &["from a run without checkpoints", "--overwrite"]);
    assert!(before == (adapter(&folder, "run"), metrics(&folder, "run")));
    folder.run(&args(&RUN, &["--set", "output_dir=one", "--set", "max_steps=2"])).fine();
    std::fs::remove_file(folder.path("one/checkpoint-2/checksums.json")).expect("removed");
    folder
        .run(&args(&RUN, &["--set", "output_dir=one", "--resume"]))
        .refused(2, &["one/checkpoint-2 is skipped", "--overwrite"]);
}

#[test]
fn the_evaluation_at_the_end_may_be_the_best() {
    let folder = Folder::new();
    folder.run(&args(&RUN, &["--set", "max_steps=12"])).fine();
    let all = metrics(&folder, "run");
    let evals: Vec<&Value> = all.iter().filter(|r| r["eval_loss"].is_number()).collect();
    assert_eq!(evals.iter().map(|r| r["step"].as_u64().expect("a step")).collect::<Vec<_>>(), [10, 12]);
    let best =
        evals.iter().min_by(|a, b| a["eval_loss"].as_f64().unwrap().total_cmp(&b["eval_loss"].as_f64().unwrap()));
    let text = std::fs::read_to_string(folder.path("run/trainer_state.json")).expect("read");
    let state: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(Some(&&state["best_global_step"]), best.map(|r| &r["step"]).as_ref());
    assert_eq!(state["best_global_step"], 12, "the loss falls");
}

#[test]
fn samples_are_taken_along_the_way() {
    let folder = Folder::new();
    let settings = ["--set", "sample_prompts=[\"Q: what\", \"Q: who\"]", "--set", "sample_max_new_tokens=3"];
    folder.run(&args(&RUN, &settings)).fine();
    let all = metrics(&folder, "run");
    let taken: Vec<&Value> = all.iter().filter(|r| r["samples"].is_array()).collect();
    assert_eq!(taken.iter().map(|r| r["step"].as_u64().expect("a step")).collect::<Vec<_>>(), [10, 20, 30, 40]);
    assert!(taken.iter().all(|r| r["samples"].as_array().is_some_and(|s| s.len() == 2 && s[1]["prompt"] == "Q: who")));
    // A checkpoint is also written after the last step, unless the strategy is "no".
    let short = ["--set", "max_steps=1", "--set", "output_dir=short"];
    let taken = |more: &[&str]| {
        folder.run(&args(&RUN, &[&settings[..], &short, &["--overwrite"], more].concat())).fine();
        metrics(&folder, "short").iter().filter(|r| r["samples"].is_array()).count()
    };
    assert_eq!((taken(&[]), taken(&["--set", "eval_strategy=no"]), taken(&["--set", "sample_strategy=no"])), (1, 1, 0));
    let long = format!("sample_prompts=[\"{}\"]", "long ".repeat(200));
    folder.run(&args(&RUN, &["--set", &long, "--set", "output_dir=no"])).refused(2, &["sample_prompts", "tokens"]);
    assert!(!folder.path("no").exists());
}
