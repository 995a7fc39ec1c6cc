//! The training loop: steps, evaluation, logging. A library function with events; the command line only draws them.

use super::evaluate::{Evaluation, evaluate};
use super::length::Steps;
use super::records::{EvalRecord, LogRecord, SampleRecord, StepRecord, Summary};
use super::schedule::{Schedule, Shape};
use super::state::{Totals, TrainerState};
use super::watchdog::Watch;
use crate::config::cadence::Cadence;
use crate::config::training::TrainingConfig;
use crate::data::loader::{Loader, Step};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::{Session, Update};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What happens during a run.
#[derive(Clone, Debug)]
pub enum Event {
    /// One optimizer step is done.
    Stepped(StepRecord),
    /// A line for metrics.jsonl: means since the last.
    Logged(LogRecord),
    /// An evaluation is done.
    Evaluated(EvalRecord),
    /// Samples are due.
    SampleDue {
        /// Steps done.
        step: usize,
    },
    /// Samples are there.
    Sampled(SampleRecord),
    /// A checkpoint is due.
    SaveDue {
        /// What it holds besides the adapter and the optimizer.
        state: TrainerState,
        /// Why.
        cause: SaveCause,
    },
    /// A checkpoint is complete.
    Saved {
        /// Steps done.
        step: usize,
        /// Its folder.
        folder: PathBuf,
    },
}

/// Why a checkpoint is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaveCause {
    /// The recipe says so, or the run ends here.
    Wanted,
    /// So much time has passed without one (`save_minutes`). It may go when the next one is there.
    Clock,
    /// The next step was not finite, and the run ends with an error. The weights may be what is wrong, so no older
    /// checkpoint should go for this one.
    Diverged,
}

/// What the caller wants after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Go on.
    Continue,
    /// End the run after this step.
    Stop,
}

/// The learning rate of every step.
pub fn learning_rates(config: &TrainingConfig, steps: &Steps) -> Result<Vec<f64>> {
    let kwargs = config.schedule_kwargs.iter().cloned().collect();
    let shape = Shape::parse(&config.schedule, &kwargs)?;
    let warmup = super::schedule::warmup_steps(steps.total, config.warmup_steps, config.warmup_ratio);
    Ok(Schedule::new(shape, config.learning_rate, warmup, steps.total)?.table())
}

/// Trains from `state` to the end of the run: the adapter and the optimizer state are in `session`, the schedule is
/// written to it here. After an error `state` is that of the last good step.
pub fn train(
    session: &mut Session,
    loader: &mut Loader,
    evaluation: Option<&Evaluation>,
    config: &TrainingConfig,
    steps: &Steps,
    state: &mut TrainerState,
    mut observe: impl FnMut(&mut Session, Event) -> Result<Reply>,
) -> Result<Summary> {
    let rates = learning_rates(config, steps)?;
    if let Some(schedule) = session.model.params.optimizer.as_ref().map(|o| o.schedule) {
        session.write(schedule, &rates)?;
    }
    loader.seek(state.position)?;
    let mut watch = config.watchdog.then(|| Watch::start(session)).transpose()?;
    let mut saved = Instant::now();
    let save_after = Duration::try_from_secs_f64(60.0 * config.save_minutes).unwrap_or(Duration::MAX);
    let by_clock = |saved: Instant| config.save_minutes > 0.0 && saved.elapsed() >= save_after;
    let out_of_patience = |state: &TrainerState| config.best.patience.is_some_and(|most| state.without_gain >= most);
    // A run that stopped early has nothing left to do when it is resumed.
    let (mut interrupted, mut stopped_early) = (false, out_of_patience(state));
    while state.step < steps.total && !interrupted && !stopped_early {
        let data = loader.next_step();
        let record = one_step(session, &data, config.seed, state, steps.total)?;
        if let Some(error) = divergence(&record, &data.rows, session.model.spec.compute) {
            // Nothing was updated: this is the state after the step before.
            observe(session, Event::SaveDue { state: state.clone(), cause: SaveCause::Diverged })?;
            return Err(error);
        }
        let step = record.step;
        state.step = step;
        state.micro_steps = state.micro_steps.wrapping_add(data.micro_batches.len() as i32);
        state.position = loader.position();
        state.total.add(&record);
        state.since_log.add(&record);
        let mut stop = observe(session, Event::Stepped(record))? == Reply::Stop;
        if let Some(watch) = &mut watch {
            watch.step(session, &record)?;
        }
        // As in HF the last epoch ends with the run, wherever that is.
        let epoch_ended = record.epoch.fract() == 0.0 || step == steps.total;
        let due = |cadence: Cadence| match cadence.every(steps.total) {
            Some(n) => step.is_multiple_of(n),
            None => cadence == Cadence::Epoch && epoch_ended,
        };
        let first = config.logging_first_step && step == 1;
        if first || stop || step == steps.total || due(config.logging) {
            let log = Event::Logged(state.since_log.log(&record, session.device().sensors().map(Into::into)));
            state.since_log = Totals::default();
            stop |= observe(session, log)? == Reply::Stop;
        }
        let mut best = false;
        if let Some(evaluation) = evaluation.filter(|_| due(config.eval)) {
            let result = evaluate(session, evaluation, true, step)?;
            state.note_evaluation(&config.best, &result);
            best = config.best.load_at_end && state.best.is_some_and(|b| b.step == step);
            stopped_early = out_of_patience(state);
            stop |= observe(session, Event::Evaluated(result))? == Reply::Stop;
        }
        let last = step == steps.total || stopped_early;
        if due(config.sample) || (last && config.sample != Cadence::Never) {
            stop |= observe(session, Event::SampleDue { step })? == Reply::Stop;
        }
        interrupted = stop && step < steps.total && !stopped_early;
        // As in HF the last step has a checkpoint too, unless there are none at all.
        let saves = config.save != Cadence::Never;
        let wanted = best || (last && saves) || interrupted || due(config.save);
        if wanted || (saves && by_clock(saved)) {
            let cause = if wanted { SaveCause::Wanted } else { SaveCause::Clock };
            observe(session, Event::SaveDue { state: state.clone(), cause })?;
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

/// Accumulates the micro-batches of the step after `state` and updates. With a loss or a gradient that is not finite
/// nothing is updated.
fn one_step(session: &mut Session, data: &Step, seed: u64, state: &TrainerState, total: usize) -> Result<StepRecord> {
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
    let update = if loss.is_finite() { session.update()? } else { nothing };
    Ok(StepRecord {
        step: state.step + 1,
        total,
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

/// Why the run cannot go on. f16 gradients overflow now and then: such a step is skipped, and the loss scale halved.
fn divergence(record: &StepRecord, rows: &[usize], compute: DType) -> Option<Error> {
    let StepRecord { step, loss, grad_norm, .. } = record;
    let (what, remedy) = if !loss.is_finite() {
        (format!("the loss is {loss}"), "lower learning_rate, or train in bf16")
    } else if !grad_norm.is_finite() && compute != DType::F16 {
        ("the gradient is not finite".into(), "lower learning_rate, or set max_grad_norm")
    } else {
        return None;
    };
    // Numbered as `inspect-data` numbers them.
    let rows: Vec<String> = rows.iter().map(|row| (row + 1).to_string()).collect();
    let rows = rows.join(",");
    let hint = format!("look at them with `inspect-data RECIPE --row {rows}`; {remedy}; then --resume");
    Some(Error::run(format!("step {step}: {what} on the rows {rows}")).hint(hint))
}
