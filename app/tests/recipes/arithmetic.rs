//! Checks the number of optimizer steps of the recipes: 500 for A; for B and D, the number that follows from the
//! packing of TRL 0.7's `ConstantLengthDataset`.

use std::path::Path;

use halfbyte::config::data::TrainOn;
use halfbyte::data::document::{DocumentSettings, Encoder, open_tokenizer};
use halfbyte::data::tokenizer_config::TokenizerConfig;
use serde_json::{Value, json};

use crate::folder::Folder;
use crate::rig::{json as ran, lines, run};
use crate::walk::{Case, Outcome};

pub fn cases(_: &Path) -> Vec<Case> {
    vec![
        Case::new("a: 1000 of 1234 samples, 2 × 2, two epochs: 500 steps", a),
        Case::new("c: max_steps wins over the epoch", c),
        Case::new("b: rows as TRL 0.7 counts them", || wrapped("b-mixtral-instructions", 32, 1, None)),
        Case::new("d: steps as TRL 0.7 counts them", || wrapped("d-llama-korean", 4, 2, Some(3))),
    ]
}

const HERE: [&str; 2] = ["model_name_or_path=model", "dataset=data.jsonl"];

fn a() -> Outcome {
    let folder = Folder::new();
    let records: Vec<Value> = (0..1234).map(|i| json!({"chat_sample": format!("[INST] {i} [/INST] {i}")})).collect();
    folder.text("data.jsonl", &lines(&records));
    let settings = [&HERE[..], &["max_seq_length=64"]].concat();
    let report = &ran(run(&folder, "inspect-data", "a-mistral-chat", &settings, &["--json"]))["train"];
    equal("records", &report["records"], 1000)?;
    equal("rows", &report["rows"], 1000)?;
    equal("steps", &report["steps"], 500)
}

fn c() -> Outcome {
    let folder = Folder::new();
    let record = |i: usize| json!({"instruction": format!("Print {i}"), "input": "", "output": format!("print({i})")});
    folder.text("data.jsonl", &lines(&(0..900).map(record).collect::<Vec<_>>()));
    let settings = [&HERE[..], &["max_seq_length=64"]].concat();
    let report = &ran(run(&folder, "inspect-data", "c-mistral-code", &settings, &["--json"]))["train"];
    equal("steps", &report["steps"], 100)
}

/// Compares rows and steps of a packing recipe with a literal translation of TRL 0.7, on texts of random length. Rows
/// are short, so that the data fills several of TRL's buffers, which hold 1024 × 3.6 × row length characters each.
fn wrapped(name: &str, batch: usize, accumulation: usize, epochs: Option<usize>) -> Outcome {
    const ROW: usize = 16;
    let folder = Folder::new();
    let mut state = 5_u64;
    let mut below = |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    let words = ["the", "house", "of", "the", "rising", "sun", "한국의", "수도는"];
    let mut text = || {
        let count = 1 + below(60);
        (0..count).map(|_| words[below(words.len() as u64) as usize]).collect::<Vec<_>>().join(" ")
    };
    let (mut records, mut texts) = (Vec::new(), Vec::new());
    for _ in 0..1500 {
        let (question, answer) = (text(), text());
        if name == "d-llama-korean" {
            texts.push(format!("<usr> {question}\n<bot> {answer}"));
            records.push(json!({"source": "own", "text": texts.last()}));
        } else {
            let ask = "Use the provided input to create an instruction that could have been used to generate the response \
                       with an LLM.";
            texts.push(format!("<s>[INST]{ask}\n{answer}[/INST]{question}</s>"));
            records.push(json!({"prompt": question, "response": answer, "source": "own"}));
        }
    }
    folder.text("data/train.jsonl", &lines(&records));
    folder.text("data/test.jsonl", &lines(&records[..20]));
    let row = format!("max_seq_length={ROW}");
    let settings = ["model_name_or_path=model", "dataset=data", "split=train", &row];
    let report = ran(run(&folder, "inspect-data", name, &settings, &["--json"]));
    // B evaluates every 10 of its 1000 steps, D never. The predicted time must include that.
    equal("evaluations", &report["time"]["H200"]["evaluations"], if epochs.is_none() { 100 } else { 0 })?;
    let report = &report["train"];
    // BOS and EOS appear once: a literal <s> or </s> in B's text becomes that token, so no second one is added.
    let settings = DocumentSettings { add_bos: true, add_eos: true, legacy: true };
    let tokenizer = open_tokenizer(&folder.path("model")).map_err(|e| e.to_string())?;
    let encoder = Encoder::new(tokenizer, settings, &TokenizerConfig::default()).map_err(|e| e.to_string())?;
    let tokens = |text: &str| encoder.document(&encoder.literals().mark(text), TrainOn::All).ids.len();
    let (rows, buffers) = constant_length_dataset(&texts, tokens, ROW);
    if buffers < 3 {
        return Err(format!("{buffers} buffers: too few for a test"));
    }
    equal("rows", &report["rows"], rows)?;
    let steps = match epochs {
        Some(epochs) => epochs * rows.div_ceil(batch).div_ceil(accumulation),
        None => 1000,
    };
    equal("steps", &report["steps"], steps)?;
    Ok(format!("{rows} rows of {buffers} buffers, {steps} steps"))
}

/// The number of rows that TRL 0.7's `ConstantLengthDataset` yields, and the number of buffers that it fills. `tokens`
/// counts the ids of a text, including the begin token and the concatenation token.
fn constant_length_dataset(texts: &[String], tokens: impl Fn(&str) -> usize, seq_length: usize) -> (usize, usize) {
    let max_buffer_size = seq_length as f64 * 3.6 * 1024.0;
    let mut iterator = texts.iter();
    let (mut rows, mut buffers, mut more_examples) = (0, 0, true);
    while more_examples {
        let (mut buffer, mut buffer_len) = (Vec::new(), 0);
        loop {
            if buffer_len as f64 >= max_buffer_size {
                break;
            }
            match iterator.next() {
                Some(text) => {
                    buffer.push(text);
                    buffer_len += text.chars().count();
                }
                None => {
                    more_examples = false;
                    break;
                }
            }
        }
        let all_token_ids: usize = buffer.iter().map(|text| tokens(text)).sum();
        rows += all_token_ids / seq_length;
        buffers += 1;
    }
    (rows, buffers)
}

fn equal(what: &str, ours: &Value, wanted: usize) -> Outcome {
    if *ours == wanted { Ok(format!("{what}: {wanted}")) } else { Err(format!("{what}: {ours}, should be {wanted}")) }
}
