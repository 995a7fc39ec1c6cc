//! `plan`: the ladder of memory policies, budgets, and the drawing of the arena.

use crate::folder::{Folder, RECIPE};
use serde_json::Value;

const MISTRAL: [&str; 2] = ["--set", "model_name_or_path=mistral-7b-v0.1"];

/// The plan of the recipe as JSON.
fn plan(folder: &Folder, more: &[&str]) -> Value {
    let said = folder.run(&[&["plan", "recipe.toml", "--dummy-weights", "--json"][..], more].concat()).fine();
    serde_json::from_str(&said.out).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// A recipe for Mistral-7B with 4 × 2048 tokens.
fn large() -> Folder {
    let folder = Folder::new();
    let recipe = RECIPE.replace("max_seq_length = 32", "max_seq_length = 2048").replace("float32", "bfloat16");
    folder.text("recipe.toml", &recipe);
    folder
}

#[test]
fn each_rung_needs_less_memory_and_more_time() {
    let planned = plan(&large(), &MISTRAL);
    let rungs = planned["ladder"].as_array().expect("a ladder");
    assert_eq!(rungs.len(), 4);
    assert!(rungs.is_sorted_by(|a, b| number(&a["total"]) > number(&b["total"])), "{rungs:#?}");
    assert!(rungs.is_sorted_by(|a, b| number(&a["step_seconds"]) <= number(&b["step_seconds"])), "{rungs:#?}");
    assert_eq!(number(&rungs[0]["host"]), 0.0);
    assert!(number(&rungs[3]["host"]) > f64::from(1 << 30), "31 block inputs of 64 MiB");
}

#[test]
fn a_budget_is_kept_and_used() {
    let folder = large();
    let mut last = f64::INFINITY;
    for gib in [8, 12, 24, 80] {
        let budget = f64::from(gib) * f64::from(1 << 30);
        let planned = plan(&folder, &[&MISTRAL[..], &["--memory-budget", &gib.to_string()]].concat());
        let (total, step) = (number(&planned["total"]), number(&planned["step_seconds"]));
        assert!(total < budget - f64::from(512 << 20), "{gib} GiB: {total} bytes leave nothing to the driver");
        assert!(step <= last, "{gib} GiB: more memory must not cost time");
        last = step;
        let keeps_all = planned["policies"] == "all blocks keep activations";
        assert_eq!(keeps_all, gib == 80, "{gib} GiB: {}", planned["policies"]);
        // One block more would not fit: it takes about 0.7 GiB.
        assert!(keeps_all || total > budget - 2.2 * f64::from(1 << 30), "{gib} GiB: only {total} bytes are used");
    }
    let said =
        folder.run(&[&["plan", "recipe.toml", "--dummy-weights", "--memory-budget", "2GiB"], &MISTRAL[..]].concat());
    assert!(said.fine().out.contains("it is the smallest, but larger than the budget of 2.00 GiB"));
    let said = folder.run(&["plan", "recipe.toml", "--dummy-weights", "--memory-budget", "12TB"]);
    said.refused(2, &["--memory-budget", "TB"]);
}

#[test]
fn the_key_decides_before_the_budget() {
    let folder = large();
    for (flag, policies) in [("true", "all blocks recompute"), ("false", "all blocks keep activations")] {
        let key = format!("gradient_checkpointing={flag}");
        let more = [&MISTRAL[..], &["--set", &key, "--memory-budget", "40GiB"]].concat();
        assert_eq!(plan(&folder, &more)["policies"], policies);
        // Weights may go to the host, but no other policy is taken.
        let more = [&MISTRAL[..], &["--set", &key, "--memory-budget", "5GiB"]].concat();
        let found = plan(&folder, &more)["policies"].to_string();
        assert!(found.contains(policies) && found.contains("streamed from host memory"), "{found}");
    }
}

#[test]
fn a_budget_changes_no_bit_of_a_run() {
    let config = r#"{"model_type": "mixtral", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "num_local_experts": 4, "torch_dtype": "float32", "tie_word_embeddings": false, "vocab_size": "#;
    let folder = Folder::with(config);
    // Every record has more than 16 tokens, so the data fills the rows that `plan` assumes.
    let recipe = RECIPE.replace("down_proj", "w2").replace("max_seq_length = 32", "max_seq_length = 16");
    folder.text("recipe.toml", &format!("{recipe}lora_dropout = 0.1\n"));
    folder.run(&["train", "recipe.toml", "--device", "cpu"]).fine();
    let adapter = |run: &str| std::fs::read(folder.path(run).join("adapter_model.safetensors")).expect("read");
    let kept = adapter("run");
    let ladder = plan(&folder, &[])["ladder"].clone();
    for i in [1, 2, 3] {
        let run = format!("output_dir=run{i}");
        // On a CPU, the budget is for the plan alone.
        let budget = format!("{}MiB", number(&ladder[i]["total"]) / f64::from(1 << 20));
        let args = ["train", "recipe.toml", "--device", "cpu", "--set", &run, "--memory-budget", &budget];
        let said = folder.run(&args).fine();
        assert!(!said.out.contains("all blocks keep activations"), "{}", said.out);
        assert!(adapter(&format!("run{i}")) == kept, "another adapter within {budget}");
    }
}

#[test]
fn a_paged_optimizer_changes_no_bit_of_a_run_or_of_its_checkpoint() {
    let folder = Folder::new();
    let recipe = RECIPE.replace("max_seq_length = 32", "max_seq_length = 16");
    folder.text("recipe.toml", &format!("{recipe}optim = \"paged_adamw_32bit\"\nsave_steps = 3\n"));
    let train = |more: &[&str]| folder.run(&[&["train", "recipe.toml", "--device", "cpu"][..], more].concat()).fine();
    assert!(!train(&[]).out.contains("pages"));
    let paged = number(&plan(&folder, &[])["paged"]);
    let budget = format!("{}MiB", paged / f64::from(1 << 20));
    let said = train(&["--set", "output_dir=paged", "--memory-budget", &budget]);
    assert!(said.out.contains("1 of 1 pages of optimizer state in host memory"), "{}", said.out);
    let file = |name: &str| std::fs::read(folder.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(file("run/adapter_model.safetensors") == file("paged/adapter_model.safetensors"));
    let state = "checkpoint-3/optimizer.safetensors";
    assert!(file(&format!("run/{state}")) == file(&format!("paged/{state}")));
    // A run with resident state continues from a checkpoint of one with pages.
    std::fs::remove_dir_all(folder.path("paged/checkpoint-6")).expect("removed");
    train(&["--set", "output_dir=paged", "--resume"]);
    assert!(file("run/adapter_model.safetensors") == file("paged/adapter_model.safetensors"));
}

/// x, y, width and height of the drawn buffers.
fn rectangles(svg: &str) -> Vec<[f64; 4]> {
    let buffers = svg.lines().filter(|line| line.starts_with("<rect") && line.contains("<title>"));
    let value = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\"")).expect("an attribute");
        rest.split('"').next().and_then(|text| text.parse().ok()).expect("a number")
    };
    buffers.map(|line| ["x", "y", "width", "height"].map(|name| value(line, name))).collect()
}

#[test]
fn the_drawing_shows_every_buffer_apart_from_the_others() {
    let folder = Folder::new();
    folder.run(&["plan", "recipe.toml", "--svg", "arena.svg"]).fine();
    let svg = std::fs::read_to_string(folder.path("arena.svg")).expect("written");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    let drawn = rectangles(&svg);
    assert!(drawn.len() >= 20, "{} buffers", drawn.len());
    // Coordinates have two decimals.
    let apart = |a: &[f64; 4], b: &[f64; 4], i: usize| a[i] + a[i + 2] <= b[i] + 0.02 || b[i] + b[i + 2] <= a[i] + 0.02;
    for (i, a) in drawn.iter().enumerate() {
        assert!(a[0] >= 0.0 && a[0] + a[2] <= 1200.0 && a[1] >= 0.0 && a[1] + a[3] <= 640.0, "{a:?}");
        for b in &drawn[..i] {
            assert!(apart(a, b, 0) || apart(a, b, 1), "{a:?} and {b:?} share memory at one time");
        }
    }
    folder.run(&["plan", "recipe.toml", "--svg", "missing/arena.svg"]).refused(3, &["cannot write missing/arena.svg"]);
}
