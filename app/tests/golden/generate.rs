//! `generate/<model>/<run>`: greedy decoding, token by token, and the logits of every step. `warpers`: the
//! probabilities after temperature, top-k and top-p. Repetition penalty and min-p have no case here: they are not
//! implemented.

use std::path::{Path, PathBuf};

use halfbyte::generate::{Decoding, decode};
use halfbyte::weights::adapter::Adapter;
use halfbyte_core::device::cpu::sample::{Rule, keep};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::session::batch::MicroBatch;
use halfbyte_core::session::{Sampling, Session};
use serde_json::Value;

use crate::rig::{Measured, Setup, distance, dtype, ids, open, scheme, text, unlabeled};
use crate::tensors::{Tensors, json, stems};
use crate::walk::{Case, Outcome};

const NO_PENALTY: &str = "halfbyte has no repetition penalty";

pub fn cases(root: &Path) -> Vec<Case> {
    let folder = root.join("generate");
    let meta = json(&folder.join("meta.json")).unwrap_or_default();
    let mut cases = Vec::new();
    for model in stems(&folder, "") {
        for run in stems(&folder.join(&model), ".safetensors") {
            let facts = meta["greedy"][format!("{model}/{run}")].clone();
            let make = {
                let (root, file) = (root.to_path_buf(), folder.join(&model).join(format!("{run}.safetensors")));
                move || Run::new(&root, file, facts)
            };
            let mut add = |what: &str, compare: fn(&mut Run) -> Outcome| {
                let make = make.clone();
                cases.push(Case::new(format!("{model}/{run} {what}"), move || compare(&mut make()?)));
            };
            add("prompts", Run::prompts);
            let recorded = Tensors::open(folder.join(&model).join(format!("{run}.safetensors")));
            let names = recorded.map_or_else(|_| Vec::new(), |file| file.names());
            if names.iter().any(|name| name.ends_with(".eos.output_ids")) {
                add("end of text", Run::end_of_text);
            }
            if names.iter().any(|name| name == "batched.output_ids") {
                add("batch", Run::batch);
            }
            for name in names.iter().filter(|name| name.contains("repetition_penalty") && name.ends_with(".output_ids"))
            {
                cases.push(Case::skipped(format!("{model}/{run} {name}"), NO_PENALTY));
            }
        }
    }
    let file = folder.join("warpers.safetensors");
    for (config, facts) in meta["warpers"].as_object().filter(|_| file.is_file()).into_iter().flatten() {
        let (file, config, facts) = (file.clone(), config.clone(), facts.clone());
        let parameters: Vec<&String> = facts["parameters"].as_object().into_iter().flat_map(|p| p.keys()).collect();
        let name = format!("warpers {config}");
        cases.push(match parameters.iter().find(|p| !["temperature", "top_k", "top_p"].contains(&p.as_str())) {
            None => Case::new(name, move || warpers(&file, &config, &facts)),
            Some(parameter) if *parameter == "min_p" => Case::skipped(name, "halfbyte has no min_p"),
            Some(_) => Case::skipped(name, NO_PENALTY),
        });
    }
    cases
}

/// Compares the set of kept tokens and their probabilities.
fn warpers(file: &Path, config: &str, facts: &Value) -> Outcome {
    let file = Tensors::open(file)?;
    let number = |key: &str| facts["parameters"][key].as_f64();
    let rule = Rule {
        temperature: number("temperature").unwrap_or(1.0) as f32,
        top_k: number("top_k").unwrap_or(0.0) as usize,
        top_p: number("top_p").unwrap_or(1.0) as f32,
    };
    let mut measured = Measured::default();
    let mut rows = 0;
    for (logits, probs, counts) in [
        ("logits", format!("{config}.probs"), "kept_tokens"),
        ("ties.logits", format!("ties.{config}.probs"), "ties.kept_tokens"),
    ] {
        let Some(counts) = facts[counts].as_array() else { continue };
        let (logits, recorded) = (file.f32(logits)?, file.f32(&probs)?);
        let vocab = logits.len() / counts.len();
        for (row, count) in counts.iter().enumerate() {
            let kept = keep(&logits[row * vocab..][..vocab], &rule);
            if Some(kept.tokens.len() as u64) != count.as_u64() {
                return Err(format!("{probs}, row {row}: {} tokens kept, recorded {count}", kept.tokens.len()));
            }
            let mut ours = vec![0.0; vocab];
            let total = kept.total() as f64;
            kept.tokens.iter().zip(&kept.masses).for_each(|(i, mass)| ours[*i] = *mass as f64 / total);
            let recorded = &recorded[row * vocab..][..vocab];
            if let Some(i) = (0..vocab).find(|i| recorded[*i] > 0.0 && !kept.tokens.contains(i)) {
                return Err(format!("{probs}, row {row}: token {i} does not take part"));
            }
            measured.within("probability", distance(&ours, recorded).worst, 1e-5, &probs)?;
            rows += 1;
        }
    }
    Ok(format!("{rows} rows, {measured}"))
}

struct Run {
    session: Session,
    config: ModelConfig,
    file: Tensors,
    /// For a run in 16 bits, the same prompts in f32.
    exact: Option<Tensors>,
    facts: Value,
    adapter: bool,
}

impl Run {
    fn new(root: &Path, file: PathBuf, facts: Value) -> Result<Self, String> {
        let model = root.join(facts["model"].as_str().ok_or("the run is not in meta.json")?);
        let config = halfbyte::config::config_json::open(&model).map_err(text)?;
        let adapter = match facts["adapter"].as_str() {
            Some(folder) => Some(Adapter::open(&root.join(folder), &config).map_err(text)?),
            None => None,
        };
        let file = Tensors::open(file)?;
        let length = |name: String| file.shape(&name).map(|shape| shape.iter().product::<usize>()).unwrap_or(0);
        let longest = |of: &str| length(format!("{of}.input_ids")) + length(format!("{of}.output_ids"));
        let texts = file.names().into_iter().filter_map(|name| name.strip_suffix(".input_ids").map(longest));
        let setup = Setup {
            compute: dtype(&facts["compute"])?,
            load_as: dtype(&facts["compute"])?,
            scheme: scheme(&facts["quant"])?,
            adapter: adapter.as_ref(),
            tokens: texts.max().unwrap_or(0) + 3,
            checkpointing: false,
            aux: None,
            optimizer: None,
        };
        let session = open(&model, setup, |_| false)?.0;
        let exact = facts["f32"].as_str().map(|name| Tensors::open(root.join(name))).transpose()?;
        Ok(Self { session, config, file, exact, facts, adapter: adapter.is_some() })
    }

    /// The recorded prompts: prompt0, prompt1, …
    fn names(&self) -> Vec<String> {
        let is_prompt = |name: &&String| name.starts_with("prompt") && !name.contains('_');
        self.facts.as_object().into_iter().flatten().map(|(name, _)| name).filter(is_prompt).cloned().collect()
    }

    fn continued(&mut self, prompt: &[u32], count: usize, eos: &[u32]) -> Result<Vec<u32>, String> {
        let rule = Decoding { max_new_tokens: count, eos, adapter: self.adapter, sampling: Sampling::GREEDY };
        decode(&mut self.session, prompt, rule, |_| true).map_err(text)
    }

    /// Compares greedy texts in 16 bits with those in f32. Our logits of the f32 text may be 1.5 times as far off as HF's. A
    /// token may differ only where the two best logits are closer than HF's largest errors, once on each side.
    fn rounded_prompts(&mut self) -> Outcome {
        let (mut ours_squares, mut hf_squares, mut size) = (0.0, 0.0, 0.0);
        let (mut equal, mut hf_equal, mut tokens) = (0, 0, 0);
        for name in self.names() {
            let exact = self.exact.as_ref().ok_or("no f32 run")?;
            let golden = exact.f32(&format!("{name}.logits"))?;
            let prompt = ids(&exact.i64(&format!("{name}.input_ids"))?);
            let output = ids(&exact.i64(&format!("{name}.output_ids"))?);
            let (theirs, own) =
                (self.file.f32(&format!("{name}.logits"))?, ids(&self.file.i64(&format!("{name}.output_ids"))?));
            let all: Vec<u32> = prompt.iter().chain(&output).copied().collect();
            let batch = MicroBatch::new(&[&unlabeled(&all)], self.config.sliding_window);
            let rows: Vec<usize> = (prompt.len() - 1..all.len() - 1).collect();
            let logits = self.session.logits(&batch, &rows, self.adapter).map_err(text)?;
            let mut largest = 0.0_f64;
            for ((o, t), g) in logits.iter().zip(&theirs).zip(&golden) {
                let (t, g) = (f64::from(*t), f64::from(*g));
                ours_squares += (o - g).powi(2);
                hf_squares += (t - g).powi(2);
                size += g * g;
                largest = largest.max((t - g).abs());
            }
            let ours = self.continued(&prompt, output.len(), &[])?;
            let agreeing = |ids: &[u32]| ids.iter().zip(&output).take_while(|(a, b)| a == b).count();
            let first = agreeing(&ours);
            if let Some(row) = golden.chunks_exact(self.config.vocab_size).nth(first) {
                let mut sorted = row.to_vec();
                sorted.sort_by(|a, b| b.total_cmp(a));
                let gap = f64::from(sorted[0] - sorted[1]);
                if gap > 2.0 * largest {
                    return Err(format!("{name}: token {first} is {}, in f32 {} by {gap}", ours[first], output[first]));
                }
            }
            equal += first;
            hf_equal += agreeing(&own);
            tokens += output.len();
        }
        let mut measured = Measured::default();
        let (ours, hf) = ((ours_squares / size).sqrt(), (hf_squares / size).sqrt());
        measured.within("rms", ours, 1.5 * hf, &format!("HF is off by {hf:.2e}"))?;
        Ok(format!("{equal} of {tokens} tokens as in f32 (HF: {hf_equal}), HF's rms {hf:.1e}, ours: {measured}"))
    }

    fn prompts(&mut self) -> Outcome {
        if self.exact.is_some() {
            return self.rounded_prompts();
        }
        let mut measured = Measured::default();
        let mut tokens = 0;
        for name in self.names() {
            let prompt = ids(&self.file.i64(&format!("{name}.input_ids"))?);
            let output = ids(&self.file.i64(&format!("{name}.output_ids"))?);
            let ours = self.continued(&prompt, output.len(), &[])?;
            if ours != output {
                return Err(format!("{name}: {ours:?}, recorded {output:?}"));
            }
            tokens += output.len();
            // A token's logits do not depend on later tokens, so one run gives the logits of all steps.
            let all: Vec<u32> = prompt.iter().chain(&output).copied().collect();
            let batch = MicroBatch::new(&[&unlabeled(&all)], self.config.sliding_window);
            let rows: Vec<usize> = (prompt.len() - 1..all.len() - 1).collect();
            let logits = self.session.logits(&batch, &rows, self.adapter).map_err(text)?;
            let d = distance(&logits, &self.file.f32(&format!("{name}.logits"))?);
            measured.within("logits", d.worst, 1e-4, &name)?;
            measured.within("rms", d.relative, 1e-5, &name)?;
        }
        match tokens {
            0 => Err("no prompt".into()),
            _ => Ok(format!("{tokens} tokens equal, {measured}")),
        }
    }

    /// The end token is returned, and nothing after it.
    fn end_of_text(&mut self) -> Outcome {
        let mut lengths = Vec::new();
        for name in self.names() {
            let key = format!("{name}.eos.output_ids");
            if !self.file.has(&key) {
                continue;
            }
            let eos = self.facts[&name]["eos_case"]["eos_token_id"].as_u64().ok_or("no eos_token_id")? as u32;
            let prompt = ids(&self.file.i64(&format!("{name}.input_ids"))?);
            let output = ids(&self.file.i64(&key)?);
            let ours = self.continued(&prompt, 64, &[eos])?;
            if ours != output {
                return Err(format!("{name}: {ours:?}, recorded {output:?}"));
            }
            lengths.push(output.len());
        }
        if lengths.is_empty() { Err("no case".into()) } else { Ok(format!("{lengths:?} tokens equal")) }
    }

    /// The texts of a left-padded batch. Here they are concatenated in one stream, and each must behave as if it were
    /// alone.
    fn batch(&mut self) -> Outcome {
        let mask = self.file.i64("batched.attention_mask")?;
        let output = ids(&self.file.i64("batched.output_ids")?);
        let rows = self.file.shape("batched.input_ids")?[0];
        let (width, count) = (mask.len() / rows, output.len() / rows);
        let padded = ids(&self.file.i64("batched.input_ids")?);
        let prompt = |row: usize| {
            (row * width..(row + 1) * width).filter(|&i| mask[i] != 0).map(|i| padded[i]).collect::<Vec<_>>()
        };
        let mut texts: Vec<Vec<u32>> = (0..rows).map(prompt).collect();
        for step in 0..count {
            let documents: Vec<_> = texts.iter().map(|ids| unlabeled(ids)).collect();
            let batch = MicroBatch::new(&documents.iter().collect::<Vec<_>>(), self.config.sliding_window);
            let ends = texts.iter().scan(0, |end, ids| {
                *end += ids.len();
                Some(*end - 1)
            });
            let ends: Vec<usize> = ends.collect();
            let logits = self.session.logits(&batch, &ends, self.adapter).map_err(text)?;
            for (row, logits) in logits.chunks_exact(self.config.vocab_size).enumerate() {
                let next = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0) as u32;
                if next != output[row * count + step] {
                    return Err(format!("row {row}, step {step}: {next}, recorded {}", output[row * count + step]));
                }
                texts[row].push(next);
            }
        }
        Ok(format!("{rows} rows of {count} tokens equal"))
    }
}
