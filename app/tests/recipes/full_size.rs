//! Plans every recipe for its real model, without weights. The memory must be within the budget on the recipe's page,
//! and the line of trainable parameters must equal PEFT's.

use std::path::Path;

use serde_json::Value;

use crate::folder::Folder;
use crate::project::project;
use crate::rig::{json, run};
use crate::walk::{Case, Outcome};

/// Recipe, name of its model in the recorded counts, and memory budget in GiB.
const RECIPES: [(&str, &str, f64); 7] = [
    ("a-mistral-chat", "mistral-7b-v0.1", 12.0),
    ("b-mixtral-instructions", "mixtral-8x7b-v0.1", 80.0),
    ("c-mistral-code", "mistral-7b-v0.1", 14.5),
    ("d-llama-korean", "llama-2-7b", 24.0),
    ("lora-16-bit", "mistral-7b-v0.1", 24.0),
    ("mixtral-experts", "mixtral-8x7b-v0.1", 48.0),
    // A 12 GB card minus the memory of the driver and a desktop.
    ("12-gb-card", "mistral-7b-v0.1", 10.0),
];

/// Milliseconds per step as measured on an H200 (docs/benchmarks/step-h200.md) for each rung of the ladder: NF4 with double
/// quantization, r = 16 on all seven linears, AdamW in f32.
struct Measured {
    model: &'static str,
    rows: usize,
    length: usize,
    rungs: [Option<f64>; 4],
}

const MEASURED: [Measured; 2] = [
    Measured {
        model: "mistral-7b-v0.1",
        rows: 4,
        length: 2048,
        rungs: [Some(484.7), Some(589.8), Some(649.2), Some(650.3)],
    },
    Measured { model: "mistral-7b-v0.1", rows: 1, length: 2048, rungs: [None, None, None, Some(178.7)] },
];

pub fn cases(_: &Path) -> Vec<Case> {
    let mut cases: Vec<Case> =
        RECIPES.iter().map(|&(name, model, budget)| Case::new(name, move || plan(name, model, budget))).collect();
    cases.extend(MEASURED.map(|Measured { model, rows, length, rungs }| {
        Case::new(format!("step times of {model}, {rows} × {length} tokens"), move || {
            step_times(model, rows, length, rungs)
        })
    }));
    cases.push(Case::new("no recipe is forgotten", || {
        let known: Vec<&str> = RECIPES.iter().map(|(name, ..)| *name).collect();
        match crate::pages::recipes().into_iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!("{name} has no budget")),
            None => Ok(format!("{} recipes", known.len())),
        }
    }));
    cases
}

fn plan(name: &str, model: &str, budget: f64) -> Outcome {
    let planned = json(run(&Folder::empty(), "plan", name, &[], &["--dummy-weights", "--json"]));
    let gib = planned["total"].as_f64().ok_or("no total")? / f64::from(1 << 30);
    if gib > budget {
        return Err(format!("{gib:.2} GiB, the budget is {budget} GiB"));
    }
    let said = run(&Folder::empty(), "plan", name, &[], &["--dummy-weights"]).fine().out;
    let recorded = recorded(name, model)?;
    let lines = recorded.map(|lines| lines.iter().all(|line| said.contains(line.as_str())));
    match lines {
        Some(false) => Err(format!("the line of trainable parameters is not PEFT's:\n{said}")),
        Some(true) => Ok(format!("{gib:.2} of {budget} GiB, trainable parameters as PEFT prints them")),
        None => Ok(format!("{gib:.2} of {budget} GiB")),
    }
}

/// The lines that PEFT and the tutorials print for the recipe's adapter, if they were recorded.
fn recorded(name: &str, model: &str) -> Result<Option<[String; 2]>, String> {
    let recipe = halfbyte::config::recipe::Recipe::open(Path::new(&crate::rig::recipe(name)), &[]);
    let recipe = recipe.map_err(|e| e.to_string())?;
    let facts = std::fs::read_to_string(project().join("app/tests/data/golden/facts/parameter_counts.json"));
    let facts: Value = serde_json::from_str(&facts.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let resolved: toml::Table = toml::from_str(&recipe.resolved_toml()).map_err(|e| e.to_string())?;
    let targets = resolved["lora"].get("target_modules").map(|t| serde_json::to_value(t).unwrap_or_default());
    let fits = |fact: &&Value| {
        fact["model"] == model
            && fact["r"] == recipe.lora.r
            && recipe.quantization.is_some()
            && fact["targets"] == targets.clone().unwrap_or_default()
    };
    let fact = facts["lora"].as_array().into_iter().flatten().find(fits);
    let line = |fact: &Value, part: &str| fact[part]["line"].as_str().unwrap_or("?").to_string();
    let found = fact.map(|f| [line(f, "peft_print_trainable_parameters"), line(f, "tutorial_style")]);
    // The lines of all other recipes were recorded.
    if found.is_none() && !["lora-16-bit", "12-gb-card"].contains(&name) {
        return Err("nothing was recorded for this adapter".into());
    }
    Ok(found)
}

/// Checks that the predicted time of a step on each rung is within five percent of the measured one.
fn step_times(model: &str, rows: usize, length: usize, measured: [Option<f64>; 4]) -> Outcome {
    let place = format!("model_name_or_path={model}");
    let (rows, length) = (format!("per_device_train_batch_size={rows}"), format!("max_seq_length={length}"));
    let settings = [&*place, &rows, &length, "gradient_accumulation_steps=1", "optim=adamw_torch", "lora_dropout=0"];
    let planned = json(run(&Folder::empty(), "plan", "12-gb-card", &settings, &["--dummy-weights", "--json"]));
    let mut said = Vec::new();
    for (rung, measured) in planned["ladder"].as_array().ok_or("no ladder")?.iter().zip(measured) {
        let Some(measured) = measured else { continue };
        let predicted = rung["step_seconds"].as_f64().ok_or("no time")? * 1e3;
        said.push(format!("{}: {predicted:.0} ms predicted, {measured} ms measured", rung["policy"]));
        if (predicted / measured - 1.0).abs() > 0.05 {
            return Err(said.join("; "));
        }
    }
    Ok(said.join("; "))
}
