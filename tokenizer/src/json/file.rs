//! The fields of both kinds of file that are read.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::hash::BuildTextHasher;
use crate::pieces::{PieceKind, Pieces};

#[derive(Deserialize)]
pub(super) struct File<'a> {
    #[serde(default)]
    pub(super) added_tokens: Vec<HfAddedToken>,
    pub(super) normalizer: Option<HfComponent>,
    pub(super) pre_tokenizer: Option<HfComponent>,
    pub(super) post_processor: Option<HfComponent>,
    pub(super) decoder: Option<HfComponent>,
    #[serde(borrow)]
    pub(super) model: Option<HfModel<'a>>,
    // The next fields occur in tekken.json.
    pub(super) config: Option<TekkenConfig>,
    #[serde(borrow)]
    pub(super) vocab: Option<Vec<TekkenToken<'a>>>,
    pub(super) special_tokens: Option<Vec<TekkenSpecial>>,
}

#[derive(Deserialize)]
pub(super) struct HfAddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

#[derive(Deserialize)]
pub(super) struct HfModel<'a> {
    #[serde(rename = "type", default = "bpe")]
    pub(super) kind: String,
    pub(super) dropout: Option<f32>,
    pub(super) unk_token: Option<String>,
    pub(super) continuing_subword_prefix: Option<String>,
    pub(super) end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(super) fuse_unk: bool,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    pub(super) ignore_merges: bool,
    #[serde(borrow)]
    pub(super) vocab: Vocabulary<'a>,
    #[serde(default, borrow)]
    pub(super) merges: Vec<MergeRule<'a>>,
}

fn bpe() -> String {
    "BPE".into()
}

#[derive(Deserialize)]
pub(super) struct TekkenConfig {
    pub(super) pattern: String,
    pub(super) default_vocab_size: usize,
    pub(super) default_num_special_tokens: usize,
}

#[derive(Deserialize)]
pub(super) struct TekkenToken<'a> {
    pub(super) rank: usize,
    /// The bytes of the token in Base64.
    #[serde(borrow)]
    pub(super) token_bytes: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct TekkenSpecial {
    pub(super) rank: usize,
    pub(super) token_str: String,
}

/// The id of each token, by its text. Texts without escapes are borrowed from the file.
pub(super) struct Vocabulary<'a>(pub(super) HashMap<Cow<'a, str>, u32, BuildTextHasher>);

/// Two tokens that merge, as a pair or as a text with a space between them.
pub(super) enum MergeRule<'a> {
    Pair(Cow<'a, str>, Cow<'a, str>),
    Text(Cow<'a, str>),
}

/// A text that is borrowed from the file if it has no escapes. serde would always copy a `Cow` inside of another type.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Vocabulary<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocabulary<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map from tokens to ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut vocabulary = HashMap::with_capacity_and_hasher(1 << 16, BuildTextHasher::default());
                while let Some((Text(text), id)) = map.next_entry()? {
                    vocabulary.insert(text, id);
                }
                Ok(Vocabulary(vocabulary))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for MergeRule<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = MergeRule<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a pair of tokens, or a text of two tokens with a space between them")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> std::result::Result<Self::Value, E> {
                Ok(MergeRule::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
                Ok(MergeRule::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
                let mut next = || seq.next_element::<Text>();
                match (next()?, next()?, seq.next_element::<IgnoredAny>()?) {
                    (Some(Text(left)), Some(Text(right)), None) => Ok(MergeRule::Pair(left, right)),
                    _ => Err(A::Error::custom("a merge that is not a pair")),
                }
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}

/// A normalizer, pre-tokenizer, post-processor or decoder, or a sequence of them: its type and all other fields.
#[derive(Deserialize)]
pub(super) struct HfComponent {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default, alias = "normalizers", alias = "pretokenizers", alias = "processors", alias = "decoders")]
    steps: Vec<HfComponent>,
    #[serde(flatten)]
    pub(super) rest: BTreeMap<String, Value>,
}

impl HfComponent {
    /// The components in order, with sequences flattened.
    pub(super) fn flat(step: Option<&HfComponent>) -> Vec<&HfComponent> {
        match step {
            None => Vec::new(),
            Some(step) if step.kind == "Sequence" => {
                step.steps.iter().flat_map(|s| HfComponent::flat(Some(s))).collect()
            }
            Some(step) => vec![step],
        }
    }
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.rest.get(key)?.as_str()
    }
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.rest.get(key)?.as_bool()
    }
    /// Whether this is a `Replace` of the plain string `from` by `to`.
    pub(super) fn replaces(&self, from: &str, to: &str) -> bool {
        self.kind == "Replace"
            && self.text("content") == Some(to)
            && self.rest.get("pattern").and_then(|p| p.get("String")).and_then(|p| p.as_str()) == Some(from)
    }
    /// The error for a component that is not supported.
    pub(super) fn refuse(&self, place: &str, supported: &str) -> Error {
        let settings = serde_json::to_string(&self.rest).unwrap_or_default();
        Error::unsupported(format!("{place} {} {settings}; {supported}", self.kind))
    }
}

/// The model's tokens and the added ones in the order of their ids, which must have no gaps. `kind_of` gives the kind
/// of a model's token.
pub(super) fn pieces(file: &File, model: &HfModel, kind_of: impl Fn(&str) -> PieceKind) -> Result<Pieces> {
    let vocab = &model.vocab.0;
    let mut texts: Vec<(u32, &str, PieceKind)> = Vec::with_capacity(vocab.len() + file.added_tokens.len());
    texts.extend(vocab.iter().map(|(text, &id)| (id, &**text, kind_of(text))));
    for token in &file.added_tokens {
        match vocab.get(token.content.as_str()) {
            Some(&id) if id == token.id => {}
            Some(&id) => {
                let what =
                    format!("added_tokens: {:?} has the id {}, but in model.vocab {id}", token.content, token.id);
                return Err(Error::invalid(what));
            }
            None => texts.push((token.id, &token.content, PieceKind::Control)),
        }
    }
    texts.sort_unstable_by_key(|(id, ..)| *id);
    if let Some([(id, text, _), (_, other, _)]) = texts.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::invalid(format!("model.vocab, added_tokens: {text:?} and {other:?} both have the id {id}")));
    }
    let mut pieces = Pieces::default();
    for (expected, &(id, text, kind)) in (0..).zip(&texts) {
        if id != expected {
            return Err(Error::invalid(format!("no token has the id {expected}, but {text:?} has {id}")));
        }
        pieces.push(text, 0.0, kind);
    }
    Ok(pieces)
}

/// The merges as (left, right, merged), the first with the first rank. `allowed` says whether a merge may name an id.
pub(super) fn merges(model: &HfModel, allowed: impl Fn(u32) -> bool) -> Result<Vec<(u32, u32, u32)>> {
    let mut seen = std::collections::HashSet::with_capacity_and_hasher(model.merges.len(), BuildTextHasher::default());
    let mut merges = Vec::with_capacity(model.merges.len());
    let mut merged = String::new();
    for (i, rule) in model.merges.iter().enumerate() {
        let (left, right) = match rule {
            MergeRule::Pair(left, right) => (&**left, &**right),
            MergeRule::Text(text) => text
                .split_once(' ')
                .filter(|(_, right)| !right.contains(' '))
                .ok_or_else(|| Error::invalid(format!("model.merges[{i}] is {text:?}, not two tokens and a space")))?,
        };
        let id = |text: &str| {
            let id = model.vocab.0.get(text).copied().filter(|id| allowed(*id));
            id.ok_or_else(|| {
                Error::invalid(format!("model.merges[{i}] ({left:?}, {right:?}): {text:?} is not an ordinary token"))
            })
        };
        merged.clear();
        merged.push_str(left);
        merged.push_str(right);
        let merge = (id(left)?, id(right)?, id(&merged)?);
        if !seen.insert(u64::from(merge.0) << 32 | u64::from(merge.1)) {
            return Err(Error::invalid(format!("model.merges[{i}] ({left:?}, {right:?}) is listed twice")));
        }
        merges.push(merge);
    }
    Ok(merges)
}
