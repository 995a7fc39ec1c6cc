//! A run whose numbers are no longer finite ends with an error, and the next one continues from a good state.

use crate::folder::{Folder, Said};
use halfbyte::weights::safetensors::{Output, TensorFiles, write};

fn train(folder: &Folder, more: &[&str]) -> Said {
    folder.run(&[&["train", "recipe.toml"], more].concat())
}

fn names(folder: &Folder, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path("run")).expect("a run folder");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with(prefix));
    names.sort();
    names
}

#[test]
fn an_adapter_that_is_not_finite_is_never_a_result() {
    let folder = Folder::new();
    for more in [&["--set", "save_strategy=no"][..], &[]] {
        let wild = ["--set", "max_steps=1", "--set", "learning_rate=1e38", "--overwrite"];
        train(&folder, &[&wild[..], more].concat()).refused(5, &["not finite", "lower learning_rate"]);
        assert!(!folder.path("run/adapter_model.safetensors").exists() && names(&folder, "checkpoint").is_empty());
    }
}

#[test]
fn a_learning_rate_beyond_f32_is_refused_before_anything_is_written() {
    let folder = Folder::new();
    train(&folder, &["--set", "learning_rate=1e308"]).refused(2, &["the learning rate of step 1 is inf"]);
    assert!(!folder.path("run").exists());
}

#[test]
fn a_run_that_diverged_continues_from_the_state_before() {
    let folder = Folder::new();
    let steps = ["--set", "max_steps=12", "--set", "save_steps=1", "--set", "max_grad_norm=0"];
    train(&folder, &[&steps[..], &["--set", "max_steps=3"]].concat()).fine();
    let wild = [&steps[..], &["--set", "learning_rate=1e30", "--resume"]].concat();
    train(&folder, &wild).refused(5, &["--resume"]);
    let failed = names(&folder, "diverged");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let good = names(&folder, "checkpoint");
    assert!(good.iter().any(|name| name == "checkpoint-3"), "{good:?}");
    // The hint asks for this. A poisoned checkpoint costs one more attempt each, and none is deleted.
    let tame = [&steps[..], &["--set", "learning_rate=1e-3", "--resume"]].concat();
    let attempts = (0..4).position(|_| train(&folder, &tame).code == Some(0));
    assert!(attempts.is_some(), "{:?} {:?}", names(&folder, "checkpoint"), names(&folder, "diverged"));
}

#[test]
fn a_state_that_fails_at_once_is_passed_over() {
    let folder = Folder::new();
    let steps = ["--set", "save_steps=1", "--set", "max_grad_norm=0"];
    train(&folder, &[&steps[..], &["--set", "max_steps=3"]].concat()).fine();
    // The weights of the newest checkpoint are finite, but so large that the next loss is not.
    let file = folder.path("run/checkpoint-3/adapter_model.safetensors");
    let outputs: Vec<Output> = {
        let files = TensorFiles::open_file(&file).expect("valid");
        let huge = |name: &str| {
            let tensor = files.get(name).expect("there");
            Output::floats(name.into(), tensor.dtype, tensor.shape.to_vec(), &vec![3e38; tensor.len()])
        };
        files.names().map(huge).collect()
    };
    write(&file, &outputs).expect("written");
    let bytes = std::fs::read(&file).expect("read");
    let sums = folder.path("run/checkpoint-3/checksums.json");
    let mut all: serde_json::Value = serde_json::from_slice(&std::fs::read(&sums).expect("read")).expect("JSON");
    all["adapter_model.safetensors"] = serde_json::json!({"bytes": bytes.len(), "crc32": crc32fast::hash(&bytes)});
    std::fs::write(&sums, all.to_string()).expect("written");
    let wild = [&steps[..], &["--set", "max_steps=9", "--resume"]].concat();
    train(&folder, &wild).refused(5, &["step 4"]);
    assert_eq!(
        (names(&folder, "checkpoint"), names(&folder, "diverged")),
        (vec!["checkpoint-1".to_string(), "checkpoint-2".into()], vec!["diverged-3".to_string()],)
    );
    train(&folder, &[&steps[..], &["--set", "max_steps=9", "--resume"]].concat()).fine();
}
