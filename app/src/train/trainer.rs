//! The training loop: steps, evaluation, logging. A library function with events; the command line only draws them.

use super::arithmetic::Steps;
use super::schedule::{Schedule, Shape};
use super::state::{Best, Totals, TrainerState};
use super::system::SystemMetrics;
use crate::config::training::{Cadence, TrainingConfig};
use crate::data::loader::{Dataset, Loader, Step};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::{Session, Update};
use serde::Serialize;
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
    SaveDue(TrainerState),
    /// The next step was not finite, and the run ends with an error: a checkpoint is due, but its weights may be what
    /// is wrong, so no older one should go for it.
    Diverged(TrainerState),
    /// A checkpoint is complete.
    Saved {
        /// Steps done.
        step: usize,
        /// Its folder.
        folder: PathBuf,
    },
}

/// What the caller wants after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Go on.
    Continue,
    /// End the run after this step.
    Stop,
}

/// One optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRecord {
    /// Steps done, this one included.
    pub step: usize,
    /// Steps of the run.
    pub total: usize,
    /// Epochs done.
    pub epoch: f64,
    /// Mean loss of the predicted tokens (with the auxiliary loss where it is trained on).
    pub loss: f64,
    /// Tokens that were predicted, and how many of them were the most probable token.
    pub predicted: usize,
    /// See `predicted`.
    pub hits: usize,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// f16: the gradient overflowed and nothing was changed.
    pub skipped: bool,
    /// Tokens of the step.
    pub tokens: usize,
    /// Tokens as HF's Trainer counts them, see [`Step`].
    pub padded_tokens: usize,
    /// Rows of the step.
    pub rows: usize,
    /// Time of the step.
    pub time: Duration,
}

/// A record of metrics.jsonl, with HF's names.
#[derive(Clone, Debug, Serialize)]
pub struct LogRecord {
    /// Steps done.
    pub step: usize,
    /// Epochs done.
    pub epoch: f64,
    /// Mean of the steps' losses since the last record.
    pub loss: f64,
    /// Share of the predicted tokens that were the most probable, since the last record.
    pub mean_token_accuracy: f64,
    /// Of the last step.
    pub grad_norm: f64,
    /// Of the last step.
    pub learning_rate: f64,
    /// Since the last record.
    pub tokens_per_second: f64,
    /// What the device's sensors say now.
    #[serde(flatten)]
    pub sensors: Option<SystemMetrics>,
}

/// The result of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EvalRecord {
    /// Steps done.
    pub step: usize,
    /// As HF's Trainer prints it: the mean over rows of the mean loss of their batch.
    pub eval_loss: f64,
    /// Mean over all predicted tokens.
    pub eval_loss_per_token: f64,
    /// e^eval_loss_per_token.
    pub eval_perplexity: f64,
    /// Share of the predicted tokens that were the most probable.
    pub eval_mean_token_accuracy: f64,
    /// Number of predicted tokens.
    pub eval_tokens: usize,
}

/// What the model said to the recipe's `sample_prompts`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleRecord {
    /// Steps done.
    pub step: usize,
    /// One for each prompt.
    pub samples: Vec<Sample>,
}

/// A continued prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// The prompt.
    pub prompt: String,
    /// What came after it.
    pub answer: String,
    /// Whether the model ended it, or `sample_max_new_tokens` did.
    pub ended: bool,
}

/// The end of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Steps done.
    pub steps: usize,
    /// Whether it was stopped from outside before its last step.
    pub interrupted: bool,
    /// Whether it ended early because the evaluations had stopped to gain.
    pub stopped_early: bool,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Mean of the steps' losses.
    pub train_loss: f64,
    /// Loss of the last step.
    pub final_loss: f64,
    /// Tokens seen.
    pub tokens: usize,
    /// Rows seen.
    pub rows: usize,
    /// Seconds in steps.
    pub seconds: f64,
}

/// An evaluation set and how its batches are counted.
pub struct Evaluation {
    /// The rows.
    pub dataset: Dataset,
    /// `per_device_eval_batch_size`: rows of an HF batch.
    pub batch: usize,
    /// Rows hold several documents.
    pub packed: bool,
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
    let due = |cadence: Cadence, step: usize, epoch_ended: bool| match cadence {
        Cadence::Never => false,
        Cadence::Epoch => epoch_ended,
        Cadence::Steps(n) => step.is_multiple_of(n),
        Cadence::Share(share) => step.is_multiple_of(((share * steps.total as f64).ceil() as usize).max(1)),
    };
    let out_of_patience = |state: &TrainerState| config.best.patience.is_some_and(|most| state.without_gain >= most);
    // A run that goes on from its early end has come to its end.
    let (mut interrupted, mut stopped_early) = (false, out_of_patience(state));
    while state.step < steps.total && !interrupted && !stopped_early {
        let data = loader.next_step();
        let record = one_step(session, &data, config.seed, state, steps.total)?;
        if let Some(error) = divergence(&record, &data.rows, session.model.spec.compute) {
            // Nothing was updated: this is the state after the step before.
            observe(session, Event::Diverged(state.clone()))?;
            return Err(error);
        }
        let step = record.step;
        state.step = step;
        state.micro_steps = state.micro_steps.wrapping_add(data.micro_batches.len() as i32);
        state.position = loader.position();
        state.total.add(&record);
        state.since_log.add(&record);
        let mut stop = observe(session, Event::Stepped(record))? == Reply::Stop;
        // As in HF the last epoch ends with the run, wherever that is.
        let epoch_ended = record.epoch.fract() == 0.0 || step == steps.total;
        let first = config.logging_first_step && step == 1;
        if first || stop || step == steps.total || due(config.logging, step, epoch_ended) {
            let log = Event::Logged(state.since_log.log(&record, session.device().sensors().map(Into::into)));
            state.since_log = Totals::default();
            stop |= observe(session, log)? == Reply::Stop;
        }
        let mut best = false;
        if let Some(evaluation) = evaluation.filter(|_| due(config.eval, step, epoch_ended)) {
            let result = evaluate(session, evaluation, true, step)?;
            state.note_evaluation(&config.best, &result);
            best = config.best.load_at_end && state.best.is_some_and(|b| b.step == step);
            stopped_early = out_of_patience(state);
            stop |= observe(session, Event::Evaluated(result))? == Reply::Stop;
        }
        let last = step == steps.total || stopped_early;
        if due(config.sample, step, epoch_ended) || (last && config.sample != Cadence::Never) {
            stop |= observe(session, Event::SampleDue { step })? == Reply::Stop;
        }
        interrupted = stop && step < steps.total && !stopped_early;
        // As in HF the last step has a checkpoint too, unless there are none at all.
        if best || (last && config.save != Cadence::Never) || interrupted || due(config.save, step, epoch_ended) {
            observe(session, Event::SaveDue(state.clone()))?;
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

/// How many rows of an evaluation batch run at once: a batch that does not fit into `tokens` is run in equal parts, and
/// its mean is taken over all of them.
pub fn rows_at_once(batch: usize, longest: usize, tokens: usize) -> usize {
    let fits = |rows: &usize| batch.is_multiple_of(*rows) && rows * longest <= tokens;
    (1..=batch).rev().find(fits).unwrap_or(1)
}

/// The loss of an evaluation set, with the adapter or of the base model alone.
pub fn evaluate(session: &mut Session, evaluation: &Evaluation, adapter: bool, step: usize) -> Result<EvalRecord> {
    // The adapter's copies in the compute type may be older than its master.
    session.begin()?;
    let Evaluation { dataset, batch, packed } = evaluation;
    let lengths = dataset.rows.lengths();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let window = session.model.spec.config.sliding_window;
    let part = rows_at_once(*batch, longest, session.model.spec.tokens);
    let (mut sum, mut tokens, mut hits) = (0.0, 0, 0);
    let (mut batch_sum, mut batch_tokens, mut batch_rows) = (0.0, 0, 0);
    let (mut weighted, mut rows) = (0.0, 0);
    let mut seen = 0;
    for run in dataset.in_order(part, *packed, window) {
        let result = session.eval(&run, adapter)?;
        hits += result.hits;
        batch_sum -= result.logp.iter().sum::<f64>();
        batch_tokens += run.predicted();
        let here = part.min(lengths.len() - seen);
        seen += here;
        batch_rows += here;
        if batch_rows == *batch || seen == lengths.len() {
            if batch_tokens > 0 {
                weighted += batch_sum / batch_tokens as f64 * batch_rows as f64;
                rows += batch_rows;
            }
            sum += batch_sum;
            tokens += batch_tokens;
            (batch_sum, batch_tokens, batch_rows) = (0.0, 0, 0);
        }
    }
    if tokens == 0 {
        return Err(Error::input("the evaluation set has no token that is predicted")
            .hint("check `train_on` and the template with `inspect-data`"));
    }
    Ok(EvalRecord {
        step,
        eval_loss: weighted / rows as f64,
        eval_loss_per_token: sum / tokens as f64,
        eval_perplexity: (sum / tokens as f64).exp(),
        eval_mean_token_accuracy: hits as f64 / tokens as f64,
        eval_tokens: tokens,
    })
}
