//! Every recipe at the size of its real model, without weights: the memory that `plan` shows is within the budget of
//! the recipe's page, and the line of trainable parameters is PEFT's.

use std::path::Path;

use serde_json::Value;

use crate::folder::Folder;
use crate::rig::{json, project, run};
use crate::walk::{Case, Outcome};

/// A recipe, the config of its model in tests/data/configs, and GiB that it must fit into.
const RECIPES: [(&str, &str, f64); 7] = [
    ("a-mistral-chat", "mistral-7b-v0.1", 12.0),
    ("b-mixtral-instructions", "mixtral-8x7b-v0.1", 80.0),
    ("c-mistral-code", "mistral-7b-v0.1", 14.5),
    ("d-llama-korean", "llama-2-7b", 24.0),
    ("lora-16-bit", "mistral-7b-v0.1", 24.0),
    ("mixtral-experts", "mixtral-8x7b-v0.1", 48.0),
    // What is left of 12 GB when the driver and a desktop have taken theirs.
    ("12-gb-card", "mistral-7b-v0.1", 10.0),
];

pub fn cases(_: &Path) -> Vec<Case> {
    let mut cases: Vec<Case> =
        RECIPES.iter().map(|&(name, model, budget)| Case::new(name, move || plan(name, model, budget))).collect();
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
    let folder = project().join("tests/data/configs").join(model);
    let place = format!("model_name_or_path={}", folder.display());
    let planned = json(run(&Folder::empty(), "plan", name, &[&place], &["--json"]));
    let gib = planned["total"].as_f64().ok_or("no total")? / f64::from(1 << 30);
    if gib > budget {
        return Err(format!("{gib:.2} GiB, the budget is {budget} GiB"));
    }
    let said = run(&Folder::empty(), "plan", name, &[&place], &[]).fine().out;
    let recorded = recorded(name, model)?;
    let lines = recorded.map(|lines| lines.iter().all(|line| said.contains(line.as_str())));
    match lines {
        Some(false) => Err(format!("the line of trainable parameters is not PEFT's:\n{said}")),
        Some(true) => Ok(format!("{gib:.2} of {budget} GiB, trainable parameters as PEFT prints them")),
        None => Ok(format!("{gib:.2} of {budget} GiB")),
    }
}

/// The lines that PEFT and the tutorials print for the recipe's adapter, where they were recorded.
fn recorded(name: &str, model: &str) -> Result<Option<[String; 2]>, String> {
    let recipe = halfbyte::config::recipe::Recipe::open(Path::new(&crate::rig::recipe(name)), &[]);
    let recipe = recipe.map_err(|e| e.to_string())?;
    let facts = std::fs::read_to_string(project().join("tests/data/golden/facts/parameter_counts.json"));
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
    // The tutorials' four were all recorded, and the one with experts.
    if found.is_none() && !["lora-16-bit", "12-gb-card"].contains(&name) {
        return Err("nothing was recorded for this adapter".into());
    }
    Ok(found)
}
