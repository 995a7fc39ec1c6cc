//! Runs that are larger than the memory of their device.

use crate::folder::Folder;
use halfbyte::config::recipe::Recipe;
use halfbyte::run::ladder::describe;
use halfbyte::run::{ModelPlace, Planned, Prepared, Run, RunStart, prepare};
use halfbyte_core::device::cpu::{Cpu, CpuOptions};
use halfbyte_core::device::{About, Device, Timing};
use halfbyte_core::error::Result;
use halfbyte_core::op::{Buf, Phase, Program};
use halfbyte_core::plan::Plan;
use std::sync::Arc;

/// The CPU with a limit.
struct Small(Cpu, usize);

impl Device for Small {
    fn allocate(&mut self, program: Arc<Program>, plan: Arc<Plan>) -> Result<()> {
        self.0.allocate(program, plan)
    }
    fn room(&self, _program: &Program) -> Result<Option<usize>> {
        Ok(Some(self.1))
    }
    fn write(&mut self, buf: Buf, at: usize, bytes: &[u8]) -> Result<()> {
        self.0.write(buf, at, bytes)
    }
    fn read(&mut self, buf: Buf, at: usize, bytes: &mut [u8]) -> Result<()> {
        self.0.read(buf, at, bytes)
    }
    fn run(&mut self, phase: Phase, live: usize) -> Result<()> {
        self.0.run(phase, live)
    }
    fn profile(&mut self, phase: Phase, live: usize) -> Result<Vec<Timing>> {
        self.0.profile(phase, live)
    }
    fn about(&self) -> About {
        self.0.about()
    }
}

fn prepared(folder: &Folder, more: &[&str]) -> Prepared {
    let path = |name: &str| folder.path(name).display().to_string();
    let mut sets = vec![
        format!("model_name_or_path=\"{}\"", path("model")),
        format!("dataset=[\"{}\"]", path("data.jsonl")),
        format!("output_dir=\"{}\"", path("run")),
    ];
    sets.extend(more.iter().map(|set| set.to_string()));
    let recipe = Recipe::open(&folder.path("recipe.toml"), &sets).expect("a recipe");
    let place = ModelPlace::open(&recipe.model, false).expect("a model");
    prepare(recipe, place, &|_| ()).expect("a run")
}

/// Starts a run with these overrides on a device with `room` bytes.
fn start(folder: &Folder, more: &[&str], room: usize) -> Result<Run> {
    let device = Box::new(Small(Cpu::new(CpuOptions::default()), room));
    let mut prepared = prepared(folder, more);
    prepared.fit(device.as_ref(), None)?;
    prepared.start(device, RunStart::Fresh)
}

/// The error of a run with these overrides on a device with `room` bytes.
fn refused(folder: &Folder, more: &[&str], room: usize) -> String {
    let error = start(folder, more, room).err().expect("too large");
    assert_eq!(error.exit_code(), 4);
    assert!(!folder.path("run").exists(), "a refused run leaves no folder behind");
    error.to_string()
}

fn bytes(folder: &Folder, more: &[&str]) -> usize {
    prepared(folder, more).planned.recorded.plan.bytes
}

/// The fewest bytes in which a run with these overrides is possible.
fn least(folder: &Folder, more: &[&str]) -> usize {
    let mut run = prepared(folder, more);
    run.fit(&Small(Cpu::new(CpuOptions::default()), 0), None).expect_err("nothing fits into nothing");
    run.planned.recorded.plan.bytes
}

const ALL: &str = "gradient_checkpointing=false";
const NONE: &str = "gradient_checkpointing=true";

#[test]
fn a_run_keeps_as_much_as_fits() {
    let folder = Folder::new();
    let (whole, least) = (bytes(&folder, &[ALL]), least(&folder, &[]));
    assert!(least < whole);
    let mut found = Vec::new();
    for room in [whole, whole - 1, (whole + least) / 2, least] {
        let device = Small(Cpu::new(CpuOptions::default()), room);
        let mut run = prepared(&folder, &[]);
        run.fit(&device, None).expect("it fits");
        let Planned { recorded, .. } = &run.planned;
        assert!(recorded.plan.bytes <= room);
        let choice = describe(&recorded.model);
        assert_eq!(choice == "all blocks keep activations", room == whole, "{choice}");
        found.push(recorded.plan.bytes);
    }
    assert!(
        found[0] > found[1] && found[1] >= found[2] && found[2] > found[3],
        "with less room, less is kept: {found:?}"
    );
    // A budget does what a small device does.
    let mut run = prepared(&folder, &[]);
    run.fit(&Cpu::new(CpuOptions::default()), Some(whole - 1)).expect("it fits");
    assert_eq!(run.planned.recorded.plan.bytes, found[1]);
    start(&folder, &[], whole - 1).expect("a run that recomputes a little");
}

#[test]
fn a_run_that_does_not_fit_is_told_what_would_and_what_it_costs() {
    let folder = Folder::new();
    let error = refused(&folder, &[ALL], least(&folder, &[ALL]) - 1);
    let words = ["are missing", "it fits with no gradient_checkpointing", "more time a token"];
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
    let words = ["per_device_train_batch_size = 2", "gradient_accumulation_steps = 2", "a token)"];
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
    let error = refused(&folder, &[NONE], 1000);
    assert!(error.contains("no batch size or length makes it fit"), "{error}");
    start(&folder, &[ALL], bytes(&folder, &[ALL])).expect("just enough");
}

#[test]
fn the_advice_holds() {
    let folder = Folder::new();
    let advised = [NONE, "per_device_train_batch_size=2", "gradient_accumulation_steps=2"];
    let room = least(&folder, &[NONE]) - 1;
    let error = refused(&folder, &[NONE], room);
    assert!(error.contains("per_device_train_batch_size = 2"), "{error}");
    start(&folder, &advised, room).expect("it fits, as the hint promised");
}
