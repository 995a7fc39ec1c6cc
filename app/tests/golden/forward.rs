//! `forward/<model>/<variant>`: logits, hidden states, router logits and losses of whole models.
//!
//! f32 ("exact"): equal within the rounding error of f32. bf16 ("rounded"): our error and HF's are both measured from
//! the f32 numbers, and ours may be at most 1.5 times as large as HF's. The limit on a loss follows from HF's error in
//! single tokens and from their number. The bf16 cases of dense models also run in f16,
//! for which nothing was recorded: they are compared with the f32 numbers, at a quarter of the tolerance of bf16.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use halfbyte_core::dtype::DType;
use halfbyte_core::model::ModelConfig;
use halfbyte_core::op::Phase;
use halfbyte_core::session::batch::{IGNORED, num_items};
use halfbyte_core::session::{EvalLoss, Session};
use serde_json::Value;

use crate::rig::{Measured, Seen, Setup, Stream, distance, dtype, open, refused, relative, scheme, share, text};
use crate::tensors::{Tensors, json, stems};
use crate::ties::far_from_ties;
use crate::walk::{Case, Outcome};

pub fn cases(root: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for model in stems(&root.join("forward"), "") {
        let folder = root.join("forward").join(&model);
        let meta = json(&folder.join("meta.json")).unwrap_or_default();
        if let Some(reason) = refused(&root.join("models").join(&model)) {
            cases.push(Case::skipped(model, reason));
            continue;
        }
        for variant in stems(&folder, ".safetensors").into_iter().filter(|v| v != "inputs") {
            let facts = meta["variants"][&variant].clone();
            let recorded = dtype(&facts["compute_dtype"]);
            let is_rounded = recorded.as_ref().is_ok_and(|compute| *compute != DType::F32);
            let has_experts = facts["cases"]["padded"]["aux_loss"].is_number();
            let names: Vec<String> = facts["cases"].as_object().into_iter().flatten().map(|(n, _)| n.clone()).collect();
            if names.is_empty() {
                let wrong = format!("{variant}.safetensors has no case in meta.json");
                cases.push(Case::new(format!("{model}/{variant}"), move || Err(wrong)));
            }
            let mut types = vec![(variant.clone(), recorded)];
            if is_rounded && !has_experts {
                types.push((format!("{variant} as f16"), Ok(DType::F16)));
            }
            for (name, compute) in types {
                // All cases of a variant share one session.
                let shared: Rc<RefCell<Option<Loaded>>> = Rc::default();
                let checkpoint = root.join("models").join(&model);
                let (folder, title, facts) = (folder.clone(), variant.clone(), facts.clone());
                let make = Rc::new(move || Loaded::new(&checkpoint, &folder, &title, compute.clone()?, facts.clone()));
                for case in names.clone() {
                    let (shared, make) = (shared.clone(), make.clone());
                    cases.push(Case::new(format!("{model}/{name} {case}"), move || {
                        Loaded::once(&mut shared.borrow_mut(), &*make)?.compare(&case)
                    }));
                }
                if is_rounded && has_experts {
                    cases.push(Case::new(format!("{model}/{name} all cases"), move || {
                        Loaded::once(&mut shared.borrow_mut(), &*make)?.rounded_together()
                    }));
                }
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
    /// The facts of this variant in meta.json.
    facts: Value,
    /// For a bf16 variant, the tensors and facts of the f32 variant.
    reference: Option<(Tensors, Value)>,
    /// For a bf16 variant, the error of HF's log-probability of a token, see [`Loaded::hf_token_error`].
    token_error: f64,
}

/// The outputs of one run.
struct Run {
    logits: Vec<f64>,
    loss: f64,
    /// The auxiliary loss, without its coefficient.
    aux: f64,
    predicted: usize,
}

impl Loaded {
    /// Returns the value in `shared`, and makes it first if there is none.
    fn once<'a>(shared: &'a mut Option<Self>, make: &dyn Fn() -> Result<Self, String>) -> Result<&'a mut Self, String> {
        if shared.is_none() {
            *shared = Some(make()?);
        }
        shared.as_mut().ok_or("just made".into())
    }

    fn new(model: &Path, folder: &Path, variant: &str, compute: DType, facts: Value) -> Result<Self, String> {
        let config = halfbyte::config::config_json::open(model).map_err(text)?;
        let inputs = Tensors::open(folder.join("inputs.safetensors"))?;
        let names: Vec<String> = facts["cases"].as_object().into_iter().flatten().map(|(n, _)| n.clone()).collect();
        let tokens = names.iter().map(|name| Ok(inputs.shape(&format!("{name}.input_ids"))?.iter().product()));
        // More than any batch has, so that a capacity of its own is not the number of live tokens.
        let longest = tokens.collect::<Result<Vec<usize>, String>>()?.into_iter().max().unwrap_or(0) + 3;
        let setup = Setup {
            compute,
            load_as: dtype(&facts["load_dtype"])?,
            scheme: scheme(&facts["quant"])?,
            adapter: None,
            tokens: longest,
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
        let recorded = Tensors::open(folder.join(format!("{variant}.safetensors")))?;
        let facts = facts["cases"].clone();
        let mut loaded = Self { session, seen, config, inputs, recorded, facts, reference, token_error: 0.0 };
        if loaded.reference.is_some() {
            loaded.token_error = loaded.hf_token_error(&names)?;
        }
        Ok(loaded)
    }

    /// Root mean square, over the predicted tokens of all cases, of the error that HF's own rounding makes in a token's
    /// log-probability.
    fn hf_token_error(&self, names: &[String]) -> Result<f64, String> {
        let (exact, _) = self.reference.as_ref().ok_or("no f32 twin")?;
        let cols = self.config.vocab_size;
        let (mut squares, mut count) = (0.0, 0);
        for name in names {
            let stream = Stream::read(&self.inputs, name, self.config.sliding_window)?;
            let read = |file: &Tensors| Ok::<_, String>(stream.pick(&file.f32(&format!("{name}.logits"))?, cols));
            let (theirs, golden) = (read(&self.recorded)?, read(exact)?);
            for (t, &target) in stream.batch.targets.iter().enumerate().filter(|(_, target)| **target != IGNORED) {
                let logp = |logits: &[f32]| log_probability(&logits[t * cols..][..cols], target as usize);
                squares += (logp(&theirs) - logp(&golden)).powi(2);
                count += 1;
            }
        }
        Ok((squares / f64::from(count.max(1))).sqrt())
    }

    fn run(&mut self, stream: &Stream) -> Result<Run, String> {
        let all: Vec<usize> = (0..stream.batch.tokens()).collect();
        let logits = self.session.logits(&stream.batch, &all, false).map_err(text)?;
        let EvalLoss { logp, aux, .. } = self.session.eval(&stream.batch, false).map_err(text)?;
        let coef = self.config.experts.as_ref().map_or(1.0, |e| e.aux_loss_coef);
        Ok(Run { logits, loss: -logp.iter().sum::<f64>(), aux: aux / coef, predicted: stream.batch.predicted() })
    }

    /// The content of the buffer after the last op that wrote it.
    fn seen(&self, name: &str) -> Result<Vec<f64>, String> {
        let seen = self.seen.lock().map_err(text)?;
        seen.get(&(Phase::Eval { adapter: false }, name.to_string()))
            .cloned()
            .ok_or(format!("{name} was never written"))
    }

    fn compare(&mut self, case: &str) -> Outcome {
        match (&self.reference, &self.config.experts) {
            (None, _) => self.exact(case),
            (Some(_), None) => {
                let (error, measured) = self.rounded(case)?;
                error.check(measured, share(self.session.model.spec.compute))
            }
            // In a single case, the choice of experts depends on rounding for most tokens. Therefore the remaining
            // tokens of all cases are compared together.
            (Some(_), Some(_)) => Ok(format!("{}", self.rounded(case)?.1)),
        }
    }

    /// Compares all recorded numbers of one case in f32.
    fn exact(&mut self, case: &str) -> Outcome {
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
        self.losses(&run, &stream, &self.facts[case], None, 1e-5, &mut measured)?;
        Ok(format!("{compared} tensors, {measured}"))
    }

    /// Compares the recorded losses: each must be within `limit` of the one in `facts` or of the one in `other`.
    fn losses(
        &self,
        run: &Run,
        stream: &Stream,
        facts: &Value,
        other: Option<&Value>,
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
            // The auxiliary loss counts tokens per expert: in bf16 it jumps when rounding sends a token to another
            // expert, so it has no separate tolerance there.
            if name.contains("aux") && self.config.experts.is_none() || name == "aux_loss" && other.is_some() {
                continue;
            }
            if facts[name] == "nan" && ours.is_nan() {
                continue;
            }
            let golden = |facts: &Value| facts[name].as_f64().ok_or(format!("{name} is {}, ours {ours}", facts[name]));
            let off = relative(ours, golden(facts)?);
            let off = match other {
                Some(other) => off.min(relative(ours, golden(other)?)),
                None => off,
            };
            measured.within(name, off, limit, "")?;
        }
        Ok(())
    }

    /// Measures our error and HF's in bf16, both from HF's f32 numbers, on the comparable tokens. Checks the
    /// losses, too.
    fn rounded(&mut self, case: &str) -> Result<(RoundedError, Measured), String> {
        let stream = Stream::read(&self.inputs, case, self.config.sliding_window)?;
        let run = self.run(&stream)?;
        let (exact, exact_facts) = self.reference.as_ref().ok_or("no f32 twin")?;
        let key = format!("{case}.logits");
        let cols = self.config.vocab_size;
        let theirs = stream.pick(&self.recorded.f32(&key)?, cols);
        let golden = stream.pick(&exact.f32(&key)?, cols);
        let stable = stable_tokens(exact, case, &stream, &self.config)?;
        let mut error = RoundedError { tokens: stable.len(), of: stream.rows.len(), ..RoundedError::default() };
        for i in stable.iter().flat_map(|t| t * cols..(t + 1) * cols) {
            let g = f64::from(golden[i]);
            error.ours += (run.logits[i] - g).powi(2);
            error.hf += (f64::from(theirs[i]) - g).powi(2);
            error.size += g * g;
        }
        let mut measured = Measured::default();
        let compute = self.session.model.spec.compute;
        // The mean of n tokens, each of which HF's rounding moves by `token_error`: three standard deviations.
        let mean = exact_facts[case]["loss"].as_f64().unwrap_or(f64::NAN);
        let limit = match run.predicted {
            0 => 0.0,
            n => share(compute) * 3.0 * self.token_error / (n as f64).sqrt() / mean,
        };
        let other = Some(&self.facts[case]).filter(|_| compute == DType::Bf16);
        self.losses(&run, &stream, &exact_facts[case], other, limit, &mut measured)?;
        Ok((error, measured))
    }

    /// Compares the logits of all cases of a Mixtral variant together.
    fn rounded_together(&mut self) -> Outcome {
        let names: Vec<String> = self.facts.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        let mut all = RoundedError::default();
        for case in names {
            let (error, _) = self.rounded(&case)?;
            all.tokens += error.tokens;
            all.of += error.of;
            all.ours += error.ours;
            all.hf += error.hf;
            all.size += error.size;
        }
        if all.tokens < FEWEST {
            return Err(format!("only {} of {} tokens can be compared", all.tokens, all.of));
        }
        // The two errors of a few tokens differ by chance, too.
        all.check(Measured::default(), 1.0 + 1.0 / (all.tokens as f64).sqrt())
    }
}

/// The fewest tokens for which the errors of a model with experts are compared.
const FEWEST: usize = 16;

/// The log-probability of `target`.
fn log_probability(logits: &[f32], target: usize) -> f64 {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x.into()));
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
    f64::from(logits[target]) - largest - sum.ln()
}

/// Squared errors in bf16, summed over the compared tokens.
#[derive(Default)]
struct RoundedError {
    tokens: usize,
    of: usize,
    ours: f64,
    hf: f64,
    /// Sum of the squares of the f32 logits.
    size: f64,
}

impl RoundedError {
    fn check(&self, mut measured: Measured, share: f64) -> Outcome {
        let (ours, hf) = ((self.ours / self.size).sqrt(), (self.hf / self.size).sqrt());
        measured.within("rms", ours, share * 1.5 * hf, &format!("HF is off by {hf:.2e}"))?;
        Ok(format!("{} of {} tokens, HF's rms {hf:.1e}, ours: {measured}", self.tokens, self.of))
    }
}

/// The tokens of the stream whose choice of experts does not depend on rounding; in a dense model, all tokens.
fn stable_tokens(exact: &Tensors, case: &str, stream: &Stream, config: &ModelConfig) -> Result<Vec<usize>, String> {
    let mut stable = vec![true; stream.rows.len()];
    if let Some(experts) = &config.experts {
        for layer in (0..config.layers).filter(|layer| config.experts_of(*layer).is_some()) {
            let logits = stream.pick(&exact.f32(&format!("{case}.router_logits.layer{layer}"))?, experts.count);
            let logits: Vec<f64> = logits.into_iter().map(f64::from).collect();
            stable
                .iter_mut()
                .zip(far_from_ties(&logits, experts.count, experts.per_token))
                .for_each(|(stable, far)| *stable &= far);
        }
    }
    Ok((0..stable.len()).filter(|&t| stable[t]).collect())
}
