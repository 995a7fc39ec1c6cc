//! The training loop: steps, evaluation, logging. It reports its progress through events, which a caller shows and
//! stores.

use super::evaluate::{Evaluation, evaluate};
use super::length::Steps;
use super::records::{EvalRecord, LogRecord, SampleRecord, StepRecord, Summary};
use super::schedule::{Schedule, ScheduleKind};
use super::state::{Totals, TrainerState};
use super::watchdog::Watch;
use crate::config::cadence::Cadence;
use crate::config::training::TrainingConfig;
use crate::data::loader::{Loader, StepData};
use crate::sensors::Nvml;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::op::Control;
use halfbyte_core::session::{Session, Update};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// An event of the training loop.
#[derive(Clone, Debug)]
pub enum TrainEvent {
    /// One optimizer step is done.
    Stepped(StepRecord),
    /// A training record for metrics.jsonl is ready.
    Logged(LogRecord),
    /// An evaluation is done.
    Evaluated(EvalRecord),
    /// Samples are due.
    SampleDue {
        /// Optimizer steps done.
        step: usize,
    },
    /// Samples were generated.
    Sampled(SampleRecord),
    /// A checkpoint is due.
    SaveDue {
        /// The state to save beside the adapter and the optimizer state.
        state: TrainerState,
        /// The reason for this checkpoint.
        cause: SaveCause,
    },
    /// A checkpoint is complete.
    Saved {
        /// Optimizer steps done.
        step: usize,
        /// The folder of the checkpoint.
        folder: PathBuf,
    },
}

/// Why a checkpoint is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaveCause {
    /// The recipe requires it, or the run ends here.
    Wanted,
    /// `save_minutes` have passed since the last one. The next checkpoint may replace this one.
    Clock,
    /// The loss or the gradient of the next step was not finite, and the run ends with an error. The weights may be the
    /// cause, so the state is kept under another name, and no run resumes from it.
    Diverged,
}

/// The caller's reply to an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Continue with the run.
    Continue,
    /// End the run after this step.
    Stop,
}

/// The learning rates of all steps of a run.
pub fn learning_rates(config: &TrainingConfig, steps: &Steps) -> Result<Vec<f64>> {
    let kwargs = config.schedule_kwargs.iter().cloned().collect();
    let shape = ScheduleKind::parse(&config.schedule, &kwargs)?;
    let warmup = super::schedule::warmup_steps(steps.total, config.warmup_steps, config.warmup_ratio);
    let rates = Schedule::new(shape, config.learning_rate, warmup, steps.total)?.table();
    // The device computes with f32.
    match rates.iter().position(|rate| !(*rate as f32).is_finite()) {
        None => Ok(rates),
        Some(step) => Err(Error::usage(format!("the learning rate of step {} is {}", step + 1, rates[step] as f32))
            .hint("lower learning_rate")),
    }
}

/// Trains from `state` to the end of the run, or until `observe` replies [`Reply::Stop`]. `session` has the adapter and
/// the optimizer state already; this function writes the learning rates to it. After an error, `state` is that of the
/// last good step.
pub fn train(
    session: &mut Session,
    loader: &mut Loader,
    evaluation: Option<&Evaluation>,
    config: &TrainingConfig,
    steps: &Steps,
    state: &mut TrainerState,
    mut observe: impl FnMut(&mut Session, TrainEvent) -> Result<Reply>,
) -> Result<Summary> {
    let rates = learning_rates(config, steps)?;
    if let Some(schedule) = session.model.params.optimizer.as_ref().map(|o| o.schedule) {
        session.write(schedule, &rates)?;
    }
    loader.seek(state.position)?;
    let nvml = Nvml::of(session.device()).ok();
    let mut watch = config.watchdog.then(|| Watch::start(session)).transpose()?;
    let mut saved = Instant::now();
    let save_after = Duration::try_from_secs_f64(60.0 * config.save_minutes).unwrap_or(Duration::MAX);
    let by_clock = |saved: Instant| config.save_minutes > 0.0 && saved.elapsed() >= save_after;
    let out_of_patience = |state: &TrainerState| config.best.patience.is_some_and(|most| state.without_gain >= most);
    // A run that stopped early has nothing left to do when it is resumed.
    let (mut interrupted, mut stopped_early) = (false, out_of_patience(state));
    while state.step < steps.total && !interrupted && !stopped_early {
        let data = loader.next_step();
        let record = one_step(session, &data, config.seed, state, &rates)?;
        if let Some(error) = divergence(&record, &data.rows, session.model.spec.compute) {
            // Nothing was updated, so this is still the state after the previous step.
            // If it cannot be saved, its own error matters less.
            let _ = observe(session, TrainEvent::SaveDue { state: state.clone(), cause: SaveCause::Diverged });
            return Err(error);
        }
        let step = record.step;
        state.step = step;
        state.micro_steps = state.micro_steps.wrapping_add(data.micro_batches.len() as i32);
        state.position = loader.position();
        state.total.add(&record);
        state.since_log.add(&record);
        let mut stop = observe(session, TrainEvent::Stepped(record))? == Reply::Stop;
        if let Some(watch) = &mut watch {
            watch.step(session, &record)?;
        }
        // As in HF, the last epoch ends with the run, even if it is incomplete.
        let epoch_ended = record.epoch.fract() == 0.0 || step == steps.total;
        let due = |cadence: Cadence| match cadence.every(steps.total) {
            Some(n) => step.is_multiple_of(n),
            None => cadence == Cadence::Epoch && epoch_ended,
        };
        let first = config.logging_first_step && step == 1;
        if first || stop || step == steps.total || due(config.logging) {
            let log = TrainEvent::Logged(state.since_log.log(&record, nvml.as_ref().map(|nvml| nvml.read().into())));
            state.since_log = Totals::default();
            stop |= observe(session, log)? == Reply::Stop;
        }
        let mut best = false;
        if let Some(evaluation) = evaluation.filter(|_| due(config.eval)) {
            let result = evaluate(session, evaluation, true, step)?;
            state.note_evaluation(&config.best, &result);
            best = config.best.load_at_end && state.best.is_some_and(|b| b.step == step);
            stopped_early = out_of_patience(state);
            stop |= observe(session, TrainEvent::Evaluated(result))? == Reply::Stop;
        }
        let last = step == steps.total || stopped_early;
        if due(config.sample) || (last && config.sample != Cadence::Never) {
            stop |= observe(session, TrainEvent::SampleDue { step })? == Reply::Stop;
        }
        interrupted = stop && step < steps.total && !stopped_early;
        // As in HF, the last step gets a checkpoint, too, unless saving is off.
        let saves = config.save != Cadence::Never;
        let wanted = best || (last && saves) || interrupted || due(config.save);
        if wanted || (saves && by_clock(saved)) {
            let cause = if wanted { SaveCause::Wanted } else { SaveCause::Clock };
            observe(session, TrainEvent::SaveDue { state: state.clone(), cause })?;
            saved = Instant::now();
        }
    }
    let total = &state.total;
    Ok(Summary {
        steps: state.step,
        interrupted,
        stopped_early,
        best: state.best,
        train_loss: total.loss / total.steps.max(1) as f64,
        final_loss: total.last,
        tokens: total.tokens,
        rows: total.rows,
        seconds: total.seconds,
    })
}

/// Runs the step after `state`: accumulates the gradients of its micro-batches, then updates. Nothing is updated if the
/// loss or the gradient is not finite.
fn one_step(
    session: &mut Session,
    data: &StepData,
    seed: u64,
    state: &TrainerState,
    rates: &[f64],
) -> Result<StepRecord> {
    let started = Instant::now();
    session.begin()?;
    let (mut loss, mut predicted, mut hits) = (0.0, 0, 0);
    for (i, batch) in data.micro_batches.iter().enumerate() {
        let key = [seed as i32, state.micro_steps.wrapping_add(i as i32)];
        let micro = session.micro(batch, data.num_items.max(1), key)?;
        loss += micro.loss + micro.aux;
        predicted += batch.predicted();
        hits += micro.hits;
    }
    let nothing = Update { grad_norm: f64::NAN, learning_rate: f64::NAN, skipped: true };
    let mut update = if loss.is_finite() { session.update()? } else { nothing };
    if loss.is_finite() {
        // The device reads the table in f32. As in HF, a skipped update has the rate that it would have used; the schedule
        // waits, so the next update uses it.
        let done = session.control()?[Control::Step as usize] as usize - usize::from(!update.skipped);
        update.learning_rate = rates[done.min(rates.len() - 1)];
    }
    Ok(StepRecord {
        step: state.step + 1,
        total: rates.len(),
        epoch: data.epoch,
        loss,
        predicted,
        hits,
        grad_norm: update.grad_norm,
        learning_rate: update.learning_rate,
        skipped: update.skipped,
        tokens: data.micro_batches.iter().map(|b| b.tokens()).sum(),
        padded_tokens: data.padded_tokens,
        rows: data.rows.len(),
        time: started.elapsed(),
    })
}

/// The error that ends the run if the step diverged. An overflow of f16 gradients is normal: the step is skipped and
/// the loss scale is halved.
fn divergence(record: &StepRecord, rows: &[usize], compute: DType) -> Option<Error> {
    let StepRecord { step, loss, grad_norm, .. } = record;
    let (what, remedy) = if !loss.is_finite() {
        (format!("the loss is {loss}"), "lower learning_rate, or train in bf16")
    } else if !grad_norm.is_finite() && compute != DType::F16 {
        ("the gradient is not finite".into(), "lower learning_rate, or set max_grad_norm")
    } else {
        return None;
    };
    // Counted from 1, as in `inspect-data`.
    let rows: Vec<String> = rows.iter().map(|row| (row + 1).to_string()).collect();
    let rows = rows.join(",");
    let hint =
        format!("look at the rows with `inspect-data RECIPE --row {rows}`; {remedy}; then continue with --resume");
    Some(Error::run(format!("step {step}: {what} on the rows {rows}")).hint(hint))
}
