//! Decodes ids to text, all at once or one by one.

use crate::error::Result;
use crate::{Engine, Tokenizer, byte_level, sentencepiece};

/// Decodes one sequence of ids step by step. The texts that [`push`](Decoder::push) and [`finish`](Decoder::finish)
/// return add up to what [`Tokenizer::decode`] returns for the whole sequence. An incomplete character is held back
/// until its other bytes arrive, so every returned text can be printed at once.
pub struct Decoder<'t> {
    tokenizer: &'t Tokenizer,
    state: State,
    ready: String,
}

/// The state of decoding between two ids.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// The bytes of an incomplete character.
    pub(crate) bytes: Vec<u8>,
    /// Whether decoding has passed the point where SentencePiece drops a leading space.
    pub(crate) begun: bool,
}

impl Tokenizer {
    /// The text of `ids`. Control pieces add nothing.
    ///
    /// A SentencePiece tokenizer drops one leading space (all of them if the model removes extra spaces), and replaces
    /// each byte that is not part of valid UTF-8 by U+FFFD. A byte-level tokenizer joins the bytes of all tokens and
    /// replaces each maximal broken part by one U+FFFD, as [`String::from_utf8_lossy`] does.
    ///
    /// An id outside of the vocabulary is an error.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decode_all(ids, false)
    }

    /// The text of `ids` including the texts of control pieces (`<s>`, `<|eot_id|>`). For a byte-level tokenizer, this
    /// is transformers' `decode(ids, skip_special_tokens=False)`.
    pub fn decode_special(&self, ids: &[u32]) -> Result<String> {
        self.decode_all(ids, true)
    }

    /// Starts to decode ids as they are generated.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder { tokenizer: self, state: State::default(), ready: String::new() }
    }

    fn decode_all(&self, ids: &[u32], show_control: bool) -> Result<String> {
        let mut out = String::with_capacity(4 * ids.len());
        let mut state = State::default();
        ids.iter().try_for_each(|id| self.decode_one(&mut state, *id, show_control, &mut out))?;
        self.finish_decoding(&mut state, &mut out);
        Ok(out)
    }

    fn decode_one(&self, state: &mut State, id: u32, show_control: bool, out: &mut String) -> Result<()> {
        match &self.engine {
            Engine::SentencePiece(engine) => engine.decode_one(state, id, show_control, out),
            Engine::ByteLevel(engine) => engine.decode_one(state, id, show_control, out),
        }
    }

    fn finish_decoding(&self, state: &mut State, out: &mut String) {
        match &self.engine {
            Engine::SentencePiece(_) => sentencepiece::finish(state, out),
            Engine::ByteLevel(_) => byte_level::finish(state, out),
        }
    }
}

impl Decoder<'_> {
    /// Decodes one more id and returns the text that it completes, which may be empty.
    pub fn push(&mut self, id: u32) -> Result<&str> {
        self.ready.clear();
        self.tokenizer.decode_one(&mut self.state, id, false, &mut self.ready)?;
        Ok(&self.ready)
    }

    /// Ends the text. An incomplete character is returned as U+FFFD, once for each of its bytes or once for all of
    /// them, as [`Tokenizer::decode`] does for the kind of tokenizer.
    pub fn finish(mut self) -> String {
        self.ready.clear();
        self.tokenizer.finish_decoding(&mut self.state, &mut self.ready);
        self.ready
    }
}
