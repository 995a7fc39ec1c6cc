//! Continues the recipe's `sample_prompts` during training.

use crate::data::document::Encoder;
use crate::generate::{Decoding, decode};
use crate::train::records::{Continuation, SampleRecord};
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::{Sampling, Session};

/// The recipe's prompts, tokenized.
pub struct Samples {
    prompts: Vec<(String, Vec<u32>)>,
    max_new_tokens: usize,
}

impl Samples {
    /// Tokenizes the prompts. With `special`, literals such as `</s>` in them become special tokens. Each prompt must
    /// leave room for at least one new token in a batch of `capacity` tokens.
    pub fn new(
        prompts: &[String],
        max_new_tokens: usize,
        special: bool,
        encoder: &Encoder,
        capacity: usize,
    ) -> Result<Self> {
        let encode = |prompt: &String| {
            let marked = if special { encoder.literals().mark(prompt) } else { prompt.clone() };
            let ids = encoder.prompt(&marked);
            if ids.is_empty() || ids.len() >= capacity {
                let tokens = ids.len();
                let shown: String = prompt.chars().take(60).collect();
                let more = if shown.len() < prompt.len() { "…" } else { "" };
                return Err(Error::usage(format!("sample_prompts: {shown:?}{more} has {tokens} tokens")).hint(
                    format!("give a prompt of 1 to {} tokens: a batch of this run holds {capacity}", capacity - 1),
                ));
            }
            Ok((prompt.clone(), ids))
        };
        Ok(Self { prompts: prompts.iter().map(encode).collect::<Result<_>>()?, max_new_tokens })
    }

    /// Continues every prompt with the adapted model after `step` steps. Decoding is greedy, so that samples of
    /// different steps can be compared.
    pub fn take(&self, session: &mut Session, encoder: &Encoder, step: usize) -> Result<SampleRecord> {
        let eos: Vec<u32> = session.model.spec.config.eos_ids.iter().copied().chain(encoder.eos()).collect();
        // The adapter's copies in the compute type may be older than the f32 master.
        session.begin()?;
        let mut samples = Vec::new();
        for (prompt, ids) in &self.prompts {
            let (max_new_tokens, sampling) = (self.max_new_tokens, Sampling::GREEDY);
            let rule = Decoding { max_new_tokens, eos: &eos, adapter: true, sampling };
            let mut new = decode(session, ids, rule, |_| true)?;
            let ended = new.pop_if(|id| eos.contains(id)).is_some();
            let answer = encoder.tokenizer().decode(&new).map_err(|e| Error::run(e.to_string()))?;
            samples.push(Continuation { prompt: prompt.clone(), answer, ended });
        }
        Ok(SampleRecord { step, samples })
    }
}
