//! Recognizes special tokens written in the text. This is an explicit mode and never the default: otherwise, a `</s>`
//! written in a training text would end the text.

use crate::matcher::Matcher;
use crate::pieces::SPACE_MARK;
use crate::{Engine, Tokenizer};

/// The rule for SentencePiece's leading space in a text that special tokens split into parts. Byte-level tokenizers add
/// no space and ignore the rule.
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

/// The literals in a text that are special tokens, and the rule by which the parts between them are encoded.
pub struct SpecialTokens {
    pub(crate) matcher: Matcher,
    /// Literals to find in the normalized text, each with the space before it.
    pub(crate) marked: Matcher,
    pub(crate) rule: SpaceRule,
    /// Whether the special tokens of a byte-level tokenizer's file are found, too.
    pub(crate) own: bool,
}

impl SpecialTokens {
    /// An empty set.
    pub fn new(rule: SpaceRule) -> Self {
        Self { matcher: Matcher::default(), marked: Matcher::default(), rule, own: false }
    }

    /// Adds a literal. Each occurrence becomes `id`. If several literals match at one position, the longest wins. A
    /// literal keeps the first id that it was given.
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

    /// The ids of `text`, in which literal special tokens become their ids. This is transformers' `encode(text,
    /// add_special_tokens=False)`.
    pub fn encode_special(&self, text: &str, special: &SpecialTokens) -> Vec<u32> {
        match &self.engine {
            Engine::SentencePiece(engine) => engine.encode_special(text, special),
            Engine::ByteLevel(engine) => engine.encode_special(text, special),
        }
    }
}

/// A part of a text that was split at its special tokens.
pub(crate) enum TextOrSpecial<'a> {
    Text(&'a str),
    Special(u32),
}

/// Calls `each` with the special tokens in `text` and the texts between them.
pub(crate) fn split<'a>(text: &'a str, matcher: &Matcher, mut each: impl FnMut(TextOrSpecial<'a>)) {
    let mut at = 0;
    while let Some(found) = matcher.next(text, at) {
        if at < found.start {
            each(TextOrSpecial::Text(&text[at..found.start]));
        }
        each(TextOrSpecial::Special(found.id));
        at = found.end;
    }
    if at < text.len() {
        each(TextOrSpecial::Text(&text[at..]));
    }
}
