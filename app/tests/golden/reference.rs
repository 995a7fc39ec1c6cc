//! Compares the trained models in the folders of `HALFBYTE_DATA` with numbers from transformers
//! (`models/<m>/reference.safetensors`): logits, loss and router logits of one text, the gradients of every weight if they
//! were recorded, and greedy decoding. `app/tests/smollm2/record.py` makes such a folder of a published model.

use std::path::{Path, PathBuf};

use halfbyte::config::lora::{LoraConfig, Targets};
use halfbyte::data::document::open_tokenizer;
use halfbyte::generate::{Decoding, decode};
use halfbyte::weights::adapter::{Adapter, LoraWeights};
use halfbyte::weights::load::read_gradients;
use halfbyte::weights::targets::resolve;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::ModelConfig;
use halfbyte_core::model::{OptimizerKind, OptimizerSpec};
use halfbyte_core::op::{Betas, ControlRule, Phase};
use halfbyte_core::session::batch::{Document, MicroBatch};
use halfbyte_core::session::{Sampling, Session};

use crate::rig::{Measured, Seen, Setup, distance, ids, open, relative, text, unlabeled};
use crate::tensors::{Tensors, stems};
use crate::walk::{Case, Outcome};

pub fn cases(root: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for model in stems(&root.join("models"), "") {
        let folder = root.join("models").join(&model);
        let mut add = |what: &str, file: &str, compare: fn(PathBuf) -> Outcome| {
            if folder.join(file).is_file() {
                let folder = folder.clone();
                cases.push(Case::new(format!("{model} {what}"), move || compare(folder)));
            }
        };
        add("forward", "reference.safetensors", forward);
        add("gradients", "reference.safetensors", gradients);
        add("greedy", "reference.safetensors", greedy_ids);
        add("greedy text", "expected_greedy.txt", greedy_text);
    }
    cases
}

fn session(folder: &Path, adapter: Option<&Adapter>, tokens: usize) -> Result<(Session, Seen), String> {
    let optimizer = OptimizerSpec {
        state: OptimizerKind::Torch,
        betas: Betas { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        weight_decay: 0.0,
        rule: ControlRule { max_norm: None, growth_interval: None },
        updates: 1,
        lora_b_factor: 1.0,
        paging: None,
    };
    let setup = Setup {
        compute: DType::F32,
        load_as: DType::F32,
        scheme: None,
        adapter,
        tokens,
        checkpointing: true,
        aux: None,
        optimizer: adapter.map(|_| optimizer),
    };
    open(folder, setup, |name| name.ends_with(".router"))
}

/// The reference text: a document in which every token is predicted from the earlier ones.
fn reference(folder: &Path) -> Result<(Tensors, ModelConfig, Document, MicroBatch), String> {
    let file = Tensors::open(folder.join("reference.safetensors"))?;
    let config = halfbyte::config::config_json::open(folder).map_err(text)?;
    let ids = ids(&file.i64("input_ids")?);
    let document = Document { labels: ids.iter().map(|&id| id as i32).collect(), ids };
    let batch = MicroBatch::new(&[&document], config.sliding_window);
    Ok((file, config, document, batch))
}

fn forward(folder: PathBuf) -> Outcome {
    let (file, config, document, batch) = reference(&folder)?;
    let (mut session, seen) = session(&folder, None, document.ids.len())?;
    let mut measured = Measured::default();
    let all: Vec<usize> = (0..batch.tokens()).collect();
    let logits = session.logits(&batch, &all, false).map_err(text)?;
    let d = distance(&logits, &file.f32("logits")?);
    measured.within("logits", d.worst, 1e-4, "")?;
    measured.within("rms", d.relative, 1e-5, "")?;
    let logp = session.eval(&batch, false).map_err(text)?.logp;
    let loss = -logp.iter().sum::<f64>() / batch.predicted() as f64;
    let recorded: f64 = file.f32("loss")?[0].into();
    measured.within("loss", relative(loss, recorded), 1e-5, "")?;
    measured.within("perplexity", relative(loss.exp(), recorded.exp()), 1e-4, "")?;
    for layer in (0..config.layers).filter(|_| config.experts.is_some()) {
        let key = (Phase::Eval { adapter: false }, format!("layers.{layer}.router"));
        let ours = seen.lock().map_err(text)?.get(&key).cloned().ok_or("no router logits")?;
        let d = distance(&ours, &file.f32(&format!("router_logits.{layer}"))?);
        measured.within("router", d.worst, 1e-4, "")?;
        measured.within("router rms", d.relative, 1e-5, "")?;
    }
    Ok(format!("{} tokens: {measured}", all.len()))
}

/// We compute no gradients of weights, but those of adapters follow from them: with y = Wx + s·B(Ax), dB = s·dW·Aᵀ and
/// dA = s·Bᵀ·dW. If A or B is zero, the adapter does not change the model, and dW is the recorded gradient.
fn gradients(folder: PathBuf) -> Outcome {
    let (file, config, document, batch) = reference(&folder)?;
    if !file.names().iter().any(|name| name.starts_with("grad.")) {
        return Ok("none were recorded".into());
    }
    let lora = LoraConfig { r: 4, alpha: 6.0, targets: Targets::AllLinear, ..LoraConfig::default() };
    let modules = resolve(&lora, &config).map_err(text)?.modules;
    let scale = modules[0].scale;
    let mut measured = Measured::default();
    let mut compared = 0;
    for b_is_zero in [true, false] {
        let mut state = 1u64;
        // Any matrix will do; these are pseudorandom numbers.
        let mut noise = |n: usize| -> Vec<f32> {
            let next = |_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 0.5
            };
            (0..n).map(next).collect()
        };
        let weights = modules.iter().map(|m| {
            let (n_a, n_b) = (m.r * m.module.in_features, m.module.out_features * m.r);
            match b_is_zero {
                true => LoraWeights { a: noise(n_a), b: vec![0.0; n_b] },
                false => LoraWeights { a: vec![0.0; n_a], b: noise(n_b) },
            }
        });
        let weights = weights.collect();
        let adapter = Adapter { config: lora.clone(), base_model: None, modules: modules.clone(), weights, head: None };
        let (mut session, _) = session(&folder, Some(&adapter), document.ids.len() + 5)?;
        session.micro(&batch, batch.predicted(), [0, 0]).map_err(text)?;
        let ours = read_gradients(&mut session).map_err(text)?;
        let mut expected = Vec::new();
        for (m, w) in adapter.modules.iter().zip(&adapter.weights) {
            let dw = file.f32(&format!("grad.{}.weight", m.module.name))?;
            let (input, r) = (m.module.in_features, m.r);
            let mut db = vec![0.0f64; m.module.out_features * r];
            let mut da = vec![0.0f64; r * input];
            for (o, row) in dw.chunks_exact(input).enumerate() {
                for k in 0..r {
                    let a = &w.a[k * input..][..input];
                    db[o * r + k] = scale * row.iter().zip(a).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
                    let b = scale * f64::from(w.b[o * r + k]);
                    da[k * input..][..input].iter_mut().zip(row).for_each(|(d, x)| *d += b * f64::from(*x));
                }
            }
            expected.push((&m.module.name, da, db));
        }
        let values = || expected.iter().flat_map(|(_, a, b)| a.iter().chain(b));
        let largest = values().fold(0.0f64, |m, g| m.max(g.abs()));
        for (name, da, db) in &expected {
            let ours = ours.get(*name).ok_or(format!("no gradient of {name}"))?;
            for (ours, golden) in [(&ours.a, da), (&ours.b, db)] {
                let golden: Vec<f32> = golden.iter().map(|&x| x as f32).collect();
                let ours: Vec<f64> = ours.iter().map(|&x| f64::from(x)).collect();
                measured.within("worst", distance(&ours, &golden).worst / largest, 1e-5, name)?;
            }
        }
        compared += modules.len();
    }
    Ok(format!("{compared} matrices, of the largest: {measured}"))
}

/// Compares the recorded continuation. If our two best logits differ by less than twice the tolerance of logits, their
/// order is undetermined, and the comparison ends.
fn greedy_ids(folder: PathBuf) -> Outcome {
    let (file, config, ..) = reference(&folder)?;
    let recorded = ids(&file.i64("greedy_ids")?);
    let (mut session, _) = session(&folder, None, recorded.len())?;
    // One run over the recorded text gives the choice at every position.
    let batch = MicroBatch::new(&[&unlabeled(&recorded)], config.sliding_window);
    let all: Vec<usize> = (0..recorded.len()).collect();
    let logits = session.logits(&batch, &all, false).map_err(text)?;
    let tokenizer = open_tokenizer(&folder).map_err(text)?;
    let prompt: Vec<u32> = tokenizer.bos().into_iter().chain(tokenizer.encode("Once upon a time")).collect();
    if !recorded.starts_with(&prompt) {
        return Err(format!("prompt {prompt:?}, recorded {:?}", &recorded[..prompt.len()]));
    }
    let rule = Decoding {
        max_new_tokens: recorded.len() - prompt.len(),
        eos: &config.eos_ids,
        adapter: false,
        sampling: Sampling::GREEDY,
    };
    let ours = decode(&mut session, &prompt, rule, |_| true).map_err(text)?;
    let recorded = &recorded[prompt.len()..];
    match (0..recorded.len()).find(|&i| ours.get(i) != Some(&recorded[i])) {
        None => Ok(format!("{} tokens equal", recorded.len())),
        Some(i) => {
            let mut row = logits[(prompt.len() + i - 1) * config.vocab_size..][..config.vocab_size].to_vec();
            row.sort_by(|a, b| b.total_cmp(a));
            match row[0] - row[1] < 2e-4 {
                true => Ok(format!("{i} of {} tokens equal, then a tie", recorded.len())),
                false => Err(format!("token {i} is {:?}, recorded {}", ours.get(i), recorded[i])),
            }
        }
    }
}

/// Compares the text that was published with the model: 256 steps from the begin-of-text token.
fn greedy_text(folder: PathBuf) -> Outcome {
    let config = halfbyte::config::config_json::open(&folder).map_err(text)?;
    let expected = std::fs::read_to_string(folder.join("expected_greedy.txt")).map_err(text)?;
    let (mut session, _) = session(&folder, None, 257)?;
    let tokenizer = open_tokenizer(&folder).map_err(text)?;
    let prompt = vec![config.bos_id.ok_or("no bos")?];
    let rule = Decoding { max_new_tokens: 256, eos: &[], adapter: false, sampling: Sampling::GREEDY };
    let ours = decode(&mut session, &prompt, rule, |_| true).map_err(text)?;
    let ours = tokenizer.decode(&ours).map_err(text)?;
    match ours.trim_end() == expected.trim_end() {
        true => Ok(format!("{} characters equal", expected.trim_end().chars().count())),
        false => Err(format!("{ours:?}")),
    }
}
