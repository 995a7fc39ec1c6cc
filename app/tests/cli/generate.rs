//! `generate`: the settings that it takes from a run, and the sources of its prompt.

use crate::folder::{Folder, RECIPE, Said};
use serde_json::Value;

/// A folder with a finished run in `run`.
fn trained(more: &[&str]) -> Folder {
    let folder = Folder::new();
    folder.run(&[&["train", "recipe.toml"][..], more].concat()).fine();
    folder
}

fn ids(said: Said) -> (Vec<u64>, Vec<u64>) {
    let json: Value = serde_json::from_str(&said.fine().out).expect("JSON");
    let list = |name: &str| json[name].as_array().expect(name).iter().filter_map(Value::as_u64).collect();
    (list("prompt_ids"), list("new_ids"))
}

const FEW: [&str; 3] = ["--max-new-tokens", "6", "--json"];

#[test]
fn a_run_alone_is_its_base_its_bits_and_its_template() {
    let folder = trained(&[]);
    let generate = |args: &[&str]| folder.run(&[&["generate"][..], args, &FEW].concat());
    let (asked, new) = ids(generate(&["run", "what comes after 3?"]));
    // The recipe's template is "Q: {{ question }} A: {{ answer }}</s>".
    let by_hand = generate(&[
        "model",
        "--adapter",
        "run",
        "--load-in-4bit",
        "--dtype",
        "float32",
        "--prompt",
        "Q: what comes after 3? A:",
    ]);
    assert_eq!(ids(by_hand), (asked.clone(), new.clone()));
    let said = generate(&["run", "what comes after 3?"]).fine();
    assert_eq!(said.err, "device: cpu; model in 4 bits, float32, adapter run\n");
    // The adapter and the quantization must both change the answer, or this test would prove nothing.
    let plain = generate(&["model", "Q: what comes after 3? A:"]);
    assert_eq!(plain.err, "device: cpu; model, float32\n");
    assert_ne!(ids(plain).1, new);
    // A verbatim prompt, and a prompt formatted by the columns of the data.
    assert_eq!(ids(generate(&["run", "--raw", "Q: what comes after 3? A:"])), (asked, new));
    // The template needs no data.
    std::fs::remove_file(folder.path("data.jsonl")).expect("removed");
    generate(&["run", "what comes after 3?"]).fine();
}

#[test]
fn only_the_answer_to_a_question_is_printed() {
    let folder = trained(&[]);
    let said = folder.run(&["generate", "run", "what comes after 3?", "--max-new-tokens", "4"]).fine();
    assert!(!said.out.contains("what comes"), "{}", said.out);
    let said = folder.run(&["generate", "run", "--raw", "what comes after 3?", "--max-new-tokens", "4"]).fine();
    assert!(said.out.starts_with("what comes after 3?"), "{}", said.out);
}

#[test]
fn the_prompt_comes_from_anywhere() {
    let folder = Folder::new();
    let (want, _) = ids(folder.run(&[&["generate", "model", "The king"][..], &FEW].concat()));
    folder.text("prompt.txt", "The king\n");
    for args in [["--prompt", "The king"], ["--file", "prompt.txt"]] {
        assert_eq!(ids(folder.run(&[&["generate", "model"][..], &args, &FEW].concat())).0, want, "{args:?}");
    }
    assert_eq!(ids(folder.run_on("The king\n", &[&["generate", "model"][..], &FEW].concat())).0, want);
    folder.run(&["generate", "model", "a", "--prompt", "b"]).refused(2, &["cannot be used with"]);
    folder.run(&["generate", "model", "--file", "none.txt"]).refused(3, &["none.txt"]);
}

#[test]
fn conversations_and_instructions_are_asked_as_they_were_trained() {
    let folder = Folder::new();
    let lines = RECIPE.lines().filter(|line| !line.contains("template")).collect::<Vec<_>>();
    folder.text("recipe.toml", &lines.join("\n").replace("= 32", "= 64"));
    let chat = |i: usize| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "{i}?"}}, {{"role": "assistant", "content": "yes {i}"}}]}}"#
        )
    };
    folder.text("data.jsonl", &(0..24).map(chat).collect::<Vec<_>>().join("\n"));
    let template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";
    let set = format!("chat_template={}", toml_text(template));
    folder.run(&["train", "recipe.toml", "--set", &set]).fine();
    // The recipe has no format, so the columns of the data determine it.
    let generate = |args: &[&str]| folder.run(&[&["generate"][..], args, &FEW].concat());
    let asked = ids(generate(&["run", "7?"])).0;
    assert_eq!(asked, ids(generate(&["run", "--raw", "[user] 7?\n[assistant]"])).0);
    std::fs::remove_file(folder.path("data.jsonl")).expect("removed");
    generate(&["run", "7?"]).refused(3, &["the format of the run's data (run)", "data.jsonl"]);
    generate(&["run", "--raw", "7?"]).fine();
}

fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\n', "\\n"))
}

#[test]
fn a_run_without_an_adapter_says_what_it_has() {
    let folder = trained(&["--set", "save_strategy=steps", "--set", "save_steps=2"]);
    // A checkpoint belongs to its run.
    let said = folder.run(&["generate", "run/checkpoint-2", "what comes after 3?", "--max-new-tokens", "2"]).fine();
    assert!(said.err.contains("4 bits") && said.err.contains("checkpoint-2"), "{}", said.err);
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::remove_file(folder.path("run").join(file)).expect("removed");
    }
    folder.run(&["generate", "run", "x"]).refused(3, &["has no adapter", "run/checkpoint-6"]);
    folder.run(&["generate", "model", "x", "--adapter", "nowhere"]).refused(3, &["there is no folder nowhere"]);
    folder.run(&["generate", "model", "x", "--dtype", "int8"]).refused(2, &["--dtype int8", "bfloat16"]);
}

#[test]
fn an_adapter_may_lie_elsewhere_and_its_base_may_be_gone() {
    let folder = trained(&["--set", "adapter_dir=adapter"]);
    let said = folder.run(&["generate", "run", "what comes after 3?", "--max-new-tokens", "2"]).fine();
    assert!(said.err.ends_with("adapter adapter\n"), "{}", said.err);
    std::fs::rename(folder.path("model"), folder.path("moved")).expect("renamed");
    let said = folder.run(&["generate", "run", "x"]);
    said.refused(3, &["run: model_name_or_path: there is no", "halfbyte generate MODEL --adapter run"]);
    folder.run(&["generate", "moved", "x", "--adapter", "run", "--max-new-tokens", "2"]).fine();
}
