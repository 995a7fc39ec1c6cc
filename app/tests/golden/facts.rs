//! `facts/`: parameter counts of models at their real sizes, as transformers and PEFT print them.

use std::collections::BTreeMap;
use std::path::Path;

use halfbyte::config::known::known;
use halfbyte::config::lora::{LoraConfig, Pattern, Targets};
use halfbyte::weights::adapter::read_config;
use halfbyte::weights::names;
use halfbyte::weights::targets::{AdapterModule, resolve};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::model::{HEAD, linears};
use serde_json::{Value, json};

use crate::tensors::json as json_file;
use crate::walk::{Case, Outcome};

pub fn cases(root: &Path) -> Vec<Case> {
    let mut cases = counts(root);
    let recorded = json_file(&root.join("facts/tiny_adapter_keys.json")).unwrap_or_default();
    for (trace, tensors) in recorded.as_object().into_iter().flatten() {
        let (root, trace, tensors) = (root.to_path_buf(), trace.clone(), tensors.clone());
        cases.push(Case::new(format!("tensors of {trace}"), move || adapter_tensors(&root, &trace, &tensors)));
    }
    cases
}

/// Compares the names and shapes of an adapter's tensors with those of its configuration's modules.
fn adapter_tensors(root: &Path, trace: &str, recorded: &Value) -> Outcome {
    let folder = root.join("train").join(trace);
    let spec = json_file(&folder.join("trace.json"))?["spec"].clone();
    let model = root.join("models").join(spec["model"].as_str().ok_or("trace.json: no model")?);
    let config = halfbyte::config::config_json::open(&model).map_err(|e| e.to_string())?;
    let (lora, _) = read_config(&folder.join("adapter_final")).map_err(|e| e.to_string())?;
    let modules = resolve(&lora, &config).map_err(|e| e.to_string())?.modules;
    let mut ours = keys(&modules.iter().collect::<Vec<_>>());
    if modules.iter().any(|m| m.module.name == HEAD) {
        ours[format!("base_model.model.{HEAD}.base_layer.weight")] = json!([config.vocab_size, config.hidden_size]);
    }
    let shapes: BTreeMap<&String, &Value> =
        recorded.as_object().into_iter().flatten().map(|(name, tensor)| (name, &tensor["shape"])).collect();
    equal("tensors", sorted(&ours), &json!(shapes))?;
    Ok(format!("{} tensors", shapes.len()))
}

/// Parameter counts.
fn counts(root: &Path) -> Vec<Case> {
    let Ok(text) = std::fs::read_to_string(root.join("facts/parameter_counts.json")) else { return Vec::new() };
    let facts: Value = match serde_json::from_str(&text) {
        Ok(facts) => facts,
        Err(e) => return vec![Case::new("parameter_counts", move || Err(e.to_string()))],
    };
    let mut cases = Vec::new();
    for (model, counts) in facts["base"].as_object().into_iter().flatten() {
        let (model, counts) = (model.clone(), counts.clone());
        cases.push(Case::new(format!("base {model}"), move || base(&model, &counts)));
    }
    for entry in facts["lora"].as_array().into_iter().flatten() {
        let entry = entry.clone();
        let name = format!("lora {} r={} {}", entry["model"].as_str().unwrap_or("?"), entry["r"], entry["targets"]);
        cases.push(Case::new(name.replace('"', ""), move || lora(&entry)));
    }
    cases
}

fn config(model: &str) -> Result<ModelConfig, String> {
    known(model).map(|(_, config)| config).map_err(|e| e.to_string())
}

fn equal(what: &str, ours: impl Into<Value>, recorded: &Value) -> Result<(), String> {
    let ours = ours.into();
    if &ours == recorded { Ok(()) } else { Err(format!("{what}: {ours}, recorded {recorded}")) }
}

fn base(model: &str, recorded: &Value) -> Outcome {
    let config = config(model)?;
    let counts = names::count(&config, Some(&[]));
    equal("true parameters", counts.parameters, &recorded["true_parameters"])?;
    equal("packed parameters", counts.packed, &recorded["packed_parameters"])?;
    let mut leaves: BTreeMap<&str, u64> = BTreeMap::new();
    for module in linears(&config).iter().filter(|m| names::is_quantized(m, &[])) {
        *leaves.entry(module.leaf).or_default() += 1;
    }
    equal("quantized linears", json!(leaves), &sorted(&recorded["quantized_linears"]))?;
    Ok(format!("{} ({} packed)", counts.parameters, counts.packed))
}

/// The object with sorted keys, for comparison with a map.
fn sorted(object: &Value) -> Value {
    let entries: BTreeMap<&String, &Value> = object.as_object().into_iter().flatten().collect();
    json!(entries)
}

fn lora(recorded: &Value) -> Outcome {
    let config = config(recorded["model"].as_str().unwrap_or("?"))?;
    let targets = match &recorded["targets"] {
        Value::Null => Targets::Default,
        Value::String(_) => Targets::AllLinear,
        list => Targets::Matching(Pattern::Names(serde_json::from_value(list.clone()).map_err(|e| e.to_string())?)),
    };
    let r = recorded["r"].as_u64().ok_or("no r")? as usize;
    let found = resolve(&LoraConfig { r, targets, ..LoraConfig::default() }, &config).map_err(|e| e.to_string())?;
    let mut matched: BTreeMap<&str, u64> = BTreeMap::new();
    for m in &found.modules {
        *matched.entry(m.module.leaf).or_default() += 1;
    }
    equal("modules matched", json!(matched), &sorted(&recorded["modules_matched"]))?;
    let (trainable, base) = (found.parameters(), names::count(&config, Some(&[])));
    let tutorial = &recorded["tutorial_style"];
    equal("trainable", trainable, &tutorial["trainable params"])?;
    equal("all, packed", base.packed + trainable, &tutorial["all params"])?;
    equal("the tutorials' line", base.packed_line(trainable), &tutorial["line"])?;
    equal("PEFT's line", base.line(trainable), &recorded["peft_print_trainable_parameters"]["line"])?;
    let file = &recorded["adapter_file"];
    let head = found.modules.iter().any(|m| m.module.name == HEAD);
    equal("tensors", found.modules.len() * 2 + usize::from(head), &file["tensors"])?;
    let first_layer: Vec<&AdapterModule> = found.modules.iter().filter(|m| m.module.layer == Some(0)).collect();
    equal("keys of layer 0", keys(&first_layer), &sorted(&file["keys_layer0"]))?;
    Ok(format!("{trainable} of {}", base.packed + trainable))
}

/// The tensor names of an adapter file with their shapes.
fn keys(modules: &[&AdapterModule]) -> Value {
    let mut keys = BTreeMap::new();
    for AdapterModule { module, r, .. } in modules {
        keys.insert(format!("base_model.model.{}.lora_A.weight", module.name), [*r, module.in_features]);
        keys.insert(format!("base_model.model.{}.lora_B.weight", module.name), [module.out_features, *r]);
    }
    json!(keys)
}
