//! Greedy decoding: the most probable token, again and again. The whole text is run for each token.

use crate::data::batch::{Document, IGNORED, MicroBatch};
use crate::error::{Error, Result};
use crate::train::session::Session;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Greedy<'a> {
    /// At most this many new tokens.
    pub max_new_tokens: usize,
    /// Tokens that end the text; the one found is still emitted, as in HF.
    pub eos: &'a [u32],
    /// With the adapter, or the base model alone.
    pub adapter: bool,
}

/// Continues `prompt`; calls `on_token` with each new token, which stops by returning false. Returns the new tokens.
/// Stops at the session's capacity of tokens.
pub fn greedy(
    session: &mut Session,
    prompt: &[u32],
    rule: Greedy,
    mut on_token: impl FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    let capacity = session.model.spec.tokens;
    if prompt.is_empty() {
        return Err(Error::usage("the prompt has no token").hint("give some text, or let the tokenizer add BOS"));
    }
    if prompt.len() + rule.max_new_tokens.min(1) > capacity {
        return Err(Error::usage(format!("the prompt has {} tokens, the context holds {capacity}", prompt.len()))
            .hint("shorten the prompt or raise --max-seq-length"));
    }
    let window = session.model.spec.config.sliding_window;
    let mut ids = prompt.to_vec();
    while ids.len() < capacity && ids.len() - prompt.len() < rule.max_new_tokens {
        let text = Document { labels: vec![IGNORED; ids.len()], ids: ids.clone() };
        let batch = MicroBatch::new(&[&text], window);
        let logits = session.logits(&batch, &[ids.len() - 1], rule.adapter)?;
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(Error::run("the model's logits are not numbers")
                .hint("the weights or the adapter are damaged, or too large for the type: try --dtype float32"));
        }
        let next = most_probable(&logits);
        ids.push(next);
        if !on_token(next) || rule.eos.contains(&next) {
            break;
        }
    }
    Ok(ids.split_off(prompt.len()))
}

/// Index of the largest; the first of equal ones, as in torch.
fn most_probable(logits: &[f64]) -> u32 {
    let best = logits.iter().enumerate().fold((0, f64::NEG_INFINITY), |b, (i, &l)| if l > b.1 { (i, l) } else { b });
    best.0 as u32
}
