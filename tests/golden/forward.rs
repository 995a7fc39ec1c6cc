//! `forward/<model>/<variant>`: logits, hidden states, router logits and losses of whole models.
//!
//! f32 ("exact"): equal within what f32 itself leaves open. bf16 ("rounded"): both HF and we are off the f32 numbers, and we
//! must not be further off than HF is, but for a margin of a half.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use halfbyte::config::model::ModelConfig;
use halfbyte::data::batch::num_items;
use halfbyte::dtype::DType;
use halfbyte::op::Phase;
use halfbyte::train::session::Session;
use serde_json::Value;

use crate::rig::{Measured, Seen, Setup, Stream, distance, dtype, open, relative, scheme, text, wide};
use crate::tensors::{Tensors, json, stems};
use crate::walk::{Case, Outcome};

/// Tokens are compared in bf16 if the second and the third most probable expert are this far apart in f32, in every
/// layer: with closer ones the rounding decides which expert a token goes to.
const GAP: f64 = 0.05;

pub fn cases(root: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for model in stems(&root.join("forward"), "") {
        let folder = root.join("forward").join(&model);
        let meta = json(&folder.join("meta.json")).unwrap_or_default();
        for variant in stems(&folder, ".safetensors").into_iter().filter(|v| v != "inputs") {
            let facts = meta["variants"][&variant].clone();
            let names: Vec<String> = facts["cases"].as_object().into_iter().flatten().map(|(n, _)| n.clone()).collect();
            if names.is_empty() {
                let wrong = format!("{variant}.safetensors has no case in meta.json");
                cases.push(Case::new(format!("{model}/{variant}"), move || Err(wrong)));
            }
            // One session serves all cases of a variant.
            let shared: Rc<RefCell<Option<Loaded>>> = Rc::default();
            for case in names {
                let (root, folder, variant) = (root.to_path_buf(), folder.clone(), variant.clone());
                let (shared, facts, model) = (shared.clone(), facts.clone(), root.join("models").join(&model));
                let title = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                cases.push(Case::new(format!("{title}/{variant} {case}"), move || {
                    let mut shared = shared.borrow_mut();
                    if shared.is_none() {
                        *shared = Some(Loaded::new(&root, &model, &folder, &variant, &facts)?);
                    }
                    let loaded = shared.as_mut().ok_or("no session")?;
                    let facts = &facts["cases"][&case];
                    match loaded.reference {
                        None => loaded.exact(&case, facts),
                        Some(_) => loaded.rounded(&case, facts),
                    }
                }));
            }
        }
    }
    cases
}

struct Loaded {
    session: Session,
    seen: Seen,
    config: ModelConfig,
    inputs: Tensors,
    recorded: Tensors,
    /// Of a bf16 variant: the same in f32, with its facts.
    reference: Option<(Tensors, Value)>,
}

/// What a run gave.
struct Run {
    logits: Vec<f64>,
    loss: f64,
    /// The auxiliary loss without its coefficient.
    aux: f64,
    predicted: usize,
}

impl Loaded {
    fn new(root: &Path, model: &Path, folder: &Path, variant: &str, facts: &Value) -> Result<Self, String> {
        let config = ModelConfig::open(model).map_err(text)?;
        let compute = dtype(&facts["compute_dtype"])?;
        let setup = Setup {
            compute,
            load_as: dtype(&facts["load_dtype"])?,
            scheme: scheme(&facts["quant"])?,
            adapter: None,
            tokens: 96,
            checkpointing: false,
            aux: config.experts.as_ref().map(|e| e.aux_loss_coef),
            optimizer: None,
        };
        let (session, seen) =
            open(model, setup, |name| name == "embedded" || name == "final_norm" || name.starts_with("layers."))?;
        let reference = match compute {
            DType::F32 => None,
            _ => {
                let twin = if variant == "bf16" { "fp32".into() } else { variant.replace("bf16", "f32") };
                let meta = json(&folder.join("meta.json"))?["variants"][&twin]["cases"].clone();
                Some((Tensors::open(folder.join(format!("{twin}.safetensors")))?, meta))
            }
        };
        let _ = root;
        Ok(Self {
            session,
            seen,
            config,
            inputs: Tensors::open(folder.join("inputs.safetensors"))?,
            recorded: Tensors::open(folder.join(format!("{variant}.safetensors")))?,
            reference,
        })
    }

    fn run(&mut self, stream: &Stream) -> Result<Run, String> {
        let all: Vec<usize> = (0..stream.batch.tokens()).collect();
        let logits = self.session.logits(&stream.batch, &all, false).map_err(text)?;
        let (logp, aux) = self.session.eval(&stream.batch, false).map_err(text)?;
        let coef = self.config.experts.as_ref().map_or(1.0, |e| e.aux_loss_coef);
        Ok(Run {
            logits,
            loss: -logp.iter().sum::<f64>(),
            aux: aux / coef,
            predicted: stream.batch.predicted(),
        })
    }

    /// What the buffer held after the last op that wrote it.
    fn seen(&self, name: &str) -> Result<Vec<f64>, String> {
        let seen = self.seen.lock().map_err(text)?;
        seen.get(&(Phase::Eval { adapter: false }, name.to_string())).cloned().ok_or(format!("{name} was never written"))
    }

    /// All recorded numbers of one case in f32.
    fn exact(&mut self, case: &str, facts: &Value) -> Outcome {
        let stream = Stream::read(&self.inputs, case, self.config.sliding_window)?;
        let run = self.run(&stream)?;
        let mut measured = Measured::default();
        let mut compared = 0;
        for key in self.recorded.names() {
            let Some(tensor) = key.strip_prefix(&format!("{case}.")) else { continue };
            let ours = if tensor == "logits" {
                run.logits.clone()
            } else if let Some(layer) = tensor.strip_prefix("router_logits.layer") {
                self.seen(&format!("layers.{layer}.router"))?
            } else if let Some(i) = tensor.strip_prefix("hidden.") {
                let i: usize = i.parse().map_err(text)?;
                match i {
                    0 => self.seen("embedded")?,
                    i if i == self.config.layers => self.seen("final_norm")?,
                    i => self.seen(&format!("layers.{}.out", i - 1))?,
                }
            } else {
                return Err(format!("no rule for {key}"));
            };
            let cols = *self.recorded.shape(&key)?.last().ok_or("no shape")?;
            let d = distance(&ours, &stream.pick(&self.recorded.f32(&key)?, cols));
            let what = tensor.split(['.']).next().unwrap_or(tensor);
            measured.within(what, d.worst, 1e-4, tensor)?;
            measured.within(&format!("{what} rms"), d.relative, 1e-5, tensor)?;
            compared += 1;
        }
        if compared == 0 {
            return Err("nothing was recorded".into());
        }
        self.losses(&run, &stream, facts, 1e-5, &mut measured)?;
        Ok(format!("{compared} tensors, {measured}"))
    }

    /// The four losses, each where it was recorded, within `limit` of itself.
    fn losses(
        &self,
        run: &Run,
        stream: &Stream,
        facts: &Value,
        limit: f64,
        measured: &mut Measured,
    ) -> Result<(), String> {
        let items = num_items(&stream.documents);
        if facts["predicted_tokens"] != run.predicted || facts["num_items_in_batch"] != items {
            return Err(format!("{} predicted tokens, {items} items; recorded {facts}", run.predicted));
        }
        let mean = run.loss / run.predicted as f64;
        let coef = self.config.experts.as_ref().map_or(0.0, |e| e.aux_loss_coef);
        let losses = [
            ("loss", mean),
            ("loss_num_items", run.loss / items as f64),
            ("aux_loss", run.aux),
            ("loss_with_aux", mean + coef * run.aux),
        ];
        for (name, ours) in losses {
            match &facts[name] {
                Value::Null if name.contains("aux") && self.config.experts.is_none() => {}
                Value::String(nan) if nan == "nan" && ours.is_nan() => {}
                golden => {
                    let golden = golden.as_f64().ok_or(format!("{name} is {golden}, ours {ours}"))?;
                    measured.within(name, relative(ours, golden), limit, "")?;
                }
            }
        }
        Ok(())
    }

    /// Our error in bf16 against HF's, both measured from HF's f32.
    fn rounded(&mut self, case: &str, facts: &Value) -> Outcome {
        let stream = Stream::read(&self.inputs, case, self.config.sliding_window)?;
        let run = self.run(&stream)?;
        let (exact, exact_facts) = self.reference.as_ref().ok_or("no f32 twin")?;
        let key = format!("{case}.logits");
        let cols = self.config.vocab_size;
        let (theirs, exact_logits) =
            (stream.pick(&self.recorded.f32(&key)?, cols), stream.pick(&exact.f32(&key)?, cols));
        let stable = stable_tokens(exact, case, &stream, &self.config)?;
        let chosen = |rows: &[f64]| -> Vec<f64> {
            stable.iter().flat_map(|&t| &rows[t * cols..][..cols]).copied().collect()
        };
        let golden: Vec<f32> = chosen(&wide(&exact_logits)).iter().map(|&x| x as f32).collect();
        let ours = distance(&chosen(&run.logits), &golden);
        let hf = distance(&chosen(&wide(&theirs)), &golden);
        let share = stable.len() as f64 / stream.rows.len() as f64;
        let mut measured = Measured::default();
        measured.within("rms", ours.relative, 1.5 * hf.relative, &format!("HF {:.2e}, share {share:.2}", hf.relative))?;
        let limit = if self.config.experts.is_some() { 6e-3 } else { 2e-3 };
        self.losses(&run, &stream, &exact_facts[case], limit, &mut measured)?;
        let _ = facts;
        Ok(format!("{} of {} tokens, HF rms {:.1e}, {measured}", stable.len(), stream.rows.len(), hf.relative))
    }
}

/// Tokens (of the stream) whose choice of experts does not hang on a rounding; all of a dense model.
fn stable_tokens(exact: &Tensors, case: &str, stream: &Stream, config: &ModelConfig) -> Result<Vec<usize>, String> {
    let mut stable = vec![true; stream.rows.len()];
    if let Some(experts) = &config.experts {
        for layer in 0..config.layers {
            let logits = stream.pick(&exact.f32(&format!("{case}.router_logits.layer{layer}"))?, experts.count);
            for (stable, logits) in stable.iter_mut().zip(logits.chunks_exact(experts.count)) {
                let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
                let mut shares: Vec<f64> = logits.iter().map(|&l| f64::from(l).exp() / sum).collect();
                shares.sort_by(|a, b| b.total_cmp(a));
                *stable &= shares[1] - shares[2] >= GAP;
            }
        }
    }
    Ok((0..stable.len()).filter(|&t| stable[t]).collect())
}
