//! `inspect-data`: records before and after, tokens with their mask, the report; no weights needed.

use crate::folder::Folder;

#[test]
fn records_text_rows_and_report_are_shown() {
    let folder = Folder::new();
    std::fs::remove_file(folder.path("model/model.safetensors")).unwrap();
    let said = folder.run(&["inspect-data", "recipe.toml", "--rows", "1", "--write", "texts.jsonl"]).fine();
    for part in [
        "data.jsonl line ",
        "  question = \"what comes after ",
        "  │Q: what comes after ",
        "row 1:",
        "train: 20 records",
    ] {
        assert!(said.out.contains(part), "{part:?} is not in: {}", said.out);
    }
    assert!(said.out.contains("  6 optimiser steps") && said.out.contains("eval: 4 records"), "{}", said.out);
    assert!(!said.out.contains('\x1b'), "no colour when nobody sees it");
    let texts = std::fs::read_to_string(folder.path("texts.jsonl")).unwrap();
    assert_eq!(texts.lines().count(), 20);
    assert!(texts.starts_with("{\"text\":\"Q: what comes after ") && texts.contains("</s>\"}"), "{texts}");
    let json = folder.run(&["inspect-data", "recipe.toml", "--json"]).fine().out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["train"]["records"], &json["train"]["missing_eos"]), (&20.into(), &0.into()));
}

#[test]
fn a_bad_record_is_shown_with_its_line() {
    let folder = Folder::new();
    folder.text("data.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}\n{\"question\": \"a\"}\n{\"question\": 1}\n");
    let set = ["inspect-data", "recipe.toml", "--set", "test_size=1"];
    let said = folder.run(&set);
    said.refused(2, &["data.jsonl line ", "`answer` is undefined", "the columns are question"]);
}
