//! A recipe: everything that one training run is told. Keys are named as in Hugging Face's `TrainingArguments`,
//! `LoraConfig` and `BitsAndBytesConfig` (the table is [`keys`](super::keys)), and a missing key has its default
//! there. The canonical layout has five sections; keys may also stand flat, or in another section.
//!
//! ```toml
//! [model]
//! model_name_or_path = "models/Mistral-7B-v0.1"
//! [data]
//! dataset = "instructions.jsonl"
//! text_column = "text"
//! [lora]
//! r = 16
//! target_modules = ["q_proj", "v_proj"]
//! [quantization]
//! load_in_4bit = true
//! bnb_4bit_quant_type = "nf4"
//! bnb_4bit_compute_dtype = "bfloat16"
//! [training]
//! learning_rate = 2e-4
//! ```

use std::path::Path;

use toml::{Table, Value};

use super::cadence::Cadence;
use super::data::DataConfig;
use super::keys::{KEYS, Section, Use};
use super::lora::{LoraConfig, Pattern, Targets};
use super::raw::Raw;
use super::training::TrainingConfig;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::quant::{QuantKind, Scheme};

/// The type in which `from_pretrained` loads a model, before anything is quantised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadDtype {
    /// `torch_dtype` is not given: float16 when the model is quantised while it is loaded, float32 otherwise.
    Unsaid,
    /// "auto": the type that config.json names, else the one that the checkpoint is stored in.
    Auto,
    /// This type.
    Named(DType),
}

/// `[model]`.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelSource {
    /// A folder or a hub id.
    pub name_or_path: String,
    /// The branch, tag or commit of a hub id.
    pub revision: Option<String>,
    /// The folder or hub id of the tokenizer; None: the model's.
    pub tokenizer: Option<String>,
    /// `torch_dtype`.
    pub dtype: LoadDtype,
    /// The folder of an adapter to go on from, with its own configuration.
    pub adapter: Option<String>,
    /// `output_router_logits`: the auxiliary loss of a Mixtral model is part of the loss; None: as config.json says.
    pub output_router_logits: Option<bool>,
    /// `router_aux_loss_coef`; None: as config.json says.
    pub router_aux_loss_coef: Option<f64>,
    /// `device_map`, in the words of `--device`: `auto`, `cpu`, `cuda` or `cuda:1`.
    pub device: Option<String>,
}

/// `[quantization]`: how the base is quantised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quantization {
    /// `bnb_4bit_quant_type` (as in BitsAndBytesConfig FP4 unless said otherwise), `bnb_4bit_blocksize` and
    /// `bnb_4bit_use_double_quant`.
    pub scheme: Scheme,
    /// `llm_int8_skip_modules`: modules left in 16 bit.
    pub skip_modules: Vec<String>,
}

/// A `device_map` or `--device` that leaves the choice to the program.
pub const AUTO: &str = "auto";

/// A checked recipe.
#[derive(Clone, PartialEq, Debug)]
pub struct Recipe {
    /// What is fine-tuned.
    pub model: ModelSource,
    /// What it is trained on.
    pub data: DataConfig,
    /// The adapter; not used when it starts from one ([`ModelSource::adapter`]).
    pub lora: LoraConfig,
    /// How the base is quantised; None: it stays in 16 bit, unless its checkpoint is quantised already.
    pub quantization: Option<Quantization>,
    /// The type in which activations are stored and products are computed.
    pub compute: DType,
    /// How it is trained.
    pub training: TrainingConfig,
    /// Lines for the report: keys without effect, and what differs from HF.
    pub notes: Vec<String>,
}

impl Recipe {
    /// Reads the recipe in `file`, with `overrides` (`key=value`) laid over it.
    pub fn open(file: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?;
        Self::parse(&text, &file.display().to_string(), overrides)
    }

    /// Parses the text of a recipe; `file` is named in errors.
    pub fn parse(text: &str, file: &str, overrides: &[String]) -> Result<Self> {
        let raw = Raw::parse(text, file, overrides)?;
        let model = ModelSource::read(&raw)?;
        let lora = lora(&raw, model.adapter.as_deref())
            .map_err(|e| if e.what().starts_with(file) { e } else { e.at(file) })?;
        let (quantization, mut more) = quantization(&raw)?;
        let (compute, note) = compute(&raw, quantization.is_some(), model.dtype)?;
        let (data, training) = (DataConfig::read(&raw)?, TrainingConfig::read(&raw)?);
        if training.eval != Cadence::Never && !data.has_eval() {
            return Err(raw
                .wrong("eval_strategy", "there is nothing to evaluate on")
                .hint("give test_size, eval_split or eval_dataset"));
        }
        let mut notes = raw.notes;
        notes.append(&mut more);
        if model.device.as_deref() == Some(AUTO) {
            notes
                .push("`device_map`: the whole model is on one device, the first GPU that can compute its type".into());
        }
        notes.extend(note);
        Ok(Self { model, data, lora, quantization, compute, training, notes })
    }

    /// `config` with what the recipe says about it. Errors when it says something that the model does not have.
    pub fn apply(&self, mut config: ModelConfig) -> Result<ModelConfig> {
        let ModelSource { output_router_logits, router_aux_loss_coef, .. } = self.model;
        match &mut config.experts {
            Some(experts) => {
                experts.output_router_logits = output_router_logits.unwrap_or(experts.output_router_logits);
                experts.aux_loss_coef = router_aux_loss_coef.unwrap_or(experts.aux_loss_coef);
            }
            None if output_router_logits == Some(true) || router_aux_loss_coef.is_some() => {
                return Err(Error::usage(format!("a {} model has no router", config.family.model_type()))
                    .hint("remove output_router_logits and router_aux_loss_coef"));
            }
            None => {}
        }
        Ok(config)
    }

    /// The recipe with every default filled in, as TOML in the canonical layout; parsing it gives this recipe again.
    pub fn resolved_toml(&self) -> String {
        let mut entries = self.model.entries();
        entries.extend(self.data.entries());
        if self.model.adapter.is_none() {
            entries.extend(lora_entries(&self.lora));
        }
        entries.extend(self.quantization_entries());
        entries.extend(self.training.entries());
        let mut text = String::new();
        for section in Section::ALL {
            text += &format!("[{}]\n", section.name());
            for (key, _) in KEYS.iter().filter(|(_, used)| matches!(used, Use::Used(of, _) if *of == section)) {
                if let Some((_, Some(value))) = entries.iter().find(|(name, _)| name == key) {
                    text += &format!("{key} = {value}\n");
                }
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }

    fn quantization_entries(&self) -> Vec<(&'static str, Option<Value>)> {
        let mut entries = vec![
            ("load_in_4bit", self.quantization.is_some().then_some(true.into())),
            ("bf16", Some((self.compute == DType::Bf16).into())),
            ("fp16", Some((self.compute == DType::F16).into())),
        ];
        if let Some(q) = &self.quantization {
            entries.extend([
                ("bnb_4bit_quant_type", Some(q.scheme.kind.name().into())),
                ("bnb_4bit_use_double_quant", Some(q.scheme.double.into())),
                ("bnb_4bit_blocksize", Some(Value::from(q.scheme.blocksize as i64))),
                ("llm_int8_skip_modules", Some(q.skip_modules.clone().into())),
            ]);
        }
        // Also without load_in_4bit: the checkpoint may be quantised.
        entries.push(("bnb_4bit_compute_dtype", Some(self.compute.torch_name().into())));
        entries
    }
}

impl ModelSource {
    fn read(raw: &Raw) -> Result<Self> {
        let name_or_path = raw.text("model_name_or_path")?;
        let dtype = match raw.text("torch_dtype")?.as_deref() {
            None => LoadDtype::Unsaid,
            Some("auto") => LoadDtype::Auto,
            Some(name) => LoadDtype::Named(DType::from_torch_name(name).ok_or_else(|| {
                raw.wrong("torch_dtype", "expected \"auto\", \"float32\", \"float16\" or \"bfloat16\"")
            })?),
        };
        Ok(Self {
            name_or_path: name_or_path.filter(|name| !name.is_empty()).ok_or_else(|| {
                raw.wrong("model_name_or_path", "expected the folder or hub id of a model")
                    .hint("for instance model_name_or_path = \"models/Mistral-7B-v0.1\"")
            })?,
            revision: raw.text("revision")?,
            tokenizer: raw.text("tokenizer_name_or_path")?,
            dtype,
            adapter: raw.text("adapter_name_or_path")?,
            output_router_logits: raw.flag("output_router_logits")?,
            router_aux_loss_coef: raw.at_least("router_aux_loss_coef", 0.0)?,
            device: device_map(raw)?,
        })
    }

    fn entries(&self) -> Vec<(&'static str, Option<Value>)> {
        let dtype = match self.dtype {
            LoadDtype::Unsaid => None,
            LoadDtype::Auto => Some("auto".into()),
            LoadDtype::Named(dtype) => Some(dtype.torch_name().into()),
        };
        vec![
            ("model_name_or_path", Some(self.name_or_path.clone().into())),
            ("revision", self.revision.clone().map(Value::from)),
            ("tokenizer_name_or_path", self.tokenizer.clone().map(Value::from)),
            ("torch_dtype", dtype),
            ("adapter_name_or_path", self.adapter.clone().map(Value::from)),
            ("output_router_logits", self.output_router_logits.map(Value::from)),
            ("router_aux_loss_coef", self.router_aux_loss_coef.map(Value::from)),
            ("device_map", self.device.clone().map(Value::from)),
        ]
    }
}

/// What `device_map` says in the words of `--device`: a GPU's number, a device's name, or a table that puts all (`""`) on one.
fn device_map(raw: &Raw) -> Result<Option<String>> {
    let Some(value) = raw.value("device_map") else { return Ok(None) };
    let all = value.as_table().filter(|parts| parts.len() == 1).and_then(|parts| parts.get("")).unwrap_or(value);
    let name = match all {
        Value::Integer(number) => format!("cuda:{number}"),
        // How a model is spread over several GPUs does not matter on one.
        Value::String(name) if ["balanced", "balanced_low_0", "sequential"].contains(&name.as_str()) => AUTO.into(),
        Value::String(name) => name.clone(),
        _ => String::new(),
    };
    let number = name.strip_prefix("cuda:").and_then(|number| number.parse::<usize>().ok());
    if number.is_none() && ![AUTO, "cpu", "cuda"].contains(&name.as_str()) {
        let why = "expected \"auto\", \"cpu\", a GPU's number, or a table with one of them for the whole model (\"\")";
        return Err(raw.wrong("device_map", why).hint("device_map = 0 is the first GPU"));
    }
    Ok(Some(name))
}

fn lora(raw: &Raw, start: Option<&str>) -> Result<LoraConfig> {
    let mut keys = KEYS.iter().filter(|(_, used)| matches!(used, Use::Used(Section::Lora, _))).map(|(key, _)| *key);
    if let (Some(start), Some(key)) = (start, keys.find(|key| raw.has(key))) {
        return Err(raw
            .wrong(key, format!("the adapter {start} brings its own configuration"))
            .hint("remove the keys of [lora], or adapter_name_or_path"));
    }
    let defaults = LoraConfig::default();
    let ranks = raw.numbers("rank_pattern")?.unwrap_or_default();
    let rank = |(pattern, r): (String, f64)| match r.fract() == 0.0 && (0.0..1e9).contains(&r) {
        true => Ok((pattern, r as usize)),
        false => Err(raw.wrong("rank_pattern", "expected whole numbers")),
    };
    let config = LoraConfig {
        r: raw.count("r", 0)?.unwrap_or(defaults.r),
        alpha: raw.number("lora_alpha")?.unwrap_or(defaults.alpha),
        dropout: raw.number("lora_dropout")?.unwrap_or(defaults.dropout),
        rslora: raw.flag("use_rslora")?.unwrap_or(defaults.rslora),
        targets: match pattern(raw, "target_modules")? {
            None => Targets::Default,
            Some(Pattern::Regex(all)) if all.eq_ignore_ascii_case("all-linear") => Targets::AllLinear,
            Some(pattern) => Targets::Matching(pattern),
        },
        exclude: pattern(raw, "exclude_modules")?,
        layers: raw.counts("layers_to_transform")?.filter(|list| !list.is_empty()),
        layers_pattern: raw.texts("layers_pattern")?.unwrap_or_default(),
        rank_pattern: ranks.into_iter().map(rank).collect::<Result<_>>()?,
        alpha_pattern: raw.numbers("alpha_pattern")?.unwrap_or_default(),
    };
    config.check()?;
    Ok(config)
}

/// A text (a regular expression) or a list of names.
fn pattern(raw: &Raw, key: &str) -> Result<Option<Pattern>> {
    Ok(match raw.value(key) {
        Some(Value::String(regex)) => Some(Pattern::Regex(regex.clone())),
        _ => raw.texts(key)?.filter(|names| !names.is_empty()).map(Pattern::Names),
    })
}

fn lora_entries(lora: &LoraConfig) -> Vec<(&'static str, Option<Value>)> {
    let pattern = |p: &Pattern| match p {
        Pattern::Names(names) => Value::from(names.clone()),
        Pattern::Regex(regex) => regex.clone().into(),
    };
    let table = |entries: Vec<(String, Value)>| {
        (!entries.is_empty()).then(|| Value::Table(entries.into_iter().collect::<Table>()))
    };
    let ranks = lora.rank_pattern.iter().map(|(k, r)| (k.clone(), Value::from(*r as i64))).collect();
    let alphas = lora.alpha_pattern.iter().map(|(k, a)| (k.clone(), Value::from(*a))).collect();
    vec![
        ("r", Some(Value::from(lora.r as i64))),
        ("lora_alpha", Some(lora.alpha.into())),
        ("lora_dropout", Some(lora.dropout.into())),
        ("use_rslora", Some(lora.rslora.into())),
        (
            "target_modules",
            match &lora.targets {
                Targets::Default => None,
                Targets::AllLinear => Some("all-linear".into()),
                Targets::Matching(p) => Some(pattern(p)),
            },
        ),
        ("exclude_modules", lora.exclude.as_ref().map(pattern)),
        ("layers_to_transform", lora.layers.as_ref().map(|l| l.iter().map(|n| *n as i64).collect::<Vec<_>>().into())),
        ("layers_pattern", (!lora.layers_pattern.is_empty()).then(|| lora.layers_pattern.clone().into())),
        ("rank_pattern", table(ranks)),
        ("alpha_pattern", table(alphas)),
    ]
}

fn quantization(raw: &Raw) -> Result<(Option<Quantization>, Vec<String>)> {
    let quantised = raw.flag("load_in_4bit")?;
    let kinds = [("nf4", QuantKind::Nf4), ("fp4", QuantKind::Fp4)];
    let scheme = Scheme {
        kind: raw.choice("bnb_4bit_quant_type", &kinds)?.unwrap_or(QuantKind::Fp4),
        blocksize: raw.count("bnb_4bit_blocksize", 1)?.unwrap_or(64),
        double: raw.flag("bnb_4bit_use_double_quant")?.unwrap_or(false),
    };
    let read = Quantization { scheme, skip_modules: raw.texts("llm_int8_skip_modules")?.unwrap_or_default() };
    if !scheme.blocksize.is_power_of_two() || !(32..=4096).contains(&scheme.blocksize) {
        return Err(raw
            .wrong("bnb_4bit_blocksize", "expected a power of two from 32 to 4096")
            .hint("bitsandbytes uses 64"));
    }
    if quantised == Some(true) {
        return Ok((Some(read), Vec::new()));
    }
    let keys = ["bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_blocksize", "llm_int8_skip_modules"];
    let given: Vec<&str> = keys.into_iter().filter(|key| raw.has(key)).collect();
    match (quantised, given.first()) {
        (None, Some(key)) => {
            Err(raw.wrong(key, "nothing is quantised without load_in_4bit").hint("add load_in_4bit = true"))
        }
        (_, Some(_)) => Ok((None, vec![format!("`{}` has no effect with load_in_4bit = false", given.join("`, `"))])),
        (_, None) => Ok((None, Vec::new())),
    }
}

/// The compute type: `bnb_4bit_compute_dtype`, else what `bf16` or `fp16` says, else float32 for a 4-bit base (the
/// default of BitsAndBytesConfig), else the type in which the model is loaded. Two that contradict are an error.
fn compute(raw: &Raw, quantised: bool, load: LoadDtype) -> Result<(DType, Option<String>)> {
    let (bf16, fp16) = (raw.flag("bf16")?.unwrap_or(false), raw.flag("fp16")?.unwrap_or(false));
    if bf16 && fp16 {
        return Err(raw.wrong("fp16", "`bf16` is true as well").hint("keep one of them"));
    }
    let flag = [(bf16, "bf16", DType::Bf16), (fp16, "fp16", DType::F16)].into_iter().find(|(on, ..)| *on);
    let key = "bnb_4bit_compute_dtype";
    let named = match raw.text(key)? {
        None => None,
        Some(text) => Some(
            DType::from_torch_name(&text)
                .ok_or_else(|| raw.wrong(key, "expected \"float32\", \"float16\" or \"bfloat16\""))?,
        ),
    };
    // Said of a model that is explicitly not quantised, it means nothing.
    let named = if raw.flag("load_in_4bit")? == Some(false) { None } else { named };
    match (named, flag) {
        (Some(dtype), Some((_, key, other))) if dtype != other => Err(raw
            .wrong(key, format!("bnb_4bit_compute_dtype is {}", dtype.torch_name()))
            .hint(format!("set bnb_4bit_compute_dtype = \"{}\", or {key} = false", other.torch_name()))),
        (Some(DType::F16), None) => {
            let note = "float16 compute without fp16 = true: HF keeps everything outside the 4-bit products in float32 \
                        and scales no loss; halfbyte computes in float16 and scales the loss";
            Ok((DType::F16, Some(note.into())))
        }
        (Some(dtype), _) => Ok((dtype, None)),
        (None, Some((_, _, dtype))) => Ok((dtype, None)),
        (None, None) => match load {
            LoadDtype::Named(dtype) if !quantised => Ok((dtype, None)),
            _ => Ok((DType::F32, None)),
        },
    }
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
