//! One function for each kind of golden file. `Ok` has the number of records that agree, `Err` the first that does not.

use std::collections::BTreeMap;
use std::path::Path;

use halfbyte_tokenizer::{SpaceRule, Tokenizer};
use serde_json::Value;

use crate::chat;

pub type Outcome = Result<String, String>;

/// Checks one file. Its name gives its kind and its tokenizer.
pub fn check(set: &Path, file: &Path) -> Outcome {
    let name = file.file_stem().and_then(|s| s.to_str()).ok_or("a file without a name")?;
    let kinds: [(&str, Check); 5] = [
        ("decode_", decode),
        ("hf_special_", hf_special),
        ("hf_json_", hf_json),
        ("mistral_chat_", chat::mistral_chat),
        ("chat_", rendered_chat),
    ];
    let kind = kinds.iter().find_map(|(prefix, check)| Some((*prefix, name.strip_prefix(prefix)?, *check)));
    let (prefix, rest, check) = kind.unwrap_or(("", name, encode));
    let folder = set.join("tokenizers").join(match prefix {
        "mistral_chat_" => format!("mistral-{rest}"),
        "chat_" => tokenizer_of_template(set, rest)?,
        _ => rest.to_owned(),
    });
    let (model, json) = (folder.join("tokenizer.model"), folder.join("tokenizer.json"));
    let by_json = prefix == "hf_json_" || !model.is_file();
    let tokenizer = if by_json { Tokenizer::open_json(&json) } else { Tokenizer::open(&model) };
    let tokenizer = tokenizer.map_err(|e| e.to_string())?;
    let encodes = !by_json && matches!(prefix, "" | "hf_special_");
    let json = if encodes { legacy_json(&json)? } else { None };
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let mut count = 0;
    let mut unchecked = BTreeMap::new();
    for (line, record) in text.lines().enumerate() {
        let at = |e: String| format!("line {}: {e}", line + 1);
        let record: Value = serde_json::from_str(record).map_err(|e| at(e.to_string()))?;
        check(&tokenizer, rest, &record).map_err(at)?;
        if let Some(json) = &json {
            same_by_json(json, &record).map_err(at)?;
        }
        for (key, reason) in UNCHECKED {
            let counts = record.get(key).is_some() && (key != "messages" || prefix == "chat_");
            *unchecked.entry((key, reason)).or_insert(0) += usize::from(counts);
        }
        count += 1;
    }
    let unchecked = unchecked.into_iter().filter(|(_, count)| *count > 0);
    let unchecked: String =
        unchecked.map(|((key, reason), count)| format!("; {count} x {key} not checked ({reason})")).collect();
    match (count, json) {
        (0, _) => Err("no records".into()),
        (_, None) => Ok(format!("{count} records{unchecked}")),
        (_, Some(_)) => Ok(format!("{count} records, tokenizer.json too{unchecked}")),
    }
}

/// The fields of records that a tokenizer is not responsible for, with the reason.
const UNCHECKED: [(&str, &str); 3] = [
    ("messages", "templates are rendered by the main crate"),
    ("assistant_spans", "the main crate marks what a template generates"),
    ("cleaned", "transformers tidies spaces after the tokenizer"),
];

/// The tokenizer that a chat template goes with.
fn tokenizer_of_template(set: &Path, template: &str) -> Result<String, String> {
    let folders = std::fs::read_dir(set.join("tokenizers")).map_err(|e| e.to_string())?;
    let names = folders.filter_map(|folder| folder.ok()?.file_name().into_string().ok());
    let mut fitting: Vec<String> = names
        .filter(|name| template.starts_with(name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-')))
        .collect();
    // Prefer `llama3` to `llama2` if the whole name fits.
    fitting.sort_by_key(|name| (!template.starts_with(name.as_str()), name.clone()));
    fitting.into_iter().next().ok_or_else(|| format!("no tokenizer for the template {template}"))
}

/// The `tokenizer.json` beside the model if it has the legacy normalizer; Metaspace gives other ids by design.
fn legacy_json(path: &Path) -> Result<Option<Tokenizer>, String> {
    match std::fs::read_to_string(path) {
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
    same("streamed text", &input, &streamed, expected)?;
    if record.get("with_special").is_none() {
        return Ok(());
    }
    let got = tokenizer.decode_special(&input).map_err(|e| e.to_string())?;
    same("with_special", &input, &got, text(record, "with_special")?)
}

fn hf_special(tokenizer: &Tokenizer, _: &str, record: &Value) -> Result<(), String> {
    let input = text(record, "text")?;
    if record.get("sp_raw").is_some() {
        same("sp_raw", input, &tokenizer.encode(input), &ids(record, "sp_raw")?)?;
        let with = |rule| tokenizer.encode_special(input, &tokenizer.special_tokens(rule));
        same("hf_legacy", input, &with(SpaceRule::EveryPart), &ids(record, "hf_legacy")?)?;
        return same("hf_nonlegacy", input, &with(SpaceRule::FirstPart), &ids(record, "hf_nonlegacy")?);
    }
    let raw = ids(record, "raw")?;
    same("raw", input, &tokenizer.encode(input), &raw)?;
    let tokens = tokenizer.encode_with_offsets(input);
    same("raw with offsets", input, &tokens.iter().map(|t| t.id).collect::<Vec<_>>(), &raw)?;
    let found = tokenizer.encode_special(input, tokenizer.default_special_tokens());
    same("hf", input, &found, &ids(record, "hf")?)?;
    let framed = [tokenizer.begin_ids(), found.as_slice(), tokenizer.end_ids()].concat();
    same("hf_with_special", input, &framed, &ids(record, "hf_with_special")?)
}

/// A rendered chat holds its special tokens as text.
fn rendered_chat(tokenizer: &Tokenizer, _: &str, record: &Value) -> Result<(), String> {
    let input = text(record, "text")?;
    same("ids", input, &tokenizer.encode_special(input, tokenizer.default_special_tokens()), &ids(record, "ids")?)
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
