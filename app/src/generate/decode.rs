//! Decoding, greedy or sampled. There is no cache of keys and values: every new token runs the whole text again.

use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::batch::{Document, IGNORED, MicroBatch};
use halfbyte_core::session::{Sampling, Session};

/// How to choose each new token, and when to stop.
#[derive(Clone, Copy, Debug)]
pub struct Decoding<'a> {
    /// The most new tokens.
    pub max_new_tokens: usize,
    /// Tokens that end the text. The end token itself is still returned, as in HF.
    pub eos: &'a [u32],
    /// Whether to use the adapter, or the base model alone.
    pub adapter: bool,
    /// Greedy, or the parameters of sampling.
    pub sampling: Sampling,
}

/// Continues `prompt` and returns the new tokens. Calls `on_token` with each of them, and stops when it returns false.
/// Also stops at the session's capacity of tokens.
pub fn decode(
    session: &mut Session,
    prompt: &[u32],
    rule: Decoding,
    mut on_token: impl FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    let capacity = session.model.spec.tokens;
    if prompt.is_empty() {
        return Err(
            Error::usage("the prompt is empty: it has no token").hint("give some text, or let the tokenizer add BOS")
        );
    }
    if prompt.len() + rule.max_new_tokens.min(1) > capacity {
        return Err(Error::usage(format!("the prompt has {} tokens, but the context holds {capacity}", prompt.len()))
            .hint("shorten the prompt or raise --max-seq-length"));
    }
    let window = session.model.spec.config.sliding_window;
    let mut ids = prompt.to_vec();
    while ids.len() < capacity && ids.len() - prompt.len() < rule.max_new_tokens {
        let text = Document { labels: vec![IGNORED; ids.len()], ids: ids.clone() };
        let batch = MicroBatch::new(&[&text], window);
        let draw = (ids.len() - prompt.len()) as u32;
        let next = session.next_tokens(&batch, &[ids.len() - 1], rule.adapter, &rule.sampling, draw)?[0];
        ids.push(next);
        if !on_token(next) || rule.eos.contains(&next) {
            break;
        }
    }
    Ok(ids.split_off(prompt.len()))
}
