//! Compares encoded conversations and literal special tokens with mistral-common and transformers. The files are in the
//! same folders as the tokenizers' golden encodings: `tokenizer_golden/` and `tokenizers/` of a set.

use std::path::Path;

use halfbyte::config::data::TrainOn;
use halfbyte::data::chat::ChatFormat;
use halfbyte::data::document::{DocumentSettings, Encoder};
use halfbyte::data::format::{RecordFormatter, RecordLayout};
use halfbyte::data::table::Record;
use halfbyte_tokenizer::Tokenizer;
use serde_json::Value;

use crate::walk::{Case, Outcome};

/// One case per file.
pub fn cases(root: &Path) -> Vec<Case> {
    let golden = root.join("tokenizer_golden");
    let mut cases = Vec::new();
    for version in ["v1", "v2", "v3"] {
        let file = golden.join(format!("mistral_chat_{version}.jsonl"));
        let model = root.join(format!("tokenizers/mistral-{version}/tokenizer.model"));
        if file.exists() {
            cases.push(Case::new(format!("mistral-{version}"), move || conversations(&file, &model, version == "v1")));
        }
    }
    for name in ["llama2", "mistral-v1", "mistral-v3", "mistral-v7", "tok512"] {
        let file = golden.join(format!("hf_special_{name}.jsonl"));
        let model = root.join(format!("tokenizers/{name}/tokenizer.model"));
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
    let tokenizer = Tokenizer::open(model).map_err(|e| e.to_string())?;
    let settings = DocumentSettings { add_bos: false, add_eos: false, legacy };
    Encoder::new(tokenizer, settings, &[], None).map_err(|e| e.to_string())
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
