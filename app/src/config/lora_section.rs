//! The `[lora]` section of a recipe.

use toml::{Table, Value};

use super::keys::{Section, of_section};
use super::lora::{LayersPattern, LoraConfig, Pattern, Targets};
use super::raw::Raw;
use halfbyte_core::error::Result;

/// Reads the section; `start` is an adapter to train further. Errors if a value is out of range, or if the section has
/// keys although `start` has its own configuration.
pub(super) fn read(raw: &Raw, start: Option<&str>) -> Result<LoraConfig> {
    let mut keys = of_section(Section::Lora).map(|(key, _)| key);
    if let (Some(start), Some(key)) = (start, keys.find(|key| raw.has(key))) {
        return Err(raw
            .wrong(key, format!("the adapter {start} has its own configuration"))
            .hint("remove the keys of [lora], or adapter_name_or_path"));
    }
    let defaults = LoraConfig::default();
    let config = LoraConfig {
        r: raw.count("r", 0).unwrap_or(defaults.r),
        alpha: raw.number("lora_alpha").unwrap_or(defaults.alpha),
        dropout: raw.number("lora_dropout").unwrap_or(defaults.dropout),
        rslora: raw.flag("use_rslora").unwrap_or(defaults.rslora),
        targets: match pattern(raw, "target_modules") {
            None => Targets::Default,
            // PEFT's name and LLaMA-Factory's. No module is called "all".
            Some(Pattern::Regex(all)) if ["all-linear", "all"].contains(&all.to_lowercase().as_str()) => {
                Targets::AllLinear
            }
            Some(pattern) => Targets::Matching(pattern),
        },
        exclude: pattern(raw, "exclude_modules"),
        layers: raw.counts("layers_to_transform").filter(|list| !list.is_empty()),
        layers_pattern: match raw.value("layers_pattern") {
            Some(Value::String(name)) => LayersPattern::Name(name.clone()),
            _ => LayersPattern::Names(raw.texts("layers_pattern").unwrap_or_default()),
        },
        rank_pattern: rank_pattern(raw),
        alpha_pattern: raw.numbers("alpha_pattern").unwrap_or_default(),
    };
    config.check().map_err(|error| raw.located(error))?;
    Ok(config)
}

/// A text (a regular expression) or a list of names. A text such as "q_proj,v_proj" is read as a list: module names
/// have no commas, so as an expression it would match nothing.
fn pattern(raw: &Raw, key: &str) -> Option<Pattern> {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
    match raw.value(key) {
        Some(Value::String(text)) => {
            let names: Vec<&str> = text.split(',').map(str::trim).collect();
            Some(match names.len() > 1 && names.iter().all(|name| is_name(name)) {
                true => Pattern::Names(names.into_iter().map(String::from).collect()),
                false => Pattern::Regex(text.clone()),
            })
        }
        _ => raw.texts(key).filter(|names| !names.is_empty()).map(Pattern::Names),
    }
}

fn layers_pattern(pattern: &LayersPattern) -> Option<Value> {
    match pattern {
        LayersPattern::Name(name) => Some(name.clone().into()),
        LayersPattern::Names(names) => (!names.is_empty()).then(|| names.clone().into()),
    }
}

fn rank_pattern(raw: &Raw) -> Vec<(String, usize)> {
    let ranks = raw.numbers("rank_pattern").unwrap_or_default();
    if ranks.iter().any(|(_, r)| r.fract() != 0.0 || !(0.0..1e9).contains(r)) {
        raw.report(raw.wrong("rank_pattern", "expected whole numbers"));
    }
    ranks.into_iter().map(|(pattern, r)| (pattern, r as usize)).collect()
}

/// Keys and values of the resolved recipe; None for a key without a value.
pub(super) fn entries(lora: &LoraConfig) -> Vec<(&'static str, Option<Value>)> {
    let pattern = |p: &Pattern| match p {
        Pattern::Names(names) => Value::from(names.clone()),
        Pattern::Regex(regex) => regex.clone().into(),
    };
    let table = |entries: Vec<(String, Value)>| {
        (!entries.is_empty()).then(|| Value::Table(entries.into_iter().collect::<Table>()))
    };
    let ranks = lora.rank_pattern.iter().map(|(k, r)| (k.clone(), Value::from(*r as i64))).collect();
    let alphas = lora.alpha_pattern.iter().map(|(k, a)| (k.clone(), Value::from(*a))).collect();
    let targets = match &lora.targets {
        Targets::Default => None,
        Targets::AllLinear => Some("all-linear".into()),
        Targets::Matching(p) => Some(pattern(p)),
    };
    vec![
        ("r", Some(Value::from(lora.r as i64))),
        ("lora_alpha", Some(lora.alpha.into())),
        ("lora_dropout", Some(lora.dropout.into())),
        ("use_rslora", Some(lora.rslora.into())),
        ("target_modules", targets),
        ("exclude_modules", lora.exclude.as_ref().map(pattern)),
        ("layers_to_transform", lora.layers.as_ref().map(|l| l.iter().map(|n| *n as i64).collect::<Vec<_>>().into())),
        ("layers_pattern", layers_pattern(&lora.layers_pattern)),
        ("rank_pattern", table(ranks)),
        ("alpha_pattern", table(alphas)),
    ]
}
