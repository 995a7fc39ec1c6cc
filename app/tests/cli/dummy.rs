//! `--dummy-weights`: runs of models without weights.

use crate::folder::Folder;

/// Model, data and recipe, without the weights.
fn without_weights() -> Folder {
    let folder = Folder::new();
    std::fs::remove_file(folder.path("model/model.safetensors")).expect("removed");
    folder
}

#[test]
fn a_run_needs_no_weights_says_so_and_repeats() {
    let folder = without_weights();
    folder.run(&["train", "recipe.toml"]).refused(3, &["model", "safetensors"]);
    let said = folder.run(&["train", "recipe.toml", "--dummy-weights"]).fine();
    assert!(said.out.contains("THE WEIGHTS ARE RANDOM") && said.out.contains("model dummy:model"), "{}", said.out);
    let config = std::fs::read_to_string(folder.path("run/adapter_config.json")).expect("read");
    assert!(config.contains(r#""base_model_name_or_path": "dummy:model""#), "{config}");
    folder.run(&["train", "recipe.toml", "--dummy-weights", "--set", "output_dir=again"]).fine();
    let (save, resume) = (["--set", "output_dir=kept", "--set", "save_steps=3"], ["train", "recipe.toml", "--resume"]);
    folder.run(&[&["train", "recipe.toml", "--dummy-weights"][..], &save].concat()).fine();
    folder.run(&[&resume[..], &save, &["--dummy-weights"]].concat()).fine();
    folder.weights("model");
    folder.run(&[&resume[..], &save].concat()).refused(2, &["dummy:model", "--dummy-weights"]);
    folder.run(&["train", "recipe.toml", "--dummy-weights", "--set", "output_dir=other", "--set", "seed=7"]).fine();
    let adapter = |run: &str| std::fs::read(folder.path(run).join("adapter_model.safetensors")).expect("read");
    assert_eq!(adapter("run"), adapter("again"));
    assert_ne!(adapter("run"), adapter("other"), "the seed decides");
}

#[test]
fn a_config_and_a_tokenizer_may_lie_apart() {
    let folder = without_weights();
    std::fs::create_dir(folder.path("words")).expect("created");
    std::fs::rename(folder.path("model/tokenizer.model"), folder.path("words/tokenizer.model")).expect("moved");
    let train = ["train", "recipe.toml", "--dummy-weights", "--set", "model_name_or_path=model/config.json"];
    folder.run(&train).refused(3, &["tokenizer.model", "tokenizer_name_or_path"]);
    folder.run(&[&train[..], &["--set", "tokenizer_name_or_path=words"]].concat()).fine();
    assert!(folder.path("run/tokenizer.model").is_file());
    // The resolved recipe has both.
    let recipe = std::fs::read_to_string(folder.path("run/recipe.toml")).expect("read");
    assert!(recipe.contains("tokenizer_name_or_path = \"words\""), "{recipe}");
    let real = ["train", "recipe.toml", "--set", "output_dir=real", "--set", "tokenizer_name_or_path=nowhere"];
    folder.run(&real).refused(3, &["safetensors"]);
}

#[test]
fn an_architecture_is_known_by_its_name() {
    let folder = without_weights();
    let named = |command, name: &str| {
        let set = format!("model_name_or_path={name}");
        folder.run(&[command, "recipe.toml", "--dummy-weights", "--set", &set])
    };
    let said = named("plan", "mistralai/Mixtral-8x7B-v0.1").fine();
    assert!(said.out.contains("grouped"), "{}", said.out);
    let said = named("plan", "meta-llama/Llama-2-7b-hf").fine();
    assert!(said.out.contains("base weights") && !said.out.contains("grouped"), "{}", said.out);
    named("plan", "gpt2").refused(3, &["gpt2", "mistral-7b-v0.1"]);
    named("train", "mistral-7b-v0.1").refused(2, &["no tokenizer", "tokenizer_name_or_path"]);
}
