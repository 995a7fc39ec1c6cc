//! Whether a run fits into the memory of its device, and what would make it fit.

use super::prepare::Planned;
use super::record::record_training;
use super::spec::Capacity;
use crate::data::open::largest_batch;
use crate::weights::safetensors::Checkpoint;
use halfbyte_core::device::Device;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::op::Program;
use halfbyte_core::plan::Plan;

/// Settings of a recipe that need less memory.
#[derive(Clone, Copy, PartialEq)]
struct Settings {
    checkpointing: bool,
    batch: usize,
    accumulation: usize,
    /// `None`: as long as the rows are.
    length: Option<usize>,
}

/// An error that names what is missing and what would do, unless the run fits. `checkpoint` is the one it was planned with.
pub fn check(run: &Planned, checkpoint: Option<&Checkpoint>, device: &dyn Device) -> Result<()> {
    let need = run.recorded.plan.bytes;
    let short = missing(&run.recorded.model.program, &run.recorded.plan, device)?;
    if short == 0 {
        return Ok(());
    }
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let what = format!(
        "the run needs {} MiB of memory on the device, {} MiB are free there: {} MiB are missing",
        mib(need),
        need.saturating_sub(short) >> 20,
        mib(short)
    );
    let mut least = need;
    for settings in smaller(run) {
        let (bytes, short) = bytes_with(run, checkpoint, settings, device)?;
        least = least.min(bytes);
        if short == 0 {
            let hint = format!("it fits with {}: {} MiB", describe(run, settings), mib(bytes));
            return Err(Error::system(what).hint(hint));
        }
    }
    Err(Error::system(what)
        .hint(format!("no batch size or length makes it fit ({} MiB at the least): use a larger GPU", mib(least))))
}

/// Bytes that a planned program misses on the device; 0: it fits.
fn missing(program: &Program, plan: &Plan, device: &dyn Device) -> Result<usize> {
    Ok(device.room(program)?.map_or(0, |room| plan.bytes.saturating_sub(room)))
}

/// What is tried, in the order of what it costs: recomputation, smaller batches at the same steps, shorter rows.
fn smaller(run: &Planned) -> Vec<Settings> {
    let training = &run.recipe.training;
    let Settings { batch, accumulation, .. } = current(run);
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
    list.retain(|settings| *settings != current(run));
    list
}

fn current(run: &Planned) -> Settings {
    let training = &run.recipe.training;
    let (batch, accumulation) = (training.batch_size, training.accumulation);
    Settings { checkpointing: training.checkpointing, batch, accumulation, length: None }
}

/// Bytes of the run with other settings, and how many of them are missing.
fn bytes_with(
    run: &Planned,
    checkpoint: Option<&Checkpoint>,
    settings: Settings,
    device: &dyn Device,
) -> Result<(usize, usize)> {
    let mut recipe = run.recipe.clone();
    recipe.training.checkpointing = settings.checkpointing;
    let tokens =
        settings.length.map_or_else(|| largest_batch(&run.data, settings.batch), |length| length * settings.batch);
    let capacity = Capacity { tokens, updates: run.steps.total };
    let recorded = record_training(&recipe, &run.config, checkpoint, run.recorded.adapted.clone(), capacity)?;
    Ok((recorded.plan.bytes, missing(&recorded.model.program, &recorded.plan, device)?))
}

/// The settings that differ from the recipe's, as keys.
fn describe(run: &Planned, settings: Settings) -> String {
    let current = current(run);
    let mut keys = Vec::new();
    if settings.checkpointing != current.checkpointing {
        keys.push("gradient_checkpointing = true".to_string());
    }
    if settings.batch != current.batch {
        keys.push(format!("per_device_train_batch_size = {}", settings.batch));
        keys.push(format!("gradient_accumulation_steps = {}", settings.accumulation));
    }
    keys.extend(settings.length.map(|length| format!("max_seq_length = {length}")));
    keys.join(", ")
}
