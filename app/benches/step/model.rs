//! Real architectures with random weights and random texts.

use halfbyte::run::ladder::everywhere;
use halfbyte::run::spec::{BLOCK, base_schemes};
use halfbyte::weights::dummy::fill_base;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::Result;
use halfbyte_core::model::ModelConfig;
use halfbyte_core::model::linears;
use halfbyte_core::model::{AdapterSpec, LossSpec, OptimizerKind, OptimizerSpec, Spec};
use halfbyte_core::op::{Betas, ControlRule};
use halfbyte_core::quant::QuantKind;
use halfbyte_core::quant::Scheme;
use halfbyte_core::session::Session;
use halfbyte_core::session::batch::{Document, MicroBatch, num_items};
use halfbyte_core::session::init::{init_adapter, init_optimizer};
use halfbyte_core::tape::Policy;

const SEED: u64 = 42;

/// The usual recipe: NF4 with double quantization, r = 16 on all linears except head and router, AdamW in f32.
pub fn spec(config: ModelConfig, compute: DType, tokens: usize, policy: Policy, updates: usize) -> Result<Spec> {
    let scheme = Scheme { kind: QuantKind::Nf4, blocksize: BLOCK, double: true };
    let targets = linears(&config).into_iter().filter(|l| l.leaf != "lm_head" && l.leaf != "gate");
    Ok(Spec {
        compute,
        tokens,
        base: base_schemes(&config, None, Some(scheme), &[])?,
        adapters: targets.map(|l| (l.name, AdapterSpec { r: 16, scale: 1.0 })).collect(),
        dropout: 0.0,
        neftune: None,
        policies: everywhere(policy, config.layers),
        streamed: 0,
        loss: LossSpec { chunk: 2048, aux: None },
        optimizer: Some(OptimizerSpec {
            state: OptimizerKind::Torch,
            betas: Betas { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            weight_decay: 0.0,
            rule: ControlRule { max_norm: Some(0.3), growth_interval: (compute == DType::F16).then_some(2000) },
            updates,
            lora_b_factor: 1.0,
            paging: None,
        }),
        logits_rows: 0,
        config,
    })
}

/// Random weights, a fresh adapter and optimizer, and a learning rate for every step.
pub fn fill(s: &mut Session) -> Result<()> {
    fill_base(s, SEED)?;
    init_adapter(s, SEED)?;
    init_optimizer(s)?;
    if let Some(schedule) = s.model.params.optimizer.as_ref().map(|o| o.schedule) {
        s.write(schedule, &vec![2e-4; schedule.cols])?;
    }
    Ok(())
}

/// Texts of these lengths with pseudorandom ids; with `same`, all ids are equal, so that all tokens go to the same
/// experts.
pub fn texts(lengths: &[usize], vocab: usize, window: Option<usize>, same: bool) -> (MicroBatch, usize) {
    let id = |r: usize, i: usize| if same { 17 } else { ((i * 7919 + r * 104_729 + 11) % vocab) as u32 };
    let documents: Vec<Document> = lengths
        .iter()
        .enumerate()
        .map(|(r, &n)| {
            let ids: Vec<u32> = (0..n).map(|i| id(r, i)).collect();
            Document { labels: ids.iter().map(|&id| id as i32).collect(), ids }
        })
        .collect();
    let all: Vec<&Document> = documents.iter().collect();
    (MicroBatch::new(&all, window), num_items(all))
}
