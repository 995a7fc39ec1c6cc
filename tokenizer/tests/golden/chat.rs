//! Mistral's chat layouts, built from ids of control pieces and from `encode` of each message by itself. No text holds
//! a begin token, so it can be neither doubled nor forgotten.

use halfbyte_tokenizer::Tokenizer;
use serde_json::Value;

use crate::records::{ids, same, text};

pub fn mistral_chat(tokenizer: &Tokenizer, version: &str, record: &Value) -> Result<(), String> {
    let messages = record["messages"].as_array().ok_or("no messages")?;
    let messages: Vec<(&str, &str)> =
        messages.iter().map(|m| Ok((text(m, "role")?, text(m, "content")?))).collect::<Result<_, String>>()?;
    let got = layout(tokenizer, version, &messages)?;
    same("ids", &messages, &got, &ids(record, "ids")?)
}

fn layout(tokenizer: &Tokenizer, version: &str, messages: &[(&str, &str)]) -> Result<Vec<u32>, String> {
    let id = |piece: &str| tokenizer.id_of(piece).ok_or_else(|| format!("no piece {piece}"));
    // Tekken's tokenizer.json adds no end token, and so names none.
    let eos = tokenizer.eos().or_else(|| tokenizer.id_of("</s>")).ok_or("no end token")?;
    let mut out = vec![tokenizer.bos().ok_or("no begin token")?];
    let system = messages.iter().find(|m| m.0 == "system").map(|m| m.1);
    let user = |m: &(&str, &str)| m.0 == "user";
    let (first, last) = (messages.iter().position(user), messages.iter().rposition(user));
    for (i, message) in messages.iter().enumerate() {
        // Before v7 the system prompt is part of a user message: of the first in v1, of the last later.
        let home = if version == "v1" { first } else { last };
        let content = match system.filter(|_| version != "v7" && Some(i) == home) {
            Some(system) => format!("{system}\n\n{}", message.1),
            None => message.1.to_owned(),
        };
        match (message.0, version) {
            ("user", "v1") => tokenizer.encode_into(&format!("[INST] {content} [/INST]"), &mut out),
            ("user", _) => {
                out.push(id("[INST]")?);
                tokenizer.encode_into(&content, &mut out);
                out.push(id("[/INST]")?);
            }
            ("assistant", _) => {
                // Since v2, mistral-common drops trailing spaces of an answer.
                let content = if version == "v1" { &content } else { content.trim_end_matches(' ') };
                tokenizer.encode_into(content, &mut out);
                out.push(eos);
            }
            ("system", "v7") => {
                out.push(id("[SYSTEM_PROMPT]")?);
                tokenizer.encode_into(&content, &mut out);
                out.push(id("[/SYSTEM_PROMPT]")?);
            }
            ("system", _) => {}
            (role, _) => return Err(format!("a role {role}")),
        }
    }
    Ok(out)
}
