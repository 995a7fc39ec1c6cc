//! Special tokens written in the text: an explicit mode, never the default, because whoever writes `</s>` into a
//! training text would end it.

use crate::matcher::Matcher;
use crate::pieces::SPACE_MARK;
use crate::{Engine, Tokenizer};

/// Where SentencePiece's leading space goes in a text that special tokens split. Byte-level tokenizers add no space and
/// ignore the rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceRule {
    /// Every part gets a space: `<s>Hello` is `<s> ▁Hello`. Slow tokenizers with `legacy=True`, and every
    /// `tokenizer.json` with a Prepend normalizer.
    EveryPart,
    /// Only the beginning of the text gets a space: `<s>Hello` is `<s> Hello`. Slow tokenizers with `legacy=False`.
    FirstPart,
    /// The text gets a space unless it begins with a special token: fast tokenizers with Metaspace's `first` scheme.
    TextStart,
}

/// Which literals in a text are special tokens, and how the parts between them are encoded.
pub struct SpecialTokens {
    pub(crate) matcher: Matcher,
    /// Literals to find in the normalized text, with the space that it begins with.
    pub(crate) marked: Matcher,
    pub(crate) rule: SpaceRule,
    /// Find a byte-level tokenizer's own special tokens, too.
    pub(crate) own: bool,
}

impl SpecialTokens {
    /// An empty set.
    pub fn new(rule: SpaceRule) -> Self {
        Self { matcher: Matcher::default(), marked: Matcher::default(), rule, own: false }
    }

    /// Adds a literal: each occurrence becomes `id`. Where several literals match at one place, the longest wins. The
    /// first id given to a literal stays.
    pub fn with(mut self, literal: &str, id: u32) -> Self {
        self.matcher.insert(literal, id);
        self
    }

    /// Adds a `normalized` added token of a `tokenizer.json` with a Prepend normalizer: `▁` and the literal become
    /// `id`, and what follows gets no space.
    pub(crate) fn with_marked(mut self, literal: &str, id: u32) -> Self {
        let normalized = literal.replace(SPACE_MARK, " ");
        self.marked.insert(&format!(" {normalized}"), id);
        self
    }
}

impl Tokenizer {
    /// The special tokens that transformers knows without a `tokenizer_config.json`. For a SentencePiece model these
    /// are its unknown, begin and end piece; add other control pieces (`[INST]`) [`with`](SpecialTokens::with) their
    /// ids. For a byte-level tokenizer they are the file's added tokens, whatever the rule.
    pub fn special_tokens(&self, rule: SpaceRule) -> SpecialTokens {
        match &self.engine {
            Engine::ByteLevel(_) => SpecialTokens { own: true, ..SpecialTokens::new(rule) },
            Engine::SentencePiece(engine) => {
                let ids = [Some(engine.unk), engine.bos, engine.eos].into_iter().flatten();
                let pieces = ids.filter_map(|id| Some((self.piece(id)?, id)));
                pieces.fold(SpecialTokens::new(rule), |tokens, (text, id)| tokens.with(text, id))
            }
        }
    }

    /// The special tokens that the file itself names: the added tokens of a `tokenizer.json`, with its rule for spaces.
    /// For a `.model`, those of [`special_tokens`](Self::special_tokens) with transformers' default rule.
    pub fn default_special_tokens(&self) -> &SpecialTokens {
        self.special.get_or_init(|| self.special_tokens(SpaceRule::EveryPart))
    }

    /// The ids of `text` with its literal special tokens as such; transformers' `encode(text,
    /// add_special_tokens=False)`.
    pub fn encode_special(&self, text: &str, special: &SpecialTokens) -> Vec<u32> {
        match &self.engine {
            Engine::SentencePiece(engine) => engine.encode_special(text, special),
            Engine::ByteLevel(engine) => engine.encode_special(text, special),
        }
    }
}

/// A part of a text.
pub(crate) enum Part<'a> {
    Text(&'a str),
    Special(u32),
}

/// Calls `each` with the special tokens in `text` and the texts between them.
pub(crate) fn split<'a>(text: &'a str, matcher: &Matcher, mut each: impl FnMut(Part<'a>)) {
    let mut at = 0;
    while let Some(found) = matcher.next(text, at) {
        if at < found.start {
            each(Part::Text(&text[at..found.start]));
        }
        each(Part::Special(found.id));
        at = found.end;
    }
    if at < text.len() {
        each(Part::Text(&text[at..]));
    }
}
