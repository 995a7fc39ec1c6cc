//! Adapter folders in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::fields::JsonFields;
use crate::config::lora::{LayersPattern, LoraConfig, Pattern, Targets};
use crate::disk::write::{create_folder, remove, write_text};
use crate::suggest::nearest;
use crate::weights::safetensors::{Output, Tensor, TensorFiles, write};
use crate::weights::targets::{AdapterModule, resolve};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::HEAD;
use halfbyte_core::model::ModelConfig;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// The two matrices of one adapted module, in f32: y += scale · (x · Aᵀ) · Bᵀ.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraWeights {
    /// `lora_A`, `[r, in_features]`.
    pub a: Vec<f32>,
    /// `lora_B`, `[out_features, r]`.
    pub b: Vec<f32>,
}

/// An adapter: its configuration and the matrices of every adapted module.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Ranks, scales and target modules.
    pub config: LoraConfig,
    /// The base model as adapter_config.json names it (`base_model_name_or_path`).
    pub base_model: Option<String>,
    /// The adapted modules, in the order of the module tree.
    pub modules: Vec<AdapterModule>,
    /// The matrices of `modules`, in the same order.
    pub weights: Vec<LoraWeights>,
    /// The base weight of the head, `[vocab_size, hidden_size]`, which PEFT stores if the head is adapted.
    pub head: Option<Vec<f32>>,
}

/// How halfbyte treats a field of adapter_config.json.
enum AdapterFieldRule {
    /// Read into [`LoraConfig`].
    Read,
    /// Ignored: it does not change what the adapter computes.
    NoEffect,
    /// Refused unless it is null or one of these values.
    Only(fn() -> Vec<Value>),
}

/// The fields that PEFT 0.18 writes, in its order.
const FIELDS: &[(&str, AdapterFieldRule)] = &[
    ("alora_invocation_tokens", AdapterFieldRule::Only(Vec::new)),
    ("alpha_pattern", AdapterFieldRule::Read),
    ("arrow_config", AdapterFieldRule::Only(Vec::new)),
    ("auto_mapping", AdapterFieldRule::NoEffect),
    ("base_model_name_or_path", AdapterFieldRule::Read),
    ("bias", AdapterFieldRule::Only(|| vec![json!("none")])),
    ("corda_config", AdapterFieldRule::Only(Vec::new)),
    ("ensure_weight_tying", AdapterFieldRule::Only(|| vec![json!(false)])),
    ("eva_config", AdapterFieldRule::NoEffect),
    ("exclude_modules", AdapterFieldRule::Read),
    ("fan_in_fan_out", AdapterFieldRule::Only(|| vec![json!(false)])),
    ("inference_mode", AdapterFieldRule::NoEffect),
    // The other initializations (PiSSA, LoftQ, …) change the base weights, too.
    ("init_lora_weights", AdapterFieldRule::Only(|| vec![json!(true), json!(false), json!("gaussian"), json!("eva")])),
    ("layer_replication", AdapterFieldRule::Only(Vec::new)),
    ("layers_pattern", AdapterFieldRule::Read),
    ("layers_to_transform", AdapterFieldRule::Read),
    ("loftq_config", AdapterFieldRule::Only(|| vec![json!({})])),
    ("lora_alpha", AdapterFieldRule::Read),
    ("lora_bias", AdapterFieldRule::Only(|| vec![json!(false)])),
    ("lora_dropout", AdapterFieldRule::Read),
    ("megatron_config", AdapterFieldRule::Only(Vec::new)),
    ("megatron_core", AdapterFieldRule::NoEffect),
    ("modules_to_save", AdapterFieldRule::Only(|| vec![json!([])])),
    ("peft_type", AdapterFieldRule::Only(|| vec![json!("LORA")])),
    ("peft_version", AdapterFieldRule::NoEffect),
    ("qalora_group_size", AdapterFieldRule::NoEffect),
    ("r", AdapterFieldRule::Read),
    ("rank_pattern", AdapterFieldRule::Read),
    ("revision", AdapterFieldRule::NoEffect),
    ("runtime_config", AdapterFieldRule::NoEffect),
    ("target_modules", AdapterFieldRule::Read),
    ("target_parameters", AdapterFieldRule::Only(|| vec![json!([])])),
    ("task_type", AdapterFieldRule::Only(|| vec![json!("CAUSAL_LM")])),
    ("trainable_token_indices", AdapterFieldRule::Only(|| vec![json!([]), json!({})])),
    ("use_dora", AdapterFieldRule::Only(|| vec![json!(false)])),
    ("use_qalora", AdapterFieldRule::Only(|| vec![json!(false)])),
    ("use_rslora", AdapterFieldRule::Read),
];

/// Reads `adapter_config.json` of `folder`: the configuration and the name of the base model.
pub fn read_config(folder: &Path) -> Result<(LoraConfig, Option<String>)> {
    let file = folder.join(CONFIG);
    if !file.is_file() {
        return Err(Error::input(format!("{}: there is no {CONFIG}", folder.display()))
            .hint("name the folder of a PEFT adapter (adapter_config.json, adapter_model.safetensors)"));
    }
    let f = JsonFields::open(&file)?;
    refuse_unknown(&f)?;
    let defaults = LoraConfig::default();
    let layers = f.token_ids("layers_to_transform")?;
    let config = LoraConfig {
        r: f.get("r")
            .map_or(Some(defaults.r as u64), Value::as_u64)
            .ok_or_else(|| f.wrong("r", "expected a whole number"))? as usize,
        alpha: f.number("lora_alpha")?.unwrap_or(defaults.alpha),
        dropout: f.number("lora_dropout")?.unwrap_or(0.0),
        rslora: f.flag("use_rslora")?.unwrap_or(false),
        targets: match pattern(&f, "target_modules")? {
            None => Targets::Default,
            Some(Pattern::Regex(all)) if all.eq_ignore_ascii_case("all-linear") => Targets::AllLinear,
            Some(pattern) => Targets::Matching(pattern),
        },
        exclude: pattern(&f, "exclude_modules")?,
        layers: (!layers.is_empty()).then(|| layers.into_iter().map(|l| l as usize).collect()),
        layers_pattern: match pattern(&f, "layers_pattern")? {
            None => LayersPattern::Names(Vec::new()),
            Some(Pattern::Names(names)) => LayersPattern::Names(names),
            Some(Pattern::Regex(name)) => LayersPattern::Name(name),
        },
        rank_pattern: overrides(&f, "rank_pattern", |v| v.as_u64().map(|r| r as usize))?,
        alpha_pattern: overrides(&f, "alpha_pattern", Value::as_f64)?,
    };
    config.check().map_err(|e| e.at(file.display()))?;
    Ok((config, f.text("base_model_name_or_path")?.map(String::from)))
}

fn refuse_unknown(f: &JsonFields) -> Result<()> {
    for (key, value) in &f.map {
        let empty = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        match FIELDS.iter().find(|(name, _)| name == key) {
            Some((_, AdapterFieldRule::Only(values))) if !value.is_null() && !values().contains(value) => {
                return Err(f
                    .wrong(key, "halfbyte does not implement this")
                    .hint("merge the adapter with PEFT, or use one that was trained without it"));
            }
            // An unknown field that is empty or false turns nothing on, so it is harmless.
            None if !empty => {
                return Err(f
                    .wrong(key, "this field is unknown, and it may change what the adapter computes")
                    .hint("remove the field if you know that it is harmless"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads a regular expression (a string) or a list of names.
fn pattern(f: &JsonFields, key: &str) -> Result<Option<Pattern>> {
    match f.get(key) {
        Some(Value::Array(list)) if list.is_empty() => Ok(None),
        Some(Value::Array(_)) => Ok(f.texts(key)?.map(Pattern::Names)),
        Some(Value::String(text)) => Ok(Some(Pattern::Regex(text.clone()))),
        Some(_) => Err(f.wrong(key, "expected a list of names or a regular expression")),
        None => Ok(None),
    }
}

fn overrides<T>(f: &JsonFields, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<(String, T)>> {
    let Some(object) = f.object(key)? else { return Ok(Vec::new()) };
    let one = |(name, value): (&String, &Value)| match read(value) {
        Some(value) => Ok((name.clone(), value)),
        None => Err(object.wrong(name, "expected a number")),
    };
    object.map.iter().map(one).collect()
}

/// The text of adapter_config.json, as PEFT 0.18 writes it.
fn config_text(config: &LoraConfig, base_model: &str, modules: &[AdapterModule]) -> String {
    let number = |x: f64| if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) };
    let pattern = |p: &Pattern| match p {
        Pattern::Names(names) => json!(names),
        Pattern::Regex(regex) => json!(regex),
    };
    let targets = match &config.targets {
        Targets::Matching(p) => pattern(p),
        // The names of the adapted modules, so that PEFT finds the same ones without a rule of its own.
        Targets::Default | Targets::AllLinear => {
            let leaves: std::collections::BTreeSet<&str> = modules.iter().map(|m| m.module.leaf).collect();
            json!(leaves)
        }
    };
    let value = |key: &str| match key {
        "alpha_pattern" => object(config.alpha_pattern.iter().map(|(k, alpha)| (k, number(*alpha)))),
        "base_model_name_or_path" => json!(base_model),
        "exclude_modules" => config.exclude.as_ref().map_or(Value::Null, pattern),
        "inference_mode" => json!(true),
        "layers_pattern" => match &config.layers_pattern {
            LayersPattern::Name(name) => json!(name),
            LayersPattern::Names(names) if names.is_empty() => Value::Null,
            LayersPattern::Names(names) => json!(names),
        },
        "layers_to_transform" => json!(config.layers),
        "lora_alpha" => number(config.alpha),
        "lora_dropout" => json!(config.dropout),
        "megatron_core" => json!("megatron.core"),
        "peft_version" => json!("0.18.1"),
        "qalora_group_size" => json!(16),
        "r" => json!(config.r),
        "rank_pattern" => object(config.rank_pattern.iter().map(|(k, r)| (k, json!(r)))),
        "target_modules" => targets.clone(),
        "use_rslora" => json!(config.rslora),
        "modules_to_save" | "target_parameters" | "trainable_token_indices" => Value::Null,
        other => match FIELDS.iter().find(|(name, _)| *name == other) {
            Some((_, AdapterFieldRule::Only(values))) => values().first().cloned().unwrap_or(Value::Null),
            _ => Value::Null,
        },
    };
    let written = FIELDS.iter().map(|(key, _)| *key).filter(|key| *key != "runtime_config");
    let text = Value::Object(written.map(|key| (key.to_string(), value(key))).collect());
    format!("{text:#}\n")
}

fn object<'a>(entries: impl Iterator<Item = (&'a String, Value)>) -> Value {
    Value::Object(entries.map(|(key, value)| (key.clone(), value)).collect::<Map<_, _>>())
}

/// The name of a tensor in adapter_model.safetensors; `part` is `lora_A`, `lora_B` or `base_layer`.
fn key(module: &str, part: &str) -> String {
    format!("base_model.model.{module}.{part}.weight")
}

impl Adapter {
    /// Reads the adapter in `folder`. It must fit `model`: both matrices of every adapted module, with their shapes,
    /// and no other tensor.
    pub fn open(folder: &Path, model: &ModelConfig) -> Result<Self> {
        let (config, base_model) = read_config(folder)?;
        let resolution = resolve(&config, model).map_err(|e| e.at(folder.join(CONFIG).display()))?;
        Ok(Self { base_model, ..Self::read(folder, model, config, resolution.modules)? })
    }

    /// Reads only the weights of the adapter in `folder`: `config` was read before, and `modules` are the modules of
    /// `model` that it adapts. `base_model` stays `None`.
    pub fn read(folder: &Path, model: &ModelConfig, config: LoraConfig, modules: Vec<AdapterModule>) -> Result<Self> {
        let file = folder.join(WEIGHTS);
        if !file.is_file() {
            return Err(Error::input(format!("{}: there is no {WEIGHTS}", folder.display()))
                .hint("halfbyte reads safetensors only; save a .bin adapter again with PEFT's save_pretrained"));
        }
        let tensors = TensorFiles::open_file(&file)?;
        let (mut weights, mut known) = (Vec::new(), std::collections::HashSet::new());
        for AdapterModule { module, r, .. } in &modules {
            let (a, b) = (key(&module.name, "lora_A"), key(&module.name, "lora_B"));
            weights.push(LoraWeights {
                a: tensors.shaped(&a, &[*r, module.in_features])?.to_f32()?,
                b: tensors.shaped(&b, &[module.out_features, *r])?.to_f32()?,
            });
            known.extend([a, b]);
        }
        let head_key = key(HEAD, "base_layer");
        let head = match tensors.get(&head_key) {
            Some(_) => Some(tensors.shaped(&head_key, &[model.vocab_size, model.hidden_size])?.to_f32()?),
            None => None,
        };
        if let Some(extra) = tensors.names().find(|name| !known.contains(*name) && *name != head_key) {
            let error = Error::input(format!("{}: unexpected tensor `{extra}`", file.display()));
            return Err(match nearest(extra, known.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("{CONFIG} implies `{near}`: do the two files belong together?")),
                None => error.hint(format!("{CONFIG} does not adapt such a module: do the two files belong together?")),
            });
        }
        Ok(Self { config, base_model: None, modules, weights, head })
    }

    /// Creates `folder` and writes the adapter to it in f32. `head` is the base weight of the head; it is stored only
    /// if the head is adapted, as PEFT does. Errors if a value is not finite; the folder then stays as it is.
    pub fn save(&self, folder: &Path, head: Option<&Tensor>) -> Result<()> {
        self.check_finite()?;
        create_folder(folder)?;
        let mut tensors = Vec::new();
        for (AdapterModule { module, r, .. }, weights) in self.modules.iter().zip(&self.weights) {
            let a = key(&module.name, "lora_A");
            tensors.push(Output::floats(a, DType::F32, vec![*r, module.in_features], &weights.a));
            let b = key(&module.name, "lora_B");
            tensors.push(Output::floats(b, DType::F32, vec![module.out_features, *r], &weights.b));
        }
        if let Some(head) = head.filter(|_| self.modules.iter().any(|m| m.module.leaf == HEAD)) {
            tensors.push(Output {
                name: key(HEAD, "base_layer"),
                dtype: head.dtype,
                shape: head.shape.to_vec(),
                data: head.data.into(),
            });
        }
        let config = config_text(&self.config, self.base_model.as_deref().unwrap_or_default(), &self.modules);
        let file = folder.join(CONFIG);
        // The configuration is written last, and one of other weights goes first: a folder with both files is whole.
        if std::fs::read(&file).is_ok_and(|before| before != config.as_bytes()) {
            remove(&file)?;
        }
        write(&folder.join(WEIGHTS), &tensors)?;
        write_text(&file, &config)
    }

    /// Errors if a value is NaN or infinite: the training diverged.
    fn check_finite(&self) -> Result<()> {
        let values = || self.weights.iter().flat_map(|w| w.a.iter().chain(&w.b));
        match values().filter(|x| !x.is_finite()).count() {
            0 => Ok(()),
            wrong => Err(Error::run(format!("{wrong} of {} values of the adapter are not finite", values().count()))
                .hint("the training diverged: lower learning_rate, then continue with --resume")),
        }
    }

    /// Checks that the adapter's copy of the head's weight equals that of `checkpoint`, because PEFT replaces the
    /// model's weight by the copy.
    pub fn check_head(&self, checkpoint: &TensorFiles, model: &ModelConfig) -> Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        let name = if model.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let stored = checkpoint.tensor(name)?.to_f32()?;
        // PEFT stores the copy in the type in which the model was loaded, which is not recorded.
        let same = |dtype: DType| stored.iter().zip(head).all(|(stored, head)| dtype.round(*stored) == *head);
        match [DType::F32, DType::Bf16, DType::F16].into_iter().any(same) {
            true => Ok(()),
            false => Err(Error::input(format!(
                "the adapter's copy of `lm_head` differs from the weight in {}",
                checkpoint.path().display()
            ))
            .hint("use the base model on which the adapter was trained")),
        }
    }
}

#[cfg(test)]
#[path = "adapter_tests.rs"]
mod tests;
