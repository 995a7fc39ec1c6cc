//! One function for each kind of golden file: `Ok` says how many records agree, `Err` shows the first that does not.

use std::path::Path;

use halfbyte_tokenizer::{SpaceRule, Tokenizer};
use serde_json::Value;

use crate::chat;

pub type Outcome = Result<String, String>;

/// Checks one file; its name says of which kind it is and of which tokenizer.
pub fn check(set: &Path, file: &Path) -> Outcome {
    let name = file.file_stem().and_then(|s| s.to_str()).ok_or("a file without a name")?;
    let kinds: [(&str, Check); 4] = [
        ("decode_", decode),
        ("hf_special_", hf_special),
        ("hf_json_", hf_json),
        ("mistral_chat_", chat::mistral_chat),
    ];
    let (rest, check) =
        kinds.iter().find_map(|(prefix, check)| Some((name.strip_prefix(prefix)?, *check))).unwrap_or((name, encode));
    let of = if name.starts_with("mistral_chat_") { format!("mistral-{rest}") } else { rest.to_owned() };
    let model = set.join("tokenizers").join(&of).join("tokenizer.model");
    let by_json = name.starts_with("hf_json_");
    let tokenizer = if by_json { Tokenizer::open_json(model.with_extension("json")) } else { Tokenizer::open(&model) };
    let tokenizer = tokenizer.map_err(|e| e.to_string())?;
    let encodes = !by_json && !name.starts_with("decode_") && !name.starts_with("mistral_chat_");
    let json = if encodes { legacy_json(&model)? } else { None };
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let mut count = 0;
    for (line, record) in text.lines().enumerate() {
        let at = |e: String| format!("line {}: {e}", line + 1);
        let record: Value = serde_json::from_str(record).map_err(|e| at(e.to_string()))?;
        check(&tokenizer, rest, &record).map_err(at)?;
        if let Some(json) = &json {
            same_by_json(json, &record).map_err(at)?;
        }
        count += 1;
    }
    match (count, json) {
        (0, _) => Err("no records".into()),
        (_, None) => Ok(format!("{count} records")),
        (_, Some(_)) => Ok(format!("{count} records, tokenizer.json too")),
    }
}

/// The `tokenizer.json` beside the model if it has the legacy normalizer; Metaspace gives other ids by design.
fn legacy_json(model: &Path) -> Result<Option<Tokenizer>, String> {
    match std::fs::read_to_string(model.with_file_name("tokenizer.json")) {
        Ok(text) if text.contains("\"Prepend\"") => {
            Tokenizer::from_json(text.as_bytes()).map(Some).map_err(|e| format!("tokenizer.json: {e}"))
        }
        _ => Ok(None),
    }
}

fn same_by_json(json: &Tokenizer, record: &Value) -> Result<(), String> {
    let input = text(record, "text")?;
    if record.get("hf_legacy").is_some() {
        let got = json.encode_special(input, json.default_special_tokens());
        return same("tokenizer.json: hf_legacy", input, &got, &ids(record, "hf_legacy")?);
    }
    same("tokenizer.json: ids", input, &json.encode(input), &ids(record, "ids")?)
}

type Check = fn(&Tokenizer, &str, &Value) -> Result<(), String>;

fn encode(tokenizer: &Tokenizer, _: &str, record: &Value) -> Result<(), String> {
    let (input, expected) = (text(record, "text")?, ids(record, "ids")?);
    same("ids", input, &tokenizer.encode(input), &expected)?;
    let tokens = tokenizer.encode_with_offsets(input);
    same("ids with offsets", input, &tokens.iter().map(|t| t.id).collect::<Vec<_>>(), &expected)?;
    let decoded = if record.get("decoded").is_some() { text(record, "decoded")? } else { input };
    same("decoded text", input, &tokenizer.decode(&expected).map_err(|e| e.to_string())?, decoded)
}

fn decode(tokenizer: &Tokenizer, _: &str, record: &Value) -> Result<(), String> {
    let (input, expected) = (ids(record, "ids")?, text(record, "text")?);
    same("text", &input, &tokenizer.decode(&input).map_err(|e| e.to_string())?, expected)?;
    let mut decoder = tokenizer.decoder();
    let mut streamed = String::new();
    for id in &input {
        streamed.push_str(decoder.push(*id).map_err(|e| e.to_string())?);
    }
    streamed.push_str(&decoder.finish());
    same("streamed text", &input, &streamed, expected)
}

fn hf_special(tokenizer: &Tokenizer, _: &str, record: &Value) -> Result<(), String> {
    let input = text(record, "text")?;
    same("sp_raw", input, &tokenizer.encode(input), &ids(record, "sp_raw")?)?;
    let with = |rule| tokenizer.encode_special(input, &tokenizer.special_tokens(rule));
    same("hf_legacy", input, &with(SpaceRule::EveryPart), &ids(record, "hf_legacy")?)?;
    same("hf_nonlegacy", input, &with(SpaceRule::FirstPart), &ids(record, "hf_nonlegacy")?)
}

fn hf_json(tokenizer: &Tokenizer, _: &str, record: &Value) -> Result<(), String> {
    let (input, expected) = (text(record, "text")?, ids(record, "ids")?);
    let got = tokenizer.encode_special(input, tokenizer.default_special_tokens());
    same("ids", input, &got, &expected)?;
    same("decoded text", input, &tokenizer.decode(&got).map_err(|e| e.to_string())?, text(record, "decoded")?)
}

/// Compares, and shows both sides if they differ.
pub fn same<I, T, U>(what: &str, input: &I, got: &T, expected: &U) -> Result<(), String>
where
    I: std::fmt::Debug + ?Sized,
    T: std::fmt::Debug + PartialEq<U>,
    U: std::fmt::Debug + ?Sized,
{
    if got == expected {
        return Ok(());
    }
    Err(format!("{what} of {input:?}:\n      got      {got:?}\n      expected {expected:?}"))
}

pub fn text<'a>(record: &'a Value, key: &str) -> Result<&'a str, String> {
    record[key].as_str().ok_or_else(|| format!("no text {key}"))
}

pub fn ids(record: &Value, key: &str) -> Result<Vec<u32>, String> {
    let list = record[key].as_array().ok_or_else(|| format!("no list {key}"))?;
    let id = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok()).ok_or_else(|| format!("bad id in {key}"));
    list.iter().map(id).collect()
}
