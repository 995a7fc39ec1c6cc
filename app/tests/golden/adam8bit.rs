//! `adam8bit/`: 8-bit blockwise quantization, and ten steps of every AdamW variant.

use std::path::Path;

use halfbyte_core::device::cpu::adamw::{self, Hyper, State8};
use halfbyte_core::dtype::DType;
use halfbyte_core::quant::blockwise8;
use halfbyte_core::quant::blockwise8::SIGNED_ZERO;
use safetensors::Dtype;
use serde_json::Value;

use crate::tensors::{Tensors, equal_bits, equal_bytes, stems, worst};
use crate::walk::{Case, Outcome};

pub fn cases(root: &Path) -> Vec<Case> {
    let folder = root.join("adam8bit");
    let mut cases = Vec::new();
    for stem in stems(&folder, ".safetensors") {
        let path = folder.join(format!("{stem}.safetensors"));
        if stem.starts_with("quantize8_") {
            cases.push(Case::new(stem, move || quantize8(&path)));
        }
    }
    for trace in stems(&folder, ".inputs.safetensors") {
        for form in ["adamw32_torch", "adamw32_bnb", "adamw8bit"] {
            let path = folder.join(format!("{form}_{trace}.safetensors"));
            if path.is_file() {
                let (folder, trace) = (folder.clone(), trace.clone());
                cases
                    .push(Case::new(format!("{form}_{trace}"), move || Trace::open(&folder, &trace, &path)?.run(form)));
            }
        }
    }
    cases
}

fn quantize8(path: &Path) -> Outcome {
    let file = Tensors::open(path)?;
    let input = file.f32("input")?;
    let mut compared = Vec::new();
    for (name, map) in [("dynamic_signed", &*blockwise8::SIGNED), ("dynamic_unsigned", &*blockwise8::UNSIGNED)] {
        if !file.has(&format!("{name}.codes")) {
            continue;
        }
        let signed = name == "dynamic_signed";
        let input: Vec<f32> = input.iter().map(|x| if signed { *x } else { x.abs() }).collect();
        let mut codes = vec![0; input.len()];
        let mut absmax = vec![0.0; input.len().div_ceil(blockwise8::BLOCK)];
        blockwise8::quantize(map, &input, &mut codes, &mut absmax);
        equal_bytes(&format!("{name}.codes"), &codes, &file.u8(&format!("{name}.codes"))?)?;
        equal_bits(&format!("{name}.absmax"), &absmax, &file.f32(&format!("{name}.absmax"))?)?;
        let mut values = vec![0.0; input.len()];
        blockwise8::dequantize(map, &codes, &absmax, &mut values);
        equal_bits(&format!("{name}.dequant"), &values, &file.f32(&format!("{name}.dequant_f32"))?)?;
        compared.push(name);
    }
    if compared.is_empty() { Err("no map recorded".into()) } else { Ok(format!("{} equal", compared.join("+"))) }
}

/// The inputs and recorded outputs of one optimizer trace.
struct Trace {
    inputs: Tensors,
    golden: Tensors,
    hyper: Hyper,
    steps: u64,
    storage: DType,
}

impl Trace {
    fn open(folder: &Path, trace: &str, path: &Path) -> Result<Self, String> {
        let meta = std::fs::read_to_string(folder.join("meta.json")).map_err(|e| format!("meta.json: {e}"))?;
        let meta: Value = serde_json::from_str(&meta).map_err(|e| format!("meta.json: {e}"))?;
        let facts = &meta["traces"][trace];
        let number = |v: &Value, key: &str| v.as_f64().ok_or(format!("meta.json: no {key} for {trace}"));
        let inputs = Tensors::open(folder.join(format!("{trace}.inputs.safetensors")))?;
        let storage = if inputs.dtype("param0")? == Dtype::BF16 { DType::Bf16 } else { DType::F32 };
        Ok(Self {
            inputs,
            golden: Tensors::open(path)?,
            hyper: Hyper {
                lr: number(&facts["lr"], "lr")?,
                beta1: number(&facts["betas"][0], "betas")?,
                beta2: number(&facts["betas"][1], "betas")?,
                eps: number(&facts["eps"], "eps")?,
                weight_decay: number(&facts["weight_decay"], "weight_decay")?,
            },
            steps: facts["steps"].as_u64().ok_or("meta.json: no steps")?,
            storage,
        })
    }

    fn run(&self, form: &str) -> Outcome {
        let mut p = self.inputs.f32("param0")?;
        let n = p.len();
        let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
        let blocks = n.div_ceil(blockwise8::BLOCK);
        let (mut codes1, mut codes2) = (vec![SIGNED_ZERO; n], vec![0; n]);
        let (mut absmax1, mut absmax2) = (vec![0.0; blocks], vec![0.0; blocks]);
        let round = |x: f32| self.storage.round(x);
        let (mut report, mut moved) = (Report::new(self.storage), 0);
        // bitsandbytes keeps f32 moments for tensors below 4096 elements.
        let form = match form {
            "adamw8bit" if self.golden.dtype("step1.state1")? == Dtype::F32 => "adamw32_bnb",
            form => form,
        };
        for step in 1..=self.steps {
            let g = self.inputs.f32(&format!("step{step}.grad"))?;
            let key = |name: &str| format!("step{step}.{name}");
            let before = p.clone();
            match form {
                "adamw32_torch" => {
                    adamw::torch(&self.hyper, step, &mut p, &g, &mut m, &mut v, round);
                    report.add(&key("exp_avg"), &m, &self.golden)?;
                    report.add(&key("exp_avg_sq"), &v, &self.golden)?;
                }
                "adamw32_bnb" => {
                    adamw::bitsandbytes32(&self.hyper, step, &mut p, &g, &mut m, &mut v, round);
                    report.add(&key("state1"), &m, &self.golden)?;
                    report.add(&key("state2"), &v, &self.golden)?;
                }
                _ => {
                    let mut state = State8 {
                        codes1: &mut codes1,
                        absmax1: &mut absmax1,
                        codes2: &mut codes2,
                        absmax2: &mut absmax2,
                    };
                    adamw::bitsandbytes8(&self.hyper, step, &mut p, &g, &mut state, round);
                    moved += codes_off(&codes1, &self.golden.u8(&key("state1"))?)?;
                    moved += codes_off(&codes2, &self.golden.u8(&key("state2"))?)?;
                    report.add(&key("absmax1"), &absmax1, &self.golden)?;
                    report.add(&key("absmax2"), &absmax2, &self.golden)?;
                }
            }
            report.add_beside(&key("param"), &p, &self.golden, &before)?;
        }
        let codes = 2 * n * self.steps as usize;
        if moved * 1000 > codes {
            return Err(format!("{moved} of {codes} codes are off by one, more than 0.1 %"));
        }
        let codes = if form == "adamw8bit" { format!(", {moved} of {codes} codes off by one") } else { String::new() };
        Ok(format!("{} steps, {}{codes}", self.steps, report.summary()))
    }
}

/// The number of codes that differ; an error if one differs by more than 1.
fn codes_off(ours: &[u8], golden: &[u8]) -> Result<usize, String> {
    if ours.len() != golden.len() {
        return Err(format!("{} codes, recorded {}", ours.len(), golden.len()));
    }
    match ours.iter().zip(golden).position(|(a, b)| a.abs_diff(*b) > 1) {
        Some(i) => Err(format!("code [{i}] is {}, recorded {}", ours[i], golden[i])),
        None => Ok(ours.iter().zip(golden).filter(|(a, b)| a != b).count()),
    }
}

/// The largest absolute difference so far, and the number of values that are not bit-equal.
struct Report {
    storage: DType,
    worst: f32,
    values: usize,
    differing: usize,
}

impl Report {
    fn new(storage: DType) -> Self {
        Self { storage, worst: 0.0, values: 0, differing: 0 }
    }

    /// Compares values within 1e-6 absolute, or within one unit in the last place of bf16 storage.
    fn add(&mut self, key: &str, ours: &[f32], golden: &Tensors) -> Result<(), String> {
        self.add_beside(key, ours, golden, &[])
    }

    /// The same for values that were computed from those of `before`, which may be larger: when a parameter crosses 0, its
    /// rounding error is that of the terms of the sum.
    fn add_beside(&mut self, key: &str, ours: &[f32], golden: &Tensors, before: &[f32]) -> Result<(), String> {
        let golden = golden.f32(key)?;
        let off = worst(ours, &golden);
        let size = |i: usize| before.get(i).map_or(0.0, |b| b.abs()).max(golden[i].abs());
        let limit = |i: usize| if self.storage == DType::Bf16 { (size(i) / 128.0).max(1e-6) } else { 1e-6 };
        if let Some(i) = (0..ours.len().min(golden.len())).find(|i| (ours[*i] - golden[*i]).abs() > limit(*i)) {
            return Err(format!("{key}[{i}] is {:e}, recorded {:e}", ours[i], golden[i]));
        }
        if !off.is_finite() {
            return Err(format!("{key}: lengths or finite values differ"));
        }
        self.worst = self.worst.max(off);
        self.values += ours.len();
        self.differing += ours.iter().zip(&golden).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        Ok(())
    }

    fn summary(&self) -> String {
        format!("worst {:.1e}, {} of {} values differ in bits", self.worst, self.differing, self.values)
    }
}
