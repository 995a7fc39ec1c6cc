//! Runs that are larger than the memory of their device.

use crate::folder::Folder;
use halfbyte::config::recipe::Recipe;
use halfbyte::run::{ModelPlace, Prepared, RunStart, prepare};
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

/// The error of a run with these overrides on a device with `room` bytes.
fn refused(folder: &Folder, more: &[&str], room: usize) -> String {
    let device = Box::new(Small(Cpu::new(CpuOptions::default()), room));
    let error = prepared(folder, more).start(device, RunStart::Fresh).err().expect("too large");
    assert_eq!(error.exit_code(), 4);
    assert!(!folder.path("run").exists(), "a refused run leaves no folder behind");
    error.to_string()
}

fn bytes(folder: &Folder, more: &[&str]) -> usize {
    prepared(folder, more).planned.recorded.plan.bytes
}

#[test]
fn a_run_that_does_not_fit_is_told_what_would() {
    let folder = Folder::new();
    let (whole, recomputed) = (bytes(&folder, &[]), bytes(&folder, &["gradient_checkpointing=true"]));
    assert!(recomputed < whole);
    let error = refused(&folder, &[], whole - 1);
    assert!(error.contains("are missing") && error.contains("it fits with gradient_checkpointing = true:"), "{error}");
    let error = refused(&folder, &[], recomputed - 1);
    let words = ["per_device_train_batch_size = 2", "gradient_accumulation_steps = 2"];
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
    let error = refused(&folder, &["gradient_checkpointing=true"], 1000);
    assert!(error.contains("no batch size or length makes it fit"), "{error}");
    let device = Box::new(Small(Cpu::new(CpuOptions::default()), whole));
    prepared(&folder, &[]).start(device, RunStart::Fresh).expect("just enough");
}

#[test]
fn the_advice_holds() {
    let folder = Folder::new();
    let advised = ["per_device_train_batch_size=2", "gradient_accumulation_steps=2"];
    let device = Box::new(Small(Cpu::new(CpuOptions::default()), bytes(&folder, &["gradient_checkpointing=true"]) - 1));
    prepared(&folder, &advised).start(device, RunStart::Fresh).expect("it fits, as the hint promised");
}
