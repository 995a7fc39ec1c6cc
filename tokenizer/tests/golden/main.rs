//! Recorded tokenizations. A set is a folder with
//!
//! * `tokenizers/<name>/`: `tokenizer.model`, `tokenizer.json` or both; where there are both, files whose kind does not
//!   say otherwise are checked with the model, and with a legacy `tokenizer.json` too;
//! * `tokenizer_golden/<name>.jsonl`: `text`, `ids`, and `decoded` where that differs from the text;
//! * `tokenizer_golden/decode_<name>.jsonl`: any `ids` and the `text` that they decode to, perhaps `with_special`, the
//!   text with the special tokens in it;
//! * `tokenizer_golden/hf_special_<name>.jsonl`: `text` and its ids. For a `tokenizer.model` these are `sp_raw`,
//!   `hf_legacy` and `hf_nonlegacy`; otherwise `raw` (special tokens are ordinary text), `hf` (they are found) and
//!   `hf_with_special` (and the file's template is applied);
//! * `tokenizer_golden/hf_json_<name>.jsonl`: `text`, and the `ids` and their text `decoded` by `tokenizer.json`;
//! * `tokenizer_golden/chat_<template>.jsonl`: a rendered `text` and its `ids`. The tokenizer is the one whose name,
//!   less a number at its end, the template's name begins with (`chat_qwen2_5` goes with `qwen3`);
//! * `tokenizer_golden/mistral_chat_<v>.jsonl`: `messages` and `ids`, for the tokenizer `mistral-<v>`.
//!
//! The project's own set is `tests/data`. `HALFBYTE_DATA` names more of them (several separated by ':', relative to the
//! repository's root); each is searched for folders called `tokenizer_golden`. The walker prints one line for each
//! file, with what it did not check. A place without any file is a failure.

mod chat;
mod records;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let krate = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = krate.parent().unwrap_or(krate);
    let named = std::env::var_os("HALFBYTE_DATA").unwrap_or_default();
    let named = std::env::split_paths(&named).filter(|place| !place.as_os_str().is_empty());
    let mut failed = 0;
    for place in std::iter::once(krate.join("tests/data")).chain(named.map(|place| root.join(place))) {
        let mut sets = Vec::new();
        find_sets(&place, 4, &mut sets);
        let files: Vec<(PathBuf, PathBuf)> = sets.into_iter().flat_map(|set| golden_files(&set)).collect();
        if files.is_empty() {
            println!("FAIL  no tokenizer_golden/*.jsonl under {}", place.display());
            failed += 1;
        }
        for (set, file) in files {
            match records::check(&set, &file) {
                Ok(count) => println!("ok    {}: {count}", file.display()),
                Err(what) => {
                    println!("FAIL  {}: {what}", file.display());
                    failed += 1;
                }
            }
        }
    }
    println!("{failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// The folders at or below `place` that have a `tokenizer_golden`.
fn find_sets(place: &Path, depth: usize, sets: &mut Vec<PathBuf>) {
    if place.join("tokenizer_golden").is_dir() {
        sets.push(place.to_owned());
    } else if depth > 0 {
        entries(place).into_iter().filter(|p| p.is_dir()).for_each(|p| find_sets(&p, depth - 1, sets));
    }
}

fn golden_files(set: &Path) -> Vec<(PathBuf, PathBuf)> {
    let files = entries(&set.join("tokenizer_golden"));
    let files = files.into_iter().filter(|p| p.extension().is_some_and(|e| e == "jsonl"));
    files.map(|file| (set.to_owned(), file)).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
    all.sort();
    all
}
