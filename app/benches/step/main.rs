//! Whole training steps of real architectures with random weights, on the GPU: time, memory, and whether the bits
//! repeat.
//!
//!     cargo bench --bench step -- --model mistral-7b-v0.1 --rows 4 --length 2048 --steps 10 [--seconds 60]
//!         [--dropout 0.05] [--checkpointing] [--arch sm_80] [--no-graph] [--f16] [--layers N] [--profile]
//!
//! The burst is the median of `steps` steps. The sustained part takes `seconds`, of which the first ten are left out. Watts and
//! MHz are means of the sensors' readings after each step.
//!
//! Without a GPU it prints a message and exits.

mod model;

use halfbyte::config::known::known;
use halfbyte::run::spec::PAGE;
use halfbyte::sensors::Nvml;
use halfbyte_core::device::cuda::{Arch, Cuda, CudaOptions, free_memory, list};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::Result as CoreResult;
use halfbyte_core::model::{OptimizerKind, Paging, record};
use halfbyte_core::op::Phase;
use halfbyte_core::session::Session;
use halfbyte_core::session::batch::MicroBatch;
use halfbyte_core::tape::Policy;
use std::time::Instant;

/// The command line: what to measure.
struct Wanted {
    model: String,
    rows: usize,
    length: usize,
    steps: usize,
    /// Seconds of the sustained part, after the burst of `steps`.
    seconds: f64,
    dropout: f64,
    layers: Option<usize>,
    policy: Policy,
    rank: usize,
    adam8: bool,
    paged: bool,
    streamed: bool,
    arch: Option<Arch>,
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
        model: value("--model").unwrap_or("mistral-7b-v0.1".into()),
        rows: number("--rows", 4),
        length: number("--length", 2048),
        steps: number("--steps", 10),
        seconds: value("--seconds").and_then(|v| v.parse().ok()).unwrap_or(0.0),
        dropout: value("--dropout").and_then(|v| v.parse().ok()).unwrap_or(0.0),
        layers: value("--layers").and_then(|v| v.parse().ok()),
        policy: policy(value("--policy").as_deref()),
        rank: number("--rank", 16),
        adam8: flag("--adam8"),
        paged: flag("--paged"),
        streamed: flag("--streamed"),
        arch: value("--arch").map(|v| v.parse().expect("a code path")),
        graph: !flag("--no-graph"),
        f16: flag("--f16"),
        profile: flag("--profile"),
    }
}

fn policy(name: Option<&str>) -> Policy {
    match name {
        None | Some("keep") => Policy::Keep,
        Some("gate-up") => Policy::RecomputeGateUp,
        Some("recompute") => Policy::Recompute,
        Some("offload") => Policy::Offload,
        Some(other) => panic!("--policy {other}: expected keep, gate-up, recompute or offload"),
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

fn run(w: &Wanted) -> CoreResult<()> {
    let (_, mut config) = known(&w.model)?;
    config.layers = w.layers.unwrap_or(config.layers);
    let compute = if w.f16 { DType::F16 } else { DType::Bf16 };
    let mut spec = model::spec(config, compute, w.rows * w.length, w.policy, w.steps)?;
    spec.dropout = w.dropout;
    spec.streamed = if w.streamed { spec.config.layers } else { 0 };
    spec.adapters.values_mut().for_each(|adapter| adapter.r = w.rank);
    if let Some(optimizer) = &mut spec.optimizer {
        optimizer.state = if w.adam8 { OptimizerKind::Bitsandbytes8 } else { optimizer.state };
        optimizer.paging = w.paged.then_some(Paging { elements: PAGE, on_host: usize::MAX });
    }
    let before = free_memory(0)?;
    let recorded = Instant::now();
    let model = record(spec)?;
    let ops = model.program.ops(Phase::Micro).len();
    let device = Cuda::new(CudaOptions { arch: w.arch, graph: w.graph, ..CudaOptions::default() })?;
    let arch = device.arch();
    let mut s = Session::planned(model, Box::new(device))?;
    println!(
        "{} {}×{}: {ops} ops, recorded, planned, allocated in {:.2} s",
        w.model,
        w.rows,
        w.length,
        recorded.elapsed().as_secs_f64()
    );
    model::fill(&mut s)?;
    let config = &s.model.spec.config;
    let (batch, items) = model::texts(&vec![w.length; w.rows], config.vocab_size, config.sliding_window, false);
    let mut first = (0.0, 0.0);
    let nvml = Nvml::of(s.device()).ok();
    let mut burst = Timed::default();
    for step in 0..w.steps {
        let (loss, norm) = burst.step(&mut s, &batch, items, nvml.as_ref())?;
        if step == 0 {
            first = (loss, norm);
        }
        println!("step {step}: loss {loss:.6} grad_norm {norm:.6e} {:.1} ms", burst.times[step]);
    }
    // The state determines the bits of all later results.
    let hash = match s.model.params.master {
        Some((master, _)) => fnv(&s.read_bytes(master)?),
        None => 0,
    };
    let used = before.saturating_sub(free_memory(0)?);
    let tokens = w.rows * w.length;
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    println!(
        "RESULT {} {}x{} {arch} {:?} r={} adam8={} paged={} streamed={} graph={} dropout={} first loss {:.6} norm {:.6e} hash {hash:016x} burst {} plan {:.2} GiB host {:.2} GiB driver {:.2} GiB",
        w.model,
        w.rows,
        w.length,
        w.policy,
        w.rank,
        w.adam8,
        w.paged,
        w.streamed,
        w.graph,
        w.dropout,
        first.0,
        first.1,
        burst.summary(tokens),
        gib(s.plan.bytes),
        gib(s.plan.host_bytes),
        gib(used),
    );
    if w.seconds > 0.0 {
        let mut sustained = Timed::default();
        let started = Instant::now();
        while started.elapsed().as_secs_f64() < w.seconds {
            if started.elapsed().as_secs_f64() < WARM_UP {
                sustained = Timed::default();
            }
            sustained.step(&mut s, &batch, items, nvml.as_ref())?;
        }
        println!("SUSTAINED {:.0} s: {}", w.seconds, sustained.summary(tokens));
    }
    if w.profile {
        profile(&mut s, tokens)?;
    }
    Ok(())
}

/// Seconds of the sustained part that are left out: the card is not warm yet.
const WARM_UP: f64 = 10.0;

/// Steps with their times in ms, and the readings of the sensors after each.
#[derive(Default)]
struct Timed {
    times: Vec<f64>,
    watts: Vec<f64>,
    megahertz: Vec<f64>,
}

impl Timed {
    /// Runs a step; returns the loss and the gradient's norm.
    fn step(
        &mut self,
        s: &mut Session,
        batch: &MicroBatch,
        items: usize,
        nvml: Option<&Nvml>,
    ) -> CoreResult<(f64, f64)> {
        let started = Instant::now();
        s.begin()?;
        let loss = s.micro(batch, items, [1, 0])?.loss;
        let norm = s.update()?.grad_norm;
        self.times.push(started.elapsed().as_secs_f64() * 1e3);
        if let Some(sensors) = nvml.map(Nvml::read) {
            self.watts.extend(sensors.power);
            self.megahertz.extend(sensors.clock.map(f64::from));
        }
        Ok((loss, norm))
    }

    fn summary(&self, tokens: usize) -> String {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        format!(
            "median {median:.1} ms {:.0} tokens/s {:.0} W {:.0} MHz ({} steps)",
            tokens as f64 / median * 1e3,
            mean(&self.watts),
            mean(&self.megahertz),
            times.len()
        )
    }
}

/// Time of the micro phase by kind of op.
fn profile(s: &mut Session, tokens: usize) -> CoreResult<()> {
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

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
