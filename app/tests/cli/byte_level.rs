//! A model folder with a byte-level `tokenizer.json`, a chat template, and an answer's end that is not the end token.

use crate::folder::Folder;
use crate::project::project;
use serde_json::{Value, json};

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "torch_dtype": "float32", "tie_word_embeddings": false, "vocab_size": 712, "eos_token_id": 702}"#;

/// ChatML's layout: the token that ends an answer is followed by a line break.
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.role + '\n' + m.content + '<|end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}";

const RECIPE: &str = r#"
model_name_or_path = "model"
dataset = ["data.jsonl"]
train_on = "assistant"
output_dir = "run"
r = 8
lora_alpha = 16
target_modules = ["q_proj", "v_proj", "down_proj", "lm_head"]
learning_rate = 0.02
per_device_train_batch_size = 4
max_steps = 60
max_seq_length = 48
"#;

fn folder() -> Folder {
    let folder = Folder::empty();
    folder.text("model/config.json", CONFIG);
    folder.text("model/generation_config.json", r#"{"eos_token_id": [702]}"#);
    let config = json!({"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>>"}, "chat_template": TEMPLATE});
    folder.text("model/tokenizer_config.json", &config.to_string());
    let tokenizer = project().join("tokenizer/tests/data/tokenizers/bytes-llama3/tokenizer.json");
    std::fs::copy(tokenizer, folder.path("model/tokenizer.json")).expect("copied");
    folder.weights("model");
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let record =
        |asked: &str| json!({"messages": [message("user", asked), message("assistant", "\n king")]}).to_string();
    let records: Vec<String> = ["the<|end|>", "a<|end|>"].repeat(4).into_iter().map(record).collect();
    folder.text("data.jsonl", &records.join("\n"));
    folder.text("recipe.toml", RECIPE);
    folder
}

#[test]
fn the_token_that_ends_an_answer_is_shown_trained_and_generated() {
    let folder = folder();
    let shown = folder.run(&["inspect-data", "recipe.toml"]).fine().out;
    assert!(shown.contains("  end tokens of records: <|end|> (8)\n"), "{shown}");
    assert!(!shown.contains("without the end token"), "{shown}");
    // Both line breaks are one token; it belongs to the answer. The token in the user's text is text.
    assert!(shown.contains("<|begin|>") && shown.contains("{ĊĊ") && shown.contains("<|end|>│Ċ}"), "{shown}");
    folder.run(&["train", "recipe.toml"]).fine();
    assert!(folder.path("run/tokenizer.json").is_file());
    let said = folder.run(&["generate", "run", "the<|end|>", "--max-new-tokens", "12", "--json"]).fine().out;
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["new_ids"].as_array().expect("ids").last(), Some(&json!(701)), "{said}");
    assert_eq!(said["prompt_ids"][0], json!(700), "{said}");
}

#[test]
fn a_setting_that_the_tokenizer_cannot_follow_is_refused() {
    let folder = folder();
    let config = json!({"eos_token": "<|end|>", "chat_template": TEMPLATE});
    folder.text("model/tokenizer_config.json", &config.to_string());
    let tokenizer = project().join("tokenizer/tests/data/tokenizers/bytes-qwen2/tokenizer.json");
    std::fs::copy(tokenizer, folder.path("model/tokenizer.json")).expect("copied");
    let said = folder.run(&["inspect-data", "recipe.toml", "--set", "add_bos_token=true"]);
    said.refused(2, &["add_bos_token", "no begin token"]);
    folder.run(&["inspect-data", "recipe.toml"]).fine();
}

#[test]
fn variables_of_the_template_come_from_the_recipe() {
    let folder = folder();
    let template = "{{ date_string or strftime_now('%Y') }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}";
    folder.text("model/chat_template.jinja", template);
    let shown = folder.run(&["inspect-data", "recipe.toml", "--set", "train_on=all"]).fine().out;
    assert!(shown.contains("today's date") && shown.contains("│20"), "{shown}");
    folder.text(
        "dated.toml",
        &RECIPE.replace("\"assistant\"", "\"all\"\nchat_template_kwargs = { date_string = \"1 May\" }"),
    );
    let shown = folder.run(&["inspect-data", "dated.toml"]).fine().out;
    assert!(!shown.contains("today's date") && shown.contains("│1 May"), "{shown}");
    folder.run(&["train", "dated.toml", "--set", "max_steps=1"]).fine();
    let resolved = std::fs::read_to_string(folder.path("run/recipe.toml")).expect("read");
    assert!(resolved.contains("date_string = \"1 May\""), "{resolved}");
}
