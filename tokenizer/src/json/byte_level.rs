//! The byte-level kind of `tokenizer.json`, used by Llama 3, Qwen, SmolLM2, and Tekken as transformers converts it.

use super::file::{File, HfComponent, HfModel, merges, pieces};
use crate::byte_level::{AddedToken, ByteLevel, ByteLevelSettings, Flags, GPT2, Splitter};
use crate::error::{Error, Result};
use crate::pieces::PieceKind;
use crate::vocab::Order;
use crate::{Engine, Frame, Tokenizer};

const STEPS: &str = "a byte-level tokenizer has perhaps Digits (individual), then ByteLevel with use_regex, or Split by the \
     pattern of Llama 3, Qwen 2 or Tekken (Isolated, or Removed and inverted) and ByteLevel without; add_prefix_space \
     must be false";

pub(super) fn read(file: &File, model: &HfModel) -> Result<Tokenizer> {
    let decoder = HfComponent::flat(file.decoder.as_ref());
    if let Some(step) = decoder.iter().find(|step| step.kind != "ByteLevel").or(decoder.get(1)) {
        return Err(step.refuse("decoder", "a byte-level tokenizer has ByteLevel alone"));
    }
    let settings = ByteLevelSettings { nfc: nfc(file)?, ignore_merges: model.ignore_merges };
    let splitter = splitter(file)?;
    let pieces = pieces(file, model, |_| PieceKind::Normal)?;
    let merges = merges(model, |_| true)?;
    let added = file.added_tokens.iter().map(|token| AddedToken {
        id: token.id,
        content: token.content.clone(),
        flags: Flags {
            special: token.special,
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            normalized: token.normalized,
        },
    });
    let engine = ByteLevel::new(pieces, Order::List(&merges), splitter, settings, added.collect())?;
    let replaced = model.unk_token.as_ref().is_some_and(|unk| model.vocab.0.contains_key(unk.as_str()));
    if (replaced || model.byte_fallback) && !engine.has_all_bytes() {
        return Err(Error::unsupported(
            "model.unk_token or model.byte_fallback is set and some byte has no token; a byte-level vocabulary with one of \
             them must have all 256",
        ));
    }
    Ok(Tokenizer::new(Engine::ByteLevel(Box::new(engine)), Frame::default()))
}

fn nfc(file: &File) -> Result<bool> {
    let steps = HfComponent::flat(file.normalizer.as_ref());
    match steps.iter().find(|step| step.kind != "NFC") {
        Some(step) => Err(step.refuse("normalizer", "a byte-level tokenizer has NFC or none")),
        None => Ok(!steps.is_empty()),
    }
}

fn splitter(file: &File) -> Result<Splitter> {
    let all = HfComponent::flat(file.pre_tokenizer.as_ref());
    let mut steps = all.as_slice();
    let digits = |step: &HfComponent| step.kind == "Digits" && step.flag("individual_digits") == Some(true);
    let digits_apart = steps.first().is_some_and(|step| digits(step));
    if digits_apart {
        steps = &steps[1..];
    }
    let byte_level = |step: &HfComponent, regex| {
        step.kind == "ByteLevel"
            && step.flag("add_prefix_space") == Some(false)
            && step.flag("use_regex").unwrap_or(true) == regex
    };
    let pattern = match steps {
        [step] if byte_level(step, true) => Some(GPT2),
        [split, step] if byte_level(step, false) => pattern(split),
        _ => None,
    };
    pattern.and_then(|pattern| Splitter::new(pattern, digits_apart)).ok_or_else(|| {
        let steps: Vec<String> = all
            .iter()
            .map(|step| format!("{} {}", step.kind, serde_json::to_string(&step.rest).unwrap_or_default()))
            .collect();
        Error::unsupported(format!("pre_tokenizer {}; {STEPS}", steps.join(", ")))
    })
}

/// The pattern of a `Split` component that keeps its matches as words. The known patterns match every text without
/// gaps, so the treatment of text between matches does not matter.
fn pattern(step: &HfComponent) -> Option<&str> {
    let matches = match step.text("behavior")? {
        "Isolated" => step.flag("invert") != Some(true),
        "Removed" => step.flag("invert") == Some(true),
        _ => false,
    };
    let pattern = step.rest.get("pattern")?.get("Regex")?.as_str()?;
    (step.kind == "Split" && matches).then_some(pattern)
}
