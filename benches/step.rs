//! Whole training steps of real architectures with random weights, on the GPU: time, memory, and whether the bits repeat.
//!
//!     cargo bench --bench step -- --config tests/data/configs/mistral-7b-v0.1 --rows 4 --length 2048 --steps 10
//!
//! Without a GPU it says so and ends.

use halfbyte::config::model::{ModelConfig, QuantKind};
use halfbyte::data::batch::{Document, MicroBatch, num_items};
use halfbyte::device::cuda::{Cuda, CudaOptions, free_memory, list};
use halfbyte::dtype::{DType, Scheme};
use halfbyte::model::{AdapterSpec, Fill, LossSpec, OptimizerKind, OptimizerSpec, Spec, record};
use halfbyte::op::{Betas, ControlRule, Phase};
use halfbyte::train::build::{BLOCK, base_schemes};
use halfbyte::train::load::{init_adapter, init_optimizer};
use halfbyte::train::session::Session;
use halfbyte::weights::names::linears;
use std::path::Path;
use std::time::Instant;

/// What is measured.
struct Wanted {
    config: String,
    rows: usize,
    length: usize,
    steps: usize,
    layers: Option<usize>,
    checkpointing: bool,
    graph: bool,
    f16: bool,
    profile: bool,
}

fn wanted() -> Wanted {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    let number = |name: &str, default| value(name).and_then(|v| v.parse().ok()).unwrap_or(default);
    let flag = |name: &str| args.iter().any(|a| a == name);
    Wanted {
        config: value("--config").unwrap_or("tests/data/configs/mistral-7b-v0.1".into()),
        rows: number("--rows", 4),
        length: number("--length", 2048),
        steps: number("--steps", 10),
        layers: value("--layers").and_then(|v| v.parse().ok()),
        checkpointing: flag("--checkpointing"),
        graph: !flag("--no-graph"),
        f16: flag("--f16"),
        profile: flag("--profile"),
    }
}

fn main() {
    if list().map_or(true, |gpus| gpus.is_empty()) {
        println!("step: skipped, there is no GPU");
        return;
    }
    if let Err(error) = run(&wanted()) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn run(w: &Wanted) -> halfbyte::error::Result<()> {
    let mut config = ModelConfig::open(Path::new(&w.config))?;
    config.layers = w.layers.unwrap_or(config.layers);
    let scheme = Scheme { kind: QuantKind::Nf4, blocksize: BLOCK, double: true };
    // All linears but head and router, as the usual recipes have it.
    let targets = linears(&config).into_iter().filter(|l| l.leaf != "lm_head" && l.leaf != "gate");
    let spec = Spec {
        compute: if w.f16 { DType::F16 } else { DType::Bf16 },
        tokens: w.rows * w.length,
        base: base_schemes(&config, None, Some(scheme), &[])?,
        adapters: targets.map(|l| (l.name, AdapterSpec { r: 16, scale: 1.0 })).collect(),
        dropout: 0.0,
        checkpointing: w.checkpointing,
        loss: LossSpec { chunk: 2048, aux: None },
        optimizer: Some(OptimizerSpec {
            state: OptimizerKind::Torch,
            betas: Betas { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            weight_decay: 0.0,
            rule: ControlRule { max_norm: Some(0.3), growth_interval: w.f16.then_some(2000) },
            updates: w.steps,
            lora_b_factor: 1.0,
        }),
        logits_rows: 0,
        config,
    };
    let before = free_memory(0)?;
    let recorded = Instant::now();
    let model = record(spec)?;
    let ops = model.program.ops(Phase::Micro).len();
    let device = Cuda::new(CudaOptions { graph: w.graph, ..CudaOptions::default() })?;
    let mut s = Session::new(model, Box::new(device))?;
    println!(
        "{} {}×{}: {ops} ops, recorded, planned, allocated in {:.2} s",
        w.config,
        w.rows,
        w.length,
        recorded.elapsed().as_secs_f64()
    );
    fill(&mut s)?;
    let (batch, items) = batch(w, s.model.spec.config.vocab_size, s.model.spec.config.sliding_window);
    let mut times = Vec::new();
    let mut first = (0.0, 0.0);
    for step in 0..w.steps {
        let started = Instant::now();
        s.begin()?;
        let loss = s.micro(&batch, items, [1, 0])?.loss;
        let update = s.update()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        if step == 0 {
            first = (loss, update.grad_norm);
        }
        println!("step {step}: loss {loss:.6} grad_norm {:.6e} {:.1} ms", update.grad_norm, times[step]);
    }
    // The state decides about the bits of everything after it.
    let hash = match s.model.params.master {
        Some((master, _)) => fnv(&s.read_bytes(master)?),
        None => 0,
    };
    let used = before.saturating_sub(free_memory(0)?);
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let tokens = w.rows * w.length;
    println!(
        "RESULT {} {}x{} ckpt={} graph={} first loss {:.6} norm {:.6e} hash {hash:016x} median {median:.1} ms {:.0} tokens/s plan {:.2} GiB driver {:.2} GiB",
        w.config,
        w.rows,
        w.length,
        w.checkpointing,
        w.graph,
        first.0,
        first.1,
        tokens as f64 / median * 1e3,
        s.plan.bytes as f64 / f64::from(1 << 30),
        used as f64 / f64::from(1 << 30),
    );
    if w.profile {
        profile(&mut s, tokens)?;
    }
    Ok(())
}

/// Time of the micro phase by kind of op.
fn profile(s: &mut Session, tokens: usize) -> halfbyte::error::Result<()> {
    s.begin()?;
    let timings = s.device().profile(Phase::Micro, tokens)?;
    let mut by_name = std::collections::BTreeMap::<&str, (usize, f64)>::new();
    for t in &timings {
        let entry = by_name.entry(s.model.program.ops(Phase::Micro)[t.op].name()).or_default();
        entry.0 += 1;
        entry.1 += t.time.as_secs_f64() * 1e3;
    }
    let mut rows: Vec<_> = by_name.into_iter().collect();
    rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    for (name, (count, ms)) in rows {
        println!("  {name:16} {count:6} ops {ms:9.2} ms");
    }
    Ok(())
}

/// Random weights: codes, scales of a normal model, embeddings of deviation 0.02, norms 1.
fn fill(s: &mut Session) -> halfbyte::error::Result<()> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let bytes: Vec<u8> = (0..1 << 22).flat_map(|_| random().to_le_bytes()).collect();
    for tensor in s.model.params.weights.clone() {
        let (rows, cols) = tensor.shape;
        match tensor.fill {
            Fill::Dense(view) if rows == 1 => s.write(view, &vec![1.0; cols])?,
            Fill::Dense(view) => {
                let small = |i: usize| (f64::from(bytes[i % bytes.len()]) / 127.5 - 1.0) * 0.035;
                for row in 0..rows {
                    let values: Vec<f64> = (0..cols).map(|i| small(row * 4099 + i)).collect();
                    s.write(halfbyte::op::View { offset: view.offset + row * view.ld, ..view }, &values)?;
                }
            }
            Fill::Quantized(q) => {
                let codes = rows * cols / 2;
                let piece = |n: usize| bytes.iter().cycle().take(n).copied().collect::<Vec<u8>>();
                s.write_bytes(q.codes, &piece(codes))?;
                s.write_bytes(q.absmax, &piece(q.absmax.cols))?;
                if let Some(nested) = q.nested {
                    s.write(nested.absmax, &vec![0.01; nested.absmax.cols])?;
                    s.write(nested.offset, &[0.05])?;
                }
            }
        }
    }
    init_adapter(s, 42)?;
    init_optimizer(s)?;
    if let Some(schedule) = s.model.params.optimizer.as_ref().map(|o| o.schedule) {
        s.write(schedule, &vec![2e-4; schedule.cols])?;
    }
    Ok(())
}

fn batch(w: &Wanted, vocab: usize, window: Option<usize>) -> (MicroBatch, usize) {
    let documents: Vec<Document> = (0..w.rows)
        .map(|r| {
            let ids: Vec<u32> = (0..w.length).map(|i| ((i * 7919 + r * 104729) % vocab) as u32).collect();
            Document { labels: ids.iter().map(|&id| id as i32).collect(), ids }
        })
        .collect();
    let all: Vec<&Document> = documents.iter().collect();
    (MicroBatch::new(&all, window), num_items(all))
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
