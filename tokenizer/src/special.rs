//! Special tokens written in the text, the Hugging Face way: an explicit mode, never the default, because whoever
//! writes `</s>` into a training text would end it.

use crate::Tokenizer;
use crate::normalize::{Prefix, SPACE_MARK};
use crate::user_defined::Matcher;

/// What happens to the space before each part of a text that special tokens split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceRule {
    /// Each part gets its own: `<s>Hello` is `<s> ▁Hello`. Slow tokenizers with `legacy=True`, and every
    /// `tokenizer.json` with a Prepend normalizer.
    EveryPart,
    /// Only the beginning of the text gets one: `<s>Hello` is `<s> Hello`. Slow tokenizers with `legacy=False`.
    FirstPart,
    /// The text gets one unless it begins with a special token: fast tokenizers with Metaspace's `first` scheme.
    TextStart,
}

/// Which literals in a text are special tokens, and how the parts between them are encoded.
pub struct SpecialTokens {
    matcher: Matcher,
    /// Literals that are looked for in the normalised text, with the space that it begins with.
    marked: Matcher,
    rule: SpaceRule,
}

impl SpecialTokens {
    /// No special token yet.
    pub fn new(rule: SpaceRule) -> Self {
        Self { matcher: Matcher::default(), marked: Matcher::default(), rule }
    }

    /// Every occurrence of `literal` becomes `id`; of several literals at one place, the longest counts. What was
    /// said of a literal first stays.
    pub fn with(mut self, literal: &str, id: u32) -> Self {
        self.matcher.insert(literal, id);
        self
    }

    /// A `normalized` added token of a `tokenizer.json` with a Prepend normalizer: `▁` and the literal become `id`,
    /// and what follows gets no space.
    pub(crate) fn with_marked(mut self, literal: &str, id: u32) -> Self {
        let normalized = literal.replace(SPACE_MARK, " ");
        self.marked.insert(&format!(" {normalized}"), id);
        self
    }
}

impl Tokenizer {
    /// The special tokens that transformers' LlamaTokenizer finds when it has a `.model` and nothing else: the unknown,
    /// the begin and the end piece. Of other control pieces (`[INST]`) it knows by a `tokenizer_config.json`; they are
    /// added [`with`](SpecialTokens::with) their ids.
    pub fn special_tokens(&self, rule: SpaceRule) -> SpecialTokens {
        let ids = [Some(self.unk), self.bos, self.eos].into_iter().flatten();
        let pieces = ids.filter_map(|id| Some((self.piece(id)?, id)));
        pieces.fold(SpecialTokens::new(rule), |tokens, (text, id)| tokens.with(text, id))
    }

    /// The special tokens that the file itself speaks of: the added tokens of a `tokenizer.json` with its rule for
    /// spaces; for a `.model`, those of [`special_tokens`](Self::special_tokens) with transformers' default rule.
    pub fn default_special_tokens(&self) -> &SpecialTokens {
        self.default_special.get_or_init(|| self.special_tokens(SpaceRule::EveryPart))
    }

    /// The ids of `text` with its literal special tokens as such; transformers' `encode(text,
    /// add_special_tokens=False)`.
    pub fn encode_special(&self, text: &str, special: &SpecialTokens) -> Vec<u32> {
        if special.rule == SpaceRule::FirstPart {
            return self.encode_first_part(text, special);
        }
        let mut out = Vec::new();
        split(text, &special.matcher, |part| match part {
            Part::Special(id) => out.push(id),
            Part::Text(part) if !special.marked.is_empty() => {
                let normalized = format!(" {}", part.replace(SPACE_MARK, " "));
                split(&normalized, &special.marked, |part| match part {
                    Part::Special(id) => out.push(id),
                    Part::Text(part) => self.encode_prefixed(part, Prefix::Never, &mut out),
                });
            }
            Part::Text(part) => {
                let first = out.is_empty() || special.rule == SpaceRule::EveryPart;
                let prefix = if first { self.normalizer.prefix } else { Prefix::Never };
                self.encode_prefixed(part, prefix, &mut out);
            }
        });
        out
    }

    fn encode_first_part(&self, text: &str, special: &SpecialTokens) -> Vec<u32> {
        let mut out = Vec::new();
        if text.is_empty() {
            return out;
        }
        let mut marked = text.replace(SPACE_MARK, " ");
        if self.normalizer.prefix != Prefix::Never {
            marked.insert(0, SPACE_MARK);
        }
        // A part that begins with a space is encoded behind the unknown piece's text, which is then taken off again,
        // so that the space is inside the text: models that drop leading spaces keep it.
        let unk = self.piece(self.unk).unwrap_or_default();
        let mut guard = Vec::new();
        self.encode_prefixed(unk, Prefix::Never, &mut guard);
        let mut second_is_special = false;
        split(&marked, &special.matcher, |part| match part {
            Part::Special(id) => {
                second_is_special |= out.len() == 1;
                out.push(id);
            }
            Part::Text(part) if part.starts_with([SPACE_MARK, ' ']) => {
                let mut ids = Vec::new();
                self.encode_prefixed(&format!("{unk}{part}"), Prefix::Never, &mut ids);
                let from = if ids.len() >= guard.len() { guard.len() } else { 0 };
                out.extend_from_slice(&ids[from..]);
            }
            Part::Text(part) => self.encode_prefixed(part, Prefix::Never, &mut out),
        });
        // The added space alone, right before a special token, is dropped.
        if second_is_special && self.piece(out[0]) == Some("▁") {
            out.remove(0);
        }
        out
    }
}

enum Part<'a> {
    Text(&'a str),
    Special(u32),
}

fn split<'a>(text: &'a str, matcher: &Matcher, mut each: impl FnMut(Part<'a>)) {
    let mut start = 0;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let Some((len, id)) = matcher.longest(&text[at..]) else {
            at += c.len_utf8();
            continue;
        };
        if start < at {
            each(Part::Text(&text[start..at]));
        }
        each(Part::Special(id));
        at += len;
        start = at;
    }
    if start < at {
        each(Part::Text(&text[start..]));
    }
}
