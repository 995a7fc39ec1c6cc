//! Replays the corpora of the fuzz targets, and runs each target on mutations of them for a moment.
//!
//! `FUZZ_SECONDS=600` runs each target for ten minutes; `FUZZ_TARGET` selects one; `FUZZ_SEED` chooses other mutations.
//! `scripts/fuzz` does that, or runs cargo-fuzz, which is guided by coverage, on the same functions.

mod mutate;
#[path = "../../../tests/shared/project.rs"]
mod project;
mod targets;

use halfbyte::limits::budget::{BudgetedAllocator, with_budget};
use mutate::{Random, mutate};
use project::project;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use targets::{TARGETS, Target};

/// Ends the test if an execution takes more memory than it may.
#[global_allocator]
static ALLOCATOR: BudgetedAllocator = BudgetedAllocator;

const MEMORY: usize = 1 << 30;
const LONGEST: Duration = Duration::from_secs(10);

/// The inputs in `tests/fuzz/corpus/NAME`, and those of the tokenizer's own targets.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let tokenizer = match target.name {
        "tokenizer_model" => Some("model_file"),
        "tokenizer_json" => Some("tokenizer_json"),
        _ => None,
    };
    let folders = [
        Some(project().join("app/tests/fuzz/corpus").join(target.name)),
        tokenizer.map(|name| project().join("tokenizer/fuzz/seeds").join(name)),
    ];
    let entries = folders.into_iter().flatten().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.display().to_string(), std::fs::read(file).expect("an input"))).collect()
}

/// Runs `input`. Returns what is wrong with the execution.
fn execute(target: &Target, dir: &Path, input: &[u8]) -> Option<String> {
    let began = Instant::now();
    let run = || with_budget(MEMORY, || (target.run)(dir, input));
    let panicked = catch_unwind(AssertUnwindSafe(run)).is_err();
    let time = began.elapsed();
    // The next input must not meet the files of this one.
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.expect("removed");
    }
    match (panicked, time > LONGEST) {
        (true, _) => Some("panic".into()),
        (_, true) => Some(format!("{time:?}")),
        _ => None,
    }
}

#[test]
fn no_input_panics_hangs_or_takes_all_memory() {
    let variable = |name: &str| std::env::var(name).ok();
    let seconds = variable("FUZZ_SECONDS").map_or(0.4, |text| text.parse().expect("FUZZ_SECONDS is a number"));
    let only = variable("FUZZ_TARGET");
    let seed = variable("FUZZ_SEED").map_or(1, |text| text.parse().expect("FUZZ_SEED is a number"));
    let place = tempfile::tempdir().expect("a folder");
    let mut findings = Vec::new();
    let mut total = 0;
    for target in TARGETS.iter().filter(|target| only.as_ref().is_none_or(|name| name == target.name)) {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        for (file, input) in &corpus {
            findings.extend(execute(target, place.path(), input).map(|why| format!("{file}: {why}")));
        }
        let mut random = Random(seed);
        let (began, mut executions, mut slowest) = (Instant::now(), corpus.len(), Duration::ZERO);
        while began.elapsed().as_secs_f64() < seconds && findings.len() < 20 {
            let pick = |random: &mut Random| &corpus[random.below(corpus.len())].1;
            let (input, other) = (pick(&mut random), pick(&mut random));
            let input = mutate(input, other, target.json, &mut random);
            let start = Instant::now();
            if let Some(why) = execute(target, place.path(), &input) {
                let file = std::env::temp_dir().join(format!("finding-{}-{executions}", target.name));
                std::fs::write(&file, &input).expect("written");
                findings.push(format!("{}: {why}: {}", target.name, file.display()));
            }
            slowest = slowest.max(start.elapsed());
            executions += 1;
        }
        println!("{}: {executions} executions, the slowest took {slowest:?}", target.name);
        total += executions;
    }
    println!("{total} executions, {} findings", findings.len());
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
