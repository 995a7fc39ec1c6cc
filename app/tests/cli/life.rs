//! A run without a terminal prints lines at intervals, saves its progress, and stops if it learns nothing.

use crate::folder::{Folder, RECIPE, Said};
use std::io::{BufRead, BufReader};

/// The recipe without these keys and with these lines.
fn recipe(folder: &Folder, without: &[&str], more: &str) {
    let lines = RECIPE.lines().filter(|line| !without.iter().any(|key| line.starts_with(key)));
    folder.text("recipe.toml", &format!("{}\n{more}\n", lines.collect::<Vec<_>>().join("\n")));
}

fn train(folder: &Folder, sets: &[&str]) -> Said {
    let mut args = vec!["train", "recipe.toml"];
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    folder.run(&args)
}

/// The steps of the lines of the log.
fn logged(said: &Said) -> Vec<usize> {
    let step = |line: &str| line.strip_prefix("step ")?.split_whitespace().next()?.parse().ok();
    said.out.lines().filter(|line| line.contains("grad_norm")).filter_map(step).collect()
}

fn checkpoints(folder: &Folder) -> Vec<String> {
    let names = std::fs::read_dir(folder.path("run")).expect("a run").map(|e| e.expect("an entry").file_name());
    let mut found: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    found.retain(|name| name.starts_with("checkpoint-"));
    found.sort();
    found
}

#[test]
fn without_logging_steps_every_tenth_step_is_logged_and_with_it_what_it_says() {
    let folder = Folder::new();
    recipe(&folder, &["logging_steps"], "");
    assert_eq!(logged(&train(&folder, &["max_steps=25"]).fine()), [10, 20, 25]);
    let said = train(&folder, &["max_steps=25", "logging_steps=500", "output_dir=quiet"]).fine();
    assert_eq!(logged(&said), [25]);
}

#[test]
fn slow_steps_are_announced_after_five_seconds_of_silence() {
    let folder = Folder::new();
    // Fewer than ten steps, so none is logged, and each takes a second or more.
    recipe(&folder, &["logging_steps", "max_steps"], "max_steps = 9\ngradient_accumulation_steps = 1500\n");
    let rows: Vec<String> =
        (0..6004).map(|i| format!(r#"{{"question": "after {i}?", "answer": "{}"}}"#, i + 1)).collect();
    folder.text("data.jsonl", &rows.join("\n"));
    let mut child = folder.start(&["train", "recipe.toml"]);
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let said: Vec<String> =
        lines.map(|line| line.expect("text")).take_while(|line| !line.contains("/9  epoch")).collect();
    let ended = child.try_wait().expect("a child");
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(ended.is_none() && !said.iter().any(|line| line.contains("grad_norm")), "{}", said.join("\n"));
}

#[test]
fn a_checkpoint_by_the_clock_goes_when_the_next_one_is_there() {
    let folder = Folder::new();
    let said = train(&folder, &["save_minutes=0.00001"]).fine();
    assert!(said.out.contains("at the end, and after 0.00001 minutes without one"), "{}", said.out);
    let written = said.out.lines().filter(|line| line.contains("checkpoint in")).count();
    assert_eq!((written, checkpoints(&folder)), (6, vec!["checkpoint-6".to_string()]), "{}", said.out);
    let said = train(&folder, &["save_minutes=0.00001", "save_steps=2", "output_dir=run2"]).fine();
    assert_eq!(said.out.lines().filter(|line| line.contains("checkpoint in")).count(), 6, "{}", said.out);
    for (step, kept) in [(1, false), (2, true), (3, false), (4, true), (5, false), (6, true)] {
        assert_eq!(folder.path(&format!("run2/checkpoint-{step}")).is_dir(), kept, "checkpoint-{step}");
    }
    let said = train(&folder, &["save_minutes=0", "output_dir=run3"]).fine();
    assert_eq!(said.out.lines().filter(|line| line.contains("checkpoint in")).count(), 1, "{}", said.out);
}

#[test]
fn the_lines_before_the_first_step_are_twelve_at_most_and_name_inspect_data() {
    let folder = Folder::new();
    let idle = "use_cache = false\nfsdp_min_num_params = 0\nlog_level = \"info\"\ntf32 = true\nlocal_rank = 0\n\
                disable_tqdm = true\nuse_ipex = false\npadding_side = \"right\"\n";
    recipe(&folder, &[], idle);
    let said = train(&folder, &["target_modules=[\"q_proj\", \"x_proj\"]"]).fine();
    let before: Vec<&str> = said.out.lines().take_while(|line| !line.starts_with("step ")).collect();
    assert!(before.len() <= 12, "{} lines:\n{}", before.len(), before.join("\n"));
    assert!(before.iter().any(|line| line.contains("inspect-data RECIPE")), "{}", said.out);
    assert!(before.iter().any(|line| line.contains("`x_proj` matches no module")), "{}", said.out);
    assert!(before.iter().any(|line| line.contains("more notes, which inspect-data lists")), "{}", said.out);
    let all = folder.run(&["inspect-data", "recipe.toml"]).fine();
    assert!(
        all.out.contains("`use_ipex` has no effect") && all.out.contains("`padding_side` has no effect"),
        "{}",
        all.out
    );
}

#[test]
fn a_run_that_changes_nothing_stops_with_the_reason() {
    let folder = Folder::new();
    let still = ["learning_rate=0", "max_steps=12"];
    train(&folder, &still)
        .refused(5, &["step 10", "have not changed the adapter", "learning rate is 0", "watchdog = false"]);
    train(&folder, &[&still[..], &["watchdog=false", "output_dir=anyway"]].concat()).fine();
    let nine = train(&folder, &["learning_rate=0", "max_steps=9", "output_dir=nine"]);
    nine.fine();
}

#[test]
fn a_run_without_any_gradient_stops_with_the_reason() {
    let folder = Folder::new();
    // Weight decay changes the adapter even so.
    let dead = ["lora_alpha=1e-300", "weight_decay=0.1", "max_steps=12"];
    train(&folder, &dead).refused(5, &["step 10", "gradient was exactly 0", "lora_alpha", "watchdog = false"]);
    train(&folder, &[&dead[..], &["watchdog=false", "output_dir=anyway"]].concat()).fine();
}

#[test]
fn tokens_lost_to_truncation_stop_a_run_before_its_first_step() {
    let folder = Folder::new();
    let short = ["max_seq_length=8"];
    let said = train(&folder, &short);
    said.refused(
        3,
        &["% of the training tokens are lost", "max_seq_length = 8", "over_length = \"split\"", "watchdog"],
    );
    assert!(!folder.path("run").exists(), "a refused run leaves no folder behind");
    train(&folder, &["max_seq_length=8", "over_length=split"]).fine();
    train(&folder, &["max_seq_length=8", "watchdog=false", "output_dir=anyway"]).fine();
}

#[test]
fn texts_that_are_all_the_same_stop_a_run_before_its_first_step() {
    let folder = Folder::new();
    folder.text("data.jsonl", &[r#"{"question": "what?", "answer": "that"}"#; 12].join("\n"));
    train(&folder, &[]).refused(3, &["all 8 records become the same text", "inspect-data", "watchdog = false"]);
    train(&folder, &["watchdog=false"]).fine();
}

#[test]
fn plan_train_and_inspect_data_agree_on_the_longest_row() {
    let folder = Folder::new();
    recipe(&folder, &["max_seq_length"], "");
    folder.text("model/tokenizer_config.json", r#"{"model_max_length": 20}"#);
    let said = folder.run(&["plan", "recipe.toml"]).fine();
    assert!(said.out.contains("micro-batches of 4 × 20 = 80 tokens"), "{}", said.out);
    let said = folder.run(&["inspect-data", "recipe.toml"]).fine();
    assert!(said.out.contains("max_seq_length is not given: 20"), "{}", said.out);
    folder
        .run(&["plan", "recipe.toml", "--set", "max_seq_length=999"])
        .refused(2, &["longer than the model allows (64"]);
}
