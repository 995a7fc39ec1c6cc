//! Fits a run into the memory of its device: chooses what blocks keep if the recipe leaves that open, or suggests
//! settings with which the run would fit, and says what they cost.

use super::forecast::load;
use super::ladder::{Ladder, last};
use super::prepare::{Planned, Prepared};
use super::record::{Recorded, record_training};
use super::spec::{Capacity, MemoryChoice};
use crate::config::training::Placement;
use crate::data::open::largest_batch;
use crate::limits::memory;
use crate::weights::safetensors::TensorFiles;
use halfbyte_core::device::cuda::workspace;
use halfbyte_core::device::{Device, DeviceKind};
use halfbyte_core::error::{Error, Result};
use halfbyte_core::op::{Phase, Program};
use halfbyte_core::plan::cost::{Load, Rates, seconds};

/// Memory that the driver's context and the kernels take on a GPU: part of a budget, but of no plan.
pub const CONTEXT: usize = 640 << 20;

/// Memory that stays free on a GPU if the run chooses its policies itself.
pub const RESERVE: usize = 256 << 20;

/// The share of the available host memory that a run pins at most.
const PINNED_PERCENT: usize = 80;

/// Bytes of host memory that programs can get without swapping; `None` where the system does not say.
fn available_host_memory() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<usize>().ok().map(|kib| kib << 10)
}

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
        let host_fits = recorded.plan.host_bytes <= self.pinnable();
        Ok(host_fits && room.is_none_or(|room| recorded.plan.bytes + reserve <= room))
    }

    /// Bytes of host memory that a run may pin. A plan without a device is for another machine.
    pub fn pinnable(&self) -> usize {
        let available = self.device.and_then(|_| available_host_memory());
        available.map_or(usize::MAX, |bytes| bytes / 100 * PINNED_PERCENT)
    }

    /// The rates of the device or, if they were not measured, of a GPU that was: only their ratio matters here.
    fn rates(&self) -> Rates {
        self.device.and_then(|device| device.about().rates).unwrap_or(Rates::reference().1)
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
    /// Chooses the fastest program that fits: policies of the blocks if the recipe does not set `gradient_checkpointing`, and
    /// pages of the optimizer. An error if none fits: it states the missing memory and suggests settings. Allocates nothing.
    pub fn fit(&mut self, device: &dyn Device, budget: Option<usize>) -> Result<()> {
        let limit = Limit { budget, device: Some(device) };
        let run = &mut self.planned;
        if limit.allows(&run.recorded)? {
            return Ok(());
        }
        let (checkpoint, current) = (self.checkpoint.as_ref(), current(run));
        if let Some(Fitting { recorded, .. }) = fitting(run, checkpoint, current, &limit)? {
            run.recorded = recorded;
            return Ok(());
        }
        run.recorded = record(run, checkpoint, current, least(run, current))?;
        let short = limit.missing(&run.recorded)?;
        let (pinned, pinnable) = (run.recorded.plan.host_bytes, limit.pinnable());
        if pinned > pinnable {
            return Err(Error::system(format!(
                "the run fits into the GPU only with {} MiB of pinned host memory, but it may pin only {} MiB",
                pinned >> 20,
                pinnable >> 20
            ))
            .hint("close other programs, or use a smaller batch or a shorter max_seq_length"));
        }
        // The reserve is given up before the run is refused.
        if short == 0 { Ok(()) } else { Err(refusal(run, checkpoint, &limit, short)?) }
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
    let now = seconds_per_token(run, &run.recorded, limit.rates());
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

/// The fastest program with these settings that fits; `None` if none does.
fn fitting(
    run: &Planned,
    checkpoint: Option<&TensorFiles>,
    settings: Settings,
    limit: &Limit<'_>,
) -> Result<Option<Fitting>> {
    if !limit.allows(&record(run, checkpoint, settings, least(run, settings))?)? {
        return Ok(None);
    }
    let time = |recorded: &Recorded, rates: Rates| seconds_per_token(run, recorded, rates);
    let with = |choice| record(run, checkpoint, settings, choice);
    let ladder = Ladder::new(run.config.layers, (settings.checkpointing, is_paged(run)), &with, &time, limit.rates())?;
    let best = ladder.best(limit.pinnable(), &|recorded| limit.allows(recorded))?;
    Ok(best.map(|rung| Fitting { recorded: rung.recorded, seconds: rung.seconds }))
}

/// The choice that needs the least memory.
fn least(run: &Planned, settings: Settings) -> MemoryChoice {
    last(settings.checkpointing, is_paged(run), run.config.layers)
}

fn is_paged(run: &Planned) -> bool {
    run.recipe.training.optim.placement == Placement::Paged
}

fn record(
    run: &Planned,
    checkpoint: Option<&TensorFiles>,
    settings: Settings,
    choice: MemoryChoice,
) -> Result<Recorded> {
    let tokens =
        settings.length.map_or_else(|| largest_batch(&run.data, settings.batch), |length| length * settings.batch);
    let capacity = Capacity { tokens, updates: run.steps.total };
    record_training(&run.recipe, &run.config, checkpoint, run.recorded.adapted.clone(), capacity, choice)
}

/// Predicted seconds for each token of a full micro-batch.
fn seconds_per_token(run: &Planned, recorded: &Recorded, rates: Rates) -> f64 {
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
