//! Encodes text to ids.

use std::ops::Range;

use rayon::prelude::*;

use crate::{Engine, Tokenizer};

/// A token and the bytes of the text that it stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// The id of its piece.
    pub id: u32,
    /// The byte range in the original text. It begins and ends at character boundaries.
    ///
    /// If several tokens share a character, a SentencePiece tokenizer gives the character to the last of them, as
    /// SentencePiece does, and the others are empty. A byte-level tokenizer gives it to each of them, as transformers
    /// does. All characters that NFC composes or reorders together have the same span.
    pub span: Range<usize>,
}

impl Tokenizer {
    /// The ids of `text`, without begin or end tokens. They equal SentencePiece's ids, or for a byte-level tokenizer
    /// those of Hugging Face's `tokenizers`.
    ///
    /// Text never produces control tokens; see [`encode_special`](Self::encode_special) for the mode in which it does.
    /// User-defined pieces (a byte-level tokenizer's added tokens that are not special) are always found.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 4);
        self.encode_into(text, &mut out);
        out
    }

    /// Appends the ids of `text` to `out`.
    pub fn encode_into(&self, text: &str, out: &mut Vec<u32>) {
        match &self.engine {
            Engine::SentencePiece(engine) => engine.encode_into(text, out),
            Engine::ByteLevel(engine) => engine.encode_into(text, out),
        }
    }

    /// The ids of `text` as the continuation of another text: no space is put before it. `encode_continuation("Hello")`
    /// is the piece `Hello`, where `encode` gives `▁Hello`. Byte-level tokenizers never add a space, so the ids are
    /// those of [`encode`](Self::encode).
    pub fn encode_continuation(&self, text: &str) -> Vec<u32> {
        match &self.engine {
            Engine::SentencePiece(engine) => engine.encode_continuation(text),
            Engine::ByteLevel(_) => self.encode(text),
        }
    }

    /// The ids of many texts, encoded on all threads of the rayon pool; the same as [`encode`](Self::encode) of each.
    pub fn encode_batch<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Vec<Vec<u32>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The tokens of `text`, with the same ids as [`encode`](Self::encode), and the bytes that each stands for.
    pub fn encode_with_offsets(&self, text: &str) -> Vec<Token> {
        match &self.engine {
            Engine::SentencePiece(engine) => engine.encode_with_offsets(text),
            Engine::ByteLevel(engine) => engine.encode_with_offsets(text),
        }
    }
}
