//! Runs with the shapes of 7B models: recomputation, graphs, repetition and a varying number of tokens must not change
//! a bit, and the driver must report the memory that was planned.

use crate::cases::Outcome;
use crate::{Case, model, text};
use halfbyte::config::known::known;
use halfbyte::run::ladder::everywhere;
use halfbyte_core::device::cuda::{Cuda, CudaOptions, free_memory, workspace};
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{OptimizerSpec, Paging, Spec, record};
use halfbyte_core::session::batch::MicroBatch;
use halfbyte_core::session::{Session, Update};
use halfbyte_core::tape::Policy;

const STEPS: usize = 20;
const TEXTS: [usize; 3] = [1024, 700, 1];

pub fn cases() -> Vec<Case> {
    let shapes = [
        ("mistral-7b-v0.1", None, DType::Bf16),
        ("llama-2-7b", Some(4), DType::F16),
        ("mixtral-8x7b-v0.1", Some(2), DType::Bf16),
        ("mixtral-8x7b-v0.1", Some(2), DType::F16),
    ];
    let runs = shapes.into_iter().map(|(name, layers, compute)| {
        let called = format!("strategies/{name} {compute:?}, {STEPS} steps");
        Case::on_gpu(called, move || compare(name, layers, compute))
    });
    let lengths = ["mistral-7b-v0.1", "mixtral-8x7b-v0.1"].into_iter();
    let lengths = lengths
        .map(|name| Case::on_gpu(format!("strategies/{name}, one layer, few tokens first"), move || few_first(name)));
    runs.chain(lengths).collect()
}

/// Direct launches are sized for the live tokens, captured ones for the capacity: this must not change a bit. Kernels
/// that are first needed during a capture must load within it.
fn few_first(name: &str) -> Outcome {
    let run = |graph: bool| -> Result<Vec<Vec<u8>>, String> {
        let (_, mut config) = known(name).map_err(text)?;
        config.layers = 1;
        let batches: Vec<_> = [&[1][..], &TEXTS, &[1, 2], &TEXTS, &[1]]
            .map(|lengths| model::texts(lengths, config.vocab_size, config.sliding_window, false))
            .into();
        let capacity = batches.iter().map(|(batch, _)| batch.tokens()).max().unwrap_or_default() + 300;
        let spec = model::spec(config, DType::Bf16, capacity, Policy::Keep, batches.len()).map_err(text)?;
        let device = Cuda::new(CudaOptions { graph, ..CudaOptions::default() }).map_err(text)?;
        let mut s = Session::planned(record(spec).map_err(text)?, Box::new(device)).map_err(text)?;
        model::fill(&mut s).map_err(text)?;
        let master = s.model.params.master.ok_or("no adapter")?.0;
        let adapters = batches.iter().map(|(batch, items)| {
            s.begin()?;
            s.micro(batch, *items, [1, 0])?;
            s.update()?;
            s.read_bytes(master)
        });
        adapters.collect::<halfbyte_core::error::Result<_>>().map_err(text)
    };
    let (captured, launched) = (run(true)?, run(false)?);
    let same = captured.iter().zip(&launched).take_while(|(a, b)| a == b).count();
    let moved = captured.windows(2).all(|pair| pair[0] != pair[1]);
    let of = launched.len();
    if same == of && moved { Ok(format!("{of} updates alike")) } else { Err(format!("{same} of {of} updates alike")) }
}

/// The result of a run: losses and norms, then the adapter.
#[derive(PartialEq)]
struct Left {
    numbers: Vec<u64>,
    adapter: Vec<u8>,
}

fn compare(name: &str, layers: Option<usize>, compute: DType) -> Outcome {
    let (_, mut config) = known(name).map_err(text)?;
    config.layers = layers.unwrap_or(config.layers);
    let layers = config.layers;
    let (batch, items) = model::texts(&TEXTS, config.vocab_size, config.sliding_window, false);
    let kept = model::spec(config, compute, batch.tokens() + 3, Policy::Keep, STEPS).map_err(text)?;
    let run = |spec: Spec, graph| run(spec, &batch, items, graph);
    let with = |policies| Spec { policies, ..kept.clone() };
    let all = |policy| with(everywhere(policy, layers));
    let paged = |spec: Spec| {
        let paging = Some(Paging { elements: 1 << 20, on_host: 30 });
        Spec { optimizer: spec.optimizer.map(|optimizer| OptimizerSpec { paging, ..optimizer }), ..spec }
    };
    // The first half of the blocks has its inputs in host memory, the others are mixed.
    let mut mixed = everywhere(Policy::RecomputeGateUp, layers);
    mixed[..layers / 2].fill(Policy::Offload);
    mixed[layers - 1] = Policy::Keep;
    let first = run(kept.clone(), true)?;
    let runs = [
        ("a second run", kept.clone(), true),
        ("recomputing gate and up", all(Policy::RecomputeGateUp), true),
        ("recomputing blocks", all(Policy::Recompute), true),
        ("block inputs in host memory", all(Policy::Offload), true),
        ("a mix of policies", with(mixed), true),
        ("pages of optimizer state in host memory", paged(kept.clone()), true),
        ("streamed weights", Spec { streamed: layers, ..kept.clone() }, true),
        ("all of them", paged(Spec { streamed: layers, ..all(Policy::Offload) }), true),
        ("no graph", paged(Spec { streamed: layers, ..all(Policy::Offload) }), false),
    ];
    let count = runs.len() + 1;
    for (what, spec, graph) in runs {
        if run(spec, graph)? != first {
            return Err(format!("{what} changed the bits"));
        }
    }
    let loss = |i: usize| f64::from_bits(first.numbers[2 * i]);
    Ok(format!("{count} runs alike; loss {:.5} to {:.5}", loss(0), loss(STEPS - 1)))
}

fn run(spec: Spec, batch: &MicroBatch, items: usize, graph: bool) -> Result<Left, String> {
    let compute = spec.compute;
    let before = free_memory(0).map_err(text)?;
    let device = Cuda::new(CudaOptions { graph, ..CudaOptions::default() }).map_err(text)?;
    let mut s = Session::planned(record(spec).map_err(text)?, Box::new(device)).map_err(text)?;
    model::fill(&mut s).map_err(text)?;
    let (mut numbers, mut skips) = (Vec::new(), 0);
    for step in 0..STEPS {
        s.begin().map_err(text)?;
        let loss = s.micro(batch, items, [1, step as i32]).map_err(text)?.loss;
        let Update { grad_norm: norm, skipped, .. } = s.update().map_err(text)?;
        // In f16, the first loss scales may be too large.
        skips += usize::from(skipped);
        if !loss.is_finite() || skips > if compute == DType::F16 { STEPS / 2 } else { 0 } {
            return Err(format!("step {step}: loss {loss}, norm {norm}, {skips} updates skipped"));
        }
        numbers.extend([loss.to_bits(), norm.to_bits()]);
    }
    let (used, planned) = (before - free_memory(0).map_err(text)?, s.plan.bytes + workspace(&s.model.program));
    if used.abs_diff(planned) > (planned / 100).max(64 << 20) {
        return Err(format!("{} MiB were planned, {} MiB were allocated from the driver", planned >> 20, used >> 20));
    }
    let master = s.model.params.master.ok_or("no adapter")?.0;
    Ok(Left { numbers, adapter: s.read_bytes(master).map_err(text)? })
}
