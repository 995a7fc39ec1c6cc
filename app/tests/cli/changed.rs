//! A resume notices that its inputs are no longer those of the checkpoint.

use crate::folder::{Folder, Said};
use halfbyte::weights::safetensors::{Output, TensorFiles, write};

fn train(folder: &Folder, more: &[&str]) -> Said {
    folder.run(&[&["train", "recipe.toml", "--set", "save_steps=2"], more].concat())
}

#[test]
fn other_base_weights_of_the_same_name_are_refused() {
    let folder = Folder::new();
    train(&folder, &[]).fine();
    let marker = std::fs::read_to_string(folder.path("run/run.json")).expect("read");
    let state = std::fs::read_to_string(folder.path("run/checkpoint-6/trainer_state.json")).expect("read");
    let identity = marker.split("\"base\": \"").nth(1).and_then(|rest| rest.get(..32)).expect("an identity");
    assert!(state.contains(identity), "run folder and checkpoint name the same weights");
    let file = folder.path("model/model.safetensors");
    let outputs: Vec<Output> = {
        let files = TensorFiles::open_file(&file).expect("valid");
        let names: Vec<String> = files.names().map(String::from).collect();
        let copy = |name: &String| {
            let tensor = files.get(name).expect("there");
            let mut data = tensor.data.to_vec();
            // One bit of one weight.
            data[0] ^= u8::from(name.contains("k_proj"));
            Output { name: name.clone(), dtype: tensor.dtype, shape: tensor.shape.to_vec(), data: data.into() }
        };
        names.iter().map(copy).collect()
    };
    write(&file, &outputs).expect("written");
    train(&folder, &["--set", "max_steps=8", "--resume"]).refused(3, &["checkpoint-6", "other base weights"]);
}

#[test]
fn other_answers_of_the_same_length_are_refused() {
    let folder = Folder::new();
    train(&folder, &[]).fine();
    let data = std::fs::read_to_string(folder.path("data.jsonl")).expect("read");
    folder.text(
        "data.jsonl",
        &data.replacen("\"answer\": \"4\"", "\"answer\": \"5\"", 1).replacen("after 3?", "after 4?", 1),
    );
    train(&folder, &["--set", "max_steps=8", "--resume"]).refused(3, &["the training data has changed"]);
}

#[test]
fn a_log_that_lost_lines_is_noticed_before_the_first_step() {
    let folder = Folder::new();
    train(&folder, &[]).fine();
    let file = folder.path("run/metrics.jsonl");
    let whole = std::fs::read(&file).expect("read");
    let resume = || train(&folder, &["--set", "max_steps=8", "--resume"]);
    let mut zeros = whole.clone();
    zeros[..40].fill(0);
    for damaged in [&whole[..whole.len() / 3], &zeros] {
        std::fs::write(&file, damaged).expect("written");
        let said = resume();
        said.refused(3, &["metrics.jsonl is damaged", "restore it"]);
        assert!(!said.out.contains("step 7"), "{}", said.out);
        assert_eq!(std::fs::read(&file).expect("read"), damaged);
    }
    std::fs::remove_file(&file).expect("removed");
    let said = resume().fine();
    assert!(
        said.out.contains("metrics.jsonl is missing or empty: the log begins after the checkpoint"),
        "{}",
        said.out
    );
    folder.run(&["report", "run"]).fine();
}
