//! Data files of every kind, good and bad.

use std::path::{Path, PathBuf};

use halfbyte::data::source::DataFiles;
use halfbyte::data::table::Table;
use serde_json::{Value, json};
use tempfile::TempDir;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

fn load(name: &str, bytes: &[u8]) -> Result<Table, String> {
    let folder = folder(&[(name, bytes)]);
    let table = DataFiles::path(&folder.path().join(name)).and_then(|s| s.load("train")).map_err(|e| e.to_string())?;
    Ok(table)
}

fn records(table: &Table) -> Vec<Value> {
    (0..table.len()).map(|row| Value::Object(table.record(row).unwrap().0)).collect()
}

/// The error of opening the file or of its first bad record, without the folder's name.
fn error(name: &str, bytes: &[u8]) -> String {
    let text = match load(name, bytes) {
        Err(error) => error,
        Ok(table) => {
            let mut errors = (0..table.len()).filter_map(|row| table.record(row).err());
            errors.next().expect("an error").to_string()
        }
    };
    let start = text.find(name).expect("the file is named");
    text[start..].to_string()
}

#[test]
fn every_kind_of_file_gives_the_same_records() {
    let want = [json!({"q": "a \"b\"\nc", "n": "1"}), json!({"q": "한국어", "n": "2"})];
    let lines = format!("\n{}\r\n  \n{}", want[0], want[1]);
    let array = serde_json::to_string_pretty(&want).unwrap();
    let marked = [b"\xEF\xBB\xBF", lines.as_bytes()].concat();
    let csv = "q,n\n\"a \"\"b\"\"\nc\",1\r\n한국어,2\n";
    for (name, bytes) in [
        ("a.jsonl", lines.as_bytes()),
        ("a.json", lines.as_bytes()),
        ("b.json", array.as_bytes()),
        ("marked.jsonl", &marked),
        ("c.csv", csv.as_bytes()),
        ("d.parquet", include_bytes!("../data/rows/two.parquet")),
    ] {
        let table = load(name, bytes).unwrap();
        assert_eq!(records(&table), want, "{name}");
        assert_eq!(table.record(0).unwrap().columns().collect::<Vec<_>>(), ["q", "n"], "{name}");
    }
    let text = load("e.txt", "one\r\n\ntwo".as_bytes()).unwrap();
    assert_eq!(records(&text), [json!({"text": "one"}), json!({"text": ""}), json!({"text": "two"})]);
}

#[test]
fn parquet_holds_nested_values_and_nulls() {
    let table = load("nested.parquet", include_bytes!("../data/rows/nested.parquet")).unwrap();
    assert_eq!(
        records(&table),
        [
            json!({"id": 1, "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}),
            json!({"id": null, "messages": []}),
        ]
    );
}

#[test]
fn several_files_are_one_split_in_their_order() {
    let folder = folder(&[("b.jsonl", b"{\"i\":1}\n{\"i\":2}\n"), ("a.csv", b"i\n3\n"), ("c.jsonl", b"{\"i\":4}\n")]);
    let paths: Vec<PathBuf> = ["b.jsonl", "a.csv", "c.jsonl"].map(|n| folder.path().join(n)).to_vec();
    let source = DataFiles::files(&paths).unwrap();
    assert_eq!(records(&source.load("train[1:]").unwrap()), [json!({"i": 2}), json!({"i": "3"}), json!({"i": 4})]);
    let table = source.load("train[:50%] + train[-1:]").unwrap();
    assert_eq!(records(&table), [json!({"i": 1}), json!({"i": 2}), json!({"i": 4})]);
    let table = table.subset(&[2, 0]);
    assert_eq!(records(&table), [json!({"i": 4}), json!({"i": 1})]);
    assert!(table.place(0).ends_with("c.jsonl line 1"));
}

#[test]
fn a_folder_has_the_splits_of_its_file_names() {
    let folder = folder(&[
        ("README.md", b"#"),
        ("data/train-00000-of-00001.jsonl", b"{\"i\":0}\n{\"i\":1}\n"),
        ("data/test-00000-of-00001.jsonl", b"{\"i\":9}\n"),
        ("dataset_info.json", b"{}"),
        ("notes.txt", b"x"),
    ]);
    let source = DataFiles::path(folder.path()).unwrap();
    assert_eq!(source.splits().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["test", "train"]);
    assert_eq!(records(&source.load("test+train[:1]").unwrap()), [json!({"i": 9}), json!({"i": 0})]);
    let wrong = source.load("tests").err().unwrap().to_string();
    assert_eq!(wrong, "split `tests`: the data has no split `tests`\n  hint: did you mean `test`?");
}

#[test]
fn bad_files_are_errors_that_name_file_and_line() {
    for (name, bytes, want) in [
        ("a.jsonl", &b"{\"a\":1}\n{\"a\":\n{\"a\":2}"[..], "a.jsonl line 2: not valid JSON: EOF while parsing a value"),
        ("a.jsonl", b"{\"a\":1}\n\n{\"a\":1} x", "a.jsonl line 3: not valid JSON: trailing characters (column 9)"),
        ("a.jsonl", b"{\"a\":1}\n[1]", "a.jsonl line 2: a record must be an object, this is a list"),
        ("a.jsonl", b"{\"a\":\"\xff\"}", "a.jsonl line 1: invalid UTF-8 at byte 7 of the line"),
        ("a.json", b"[{\"a\":1},\n {\"a\":}]", "a.json: not valid JSON: expected value at line 2 column 7"),
        ("a.json", b"[{\"a\":1},\n 3]", "a.json line 2 column 2: a record must be an object, this is a number"),
        ("a.json", b"{\n \"a\": [1]\n}", "a.json: one object over several lines is not a list of records"),
        ("a.csv", b"a,b\n1,2\n3\n", "a.csv line 3: 1 values, but the header names 2 columns"),
        ("a.csv", b"a,b\n1,\xe9\n", "a.csv line 2: invalid UTF-8 at byte 3"),
        ("a.txt", b"ok\n\xc3\x28", "a.txt line 2: invalid UTF-8 at byte 1"),
        ("a.parquet", b"PAR1 no", "a.parquet: cannot read as parquet"),
        ("a.xlsx", b"", "a.xlsx: unknown kind of data file\n  hint: data files are .jsonl"),
        ("a.jsonl", b"\n \n", "a.jsonl has no records"),
        ("a.csv", b"a,b\n", "a.csv has no records"),
        ("a.json", b"[]", "a.json has no records"),
        ("a.txt", b"", "a.txt has no records"),
    ] {
        let got = error(name, bytes);
        assert!(got.starts_with(want), "{name}: {got}");
    }
}

#[test]
fn damaged_parquet_is_an_error_not_a_panic() {
    for whole in [&include_bytes!("../data/rows/two.parquet")[..], include_bytes!("../data/rows/nested.parquet")] {
        for cut in (0..whole.len()).step_by(7) {
            assert!(load("cut.parquet", &whole[..cut]).is_err());
        }
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x55;
            // Some changed bytes do no harm (in a value, for instance). The test is that it does not panic.
            let _ = load("changed.parquet", &bytes);
        }
    }
}

#[test]
fn missing_things_are_named_with_the_nearest() {
    let folder = folder(&[("train.jsonl", b"{\"chat_sample\":\"x\",\"n\":5}\n")]);
    let error = DataFiles::path(&folder.path().join("trian.jsonl")).unwrap_err().to_string();
    assert!(error.contains("does not exist") && error.contains("did you mean") && error.contains("train.jsonl?"));
    let record = DataFiles::path(folder.path()).unwrap().load("train").unwrap().record(0).unwrap();
    assert_eq!(
        record.text("chat_sampel").unwrap_err().to_string(),
        "there is no column `chat_sampel`\n  hint: did you mean `chat_sample`?"
    );
    assert_eq!(
        record.text("message").unwrap_err().to_string(),
        "there is no column `message`\n  hint: the columns are chat_sample, n"
    );
    assert!(record.text("n").unwrap_err().to_string().starts_with("column `n` holds a number, not text"));
    assert!(DataFiles::folder(Path::new(&folder.path().join("none"))).is_err());
}

#[test]
fn a_folder_that_cannot_be_read_says_why() {
    let empty = folder(&[("README.md", b"#")]);
    assert!(DataFiles::path(empty.path()).unwrap_err().to_string().contains("has no data file"));
    let mixed = folder(&[("a.csv", b"a\n1\n"), ("b.jsonl", b"{}")]);
    assert!(DataFiles::path(mixed.path()).unwrap_err().to_string().contains("several kinds"));
    let saved = folder(&[("state.json", b"{}"), ("data-00000-of-00001.arrow", b"")]);
    assert!(DataFiles::path(saved.path()).unwrap_err().to_string().contains("to_parquet"));
}
