//! A run that meets a limit of the system says which.

use crate::folder::{Folder, Said, program};
use std::process::Command;

fn limited(folder: &Folder, limit: &str, args: &[&str]) -> Said {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "bash"]).arg(program()).args(args);
    Said::of(folder.start_command(command))
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_of_the_write() {
    let folder = Folder::new();
    let said = limited(&folder, "-f 1", &["train", "recipe.toml"]);
    said.refused(4, &["File too large", "ulimit -f"]);
}

#[test]
fn a_limit_on_memory_is_asked_for_before_anything_is_allocated() {
    let folder = Folder::new();
    let model = "lora_alpha=8";
    let said = limited(
        &folder,
        "-v 600000",
        &[
            "train",
            "recipe.toml",
            "--dummy-weights",
            "--set",
            "model_name_or_path=mistral-7b-v0.1",
            "--set",
            "tokenizer_name_or_path=model",
            "--set",
            model,
            "--device",
            "cpu",
        ],
    );
    said.refused(4, &["of memory on the device", "are missing"]);
    assert!(!folder.path("run").exists());
    // Too little for the worker threads.
    let said = limited(&folder, "-v 40000", &["plan", "recipe.toml"]);
    assert!(matches!(said.code, Some(0 | 4)) && !said.err.contains("panicked"), "{:?} {}", said.code, said.err);
}

#[test]
fn a_file_that_shrinks_while_it_is_mapped_is_named() {
    let folder = Folder::new();
    let big: String =
        (0..400_000).map(|i| format!("{{\"question\": \"what comes after {i}?\", \"answer\": \"{i}\"}}\n")).collect();
    folder.text("data.jsonl", &big);
    let child = folder.start(&["inspect-data", "recipe.toml"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    std::fs::OpenOptions::new().write(true).open(folder.path("data.jsonl")).expect("opened").set_len(10).expect("cut");
    let said = Said::of(child);
    // Whichever comes first: the lost page, or a record that ends too early.
    assert!(matches!(said.code, Some(3 | 4)), "{:?} {}", said.code, said.err);
    said.refused(said.code.expect("a code"), &["data.jsonl"]);
}

#[test]
fn an_interrupt_while_data_are_prepared_ends_the_program_and_leaves_nothing() {
    let folder = Folder::new();
    let big: String =
        (0..600_000).map(|i| format!("{{\"question\": \"what comes after {i}?\", \"answer\": \"{i}\"}}\n")).collect();
    folder.text("data.jsonl", &big);
    let mut child = folder.start(&["train", "recipe.toml"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("signaled");
    let began = std::time::Instant::now();
    child.wait().expect("ended");
    assert!(began.elapsed().as_secs() < 5 && !folder.path("run").exists(), "{:?}", began.elapsed());
}
