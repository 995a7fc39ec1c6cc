//! The `[model]` section: the model, its location, type and device.

use toml::Value;

use super::raw::Raw;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::Result;

/// The type in which `from_pretrained` loads a model, before anything is quantized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadDtype {
    /// `torch_dtype` is not given: float16 if the model is quantized while it is loaded, float32 otherwise.
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
    /// The folder of an adapter to train further, with its own configuration.
    pub adapter: Option<String>,
    /// `output_router_logits`: the auxiliary loss of a Mixtral model is part of the loss; None: as config.json says.
    pub output_router_logits: Option<bool>,
    /// `router_aux_loss_coef`; None: as config.json says.
    pub router_aux_loss_coef: Option<f64>,
    /// `device_map` as a value of `--device`: `auto`, `cpu`, `cuda` or `cuda:1`.
    pub device: Option<String>,
}

/// The value of `device_map` or `--device` that lets the program choose.
pub const AUTO: &str = "auto";

impl ModelSource {
    /// Reads the section. Errors if no model is named.
    pub(super) fn read(raw: &Raw) -> Result<Self> {
        let name_or_path = raw.text("model_name_or_path").filter(|name| !name.is_empty());
        let adapter = raw.text("adapter_name_or_path");
        // Axolotl's `adapter` names a method, not a folder.
        if let Some(method @ ("lora" | "qlora")) = adapter.as_deref() {
            let error = raw.wrong("adapter_name_or_path", "expected the folder of an adapter to train further");
            raw.report(error.hint(match method {
                "qlora" => "remove it and write load_in_4bit = true: a new adapter is always LoRA",
                _ => "remove it: a new adapter is always LoRA",
            }));
        }
        Ok(Self {
            name_or_path: name_or_path.ok_or_else(|| {
                raw.wrong("model_name_or_path", "expected the folder or hub id of a model")
                    .hint("for instance model_name_or_path = \"mistralai/Mistral-7B-v0.1\"")
            })?,
            revision: raw.text("revision"),
            tokenizer: raw.text("tokenizer_name_or_path"),
            dtype: match raw.text("torch_dtype").as_deref() {
                None => LoadDtype::Unsaid,
                Some("auto") => LoadDtype::Auto,
                Some(name) => match DType::from_torch_name(name) {
                    Some(dtype) => LoadDtype::Named(dtype),
                    None => {
                        let why = "expected \"auto\", \"float32\", \"float16\" or \"bfloat16\"";
                        raw.report(raw.wrong("torch_dtype", why));
                        LoadDtype::Unsaid
                    }
                },
            },
            adapter,
            output_router_logits: raw.flag("output_router_logits"),
            router_aux_loss_coef: raw.at_least("router_aux_loss_coef", 0.0),
            device: device_map(raw),
        })
    }

    /// Keys and values of the resolved recipe; None for a key without a value.
    pub(super) fn entries(&self) -> Vec<(&'static str, Option<Value>)> {
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

/// Reads `device_map`, which is a GPU's number, a device's name, or a table that puts the whole model (`""`) on one.
/// The result is a value of `--device`.
fn device_map(raw: &Raw) -> Option<String> {
    let value = raw.value("device_map")?;
    let whole = value.as_table().filter(|parts| parts.len() == 1).and_then(|parts| parts.get("")).unwrap_or(value);
    let name = match whole {
        Value::Integer(number) => format!("cuda:{number}"),
        // The strategies for several GPUs are equal on one.
        Value::String(name) if ["balanced", "balanced_low_0", "sequential"].contains(&name.as_str()) => AUTO.into(),
        Value::String(name) => name.clone(),
        _ => String::new(),
    };
    let number = name.strip_prefix("cuda:").and_then(|number| number.parse::<usize>().ok());
    if number.is_none() && ![AUTO, "cpu", "cuda"].contains(&name.as_str()) {
        let why = "expected \"auto\", \"cpu\", a GPU's number, or a table with one of them for the whole model (\"\")";
        raw.report(raw.wrong("device_map", why).hint("device_map = 0 is the first GPU"));
    }
    Some(name)
}
