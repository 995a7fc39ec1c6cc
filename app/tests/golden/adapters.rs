//! `train/*/adapter_*` and `train/*/merged*`: reads PEFT's adapter folders, writes them again, and merges them.

use std::path::{Path, PathBuf};

use halfbyte::weights::adapter::Adapter;
use halfbyte::weights::merge::{self, MergeBase};
use halfbyte::weights::quantize::{Absmax, QuantizedWeight, Scheme, load};
use halfbyte::weights::safetensors::TensorFiles;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{Linear, linears};
use halfbyte_core::quant::QuantKind;
use halfbyte_core::quant::codebook4;
use serde_json::Value;

use crate::tensors::{Tensors, worst};
use crate::walk::{Case, Outcome};

pub fn cases(root: &Path) -> Vec<Case> {
    let mut traces: Vec<PathBuf> =
        std::fs::read_dir(root.join("train")).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
    traces.sort();
    let mut cases = Vec::new();
    for folder in traces {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for adapter in ["adapter_init", "adapter_final"] {
            let (root, path) = (root.to_path_buf(), folder.join(adapter));
            if path.is_dir() {
                let title = format!("{name} {adapter}");
                cases.push(Case::new(title.clone(), move || roundtrip(&root, &path, &title)));
            }
        }
        for (file, compare) in [("merged", merged as Compare), ("merged_4bit", merged_4bit as Compare)] {
            let file = folder.join(format!("{file}.safetensors"));
            if file.is_file() {
                let (root, folder) = (root.to_path_buf(), folder.clone());
                let title = format!("{name} {}", file.file_stem().unwrap_or_default().to_string_lossy());
                cases.push(Case::new(title, move || compare(&Trace::open(&root, &folder)?, &Tensors::open(&file)?)));
            }
        }
    }
    cases
}

type Compare = fn(&Trace, &Tensors) -> Outcome;

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Reads PEFT's folder, writes it to another folder, and compares the two.
fn roundtrip(root: &Path, folder: &Path, title: &str) -> Outcome {
    let json = |folder: &Path| -> Result<Value, String> {
        let file = std::fs::read_to_string(folder.join("adapter_config.json")).map_err(text)?;
        let mut value: Value = serde_json::from_str(&file).map_err(text)?;
        // PEFT stores the target names as a set, so their order is arbitrary.
        if let Some(list) = value["target_modules"].as_array_mut() {
            list.sort_by_key(Value::to_string);
        }
        Ok(value)
    };
    let model = json(folder)?["base_model_name_or_path"].as_str().map(String::from).ok_or("no base model")?;
    let model = root.join("models").join(model);
    let config = halfbyte::config::config_json::open(&model).map_err(text)?;
    let adapter = Adapter::open(folder, &config).map_err(text)?;
    let checkpoint = TensorFiles::open(&model).map_err(text)?;
    adapter.check_head(&checkpoint, &config).map_err(text)?;
    let ours = std::env::temp_dir().join(format!("halfbyte-golden-{}-{}", std::process::id(), title.replace(' ', "-")));
    let head = if config.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
    let saved = adapter.save(&ours, checkpoint.get(head).as_ref()).map_err(text).and_then(|()| {
        let (a, b) = (json(&ours)?, json(folder)?);
        if a != b {
            return Err(format!("adapter_config.json: {a}, recorded {b}"));
        }
        let file = "adapter_model.safetensors";
        Ok((Tensors::open(ours.join(file))?, Tensors::open(folder.join(file))?))
    });
    let _ = std::fs::remove_dir_all(&ours);
    let (a, b) = saved?;
    if a.names() != b.names() {
        return Err(format!("tensors {:?}, recorded {:?}", a.names(), b.names()));
    }
    for name in b.names() {
        // We store the head's weight in the checkpoint's type, PEFT in the type in which the model was loaded.
        if worst(&a.f32(&name)?, &b.f32(&name)?) != 0.0
            || (a.dtype(&name)? != b.dtype(&name)? && !name.contains("base_layer"))
        {
            return Err(format!("{name} differs"));
        }
    }
    Ok(format!("{} modules, {} tensors and the config equal", adapter.modules.len(), b.names().len()))
}

/// A trace: the model, its quantization scheme, and the trained adapter.
struct Trace {
    checkpoint: TensorFiles,
    modules: Vec<Linear>,
    adapter: Adapter,
    scheme: Option<Scheme>,
    load_as: DType,
}

impl Trace {
    fn open(root: &Path, folder: &Path) -> Result<Self, String> {
        let trace = std::fs::read_to_string(folder.join("trace.json")).map_err(text)?;
        let spec: Value = serde_json::from_str::<Value>(&trace).map_err(text)?["spec"].clone();
        let model = root.join("models").join(spec["model"].as_str().ok_or("trace.json: no model")?);
        let config = halfbyte::config::config_json::open(&model).map_err(text)?;
        let scheme = match &spec["quant"] {
            Value::Null => None,
            quant => Some(Scheme {
                kind: quant["type"].as_str().and_then(QuantKind::parse).ok_or("trace.json: odd quant type")?,
                blocksize: 64,
                double: quant["double"].as_bool().ok_or("trace.json: no quant.double")?,
            }),
        };
        Ok(Self {
            checkpoint: TensorFiles::open(&model).map_err(text)?,
            modules: linears(&config),
            adapter: Adapter::open(&folder.join("adapter_final"), &config).map_err(text)?,
            scheme,
            // With f32 compute, the models were loaded in f32 and quantized from f32. The weights are exact in bf16.
            load_as: DType::F32,
        })
    }

    /// The module called `name`, and the index of its adapter.
    fn module(&self, name: &str) -> Result<(&Linear, Option<usize>), String> {
        let module = self.modules.iter().find(|m| m.name == name).ok_or(format!("no module {name}"))?;
        Ok((module, self.adapter.modules.iter().position(|m| m.module.name == name)))
    }

    fn is_quantized(&self, module: &Linear) -> bool {
        self.scheme.is_some() && halfbyte::weights::names::is_quantized(module, &[])
    }
}

/// Compares `{kind}.{module}.weight`: f32 within 1e-6 of the largest weight, bf16 equal except for near-ties of the f32
/// sum.
fn merged(trace: &Trace, file: &Tensors) -> Outcome {
    let (mut worst_f32, mut values, mut ties) = (0.0f32, 0, 0);
    for key in file.names() {
        let (kind, weight) = key.split_once('.').ok_or("odd key")?;
        let (module, at) = trace.module(weight.strip_suffix(".weight").ok_or("odd key")?)?;
        let dtype = if kind.contains("_bf16_") { DType::Bf16 } else { DType::F32 };
        let base = match trace.scheme {
            Some(scheme) if kind.ends_with("dequantized") && trace.is_quantized(module) => {
                MergeBase::Dequantized(scheme)
            }
            _ => MergeBase::Original,
        };
        let adapter = at.map(|i| (&trace.adapter.modules[i], &trace.adapter.weights[i]));
        let ours = merge::merged(&trace.checkpoint, module, adapter, base, trace.load_as, dtype).map_err(text)?;
        let golden = file.f32(&key)?;
        let largest = golden.iter().fold(0.0f32, |m, x| x.abs().max(m));
        if ours.len() != golden.len() {
            return Err(format!("{key}: {} values, recorded {}", ours.len(), golden.len()));
        }
        values += ours.len();
        match dtype {
            DType::F32 => {
                worst_f32 = worst_f32.max(worst(&ours, &golden) / largest);
                if worst_f32 > 1e-6 {
                    return Err(format!("{key}: off by {worst_f32:.1e} of the largest weight"));
                }
            }
            _ => {
                for (i, (a, b)) in ours.iter().zip(&golden).enumerate().filter(|(_, (a, b))| a != b) {
                    // One unit in the last place of bf16, which has 8 significant bits.
                    if (a - b).abs() > b.abs() / 128.0 {
                        return Err(format!("{key}[{i}]: {a:e}, recorded {b:e}"));
                    }
                    ties += 1;
                }
            }
        }
    }
    if ties * 1000 > values {
        return Err(format!("{ties} of {values} values differ by one bf16 ulp"));
    }
    Ok(format!("{values} values, f32 worst {worst_f32:.1e} of the largest, {ties} bf16 near-ties"))
}

/// Compares the bitsandbytes tensors of the merged and requantized model.
fn merged_4bit(trace: &Trace, file: &Tensors) -> Outcome {
    let (mut codes, mut moved) = (0, 0);
    for key in file.names() {
        let Some(name) = key.strip_suffix(".weight") else { continue };
        let (module, at) = trace.module(name)?;
        let shape = [module.out_features, module.in_features];
        let scheme = trace.scheme.ok_or("the trace is not quantized")?;
        if !trace.is_quantized(module) {
            continue;
        }
        let tensor = trace.checkpoint.shaped(&key, &shape).map_err(text)?;
        let weight = load(&tensor, trace.load_as).map_err(text)?;
        let base = QuantizedWeight::new(scheme, trace.load_as, shape, &weight);
        let ours = match at {
            Some(i) => merge::requantized(&base, &trace.adapter.modules[i], &trace.adapter.weights[i]),
            None => base,
        };
        let golden = file.u8(&key)?;
        let nibbles = |byte: u8| [byte >> 4, byte & 15];
        for (a, b) in ours.codes.iter().zip(&golden).flat_map(|(a, b)| nibbles(*a).into_iter().zip(nibbles(*b))) {
            if a.abs_diff(b) > 1 {
                return Err(format!("{key}: code {a}, recorded {b}"));
            }
            moved += usize::from(a != b);
            codes += 1;
        }
        let scales = ours.scales().into_owned();
        let golden = match &ours.absmax {
            Absmax::Plain(_) => file.f32(&format!("{key}.absmax"))?,
            Absmax::Nested(nested) => {
                let state = file.u8(&format!("{key}.quant_state.bitsandbytes__{}", scheme.kind.name()))?;
                let state: Value = serde_json::from_slice(&state).map_err(text)?;
                let offset = state["nested_offset"].as_f64().ok_or("no nested_offset")? as f32;
                if (nested.offset - offset).abs() > 1e-6 * offset.abs() {
                    return Err(format!("{key}: offset {:e}, recorded {offset:e}", nested.offset));
                }
                let codes = file.u8(&format!("{key}.absmax"))?;
                let absmax = file.f32(&format!("{key}.nested_absmax"))?;
                codebook4::NestedScales { codes, absmax, offset }.restore()
            }
        };
        let largest = golden.iter().fold(0.0f32, |m, x| x.abs().max(m));
        if worst(&scales, &golden) > 1e-2 * largest {
            return Err(format!("{key}: scales off by {:e}", worst(&scales, &golden)));
        }
    }
    // A code may differ if a different order of summation moves the adapter's product across a threshold.
    if moved * 10_000 > codes {
        return Err(format!("{moved} of {codes} codes differ"));
    }
    Ok(format!("{codes} codes, {moved} differ"))
}
