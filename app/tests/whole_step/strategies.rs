//! Runs with the shapes of 7B models: recomputation, graphs, repetition and a varying number of tokens must not change
//! a bit, and the driver must report the memory that was planned.

use crate::cases::Outcome;
use crate::{Case, model, text};
use halfbyte::config::known::known;
use halfbyte_core::device::cuda::{Cuda, CudaOptions, free_memory, workspace};
use halfbyte_core::dtype::DType;
use halfbyte_core::model::record;
use halfbyte_core::session::Session;

const STEPS: usize = 20;
const TEXTS: [usize; 3] = [1024, 700, 1];

pub fn cases() -> Vec<Case> {
    let shapes = ["mistral-7b-v0.1", "llama-2-7b"].into_iter();
    let runs = shapes.map(|name| Case::on_gpu(format!("strategies/{name}, {STEPS} steps"), move || compare(name)));
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
        let spec = model::spec(config, DType::Bf16, capacity, false, batches.len()).map_err(text)?;
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

fn compare(name: &str) -> Outcome {
    let first = run(name, false, true)?;
    for (what, checkpointing, graph) in
        [("a second run", false, true), ("recomputation", true, true), ("no graph", false, false)]
    {
        if run(name, checkpointing, graph)? != first {
            return Err(format!("{what} changed the bits"));
        }
    }
    let loss = |i: usize| f64::from_bits(first.numbers[2 * i]);
    Ok(format!("4 runs alike; loss {:.5} to {:.5}", loss(0), loss(STEPS - 1)))
}

fn run(name: &str, checkpointing: bool, graph: bool) -> Result<Left, String> {
    let (_, config) = known(name).map_err(text)?;
    let (batch, items) = model::texts(&TEXTS, config.vocab_size, config.sliding_window, false);
    let spec = model::spec(config, DType::Bf16, batch.tokens() + 3, checkpointing, STEPS).map_err(text)?;
    let before = free_memory(0).map_err(text)?;
    let device = Cuda::new(CudaOptions { graph, ..CudaOptions::default() }).map_err(text)?;
    let mut s = Session::planned(record(spec).map_err(text)?, Box::new(device)).map_err(text)?;
    model::fill(&mut s).map_err(text)?;
    let mut numbers = Vec::new();
    for step in 0..STEPS {
        s.begin().map_err(text)?;
        let loss = s.micro(&batch, items, [1, step as i32]).map_err(text)?.loss;
        let norm = s.update().map_err(text)?.grad_norm;
        if !loss.is_finite() || !norm.is_finite() {
            return Err(format!("step {step}: loss {loss}, norm {norm}"));
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
