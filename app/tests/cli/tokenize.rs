//! `tokenize`: what it prints for a text, a file and ids, and what it refuses.

use crate::folder::Folder;

/// The tests' tokenizer in the folder `model`.
fn says(folder: &Folder, args: &[&str]) -> String {
    folder.run(&[&["tokenize", "model"], args].concat()).fine().out
}

#[test]
fn a_text_becomes_ids_and_ids_become_the_text() {
    let folder = Folder::new();
    let text = "The king, é😀▁.";
    let ids = says(&folder, &[text]);
    assert_eq!(says(&folder, &["--decode", ids.trim()]), "The king, é😀 .\n");
    folder.text("text", text);
    folder.text("ids", &format!("[{}]", ids.trim().replace(' ', ", ")));
    assert_eq!(says(&folder, &["--file", "text"]), ids);
    assert_eq!(says(&folder, &["--decode", "--file", "ids"]), "The king, é😀 .\n");
    // Standard input is empty here.
    assert_eq!(says(&folder, &[]), "\n");
    let words = ids.split_whitespace().count();
    assert!(says(&folder, &["--show", "count", text]).contains(&format!("20 bytes, 14 characters, {words} tokens")));
}

#[test]
fn one_token_is_one_line_whatever_its_piece_is() {
    let folder = Folder::new();
    let table = says(&folder, &["--show", "tokens", "a\nb"]);
    assert_eq!(table.lines().count(), says(&folder, &["a\nb"]).split_whitespace().count(), "{table}");
    assert!(table.contains("\t\\n\t1..2"), "{table}");
    assert_eq!(says(&folder, &["--show", "pieces", "a\nb"]), "▁a \\n b\n");
    folder.text("lines", "a\n\nb");
    let spans = says(&folder, &["--show", "tokens", "--lines", "--file", "lines"]);
    let spans: Vec<&str> = spans.lines().map(|line| line.rsplit('\t').next().unwrap_or_default()).collect();
    assert_eq!(spans, ["0..1", "", "", "0..1"]);
}

#[test]
fn special_tokens_are_those_of_transformers() {
    let folder = Folder::new();
    let first = |args: &[&str]| says(&folder, args).split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let legacy = |text| first(&["--special", "legacy", text]);
    assert_ne!(first(&["<s>[INST]"]), "1 3");
    assert!(legacy("<s>[INST]").starts_with("1 ") && legacy("<s>[INST]") != "1 3");
    // The special tokens of the folder apply, as in transformers.
    folder.text("model/tokenizer_config.json", r#"{"added_tokens_decoder": {"3": {"content": "[INST]"}}}"#);
    assert_eq!(legacy("<s>[INST]"), "1 3");
    assert_eq!(first(&["--special", "nonlegacy", "<s>[INST]"]), "1 3");
}

#[test]
fn bad_input_is_refused() {
    let folder = Folder::new();
    let refused =
        |args: &[&str], code, words: &[&str]| folder.run(&[&["tokenize"], args].concat()).refused(code, words);
    std::fs::write(folder.path("latin1"), b"ab\xe9 cd").expect("written");
    std::fs::create_dir(folder.path("nothing")).expect("created");
    refused(&["nowhere", "x"], 3, &["nowhere"]);
    refused(&["nothing", "x"], 3, &["none of tokenizer.model, tokenizer.json, tekken.json"]);
    refused(&["latin1", "x"], 3, &["latin1", "not a SentencePiece model"]);
    refused(&["model", "--file", "nowhere"], 3, &["nowhere"]);
    refused(&["model", "--file", "nothing"], 4, &["nothing"]);
    refused(&["model", "--file", "latin1"], 3, &["latin1", "UTF-8 (byte 2)", "iconv"]);
    refused(&["model", "--file", "latin1", "text"], 2, &["--file"]);
    refused(&["model", "--decode", "1 1000000"], 3, &["1000000"]);
    refused(&["model", "--decode", "1 99999999999"], 2, &["99999999999", "not a token id"]);
    refused(&["model", "--decode", "--lines", "1"], 2, &["--lines"]);
    refused(&["model", "--special", "legacy", "--show", "tokens", "x"], 2, &["--show pieces"]);
}
