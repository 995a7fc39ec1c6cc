//! Checks that a recipe formats every record of vectors.json (made by vectors.py) as the tutorial's function does.

use std::path::Path;

use serde_json::Value;

use crate::folder::Folder;
use crate::rig::{TUTORIALS, lines, parse_lines, run};
use crate::walk::{Case, Outcome};

/// Tutorial C's cell, unchanged: it has a backslash and an n instead of a line break, and swaps answer and input.
const AS_CALLED: &str =
    r#"template="<s>[INST] {{ instruction }} here are the inputs {{ output }} [/INST] \\n {{ input }} </s>""#;

pub fn cases(_: &Path) -> Vec<Case> {
    let all: Value = serde_json::from_str(include_str!("vectors.json")).expect("vectors.json");
    let of = |key: &str| all[key].as_array().unwrap_or_else(|| panic!("no vectors of {key}")).clone();
    let mut cases: Vec<Case> = TUTORIALS
        .iter()
        .map(|&name| {
            let vectors = of(name);
            Case::new(name, move || compare(name, &vectors, &[]))
        })
        .collect();
    let called = "c-mistral-code as the notebook calls it";
    let vectors = of(called);
    cases.push(Case::new(called, move || compare("c-mistral-code", &vectors, &[AS_CALLED])));
    cases
}

fn compare(name: &str, vectors: &[Value], settings: &[&str]) -> Outcome {
    let folder = Folder::new();
    folder.text("data/train.jsonl", &lines(vectors.iter().map(|v| &v["record"])));
    folder.text("data/test.jsonl", &lines(vectors.iter().map(|v| &v["record"])));
    let mut all = vec!["model_name_or_path=model", "dataset=data", "split=train", "max_seq_length=16"];
    // A selects records at random. The test selects all of them and computes the shuffled order.
    let whole = format!("select={}", vectors.len());
    if name == "a-mistral-chat" {
        all.push(&whole);
    }
    all.extend(settings);
    run(&folder, "inspect-data", name, &all, &["--write", "texts.jsonl", "--rows", "0"]).fine();
    let written = std::fs::read_to_string(folder.path("texts.jsonl")).map_err(|e| e.to_string())?;
    let texts: Vec<String> = parse_lines(&written).iter().map(|t| t["text"].as_str().unwrap_or("?").into()).collect();
    let mut wanted: Vec<String> = vectors.iter().map(|v| v["text"].as_str().unwrap_or("?").into()).collect();
    if name == "a-mistral-chat" {
        let order = halfbyte::data::subset::shuffle(wanted.len(), 42);
        wanted = order.iter().map(|&i| wanted[i].clone()).collect();
    }
    for (text, wanted) in texts.iter().zip(&wanted) {
        if text != wanted {
            return Err(format!("{text:?}, the tutorial has {wanted:?}"));
        }
    }
    if texts.len() != wanted.len() {
        return Err(format!("{} texts of {} records", texts.len(), wanted.len()));
    }
    Ok(format!("{} texts are equal", texts.len()))
}
