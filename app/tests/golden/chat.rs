//! Compares encoded conversations and literal special tokens with mistral-common and transformers. The files are in the
//! same folders as the tokenizers' golden encodings: `tokenizer_golden/` and `tokenizers/` of a set.
//!
//! * `mistral_chat_{version}.jsonl`: `messages` and `ids`.
//! * `hf_special_{tokenizer}.jsonl`: `text` and its ids, `hf_legacy` and `hf_nonlegacy`, or `hf` of a byte-level tokenizer.
//! * `chat_{template}.jsonl`: `messages`, `add_generation_prompt`, variables of the template, `text`, `ids`, and
//!   `assistant_spans` where the template marks answers. The template is the one of a tokenizer's
//!   `tokenizer_config.json`, or `tokenizers/{tokenizer}/templates/{template}.jinja`.

use std::path::Path;

use halfbyte::config::data::TrainOn;
use halfbyte::data::chat::{ChatFormat, ChatMessage, ChatTemplate, Conversation, conversation};
use halfbyte::data::document::{DocumentSettings, Encoder, open_tokenizer};
use halfbyte::data::format::{RecordFormatter, RecordLayout};
use halfbyte::data::table::Record;
use halfbyte::data::tokenizer_config::TokenizerConfig;
use halfbyte_core::session::batch::IGNORED;
use serde_json::Value;

use crate::walk::{Case, Outcome};

/// The recorded chat templates, each with its tokenizer.
const TEMPLATES: [(&str, &str); 10] = [
    ("llama3", "llama3"),
    ("llama3_1", "llama3"),
    ("llama3_2", "llama3"),
    ("llama3_training", "llama3"),
    ("qwen2_5", "qwen3"),
    ("qwen2_5_training", "qwen3"),
    ("qwen3", "qwen3"),
    ("qwen3_training", "qwen3"),
    ("qwen3_trl", "qwen3"),
    ("smollm2", "smollm2"),
];

/// One case per file.
pub fn cases(root: &Path) -> Vec<Case> {
    let golden = root.join("tokenizer_golden");
    let mut cases = Vec::new();
    for version in ["v1", "v2", "v3", "tekken"] {
        let file = golden.join(format!("mistral_chat_{version}.jsonl"));
        let model = root.join(format!("tokenizers/mistral-{version}"));
        if file.exists() {
            cases.push(Case::new(format!("mistral-{version}"), move || conversations(&file, &model, version == "v1")));
        }
    }
    for (template, tokenizer) in TEMPLATES {
        let file = golden.join(format!("chat_{template}.jsonl"));
        let folder = root.join(format!("tokenizers/{tokenizer}"));
        if file.exists() {
            cases.push(Case::new(template, move || rendered(&file, &folder, template)));
        }
    }
    for name in ["llama3", "qwen3", "smollm2", "mistral-tekken"] {
        let file = golden.join(format!("hf_special_{name}.jsonl"));
        let folder = root.join(format!("tokenizers/{name}"));
        if file.exists() {
            cases.push(Case::new(format!("{name} hf"), move || literals(&file, &folder, "hf", true)));
        }
    }
    for name in ["llama2", "mistral-v1", "mistral-v3", "mistral-v7", "tok512"] {
        let file = golden.join(format!("hf_special_{name}.jsonl"));
        let model = root.join(format!("tokenizers/{name}"));
        for (key, legacy) in [("hf_legacy", true), ("hf_nonlegacy", false)] {
            let (file, model) = (file.clone(), model.clone());
            if file.exists() {
                let run = move || literals(&file, &model, key, legacy);
                cases.push(Case::new(format!("{name} {key}"), run));
            }
        }
    }
    cases
}

fn records(file: &Path) -> Result<Vec<Value>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    text.lines().map(|line| serde_json::from_str(line).map_err(|e| e.to_string())).collect()
}

fn encoder(model: &Path, legacy: bool) -> Result<Encoder, String> {
    let tokenizer = open_tokenizer(model).map_err(|e| e.to_string())?;
    let settings = DocumentSettings { add_bos: false, add_eos: false, legacy };
    Encoder::new(tokenizer, settings, &TokenizerConfig::default()).map_err(|e| e.to_string())
}

/// Compares the ids of every record with the recorded ones.
fn compare(
    encoder: &Encoder,
    format: &RecordFormatter,
    records: &[Value],
    make: impl Fn(&Value) -> Record,
    key: &str,
) -> Outcome {
    for record in records {
        let want: Vec<u32> = record[key].as_array().expect(key).iter().map(|v| v.as_u64().expect(key) as u32).collect();
        let marked = format.text(&make(record)).map_err(|e| e.to_string())?;
        let got = encoder.document(&marked, TrainOn::All).ids;
        if got != want {
            return Err(format!("{record}: {got:?}"));
        }
        // A mask splits the text before it is tokenized. It must not change the ids, and must hide all except the
        // answers.
        let masked = encoder.document(&marked, TrainOn::Assistant);
        if masked.ids != want {
            return Err(format!("masked, {record}: {:?}", masked.ids));
        }
    }
    Ok(format!("{} texts", records.len()))
}

fn conversations(file: &Path, model: &Path, v1: bool) -> Outcome {
    let encoder = encoder(model, true)?;
    let format = if v1 { ChatFormat::MistralV1 } else { ChatFormat::MistralV3 };
    let layout = RecordLayout::Chat { column: None, format };
    let format =
        RecordFormatter { layout, literals: encoder.literals().clone(), special: false, train_on: TrainOn::Assistant };
    compare(&encoder, &format, &records(file)?, |r| Record(r.as_object().expect("record").clone()), "ids")
}

fn literals(file: &Path, model: &Path, key: &str, legacy: bool) -> Outcome {
    let encoder = encoder(model, legacy)?;
    let format = RecordFormatter::column("text", None, encoder.literals().clone(), true, TrainOn::All)
        .map_err(|e| e.to_string())?;
    compare(&encoder, &format, &records(file)?, |r| Record(r.as_object().expect("record").clone()), key)
}

fn rendered(file: &Path, folder: &Path, template: &str) -> Outcome {
    let config = TokenizerConfig::open(folder).map_err(|e| e.to_string())?;
    let name = template.strip_suffix("_trl").unwrap_or(template);
    let jinja = folder.join(format!("templates/{name}.jinja"));
    let source = match std::fs::read_to_string(&jinja) {
        Ok(source) if name != folder.file_name().expect("a name") || template.ends_with("_trl") => source,
        _ => config.chat_template.clone().ok_or("no chat template")?,
    };
    let settings = DocumentSettings { add_bos: config.add_bos, add_eos: config.add_eos, legacy: config.legacy };
    let encoder = Encoder::open(folder, &config, settings).map_err(|e| e.to_string())?;
    let literals = encoder.literals();
    let (mut masked, mut answers) = (0, 0);
    let records = records(file)?;
    for record in &records {
        let variables = ["date_string", "enable_thinking"].iter().filter_map(|name| Some((*name, record.get(*name)?)));
        let variables = variables.map(|(name, value)| (name.to_string(), value.clone())).collect();
        let template = ChatTemplate::new(&source, literals, encoder.template_bos(), encoder.eos());
        let template = template.map_err(|e| e.to_string())?.with(&variables);
        let chat = Record(record.as_object().expect("a record").clone());
        let messages = conversation(&chat, None).map_err(|e| e.to_string())?.messages;
        let prompt = record["add_generation_prompt"].as_bool().expect("a flag");
        let marked = template.render(&messages, prompt).map_err(|e| e.to_string())?;
        let text: String = literals.unmark(&marked);
        if text != record["text"].as_str().expect("a text") {
            return Err(format!("{record}: {text:?}"));
        }
        let want: Vec<u32> =
            record["ids"].as_array().expect("ids").iter().map(|v| v.as_u64().expect("id") as u32).collect();
        let document = encoder.document(&marked, TrainOn::Assistant);
        if document.ids != want {
            return Err(format!("{record}: {:?}", document.ids));
        }
        let trained: Vec<bool> = document.labels.iter().map(|label| *label != IGNORED).collect();
        if let Some(spans) = record["assistant_spans"].as_array() {
            masked += 1;
            let bound = |span: &Value, at: usize| span[at].as_u64().expect("a bound") as usize;
            let inside = |t: usize| spans.iter().any(|span| (bound(span, 0)..bound(span, 1)).contains(&t));
            let want: Vec<bool> = (0..want.len()).map(inside).collect();
            if trained != want {
                return Err(format!("{record}: trained {trained:?}"));
            }
        } else if !prompt && messages.iter().any(|m| m["role"] == "assistant") {
            answers += 1;
            let format = ChatFormat::Template(Box::new(template));
            check_answers(&encoder, format, &messages, &want).map_err(|e| format!("{record}: {e}"))?;
        }
    }
    Ok(format!("{} texts, {masked} recorded masks, {answers} masks by prefixes", records.len()))
}

/// Checks a mask that the template does not mark: the ids stay those of the whole text, and the trained runs are the
/// answers, each with the special token that ends it.
fn check_answers(encoder: &Encoder, format: ChatFormat, messages: &[ChatMessage], want: &[u32]) -> Result<(), String> {
    let conversation = Conversation { messages: messages.to_vec(), prompt: None };
    let marked = format.text(&conversation, encoder.literals(), TrainOn::Assistant).map_err(|e| e.to_string())?;
    let document = encoder.document(&marked, TrainOn::Assistant);
    if document.ids != want {
        return Err(format!("masked: {:?}", document.ids));
    }
    let labeled = |ids: &[(u32, i32)]| ids[0].1 != IGNORED;
    let pairs: Vec<(u32, i32)> = document.ids.iter().copied().zip(document.labels.iter().copied()).collect();
    let runs: Vec<Vec<u32>> = pairs
        .chunk_by(|a, b| (a.1 != IGNORED) == (b.1 != IGNORED))
        .filter(|run| labeled(run))
        .map(|run| run.iter().map(|(id, _)| *id).collect())
        .collect();
    let answers: Vec<&str> =
        messages.iter().filter(|m| m["role"] == "assistant").map(|m| m["content"].as_str().expect("text")).collect();
    if runs.len() != answers.len() {
        return Err(format!("{} trained runs for {} answers", runs.len(), answers.len()));
    }
    for (run, answer) in runs.iter().zip(answers) {
        let text = encoder.tokenizer().decode_special(run).map_err(|e| e.to_string())?;
        let said = answer.rsplit_once("</think>").map_or(answer, |(_, said)| said).trim();
        // Qwen's tokenizer composes characters.
        let said = encoder.tokenizer().decode(&encoder.tokenizer().encode(said)).map_err(|e| e.to_string())?;
        let end = ["<|eot_id|>", "<|im_end|>"].iter().find(|end| text.trim_end().ends_with(**end));
        if end.is_none()
            || !text.contains(&said)
            || text.contains("<|im_start|>")
            || text.contains("<|start_header_id|>")
        {
            return Err(format!("the answer {answer:?} is trained as {text:?}"));
        }
    }
    Ok(())
}
