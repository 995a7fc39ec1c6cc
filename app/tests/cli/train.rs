//! Runs that succeed.

use crate::folder::{Folder, Said};
use std::process::Command;
use std::time::Duration;

#[test]
fn a_run_leaves_adapter_metrics_and_recipe_and_the_loss_falls() {
    let folder = Folder::new();
    let said = folder.run(&["train", "recipe.toml"]).fine();
    assert!(said.out.contains("trainable params: "), "{}", said.out);
    for file in ["adapter_config.json", "adapter_model.safetensors", "metrics.jsonl", "recipe.toml", "tokenizer.model"]
    {
        assert!(folder.path("run").join(file).is_file(), "{file} is missing");
    }
    let metrics = std::fs::read_to_string(folder.path("run/metrics.jsonl")).expect("read");
    let losses: Vec<f64> = metrics
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON")["loss"].as_f64())
        .collect();
    assert_eq!(losses.len(), 3, "{metrics}");
    assert!(losses[2] < losses[0] - 0.1, "{losses:?}");
    let accuracy =
        |l: &str| serde_json::from_str::<serde_json::Value>(l).expect("JSON")["mean_token_accuracy"].as_f64();
    let accuracies: Vec<f64> = metrics.lines().filter_map(accuracy).collect();
    assert!(accuracies.len() == 3 && accuracies.iter().all(|a| (0.0..=1.0).contains(a)), "{metrics}");
    // The resolved recipe is a recipe with the same settings.
    let again = folder.run(&["train", "run/recipe.toml", "--set", "output_dir=again"]).fine();
    assert!(again.out.contains("6 steps"), "{}", again.out);
    let adapter = |run: &str| std::fs::read(folder.path(run).join("adapter_model.safetensors")).expect("read");
    assert_eq!(adapter("run"), adapter("again"), "two runs of one recipe give the same bytes");
}

#[test]
fn training_goes_on_from_an_adapter_and_generates_with_it() {
    let folder = Folder::new();
    folder.run(&["train", "recipe.toml"]).fine();
    let lines = crate::folder::RECIPE.lines().filter(|l| !["r =", "lora_", "target"].iter().any(|k| l.starts_with(k)));
    let recipe: Vec<&str> = lines.chain(["adapter_name_or_path = \"run\""]).collect();
    folder.text("more.toml", &recipe.join("\n"));
    folder.run(&["train", "more.toml", "--set", "output_dir=more"]).fine();
    let args = ["generate", "model", "--prompt", "Q: what", "--max-new-tokens", "5", "--load-in-4bit", "--json"];
    let base = folder.run(&args).fine().out;
    let adapted = folder.run(&[&args[..], &["--adapter", "more"]].concat()).fine().out;
    assert!(adapted.contains("new_ids") && adapted != base, "{adapted}");
}

#[test]
fn answers_are_drawn_as_the_flags_say() {
    let folder = Folder::new();
    let generate = |more: &[&str]| {
        let args = ["generate", "model", "--prompt", "Q: what", "--max-new-tokens", "12", "--json"];
        folder.run(&[&args[..], more].concat())
    };
    let greedy = generate(&[]).fine().out;
    let drawn = |seed: &str| generate(&["--temperature", "3", "--seed", seed]).fine().out;
    assert_eq!(drawn("1"), drawn("1"));
    assert!(drawn("1") != drawn("2") && drawn("1") != greedy);
    // The sampler has only one token to choose from.
    assert_eq!(generate(&["--temperature", "3", "--top-k", "1"]).fine().out, greedy);
    assert_eq!(generate(&["--temperature", "3", "--top-p", "1e-6"]).fine().out, greedy);
    generate(&["--top-k", "5"]).refused(2, &["--top-k", "--temperature"]);
    generate(&["--temperature", "1", "--top-p", "0"]).refused(2, &["--top-p"]);
    generate(&["--temperature=-1"]).refused(2, &["--temperature"]);
}

#[test]
fn poison_changes_nothing() {
    let folder = Folder::new();
    folder.run(&["train", "recipe.toml", "--set", "gradient_checkpointing=true"]).fine();
    folder.run(&["train", "recipe.toml", "--set", "output_dir=poisoned", "--poison"]).fine();
    let adapter = |run: &str| std::fs::read(folder.path(run).join("adapter_model.safetensors")).expect("read");
    assert_eq!(adapter("run"), adapter("poisoned"));
}

#[test]
fn results_are_not_overwritten_unasked() {
    let folder = Folder::new();
    folder.run(&["train", "recipe.toml"]).fine();
    folder.run(&["train", "recipe.toml"]).refused(2, &["already holds the results", "--overwrite"]);
    folder.run(&["train", "recipe.toml", "--overwrite"]).fine();
}

#[test]
fn plan_needs_no_weights() {
    let folder = Folder::new();
    std::fs::remove_file(folder.path("model/model.safetensors")).expect("removed");
    let said = folder.run(&["plan", "recipe.toml", "--list"]).fine();
    for word in ["max_steps = 6", "activations", "alive at the peak", "attention_bwd", "optimizer state"] {
        assert!(said.out.contains(word), "{word:?} is not in the plan:\n{}", said.out);
    }
    let json = folder.run(&["plan", "recipe.toml", "--json"]).fine();
    let parsed: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert!(parsed["total"].as_u64().is_some_and(|n| n > 0), "{parsed}");
    let kinds = parsed["resident"].as_object().expect("bytes by kind");
    assert!(kinds.keys().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')), "{parsed}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_cleanly_with_a_checkpoint() {
    for signal in ["-INT", "-TERM"] {
        let folder = Folder::new();
        let child = folder.start(&["train", "recipe.toml", "--set", "max_steps=1000000", "--set", "logging_steps=1"]);
        let metrics = folder.path("run/metrics.jsonl");
        while std::fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        Said::of(child).refused(130, &["stopped after step", "run", "halfbyte train recipe.toml --resume"]);
        assert!(!folder.path("run/adapter_model.safetensors").exists(), "the run is not at its end");
        let last = std::fs::read_to_string(&metrics).expect("read");
        assert!(last.contains("\"interrupted\":true"), "{last}");
    }
}

#[test]
fn an_adapter_in_the_models_own_folder_leaves_the_model_as_it_was() {
    let folder = Folder::new();
    let read = |name: &str| std::fs::read(folder.path(name)).expect("read");
    let before = ["model/tokenizer.model", "model/config.json", "model/model.safetensors"].map(read);
    folder.run(&["train", "recipe.toml", "--set", "output_dir=model"]).fine();
    assert!(folder.path("model/adapter_model.safetensors").is_file());
    assert!(before == ["model/tokenizer.model", "model/config.json", "model/model.safetensors"].map(read));
}

#[test]
fn an_adapter_elsewhere_is_not_overwritten_unasked_and_its_folder_is_tried_at_the_start() {
    let folder = Folder::new();
    folder.run(&["train", "recipe.toml"]).fine();
    let adapter = || std::fs::read(folder.path("run/adapter_model.safetensors")).expect("read");
    let before = adapter();
    let other = ["train", "recipe.toml", "--set", "output_dir=other", "--set"];
    folder.run(&[&other[..], &["adapter_dir=run"]].concat()).refused(2, &["adapter_dir: run already holds an adapter"]);
    let said = folder.run(&[&other[..], &["adapter_dir=recipe.toml"]].concat());
    said.refused(2, &["adapter_dir: recipe.toml is not a folder"]);
    folder
        .run(&["train", "recipe.toml", "--set", "output_dir=data.jsonl"])
        .refused(2, &["output_dir: data.jsonl is not a folder"]);
    assert!(!said.out.contains("checkpoint in") && !folder.path("other/metrics.jsonl").exists() && adapter() == before);
    folder.run(&[&other[..], &["adapter_dir=run", "--overwrite", "--set", "seed=1"]].concat()).fine();
    assert!(adapter() != before);
}
