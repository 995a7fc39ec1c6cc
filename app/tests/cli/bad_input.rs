//! Each mistake gets a clear error and an exit code, and leaves nothing behind.

use crate::folder::Folder;

/// `train` with this override is refused.
fn refused(set: &str, code: i32, words: &[&str]) {
    let folder = Folder::new();
    folder.run(&["train", "recipe.toml", "--set", set]).refused(code, words);
    assert!(!folder.path("run").exists(), "a refused run leaves no folder behind");
}

#[test]
fn an_unknown_key_is_named_with_the_nearest() {
    refused("learning_rat=1", 2, &["learning_rat", "learning_rate"]);
}

#[test]
fn a_missing_file_is_named() {
    refused("dataset=[\"nothing.jsonl\"]", 3, &["nothing.jsonl"]);
    refused("model_name_or_path=nowhere", 3, &["nowhere"]);
    let folder = Folder::new();
    folder.run(&["train", "no.toml"]).refused(3, &["no.toml"]);
}

#[test]
fn the_devices_that_are_not_there_are_refused_before_anything_is_written() {
    let gpu = "bnb_4bit_compute_dtype=bfloat16";
    let folder = Folder::new();
    for (arguments, words) in [
        (&["--set", "device_map=9999"][..], ["9999", "NVIDIA", "hint"]),
        (&["--device", "cuda:9999"], ["9999", "NVIDIA", "hint"]),
        // The command line overrides the recipe.
        (&["--set", "device_map=cpu", "--device", "cuda:9999"], ["9999", "NVIDIA", "hint"]),
    ] {
        let run = folder.run(&[&["train", "recipe.toml", "--set", gpu], arguments].concat());
        assert!([Some(2), Some(4)].contains(&run.code), "{arguments:?}: {}", run.err);
        // Without a driver, the error names the driver instead.
        assert!(words[..2].iter().any(|word| run.err.contains(word)) && run.err.contains(words[2]), "{}", run.err);
        assert!(!folder.path("run").exists(), "a refused run leaves no folder behind");
    }
    for device in ["gpu", "cuda:x", "cuda:-1", ""] {
        folder.run(&["train", "recipe.toml", "--device", device]).refused(2, &["unknown device", "cuda:1"]);
    }
    folder.run(&["train", "recipe.toml", "--arch", "sm_75"]).refused(2, &["sm_75", "sm_80"]);
    // Both device maps that a machine without a GPU can follow.
    for (map, said) in [("cpu", "device: cpu"), ("auto", "one device")] {
        let set = format!("device_map={map}");
        let run = folder.run(&["train", "recipe.toml", "--overwrite", "--set", "max_steps=1", "--set", &set]).fine();
        assert!(run.out.contains(said), "{}", run.out);
    }
}

#[test]
fn rank_zero_is_refused() {
    refused("r=0", 2, &["r"]);
}

#[test]
fn a_target_that_matches_nothing_is_an_error_if_it_is_alone_and_a_note_if_not() {
    refused("target_modules=[\"q_porj\"]", 2, &["q_porj", "q_proj"]);
    let folder = Folder::new();
    let said = folder.run(&["train", "recipe.toml", "--set", "target_modules=[\"q_proj\", \"w1\"]"]).fine();
    assert!(said.out.contains("`w1` matches no module"), "{}", said.out);
}

#[test]
fn contradicting_types_are_refused() {
    refused("bf16=true", 2, &["bf16", "bnb_4bit_compute_dtype"]);
}

#[test]
fn a_context_longer_than_the_model_allows_is_refused() {
    refused("max_seq_length=65", 2, &["max_seq_length", "64"]);
}

#[test]
fn a_row_without_the_field_is_named() {
    let folder = Folder::new();
    folder.text("data.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}\n{\"question\": \"c\"}\n");
    folder
        .run(&["train", "recipe.toml", "--set", "test_size=1"])
        .refused(2, &["data.jsonl line 2", "`answer` is undefined", "question"]);
}

#[test]
fn rows_without_a_trained_token_are_refused() {
    let folder = Folder::new();
    let set = ["--set", "train_on=completion", "--set", "role_markers=[\"Z:\", \"Y:\"]"];
    folder.run(&[&["train", "recipe.toml"][..], &set].concat()).refused(3, &["masked", "role_markers"]);
}

#[test]
fn weights_that_lie_are_refused() {
    let folder = Folder::new();
    let path = folder.path("model/model.safetensors");
    let good = std::fs::read(&path).expect("read");
    // A truncated file, a header that claims more than the file has, a header that is not JSON.
    let mut long = good.clone();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut garbled = good.clone();
    garbled[8] = b'[';
    for bytes in [&good[..good.len() / 2], &good[..5], &long, &garbled] {
        std::fs::write(&path, bytes).expect("written");
        folder.run(&["train", "recipe.toml"]).refused(3, &["model.safetensors"]);
    }
    // Right file, wrong config.
    std::fs::write(&path, good).expect("written");
    let config = std::fs::read_to_string(folder.path("model/config.json")).expect("read");
    folder.text("model/config.json", &config.replace("\"intermediate_size\": 64", "\"intermediate_size\": 96"));
    folder.run(&["train", "recipe.toml"]).refused(3, &["mlp", "shape"]);
    folder.text("model/config.json", &config.replace("llama", "gpt2"));
    folder.run(&["train", "recipe.toml"]).refused(3, &["gpt2"]);
}

#[test]
fn broken_recipes_are_refused() {
    let folder = Folder::new();
    folder.text("recipe.toml", "r = [");
    folder.run(&["train", "recipe.toml"]).refused(2, &["recipe.toml"]);
    folder.text("recipe.toml", "");
    folder.run(&["plan", "recipe.toml"]).refused(2, &["model_name_or_path"]);
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let folder = Folder::new();
    folder.run(&["train", "recipe.toml", "--device", "gpu"]).refused(2, &["`gpu`", "cuda:1"]);
    let bf16 = ["train", "recipe.toml", "--set", "bnb_4bit_compute_dtype=bfloat16", "--device", "cuda:99"];
    folder.run(&["train", "recipe.toml", "--device", "cuda"]).refused(2, &["float32", "--device cpu"]);
    match halfbyte_core::device::cuda::list() {
        Ok(gpus) if !gpus.is_empty() => folder.run(&bf16).refused(2, &["cuda:99", "halfbyte devices"]),
        _ => folder.run(&bf16).refused(4, &["NVIDIA driver", "--device cpu"]),
    }
    assert!(!folder.path("run").exists(), "a refused run leaves no folder behind");
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_allocated() {
    refused("max_steps=4000000000", 2, &["4000000000 steps", "max_steps"]);
    refused("per_device_train_batch_size=10000000000", 2, &["per_device_train_batch_size"]);
    refused("r=100000", 2, &["rank"]);
}

#[test]
fn odd_widths_cannot_be_4_bit() {
    let folder = Folder::new();
    let config = std::fs::read_to_string(folder.path("model/config.json")).expect("read");
    folder.text("model/config.json", &config.replace("\"intermediate_size\": 64", "\"intermediate_size\": 65"));
    folder.run(&["plan", "recipe.toml"]).refused(3, &["down_proj", "65", "llm_int8_skip_modules"]);
}
