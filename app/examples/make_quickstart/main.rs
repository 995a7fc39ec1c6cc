//! Generates the quickstart's assets from scratch: rows, tokenizer, random weights, training, merging. `world` holds
//! the facts, `prose` writes the text that the base model is made from, `tasks` the instruction set that it is
//! fine-tuned on.
//!
//! ```text
//! cargo run --release --example make_quickstart -- [OUT_FOLDER]
//! ```
//!
//! The recipe is `docs/recipes/quickstart-base.toml`. It takes about ten minutes on two cores and writes the weights to
//! the folder every 200 steps.

mod prose;
mod tasks;
mod world;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use halfbyte::config::lora::{LoraConfig, Pattern, Targets};
use halfbyte::disk::write::write_text;
use halfbyte::train::schedule::{Schedule, ScheduleKind};
use halfbyte::weights::load::read_adapter;
use halfbyte::weights::merge::{add, delta};
use halfbyte::weights::names::tensors;
use halfbyte::weights::safetensors::{Output, write};
use halfbyte::weights::targets::{Resolution, resolve};
use halfbyte_core::device::cpu::{Cpu, CpuOptions};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::model::{AdapterSpec, Fill, LossSpec, OptimizerKind, OptimizerSpec, Spec, record};
use halfbyte_core::op::{Betas, ControlRule};
use halfbyte_core::session::Session;
use halfbyte_core::session::batch::{Document, MicroBatch, num_items};
use halfbyte_core::session::init::{init_adapter, init_optimizer};
use halfbyte_core::tape::Policy;
use halfbyte_tokenizer::{Tokenizer, Trainer};
use prose::passage;
use serde::Deserialize;
use tasks::{jsonl, tasks};
use world::Dice;

const RECIPE: &str = include_str!("../../../docs/recipes/quickstart-base.toml");

#[derive(Deserialize)]
struct Recipe {
    seed: u64,
    vocab_size: usize,
    model: serde_json::Map<String, serde_json::Value>,
    init: Init,
    training: Training,
}

#[derive(Deserialize)]
struct Init {
    embedding: f64,
    linear: f64,
}

#[derive(Deserialize)]
struct Training {
    max_steps: usize,
    tokens_per_step: usize,
    learning_rate: f64,
    warmup_steps: usize,
    lr_scheduler_type: String,
    r: usize,
    lora_alpha: f64,
    adam_beta2: f64,
    max_grad_norm: f64,
}

/// Base weights by tensor name.
type Weights = HashMap<String, Vec<f32>>;

fn main() -> Result<()> {
    let out = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "app/assets/quickstart".into()));
    std::fs::create_dir_all(&out).map_err(|e| Error::io("create", &out, e))?;
    let recipe: Recipe = toml::from_str(RECIPE).map_err(|e| Error::usage(e.to_string()))?;

    let tokenizer = make_tokenizer(&recipe, &out)?;
    let config = make_config(&recipe, &out)?;
    let weights = draw(&recipe, &config);
    train(&recipe, &tokenizer, &config, weights, &out)
}

fn make_tokenizer(recipe: &Recipe, out: &Path) -> Result<Tokenizer> {
    let mut texts: Vec<String> = (0..20_000).map(|i| passage(recipe.seed, i)).collect();
    let rows = tasks();
    write_text(&out.join("train.jsonl"), &jsonl(&rows.train))?;
    write_text(&out.join("held_out.jsonl"), &jsonl(&rows.held_out))?;
    for row in rows.train.iter().chain(&rows.held_out) {
        texts.push(tasks::text(row));
    }
    let trainer = Trainer { vocab_size: recipe.vocab_size, character_coverage: 1.0, ..Trainer::default() };
    let failed = |e: halfbyte_tokenizer::Error| Error::run(format!("the tokenizer: {e}"));
    let model = trainer.train(&texts).map_err(failed)?;
    let file = out.join("tokenizer.model");
    std::fs::write(&file, model.to_bytes()).map_err(|e| Error::io("write", &file, e))?;
    let settings = serde_json::json!({
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "add_eos_token": false, "legacy": true,
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 512,
        "clean_up_tokenization_spaces": false,
    });
    write_text(&out.join("tokenizer_config.json"), &format!("{settings:#}\n"))?;
    Tokenizer::from_model(model).map_err(failed)
}

fn make_config(recipe: &Recipe, out: &Path) -> Result<ModelConfig> {
    let mut fields = recipe.model.clone();
    fields.insert("vocab_size".into(), recipe.vocab_size.into());
    let text = format!("{:#}\n", serde_json::Value::Object(fields));
    let file = out.join("config.json");
    write_text(&file, &text)?;
    halfbyte::config::config_json::parse(&text, &file)
}

/// Random weights, rounded to values that the file's type can represent.
fn draw(recipe: &Recipe, config: &ModelConfig) -> Weights {
    let mut dice = Dice::new(recipe.seed);
    // The sum of twelve uniform numbers is near enough to a normal one.
    let mut normal = || (0..12).map(|_| dice.below(1 << 24) as f64 / (1 << 24) as f64).sum::<f64>() - 6.0;
    let dtype = config.torch_dtype.unwrap_or(DType::Bf16);
    let slots = tensors(config).into_iter().map(|slot| {
        let size = slot.shape.iter().product();
        let deviation = match slot.shape[..] {
            [_, _] if slot.name.contains("embed") => recipe.init.embedding,
            // What is added to the stream starts small, the more so the more layers add to it.
            [_, cols] if slot.name.contains("o_proj") || slot.name.contains("down_proj") => {
                recipe.init.linear / (2.0 * config.layers as f64 * cols as f64).sqrt()
            }
            [_, cols] if slot.name.contains("lm_head") => 0.1 * recipe.init.linear / (cols as f64).sqrt(),
            [_, cols] => recipe.init.linear / (cols as f64).sqrt(),
            _ => return (slot.name, vec![1.0; size]),
        };
        let values = (0..size).map(|_| dtype.round((deviation * normal()) as f32)).collect();
        (slot.name, values)
    });
    slots.collect()
}

fn train(recipe: &Recipe, tokenizer: &Tokenizer, config: &ModelConfig, base: Weights, out: &Path) -> Result<()> {
    let t = &recipe.training;
    let leaves = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"];
    let lora = LoraConfig {
        r: t.r,
        alpha: t.lora_alpha,
        targets: Targets::Matching(Pattern::Names(leaves.map(String::from).to_vec())),
        ..LoraConfig::default()
    };
    let resolution = resolve(&lora, config)?;
    let adapters = resolution.modules.iter();
    let spec = Spec {
        config: config.clone(),
        compute: DType::F32,
        tokens: t.tokens_per_step,
        base: HashMap::new(),
        adapters: adapters.map(|m| (m.module.name.clone(), AdapterSpec { r: m.r, scale: m.scale })).collect(),
        dropout: 0.0,
        neftune: None,
        policies: vec![Policy::Keep; config.layers],
        streamed: 0,
        loss: LossSpec { chunk: 512, aux: None },
        optimizer: Some(OptimizerSpec {
            state: OptimizerKind::Torch,
            betas: Betas { beta1: 0.9, beta2: t.adam_beta2, eps: 1e-8 },
            weight_decay: 0.0,
            rule: ControlRule { max_norm: Some(t.max_grad_norm), growth_interval: None },
            updates: t.max_steps,
            lora_b_factor: 1.0,
            paging: None,
        }),
        logits_rows: 0,
    };
    let mut session = Session::planned(record(spec)?, Box::new(Cpu::new(CpuOptions::default())))?;
    for tensor in session.model.params.weights.clone() {
        if let (Fill::Dense(view), Some(values)) = (tensor.fill, base.get(&tensor.name)) {
            session.write(view, &values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())?;
        }
    }
    init_adapter(&mut session, recipe.seed)?;
    init_optimizer(&mut session)?;
    let shape = ScheduleKind::parse(&t.lr_scheduler_type, &Default::default())?;
    let rates = Schedule::new(shape, t.learning_rate, t.warmup_steps, t.max_steps)?.table();
    if let Some(optimizer) = session.model.params.optimizer.clone() {
        session.write(optimizer.schedule, &rates)?;
    }

    // Passages below 1000 are never trained on.
    let (mut next, began, mut tokens) = (1000, Instant::now(), 0);
    let held_out = take(tokenizer, recipe.seed, &mut 0, t.tokens_per_step, config.sliding_window);
    for step in 1..=t.max_steps {
        let (batch, items) = take(tokenizer, recipe.seed, &mut next, t.tokens_per_step, config.sliding_window);
        session.begin()?;
        let loss = session.micro(&batch, items, [0, 0])?.loss;
        let update = session.update()?;
        tokens += batch.tokens();
        if step % 20 == 0 || step == 1 {
            let speed = tokens as f64 / began.elapsed().as_secs_f64();
            println!("{step:5} loss {loss:.3} gradient {:.2} {speed:.0} tokens/s", update.grad_norm);
        }
        if step % 200 == 0 || step == t.max_steps {
            let logp = session.eval(&held_out.0, true)?.logp;
            println!("{step:5} held-out loss {:.4}", -logp.iter().sum::<f64>() / held_out.1 as f64);
            save(&mut session, config, &resolution, &base, out)?;
        }
    }
    Ok(())
}

/// The next passages, as many as fit into `room` tokens, and how many labels they have.
fn take(tokenizer: &Tokenizer, seed: u64, next: &mut u64, room: usize, window: Option<usize>) -> (MicroBatch, usize) {
    let (mut documents, mut used) = (Vec::new(), 0);
    loop {
        let ends = (tokenizer.bos(), tokenizer.eos());
        let text = tokenizer.encode(&passage(seed, *next));
        let ids: Vec<u32> = ends.0.into_iter().chain(text).chain(ends.1).collect();
        used += ids.len();
        if used > room {
            break;
        }
        *next += 1;
        documents.push(Document { labels: ids.iter().map(|&id| id as i32).collect(), ids });
    }
    // The first label of a document has nothing before it.
    let items = num_items(&documents) - documents.len();
    (MicroBatch::new(&documents.iter().collect::<Vec<_>>(), window), items)
}

/// Writes the weights with the adapter merged into them.
fn save(s: &mut Session, config: &ModelConfig, targets: &Resolution, base: &Weights, out: &Path) -> Result<()> {
    let dtype = config.torch_dtype.unwrap_or(DType::Bf16);
    let (mut merged, adapter) = (base.clone(), read_adapter(s)?);
    for module in &targets.modules {
        if let (Some(weight), Some(lora)) = (merged.get_mut(&module.module.weight()), adapter.get(&module.module.name))
        {
            add(weight, &delta(module, lora), dtype);
        }
    }
    let outputs: Vec<Output> = tensors(config)
        .into_iter()
        .filter_map(|slot| merged.get(&slot.name).map(|values| Output::floats(slot.name, dtype, slot.shape, values)))
        .collect();
    write(&out.join("model.safetensors"), &outputs)
}
