//! `train/<trace>`: trains from a recorded initial adapter on recorded batches. Compares loss, gradient norm and
//! learning rate of every step, the gradients of the first step, the adapter after the first and the last step, and the
//! losses and logits of the evaluation batch.
//!
//! A trace with bf16 compute has a twin: the same trace with f32 compute. The bf16 traces of dense models also run in
//! f16, for which nothing was recorded: they are compared with the twin, at a quarter of the tolerance of bf16.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use halfbyte::train::schedule::{Schedule, ScheduleKind, warmup_steps};
use halfbyte::weights::adapter::{Adapter, LoraWeights};
use halfbyte::weights::load::{read_adapter, read_gradients};
use halfbyte::weights::merge::{self, MergeBase};
use halfbyte::weights::names::is_quantized;
use halfbyte::weights::quantize::QuantizedWeight;
use halfbyte::weights::safetensors::{Output, TensorFiles, write};
use halfbyte::weights::targets::AdapterModule;
use halfbyte_core::device::DeviceName;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::ModelConfig;
use halfbyte_core::model::{Fill, OptimizerKind, OptimizerSpec};
use halfbyte_core::model::{HEAD, linears};
use halfbyte_core::op::{Betas, Control, ControlRule};
use halfbyte_core::quant::Scheme;
use halfbyte_core::session::Session;
use halfbyte_core::session::batch::{Document, num_items};
use serde_json::Value;

use crate::rig::{Measured, Setup, Stream, distance, dtype, open, put_adapter, refused, relative, scheme, share, text};
use crate::tensors::{Tensors, json, stems};
use crate::walk::{Case, Outcome};

pub fn cases(root: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, name) in stems(&root.join("train"), "").into_iter().enumerate() {
        let folder = root.join("train").join(&name);
        // A trace without batches only serves the cases in `adapters`.
        if !folder.join("batches.safetensors").is_file() {
            continue;
        }
        // Checkpointing does not change the numbers, so the traces alternate between the two settings.
        let checkpointing = i % 2 == 0;
        let open_as = {
            let (root, folder) = (root.to_path_buf(), folder.clone());
            move |compute| Trace::open(&root, &folder, checkpointing, compute)
        };
        let trace = json(&folder.join("trace.json")).unwrap_or_default();
        let merged = trace["eval"]["merged"].is_object();
        let model = root.join("models").join(trace["spec"]["model"].as_str().unwrap_or_default());
        if let Some(reason) = refused(&model) {
            cases.push(Case::skipped(name, reason));
            continue;
        }
        let model = halfbyte::config::config_json::open(&model);
        let rounded = trace["spec"]["compute"] == "bfloat16";
        let odd = model.as_ref().is_ok_and(|config| !config.vocab_size.is_multiple_of(8));
        if rounded && odd && matches!(crate::device::named(), Ok(DeviceName::Cuda(_))) {
            cases.push(Case::skipped(
                name,
                "refused by name: on the GPU, training takes vocabularies of a multiple of 8",
            ));
            continue;
        }
        if rounded && model.is_ok_and(|config| config.experts.is_none()) {
            let open_as = open_as.clone();
            cases.push(Case::new(format!("{name} as f16 steps"), move || open_as(Some(DType::F16))?.steps()));
        }
        let open = move || open_as(None);
        cases.push(Case::new(format!("{name} steps"), {
            let open = open.clone();
            move || open()?.steps()
        }));
        cases.push(Case::new(format!("{name} checkpointing"), {
            let open = open.clone();
            move || open()?.same_bits()
        }));
        cases.push(Case::new(format!("{name} recorded adapter"), {
            let open = open.clone();
            move || open()?.recorded()
        }));
        if merged {
            cases.push(Case::new(format!("{name} merged losses"), move || open()?.merged()));
        }
    }
    cases
}

/// Limit of our error in a 16-bit trace, as a multiple of the error that HF's own rounding makes in that trace
/// (`compared_with` has it).
const FACTOR: f64 = 2.5;

/// The tolerances of a trace.
struct Limits {
    /// Relative error of the loss of a step or an evaluation.
    loss: f64,
    grad_norm: f64,
    /// L2 norm of the difference to the recorded adapter, divided by that of the recorded change.
    adapter: f64,
}

struct Trace {
    spec: Value,
    trace: Value,
    /// For bf16 traces: the same trace with f32 compute, and its folder.
    twin: Option<(Value, PathBuf)>,
    model: PathBuf,
    config: ModelConfig,
    folder: PathBuf,
    /// The adapter from which training starts.
    init: Adapter,
    steps: Vec<Vec<Stream>>,
    eval: Stream,
    compute: DType,
    scheme: Option<Scheme>,
    checkpointing: bool,
    limits: Limits,
}

/// The names of PEFT's two tensors of a module.
fn keys(module: &str) -> [String; 2] {
    ["lora_A", "lora_B"].map(|half| format!("base_model.model.{module}.{half}.weight"))
}

impl Trace {
    /// Reads the trace in `folder`. `compute` replaces the recorded compute type.
    fn open(root: &Path, folder: &Path, checkpointing: bool, compute: Option<DType>) -> Result<Self, String> {
        let trace = json(&folder.join("trace.json"))?;
        let spec = trace["spec"].clone();
        let model = root.join("models").join(spec["model"].as_str().ok_or("no model")?);
        let config = halfbyte::config::config_json::open(&model).map_err(text)?;
        let init = root.join(trace["adapter_init"].as_str().ok_or("no adapter_init")?);
        let init = Adapter::open(&init, &config).map_err(text)?;
        let batches = Tensors::open(folder.join("batches.safetensors"))?;
        let read = |name: &str| Stream::read(&batches, name, config.sliding_window);
        let mut steps = Vec::new();
        for (s, step) in trace["steps"].as_array().ok_or("no steps")?.iter().enumerate() {
            let count = step["micro_losses"].as_array().ok_or("no micro_losses")?.len();
            let micros = (0..count).map(|j| read(&format!("step{s:02}.micro{j}")));
            steps.push(micros.collect::<Result<Vec<_>, _>>()?);
        }
        let eval = read("eval")?;
        let twin = match trace["compared_with"]["trace"].as_str() {
            None => None,
            Some(name) => {
                let folder = root.join("train").join(name);
                Some((json(&folder.join("trace.json"))?, folder))
            }
        };
        let compute = compute.map_or_else(|| dtype(&spec["compute"]), Ok)?;
        let part = share(compute);
        let own = |key: &str| trace["compared_with"][key].as_f64().ok_or(format!("compared_with has no {key}"));
        let limits = match (compute, spec["optim"].as_str()) {
            (DType::F32, Some("bnb_adamw8bit")) => Limits { loss: 1e-4, grad_norm: 1e-4, adapter: 1e-2 },
            (DType::F32, _) => Limits { loss: 1e-5, grad_norm: 1e-5, adapter: 2e-4 },
            // HF's bf16 and ours round independently. In HF's, the residual stream is f32.
            _ => Limits {
                loss: part * FACTOR * own("max_rel_diff_loss")?,
                grad_norm: part * FACTOR * own("max_rel_diff_grad_norm")?,
                adapter: part * FACTOR * own("rel_l2_diff_of_adapter_change")?,
            },
        };
        if compute != DType::F32 && twin.is_none() {
            return Err("no f32 twin".into());
        }
        let folder = folder.to_path_buf();
        let scheme = scheme(&spec["quant"])?;
        Ok(Self { spec, trace, twin, model, config, folder, init, steps, eval, compute, scheme, checkpointing, limits })
    }

    fn number(&self, key: &str) -> Result<f64, String> {
        self.spec[key].as_f64().ok_or(format!("spec.{key} is {}", self.spec[key]))
    }

    fn optimizer(&self) -> Result<OptimizerSpec, String> {
        Ok(OptimizerSpec {
            state: match self.spec["optim"].as_str() {
                Some("adamw_torch") => OptimizerKind::Torch,
                Some("bnb_adamw32") => OptimizerKind::Bitsandbytes32,
                Some("bnb_adamw8bit") => OptimizerKind::Bitsandbytes8,
                other => return Err(format!("no rule for optim {other:?}")),
            },
            betas: Betas { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            weight_decay: self.number("weight_decay")?,
            rule: ControlRule {
                max_norm: Some(self.number("max_grad_norm")?),
                growth_interval: (self.compute == DType::F16).then_some(2000),
            },
            updates: self.steps.len(),
            lora_b_factor: 1.0,
            paging: None,
        })
    }

    /// A session at the start of the trace.
    fn session(&self, adapter: &Adapter, checkpointing: bool) -> Result<Session, String> {
        let longest = self.steps.iter().flatten().chain([&self.eval]).map(|s| s.batch.tokens()).max().unwrap_or(0);
        let setup = Setup {
            compute: self.compute,
            load_as: dtype(&self.spec["compute"])?,
            scheme: self.scheme,
            adapter: Some(adapter),
            tokens: longest + 3,
            checkpointing,
            aux: self.config.experts.as_ref().filter(|_| self.spec["aux"] == true).map(|e| e.aux_loss_coef),
            optimizer: Some(self.optimizer()?),
        };
        Ok(open(&self.model, setup, |_| false)?.0)
    }

    /// The learning rate of every step.
    fn rates(&self) -> Result<Vec<f64>, String> {
        let sched = &self.spec["sched"];
        let shape =
            ScheduleKind::parse(sched["name"].as_str().ok_or("no sched.name")?, &Default::default()).map_err(text)?;
        let number = |key: &str| sched[key].as_f64().unwrap_or(0.0);
        let total = self.steps.len();
        let warmup = warmup_steps(total, number("warmup_steps"), number("warmup_ratio"));
        Ok(Schedule::new(shape, self.number("lr")?, warmup, total).map_err(text)?.table())
    }

    /// Mean loss of the evaluation batch, plus the auxiliary loss if the trace trains with it.
    fn evaluate(&self, session: &mut Session, adapter: bool) -> Result<f64, String> {
        let logp = session.eval(&self.eval.batch, adapter).map_err(text)?.logp;
        Ok(-logp.iter().sum::<f64>() / self.eval.batch.predicted() as f64)
    }

    /// The relative error against the recorded number. In bf16, the trace's or its twin's number counts, whichever is
    /// nearer; in f16, the twin's.
    fn off(&self, ours: f64, at: impl Fn(&Value) -> &Value) -> Result<f64, String> {
        let golden = |trace: &Value| at(trace).as_f64().ok_or_else(|| format!("recorded: {}", at(trace)));
        let off = relative(ours, golden(&self.trace)?);
        match &self.twin {
            None => Ok(off),
            Some((twin, _)) if self.compute == DType::F16 => Ok(relative(ours, golden(twin)?)),
            Some((twin, _)) => Ok(off.min(relative(ours, golden(twin)?))),
        }
    }

    /// Runs forward and backward over the micro-batches of a step, and returns their losses.
    fn accumulate(&self, session: &mut Session, step: usize) -> Result<Vec<f64>, String> {
        session.begin().map_err(text)?;
        let items = num_items(self.steps[step].iter().flat_map(|s| &s.documents as &[Document]));
        let recorded = &self.trace["steps"][step]["num_items_in_batch"];
        if *recorded != items {
            return Err(format!("step {step}: {items} items, recorded {recorded}"));
        }
        let mut losses = Vec::new();
        for (j, micro) in self.steps[step].iter().enumerate() {
            let loss = session.micro(&micro.batch, items, [0, j as i32]).map_err(text)?;
            losses.push(loss.loss + loss.aux);
        }
        Ok(losses)
    }

    /// Runs the whole trace and compares it with the recorded numbers.
    fn steps(&self) -> Outcome {
        let limits = &self.limits;
        let mut measured = Measured::default();
        let mut session = self.session(&self.init, self.checkpointing)?;
        for (name, adapter) in [("base_without_adapter", false), ("before", true)] {
            let loss = self.evaluate(&mut session, adapter)?;
            measured.within("eval", self.off(loss, |t| &t["eval"][name])?, limits.loss, name)?;
        }
        let rates = self.rates()?;
        let schedule = session.model.params.optimizer.as_ref().ok_or("no optimizer")?.schedule;
        session.write(schedule, &rates).map_err(text)?;
        for (step, &rate) in rates.iter().enumerate() {
            let place = format!("in step {step}");
            let losses = self.accumulate(&mut session, step)?;
            if self.compute == DType::F32 {
                for (j, loss) in losses.iter().enumerate() {
                    let off = self.off(*loss, |t| &t["steps"][step]["micro_losses"][j])?;
                    measured.within("micro", off, limits.loss, &place)?;
                }
            }
            let loss: f64 = losses.iter().sum();
            measured.within("loss", self.off(loss, |t| &t["steps"][step]["loss"])?, limits.loss, &place)?;
            if step == 0 {
                self.gradients(&mut session, &mut measured)?;
            }
            self.untouched(&mut session, step)?;
            let update = session.update().map_err(text)?;
            if update.skipped {
                return Err(format!("step {step} overflowed"));
            }
            let off = self.off(update.grad_norm, |t| &t["steps"][step]["grad_norm"])?;
            measured.within("norm", off, limits.grad_norm, &place)?;
            measured.within("rate", self.off(rate, |t| &t["steps"][step]["learning_rate"])?, 1e-12, &place)?;
            // The device stores the learning rate as f32.
            if update.learning_rate as f32 != rate as f32 {
                return Err(format!("step {step}: used learning rate {}, not {rate}", update.learning_rate));
            }
            let first = self.folder.join("adapter_step1.safetensors");
            if step == 0 && first.is_file() {
                let ours = read_adapter(&mut session).map_err(text)?;
                self.adapter("after 1", &ours, &|key| Tensors::open(&first)?.f32(key), 1, &mut measured)?;
            }
        }
        let ours = read_adapter(&mut session).map_err(text)?;
        let folder = self.twin.as_ref().filter(|_| self.compute == DType::F16).map_or(&self.folder, |(_, twin)| twin);
        let file = Tensors::open(folder.join("adapter_final/adapter_model.safetensors"))?;
        self.adapter("adapter", &ours, &|key| file.f32(key), rates.len(), &mut measured)?;
        session.begin().map_err(text)?;
        let loss = self.evaluate(&mut session, true)?;
        measured.within("eval", self.off(loss, |t| &t["eval"]["after"])?, limits.loss, "after")?;
        if let Some(folder) = std::env::var_os("HALFBYTE_KEEP").filter(|_| self.scheme.is_none()) {
            self.keep(&mut session, &Path::new(&folder).join(self.folder.file_name().ok_or("no name")?))?;
        }
        Ok(format!("{} steps: {measured}", rates.len()))
    }

    /// Saves the trained adapter and our logits of the evaluation batch for `tests/peft/check.py`.
    fn keep(&self, session: &mut Session, folder: &Path) -> Result<(), String> {
        let mut weights = read_adapter(session).map_err(text)?;
        let of = |m: &AdapterModule| weights.remove(&m.module.name).ok_or(format!("no adapter of {}", m.module.name));
        let weights = self.init.modules.iter().map(of).collect::<Result<_, _>>()?;
        let adapter = Adapter { weights, ..self.init.clone() };
        adapter.save(folder, None).map_err(text)?;
        let tokens = self.eval.batch.tokens();
        let all: Vec<usize> = (0..tokens).collect();
        let logits = session.logits(&self.eval.batch, &all, true).map_err(text)?;
        let logits: Vec<f32> = logits.iter().map(|&x| x as f32).collect();
        let integers = |name: &str, values: Vec<i32>| Output {
            name: name.into(),
            dtype: DType::I32,
            shape: vec![values.len()],
            data: values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
        };
        let lengths = self.eval.documents.iter().map(|d| d.ids.len() as i32).collect();
        let tensors = [
            Output::floats("logits".into(), DType::F32, vec![tokens, self.config.vocab_size], &logits),
            integers("input_ids", self.eval.batch.ids.clone()),
            integers("lengths", lengths),
        ];
        write(&folder.join("logits.safetensors"), &tensors).map_err(text)
    }

    /// Compares the accumulated gradients of the first step, before clipping.
    fn gradients(&self, session: &mut Session, measured: &mut Measured) -> Result<(), String> {
        let folder = self.twin.as_ref().map_or(&self.folder, |(_, folder)| folder);
        let file = Tensors::open(folder.join("grads_step0.safetensors"))?;
        let ours = read_gradients(session).map_err(text)?;
        let loss_scale = session.control().map_err(text)?[Control::LossScale as usize];
        let mut largest = 0.0f64;
        for name in file.names() {
            largest = file.f32(&name)?.iter().fold(largest, |m, g| m.max(f64::from(g.abs())));
        }
        let mut seen = 0;
        for (module, gradient) in &ours {
            for (key, ours) in keys(module).iter().zip([&gradient.a, &gradient.b]) {
                if !file.has(key) {
                    // PyTorch stores no gradient for an expert that received no token.
                    if ours.iter().any(|g| *g != 0.0) {
                        return Err(format!("{key} has a gradient, recorded none"));
                    }
                    continue;
                }
                seen += 1;
                let golden = file.f32(key)?;
                let ours: Vec<f64> = ours.iter().map(|&g| f64::from(g) / loss_scale).collect();
                let worst = distance(&ours, &golden).worst / largest;
                if self.compute == DType::F32 {
                    measured.within("gradient", worst, 1e-5, key)?;
                } else {
                    let (part, own) = (share(self.compute), &self.trace["compared_with"]);
                    let number = |key: &str| own[key].as_f64().ok_or(format!("compared_with has no {key}"));
                    let hf = number("max_abs_diff_grads_step0")? / largest;
                    measured.within("gradient", worst, part * FACTOR * hf, key)?;
                    let hf = 1.0 - number("min_cosine_grads_step0")?;
                    measured.within("1-cosine", 1.0 - cosine(&ours, &golden), part * FACTOR * hf, key)?;
                }
            }
        }
        match seen == file.names().len() {
            true => Ok(()),
            false => Err(format!("{seen} gradients compared, {} recorded", file.names().len())),
        }
    }

    /// Checks that AdamW skips exactly the parameters that have no gradient in PyTorch in this step. In 16 bit, rounding may
    /// send a token that is close to a tie to another expert, so one expert may differ.
    fn untouched(&self, session: &mut Session, step: usize) -> Result<(), String> {
        let Some(golden) = self.trace["steps"][step]["parameters_without_gradient"].as_array() else { return Ok(()) };
        let golden: HashSet<&str> = golden.iter().filter_map(Value::as_str).collect();
        let touched = session.read_bytes(session.model.params.touched).map_err(text)?;
        let is_touched = |i: usize| touched[4 * i..4 * i + 4] != [0; 4];
        let skipped = session.model.params.adapter.iter().filter(|t| t.touched.is_some_and(|i| !is_touched(i)));
        let ours: HashSet<String> = skipped.flat_map(|t| keys(&t.module)).collect();
        let ours: HashSet<&str> = ours.iter().map(String::as_str).collect();
        // `…layers.1.mlp.experts.8`
        let expert = |key: &&str| {
            key.find("experts.").map(|at| key[..at + 8 + key[at + 8..].find('.').unwrap_or(0)].to_string())
        };
        let other: HashSet<_> = ours.symmetric_difference(&golden).map(expert).collect();
        match other.len() <= usize::from(self.compute != DType::F32) {
            true => Ok(()),
            false => Err(format!("step {step}: {} parameters are skipped, recorded {}", ours.len(), golden.len())),
        }
    }

    /// Compares our adapter after `steps` steps with the recorded one.
    fn adapter(
        &self,
        what: &str,
        ours: &HashMap<String, LoraWeights>,
        recorded: &dyn Fn(&str) -> Result<Vec<f32>, String>,
        steps: usize,
        measured: &mut Measured,
    ) -> Result<(), String> {
        let (mut difference, mut change, mut worst) = (0.0f64, 0.0f64, 0.0f64);
        for (module, init) in self.init.modules.iter().zip(&self.init.weights) {
            let name = &module.module.name;
            let ours = ours.get(name).ok_or(format!("no adapter of {name}"))?;
            for (key, (ours, init)) in keys(name).iter().zip([(&ours.a, &init.a), (&ours.b, &init.b)]) {
                let golden = recorded(key)?;
                if golden.len() != ours.len() {
                    return Err(format!("{key} has {} values, recorded {}", ours.len(), golden.len()));
                }
                for ((o, g), i) in ours.iter().zip(&golden).zip(init) {
                    let d = f64::from(o - g);
                    difference += d * d;
                    change += f64::from(g - i).powi(2);
                    worst = worst.max(if d.is_nan() { f64::INFINITY } else { d.abs() });
                }
            }
        }
        let (eight_bit, last) = (self.spec["optim"] == "bnb_adamw8bit", steps == self.steps.len());
        if last || eight_bit {
            // The first step of a warm-up has learning rate 0 and changes nothing.
            let share = if difference == 0.0 { 0.0 } else { (difference / change).sqrt() };
            measured.within(what, share, self.limits.adapter, "relative L2")?;
        }
        // After one step, only single elements can be compared: Adam's first update is g / (|g| + ε), so rounding
        // errors of the few gradients that are as small as ε change the L2 norm by up to 1e-3.
        if self.compute == DType::F32 && !eight_bit {
            let limit = 0.1 * self.number("lr")? * steps as f64;
            measured.within(&format!("{what}, one element"), worst, limit, "")?;
        }
        Ok(())
    }

    /// Checks that recomputing blocks changes no bit of the gradients.
    fn same_bits(&self) -> Outcome {
        let run = |checkpointing| -> Result<_, String> {
            let mut session = self.session(&self.init, checkpointing)?;
            let losses = self.accumulate(&mut session, 0)?;
            let (_, gradient) = session.model.params.master.ok_or("no adapter")?;
            Ok((losses, session.read_bytes(gradient).map_err(text)?))
        };
        let (with, without) = (run(true)?, run(false)?);
        match with == without && with.1.iter().any(|b| *b != 0) {
            true => Ok(format!("{} bytes of gradients equal", with.1.len())),
            false => Err("gradients or losses differ".into()),
        }
    }

    /// Compares the logits of the evaluation batch with the recorded adapters, before and after training.
    fn recorded(&self) -> Outcome {
        let mut measured = Measured::default();
        let mut session = self.session(&self.init, self.checkpointing)?;
        let file = Tensors::open(self.folder.join("eval_logits.safetensors"))?;
        let all: Vec<usize> = (0..self.eval.batch.tokens()).collect();
        let cols = self.config.vocab_size;
        for name in ["before", "after"] {
            if name == "after" {
                let last = Adapter::open(&self.folder.join("adapter_final"), &self.config).map_err(text)?;
                put_adapter(&mut session, &last)?;
            }
            let logits = session.logits(&self.eval.batch, &all, true).map_err(text)?;
            let golden = self.eval.pick(&file.f32(name)?, cols);
            let d = distance(&logits, &golden);
            let loss = self.evaluate(&mut session, true)?;
            if self.compute == DType::F32 {
                measured.within("logits", d.worst, 1e-4, name)?;
                measured.within("logits rms", d.relative, 1e-5, name)?;
                measured.within("loss", self.off(loss, |t| &t["eval"][name])?, 1e-5, name)?;
            } else {
                measured.within("loss", self.off(loss, |t| &t["eval"][name])?, self.limits.loss, name)?;
                // The twin starts from the same adapter but ends with another one, so only `before` can be compared. A
                // Mixtral's logits jump when rounding sends a token to another expert.
                if let (Some((_, twin)), "before", None) = (&self.twin, name, &self.config.experts) {
                    let exact = Tensors::open(twin.join("eval_logits.safetensors"))?.f32(name)?;
                    let exact = self.eval.pick(&exact, cols);
                    let hf: Vec<f64> = golden.iter().map(|&x| f64::from(x)).collect();
                    let hf = distance(&hf, &exact).relative;
                    let place = format!("HF is off by {hf:.2e}");
                    measured.within("logits rms", distance(&logits, &exact).relative, 1.5 * hf, &place)?;
                }
            }
        }
        Ok(format!("{} tokens: {measured}", all.len()))
    }

    /// Compares the evaluation loss of models with the final adapter merged into their weights.
    fn merged(&self) -> Outcome {
        let mut measured = Measured::default();
        let last = Adapter::open(&self.folder.join("adapter_final"), &self.config).map_err(text)?;
        let kinds = self.trace["eval"]["merged"].as_object().ok_or("no merged losses")?;
        for (kind, golden) in kinds {
            let setup = Setup {
                compute: DType::F32,
                load_as: DType::F32,
                scheme: None,
                adapter: None,
                tokens: self.eval.batch.tokens(),
                checkpointing: false,
                aux: None,
                optimizer: None,
            };
            let mut session = open(&self.model, setup, |_| false)?.0;
            self.put_merged(&mut session, &last, kind)?;
            let loss = self.evaluate(&mut session, false)?;
            let golden = golden.as_f64().ok_or("no loss")?;
            measured.within(kind, relative(loss, golden), 1e-5, "")?;
        }
        Ok(format!("{measured}"))
    }

    /// Overwrites the linears of an unquantized session with merged weights.
    fn put_merged(&self, session: &mut Session, last: &Adapter, kind: &str) -> Result<(), String> {
        let checkpoint = TensorFiles::open(&self.model).map_err(text)?;
        let store = if kind.contains("_bf16_") { DType::Bf16 } else { DType::F32 };
        // A tied head has no adapter in traces with merged weights, and stays the embedding.
        for module in linears(&self.config).into_iter().filter(|m| !(self.config.tied && m.leaf == HEAD)) {
            let at = last.modules.iter().position(|m| m.module.name == module.name);
            let adapter = at.map(|i| (&last.modules[i], &last.weights[i]));
            let scheme = self.scheme.filter(|_| is_quantized(&module, &[]) && !kind.ends_with("original"));
            let values = match (scheme, kind) {
                (Some(scheme), "merged_4bit_requantized") => {
                    let shape = [module.out_features, module.in_features];
                    let base = QuantizedWeight::from_checkpoint(&checkpoint, &module.name, shape, DType::F32, scheme);
                    let base = base.map_err(text)?;
                    adapter.map_or(base.clone(), |(m, w)| merge::requantized(&base, m, w)).dequantize()
                }
                _ => {
                    let base = scheme.map_or(MergeBase::Original, MergeBase::Dequantized);
                    merge::merged(&checkpoint, &module, adapter, base, DType::F32, store).map_err(text)?
                }
            };
            let name = module.weight();
            let place = session.model.params.weights.iter().find(|w| w.name == name).map(|w| w.fill);
            let Some(Fill::Dense(view)) = place else { return Err(format!("{name} is not dense")) };
            let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            session.write(view, &wide).map_err(text)?;
        }
        Ok(())
    }
}

/// Cosine of the angle between two vectors. 1 if both are zero.
fn cosine(a: &[f64], b: &[f32]) -> f64 {
    let dot = |x: &dyn Fn(usize) -> f64, y: &dyn Fn(usize) -> f64| (0..a.len()).map(|i| x(i) * y(i)).sum::<f64>();
    let (a_at, b_at) = (|i: usize| a[i], |i: usize| f64::from(b[i]));
    let size = (dot(&a_at, &a_at) * dot(&b_at, &b_at)).sqrt();
    if size == 0.0 && a.iter().all(|x| *x == 0.0) { 1.0 } else { dot(&a_at, &b_at) / size }
}
