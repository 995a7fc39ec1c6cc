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
        "splits: train (1 file)",
        "`train`: 24 rows, 20 trained on, 4 evaluated on",
        "columns: question, answer",
        "train: 20 records",
        "note: nothing is padded, so every end token is learned",
        "memory: ",
        "on H200 (6 steps of ",
    ] {
        assert!(said.out.contains(part), "{part:?} is not in: {}", said.out);
    }
    assert!(said.out.contains("  6 optimizer steps") && said.out.contains("eval: 4 records"), "{}", said.out);
    assert!(!said.out.contains('\x1b'), "no color without a terminal");
    let texts = std::fs::read_to_string(folder.path("texts.jsonl")).unwrap();
    assert_eq!(texts.lines().count(), 20);
    assert!(texts.starts_with("{\"text\":\"Q: what comes after ") && texts.contains("</s>\"}"), "{texts}");
    let json = folder.run(&["inspect-data", "recipe.toml", "--json"]).fine().out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["train"]["records"], &json["train"]["missing_eos"]), (&20.into(), &0.into()));
}

#[test]
fn json_has_the_rows_and_their_order() {
    let folder = Folder::new();
    let set = ["--set", "gradient_accumulation_steps=2", "--set", "max_steps=4"];
    let json = |more: &[&str]| -> serde_json::Value {
        let args = [&["inspect-data", "recipe.toml", "--json", "--rows", "100"], &set[..], more].concat();
        serde_json::from_str(&folder.run(&args).fine().out).unwrap()
    };
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let said = json(&[]);
    assert_eq!((list(&said["rows"]).len(), list(&said["eval_rows"]).len()), (20, 4));
    for row in list(&said["rows"]) {
        let [document] = &list(&row)[..] else { panic!("{row}") };
        assert!(document["ids"] == document["labels"] && list(&document["ids"]).len() > 4, "{document}");
    }
    // 20 rows in batches of 4: two batches a step, and a step of one batch at the end of the epoch.
    let steps = list(&said["step_rows"]);
    let shape: Vec<Vec<usize>> = steps.iter().map(|s| list(s).iter().map(|m| list(m).len()).collect()).collect();
    assert_eq!(shape, [vec![4, 4], vec![4, 4], vec![4], vec![4, 4]]);
    let flat = |steps: &[serde_json::Value]| -> Vec<u64> {
        steps.iter().flat_map(list).flat_map(|m| list(&m)).map(|n| n.as_u64().unwrap()).collect()
    };
    let mut epoch = flat(&steps[..3]);
    epoch.sort();
    assert!(epoch.into_iter().eq(1..=20));
    let packed = json(&["--set", "packing=true"]);
    for document in list(&packed["rows"]).iter().flat_map(list) {
        assert_eq!(document["labels"][0], -100, "the first label of a packed document");
    }
}

#[test]
fn a_bad_record_is_shown_with_its_line() {
    let folder = Folder::new();
    folder.text("data.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}\n{\"question\": \"a\"}\n{\"question\": 1}\n");
    let set = ["inspect-data", "recipe.toml", "--set", "test_size=1"];
    let said = folder.run(&set);
    said.refused(2, &["data.jsonl line ", "`answer` is undefined", "the columns are question"]);
    folder.run(&[&set[..], &["--write", "texts.jsonl"]].concat()).refused(2, &["`answer` is undefined"]);
    let left = std::fs::read_dir(folder.path("")).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.starts_with("texts")), "a file of which a part is missing");
}

#[test]
fn a_chat_templates_end_token_is_that_of_the_tokenizers_config() {
    let folder = Folder::new();
    folder.text(
        "model/tokenizer_config.json",
        r#"{"eos_token": "[/INST]", "add_bos_token": true, "add_eos_token": false}"#,
    );
    let messages = r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]"#;
    folder.text("data.jsonl", &format!("{{\"messages\": {messages}}}\n"));
    let template = r#"chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}""#;
    let recipe =
        format!("model_name_or_path = \"model\"\ndataset = \"data.jsonl\"\n{template}\noutput_dir = \"run\"\n");
    folder.text("recipe.toml", &recipe);
    let json = folder.run(&["inspect-data", "recipe.toml", "--write", "texts.jsonl", "--json"]).fine().out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["train"]["missing_eos"], 0);
    assert_eq!(std::fs::read_to_string(folder.path("texts.jsonl")).unwrap(), "{\"text\":\"a[/INST]b[/INST]\"}\n");
}

#[test]
fn keys_that_the_format_has_no_use_for_are_named() {
    let folder = Folder::new();
    let inspect = |settings: &[&str]| {
        let args: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
        folder.run(&[&["inspect-data", "recipe.toml"], &args[..]].concat()).fine().out
    };
    let said = inspect(&["text_column=question", "chat_template={{ x }}", "role_markers=[\"Q:\", \"A:\"]"]);
    assert!(said.contains("note: `text_column`, `chat_template` has no effect"), "{said}");
    assert!(!inspect(&[]).contains("has no effect with this format"));
}
