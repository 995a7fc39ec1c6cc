//! `halfbyte train RECIPE`.

use super::progress::Progress;
use crate::config::recipe::Recipe;
use crate::device::cpu::{Cpu, CpuOptions};
use crate::error::{Error, Result};
use crate::train::run::prepare;
use crate::train::trainer::{Event, Reply, Summary};
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
    /// Fill dead memory with NaN (slower; the numbers must not change)
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
    progress.prepared(&prepared);
    let device = Box::new(Cpu::new(CpuOptions { poison: args.poison, late_copies: false }));
    let mut run = prepared.start(device, args.overwrite)?;
    if let Some(before) = run.evaluate(false)? {
        progress.event(&Event::Evaluated(before));
    }
    let summary = run.train(|event| {
        progress.event(event);
        if stop.load(Ordering::SeqCst) { Reply::Stop } else { Reply::Continue }
    })?;
    if let Some(after) = run.evaluate(true)?.filter(|_| !summary.interrupted) {
        progress.event(&Event::Evaluated(crate::train::trainer::EvalRecord { step: summary.steps, ..after }));
    }
    finish(&mut progress, &summary, &run)
}

fn finish(progress: &mut Progress, summary: &Summary, run: &crate::train::run::Run) -> Result<()> {
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
