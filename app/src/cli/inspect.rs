//! `halfbyte inspect MODEL`: prints the tensors of a model folder and the modules that can be adapted.

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::{out, tree::module_tree};
use crate::config::lora::{LoraConfig, Pattern, Targets};
use crate::run::ModelPlace;
use crate::weights::names::{TensorSpec, count, is_quantized, tensors, unmatched_skips};
use crate::weights::safetensors::TensorFiles;
use crate::weights::targets::{Resolution, resolve};
use halfbyte_core::error::Result;
use halfbyte_core::model::ModelConfig;
use halfbyte_core::model::{Linear, linears};

/// Arguments of `halfbyte inspect`.
#[derive(ClapArgs, Debug)]
pub struct InspectArgs {
    /// Model folder (weights are optional), hub id (weights are not downloaded), or name of an architecture such as
    /// mistral-7b-v0.1
    pub model: String,
    /// Print the module tree in PyTorch's format
    #[arg(long)]
    pub tree: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "tree")]
    pub json: bool,
    /// Show the model as loaded in 4 bits
    #[arg(long)]
    pub load_in_4bit: bool,
    /// Modules that 4-bit loading leaves in 16 bits
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub llm_int8_skip_modules: Vec<String>,
    /// Which modules to adapt: names, "all-linear", or a regular expression
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub target_modules: Vec<String>,
    /// Rank of the adapter
    #[arg(long, default_value_t = 8)]
    pub r: usize,
}

/// Runs the command.
pub fn run(args: &InspectArgs) -> Result<()> {
    let found = Findings::collect(args)?;
    out(&match (args.tree, args.json) {
        (true, _) => module_tree(&found.config, found.skip.as_deref()),
        (_, true) => format!("{:#}\n", found.json()),
        _ => found.text(),
    });
    Ok(())
}

struct Findings {
    model: String,
    config: ModelConfig,
    /// The skip list of a 4-bit model; None if the model is not quantized.
    skip: Option<Vec<String>>,
    /// None if the folder has no weights.
    weights: Option<TensorFiles>,
    adapter: Resolution,
}

impl Findings {
    fn collect(args: &InspectArgs) -> Result<Self> {
        let place = ModelPlace::shape(&args.model)?;
        let (config, weights) = (place.config.clone(), place.local_checkpoint()?);
        let skip = match &config.quantization {
            Some(stored) => Some(stored.skip_modules.clone()),
            None => args.load_in_4bit.then(|| args.llm_int8_skip_modules.clone()),
        };
        let targets = match args.target_modules.as_slice() {
            [] => Targets::Default,
            [all] if all == "all-linear" => Targets::AllLinear,
            // A module name has no special character of regular expressions.
            [one] if one.contains(['*', '[', '(', '\\', '$', '|', '^']) => {
                Targets::Matching(Pattern::Regex(one.clone()))
            }
            names => Targets::Matching(Pattern::Names(names.to_vec())),
        };
        let adapter = resolve(&LoraConfig { r: args.r, targets, ..LoraConfig::default() }, &config)?;
        Ok(Self { model: args.model.clone(), config, skip, weights, adapter })
    }

    fn is_quantized(&self, module: &Linear) -> bool {
        self.skip.as_ref().is_some_and(|skip| is_quantized(module, skip))
    }

    fn stored_as(&self, name: &str) -> Option<&'static str> {
        Some(self.weights.as_ref()?.get(name)?.dtype.torch_name())
    }

    fn text(&self) -> String {
        let counts = count(&self.config, self.skip.as_deref());
        let trainable = self.adapter.parameters();
        let mut text = format!("{}\n  {}\n\n", self.model, self.config);
        text += &match &self.weights {
            Some(weights) => format!("weights: {} tensors, as config.json says\n", weights.names().count()),
            None => "weights: not here\n".to_string(),
        };
        let rows: Vec<(String, TensorSpec)> = folded(tensors(&self.config));
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, slot) in &rows {
            let stored = self.stored_as(&slot.name).unwrap_or_default();
            text += format!("  {name:width$}  {:<15}  {stored}", format!("{:?}", slot.shape)).trim_end();
            text.push('\n');
        }
        text += "\nlinear modules (names for target_modules)\n";
        let mut seen: Vec<&str> = Vec::new();
        let all = linears(&self.config);
        for module in &all {
            if !seen.contains(&module.leaf) {
                seen.push(module.leaf);
                let same = all.iter().filter(|m| m.leaf == module.leaf).count();
                let adapted = self.adapter.modules.iter().filter(|m| m.module.leaf == module.leaf).count();
                let bits = if self.is_quantized(module) { "4-bit " } else { "16-bit" };
                let shape = format!("{} -> {}", module.in_features, module.out_features);
                let mark = if adapted > 0 { format!("  adapted: {adapted}") } else { String::new() };
                text += format!("  {:<10} {same:>5} x  {shape:<16} {bits}{mark}", module.leaf).trim_end();
                text.push('\n');
            }
        }
        for (name, near) in &self.adapter.unmatched {
            let near = near.first().map(|n| format!(" (perhaps {n}?)")).unwrap_or_default();
            text += &format!("  `{name}` matches no module{near}\n");
        }
        for name in unmatched_skips(&self.config, self.skip.as_deref().unwrap_or_default()) {
            text += &format!("  `{name}` in llm_int8_skip_modules matches no module\n");
        }
        text += &format!("\nparameters: {}\n", counts.parameters);
        if self.skip.is_some() {
            text += &format!("as transformers counts 4-bit weights: {}\n", counts.packed);
        }
        text += &format!("adapter of rank {}: {}\n", self.adapter.modules[0].r, counts.line(trainable));
        if self.skip.is_some() {
            text += &format!("as the tutorials count: {}\n", counts.packed_line(trainable));
        }
        text
    }

    fn json(&self) -> Value {
        let counts = count(&self.config, self.skip.as_deref());
        let tensors: Vec<Value> = tensors(&self.config)
            .iter()
            .map(|slot| json!({"name": slot.name, "shape": slot.shape, "dtype": self.stored_as(&slot.name)}))
            .collect();
        let linears: Vec<Value> = linears(&self.config)
            .iter()
            .map(|m| {
                json!({"name": m.name, "in_features": m.in_features, "out_features": m.out_features,
                       "quantized": self.is_quantized(m)})
            })
            .collect();
        let adapted: Vec<Value> = self
            .adapter
            .modules
            .iter()
            .map(|m| json!({"name": m.module.name, "r": m.r, "parameters": m.parameters()}))
            .collect();
        let unmatched: Vec<&String> = self.adapter.unmatched.iter().map(|(name, _)| name).collect();
        json!({
            "folder": self.model,
            "model_type": self.config.family.model_type(),
            "parameters": counts.parameters,
            "packed_parameters": counts.packed,
            "trainable_parameters": self.adapter.parameters(),
            "has_weights": self.weights.is_some(),
            "tensors": tensors,
            "linears": linears,
            "adapted": adapted,
            "unmatched_targets": unmatched,
        })
    }
}

/// Lists tensors that differ only in the number of their layer or expert in one row:
/// `model.layers.*.mlp.up_proj.weight`.
fn folded(slots: Vec<TensorSpec>) -> Vec<(String, TensorSpec)> {
    let mut rows: Vec<(String, TensorSpec)> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for slot in slots {
        let parts = slot.name.split('.').map(|part| if part.parse::<usize>().is_ok() { "*" } else { part });
        let name = parts.collect::<Vec<_>>().join(".");
        if known.insert(name.clone()) {
            rows.push((name, slot));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn findings(model: &str, change: impl Fn(&mut InspectArgs)) -> Result<Findings> {
        let mut args = InspectArgs {
            model: Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/architectures").join(model).display().to_string(),
            tree: false,
            json: false,
            load_in_4bit: true,
            llm_int8_skip_modules: Vec::new(),
            target_modules: Vec::new(),
            r: 8,
        };
        change(&mut args);
        Findings::collect(&args)
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn counts_targets_and_misses_are_shown() {
        let usual = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"];
        let found = findings("mixtral-8x7b-v0.1", |args| {
            args.target_modules = names(&usual);
            args.llm_int8_skip_modules = names(&["lm_head", "gates"]);
            args.r = 64;
        });
        let text = found.expect("valid").text();
        for part in [
            "parameters: 46702792704",
            "trainable params: 56836096 || all params: 23539437568 || trainable%: 0.24145052674182907",
            "model.layers.*.block_sparse_moe.experts.*.w1.weight",
            "`gate_proj` matches no module (perhaps w1?)",
            "`gates` in llm_int8_skip_modules matches no module",
            "weights: not here",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn json_names_every_module() {
        let found = findings("llama-2-7b", |args| args.target_modules = names(&["all-linear"])).expect("valid").json();
        assert_eq!(found["adapted"].as_array().map(Vec::len), Some(32 * 7));
        assert_eq!(found["linears"].as_array().map(Vec::len), Some(32 * 7 + 1));
        assert_eq!(found["packed_parameters"], 3500412928u64);
        assert_eq!(found["linears"][0]["quantized"], true);
    }

    #[test]
    fn an_expression_is_told_from_a_name() {
        let matched = |pattern: &str| {
            findings("llama-2-7b", |args| args.target_modules = names(&[pattern])).map(|f| f.adapter.modules.len())
        };
        assert_eq!(matched(r".*\.q_proj").expect("matches"), 32);
        assert_eq!(matched("q_proj").expect("matches"), 32);
        assert!(matched("colour").is_err());
        assert!(findings("nowhere", |_| {}).is_err());
    }
}
