//! Crashes a run at each call that changes a file, resumes it, and compares every bit with an uninterrupted run.
//!
//! `shim.c` counts the calls and kills the program, tears or shortens a write, makes the call fail, or undoes what was not
//! synced as a power cut does. The ordinary test samples the calls; `scripts/crash-sweep` visits all of them.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

#[path = "../cli/decode.rs"]
mod decode;
#[path = "../cli/folder.rs"]
#[expect(dead_code, reason = "not every helper is used")]
mod folder;
#[path = "../../../tests/shared/project.rs"]
mod project;
mod state;

use folder::{Folder, Said, program};
use project::project;
use state::RunState;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The ways in which a call goes wrong.
const WAYS: [&str; 9] = ["kill", "tear", "power", "data", "names", "full", "io", "denied", "short"];

/// A recipe, and how its run starts.
struct Case {
    name: &'static str,
    sets: &'static [&'static str],
    /// Whether an earlier run with other settings is overwritten.
    overwrites: bool,
}

const CASES: [Case; 3] = [
    Case {
        name: "trackers, rotation, evaluations",
        sets: &[
            "save_steps=1",
            "save_total_limit=2",
            "eval_strategy=steps",
            "eval_steps=3",
            "lora_dropout=0.1",
            "report_to=all",
            "logging_steps=1",
        ],
        overwrites: false,
    },
    Case {
        name: "8-bit optimizer, packing, the best adapter, adapter_dir",
        sets: &[
            "save_steps=2",
            "eval_strategy=steps",
            "eval_steps=2",
            "load_best_model_at_end=true",
            "packing=true",
            "gradient_accumulation_steps=2",
            "optim=paged_adamw_8bit",
            "adapter_dir=adapter",
            "report_to=all",
            "target_modules=[\"q_proj\", \"lm_head\"]",
            "r=16",
        ],
        overwrites: false,
    },
    Case { name: "overwrite", sets: &["save_steps=3", "lora_alpha=64", "report_to=all"], overwrites: true },
];

/// A case with its uninterrupted run.
struct Rig {
    case: &'static Case,
    template: Folder,
    shim: PathBuf,
    /// The adapter before the run, if there is one, and after it.
    adapters: Vec<(Vec<u8>, Vec<u8>)>,
    expected: RunState,
    calls: usize,
}

impl Rig {
    fn new(case: &'static Case, shim: &Path) -> Self {
        let template = Folder::new();
        let mut adapters = Vec::new();
        if case.overwrites {
            template.run(&["train", "recipe.toml", "--set", "save_steps=1", "--set", "report_to=all"]).fine();
            adapters.extend(state::adapter(&template.path("run")));
        }
        let mut rig = Self { case, template, shim: shim.into(), adapters, expected: RunState::default(), calls: 0 };
        let whole = rig.copy();
        let said = Said::of(whole.start_command(rig.shimmed(&whole, "count", 0)));
        said.fine();
        let calls = std::fs::read_to_string(whole.path("calls")).expect("a count");
        rig.calls = calls.trim().parse().expect("a number");
        rig.expected = RunState::read(&whole);
        rig.adapters.extend(state::adapter(&rig.adapter_folder(&whole)));
        rig
    }

    fn adapter_folder(&self, folder: &Folder) -> PathBuf {
        folder.path(if self.case.sets.contains(&"adapter_dir=adapter") { "adapter" } else { "run" })
    }

    /// A copy of the folder before the run.
    fn copy(&self) -> Folder {
        let copy = Folder::empty();
        let status = Command::new("cp").arg("-a").arg(self.template.path(".")).arg(copy.path(".")).status();
        assert!(status.expect("cp").success());
        copy
    }

    fn args(&self, more: &str) -> Vec<&'static str> {
        let more: Option<&'static str> = match more {
            "--resume" => Some("--resume"),
            "--overwrite" => Some("--overwrite"),
            _ => None,
        };
        let sets = self.case.sets.iter().flat_map(|set| ["--set", *set]);
        ["train", "recipe.toml"].into_iter().chain(sets).chain(more).collect()
    }

    fn start(&self) -> &'static str {
        if self.case.overwrites { "--overwrite" } else { "" }
    }

    /// The run with the shim, which changes the call `at`.
    fn shimmed(&self, folder: &Folder, how: &str, at: usize) -> Command {
        let mut command = Command::new(program());
        let root = folder.path(".").canonicalize().expect("a folder");
        command.args(self.args(self.start())).env("LD_PRELOAD", &self.shim).env("CRASH_ROOT", &root);
        command.env("CRASH_HOW", how).env("CRASH_AT", at.to_string());
        if how == "count" {
            command.env("CRASH_COUNT", root.join("calls"));
        }
        command
    }

    /// Crashes the run at the call `at` and resumes it. Returns what is wrong afterwards.
    fn crash(&self, how: &str, at: usize) -> Result<(), String> {
        let folder = self.copy();
        let mut command = self.shimmed(&folder, how, at);
        let output = command.current_dir(folder.path(".")).stdin(Stdio::null()).output().expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            None if output.status.signal() == Some(9) => {}
            Some(0) => {}
            Some(3..=5) if errors.starts_with("error: ") && !errors.contains("panicked") => {}
            other => return Err(format!("the run ended with {other:?}, {:?}: {errors}", output.status.signal())),
        }
        if how == "short" && output.status.code() != Some(0) {
            return Err(format!("a short write ended the run: {errors}"));
        }
        if let Some(found) = state::adapter(&self.adapter_folder(&folder))
            && !self.adapters.contains(&found)
        {
            return Err("the folder has an adapter that is neither the old one nor the new one".into());
        }
        let said = folder.run(&self.args("--resume"));
        let said = match said.code {
            // The earlier run is still there as a whole.
            Some(2) if self.case.overwrites => folder.run(&self.args("--overwrite")),
            _ => said,
        };
        if said.code != Some(0) {
            return Err(format!("--resume ended with {:?}: {}", said.code, said.err));
        }
        let left: Vec<PathBuf> = state::leftovers(&folder.path("run"));
        if !left.is_empty() {
            return Err(format!("left over: {left:?}"));
        }
        self.expected.compare(&RunState::read(&folder))
    }
}

/// Compiles the shim. The compiler is the one that Rust links with.
fn shim(folder: &Path) -> PathBuf {
    let library = folder.join("shim.so");
    let source = project().join("app/tests/crash/shim.c");
    let output =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").output();
    let output = output.expect("cc starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// Every `i`-th of `n` shards of all crashes: `CRASH_SWEEP=i/n`. Without it, a sample.
fn shard() -> Option<(usize, usize)> {
    let text = std::env::var("CRASH_SWEEP").ok()?;
    let (i, n) = text.split_once('/').expect("CRASH_SWEEP=i/n");
    Some((i.parse().expect("a number"), n.parse().expect("a number")))
}

#[test]
fn a_run_that_crashes_at_any_call_continues_to_the_same_bits() {
    let place = tempfile::tempdir().expect("a folder");
    let shim = shim(place.path());
    let (mut counts, mut wrong) = (Vec::new(), Vec::new());
    for case in &CASES {
        let rig = Rig::new(case, &shim);
        assert!(rig.calls > 50, "{}: only {} calls were seen", case.name, rig.calls);
        let all: Vec<(&str, usize)> = WAYS.iter().flat_map(|how| (1..=rig.calls).map(move |at| (*how, at))).collect();
        let chosen: Vec<_> = match shard() {
            Some((i, n)) => all.into_iter().skip(i % n).step_by(n).collect(),
            // A step that is coprime to most counts of calls, so that the ways meet different calls.
            None => all.into_iter().skip(7).step_by(rig.calls * WAYS.len() / 9 + 1).collect(),
        };
        let failures = run_all(&rig, &chosen);
        println!("{}: {} calls, {} crashes, {} wrong", case.name, rig.calls, chosen.len(), failures.len());
        counts.push(chosen.len());
        wrong.extend(failures.into_iter().map(|text| format!("{}: {text}", case.name)));
    }
    println!("{} crashes, {} wrong", counts.iter().sum::<usize>(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs the crashes on all cores.
fn run_all(rig: &Rig, chosen: &[(&str, usize)]) -> Vec<String> {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((how, at)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = rig.crash(how, *at) {
                        let error = format!("{how} at call {at}: {error}");
                        println!("{}: {error}", rig.case.name);
                        wrong.lock().expect("a list").push(error);
                    }
                }
            });
        }
    });
    wrong.into_inner().expect("a list")
}
