//! `tokenizer.json` of the Llama and Mistral kind: BPE with a list of merges, spaces written as `▁` either by a
//! normalizer (Prepend and Replace, "legacy") or by the Metaspace pre-tokenizer.
//!
//! Everything in the file that would change ids is either followed or refused by name.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::Tokenizer;
use crate::assemble::byte_of;
use crate::decode::Leading;
use crate::error::{Error, Result};
use crate::model_file::ModelFile;
use crate::normalize::{Normalizer, Prefix};
use crate::pieces::{PieceKind, Pieces};
use crate::special::{SpaceRule, SpecialTokens};
use crate::vocab::Order;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Step>,
    pre_tokenizer: Option<Step>,
    decoder: Option<Step>,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default = "bpe")]
    kind: String,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: HashMap<String, u32>,
    #[serde(default)]
    merges: Vec<MergeRule>,
}

fn bpe() -> String {
    "BPE".into()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MergeRule {
    Pair(String, String),
    Text(String),
}

/// A normalizer, pre-tokenizer or decoder, alone or in a sequence: its type and everything else.
#[derive(Deserialize)]
struct Step {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, alias = "pretokenizers", alias = "decoders")]
    normalizers: Vec<Step>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

impl Step {
    /// The steps in order, sequences unfolded.
    fn flat(step: Option<&Step>) -> Vec<&Step> {
        match step {
            None => Vec::new(),
            Some(step) if step.kind == "Sequence" => {
                step.normalizers.iter().flat_map(|s| Step::flat(Some(s))).collect()
            }
            Some(step) => vec![step],
        }
    }
    fn text(&self, key: &str) -> Option<&str> {
        self.rest.get(key)?.as_str()
    }
    fn flag(&self, key: &str) -> Option<bool> {
        self.rest.get(key)?.as_bool()
    }
    /// Replaces `from` by `to`, both being plain strings.
    fn replaces(&self, from: &str, to: &str) -> bool {
        self.kind == "Replace"
            && self.text("content") == Some(to)
            && self.rest.get("pattern").and_then(|p| p.get("String")).and_then(|p| p.as_str()) == Some(from)
    }
    fn refuse(&self, place: &str) -> Error {
        let settings = serde_json::to_string(&self.rest).unwrap_or_default();
        Error::unsupported(format!(
            "{place} {} {settings}; this crate reads Llama's and Mistral's kind only",
            self.kind
        ))
    }
}

/// What normalizer and pre-tokenizer say about spaces.
struct Spaces {
    escape: bool,
    prefix: Prefix,
    rule: SpaceRule,
    /// Nothing merges across the beginning of a `▁`.
    split: bool,
    /// The normalizer, which is applied to added tokens of the normalized kind too, puts a `▁` before them.
    prepends: bool,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` of the Llama or Mistral kind.
    ///
    /// As for a `.model`, [`encode`](Self::encode) never produces added tokens; [`encode_special`](Self::encode_special)
    /// with [`default_special_tokens`](Self::default_special_tokens) does what transformers does with this file.
    /// Decoding follows SentencePiece's rule for broken UTF-8 (a U+FFFD for each bad byte).
    pub fn open_json(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let read = std::fs::read(path);
        let bytes = read.map_err(|source| Error::Io { doing: "read", path: path.to_owned(), source })?;
        Self::from_json(&bytes).map_err(|e| e.in_file(path))
    }

    /// From the bytes of a `tokenizer.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let file: File = serde_json::from_slice(bytes)?;
        check_model(&file.model)?;
        let spaces = spaces(&file)?;
        let leading = leading(&file, &spaces)?;
        let pieces = pieces(&file)?;
        let merges = merges(&file.model, &pieces, spaces.split)?;
        let special = special(&file.added_tokens, &spaces)?;
        // Special tokens decode to nothing; an unknown token that is not special decodes to its text.
        let unk = file.model.unk_token.unwrap_or_default();
        let hidden = file.added_tokens.iter().any(|t| t.special && t.content == unk);
        let unk_surface = if hidden { String::new() } else { unk };
        let model = ModelFile { pieces, byte_fallback: file.model.byte_fallback, unk_surface, ..ModelFile::default() };
        let normalizer = Normalizer::bare(spaces.prefix, spaces.escape);
        let tokenizer = Self::assemble(model, normalizer, Order::List(&merges))?;
        Ok(Self { leading, default_special: OnceLock::from(special), ..tokenizer })
    }
}

fn check_model(model: &Model) -> Result<()> {
    let refuse = |what: &str| Err(Error::unsupported(format!("model.{what}")));
    let set = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
    if model.kind != "BPE" {
        return refuse(&format!("type is {}; only BPE is supported", model.kind));
    }
    if model.dropout.is_some_and(|d| d != 0.0) {
        return refuse("dropout is set, but ids must not be random");
    }
    if set(&model.continuing_subword_prefix) {
        return refuse("continuing_subword_prefix is set, which SentencePiece does not have");
    }
    if set(&model.end_of_word_suffix) {
        return refuse("end_of_word_suffix is set, which SentencePiece does not have");
    }
    if model.ignore_merges {
        return refuse("ignore_merges is true (the Llama 3 kind)");
    }
    if !model.byte_fallback && !model.fuse_unk {
        return refuse("fuse_unk is false without byte_fallback; a run of unknown characters is always one here");
    }
    Ok(())
}

fn spaces(file: &File) -> Result<Spaces> {
    let mut spaces =
        Spaces { escape: false, prefix: Prefix::Never, rule: SpaceRule::EveryPart, split: false, prepends: false };
    for step in Step::flat(file.normalizer.as_ref()) {
        if step.replaces(" ", "▁") {
            spaces.escape = true;
        } else if step.kind == "Prepend" && step.text("prepend") == Some("▁") && !spaces.prepends {
            (spaces.prefix, spaces.prepends) = (Prefix::Always, true);
        } else {
            return Err(step.refuse("normalizer"));
        }
    }
    if spaces.prepends && !spaces.escape {
        return Err(Error::unsupported("normalizer Prepend without Replace of ' ' by '▁'"));
    }
    let steps = Step::flat(file.pre_tokenizer.as_ref());
    match steps.as_slice() {
        [] => {}
        [step] if step.kind == "Metaspace" && step.text("replacement") == Some("▁") && !spaces.escape => {
            let old = if step.flag("add_prefix_space") == Some(false) { "never" } else { "always" };
            (spaces.prefix, spaces.rule) = match step.text("prepend_scheme").unwrap_or(old) {
                "always" => (Prefix::UnlessSpace, SpaceRule::EveryPart),
                "first" => (Prefix::UnlessSpace, SpaceRule::TextStart),
                "never" => (Prefix::Never, SpaceRule::EveryPart),
                _ => return Err(step.refuse("pre_tokenizer")),
            };
            spaces.escape = true;
            spaces.split = step.flag("split") != Some(false);
        }
        [step, ..] => return Err(step.refuse("pre_tokenizer")),
    }
    Ok(spaces)
}

/// Whether decoding drops the first space. The decoder must be Llama's: spaces for `▁`, bytes to characters, everything
/// in one, and perhaps one space off its beginning. In another order the steps mean something else.
fn leading(file: &File, spaces: &Spaces) -> Result<Leading> {
    let steps = Step::flat(file.decoder.as_ref());
    let kinds: Vec<&str> = steps.iter().map(|step| step.kind.as_str()).collect();
    if file.model.byte_fallback && !kinds.contains(&"ByteFallback") {
        return Err(Error::unsupported("decoder has no ByteFallback, so that bytes would decode to <0x0A>"));
    }
    let mut leading = Leading::Keep;
    for step in &steps {
        let number = |key| step.rest.get(key).and_then(|v| v.as_u64());
        match step.kind.as_str() {
            "ByteFallback" | "Fuse" => {}
            "Replace" if step.replaces("▁", " ") => {}
            // What is stripped must be the space of a `▁`.
            "Strip" if step.text("content") == Some(" ") && number("stop") == Some(0) => match number("start") {
                Some(0) => {}
                Some(1) if spaces.escape => leading = Leading::DropOne,
                _ => return Err(step.refuse("decoder")),
            },
            _ => return Err(step.refuse("decoder")),
        }
    }
    match kinds.as_slice() {
        ["Replace", "ByteFallback"]
        | ["Replace", "ByteFallback", "Fuse"]
        | ["Replace", "ByteFallback", "Fuse", "Strip"] => Ok(leading),
        _ => Err(Error::unsupported(format!(
            "decoder {kinds:?}; Llama's is Replace, ByteFallback, Fuse and perhaps Strip, in this order"
        ))),
    }
}

/// The vocabulary in the order of the ids, which must have no holes.
fn pieces(file: &File) -> Result<Pieces> {
    let model = &file.model;
    let unk = model.unk_token.as_deref();
    let unk = unk.ok_or_else(|| Error::unsupported("model.unk_token is null; a Llama tokenizer has one"))?;
    let mut texts: BTreeMap<u32, (&str, PieceKind)> = BTreeMap::new();
    for (text, &id) in &model.vocab {
        let byte = model.byte_fallback && byte_of(text).is_some();
        let kind = if byte { PieceKind::Byte } else { PieceKind::Normal };
        if let Some((other, _)) = texts.insert(id, (text, kind)) {
            return Err(Error::invalid(format!("model.vocab: {text:?} and {other:?} both have the id {id}")));
        }
    }
    for token in &file.added_tokens {
        let kind = if token.special { PieceKind::Control } else { PieceKind::UserDefined };
        if let Some((other, _)) = texts.insert(token.id, (&token.content, kind))
            && other != token.content
        {
            let what = format!("added_tokens: {:?} has the id {} of {other:?}", token.content, token.id);
            return Err(Error::invalid(what));
        }
    }
    let mut pieces = Pieces::default();
    for (expected, (id, (text, kind))) in (0..).zip(texts) {
        if id != expected {
            return Err(Error::invalid(format!("no token has the id {expected}, but {text:?} has {id}")));
        }
        let kind = if text == unk { PieceKind::Unknown } else { kind };
        pieces.push(text, 0.0, kind);
    }
    if !pieces.iter().any(|p| p.kind == PieceKind::Unknown) {
        return Err(Error::invalid(format!("model.unk_token {unk:?} is not in the vocabulary")));
    }
    Ok(pieces)
}

fn merges(model: &Model, pieces: &Pieces, split: bool) -> Result<Vec<(u32, u32, u32)>> {
    let mut seen = std::collections::HashSet::new();
    let mut merges = Vec::with_capacity(model.merges.len());
    for (i, rule) in model.merges.iter().enumerate() {
        let (left, right) = match rule {
            MergeRule::Pair(left, right) => (left.as_str(), right.as_str()),
            MergeRule::Text(text) => text
                .split_once(' ')
                .filter(|(_, right)| !right.contains(' '))
                .ok_or_else(|| Error::invalid(format!("model.merges[{i}] is {text:?}, not two tokens and a space")))?,
        };
        let id = |text: &str| {
            let ordinary = |id: &u32| pieces.get(*id).is_some_and(|piece| piece.kind == PieceKind::Normal);
            let id = model.vocab.get(text).copied().filter(ordinary);
            id.ok_or_else(|| {
                Error::invalid(format!("model.merges[{i}] ({left:?}, {right:?}): {text:?} is no ordinary token"))
            })
        };
        let merge = (id(left)?, id(right)?, id(&format!("{left}{right}"))?);
        if !seen.insert((merge.0, merge.1)) {
            return Err(Error::invalid(format!("model.merges[{i}] ({left:?}, {right:?}) is listed twice")));
        }
        // Where words end before each `▁`, merges that would have one inside are never reached.
        if !(split && right.contains('▁')) {
            merges.push(merge);
        }
    }
    Ok(merges)
}

fn special(added: &[AddedToken], spaces: &Spaces) -> Result<SpecialTokens> {
    let mut special = SpecialTokens::new(spaces.rule);
    for token in added {
        if token.single_word || token.lstrip || token.rstrip {
            let what = format!("added_tokens: {:?} has single_word, lstrip or rstrip", token.content);
            return Err(Error::unsupported(what));
        }
        special = match token.normalized && spaces.escape && (spaces.prepends || token.content.contains(' ')) {
            false => special.with(&token.content, token.id),
            true if spaces.prepends => special.with_marked(&token.content, token.id),
            true => {
                let what = format!("added_tokens: {:?} is normalized and has a space", token.content);
                return Err(Error::unsupported(what));
            }
        };
    }
    Ok(special)
}
