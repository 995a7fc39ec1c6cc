//! Whether a run fits into the memory of its device, and what would make it fit.

use super::preflight::largest_batch;
use super::{Prepared, record_training};
use crate::run::spec::Capacity;
use halfbyte_core::device::Device;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::op::Program;
use halfbyte_core::plan::plan;

/// Settings of a recipe that need less memory.
#[derive(Clone, Copy, PartialEq)]
struct Settings {
    checkpointing: bool,
    batch: usize,
    accumulation: usize,
    /// `None`: as long as the rows are.
    length: Option<usize>,
}

/// Bytes that a program misses on the device; 0: it fits.
fn missing(program: &Program, device: &dyn Device) -> Result<usize> {
    Ok(device.room(program)?.map_or(0, |room| plan(program).bytes.saturating_sub(room)))
}

/// An error that names what is missing and what would do, unless the run fits.
pub fn check(run: &Prepared, device: &dyn Device) -> Result<()> {
    let short = missing(&run.preflight.model.program, device)?;
    if short == 0 {
        return Ok(());
    }
    let need = plan(&run.preflight.model.program).bytes;
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let what = format!(
        "the run needs {} MiB of memory on the device, {} MiB are free there: {} MiB are missing",
        mib(need),
        need.saturating_sub(short) >> 20,
        mib(short)
    );
    let mut least = need;
    for settings in smaller(run) {
        let (bytes, short) = with(run, settings, device)?;
        least = least.min(bytes);
        if short == 0 {
            let hint = format!("it fits with {}: {} MiB", words(run, settings), mib(bytes));
            return Err(Error::system(what).hint(hint));
        }
    }
    Err(Error::system(what)
        .hint(format!("no batch size or length makes it fit ({} MiB at the least): use a larger GPU", mib(least))))
}

/// What is tried, in the order of what it costs: recomputation, smaller batches at the same steps, shorter rows.
fn smaller(run: &Prepared) -> Vec<Settings> {
    let training = &run.recipe.training;
    let Settings { batch, accumulation, .. } = now(run);
    let halves = |n: usize| std::iter::successors(Some(n), |n| (n % 2 == 0).then_some(n / 2));
    let batches: Vec<usize> = halves(batch).collect();
    let set = |checkpointing, n, length| Settings {
        checkpointing,
        batch: n,
        accumulation: accumulation * (batch / n),
        length,
    };
    let mut list = vec![set(true, batch, None)];
    list.extend(batches.iter().map(|n| set(training.checkpointing, *n, None)));
    list.extend(batches.iter().map(|n| set(true, *n, None)));
    let (fewest, longest) = (batches[batches.len() - 1], largest_batch(&run.data, 1));
    let lengths =
        std::iter::successors(Some(longest.next_power_of_two() / 2), |n| Some(n / 2)).take_while(|n| *n >= 128);
    list.extend(lengths.map(|length| set(true, fewest, Some(length))));
    list.retain(|settings| *settings != now(run));
    list
}

fn now(run: &Prepared) -> Settings {
    let training = &run.recipe.training;
    let (batch, accumulation) = (training.batch_size, training.accumulation);
    Settings { checkpointing: training.checkpointing, batch, accumulation, length: None }
}

/// Bytes of the run with other settings, and how many of them are missing.
fn with(run: &Prepared, settings: Settings, device: &dyn Device) -> Result<(usize, usize)> {
    let mut recipe = run.recipe.clone();
    recipe.training.checkpointing = settings.checkpointing;
    let tokens =
        settings.length.map_or_else(|| largest_batch(&run.data, settings.batch), |length| length * settings.batch);
    let size = Capacity { tokens, updates: run.preflight.steps.total };
    let (model, _) = record_training(&recipe, &run.config, run.checkpoint.as_ref(), size)?;
    Ok((plan(&model.program).bytes, missing(&model.program, device)?))
}

/// The settings that differ from the recipe's, as keys.
fn words(run: &Prepared, settings: Settings) -> String {
    let now = now(run);
    let mut keys = Vec::new();
    if settings.checkpointing != now.checkpointing {
        keys.push("gradient_checkpointing = true".to_string());
    }
    if settings.batch != now.batch {
        keys.push(format!("per_device_train_batch_size = {}", settings.batch));
        keys.push(format!("gradient_accumulation_steps = {}", settings.accumulation));
    }
    keys.extend(settings.length.map(|length| format!("max_seq_length = {length}")));
    keys.join(", ")
}
