//! `tokenizer.json` and `tekken.json`.
//!
//! Every field of a file that can change ids is either honored or refused by name.

mod byte_level;
mod file;
mod sentencepiece;
mod tekken;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::{Frame, Tokenizer};
use file::{File, HfComponent, HfModel};

/// Builds the tokenizer of a file. The content of the file decides its kind.
pub(crate) fn read(bytes: &[u8]) -> Result<Tokenizer> {
    let mut file: File = serde_json::from_slice(bytes)?;
    if let (Some(config), Some(vocab)) = (&file.config, &file.vocab) {
        return tekken::read(config, vocab, file.special_tokens.as_deref());
    }
    let model = file.model.take();
    let model = model
        .ok_or_else(|| Error::invalid("it has neither a model (tokenizer.json) nor vocab and config (tekken.json)"))?;
    check_model(&model)?;
    let decoder = HfComponent::flat(file.decoder.as_ref());
    let tokenizer = match decoder.iter().any(|step| step.kind == "ByteLevel") {
        true => byte_level::read(&file, &model)?,
        false => sentencepiece::read(&file, &model)?,
    };
    let frame = frame(&file)?;
    if let Some(id) = frame.begin.iter().chain(&frame.end).find(|id| **id as usize >= tokenizer.vocab_size()) {
        return Err(Error::invalid(format!("post_processor: no token has the id {id}")));
    }
    Ok(Tokenizer { frame, ..tokenizer })
}

/// Checks the fields of the model that both kinds share.
fn check_model(model: &HfModel) -> Result<()> {
    let refuse = |what: &str| Err(Error::unsupported(format!("model.{what}")));
    let set = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
    if model.kind != "BPE" {
        return refuse(&format!("type is {}; only BPE is supported", model.kind));
    }
    if model.dropout.is_some_and(|d| d != 0.0) {
        return refuse("dropout is set, which makes ids random");
    }
    if set(&model.continuing_subword_prefix) {
        return refuse("continuing_subword_prefix is set; it must be empty");
    }
    if set(&model.end_of_word_suffix) {
        return refuse("end_of_word_suffix is set; it must be empty");
    }
    Ok(())
}

/// The ids that the file's post-processor puts around a text.
fn frame(file: &File) -> Result<Frame> {
    let mut frame = Frame::default();
    for step in HfComponent::flat(file.post_processor.as_ref()) {
        match step.kind.as_str() {
            // This component only changes offsets.
            "ByteLevel" => {}
            "TemplateProcessing" if frame.begin.is_empty() && frame.end.is_empty() => frame = template(step)?,
            _ => return Err(step.refuse("post_processor", "ByteLevel and one TemplateProcessing are supported")),
        }
    }
    Ok(frame)
}

/// The template for a single text: ids, the text (`Sequence`), ids.
fn template(step: &HfComponent) -> Result<Frame> {
    let broken = |what: &str| Error::invalid(format!("post_processor TemplateProcessing: {what}"));
    let mut frame = Frame::default();
    let mut text_passed = false;
    for item in step.rest.get("single").and_then(Value::as_array).ok_or_else(|| broken("single is not a list"))? {
        if item.get("Sequence").is_some() {
            if std::mem::replace(&mut text_passed, true) {
                return Err(broken("single has the text twice"));
            }
            continue;
        }
        let name = item.pointer("/SpecialToken/id").and_then(Value::as_str);
        let name = name.ok_or_else(|| broken("single has an entry that is neither SpecialToken nor Sequence"))?;
        let ids = step.rest.get("special_tokens").and_then(|tokens| tokens.get(name)?.get("ids")?.as_array());
        let ids =
            ids.and_then(|ids| ids.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect::<Option<Vec<u32>>>());
        let ids = ids.ok_or_else(|| broken(&format!("special_tokens has no ids for {name:?}")))?;
        if text_passed { &mut frame.end } else { &mut frame.begin }.extend(ids);
    }
    match text_passed {
        true => Ok(frame),
        false => Err(broken("single does not have the text")),
    }
}
