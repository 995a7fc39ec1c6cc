//! The data layouts of TRL, Axolotl and LLaMA-Factory are recognized by their columns.

use crate::tiny::{encoder, show};
use halfbyte::config::recipe::Recipe;
use halfbyte::data::recognize::{first_record, formatter, notes};
use halfbyte::data::source::DataFiles;
use halfbyte::data::tokenizer_config::TokenizerConfig;
use serde_json::{Value, json};

const OWN: &str = "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}\
                   {% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";

/// The first record as a document, trained tokens in braces, and the notes of a recipe with `settings`; or the error.
fn formatted(record: &Value, settings: &str, own: Option<&str>) -> Result<(String, Vec<String>), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data.jsonl");
    std::fs::write(&path, format!("{record}\n")).expect("written");
    let table = DataFiles::files(&[path]).and_then(|source| source.load("train")).expect("a table");
    let recipe = Recipe::parse(&format!("model = \"m\"\n{settings}"), "r.toml", &[]).map_err(|e| e.to_string())?;
    let config = TokenizerConfig { chat_template: own.map(String::from), ..TokenizerConfig::default() };
    let mut encoder = encoder();
    let format = formatter(&recipe.data, || first_record(&table), &encoder, &config).map_err(|e| e.to_string())?;
    if format.wants_eos() {
        encoder.always_end();
    }
    let text = format.text(&table.record(0).expect("a record")).map_err(|e| e.to_string())?;
    Ok((show(&encoder, &encoder.document(&text, format.train_on)), notes(&recipe.data, &format)))
}

fn shown(record: Value, settings: &str) -> String {
    formatted(&record, settings, Some(OWN)).unwrap_or_else(|e| panic!("{record} {settings}: {e}")).0
}

#[test]
fn prompt_and_completion_are_trl_s() {
    let record = json!({"prompt": "The sky is", "completion": " blue."});
    assert_eq!(shown(record.clone(), ""), "<s>▁The▁sky▁is{▁blue.</s>}");
    assert_eq!(shown(record.clone(), "completion_only_loss = false"), "{<s>▁The▁sky▁is▁blue.</s>}");
    let (_, notes) = formatted(&record, "", None).expect("needs no chat template");
    assert!(notes[0].contains("completions only"), "{notes:?}");
    let chat = shown(record, "template = \"mistral-v1\"");
    assert_eq!(chat, "{<s>▁▁[INST]▁▁The▁sky▁is▁[/INST]▁▁▁blue.</s>}", "with a chat template they are a conversation");
}

#[test]
fn conversational_prompt_and_completion_are_one_conversation() {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let record = json!({
        "prompt": [message("user", "a"), message("assistant", "b"), message("user", "c")],
        "completion": [message("assistant", "d"), message("user", "e"), message("assistant", "f")],
    });
    assert_eq!(
        shown(record.clone(), ""),
        "<s>▁<user>a<assistant>b<user>c<assistant>{d<user>e<assistant>f</s>}",
        "all of the completion, and nothing of the prompt"
    );
    assert_eq!(
        shown(record.clone(), "assistant_only_loss = true"),
        "<s>▁<user>a<assistant>{b}<user>c<assistant>{d}<user>e<assistant>{f</s>}"
    );
    let error = formatted(&record, "", None).expect_err("no template");
    assert!(error.contains("no chat_template") && error.contains("chatml"), "{error}");
}

#[test]
fn segments_have_labels() {
    let record = json!({"segments": [
        {"label": false, "text": "<s>Q: a\n"}, {"label": true, "text": "b</s>"}, {"label": false, "text": " c"},
    ]});
    let shown_text = shown(record.clone(), "add_eos_token = false");
    assert_eq!(shown_text, "<s>▁Q:▁a<0x0A>{b</s>}▁▁c</s>", "special tokens are written out");
    assert_eq!(shown(record, "format = \"input_output\"\ntrain_on = \"all\""), "{<s>▁Q:▁a<0x0A>b</s>▁▁c</s>}");
    let error = formatted(&json!({"segments": [{"text": "a"}]}), "", None).expect_err("no label");
    assert!(error.contains("`segments[0]`") && error.contains("`label`"), "{error}");
}

#[test]
fn llama_factory_s_alpaca_has_a_system_message_and_a_history() {
    let record = json!({
        "instruction": "c", "input": "i", "output": "d", "system": "S", "history": [["a", "b"]],
    });
    assert_eq!(
        shown(record.clone(), "chat_template = \"zephyr\"\ntrain_on_inputs = false"),
        "<s>▁<|system|><0x0A>S</s><0x0A><|user|><0x0A>a</s><0x0A><|assistant|><0x0A>{b</s>}<0x0A><|user|><0x0A>\
         c<0x0A><0x0A>i</s><0x0A><|assistant|><0x0A>{d</s>}<0x0A></s>"
            .replace("</s><0x0A>", "</s>▁<0x0A>")
            .replace("</s>}<0x0A>", "</s>}▁<0x0A>"),
    );
    let error = formatted(&record, "", Some(OWN)).expect_err("Alpaca's prompt has no place for them");
    assert!(error.contains("`system`") && error.contains("chat_template"), "{error}");
    let plain = json!({"instruction": "a", "input": "", "output": "b", "system": "", "history": []});
    assert!(shown(plain, "").ends_with("###▁Response:<0x0A>b</s>}"), "empty columns do not matter");
    let error =
        formatted(&json!({"instruction": "a", "output": "b", "history": [["a"]]}), "chat_template = \"zephyr\"", None);
    assert!(error.expect_err("half a turn").contains("[question, answer]"));
}

#[test]
fn sharegpt_has_a_system_column() {
    let turns = json!([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]);
    let record = json!({"conversations": turns, "system": "S"});
    assert_eq!(shown(record, "train_on = \"assistant\""), "<s>▁<system>S<user>a<assistant>{b</s>}");
    let record =
        json!({"messages": [{"role": "system", "content": "T"}, {"role": "user", "content": "a"}], "system": "S"});
    assert_eq!(shown(record, ""), "{<s>▁<system>T<user>a</s>}", "the conversation's own wins");
}

#[test]
fn the_model_s_own_chat_template_is_the_default() {
    let record = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    assert_eq!(shown(record.clone(), ""), "{<s>▁<user>a<assistant>b</s>}");
    assert_eq!(shown(record.clone(), "chat_template = \"tokenizer_default\""), "{<s>▁<user>a<assistant>b</s>}");
    let (text, notes) = formatted(&record, "chat_template = \"chatml\"", Some(OWN)).expect("known");
    assert!(text.contains("<|im_start|>assistant<0x0A>b<|im_end|>"), "{text}");
    assert!(notes[0].contains("no token <|im_start|>, <|im_end|>"), "{notes:?}");
}

#[test]
fn columns_that_say_nothing_are_listed_with_the_formats() {
    let error = formatted(&json!({"a": "x", "b": "y"}), "", Some(OWN)).expect_err("unknown");
    for word in ["columns are a, b", "text_column", "prompt-completion", "sharegpt"] {
        assert!(error.contains(word), "{error}");
    }
}
