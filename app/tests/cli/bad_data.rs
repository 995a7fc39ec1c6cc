//! Wrong data in `train` and `inspect-data`: the error names the place and the fix.

use crate::folder::{Folder, Said};

/// Both commands refuse `data` (the bytes of data.jsonl) with these settings.
fn refused(data: &[u8], settings: &[&str], code: i32, words: &[&str]) {
    let folder = Folder::new();
    std::fs::write(folder.path("data.jsonl"), data).expect("written");
    let settings: Vec<&str> = ["test_size=1"].iter().chain(settings).flat_map(|s| ["--set", s]).collect();
    for command in ["train", "inspect-data"] {
        let said = folder.run(&[&[command, "recipe.toml"][..], &settings].concat());
        said.refused(code, words);
        assert!(said.err.contains("\n  hint: "), "{}", said.err);
    }
    assert!(!folder.path("run").exists(), "a refused run leaves no folder behind");
}

/// Records with the recipe's columns.
fn records(n: usize) -> String {
    (0..n).map(|i| format!("{{\"question\": \"{i}?\", \"answer\": \"{i}\"}}\n")).collect()
}

#[test]
fn a_malformed_line_is_named_with_its_file() {
    let data = records(2) + "{\"question\": \"a\", \"answer\": \n" + &records(2);
    refused(data.as_bytes(), &[], 3, &["data.jsonl line 3", "not valid JSON", "column"]);
    let data = records(2) + "\n[1, 2]\n" + &records(2);
    refused(data.as_bytes(), &[], 3, &["data.jsonl line 4", "a record must be an object, this is a list"]);
}

#[test]
fn a_missing_column_is_named_with_those_there_are() {
    let data = records(3) + "{\"question\": \"a\", \"anser\": \"b\"}\n";
    refused(data.as_bytes(), &[], 2, &["data.jsonl line 4", "`answer` is undefined", "did you mean `anser`?"]);
    let said = without_template("{\"question\": \"a\", \"answer\": \"b\"}\n".repeat(3).as_bytes());
    said.refused(3, &["data.jsonl line ", "there is no column `text`", "question, answer"]);
}

/// `train` with a text column instead of the recipe's template.
fn without_template(data: &[u8]) -> Said {
    let folder = Folder::new();
    let recipe = std::fs::read_to_string(folder.path("recipe.toml")).expect("read");
    let lines: Vec<&str> = recipe.lines().filter(|line| !line.starts_with("template")).collect();
    folder.text("recipe.toml", &lines.join("\n"));
    std::fs::write(folder.path("data.jsonl"), data).expect("written");
    folder.run(&["train", "recipe.toml", "--set", "text_column=text", "--set", "test_size=1"])
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_column() {
    let said = without_template(b"{\"text\": \"a\"}\n{\"text\": {\"a\": 1}}\n{\"text\": \"b\"}\n");
    said.refused(3, &["data.jsonl line 2", "column `text` holds an object, not text", "template"]);
}

#[test]
fn an_empty_set_is_refused() {
    refused(b"", &[], 3, &["data.jsonl", "has no records"]);
    refused(b"\n \n", &[], 3, &["data.jsonl", "has no records"]);
    refused(records(5).as_bytes(), &["split=train[2:2]"], 3, &["`train[2:2]`", "has no records"]);
}

#[test]
fn invalid_utf8_is_named_with_its_line_and_byte() {
    let data = [records(2).as_bytes(), b"{\"question\": \"caf\xE9\", \"answer\": \"b\"}\n"].concat();
    refused(&data, &[], 3, &["data.jsonl line 3", "invalid UTF-8 at byte 18 of the line", "iconv"]);
}

#[test]
fn an_error_in_the_template_has_its_position() {
    let words = ["template line 2 column 18", "uper"];
    refused(records(4).as_bytes(), &[r#"template="a\nxx {{ question | uper }}""#], 2, &words);
    refused(records(4).as_bytes(), &[r#"template="{% if question %}x""#], 2, &["template line 1"]);
}

#[test]
fn a_template_that_yields_nothing_to_train_on_is_refused() {
    let nothing = r#"template="{% generation %}{% endgeneration %}{{ question }}""#;
    let words = ["no token of any of the 3 records is trained on", "train_on"];
    let settings = [nothing, "train_on=assistant", "add_eos_token=false"];
    refused(records(4).as_bytes(), &settings, 3, &words);
    let words = ["none of the 3 records has any text", "inspect-data"];
    refused(records(4).as_bytes(), &[r#"template="{% if false %}x{% endif %}""#], 3, &words);
}
