//! The Llama 2 and Mistral 7B kind of `tokenizer.json`: BPE with a list of merges. Either a normalizer (Prepend and
//! Replace, "legacy") or the Metaspace pre-tokenizer writes spaces as `▁`.

use std::sync::OnceLock;

use super::file::{File, HfAddedToken, HfComponent, HfModel, merges, pieces};
use crate::error::{Error, Result};
use crate::model_file::ModelFile;
use crate::pieces::{PieceKind, Pieces, byte_of};
use crate::sentencepiece::{Leading, Normalizer, Prefix, SentencePiece};
use crate::special::{SpaceRule, SpecialTokens};
use crate::vocab::Order;
use crate::{Engine, Frame, Tokenizer};

const KIND: &str = "this crate reads Llama 2's and Mistral 7B's kind only";

/// How the normalizer and the pre-tokenizer treat spaces.
struct Spaces {
    escape: bool,
    prefix: Prefix,
    rule: SpaceRule,
    /// No merge joins a `▁` to the character before it.
    split: bool,
    /// The normalizer puts a `▁` before a text and before each normalized added token.
    prepends: bool,
}

pub(super) fn read(file: &File, model: &HfModel) -> Result<Tokenizer> {
    let refuse = |what: &str| Err(Error::unsupported(format!("model.{what}")));
    if model.ignore_merges {
        return refuse("ignore_merges is true, which only byte-level tokenizers have");
    }
    if !model.byte_fallback && !model.fuse_unk {
        return refuse("fuse_unk is false without byte_fallback; a run of unknown characters is always one here");
    }
    let spaces = spaces(file)?;
    let leading = leading(file, model, &spaces)?;
    let pieces = all_pieces(file, model)?;
    let ordinary = |id| pieces.get(id).is_some_and(|piece| piece.kind == PieceKind::Normal);
    let mut merges = merges(model, ordinary)?;
    if spaces.split {
        // Words end before each `▁`, so merges with a `▁` inside are never reached.
        merges.retain(|(_, right, _)| !pieces.text(*right as usize).contains('▁'));
    }
    let special = special(&file.added_tokens, &spaces)?;
    // Special tokens decode to nothing. An unknown token that is not special decodes to its text.
    let unk = model.unk_token.clone().unwrap_or_default();
    let hidden = file.added_tokens.iter().any(|t| t.special && t.content == unk);
    let unk_surface = if hidden { String::new() } else { unk };
    let model = ModelFile { pieces, byte_fallback: model.byte_fallback, unk_surface, ..ModelFile::default() };
    let normalizer = Normalizer::bare(spaces.prefix, spaces.escape);
    let mut engine = SentencePiece::assemble(model, normalizer, Order::List(&merges))?;
    engine.leading = leading;
    let tokenizer = Tokenizer::new(Engine::SentencePiece(Box::new(engine)), Frame::default());
    Ok(Tokenizer { special: OnceLock::from(special), ..tokenizer })
}

fn spaces(file: &File) -> Result<Spaces> {
    let mut spaces =
        Spaces { escape: false, prefix: Prefix::Never, rule: SpaceRule::EveryPart, split: false, prepends: false };
    for step in HfComponent::flat(file.normalizer.as_ref()) {
        if step.replaces(" ", "▁") {
            spaces.escape = true;
        } else if step.kind == "Prepend" && step.text("prepend") == Some("▁") && !spaces.prepends {
            (spaces.prefix, spaces.prepends) = (Prefix::Always, true);
        } else {
            return Err(step.refuse("normalizer", KIND));
        }
    }
    if spaces.prepends && !spaces.escape {
        return Err(Error::unsupported("normalizer has Prepend without a Replace of ' ' by '▁'"));
    }
    let steps = HfComponent::flat(file.pre_tokenizer.as_ref());
    match steps.as_slice() {
        [] => {}
        [step] if step.kind == "Metaspace" && step.text("replacement") == Some("▁") && !spaces.escape => {
            let old = if step.flag("add_prefix_space") == Some(false) { "never" } else { "always" };
            (spaces.prefix, spaces.rule) = match step.text("prepend_scheme").unwrap_or(old) {
                "always" => (Prefix::UnlessSpace, SpaceRule::EveryPart),
                "first" => (Prefix::UnlessSpace, SpaceRule::TextStart),
                "never" => (Prefix::Never, SpaceRule::EveryPart),
                _ => return Err(step.refuse("pre_tokenizer", KIND)),
            };
            spaces.escape = true;
            spaces.split = step.flag("split") != Some(false);
        }
        [step, ..] => return Err(step.refuse("pre_tokenizer", KIND)),
    }
    Ok(spaces)
}

/// Whether decoding drops the first space. The decoder must be Llama's: it replaces `▁` by a space, turns bytes into
/// characters, fuses all tokens, and may strip one leading space. In another order, the components give another text.
fn leading(file: &File, model: &HfModel, spaces: &Spaces) -> Result<Leading> {
    let steps = HfComponent::flat(file.decoder.as_ref());
    let kinds: Vec<&str> = steps.iter().map(|step| step.kind.as_str()).collect();
    if model.byte_fallback && !kinds.contains(&"ByteFallback") {
        return Err(Error::unsupported("decoder has no ByteFallback, so bytes would decode to texts like <0x0A>"));
    }
    let mut leading = Leading::Keep;
    for step in &steps {
        let number = |key| step.rest.get(key).and_then(|v| v.as_u64());
        match step.kind.as_str() {
            "ByteFallback" | "Fuse" => {}
            "Replace" if step.replaces("▁", " ") => {}
            // The stripped space must come from a `▁`.
            "Strip" if step.text("content") == Some(" ") && number("stop") == Some(0) => match number("start") {
                Some(0) => {}
                Some(1) if spaces.escape => leading = Leading::DropOne,
                _ => return Err(step.refuse("decoder", KIND)),
            },
            _ => return Err(step.refuse("decoder", KIND)),
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

/// The vocabulary with its added tokens, in the order of the ids.
fn all_pieces(file: &File, model: &HfModel) -> Result<Pieces> {
    let unk = model.unk_token.as_deref();
    let unk = unk.ok_or_else(|| Error::unsupported("model.unk_token is null; a Llama tokenizer has one"))?;
    let byte = |text: &str| model.byte_fallback && byte_of(text).is_some();
    let mut pieces = pieces(file, model, |text| if byte(text) { PieceKind::Byte } else { PieceKind::Normal })?;
    for token in &file.added_tokens {
        pieces.set_kind(token.id, if token.special { PieceKind::Control } else { PieceKind::UserDefined });
    }
    let id = (0..).zip(pieces.iter()).find(|(_, piece)| piece.text == unk).map(|(id, _)| id);
    let id = id.ok_or_else(|| Error::invalid(format!("model.unk_token {unk:?} is not in the vocabulary")))?;
    pieces.set_kind(id, PieceKind::Unknown);
    Ok(pieces)
}

fn special(added: &[HfAddedToken], spaces: &Spaces) -> Result<SpecialTokens> {
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
