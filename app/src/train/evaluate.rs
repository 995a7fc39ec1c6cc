//! Evaluates a model: loss and token accuracy over an evaluation set.

use super::records::EvalRecord;
use crate::data::loader::Dataset;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::Session;

/// An evaluation set and the batches over which HF takes means.
pub struct Evaluation {
    /// The rows of the set.
    pub dataset: Dataset,
    /// `per_device_eval_batch_size`: rows of a batch.
    pub batch: usize,
    /// Whether a row may contain several documents.
    pub packed: bool,
}

/// The number of rows that run at once. A batch that exceeds `tokens` runs in equal parts; its mean is still taken over
/// the whole batch.
pub fn rows_at_once(batch: usize, longest: usize, tokens: usize) -> usize {
    let fits = |rows: &usize| batch.is_multiple_of(*rows) && rows * longest <= tokens;
    (1..=batch).rev().find(fits).unwrap_or(1)
}

/// Evaluates the model with the adapter, or the base model alone. `step` goes into the record.
pub fn evaluate(session: &mut Session, evaluation: &Evaluation, adapter: bool, step: usize) -> Result<EvalRecord> {
    // The adapter's copies in the compute type may be older than the f32 master.
    session.begin()?;
    let Evaluation { dataset, batch, packed } = evaluation;
    let lengths = dataset.rows.lengths();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let window = session.model.spec.config.sliding_window;
    let part = rows_at_once(*batch, longest, session.model.spec.tokens);
    let (mut sum, mut tokens, mut hits) = (0.0, 0, 0);
    let (mut batch_sum, mut batch_aux, mut batch_tokens, mut batch_rows) = (0.0, 0.0, 0, 0);
    let (mut weighted, mut rows) = (0.0, 0);
    let mut seen = 0;
    for run in dataset.in_order(part, *packed, window) {
        let result = session.eval(&run, adapter)?;
        hits += result.hits;
        batch_sum -= result.logp.iter().sum::<f64>();
        batch_tokens += run.predicted();
        let here = part.min(lengths.len() - seen);
        // The auxiliary loss of a batch that runs in parts is the mean of those of its parts.
        batch_aux += result.aux * here as f64;
        seen += here;
        batch_rows += here;
        if batch_rows == *batch || seen == lengths.len() {
            if batch_tokens > 0 {
                weighted += batch_sum / batch_tokens as f64 * batch_rows as f64 + batch_aux;
                rows += batch_rows;
            }
            sum += batch_sum;
            tokens += batch_tokens;
            (batch_sum, batch_aux, batch_tokens, batch_rows) = (0.0, 0.0, 0, 0);
        }
    }
    if tokens == 0 {
        return Err(Error::input("the evaluation set has no predicted token")
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
