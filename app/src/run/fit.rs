//! Fits a run into the memory of its device: chooses what blocks keep if the recipe leaves that open, or suggests
//! settings with which the run would fit, and says what they cost.

use super::forecast::load;
use super::ladder::{Ladder, by_key, everywhere};
use super::prepare::{Planned, Prepared};
use super::record::{Recorded, record_training};
use super::spec::Capacity;
use crate::data::open::largest_batch;
use crate::limits::memory;
use crate::weights::safetensors::TensorFiles;
use halfbyte_core::device::cuda::workspace;
use halfbyte_core::device::{Device, DeviceKind};
use halfbyte_core::error::{Error, Result};
use halfbyte_core::op::{Phase, Program};
use halfbyte_core::plan::cost::{Load, Rates, seconds};
use halfbyte_core::tape::Policy;

/// Memory that the driver's context and the kernels take on a GPU: part of a budget, but of no plan.
pub const CONTEXT: usize = 640 << 20;

/// Memory that stays free on a GPU if the run chooses its policies itself.
pub const RESERVE: usize = 256 << 20;

/// The memory that a run may take.
#[derive(Clone, Copy)]
pub struct Limit<'a> {
    /// `--memory-budget`, in bytes.
    pub budget: Option<usize>,
    /// The device; without one, a GPU is planned for.
    pub device: Option<&'a dyn Device>,
}

impl Limit<'_> {
    /// Bytes that the plan of `program` may take; `None` without a limit.
    fn room(&self, program: &Program) -> Result<Option<usize>> {
        let on_cpu = self.device.is_some_and(|device| device.about().kind == DeviceKind::Cpu);
        let besides = if on_cpu { 0 } else { CONTEXT + workspace(program) };
        let budget = self.budget.map(|bytes| bytes.saturating_sub(besides));
        let free = self.device.map(|device| device.room(program)).transpose()?.flatten();
        // The memory of the CPU device is the process's own, for which the system may set limits.
        let free = free.or_else(|| if on_cpu { memory::room() } else { None });
        Ok(budget.into_iter().chain(free).min())
    }

    /// The number of bytes by which a planned program exceeds the limit; 0 if it fits.
    fn missing(&self, recorded: &Recorded) -> Result<usize> {
        let room = self.room(&recorded.model.program)?;
        Ok(room.map_or(0, |room| recorded.plan.bytes.saturating_sub(room)))
    }

    /// Whether a program that is chosen by its size fits. Without a budget, a reserve stays free.
    pub fn allows(&self, recorded: &Recorded) -> Result<bool> {
        let room = self.room(&recorded.model.program)?;
        let is_gpu = self.device.is_some_and(|device| device.about().kind != DeviceKind::Cpu);
        let reserve = if self.budget.is_none() && is_gpu { RESERVE } else { 0 };
        Ok(room.is_none_or(|room| recorded.plan.bytes + reserve <= room))
    }

    /// The limit in words, for the sentence "it is the fastest that fits into …".
    pub fn describe(&self) -> String {
        let reserve = RESERVE >> 20;
        match self.budget {
            Some(bytes) => format!("the budget of {:.2} GiB", bytes as f64 / f64::from(1 << 30)),
            None => format!("the free memory less {reserve} MiB"),
        }
    }
}

/// Settings of a recipe that determine how much memory it needs.
#[derive(Clone, Copy, PartialEq)]
struct Settings {
    checkpointing: Option<bool>,
    batch: usize,
    accumulation: usize,
    /// `max_seq_length`; `None` keeps the rows as they are.
    length: Option<usize>,
}

impl Prepared {
    /// Chooses the policies of the blocks if the recipe does not set `gradient_checkpointing`. An error if the run does not
    /// fit: it states the missing memory and suggests settings. Allocates nothing.
    pub fn fit(&mut self, device: &dyn Device, budget: Option<usize>) -> Result<()> {
        let limit = Limit { budget, device: Some(device) };
        let run = &mut self.planned;
        let current = current(run);
        let checkpoint = self.checkpoint.as_ref();
        if current.checkpointing.is_none() && !limit.allows(&run.recorded)? {
            if let Some(Fitting { recorded, .. }) = fitting(run, checkpoint, current, &limit)? {
                run.recorded = recorded;
                return Ok(());
            }
            run.recorded = record(run, checkpoint, current, everywhere(Policy::Offload, run.config.layers))?;
        }
        let short = limit.missing(&run.recorded)?;
        if short == 0 && (current.checkpointing.is_some() || limit.allows(&run.recorded)?) {
            return Ok(());
        }
        Err(refusal(run, checkpoint, &limit, short)?)
    }
}

/// The refusal of a run that lacks `short` bytes.
fn refusal(run: &Planned, checkpoint: Option<&TensorFiles>, limit: &Limit<'_>, short: usize) -> Result<Error> {
    let need = run.recorded.plan.bytes;
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let what = format!(
        "the run needs {} MiB of memory on the device, but it may take only {} MiB: {} MiB are missing",
        mib(need),
        need.saturating_sub(short) >> 20,
        mib(short)
    );
    let now = seconds_per_token(run, &run.recorded, limit);
    let mut fits = Vec::new();
    for kind in smaller(run) {
        for settings in kind {
            if let Some(Fitting { recorded, seconds }) = fitting(run, checkpoint, settings, limit)? {
                let percent = 100.0 * (seconds / now - 1.0);
                let time = match percent {
                    1.0.. => format!("{percent:.0} % more time a token"),
                    ..=-1.0 => format!("{:.0} % less time a token", -percent),
                    _ => "as fast".into(),
                };
                fits.push(format!("{} ({} MiB, {time})", changes(run, settings), mib(recorded.plan.bytes)));
                break;
            }
        }
    }
    Ok(Error::system(what).hint(match fits.is_empty() {
        false => format!("it fits with {}", fits.join(", or with ")),
        true => "no batch size or length makes it fit: use a larger GPU".into(),
    }))
}

/// The settings to try, by kind of change, in each kind the cheapest first: another policy, smaller micro-batches with more
/// accumulation, shorter rows.
fn smaller(run: &Planned) -> [Vec<Settings>; 3] {
    let now = current(run);
    let halves = |n: usize| std::iter::successors(Some(n), |n| (n % 2 == 0).then_some(n / 2));
    let batches: Vec<usize> = halves(now.batch).skip(1).collect();
    let with = |checkpointing, batch, length| Settings {
        checkpointing,
        batch,
        accumulation: now.accumulation * (now.batch / batch),
        length,
    };
    let policies: Vec<Settings> = now.checkpointing.map(|_| with(None, now.batch, None)).into_iter().collect();
    let given = now.checkpointing.is_some().then_some(now.checkpointing);
    let smaller = batches.iter().flat_map(|n| given.into_iter().chain([None]).map(|c| with(c, *n, None))).collect();
    let (fewest, longest) = (batches.last().copied().unwrap_or(now.batch), largest_batch(&run.data, 1));
    let lengths =
        std::iter::successors(Some(longest.next_power_of_two() / 2), |n| Some(n / 2)).take_while(|n| *n >= 128);
    [policies, smaller, lengths.map(|length| with(None, fewest, Some(length))).collect()]
}

fn current(run: &Planned) -> Settings {
    let training = &run.recipe.training;
    let (batch, accumulation) = (training.batch_size, training.accumulation);
    Settings { checkpointing: training.checkpointing, batch, accumulation, length: None }
}

/// Programs with other settings that fit.
struct Fitting {
    recorded: Recorded,
    /// Predicted seconds for each token of a micro-batch.
    seconds: f64,
}

/// The program with these settings, and with the fastest policies if they leave them open; `None` if it does not fit.
fn fitting(
    run: &Planned,
    checkpoint: Option<&TensorFiles>,
    settings: Settings,
    limit: &Limit<'_>,
) -> Result<Option<Fitting>> {
    let layers = run.config.layers;
    let least = match settings.checkpointing {
        Some(_) => by_key(settings.checkpointing, layers),
        None => everywhere(Policy::Offload, layers),
    };
    let recorded = record(run, checkpoint, settings, least)?;
    let fits =
        if settings.checkpointing.is_some() { limit.missing(&recorded)? == 0 } else { limit.allows(&recorded)? };
    if !fits {
        return Ok(None);
    }
    let time = |recorded: &Recorded| seconds_per_token(run, recorded, limit);
    if settings.checkpointing.is_some() {
        return Ok(Some(Fitting { seconds: time(&recorded), recorded }));
    }
    let with = |policies| record(run, checkpoint, settings, policies);
    let best = Ladder::new(layers, &with, &time)?.best(&|recorded| limit.allows(recorded))?;
    Ok(best.map(|rung| Fitting { recorded: rung.recorded, seconds: rung.seconds }))
}

fn record(
    run: &Planned,
    checkpoint: Option<&TensorFiles>,
    settings: Settings,
    policies: Vec<Policy>,
) -> Result<Recorded> {
    let tokens =
        settings.length.map_or_else(|| largest_batch(&run.data, settings.batch), |length| length * settings.batch);
    let capacity = Capacity { tokens, updates: run.steps.total };
    record_training(&run.recipe, &run.config, checkpoint, run.recorded.adapted.clone(), capacity, policies)
}

/// Predicted seconds for each token of a full micro-batch. Without measured rates for the device, those of a GPU that was
/// measured: only their ratio matters here.
fn seconds_per_token(run: &Planned, recorded: &Recorded, limit: &Limit<'_>) -> f64 {
    let rates = limit.device.and_then(|device| device.about().rates).unwrap_or(Rates::reference().1);
    let tokens = recorded.model.program.tokens;
    let load = Load { tokens, ..load(&run.data.train, run.config.sliding_window) };
    seconds(&recorded.model.program, Phase::Micro, load, rates) / tokens.max(1) as f64
}

/// The settings that differ from the recipe's, written as recipe keys.
fn changes(run: &Planned, settings: Settings) -> String {
    let current = current(run);
    let mut keys = Vec::new();
    match settings.checkpointing {
        same if same == current.checkpointing => {}
        None => keys.push("no gradient_checkpointing (then as much is kept as fits)".to_string()),
        Some(flag) => keys.push(format!("gradient_checkpointing = {flag}")),
    }
    if settings.batch != current.batch {
        keys.push(format!("per_device_train_batch_size = {}", settings.batch));
        keys.push(format!("gradient_accumulation_steps = {}", settings.accumulation));
    }
    keys.extend(settings.length.map(|length| format!("max_seq_length = {length}")));
    keys.join(", ")
}
