//! Finds the modules that a LoRA configuration adapts. The rules are PEFT 0.18's (`check_target_module_exists`,
//! `_maybe_include_all_linear_layers`, `get_pattern_key` in `peft/tuners`).

use regex::Regex;

use crate::config::lora::{LoraConfig, Pattern, Targets};
use crate::suggest::nearest;
use crate::weights::names::other_modules;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::{Architecture, ModelConfig};
use halfbyte_core::model::{EMBEDDING, HEAD, Linear, MlpNames, linears};

/// PEFT's default for `target_modules`, the same for all families except Qwen3-MoE, which has none.
const DEFAULT: [&str; 2] = ["q_proj", "v_proj"];

/// An adapted linear module with its rank and scale.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterModule {
    /// Name and shape of the linear module.
    pub module: Linear,
    /// Rank of the adapter.
    pub r: usize,
    /// `lora_alpha` of this module.
    pub alpha: f64,
    /// Factor of the adapter's output: alpha / r, or alpha / √r with `use_rslora`.
    pub scale: f64,
}

impl AdapterModule {
    /// Number of elements of A `[r, in_features]` and B `[out_features, r]`.
    pub fn parameters(&self) -> usize {
        self.r * (self.module.in_features + self.module.out_features)
    }
}

/// The result of [`resolve`].
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// The adapted modules, in the order of the module tree; at least one.
    pub modules: Vec<AdapterModule>,
    /// Names in `target_modules` that match nothing, each with suggestions. PEFT ignores such names silently.
    pub unmatched: Vec<(String, Vec<String>)>,
}

impl Resolution {
    /// Number of trainable parameters.
    pub fn parameters(&self) -> u64 {
        self.modules.iter().map(|m| m.parameters() as u64).sum()
    }
}

/// Finds the modules of `model` that `lora` adapts. An error if there is none or if a pattern is invalid.
pub fn resolve(lora: &LoraConfig, model: &ModelConfig) -> Result<Resolution> {
    lora.check()?;
    let all = linears(model);
    let targets = match &lora.targets {
        Targets::Default if model.family == Architecture::Qwen3Moe => {
            return Err(Error::usage("`target_modules` is missing, and PEFT has no default for qwen3_moe models")
                .hint(format!("name them: {}", leaves(&all).join(", "))));
        }
        Targets::Default => Pattern::Names(DEFAULT.map(String::from).to_vec()),
        Targets::AllLinear => {
            Pattern::Names(leaves(&all).into_iter().filter(|l| *l != HEAD).map(String::from).collect())
        }
        Targets::Matching(pattern) => pattern.clone(),
    };
    let (targets, exclude) = (PatternMatcher::new("target_modules", &targets)?, lora.exclude.as_ref());
    let exclude = exclude.map(|pattern| PatternMatcher::new("exclude_modules", pattern)).transpose()?;
    if targets.matches(EMBEDDING) {
        return Err(Error::usage(format!(
            "`target_modules` matches {EMBEDDING}: adapters on embeddings are not supported"
        ))
        .hint(format!("adapt linear modules: {}", leaves(&all).join(", "))));
    }
    let layers = LayerFilter::new(lora)?;
    let (ranks, alphas) =
        (Overrides::new("rank_pattern", &lora.rank_pattern)?, Overrides::new("alpha_pattern", &lora.alpha_pattern)?);
    let chosen = |name: &str| {
        let excluded = exclude.as_ref().is_some_and(|e| e.matches(name));
        // PEFT adapts a module that is named in full even if `layers_to_transform` leaves out its layer.
        targets.matches(name) && !excluded && (targets.names(name) || layers.contains(name))
    };
    if let Some(other) = other_modules(model).into_iter().find(|name| chosen(name)) {
        let what =
            format!("`target_modules` matches {other}, which is not a linear module: PEFT refuses such an adapter");
        let hint = format!(
            "match only linear modules: {}; or leave others out with `exclude_modules`",
            leaves(&all).join(", ")
        );
        return Err(Error::usage(what).hint(hint));
    }
    let modules: Vec<AdapterModule> = all
        .iter()
        .filter(|m| chosen(&m.name))
        .map(|module| {
            let r = ranks.find(&module.name).unwrap_or(lora.r);
            let alpha = alphas.find(&module.name).unwrap_or(lora.alpha);
            let scale = if lora.rslora { alpha / (r as f64).sqrt() } else { alpha / r as f64 };
            AdapterModule { module: module.clone(), r, alpha, scale }
        })
        .collect();
    if modules.is_empty() {
        return Err(none_matched(lora, model.family, &all));
    }
    let unmatched = match &targets {
        PatternMatcher::Regex(_) => Vec::new(),
        PatternMatcher::Names(names) => {
            let missed = names.iter().filter(|name| !all.iter().any(|m| is_suffix(name, &m.name)));
            missed.map(|name| (name.clone(), suggestions(name, model.family, &all))).collect()
        }
    };
    Ok(Resolution { modules, unmatched })
}

fn none_matched(lora: &LoraConfig, family: Architecture, all: &[Linear]) -> Error {
    let choices = leaves(all).join(", ");
    match &lora.targets {
        Targets::Matching(Pattern::Regex(regex)) => {
            let error =
                Error::usage(format!("`target_modules` = \"{regex}\" matches the whole name of no linear module"));
            error.hint(format!(
                "a whole name is for example {}; to match by last part, write [\"{regex}\"] (one of {choices})",
                all[0].name
            ))
        }
        Targets::Matching(Pattern::Names(names)) => {
            let wrong: Vec<String> = names
                .iter()
                .map(|name| match suggestions(name, family, all).first() {
                    Some(near) => format!("{name} (perhaps {near}?)"),
                    None => name.clone(),
                })
                .collect();
            Error::usage(format!("`target_modules` adapts no module: {}", wrong.join(", ")))
                .hint(format!("the linear modules of this {} model are {choices}", family.model_type()))
        }
        _ => Error::usage("no module is adapted").hint("check `layers_to_transform` and `exclude_modules`"),
    }
}

/// The last parts of the module names, without repetition, in the order of the module tree.
fn leaves(all: &[Linear]) -> Vec<&'static str> {
    let mut leaves = Vec::new();
    for module in all {
        if !leaves.contains(&module.leaf) {
            leaves.push(module.leaf);
        }
    }
    leaves
}

/// Suggests a module for the unmatched `name`: the one with the same role in this architecture, else the one with the
/// most similar name.
fn suggestions(name: &str, family: Architecture, all: &[Linear]) -> Vec<String> {
    let leaf = name.rsplit('.').next().unwrap_or(name);
    let names = |family| {
        let MlpNames { gate_up: [gate, up], down, .. } = MlpNames::of(family);
        [gate, up, down]
    };
    let known = [Architecture::Llama, Architecture::Mixtral].map(names);
    let role = known.iter().find_map(|names| names.iter().position(|name| *name == leaf));
    let same = role.map(|role| names(family)[role]).filter(|name| *name != leaf);
    let near = same.or_else(|| nearest(leaf, leaves(all)));
    near.map(String::from).into_iter().collect()
}

/// Whether `name` equals `suffix` or ends with `.suffix`.
fn is_suffix(suffix: &str, name: &str) -> bool {
    name == suffix || name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
}

/// A compiled [`Pattern`].
enum PatternMatcher {
    Names(Vec<String>),
    Regex(Regex),
}

impl PatternMatcher {
    fn new(key: &str, pattern: &Pattern) -> Result<Self> {
        Ok(match pattern {
            Pattern::Names(names) => Self::Names(names.clone()),
            Pattern::Regex(regex) => Self::Regex(compile(key, regex, &format!("^(?:{regex})$"))?),
        })
    }
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|suffix| is_suffix(suffix, name)),
            Self::Regex(regex) => regex.is_match(name),
        }
    }
    /// Whether the list contains the whole `name`.
    fn names(&self, name: &str) -> bool {
        matches!(self, Self::Names(names) if names.iter().any(|n| n == name))
    }
}

fn compile(key: &str, given: &str, regex: &str) -> Result<Regex> {
    Regex::new(regex).map_err(|e| {
        let reason = e.to_string().lines().last().unwrap_or_default().trim().to_string();
        Error::usage(format!("`{key}`: \"{given}\" is not a regular expression that halfbyte can use: {reason}"))
            .hint("look-around and back-references are not supported; a list of names always works")
    })
}

/// The layers that `layers_to_transform` and `layers_pattern` allow.
enum LayerFilter {
    All,
    /// Patterns whose first group is the layer's number, and the allowed layers. The first pattern that matches
    /// decides.
    Only(Vec<Regex>, Vec<usize>),
}

impl LayerFilter {
    fn new(lora: &LoraConfig) -> Result<Self> {
        let layers = match &lora.layers {
            Some(layers) if !layers.is_empty() => layers.clone(),
            _ => return Ok(Self::All),
        };
        let names = lora.layers_pattern.names();
        let patterns = if names.is_empty() { vec!["[^.]*".into()] } else { names.to_vec() };
        let regex = |p: &String| compile("layers_pattern", p, &format!(r"^.*\.{p}\.(\d+)\."));
        Ok(Self::Only(patterns.iter().map(regex).collect::<Result<_>>()?, layers))
    }
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(patterns, layers) => {
                // As in PEFT, the last number in the name counts. In the name of an expert's matrix that is the
                // expert's number, unless `layers_pattern` is "layers".
                let captures = patterns.iter().find_map(|p| p.captures(name));
                let layer = captures.and_then(|c| c.get(1)?.as_str().parse::<usize>().ok());
                layer.is_some_and(|layer| layers.contains(&layer))
            }
        }
    }
}

/// `rank_pattern` or `alpha_pattern`: the first expression that matches the end of a module's name decides.
struct Overrides<T>(Vec<(Regex, T)>);

impl<T: Copy> Overrides<T> {
    fn new(key: &str, patterns: &[(String, T)]) -> Result<Self> {
        let one = |(p, value): &(String, T)| Ok((compile(key, p, &format!(r"^(?:.*\.)?(?:{p})$"))?, *value));
        Ok(Self(patterns.iter().map(one).collect::<Result<_>>()?))
    }
    fn find(&self, name: &str) -> Option<T> {
        self.0.iter().find(|(regex, _)| regex.is_match(name)).map(|(_, value)| *value)
    }
}

#[cfg(test)]
#[path = "targets_tests.rs"]
mod tests;
