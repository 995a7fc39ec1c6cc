//! Checks that a run fits into the memory of its device, and suggests settings that would.

use super::prepare::Planned;
use super::record::record_training;
use super::spec::Capacity;
use crate::data::open::largest_batch;
use crate::weights::safetensors::TensorFiles;
use halfbyte_core::device::Device;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::op::Program;
use halfbyte_core::plan::Plan;

/// Settings of a recipe that determine how much memory it needs.
#[derive(Clone, Copy, PartialEq)]
struct Settings {
    checkpointing: bool,
    batch: usize,
    accumulation: usize,
    /// `max_seq_length`; `None` keeps the rows as they are.
    length: Option<usize>,
}

/// An error if the run does not fit: it states the missing memory and suggests settings. `checkpoint` is the one with
/// which the run was planned.
pub fn check(run: &Planned, checkpoint: Option<&TensorFiles>, device: &dyn Device) -> Result<()> {
    let need = run.recorded.plan.bytes;
    let short = missing(&run.recorded.model.program, &run.recorded.plan, device)?;
    if short == 0 {
        return Ok(());
    }
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let what = format!(
        "the run needs {} MiB of memory on the device, but only {} MiB are free: {} MiB are missing",
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
        .hint(format!("no batch size or length makes it fit (it needs at least {} MiB): use a larger GPU", mib(least))))
}

/// The number of bytes by which a planned program exceeds the device's memory; 0 if it fits.
fn missing(program: &Program, plan: &Plan, device: &dyn Device) -> Result<usize> {
    Ok(device.room(program)?.map_or(0, |room| plan.bytes.saturating_sub(room)))
}

/// The settings to try, the cheapest first: recomputation, smaller micro-batches with more accumulation, shorter rows.
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

/// The bytes that the run needs with other settings, and the number of missing bytes.
fn bytes_with(
    run: &Planned,
    checkpoint: Option<&TensorFiles>,
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

/// The settings that differ from the recipe's, written as recipe keys.
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
