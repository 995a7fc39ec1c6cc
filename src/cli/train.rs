//! `halfbyte train RECIPE`.

use super::device::DeviceArgs;
use super::progress::Progress;
use crate::config::recipe::Recipe;
use crate::device::cpu::CpuOptions;
use crate::error::{Error, Result};
use crate::run::{Run, prepare};
use crate::train::trainer::{EvalRecord, Event, Reply, Summary};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arguments of `train`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The recipe (TOML)
    pub recipe: PathBuf,
    /// Override a key of the recipe: --set learning_rate=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Replace the results of an earlier run in output_dir
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// On the CPU, fill dead memory with NaN (slower; the numbers must not change)
    #[arg(long)]
    pub poison: bool,
    /// Print every event as a line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Set by SIGINT and SIGTERM.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let signalled = flag.clone();
    let handler = move || {
        // A second signal does not wait for the step.
        if signalled.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|e| Error::system(format!("cannot handle signals: {e}")))?;
    Ok(flag)
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let recipe = Recipe::open(&args.recipe, &args.set)?;
    let stop = stop_flag()?;
    let mut progress = Progress::new(args.json);
    let prepared = prepare(recipe, &|_| ())?;
    let cpu = CpuOptions { poison: args.poison, late_copies: false };
    let (device, device_name) = args.device.open(prepared.recipe.compute, cpu)?;
    progress.prepared(&prepared, &device_name);
    let mut run = prepared.start(device, args.overwrite)?;
    if let Some(before) = run.evaluate(false)? {
        progress.event(&Event::Evaluated(before));
    }
    let mut evaluated = 0;
    let summary = run.train(|event| {
        progress.event(event);
        if let Event::Evaluated(record) = event {
            evaluated = record.step;
        }
        if stop.load(Ordering::SeqCst) { Reply::Stop } else { Reply::Continue }
    })?;
    // After the last step too, unless the recipe has just done that.
    if !summary.interrupted
        && evaluated != summary.steps
        && let Some(after) = run.evaluate(true)?
    {
        progress.event(&Event::Evaluated(EvalRecord { step: summary.steps, ..after }));
    }
    finish(&mut progress, &summary, &run)
}

fn finish(progress: &mut Progress, summary: &Summary, run: &Run) -> Result<()> {
    progress.finished(summary, run.adapter_folder());
    if summary.interrupted {
        let steps = summary.steps;
        return Err(Error::run(format!(
            "stopped after step {steps}; the adapter so far is in {}",
            run.adapter_folder().display()
        )));
    }
    Ok(())
}
