//! `halfbyte train RECIPE`: trains, or resumes a run.

use super::budget;
use super::device::DeviceArgs;
use super::progress::Progress;
use crate::config::recipe::Recipe;
use crate::run::{ModelPlace, Run, RunStart, prepare, refuse_results};
use crate::train::trainer::Reply;
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::error::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arguments of `train`.
#[derive(clap::Args, Debug)]
pub struct TrainArgs {
    /// The recipe (TOML)
    pub recipe: PathBuf,
    /// Override a key of the recipe: --set learning_rate=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Replace the results of an earlier run in output_dir, including its checkpoints
    #[arg(long)]
    pub overwrite: bool,
    /// Resume from the newest complete checkpoint in output_dir
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Train random weights, for benchmarks; model_name_or_path may be a folder without weights, a config.json, or the
    /// name of an architecture such as mistral-7b-v0.1
    #[arg(long)]
    pub dummy_weights: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// The most memory that the run may take on the GPU, the driver's part included: 12GiB, 800MiB [default: what is
    /// free, less a reserve]
    #[arg(long, value_name = "AMOUNT", value_parser = budget::parse)]
    memory_budget: Option<usize>,
    /// On the CPU, fill dead memory with NaN to detect stray reads (slower, same results)
    #[arg(long)]
    pub poison: bool,
    /// Print every event as a line of JSON
    #[arg(long)]
    pub json: bool,
}

/// A flag that SIGINT and SIGTERM set.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let signaled = flag.clone();
    let handler = move || {
        // A second signal exits without waiting for the step.
        if signaled.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|e| Error::system(format!("cannot handle signals: {e}")))?;
    Ok(flag)
}

/// Runs the command.
pub fn run(args: TrainArgs) -> Result<()> {
    let recipe = Recipe::open(&args.recipe, &args.set)?;
    let start = match (args.resume, args.overwrite) {
        (true, _) => RunStart::Resume,
        (false, true) => RunStart::Overwrite,
        (false, false) => RunStart::Fresh,
    };
    refuse_results(&recipe.training, start)?;
    let mut progress = Progress::new(args.json);
    let place = ModelPlace::open(&recipe.model, args.dummy_weights)?;
    let mut prepared = prepare(recipe, place, &|_| ())?;
    let cpu = CpuOptions { poison: args.poison, late_copies: false };
    let recipe = &prepared.planned.recipe;
    let (device, device_name) = args.device.open(recipe.model.device.as_deref(), recipe.compute, cpu)?;
    prepared.fit(device.as_ref(), args.memory_budget)?;
    progress.prepared(&prepared, &device_name, &device.about());
    // Signals are caught only from here on. Nothing is written before, so Ctrl-C may end a download or the data
    // preparation at once.
    let stop = stop_flag()?;
    let mut run = prepared.start(device, start)?;
    progress.started(&run);
    finish(&mut run, &mut progress, &stop, &format!("`halfbyte train {} --resume`", args.recipe.display()))
}

/// Trains to the end and shows the progress. A run that a signal stops is an error whose hint is the command `again`,
/// which resumes it.
pub(super) fn finish(run: &mut Run, progress: &mut Progress, stop: &AtomicBool, again: &str) -> Result<()> {
    let results = run.train(|event| {
        progress.event(event);
        if stop.load(Ordering::SeqCst) { Reply::Stop } else { Reply::Continue }
    })?;
    progress.finished(&results, run);
    if !results.summary.interrupted {
        return Ok(());
    }
    let (steps, folder) = (results.summary.steps, run.output_folder().display());
    Err(Error::interrupted(format!("stopped after step {steps}; its checkpoint is in {folder}"))
        .hint(format!("resume it with {again}")))
}
