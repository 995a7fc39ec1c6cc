//! The training loop: steps, evaluation, logging. A library function with events; the command line only draws them.

use super::arithmetic::Steps;
use super::schedule::{Schedule, Shape};
use super::session::Session;
use crate::config::training::{Cadence, TrainingConfig};
use crate::data::loader::{Dataset, Loader, Step};
use crate::dtype::DType;
use crate::error::{Error, Result};
use serde::Serialize;
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
    /// A checkpoint is due.
    SaveDue {
        /// Steps done.
        step: usize,
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

/// The end of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Steps done.
    pub steps: usize,
    /// Whether it was stopped before its last step.
    pub interrupted: bool,
    /// Mean of the steps' losses.
    pub train_loss: f64,
    /// Loss of the last step.
    pub final_loss: f64,
    /// Tokens seen.
    pub tokens: usize,
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

/// Trains: the adapter and the optimizer state are in `session`, the schedule is written to it here.
pub fn train(
    session: &mut Session,
    loader: &mut Loader,
    evaluation: Option<&Evaluation>,
    config: &TrainingConfig,
    steps: &Steps,
    mut observe: impl FnMut(&mut Session, Event) -> Result<Reply>,
) -> Result<Summary> {
    let rates = learning_rates(config, steps)?;
    if let Some(schedule) = session.model.params.optimizer.as_ref().map(|o| o.schedule) {
        session.write(schedule, &rates)?;
    }
    let due = |cadence: Cadence, step: usize, epoch_ended: bool| match cadence {
        Cadence::Never => false,
        Cadence::Epoch => epoch_ended,
        Cadence::Steps(n) => step.is_multiple_of(n),
        Cadence::Share(share) => step.is_multiple_of(((share * steps.total as f64).ceil() as usize).max(1)),
    };
    let mut total = Totals::default();
    let mut since_log = Totals::default();
    let mut micro_steps = 0;
    let mut interrupted = false;
    for step in 1..=steps.total {
        let record = one_step(session, &loader.next_step(), config.seed, &mut micro_steps, step, steps.total)?;
        total.add(&record);
        since_log.add(&record);
        let mut stop = observe(session, Event::Stepped(record))? == Reply::Stop;
        let last = step == steps.total || stop;
        let epoch_ended = record.epoch.fract() == 0.0;
        let first = config.logging_first_step && step == 1;
        if first || last || due(config.logging, step, epoch_ended) {
            let log = Event::Logged(since_log.log(&record));
            since_log = Totals::default();
            stop |= observe(session, log)? == Reply::Stop;
        }
        if let Some(evaluation) = evaluation.filter(|_| due(config.eval, step, epoch_ended)) {
            let result = evaluate(session, evaluation, true, step)?;
            stop |= observe(session, Event::Evaluated(result))? == Reply::Stop;
        }
        if due(config.save, step, epoch_ended) && step < steps.total {
            stop |= observe(session, Event::SaveDue { step })? == Reply::Stop;
        }
        if stop {
            interrupted = step < steps.total;
            break;
        }
    }
    Ok(Summary {
        steps: total.steps,
        interrupted,
        train_loss: total.loss / total.steps.max(1) as f64,
        final_loss: total.last,
        tokens: total.tokens,
        seconds: total.time.as_secs_f64(),
    })
}

/// Accumulates the step's micro-batches and updates.
fn one_step(
    session: &mut Session,
    data: &Step,
    seed: u64,
    micro_steps: &mut i32,
    step: usize,
    total: usize,
) -> Result<StepRecord> {
    let started = Instant::now();
    session.begin()?;
    let (mut loss, mut predicted, mut hits) = (0.0, 0, 0);
    for batch in &data.micro_batches {
        let micro = session.micro(batch, data.num_items.max(1), [seed as i32, *micro_steps])?;
        *micro_steps = micro_steps.wrapping_add(1);
        loss += micro.loss + micro.aux;
        predicted += batch.predicted();
        hits += micro.hits;
    }
    if !loss.is_finite() {
        return Err(Error::run(format!("step {step}: the loss is {loss} on the rows {:?}", data.rows))
            .hint("look at these rows with `inspect-data`; lower learning_rate, or train in bf16"));
    }
    let update = session.update()?;
    // f16 overflows are expected now and then, and are skipped; any other type must never get here.
    if !update.grad_norm.is_finite() && session.model.spec.compute != DType::F16 {
        return Err(Error::run(format!("step {step}: the gradient is not finite on the rows {:?}", data.rows))
            .hint("lower learning_rate, or set max_grad_norm"));
    }
    Ok(StepRecord {
        step,
        total,
        epoch: data.epoch,
        loss,
        predicted,
        hits,
        grad_norm: update.grad_norm,
        learning_rate: update.learning_rate,
        skipped: update.skipped,
        tokens: data.micro_batches.iter().map(|b| b.tokens()).sum(),
        time: started.elapsed(),
    })
}

/// Sums over steps.
#[derive(Default)]
struct Totals {
    steps: usize,
    loss: f64,
    last: f64,
    predicted: usize,
    hits: usize,
    tokens: usize,
    time: Duration,
}

impl Totals {
    fn add(&mut self, record: &StepRecord) {
        self.steps += 1;
        self.loss += record.loss;
        self.last = record.loss;
        self.predicted += record.predicted;
        self.hits += record.hits;
        self.tokens += record.tokens;
        self.time += record.time;
    }
    fn log(&self, last: &StepRecord) -> LogRecord {
        LogRecord {
            step: last.step,
            epoch: last.epoch,
            loss: self.loss / self.steps as f64,
            mean_token_accuracy: self.hits as f64 / self.predicted.max(1) as f64,
            grad_norm: last.grad_norm,
            learning_rate: last.learning_rate,
            tokens_per_second: self.tokens as f64 / self.time.as_secs_f64(),
        }
    }
}

/// The loss of an evaluation set, with the adapter or of the base model alone.
pub fn evaluate(session: &mut Session, evaluation: &Evaluation, adapter: bool, step: usize) -> Result<EvalRecord> {
    // The adapter's copies in the compute type may be older than its master.
    session.begin()?;
    let Evaluation { dataset, batch, packed } = evaluation;
    let lengths = dataset.rows.lengths();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let window = session.model.spec.config.sliding_window;
    // A batch that does not fit is run in equal parts; its mean is taken over all of them.
    let fits = |rows: &usize| batch.is_multiple_of(*rows) && rows * longest <= session.model.spec.tokens;
    let part = (1..=*batch).rev().find(fits).unwrap_or(1);
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
